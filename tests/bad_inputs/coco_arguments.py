"""Bad inputs: arguments of detection sets that other data sets have too, and detection sets joined."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.dataset import ConcatDataset

from florence_mm.datasets import DetectionDataset

from .case import BadInput
from .coco import GOOD, changed, content, load

AREA = 'arguments of detection sets'


def _values() -> list[BadInput]:
    values: dict[str, tuple] = {
        'pipeline': (None, 'LoadImage', {'type': 'LoadImage'}, [None], [{}], 7),
        'indices': ('1', [0, 2], [-3], 1.5, True, [], 0),
        'test_mode': ('False', None, 1),
        'lazy_init': ('no', None, 0),
        'class_agnostic': ('no', None, 1),
        'check_files': ('no', None, 0),
        'keep_empty': ('no', None, 1),
        'metainfo': ('classes', 7),
    }
    rows = [
        BadInput(f'{key}={value!r}', load(content(), **{key: value}), key)
        for key, its in values.items()
        for value in its
    ]
    for name in (None, 7, ['a.json'], 'a\0.json'):
        rows.append(BadInput(f'ann_file={name!r}', lambda _, name=name: DetectionDataset(name), 'ann_file'))
    rows.append(BadInput('data_root=7', lambda _: DetectionDataset('a.json', 7), 'data_root'))
    rows.append(BadInput('the last of the indices', load(content(), indices=[-2]), gives=GOOD))
    rows.append(
        BadInput('a class of a full stop', load(changed('categories', name='.')), gives=(('.', 'dog'), GOOD[1]))
    )
    return rows


def _joined(test: bool) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        parts = []
        for name in ('b', 'c'):
            load(content())(folder)
            (folder / 'a.json').rename(folder / f'{name}.json')
            parts.append(DetectionDataset(f'{name}.json', str(folder), test_mode=test))
        joined = ConcatDataset(parts)
        return [joined[i]['img_id'] for i in range(len(joined))]

    return run


def cases() -> list[BadInput]:
    rows = [
        BadInput('two training sets joined by mmengine', _joined(test=False), gives=[1, 2, 1, 2]),
        BadInput(
            'two test sets joined by mmengine', _joined(test=True), ("metainfo['ann_file']", 'test each by itself')
        ),
    ]
    return [*rows, *_values()]
