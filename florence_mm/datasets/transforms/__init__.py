"""Pipeline transforms: loading, augmenting and packing image-text-label samples, and reading videos."""

from .documents import PackDocument
from .formatting import PackImageText, PackVideoText, PackVQA
from .geometry import RandomAffineImage
from .loading import LoadImage
from .prompt import RandomPrompt
from .resizing import RandomResizedCrop, Resize, ResizeEdge
from .tasks import PackTask, RandomFlipTask
from .video import VideoDecode, VideoInit

__all__ = [
    'LoadImage',
    'PackDocument',
    'PackImageText',
    'PackTask',
    'PackVQA',
    'PackVideoText',
    'RandomAffineImage',
    'RandomFlipTask',
    'RandomPrompt',
    'RandomResizedCrop',
    'Resize',
    'ResizeEdge',
    'VideoDecode',
    'VideoInit',
]
