"""Preprocessing as a file tells it: the steps of the test pipeline and the normalisation, without config and model.

Shapes: ``H, W`` of a picture, ``V`` views of a video, ``T`` frames of a clip.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from torch import nn

from florence_mm.errors import DataError, UsageError
from florence_mm.formats.image import WHITE, read_image
from florence_mm.registry import TRANSFORMS


class Prepared(NamedTuple):
    """A picture or video as a file takes it.

    Attributes:
        values: ``(3, H, W)``, of a video ``(V, 3, T, H, W)``, float32, normalised and without padding.
        scale: factors ``(width, height)`` from the original to ``values``.
        original: height and width of the original picture; None for a video.
    """

    values: np.ndarray
    scale: tuple[float, float]
    original: tuple[int, int] | None


def describe_preprocessing(
    pipeline: Sequence[Mapping[str, Any]], preprocessor: nn.Module, default_scope: str
) -> dict[str, Any]:
    """Describe a test pipeline and the model's data preprocessor by plain values, which a file keeps.

    Args:
        pipeline: configs of the transforms.
        preprocessor: mmengine's, mmdet's, mmaction2's, or :class:`ImageTextDataPreprocessor`.
        default_scope: package in which unscoped types are looked up.

    Raises:
        UsageError: a step has an argument that is not a plain value.
    """
    names = [_name(step) for step in pipeline]
    is_video = any(name.endswith('Decode') for name in names)
    loaders = [step for step, name in zip(pipeline, names, strict=True) if 'LoadImage' in name]
    kept = []
    for step, name in zip(pipeline, names, strict=True):
        if step in loaders or 'Annotations' in name:
            continue
        if is_video and name.endswith(('Init', 'Decode')):
            step = {'type': f'florence_mm.Video{"Init" if name.endswith("Init") else "Decode"}'}
        kept.append({**step, 'type': step['type'] if isinstance(step['type'], str) else _name(step)})
    try:
        transforms = json.loads(json.dumps(kept))
    except TypeError as error:
        raise UsageError(
            f'the test pipeline ({", ".join(names)}) has an argument that a file cannot keep ({error}); use plain '
            'values in it'
        ) from None
    mean, std = (getattr(preprocessor, name, None) for name in ('mean', 'std'))
    return {
        'input': 'video' if is_video else 'image',
        # mmcv and mmdet read BGR, ours RGB
        'channels': 'BGR' if loaders and _name(loaders[0]) != 'LoadImage' else 'RGB',
        'float32': any(bool(step.get('to_float32')) for step in loaders),
        'transforms': transforms,
        'default_scope': default_scope,
        'swap_channels': bool(
            getattr(preprocessor, '_channel_conversion', False) or getattr(preprocessor, 'to_rgb', False)
        ),
        'mean': [0.0] * 3 if mean is None else mean.flatten().tolist(),
        'std': [1.0] * 3 if std is None else std.flatten().tolist(),
        'pad_divisor': int(getattr(preprocessor, 'pad_size_divisor', 1)),
        'pad_value': float(getattr(preprocessor, 'pad_value', 0)),
    }


def _name(step: Mapping[str, Any]) -> str:
    kind = step['type']
    return (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]


class Preparation:
    """Pictures and videos as a file takes them.

    Args:
        facts: of :func:`describe_preprocessing`.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        with DefaultScope.overwrite_default_scope(facts['default_scope']):
            self.transforms = Compose([TRANSFORMS.build(_with_tuples(step)) for step in facts['transforms']])
        shape = (3, 1, 1) if facts['input'] == 'image' else (3, 1, 1, 1)
        self.mean, self.std = (np.array(facts[name], dtype=np.float32).reshape(shape) for name in ('mean', 'std'))

    def __call__(self, source: str | Path | np.ndarray) -> Prepared:
        """Prepare a picture, a file or an array ``(H, W, 3)`` uint8 RGB, or the file of a video.

        Raises:
            DataError: it cannot be read, or an array has another shape or type.
        """
        packed = self.transforms(self._video(source) if self.facts['input'] == 'video' else self._image(source))
        values = packed['inputs'].numpy()
        if self.facts['swap_channels']:
            values = np.flip(values, axis=-4 if self.facts['input'] == 'video' else 0)
        values = (values.astype(np.float32) - self.mean) / self.std
        sample = packed['data_samples']
        factors = sample.get('scale_factor') if 'scale_factor' in sample else None
        width, height = factors or (1.0, 1.0)
        return Prepared(values, (width, height), tuple(sample.ori_shape[:2]) if 'ori_shape' in sample else None)

    def batch(self, prepared: Sequence[Prepared]) -> tuple[np.ndarray, np.ndarray]:
        """Pad pictures behind their ends to one size.

        Returns:
            ``(B, 3, H, W)``, and the sizes ``(B, 2)`` int64 without padding.
        """
        sizes = np.array([one.values.shape[1:] for one in prepared], dtype=np.int64)
        divisor = self.facts['pad_divisor']
        height, width = -(-sizes.max(0) // divisor) * divisor
        images = np.full((len(prepared), 3, height, width), self.facts['pad_value'], dtype=np.float32)
        for image, one in zip(images, prepared, strict=True):
            image[:, : one.values.shape[1], : one.values.shape[2]] = one.values
        return images, sizes

    def _image(self, source: str | Path | np.ndarray) -> dict[str, Any]:
        if isinstance(source, np.ndarray):
            if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or 0 in source.shape:
                raise DataError(
                    f'an array given as a picture has shape {source.shape} and type {source.dtype}; expected '
                    '(H, W, 3) uint8 RGB'
                )
            image, file = source, None
        else:
            image, file = read_image(str(source), WHITE), str(source)
        shape = image.shape[:2]
        image = np.ascontiguousarray(image[..., ::-1] if self.facts['channels'] == 'BGR' else image)
        image = image.astype(np.float32) if self.facts['float32'] else image.copy()
        places = {'img_shape': shape, 'ori_shape': shape, 'height': shape[0], 'width': shape[1]}
        return {'img': image, 'img_path': file, 'img_id': 0, **places}

    @staticmethod
    def _video(source: str | Path | np.ndarray) -> dict[str, Any]:
        if isinstance(source, np.ndarray):
            raise DataError('a video is given as an array; give its file, or call run with prepared clips')
        return {'filename': str(source), 'img_path': str(source), 'start_index': 0, 'modality': 'RGB'}


def _with_tuples(value: Any) -> Any:
    """Lists as tuples: JSON has no tuples, and some transforms take no lists."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
