"""Data set of documents in which pictures and texts alternate."""

import glob
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from florence_mm.errors import DataError, UsageError
from florence_mm.formats.documents import read_documents
from florence_mm.formats.shard_samples import read_range
from florence_mm.language.documents import first_pictures, has_lessons
from florence_mm.registry import DATASETS
from florence_mm.utils.numbers import is_finite, is_whole

from .arguments import require
from .base import ImageTextDataset
from .reading import run_pipeline
from .transforms.documents import PackDocument


@DATASETS.register_module()
class DocumentDataset(ImageTextDataset):
    """Documents of texts and pictures in order, from jsonl files or tars (Flamingo, arXiv 2204.14198).

    Their forms, ours, OBELICS' and MMC4's, are in :mod:`florence_mm.formats.documents`. The steps of the pipeline but
    the last are applied to each picture, and the last packs the document.

    Of each document the first ``max_pictures`` pictures are used, with the texts before the next one. A document
    without a text behind a picture teaches nothing: it is an error that names it, or with ``skip_bad`` is left out and
    counted.

    Args:
        ann_file (str): A jsonl file or a tar, or several by a pattern with ``*``, in the order of their names.
        max_pictures (int): Most pictures of a document; 5 in the paper.
        least_similarity (float): Pictures of MMC4 that match their sentence less are left out.
        data_root, data_prefix, skip_bad, pipeline, metainfo, indices, lazy_init: see :class:`ImageTextDataset`.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: a file, or a document that may not be skipped, is unusable.
        UsageError: the pipeline does not end with a step that packs documents.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = '',
        data_prefix: str | dict = '',
        max_pictures: int = 5,
        least_similarity: float = 0.0,
        skip_bad: dict | None = None,
        pipeline: Sequence[dict | Callable] = (),
        metainfo: Mapping | None = None,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        right = is_whole(max_pictures) and max_pictures > 0
        require('max_pictures', max_pictures, right, 'a number of pictures from 1')
        require('least_similarity', least_similarity, is_finite(least_similarity), 'a number')
        self.max_pictures, self.least_similarity = max_pictures, least_similarity
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            skip_bad=skip_bad,
            pipeline=pipeline,
            metainfo=metainfo,
            indices=indices,
            lazy_init=lazy_init,
        )
        steps = self.pipeline.transforms
        if not steps or not isinstance(steps[-1], PackDocument):
            raise UsageError(
                'the pipeline of DocumentDataset must end with florence_mm.PackDocument, which packs all pictures of a '
                'document'
            )
        if steps[-1].max_pictures < max_pictures:
            raise UsageError(
                f'max_pictures of DocumentDataset is {max_pictures} and that of PackDocument {steps[-1].max_pictures}; '
                'give both one number'
            )

    def iter_rows(self) -> Iterator[dict | DataError]:
        """Yield the documents, and errors in the place of those that teach nothing."""
        files = sorted(glob.glob(self.ann_file)) if '*' in self.ann_file else [self.ann_file]  # noqa: PTH207
        if not files:
            raise FileNotFoundError(f'no file is named like {self.ann_file}; correct `ann_file` or `data_root`')
        for file in files:
            for document in read_documents(file, self.least_similarity):
                if isinstance(document, DataError):
                    yield document
                    continue
                parts = first_pictures(document.parts, self.max_pictures)
                if not has_lessons(parts):
                    yield DataError(
                        f'{document.where}: no text stands behind a picture, so there is nothing to learn; leave the '
                        'document out, or give skip_bad'
                    )
                    continue
                images = document.images[: parts.count(None)]
                yield {'parts': parts, 'images': images, 'where': document.where, 'line': None}

    def _to_sample(self, row: dict) -> dict[str, Any]:
        return {'parts': row['parts'], 'images': row['images'], 'source': row['where']}

    def prepare_data(self, idx: int) -> Any:
        """Apply the pipeline to each picture of document ``idx``, and pack it.

        Raises:
            DataError: a picture cannot be read.
        """
        sample = self.get_data_info(idx)
        *steps, pack = self.pipeline.transforms
        pictures = []
        for number, image in enumerate(sample['images'], 1):
            where = f'{sample["source"]}, picture {number}'
            if isinstance(image, str):
                picture: dict[str, Any] = {'img_path': self.image_path(image)}
            else:
                tar, offset, size = image
                picture = {'img_path': f'{tar}#{offset}', 'img_bytes': read_range(tar, offset, size)}
            loaded = run_pipeline(steps, {**picture, 'source': where}, where)
            if loaded is None:
                raise DataError(f'{where}: the pipeline returned None instead of a picture; see its transforms')
            pictures.append(loaded['img'])
        return pack({**sample, 'imgs': pictures})
