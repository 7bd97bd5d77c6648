"""Bad inputs: public files of COCO's Karpathy splits and of MSR-VTT, from which manifests are written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from florence_mm.preparation.karpathy import read_karpathy, write_karpathy
from florence_mm.preparation.msrvtt import VideoFiles, write_msrvtt

from .case import BadInput
from .manifests import BLANK

AREA = 'files of the Karpathy splits and MSR-VTT'
DEEP = b'[' * 100_000
BAD_JSON = (
    ('nested 100,000 deep', DEEP, 'nested too deeply'),
    ('cut off', b'{"images": [{"file', 'cannot be read as JSON'),
    ('empty', b'', 'is empty'),
    ('in Latin-1', b'{"caf\xe9": 1}', 'UTF-8'),
    ('a list', b'[]', 'expected an object'),
    ('without its list', b'{}', 'no list'),
    ('a picture', b'\x89PNG\r\n\x1a\n' + bytes(range(256)), 'UTF-8'),
)


def _entries() -> list[dict]:
    return [
        {'filename': f'{i}.jpg', 'filepath': 'val', 'split': split, 'cocoid': i, 'sentences': [{'raw': f'text {i}'}]}
        for i, split in enumerate(('train', 'val', 'test'))
    ]


def _split(change: Callable[[list[dict]], Any]) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        entries = _entries()
        change(entries)
        (folder / 'splits.json').write_text(json.dumps({'images': entries}))
        splits = read_karpathy(folder / 'splits.json')
        write_karpathy(folder / 'out', splits, folder / 'splits.json')
        return [(folder / f'out/{name}.jsonl').read_text() for name in splits if splits[name]]

    return run


def _entry(key: str, value: Any) -> Callable[[Path], Any]:
    def change(entries: list[dict]) -> None:
        entries[1][key] = value
        if value is ...:
            del entries[1][key]

    return _split(change)


def _json(data: bytes) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        (folder / 'splits.json').write_bytes(data)
        return read_karpathy(folder / 'splits.json')

    return run


def _own_output(folder: Path) -> Any:
    (folder / 'train.jsonl').write_text(json.dumps({'images': _entries()}))
    return write_karpathy(folder, read_karpathy(folder / 'train.jsonl'), folder / 'train.jsonl')


def _videos(**files: Any) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        (folder / 'videos').mkdir()
        for i in range(3):
            (folder / f'videos/v{i}.mp4').touch()
        sentences = [{'video_id': f'v{i}', 'caption': f'text {i}', 'sen_id': i} for i in range(3)]
        content = {
            'test.csv': 'key,vid_key,video_id,sentence\nr0,m0,v0,a man\n',
            'train.csv': 'video_id\nv1\nv2\n',
            'data.json': json.dumps({'sentences': sentences}),
            **files,
        }
        for name, data in content.items():
            (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        found = VideoFiles(folder / 'videos')
        out = folder / 'out'
        return write_msrvtt(out, found, folder / 'test.csv', folder / 'train.csv', folder / 'data.json')

    return run


def _sentence(key: str, value: Any) -> Callable[[Path], Any]:
    sentences = [{'video_id': f'v{i}', 'caption': f'text {i}', 'sen_id': i} for i in range(3)]
    sentences[1][key] = value
    if value is ...:
        del sentences[1][key]
    return _videos(**{'data.json': json.dumps({'sentences': sentences})})


def _own_csv(folder: Path) -> Any:
    (folder / 'videos').mkdir()
    (folder / 'videos/v0.mp4').touch()
    (folder / 'test.jsonl').write_text('{"video_id": "v0", "sentence": "a man"}\n')
    return write_msrvtt(folder, VideoFiles(folder / 'videos'), folder / 'test.jsonl')


def cases() -> list[BadInput]:
    rows = [BadInput(f'Karpathy: {words}', _json(data), ('splits.json', says)) for words, data, says in BAD_JSON]
    rows.append(BadInput('Karpathy: no images', _split(lambda entries: entries.clear()), 'lists no images'))
    rows.append(BadInput('Karpathy: a number as entry', _split(lambda entries: entries.append(7)), 'images[3]'))
    same = {**_entries()[0], 'filepath': './val/../val'}
    rows.append(BadInput('Karpathy: an image twice', _split(lambda its: its.append(_entries()[0])), 'images[3]'))
    rows.append(BadInput('Karpathy: an image in two spellings', _split(lambda its: its.append(same)), 'images[3]'))
    values: dict[str, tuple] = {
        'filename': ('', ' ', '\u200b', None, 7, ['a'], {'a': 1}, 'a\0b', 'a\ud800', ...),
        'filepath': (' ', 7, ['val'], [], {'a': 1}, False, 'a\0b'),
        'sentences': (
            None,
            'text',
            {},
            [],
            [7],
            [None],
            [{}],
            [{'raw': None}],
            [{'raw': 7}],
            [{'raw': 'a\ud800'}],
            ...,
        ),
        'split': (None, 7, ['train'], [], 'training', '', ...),
        'cocoid': ([1], {'a': 1}, 1.5, True),
    }
    for key, its in values.items():
        for value in its:
            words = f'Karpathy: {key} ' + ('missing' if value is ... else repr(value))
            rows.append(BadInput(words, _entry(key, value), 'images[1]'))
    for words, text in BLANK.items():
        rows.append(
            BadInput(f'Karpathy: the only caption is {words}', _entry('sentences', [{'raw': text}]), 'no captions')
        )
    rows.append(BadInput('Karpathy: a manifest in place of the file', _own_output, ('--out', 'train.jsonl')))
    two = [{'raw': '\u200b'}, {'raw': 'a  dog\n'}]
    manifest = [
        json.dumps({'image': f'val/{i}.jpg', 'texts': [text], 'image_id': i}) + '\n'
        for i, text in enumerate(('text 0', 'a dog', 'text 2'))
    ]
    rows.append(BadInput('Karpathy: a blank caption of two', _entry('sentences', two), gives=manifest))
    for words, data, says in BAD_JSON:
        rows.append(BadInput(f'MSR-VTT: captions {words}', _videos(**{'data.json': data}), ('data.json', says)))
    for words, text in BLANK.items():
        rows.append(BadInput(f'MSR-VTT: a caption is {words}', _sentence('caption', text), ('sentence 1', 'empty')))
        query = f'key,vid_key,video_id,sentence\nr0,m0,v0,"{text}"\n'
        says = ('line 2', 'sentence')
        rows.append(BadInput(f'MSR-VTT: a query is {words}', _videos(**{'test.csv': query}), says))
    for key in ('video_id', 'caption'):
        for value in (None, 7, ['a'], {'a': 1}, 'a\ud800', ...):
            words = f'MSR-VTT: {key} ' + ('missing' if value is ... else repr(value))
            rows.append(BadInput(words, _sentence(key, value), 'sentence 1'))
    head = 'key,vid_key,video_id,sentence\n'
    for words, name, data, says in (
        ('a test video twice', 'test.csv', head + 'r,m,v0,a\nr,m,v0,b\n', ('line 3', "'v0'")),
        ('a training video twice', 'train.csv', 'video_id\nv1\nv1\n', ('line 3', "'v1'")),
        ('a column that is missing', 'test.csv', 'video_id\nv0\n', ('line 2', "'sentence'")),
        ('a column twice', 'test.csv', 'video_id,sentence,sentence\nv0,a,b\n', "'sentence' occurs twice"),
        ('a quotation mark without a partner', 'test.csv', head + 'r,m,v0,"a\n', ('line 2', 'no partner')),
        ('a list in UTF-16', 'train.csv', 'video_id\nv1\n'.encode('utf-16'), 'UTF-16'),
        ('a list without videos', 'train.csv', 'video_id\n', 'none of the train videos'),
        ('a test without videos', 'test.csv', head, 'none of the test videos'),
        ('a video that is missing', 'train.csv', 'video_id\nv1\nv9\n', 'v9'),
        ('a test video in training', 'train.csv', 'video_id\nv0\n', "'v0'"),
        ('a blank id', 'train.csv', 'video_id\n\u200b\n', ('line 2', 'video_id')),
    ):
        rows.append(BadInput(f'MSR-VTT: {words}', _videos(**{name: data}), says))
    rows.append(BadInput('MSR-VTT: a manifest in place of a list', _own_csv, ('--out', 'test.jsonl')))
    rows.append(BadInput('MSR-VTT: whole files', _videos(), gives={'test': 1, 'train': 2}))
    return rows
