"""Inferencers: files in, plain dicts, images and videos out, in three lines of Python.

Not here: mathematics, which models have, and drawing, which ``visualization`` does.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    'DetectionInferencer': 'detection_inferencer',
    'MultimodalInferencer': 'multimodal_inferencer',
    'VideoInferencer': 'video_inferencer',
}

__all__ = ['DetectionInferencer', 'MultimodalInferencer', 'VideoInferencer']


def __getattr__(name: str) -> Any:
    # on demand: the doctor of this package must start where models do not import
    if name in _MODULES:
        return getattr(import_module(f'{__name__}.{_MODULES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
