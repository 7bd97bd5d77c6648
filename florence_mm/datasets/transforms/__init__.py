"""Transforms of image-text-label samples."""

from .formatting import PackImageText
from .geometry import RandomAffineImage
from .loading import LoadImage
from .prompt import RandomPrompt

__all__ = ['LoadImage', 'PackImageText', 'RandomAffineImage', 'RandomPrompt']
