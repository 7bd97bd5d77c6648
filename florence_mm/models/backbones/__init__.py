"""Backbones for images and clips: CoSwin and Video CoSwin. Not here: their shared layers (``layers``)."""

from .coswin import CoSwin
from .video_coswin import VideoCoSwin

__all__ = ['CoSwin', 'VideoCoSwin']
