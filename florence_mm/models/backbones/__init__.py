"""Visual backbones."""

from .coswin import CoSwin
from .video_coswin import VideoCoSwin

__all__ = ['CoSwin', 'VideoCoSwin']
