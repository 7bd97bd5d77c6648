"""Base class of image-text-label data sets: rows, labels, skipping of unusable rows."""

import os
import pickle
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.request import url2pathname

import numpy as np
from mmengine.dataset import BaseDataset

from florence_mm.errors import DataError
from florence_mm.language.class_names import ClassNames, load_class_names
from florence_mm.moved import moved_names

from .arguments import (
    build_transforms,
    check_indices,
    check_shared_arguments,
    check_skip_bad,
    classes_given_once,
    image_prefix,
)
from .reading import check_scaled, readable_rows, run_pipeline
from .skipping import SkipCounter

__getattr__ = moved_names(__name__, {'KNOWN_CLASSES': 'florence_mm.language.class_names'})


class ImageTextDataset(BaseDataset):
    """Base of data sets whose samples are an image with a text, a class, or both.

    A subclass yields its rows from :meth:`iter_rows`. A row is a dict with

    - ``image`` (str): path, relative to the image folder or absolute;
    - ``line`` (int | None): line of the row in its file, for messages;
    - ``texts`` (list[str], optional): captions; ``label`` (str, optional): the text that the label is made from;
    - ``class_index`` (int, optional): from :attr:`class_names`;
    - ``augmented`` (bool, optional): the text is already inside a template;
    - ``extra`` (dict, optional): further columns.

    Rows are kept pickled in a single array that workers share.

    A sample enters the pipeline with ``img_path``, ``source`` ("file, line n"), ``text`` (a caption, a random one in
    training and the first in test mode; without captions the class name), ``is_class`` and ``augmented``; with
    ``gt_label`` and ``class_name`` if the row has a class, ``texts`` in test mode if it has captions, and ``label`` and
    ``extra`` if given.

    Args:
        data_root (str): Folder that relative paths start from.
        data_prefix (str | dict): Folder of the images, ``dict(img_path='images')`` or ``'images'``.
        classes: Class names in the order of their labels: a list, a text file, or ``'imagenet1k'`` or
            ``'digits'``. None: the names that occur, sorted.
        skip_bad (dict | None): ``dict(max=...)`` skips unusable rows, logs their number, and raises beyond ``max`` rows
            (a number below 1 is a fraction of the rows). In training a row whose image or video cannot be read is
            replaced by the next usable row. In test mode all images (and the frames of videos that the pipeline needs)
            are read at the start, unreadable ones are left out, and ``metainfo['num_skipped']`` is their number.
            None: the first unusable row raises.
        pipeline (Sequence): Transforms.
        test_mode (bool): For evaluation: all captions of a row are kept, nothing is random.
        metainfo, ann_file, indices, lazy_init: passed to :class:`mmengine.dataset.BaseDataset`.

    Raises:
        DataError: a row or an image is unusable and may not be skipped.
    """

    def __init__(
        self,
        ann_file: str = '',
        data_root: str = '',
        data_prefix: str | dict = '',
        classes: str | Sequence[str] | None = None,
        skip_bad: dict | None = None,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        metainfo: Mapping | None = None,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        classes, metainfo = classes_given_once(classes, metainfo)
        check_skip_bad(skip_bad, 'rows')
        check_shared_arguments(ann_file, data_root, pipeline, test_mode, indices, lazy_init)
        transforms = build_transforms(pipeline)
        check_scaled(transforms, 'a test is done on whole images' if test_mode else None)
        self.class_names = ClassNames(load_class_names(classes))
        self.skip_bad = None if skip_bad is None else dict(skip_bad)
        self._skips: SkipCounter | None = None
        super().__init__(
            ann_file=os.fspath(ann_file),
            metainfo=metainfo,
            data_root=os.fspath(data_root),
            data_prefix=image_prefix(data_prefix, 'img_path'),
            indices=indices,
            pipeline=transforms,
            test_mode=test_mode,
            lazy_init=lazy_init,
        )

    def iter_rows(self) -> Iterator[dict | DataError]:
        """Yield the rows, and for an unusable row its error, which may be skipped; a raised error may not."""
        raise NotImplementedError(f'{type(self).__name__} must implement `iter_rows`')

    @property
    def location(self) -> str:
        """Where the rows come from, for messages."""
        return str(self.ann_file or self.data_root)

    @property
    def num_skipped(self) -> int:
        """Number of rows skipped so far under ``skip_bad``."""
        return self._skips.total if self._skips else 0

    def load_data_list(self) -> list[bytes]:
        """Read the rows and pickle them (100 to 200 bytes per row, against 1000 as dicts)."""
        self._skips = SkipCounter(self.location, **self.skip_bad) if self.skip_bad else None
        rows = []
        for row in self.iter_rows():
            if not isinstance(row, DataError):
                rows.append(pickle.dumps(row, protocol=5))
            elif self._skips is None:
                raise row
            else:
                self._skips.add_line(row)
        if self._skips:
            self._skips.finish_lines(len(rows) + self._skips.num_lines)
        if not rows:
            raise DataError(f'{self.location} has no usable rows')
        self._class_ranks = self.class_names.finish()
        if self.class_names.names:
            self._metainfo['classes'] = tuple(self.class_names.names)
        if self.test_mode and self._skips:
            rows = readable_rows(
                rows, lambda row: self._to_sample(pickle.loads(row)), self.pipeline.transforms, self._skips
            )
            self._metainfo['num_skipped'] = self._skips.total
        check_indices(self._indices, len(rows), self.location)
        return rows

    def _serialize_data(self) -> tuple[np.ndarray, np.ndarray]:
        # the rows are already bytes
        lengths = np.fromiter((len(row) for row in self.data_list), dtype=np.int64, count=len(self.data_list))
        data_bytes = np.frombuffer(b''.join(self.data_list), dtype=np.uint8)
        self.data_list.clear()
        return data_bytes, np.cumsum(lengths)

    def get_data_info(self, idx: int) -> dict:
        """Return the sample that enters the pipeline (see the class)."""
        idx = int(idx)
        if not -len(self) <= idx < len(self):
            raise IndexError(f'index {idx} is outside the {len(self)} rows of {self.location}')
        idx %= len(self)
        start = int(self.data_address[idx - 1]) if idx else 0
        sample = self._to_sample(pickle.loads(memoryview(self.data_bytes[start : self.data_address[idx]])))
        sample['sample_idx'] = idx
        return sample

    def _to_sample(self, row: dict) -> dict:
        sample = {
            'img_path': self.image_path(row['image']),
            'source': self.location if row['line'] is None else f'{self.location}, line {row["line"]}',
            'augmented': row.get('augmented', False),
            'is_class': 'texts' not in row,
        }
        if 'class_index' in row:
            index = int(self._class_ranks[row['class_index']])
            sample.update(gt_label=index, class_name=self.class_names.names[index])
        sample['text'] = row['texts'][0] if 'texts' in row else sample['class_name']
        for key in ('texts', 'label', 'extra'):
            if key in row:
                sample[key] = row[key]
        return sample

    def image_path(self, image: str) -> str:
        """Resolve the path of an image: absolute paths and URLs are kept, others are relative to the image folder."""
        # pathlib would take a fifth of the time of a small image's sample
        if image.startswith('/') or '://' in image or os.path.isabs(image):  # noqa: PTH117
            return image
        folder = self.data_prefix['img_path'] or self.data_root
        if not folder and self.ann_file:
            folder = posixpath.dirname(str(self.ann_file))
        return posixpath.join(folder, image)

    def same_image(self, image: str) -> str:
        """Return the spelling that all paths of an image share: ``./a.png``, ``b/../a.png`` and ``file://`` are one."""
        path = self.image_path(image)
        if path.lower().startswith('file:///'):
            path = url2pathname(path[len('file://') :])
        return path if '://' in path else posixpath.normpath(path)

    def prepare_data(self, idx: int) -> Any:
        """Apply the pipeline to row ``idx``.

        Raises:
            DataError: the image cannot be read, or the pipeline returned None.
        """
        sample = self.get_data_info(idx)
        source = sample['source']
        if not self.test_mode:
            texts = sample.pop('texts', ())
            if len(texts) > 1:
                sample['text'] = texts[np.random.randint(len(texts))]
        data = run_pipeline(self.pipeline.transforms, sample, source)
        if data is None:
            raise DataError(f'{source}: the pipeline returned None instead of a sample; see its transforms')
        return data

    def __getitem__(self, idx: int) -> Any:
        """Return sample ``idx``; in training with ``skip_bad`` an unusable row is replaced by the next usable one."""
        if not self._fully_initialized:
            self.full_init()
        row = int(idx)
        if self.test_mode or self._skips is None:
            return self.prepare_data(row)
        return self._skips.next_usable(self.prepare_data, row, len(self))

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the class index of row ``idx`` in a list, empty if the row has none."""
        sample = self.get_data_info(idx)
        return [sample['gt_label']] if 'gt_label' in sample else []
