"""Packing of tasks that are answered by texts and regions."""

from collections.abc import Mapping, Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmpretrain.structures import DataSample

from florence_mm.datasets.arguments import require
from florence_mm.errors import DataError
from florence_mm.language.tasks import TaskFormat
from florence_mm.registry import TRANSFORMS

from .formatting import pack_image


@TRANSFORMS.register_module()
class PackTask(BaseTransform):
    """Pack an image, a task and its answer: ``inputs`` ``(3, H, W)`` uint8, and a ``DataSample``.

    Fields of the sample: ``task`` (str, its name), ``prompt`` (str, the sentence that asks for it), ``prompt_text``
    (str) and ``prompt_region`` (four fractions, or None) that are given with it; if there is an answer ``gt_target``
    (:class:`~florence_mm.language.regions.Target`) and ``text`` (str, the answer as it is written); and in test mode
    ``texts``, all equally good answers, if these are texts.

    Coordinates are fractions of the image, so steps before this one may resize it, to any proportions. A step that
    shows another part of it, or mirrors it, would need to change the regions, and none here does: ``RandomResizedCrop``
    and flips have no place in this pipeline.

    Args:
        format (Mapping): Arguments of :class:`florence_mm.language.tasks.TaskFormat`, such as ``dict(num_bins=64)``;
            the model must have the same. ``order='random'`` draws from numpy's global generator.
        meta_keys (Sequence[str]): Keys of the pipeline's dict that go into the sample's meta information.

    Raises:
        DataError: the answer cannot be written, as a text has a mark such as ``<loc_1>`` in it.
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
        task, text, region = results['task'], results.get('prompt_text', ''), results.get('prompt_region')
        sample = DataSample()
        try:
            prompt = self.format.prompt(task, text or None, region)
            fields = {'task': task, 'prompt': prompt, 'prompt_text': text, 'prompt_region': region}
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
