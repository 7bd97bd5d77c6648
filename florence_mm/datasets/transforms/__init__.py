"""Pipeline transforms: loading, augmenting and packing image-text-label samples, and reading videos."""

from .documents import PackDocument
from .formatting import PackImageText, PackVideoText, PackVQA
from .geometry import RandomAffineImage
from .loading import LoadImage
from .places import PackPlaces
from .prompt import RandomPrompt
from .regions import LoadRegions
from .resizing import RandomResizedCrop, Resize, ResizeEdge, ResizeWithin
from .tasks import PackTask, RandomFlipTask
from .video import VideoDecode, VideoInit

__all__ = [
    'LoadImage',
    'LoadRegions',
    'PackDocument',
    'PackImageText',
    'PackPlaces',
    'PackTask',
    'PackVQA',
    'PackVideoText',
    'RandomAffineImage',
    'RandomFlipTask',
    'RandomPrompt',
    'RandomResizedCrop',
    'Resize',
    'ResizeEdge',
    'ResizeWithin',
    'VideoDecode',
    'VideoInit',
]
