"""Heads of detectors."""

from .dyhead_block import DyHeadBlock
from .dynamic_head import DynamicHead

__all__ = ['DyHeadBlock', 'DynamicHead']
