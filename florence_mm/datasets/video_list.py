"""Data set of videos with one class each, listed in a text file, for mmaction2's pipelines and recognizers."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from florence_mm.errors import DataError
from florence_mm.language.class_names import load_class_names
from florence_mm.registry import DATASETS
from florence_mm.utils.text_files import read_text, split_lines

from .arguments import (
    build_transforms,
    check_indices,
    check_shared_arguments,
    check_skip_bad,
    classes_given_once,
    image_prefix,
    require,
)
from .reading import readable_rows, run_pipeline
from .skipping import SkipCounter


@DATASETS.register_module()
class VideoList(BaseDataset):
    """Video classification data set: the list of mmaction2's ``VideoDataset``, one path and class index per line.

    The class index follows the last ``delimiter``, so that paths may have spaces. Empty lines are skipped. Unlike in
    mmaction2, every unusable line is an error that names it, or is skipped and counted (``skip_bad``).

    A sample enters the pipeline with ``filename``, ``label``, ``start_index`` 0 and ``modality`` 'RGB', as in
    mmaction2, and ``source`` ("file, line n") for messages. ``metainfo`` has ``classes`` where given;
    ``largest_label`` is the largest label and its line.

    Args:
        ann_file (str): The list.
        data_root (str): Folder that relative paths start from.
        data_prefix (str | dict): Folder of the videos, ``dict(video='videos')`` or ``'videos'``.
        classes (str | Sequence[str] | None): Names of the classes in the order of their indices: a list, or a text
            file with one name per line (its path is not relative to ``data_root``).
        delimiter (str): Separator of path and class index.
        skip_bad (dict | None): ``dict(max=...)`` skips lines and videos that cannot be used, as
            :class:`~florence_mm.datasets.base.ImageTextDataset` does.
        pipeline, test_mode, metainfo, indices, lazy_init: passed to :class:`mmengine.dataset.BaseDataset`; transforms
            are looked up in our registry first.

    Raises:
        FileNotFoundError: there is no list.
        DataError: the list has no videos or is not text, or a line lacks its path or class or has an unknown class.
        ValueError: arguments contradict each other, or ``classes`` is neither a list nor a file.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = '',
        data_prefix: str | dict = '',
        classes: str | Sequence[str] | None = None,
        delimiter: str = ' ',
        skip_bad: dict | None = None,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        metainfo: Mapping | None = None,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        right = isinstance(delimiter, str) and delimiter != ''
        require('delimiter', delimiter, right, 'what stands between path and class, for instance a space')
        check_skip_bad(skip_bad, 'lines')
        check_shared_arguments(ann_file, data_root, pipeline, test_mode, indices, lazy_init)
        classes, metainfo = classes_given_once(classes, metainfo)
        names = load_class_names(classes)
        if names is not None:
            metainfo['classes'] = tuple(names)
        self.delimiter = delimiter
        self.skip_bad = skip_bad
        self._skips: SkipCounter | None = None
        super().__init__(
            ann_file=os.fspath(ann_file),
            metainfo=metainfo,
            data_root=os.fspath(data_root),
            data_prefix=image_prefix(data_prefix, 'video'),
            indices=indices,
            pipeline=build_transforms(pipeline),
            test_mode=test_mode,
            lazy_init=lazy_init,
        )

    def load_data_list(self) -> list[dict]:
        """Load the videos in the order of the list: ``filename``, ``label`` and ``line`` of each."""
        path = Path(self.ann_file)
        if not path.is_file():
            raise FileNotFoundError(f'there is no list of videos {path}; make it or correct `ann_file` and `data_root`')
        text = read_text(path, 'a path and the number of its class a line')
        self._skips = SkipCounter(self.ann_file, **self.skip_bad) if self.skip_bad else None
        entries = []
        for number, line in enumerate(split_lines(text), 1):
            if line.strip():
                try:
                    entries.append(self._entry(line, number))
                except DataError as error:
                    if self._skips is None:
                        raise
                    self._skips.add_line(error)
        if self._skips:
            self._skips.finish_lines(len(entries) + self._skips.num_lines)
        if not entries:
            raise DataError(f'{path} lists no videos; write a path and the number of its class a line')
        largest = max(entries, key=lambda entry: entry['label'])
        self.largest_label = (largest['label'], largest['line'])
        if self.test_mode and self._skips:
            entries = readable_rows(entries, self._to_sample, self.pipeline.transforms, self._skips)
            self._metainfo['num_skipped'] = self._skips.total
        check_indices(self._indices, len(entries), self.ann_file)
        return entries

    def _path(self, name: str) -> str:
        return name if '://' in name else str(Path(self.data_prefix['video'], name))

    def _entry(self, text: str, line: int) -> dict:
        name, found, number = text.strip().rpartition(self.delimiter)
        place = f'{self.ann_file}, line {line}'
        if not found or not name.strip() or not number.isdecimal() or len(number) > 9:
            raise DataError(
                f'{place}: {text.strip()!r} is not a path and the number of its class with {self.delimiter!r} between'
            )
        label, classes = int(number), self._metainfo.get('classes')
        if classes is not None and label >= len(classes):
            raise DataError(
                f'{place}: class {label} of {name!r} is outside 0 to {len(classes) - 1}; correct it or `classes`'
            )
        return {'filename': self._path(name.strip()), 'label': label, 'line': line}

    @property
    def num_skipped(self) -> int:
        """Number of lines and videos skipped so far under ``skip_bad``."""
        return self._skips.total if self._skips else 0

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the label of a video in a list, for :class:`mmengine.dataset.ClassBalancedDataset`."""
        return [self.get_data_info(idx)['label']]

    def get_data_info(self, idx: int) -> dict:
        """Return the sample that enters the pipeline (see the class)."""
        return self._to_sample(super().get_data_info(idx))

    def _to_sample(self, entry: dict) -> dict:
        source = f'{self.ann_file}, line {entry["line"]}'
        kept = {key: value for key, value in entry.items() if key != 'line'}
        return {**kept, 'source': source, 'start_index': 0, 'modality': 'RGB'}

    def prepare_data(self, idx: int) -> Any:
        """Apply the pipeline to video ``idx``; None if a transform of it returned None.

        Raises:
            DataError: the video cannot be read.
        """
        sample = self.get_data_info(idx)
        return run_pipeline(self.pipeline.transforms, sample, sample['source'])

    def __getitem__(self, idx: int) -> Any:
        """Return sample ``idx``; in training with ``skip_bad`` an unusable video is replaced by the next usable one."""
        if not self._fully_initialized:
            self.full_init()
        if self.test_mode or self._skips is None:
            return super().__getitem__(idx)
        return self._skips.next_usable(super().__getitem__, int(idx) % len(self), len(self))
