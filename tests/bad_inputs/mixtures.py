"""Bad inputs: mixtures of data sets, and lists of videos."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from florence_mm.datasets import VideoList, WeightedMixture
from florence_mm.formats.video import write_mp4

from .case import BadInput
from .manifests import pictures

AREA = 'mixtures and lists of videos'


def _first_two(results: dict) -> dict:
    return {**results, 'frame_inds': np.arange(2)}


STEPS = [{'type': 'florence_mm.VideoInit'}, _first_two, {'type': 'florence_mm.VideoDecode'}]


def _whole(folder: Path, change: Callable[[list[dict]], Any] = list, **settings: Any) -> Any:
    """Texts of the samples of a mixture of two data sets with a picture that is missing in each."""
    pictures(folder)
    (folder / 'm.jsonl').write_text('{"image": "0.png", "text": "a"}\n{"image": "gone.png", "text": "b"}\n')
    config = {
        'type': 'florence_mm.ImageTextManifest',
        'ann_file': str(folder / 'm.jsonl'),
        'pipeline': [{'type': 'LoadImage'}, {'type': 'PackImageText'}],
        'skip_bad': {'max': 1},
    }
    mixture = WeightedMixture(change([{'dataset': config, 'weight': weight} for weight in (1, 2)]), **settings)
    texts = [mixture[i]['data_samples'].text for i in range(len(mixture))]
    return texts, mixture.num_skipped


def _mixture(change: Callable[[list[dict]], Any] = list, **settings: Any) -> Callable[[Path], Any]:
    return lambda folder: _whole(folder, change, **settings)


class _Part:
    def __init__(self, metainfo: dict, size: int) -> None:
        self.metainfo, self.size = metainfo, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


def _parts(*infos: dict, sizes: tuple[int, ...] = (3, 3)) -> WeightedMixture:
    parts = map(_Part, infos, sizes)
    return WeightedMixture([{'dataset': part, 'weight': 1} for part in parts])


def _videos(text: str | bytes, **settings: Any) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        for i in range(2):
            write_mp4(folder / f'{i}.mp4', np.full((4, 16, 16, 3), 90 * i, np.uint8), 8)
        (folder / 'cut.mp4').write_bytes((folder / '1.mp4').read_bytes()[:-300])
        (folder / 'empty.mp4').touch()
        (folder / 'folder.mp4').mkdir()
        (folder / 'list.txt').write_bytes(text if isinstance(text, bytes) else text.encode())
        dataset = VideoList(str(folder / 'list.txt'), **{'data_prefix': str(folder), 'pipeline': STEPS, **settings})
        return [dataset[i]['label'] for i in range(len(dataset))], dataset.num_skipped

    return run


def cases() -> list[BadInput]:
    rows = []
    for value in (1.5, 0, -3, '4', True, math.nan, [3], 1):
        says = 'epoch_size' if value != 1 or value is True else 'leaves none'
        rows.append(BadInput(f'epoch_size={value!r}', _mixture(epoch_size=value), says))
    for value in (0, -1, '1', None, math.nan, math.inf, True, [1]):
        change = lambda its, value=value: [its[0], {**its[1], 'weight': value}]  # noqa: E731
        rows.append(BadInput(f'weight {value!r}', _mixture(change), ('weight', 'positive')))
    for value in (None, 7, 'm.jsonl', [], {}):
        change = lambda its, value=value: [its[0], {**its[1], 'dataset': value}]  # noqa: E731
        rows.append(BadInput(f'dataset {value!r}', _mixture(change), 'datasets[1].dataset'))
    for weight in (1e-299, 1e-15, 1e15, 1e299):
        change = lambda its, weight=weight: [its[0], {**its[1], 'weight': weight}]  # noqa: E731
        rows.append(BadInput(f'weights of 1 and {weight}', _mixture(change), ('epoch_size', 'weights')))
    rows.append(BadInput('an epoch of 10^15 samples', _mixture(epoch_size=10**15), 'epoch_size'))
    rows.append(BadInput('a data set without samples', lambda _: _parts({}, {}, sizes=(3, 0)), 'data set 1'))
    arrays = ({'a': np.zeros(3), 'b': {'c': np.ones(2)}}, {'a': np.zeros(4), 'b': {'c': np.ones(2)}})
    rows.append(BadInput('arrays of two shapes in metainfo', lambda _: list(_parts(*arrays).metainfo), gives=['b']))
    for words, change in {
        'no data sets': lambda its: [],
        'a dict of data sets': lambda its: dict(enumerate(its)),
        'text for data sets': lambda its: 'digits',
        'None for data sets': lambda its: None,
    }.items():
        rows.append(BadInput(words, _mixture(change), 'datasets'))
    rows.append(BadInput('an entry without weight', _mixture(lambda its: [{'dataset': its[0]['dataset']}]), 'entry 0'))
    rows.append(BadInput('an entry that is a data set', _mixture(lambda its: [its[0]['dataset']]), 'entry 0'))
    rows.append(BadInput('an entry that is text', _mixture(lambda its: ['digits']), 'entry 0'))
    for name, values in {'lazy_init': ('no', None, 1), 'metainfo': ('a', 7, ['a'])}.items():
        rows += [BadInput(f'{name}={value!r}', _mixture(**{name: value}), name) for value in values]
    rows.append(BadInput('a missing picture in each of two data sets', _mixture(), gives=(['a'] * 6, 2)))
    lines = '0.mp4 0\n1.mp4 1\n'
    for words, line, says in (
        ('a line without class', '1.mp4', ('line 2', '1.mp4')),
        ('a class in words', '1.mp4 one', ('line 2', '1.mp4 one')),
        ('a negative class', '1.mp4 -1', ('line 2', '-1')),
        ('a class of 5,000 digits', '1.mp4 ' + '9' * 5000, 'line 2'),
        ('a class outside the names', '1.mp4 7', ('line 2', 'class 7')),
        ('a video that is missing', 'gone.mp4 1', ('line 2', 'gone.mp4')),
        ('a video that is cut off', 'cut.mp4 1', ('line 2', 'cut.mp4')),
        ('an empty video', 'empty.mp4 1', ('line 2', 'empty.mp4')),
        ('a folder', 'folder.mp4 1', ('line 2', 'is a folder')),
        ('a device', '/dev/zero 1', ('line 2', 'is a device')),
        ('an unknown scheme', 'foo://a.mp4 1', ('line 2', 'foo')),
    ):
        text = f'0.mp4 0\n{line}\n1.mp4 1\n'
        rows.append(BadInput(f'{words} in a list of videos', _videos(text, classes=['a', 'b']), says))
        for test in (False, True):
            # a class is no part of a line that is skipped; in training the next video takes the place of another
            unread = 'class' not in words
            found = [0, 1, 1] if unread and not test else [0, 1]
            run = _videos(text, classes=['a', 'b'], skip_bad={'max': 1}, test_mode=test)
            rows.append(BadInput(f'{words}, skipped in {"a test" if test else "training"}', run, gives=(found, 1)))
    rows.append(BadInput('a list of videos with a NUL', _videos('0.mp4\0 0\n'), 'NUL'))
    rows.append(BadInput('a list of videos in Latin-1', _videos(b'caf\xe9.mp4 0\n'), 'UTF-8'))
    rows.append(BadInput('a list of videos in UTF-16', _videos(lines.encode('utf-16')), 'UTF-8'))
    rows.append(BadInput('an empty list of videos', _videos('\n'), 'no videos'))
    rows.append(
        BadInput(
            'two unusable videos of one that may be',
            _videos('a.mp4 0\nb.mp4 0\n0.mp4 0', skip_bad={'max': 1}),
            '2 rows',
        )
    )
    for name, values in {
        'delimiter': ('', None, 7),
        'skip_bad': (1, True, 'all', {'max': -1}),
        'classes': ({'a': 0}, 7, []),
        'pipeline': (None, 'VideoInit', [{}]),
        'indices': ('0', [5], 0, 1.5),
        'test_mode': ('no', None),
    }.items():
        rows += [
            BadInput(f'{name}={value!r} of a list of videos', _videos(lines, **{name: value}), name) for value in values
        ]
    return rows
