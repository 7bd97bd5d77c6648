"""Data set of texts without images, for models that also learn from these."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from florence_mm.errors import DataError, UsageError
from florence_mm.registry import DATASETS

from .manifest import ImageTextManifest
from .transforms.loading import LoadImage


@DATASETS.register_module()
class TextManifest(ImageTextManifest):
    """Texts without images from a jsonl, csv, tsv or parquet file, such as the documents of SimVLM's pretraining.

    Rows and samples are those of :class:`ImageTextManifest`, but for the image, which a row need not have and which is
    not read: a sample has an image without pixels in its place, and ``pictured`` is False, by which models know that
    there is none. It can share a batch with images of any size. The pipeline is ``PackImageText`` alone.

    Args:
        ann_file (str): The manifest; the extension tells the format.
        columns (dict[str, str] | None): Names of the columns in the file, if they differ, such as
            ``dict(text='content')``.
        data_root, skip_bad, pipeline, test_mode, metainfo, indices, lazy_init: see :class:`ImageTextDataset`.

    Raises:
        FileNotFoundError: there is no manifest.
        DataError: the file, or a row that may not be skipped, is unusable.
        UsageError: the pipeline loads images.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = '',
        columns: Mapping[str, str] | None = None,
        skip_bad: dict | None = None,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        metainfo: Mapping | None = None,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        super().__init__(
            ann_file,
            data_root=data_root,
            columns=columns,
            skip_bad=skip_bad,
            pipeline=pipeline,
            test_mode=test_mode,
            metainfo=metainfo,
            indices=indices,
            lazy_init=lazy_init,
        )
        if any(isinstance(step, LoadImage) for step in self.pipeline.transforms):
            raise UsageError(
                'the pipeline of TextManifest has LoadImage, and its rows have no images; leave the step out'
            )

    def iter_rows(self) -> Iterator[dict | DataError]:
        """Yield the parsed rows of the manifest, of which several may name one image."""
        return self._parsed_rows()

    def _parse(self, raw: dict, line: int) -> dict:
        return super()._parse({**raw, self._keys[0]: self.ann_file}, line)

    def _to_sample(self, row: dict) -> dict[str, Any]:
        sample = super()._to_sample(row)
        del sample['img_path']
        return {**sample, 'img': np.zeros((0, 0, 3), dtype=np.uint8), 'pictured': False}
