"""Packing transforms: from the dict of a pipeline to the sample of docs/architecture.md."""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.structures import DataSample

from florence_mm.errors import UsageError
from florence_mm.language.labels import text_label
from florence_mm.registry import TRANSFORMS


def _pack_sample(results: dict, meta_keys: Sequence[str]) -> DataSample:
    """Make the data sample of docs/architecture.md from the dict of a pipeline."""
    sample = DataSample()
    if 'text' in results:  # inferencers have no text
        sample.set_field(results['text'], 'text')
        sample.set_field(text_label(results.get('label', results['text'])), 'label_key')
    sample.set_field(results.get('augmented', False), 'augmented')
    if not results.get('pictured', True):
        sample.set_field(False, 'pictured')
    if 'texts' in results:
        sample.set_field(list(results['texts']), 'texts')
    if 'gt_label' in results:
        sample.set_gt_label(results['gt_label'])
    if 'regions' in results and results.get('img') is not None:
        sample.set_field(torch.from_numpy(results['regions']), 'regions')
    if 'region_classes' in results:
        sample.set_field(torch.from_numpy(results['region_classes']), 'region_classes')
    for key in meta_keys:
        if key in results:
            sample.set_field(results[key], key, field_type='metainfo')
    return sample


def pack_image(results: dict, step: str) -> torch.Tensor:
    """Return ``img`` of a pipeline's dict as ``(3, H, W)`` uint8, or without it ``regions``, ``(R, F + 7)`` float32.

    Args:
        results (dict): The dict of the pipeline.
        step (str): The packing step, for messages.

    Raises:
        UsageError: there is no image.
        ValueError: the image is not ``(H, W, 3)`` uint8.
    """
    img = results.get('img')
    if img is None and 'regions' in results:
        return torch.from_numpy(results['regions'])
    if img is None:
        raise UsageError(
            f'{step} got a sample without an image; put a step that loads it before it, such as '
            "dict(type='florence_mm.LoadImage')"
        )
    if img.ndim != 3 or img.shape[2] != 3 or img.dtype != np.uint8:
        raise ValueError(
            f'{results.get("source", "a sample")}: {step} got an image of shape {img.shape} and type '
            f'{img.dtype}; expected (H, W, 3) uint8, so take normalising transforms out of the pipeline'
        )
    # (H, W, 3) -> (3, H, W), contiguous so that workers send it in one piece
    return torch.from_numpy(np.ascontiguousarray(img.transpose(2, 0, 1)))


@TRANSFORMS.register_module()
class PackImageText(BaseTransform):
    """Pack an image and its texts: ``inputs`` ``(3, H, W)`` uint8, and a ``DataSample``.

    Fields of the sample: ``text``, ``label_key`` (63-bit hash of the text without template), ``augmented``,
    and if the row has them ``gt_label`` ``(1,)`` int64, in test mode ``texts``, and of :class:`LoadRegions`
    ``region_classes`` ``(R, 1 + K)`` float32 and ``regions`` ``(R, F + 7)`` float32, which without an image are the
    ``inputs``; ``pictured`` False if there is no image and ``inputs`` has no meaning.

    Args:
        meta_keys (Sequence[str]): Keys of the pipeline's dict that go into the sample's meta information.

    Raises:
        ValueError: the image is not ``(H, W, 3)`` uint8.
    """

    def __init__(
        self, meta_keys: Sequence[str] = ('sample_idx', 'img_path', 'source', 'ori_shape', 'img_shape', 'extra')
    ) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """``dict(inputs=..., data_samples=...)``."""
        inputs = pack_image(results, 'PackImageText')
        return {'inputs': inputs, 'data_samples': _pack_sample(results, self.meta_keys)}

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.meta_keys})'


@TRANSFORMS.register_module()
class PackVideoText(BaseTransform):
    """Pack the clips of a video and its texts: ``inputs`` ``(N, 3, T, H, W)`` uint8, and a ``DataSample``.

    Follows ``mmaction.FormatShape(input_format='NCTHW')``; N counts clips and crops. The fields of the sample are those
    of :class:`PackImageText`.

    Args:
        meta_keys (Sequence[str]): Keys of the pipeline's dict that go into the sample's meta information.

    Raises:
        ValueError: the clips are not ``(N, 3, T, H, W)`` uint8.
    """

    def __init__(
        self,
        meta_keys: Sequence[str] = (
            'sample_idx',
            'img_path',
            'source',
            'original_shape',
            'img_shape',
            'num_clips',
            'extra',
        ),
    ) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """``dict(inputs=..., data_samples=...)``."""
        clips = results['imgs']
        shape, dtype = getattr(clips, 'shape', None), getattr(clips, 'dtype', None)
        if shape is None or len(shape) != 5 or shape[1] != 3 or dtype != np.uint8:
            got = f'shape {shape} and type {dtype}' if shape is not None else f'a {type(clips).__name__} of frames'
            raise ValueError(
                f'{results.get("source", "a sample")}: PackVideoText got {got}; expected (N, 3, T, H, W) uint8, so put '
                "mmaction.FormatShape(input_format='NCTHW') before it and take normalising transforms out"
            )
        inputs = torch.from_numpy(np.ascontiguousarray(clips))
        return {'inputs': inputs, 'data_samples': _pack_sample(results, self.meta_keys)}

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.meta_keys})'


@TRANSFORMS.register_module()
class PackVQA(PackImageText):
    """Pack an image, a question and its answers; extends :class:`PackImageText`.

    Further fields, if the data set has them: ``answers`` (list[str], one per annotator), ``answer_labels``
    ``(k,)`` int64 and ``answer_scores`` ``(k,)`` float32 (answers in the vocabulary and their soft scores), and as meta
    information ``question_id``, ``img_id``, ``question_type`` and ``answer_type``. The head makes the vector over the
    whole vocabulary on the device, as only about three of 3,129 scores are not zero.

    Args:
        meta_keys (Sequence[str]): Keys of the pipeline's dict that go into the sample's meta information.

    Raises:
        ValueError: the image is not ``(H, W, 3)`` uint8.
    """

    def __init__(
        self,
        meta_keys: Sequence[str] = (
            'sample_idx',
            'img_path',
            'source',
            'ori_shape',
            'img_shape',
            'question_id',
            'img_id',
            'question_type',
            'answer_type',
        ),
    ) -> None:
        super().__init__(meta_keys)

    def transform(self, results: dict) -> dict:
        """``dict(inputs=..., data_samples=...)``."""
        packed = super().transform(results)
        if 'answers' in results:
            packed['data_samples'].set_field(list(results['answers']), 'answers')
        for key in ('answer_labels', 'answer_scores'):
            if key in results:
                packed['data_samples'].set_field(torch.from_numpy(results[key]), key)
        return packed
