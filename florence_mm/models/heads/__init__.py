"""Heads of detectors and of fusion models."""

from .dyhead_block import DyHeadBlock
from .dynamic_head import DynamicHead
from .multimodal import FusionCaptionHead, FusionITMHead, FusionMLMHead, FusionVQAHead

__all__ = ['DyHeadBlock', 'DynamicHead', 'FusionCaptionHead', 'FusionITMHead', 'FusionMLMHead', 'FusionVQAHead']
