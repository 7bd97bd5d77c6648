"""Backbones for images and clips: CoSwin, Video CoSwin and CLIP's image tower. Not here: their layers (``layers``)."""

from .clip_vision import CLIPVisionTower
from .coswin import CoSwin
from .video_coswin import VideoCoSwin

__all__ = ['CLIPVisionTower', 'CoSwin', 'VideoCoSwin']
