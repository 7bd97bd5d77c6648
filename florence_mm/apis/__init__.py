"""Inferencers: predictions for files with a trained model, as plain dicts and drawn images and videos.

Not here: computations, which are in models, and drawing (``visualization``).
"""

from importlib import import_module
from typing import Any

_MODULES = {
    'DetectionInferencer': 'detection_inferencer',
    'ImageInferencer': 'image_inferencer',
    'MultimodalInferencer': 'multimodal_inferencer',
    'RegionInferencer': 'region_inferencer',
    'RetrievalInferencer': 'retrieval_inferencer',
    'TaskInferencer': 'task_inferencer',
    'VideoInferencer': 'video_inferencer',
    'LoadedModel': 'loaded_model',
    'ModelEntry': 'zoo',
    'from_pretrained': 'zoo',
    'get_model': 'zoo',
    'init_model': 'zoo',
    'list_models': 'zoo',
    'model_entry': 'zoo',
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    # imported on demand, as the doctor must start even if models cannot be imported
    if name in _MODULES:
        return getattr(import_module(f'{__name__}.{_MODULES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
