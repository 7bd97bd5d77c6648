"""Heads, which compute losses and predictions from features: of detectors, classifiers and fusion models.

Not here: a class of one model family; a fusion head uses a model by the protocol that it names.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from florence_mm.moved import moved_names

from .multimodal import (
    FusionCaptionHead,
    FusionITCHead,
    FusionITMHead,
    FusionMLMHead,
    FusionVQAHead,
    FusionWrittenAnswerHead,
)
from .perceiver import PerceiverDecoder, PlaceQueryHead
from .text_initialized_head import TextInitializedHead

__all__ = [
    'DynamicDETRHead',
    'DynamicHead',
    'FusionCaptionHead',
    'FusionITCHead',
    'FusionITMHead',
    'FusionMLMHead',
    'FusionVQAHead',
    'FusionWrittenAnswerHead',
    'PerceiverDecoder',
    'PlaceQueryHead',
    'TextInitializedHead',
]

if TYPE_CHECKING:
    from .dynamic_detr_head import DynamicDETRHead
    from .dynamic_head import DynamicHead

_moved = moved_names(__name__, {'DyHeadBlock': 'florence_mm.models.layers.dyhead_block'})


# they need mmdet, whose import takes seconds that UniCL and METER save
_LATE = {'DynamicDETRHead': 'dynamic_detr_head', 'DynamicHead': 'dynamic_head'}


def __getattr__(name: str) -> Any:
    return getattr(import_module(f'.{_LATE[name]}', __name__), name) if name in _LATE else _moved(name)
