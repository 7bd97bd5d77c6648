"""Heads: from features to losses and predictions, of detectors and (``multimodal``) of models over images and texts.

Not here: a class of one family; a fusion head names what it needs of a model by its protocol.
"""

from typing import TYPE_CHECKING, Any

from florence_mm.moved import moved_names

from .multimodal import FusionCaptionHead, FusionITMHead, FusionMLMHead, FusionVQAHead

__all__ = ['DynamicHead', 'FusionCaptionHead', 'FusionITMHead', 'FusionMLMHead', 'FusionVQAHead']

if TYPE_CHECKING:
    from .dynamic_head import DynamicHead

_moved = moved_names(__name__, {'DyHeadBlock': 'florence_mm.models.layers.dyhead_block'})


def __getattr__(name: str) -> Any:
    if name != 'DynamicHead':
        return _moved(name)
    # built on mmdet, whose import takes seconds that UniCL and METER do without
    from .dynamic_head import DynamicHead

    return DynamicHead
