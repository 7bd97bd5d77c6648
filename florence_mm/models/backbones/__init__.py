"""Encoders of images and clips: CoSwin and Video CoSwin. Not here: the block they share (``layers``)."""

from .coswin import CoSwin
from .video_coswin import VideoCoSwin

__all__ = ['CoSwin', 'VideoCoSwin']
