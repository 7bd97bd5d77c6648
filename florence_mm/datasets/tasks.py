"""Data sets of tasks that are answered by texts and regions, as Florence-2 learns them (arXiv 2311.06242)."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from florence_mm.errors import DataError
from florence_mm.formats.rows import read_rows
from florence_mm.formats.tasks import TaskRow, parse_task_row
from florence_mm.registry import DATASETS

from .base import ImageTextDataset


class TaskDataset(ImageTextDataset):
    """Base of data sets whose samples are a picture, a task and its answer; see :class:`TaskManifest`.

    A subclass yields from :meth:`iter_tasks`. A sample enters the pipeline with ``img_path``, ``source``, ``task``
    (str), ``prompt_text`` (str, '' where the task takes none), ``prompt_region`` (four fractions, or None) and
    ``gt_target`` (:class:`~florence_mm.language.regions.Target`): of several equally good answers a random one in
    training and the first in test mode, where ``texts`` has all of them. ``extra`` has further columns.
    """

    def iter_tasks(self) -> Iterator[tuple[str, TaskRow] | DataError]:
        """Yield where a row is, for messages, and the row; for an unusable row its error, which may be skipped."""
        raise NotImplementedError(f'{type(self).__name__} must implement `iter_tasks`')

    def iter_rows(self) -> Iterator[dict | DataError]:
        """Yield the rows as dicts."""
        for item in self.iter_tasks():
            if isinstance(item, DataError):
                yield item
                continue
            where, row = item
            found: dict[str, Any] = {
                'image': row.image,
                'where': where,
                'task': row.task,
                'prompt_text': row.text,
                'prompt_region': row.region,
                'targets': row.targets(),
            }
            yield {**found, 'extra': row.extra} if row.extra else found

    def _to_sample(self, row: dict) -> dict:
        sample = {
            'img_path': self.image_path(row['image']),
            'source': row['where'],
            **{key: row[key] for key in ('task', 'prompt_text', 'prompt_region', 'extra') if key in row},
        }
        targets = row['targets']
        if not self.test_mode and len(targets) > 1:
            sample['gt_target'] = targets[np.random.randint(len(targets))]
            return sample
        sample['gt_target'] = targets[0]
        if self.test_mode and targets[0].text:
            sample['texts'] = [target.text for target in targets]
        return sample


@DATASETS.register_module()
class TaskManifest(TaskDataset):
    """Tasks from a jsonl file, a picture, a task and its answer a line (docs/data.md, "Task files").

    Args:
        ann_file (str): The file.
        data_root, data_prefix, skip_bad, pipeline, test_mode, metainfo, indices, lazy_init: see
            :class:`~florence_mm.datasets.base.ImageTextDataset`.

    Raises:
        FileNotFoundError: there is no file.
        DataError: the file, or a row that may not be skipped, is unusable.
    """

    def iter_tasks(self) -> Iterator[tuple[str, TaskRow] | DataError]:
        """Yield the lines of the file."""
        for line, raw in read_rows(self.ann_file):
            where = f'{self.ann_file}, line {line}'
            if isinstance(raw, DataError):
                yield raw
                continue
            try:
                yield where, parse_task_row(raw)
            except ValueError as error:
                yield DataError(f'{where}: {error}')
