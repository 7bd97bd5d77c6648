"""Mirroring and packing of tasks that are answered by texts and regions."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from mmcv.transforms import BaseTransform
from mmpretrain.structures import DataSample

from florence_mm.datasets.arguments import require
from florence_mm.errors import DataError, UsageError
from florence_mm.language.regions import Box, Polygon, Region
from florence_mm.language.tasks import TaskFormat
from florence_mm.registry import TRANSFORMS
from florence_mm.utils.numbers import is_finite

from .formatting import pack_image

# of places that a mirrored picture has on the other side
_SIDES = re.compile(r'left|right|clockwise', re.IGNORECASE)


@TRANSFORMS.register_module()
class RandomFlipTask(BaseTransform):
    """Mirror an image and the places of its task from left to right.

    Tasks about words in the picture, and those whose texts say left or right, are never mirrored.

    Args:
        prob (float): How often.

    Raises:
        ValueError: ``prob`` is no probability.
    """

    def __init__(self, prob: float = 0.5) -> None:
        require('prob', prob, is_finite(prob) and 0 <= prob <= 1, 'a probability, from 0 to 1')
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Mirror ``img``, ``prompt_region`` and ``gt_target``."""
        # always drawn, so that later transforms get the same random stream
        drawn = np.random.rand() < self.prob
        if not drawn or 'ocr' in results['task'] or any(map(_SIDES.search, _texts(results))):
            return results
        results['img'] = np.ascontiguousarray(results['img'][:, ::-1])
        if results.get('prompt_region') is not None:
            results['prompt_region'] = _mirrored_box(results['prompt_region'])
        if 'gt_target' in results:
            target = results['gt_target']
            results['gt_target'] = replace(target, regions=tuple(map(_mirrored, target.regions)))
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob})'


def _texts(results: dict) -> list[str]:
    """All texts of a task."""
    target = results.get('gt_target')
    answers = [] if target is None else [target.text, *(region.text for region in target.regions)]
    return [results.get('prompt_text', ''), *answers]


def _mirrored_box(box: Box) -> Box:
    x0, y0, x1, y1 = box
    return 1 - x1, y0, 1 - x0, y1


def _mirrored_polygon(polygon: Polygon) -> Polygon:
    # backwards, so that its direction stays
    return tuple((1 - x, y) for x, y in reversed(polygon))


def _mirrored(region: Region) -> Region:
    return replace(
        region,
        boxes=tuple(map(_mirrored_box, region.boxes)),
        polygons=tuple(map(_mirrored_polygon, region.polygons)),
    )


@TRANSFORMS.register_module()
class PackTask(BaseTransform):
    """Pack an image, a task and its answer: ``inputs`` ``(3, H, W)`` uint8, and a ``DataSample``.

    Fields of the sample: ``task`` (str, its name), ``prompt`` (str, the sentence that asks for it), ``prompt_text``
    (str) and ``prompt_region`` (four fractions, or None) that are given with it, ``num_bins`` (int), the locations that
    the texts have; if there is an answer ``gt_target``
    (:class:`~florence_mm.language.regions.Target`) and ``text`` (str, the answer as it is written); and in test mode
    ``texts``, all equally good answers, if these are texts.

    Coordinates are fractions of the image, so steps before this one may resize it, to any proportions.
    :class:`RandomFlipTask` mirrors image and places; flips of other packages are refused. A step that shows another
    part of the image would make places wrong.

    Args:
        format (Mapping): Arguments of :class:`florence_mm.language.tasks.TaskFormat`, such as ``dict(num_bins=64)``;
            a model of other locations refuses the sample. ``order='random'`` draws from numpy's global generator.
        meta_keys (Sequence[str]): Keys of the pipeline's dict that go into the sample's meta information.

    Raises:
        DataError: the answer cannot be written, as a text has a mark such as ``<loc_1>`` in it.
        UsageError: another package's step has mirrored the image.
        ValueError: the image is not ``(H, W, 3)`` uint8.
    """

    def __init__(
        self,
        format: Mapping | None = None,
        meta_keys: Sequence[str] = ('sample_idx', 'img_path', 'source', 'ori_shape', 'img_shape', 'extra'),
    ) -> None:
        require('format', format, format is None or isinstance(format, Mapping), 'a dict such as dict(num_bins=1000)')
        self.format = TaskFormat(**(format or {}))
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """``dict(inputs=..., data_samples=...)``."""
        inputs = pack_image(results, 'PackTask')
        if results.get('flip'):
            raise UsageError(
                'PackTask got an image that was mirrored without the places of its task; take '
                "dict(type='florence_mm.RandomFlipTask') in place of the flip"
            )
        task, text, region = results['task'], results.get('prompt_text', ''), results.get('prompt_region')
        sample = DataSample()
        try:
            prompt = self.format.prompt(task, text or None, region)
            fields = {'task': task, 'prompt': prompt, 'prompt_text': text, 'prompt_region': region}
            fields['num_bins'] = self.format.num_bins
            if 'gt_target' in results:
                fields['gt_target'] = results['gt_target']
                fields['text'] = self.format.write(task, results['gt_target'], np.random, given=text or None)
        except ValueError as error:
            raise DataError(f'{results.get("source", "a sample")}: {error}') from None
        if 'texts' in results:
            fields['texts'] = list(results['texts'])
        for key, value in fields.items():
            sample.set_field(value, key)
        for key in self.meta_keys:
            if key in results:
                sample.set_field(results[key], key, field_type='metainfo')
        return {'inputs': inputs, 'data_samples': sample}

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_bins={self.format.num_bins}, order={self.format.order!r}, '
            f'quad_start={self.format.quad_start!r}, meta_keys={self.meta_keys})'
        )
