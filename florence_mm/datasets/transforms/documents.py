"""Packing of documents with several pictures."""

from collections.abc import Sequence

import torch
from mmcv.transforms import BaseTransform
from mmpretrain.structures import DataSample

from florence_mm.datasets.arguments import require
from florence_mm.errors import DataError
from florence_mm.language.documents import write_document
from florence_mm.registry import TRANSFORMS
from florence_mm.utils.numbers import is_whole

from .formatting import pack_image


@TRANSFORMS.register_module()
class PackDocument(BaseTransform):
    """Pack a document: ``inputs`` ``(3, M, H, W)`` uint8 with the pictures in order, and a ``DataSample``.

    M is ``max_pictures``, so that batches may have documents of different numbers of pictures; those that are lacking
    are black, and are not encoded. The pictures must have one size. The fields of the sample are ``document`` (str, the
    text with marks, see :func:`florence_mm.language.documents.write_document`), ``num_pictures`` (int), and
    ``data_source`` (str), if given.

    A sample of one picture with a text, as of :class:`ImageTextManifest`, is a document ``<image>text<|endofchunk|>``,
    and has ``text``, and in test mode ``texts``; one of a text alone (:class:`TextManifest`) is that text.

    Args:
        max_pictures (int): M; 5 in the paper.
        data_source (str | None): Name of the data, for the weights of losses by source; None: none.
        meta_keys (Sequence[str]): Keys of the pipeline's dict that go into the sample's meta information.

    Raises:
        DataError: pictures differ in size, there are more than M, or a text has a mark in it.
        ValueError: a picture is not ``(H, W, 3)`` uint8.
    """

    def __init__(
        self,
        max_pictures: int = 5,
        data_source: str | None = None,
        meta_keys: Sequence[str] = ('sample_idx', 'img_path', 'source', 'extra'),
    ) -> None:
        right = is_whole(max_pictures) and max_pictures > 0
        require('max_pictures', max_pictures, right, 'a number of pictures from 1')
        right = data_source is None or isinstance(data_source, str) and data_source.isidentifier()
        require('data_source', data_source, right, 'a name of letters, or None')
        self.max_pictures, self.data_source, self.meta_keys = max_pictures, data_source, tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """``dict(inputs=..., data_samples=...)``."""
        where = results.get('source', 'a sample')
        sample = DataSample()
        if 'parts' in results:
            parts, images = results['parts'], results['imgs']
        else:
            pictured = results.get('pictured', True)
            parts, images = [*[None] * pictured, results['text']], [results['img']] * pictured
            sample.set_field(results['text'], 'text')
            if 'texts' in results:
                sample.set_field(list(results['texts']), 'texts')
        try:
            document = write_document(parts)
        except ValueError as error:
            raise DataError(f'{where}: {error}') from None
        pictures = [pack_image({**results, 'img': img}, 'PackDocument') for img in images]
        shapes = sorted({tuple(picture.shape) for picture in pictures})
        if len(shapes) > 1 or len(pictures) > self.max_pictures:
            raise DataError(
                f'{where}: the document has {len(pictures)} pictures of the shapes {shapes}; PackDocument takes at '
                f'most {self.max_pictures}, of one shape, so end the steps before it with one that gives all one size'
            )
        inputs = torch.zeros(3, self.max_pictures, *(shapes[0][1:] if shapes else (0, 0)), dtype=torch.uint8)
        for number, picture in enumerate(pictures):
            inputs[:, number] = picture
        sample.set_field(document, 'document')
        sample.set_field(len(pictures), 'num_pictures')
        if self.data_source is not None:
            sample.set_field(self.data_source, 'data_source')
        for key in self.meta_keys:
            if key in results:
                sample.set_field(results[key], key, field_type='metainfo')
        return {'inputs': inputs, 'data_samples': sample}

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(max_pictures={self.max_pictures}, data_source={self.data_source!r}, '
            f'meta_keys={self.meta_keys})'
        )
