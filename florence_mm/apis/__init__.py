"""Inference and model listing."""

from typing import Any

__all__ = ['DetectionInferencer', 'VideoInferencer']


def __getattr__(name: str) -> Any:
    # on demand: the doctor of this package must start where models do not import
    if name == 'DetectionInferencer':
        from .detection_inferencer import DetectionInferencer

        return DetectionInferencer
    if name == 'VideoInferencer':
        from .video_inferencer import VideoInferencer

        return VideoInferencer
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
