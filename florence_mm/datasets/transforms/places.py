"""Packing of an image with places, and of what is at each of them, from boxes."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.structures import DataSample

from florence_mm.datasets.arguments import require
from florence_mm.errors import DataError
from florence_mm.registry import TRANSFORMS

from .formatting import pack_image

_ATTEMPTS = 50


@TRANSFORMS.register_module()
class PackPlaces(BaseTransform):
    """Pack an image and drawn places of it: ``inputs`` ``(3, H, W)`` uint8, and a ``DataSample``.

    Fields of the sample: ``places`` ``(Q, 2)`` float32, x and y as fractions of the image, and ``place_labels``
    ``(Q,)`` int64: the class of the box around the place, of several the smallest one, or ``nothing``. Places inside
    boxes that are to be ignored have label -1. The pipeline may have resized the image, but not cropped or turned it.

    Args:
        nothing (int): Label of a place that no box is around, usually the number of classes.
        per_box (int): Places that are drawn in each box.
        elsewhere (int): Places that are drawn outside all boxes; there are fewer where boxes leave hardly any room.
        seed (int | None): The places of a sample depend on this and its number alone, as a test needs; None: drawn
            anew each time.
        meta_keys (Sequence[str]): Keys of the pipeline's dict that go into the sample's meta information.

    Raises:
        ValueError: a number is negative, or no place would be drawn.
        DataError: a picture has no ``instances``, as one outside a data set.
    """

    def __init__(
        self,
        nothing: int,
        per_box: int = 2,
        elsewhere: int = 2,
        seed: int | None = None,
        meta_keys: tuple[str, ...] = ('sample_idx', 'img_path', 'ori_shape', 'img_shape'),
    ) -> None:
        for name, number in (('nothing', nothing), ('per_box', per_box), ('elsewhere', elsewhere), ('seed', seed or 0)):
            require(name, number, isinstance(number, int) and number >= 0, 'a number, from 0')
        require('per_box', per_box, per_box or elsewhere, 'at least 1 where elsewhere is 0')
        self.nothing, self.per_box, self.elsewhere, self.seed = nothing, per_box, elsewhere, seed
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """``dict(inputs=..., data_samples=...)``."""
        inputs = pack_image(results, 'PackPlaces')
        if 'instances' not in results:
            raise DataError(
                'PackPlaces draws places from the boxes of a data set, and this picture has none; test on annotated '
                'pictures instead'
            )
        height, width = results.get('ori_shape', inputs.shape[1:])[:2]
        boxes = np.array([item['bbox'] for item in results['instances']], np.float64).reshape(-1, 4)
        boxes = boxes / (width, height, width, height)
        labels = [-1 if item.get('ignore_flag') else item['bbox_label'] for item in results['instances']]
        rng = np.random if self.seed is None else np.random.default_rng([self.seed, results['sample_idx']])
        inside = [rng.uniform(box[:2], box[2:], (self.per_box, 2)) for box in boxes]
        outside = rng.uniform(size=(_ATTEMPTS * self.elsewhere, 2))
        outside = outside[~_around(boxes, outside).any(1)][: self.elsewhere]
        places = np.concatenate([*inside, outside])
        sample = DataSample()
        sample.set_field(torch.from_numpy(places.astype(np.float32)), 'places')
        sample.set_field(torch.from_numpy(self._labels(boxes, labels, places)), 'place_labels')
        for key in self.meta_keys:
            if key in results:
                sample.set_field(results[key], key, field_type='metainfo')
        return {'inputs': inputs, 'data_samples': sample}

    def _labels(self, boxes: np.ndarray, labels: list[int], places: np.ndarray) -> np.ndarray:
        found = np.full(len(places), self.nothing)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        around = _around(boxes, places)
        for number in np.argsort(-areas, kind='stable'):  # smaller boxes last, so that they win
            found[around[:, number]] = labels[number]
        return found.astype(np.int64)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(nothing={self.nothing}, per_box={self.per_box}, elsewhere={self.elsewhere}, '
            f'seed={self.seed})'
        )


def _around(boxes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Which boxes ``(N, 4)`` are around which places ``(Q, 2)``, ``(Q, N)`` bool."""
    places = places[:, None]
    return ((boxes[:, :2] <= places) & (places <= boxes[:, 2:])).all(2)
