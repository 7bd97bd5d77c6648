"""Heads of detectors and of fusion models."""

from typing import TYPE_CHECKING, Any

from .dyhead_block import DyHeadBlock
from .multimodal import FusionCaptionHead, FusionITMHead, FusionMLMHead, FusionVQAHead

__all__ = ['DyHeadBlock', 'DynamicHead', 'FusionCaptionHead', 'FusionITMHead', 'FusionMLMHead', 'FusionVQAHead']

if TYPE_CHECKING:
    from .dynamic_head import DynamicHead


def __getattr__(name: str) -> Any:
    if name != 'DynamicHead':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    # built on mmdet, whose import takes seconds that UniCL and METER do without
    from .dynamic_head import DynamicHead

    return DynamicHead
