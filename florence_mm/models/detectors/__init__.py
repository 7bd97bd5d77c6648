"""Detectors: the zero-shot detector, Dynamic DETR. Not here: dense heads and layers of detectors."""

from typing import TYPE_CHECKING, Any

from .zero_shot_detector import ZeroShotDetector

__all__ = ['DynamicDETR', 'DynamicDETREncoder', 'ZeroShotDetector']

if TYPE_CHECKING:
    from .dynamic_detr import DynamicDETR, DynamicDETREncoder


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    # they need mmdet, whose import takes seconds that other models save
    from . import dynamic_detr

    return getattr(dynamic_detr, name)
