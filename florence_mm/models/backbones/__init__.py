"""Backbones for images and clips: CoSwin, Video CoSwin, DaViT, CLIP's towers, Perceiver.

Not here: their layers (``layers``).
"""

from .clip_resnet import CLIPResNet
from .clip_vision import CLIPVisionTower
from .coswin import CoSwin
from .davit import FlorenceDaViT
from .perceiver import Perceiver
from .video_coswin import VideoCoSwin

__all__ = ['CLIPResNet', 'CLIPVisionTower', 'CoSwin', 'FlorenceDaViT', 'Perceiver', 'VideoCoSwin']
