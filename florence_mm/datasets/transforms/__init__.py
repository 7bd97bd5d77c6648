"""Pipeline transforms: loading, augmenting and packing image-text-label samples, and reading videos."""

from .formatting import PackImageText, PackVideoText, PackVQA
from .geometry import RandomAffineImage
from .loading import LoadImage
from .prompt import RandomPrompt
from .resizing import RandomResizedCrop, Resize, ResizeEdge
from .tasks import PackTask
from .video import VideoDecode, VideoInit

__all__ = [
    'LoadImage',
    'PackImageText',
    'PackTask',
    'PackVQA',
    'PackVideoText',
    'RandomAffineImage',
    'RandomPrompt',
    'RandomResizedCrop',
    'Resize',
    'ResizeEdge',
    'VideoDecode',
    'VideoInit',
]
