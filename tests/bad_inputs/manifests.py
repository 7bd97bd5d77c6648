"""Bad inputs: manifests of images with texts, in every format."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from florence_mm.datasets import ImageTextManifest

from .case import BadInput

AREA = 'manifests'
PACK = [{'type': 'LoadImage'}, {'type': 'PackImageText'}]
ROWS = [{'image': f'{i}.png', 'text': f'text {i}'} for i in range(3)]
BLANK = {
    'a zero-width space': '\u200b',
    'a zero-width joiner and blanks': ' \u200d\t',
    'a byte order mark': '\ufeff',
    'no-break spaces': '\u00a0\u2007\u3000',
    'a Hangul filler': '\u3164',
    'the empty Braille pattern': '\u2800',
    'a variation selector': '\ufe0f',
    'full stops': ' . .',
    'nothing': '',
    'line ends': '\n\r\n',
    'control characters': '\x00\x07',
}
NO_TEXTS = {'a number': 7, 'a list': ['a'], 'an object': {'a': 1}, 'true': True, 'a lone surrogate': 'a\ud800'}
NO_PATHS = {
    'a number': (7, 'must be a string'),
    'a list': (['1.png'], 'must be a string'),
    'an object': ({'bytes': 'x'}, 'stored in the manifest itself'),
    'empty': ('', 'is empty'),
    'a NUL character': ('1.png\0', 'NUL'),
    'a lone surrogate': ('\ud800.png', 'not valid UTF-8'),
}
FILES = {
    's3://bucket/1.png': 's3',
    'ftp://127.0.0.1:1/1.png': 'cannot be read',
    'foo://1.png': 'foo',
    'http://127.0.0.1:1/1.png': 'cannot be read',
    'http://a b/1.png': 'InvalidURL',
    'file://machine/1.png': 'names a machine',
    '/dev/zero': 'is a device',
    '/dev/null': 'is a device',
    'pipe.png': 'is a named pipe',
    'folder.png': 'is a folder',
    'gone.png': 'No such file',
    'empty.png': 'is an empty file',
    'cut.png': 'is cut off',
    'text.png': 'is not an image',
    'loop.png': 'symbolic links',
    'x' * 300 + '.png': 'too long',
}


def pictures(folder: Path, number: int = 3) -> None:
    """Write pictures, each of one value: 50 times its number."""
    for i in range(number):
        cv2.imwrite(str(folder / f'{i}.png'), np.full((5, 6, 3), 50 * i, np.uint8))


def other_files(folder: Path) -> None:
    """Write files that are no pictures, by names of pictures."""
    whole = (folder / '1.png').read_bytes()
    (folder / 'empty.png').touch()
    (folder / 'cut.png').write_bytes(whole[:-20])
    (folder / 'text.png').write_text('a picture of a dog')
    (folder / 'folder.png').mkdir()
    (folder / 'loop.png').symlink_to(folder / 'loop.png')
    os.mkfifo(folder / 'pipe.png')


def _load(folder: Path, content: bytes | str | list, name: str = 'm.jsonl', **settings: Any) -> list[tuple[str, int]]:
    """Text and value of every sample."""
    pictures(folder)
    if isinstance(content, list):
        content = ''.join((row if isinstance(row, str) else json.dumps(row)) + '\n' for row in content)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    dataset = ImageTextManifest(str(folder / name), **{'pipeline': PACK, **settings})
    return [
        (data['data_samples'].text, int(data['inputs'].max())) for data in map(dataset.__getitem__, range(len(dataset)))
    ]


def _run(*args: Any, **settings: Any) -> Callable[[Path], Any]:
    return lambda folder: _load(folder, *args, **settings)


def _parquet(columns: Callable[[Any], Any], **settings: Any) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(columns(pyarrow), folder / 'new.parquet')
        return _load(folder, (folder / 'new.parquet').read_bytes(), 'm.parquet', **settings)

    return run


def _folder_of_parquet(folder: Path) -> Any:
    (folder / 'm.parquet').mkdir()
    return ImageTextManifest(str(folder / 'm.parquet'))


def _image(path: str, **settings: Any) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        pictures(folder)
        other_files(folder)
        return _load(folder, [ROWS[0], {'image': path, 'text': 'x'}, ROWS[2]], **settings)

    return run


def _twice(first: str, second: str, **settings: Any) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        (folder / 'b').mkdir()
        rows = [{'image': path.replace('HERE', str(folder)), 'text': path[-7:]} for path in (first, second)]
        return _load(folder, rows, test_mode=True, **settings)

    return run


def _lines() -> list[BadInput]:
    rows = []
    for words, text in BLANK.items():
        for key in ('text', 'label', 'class'):
            row = {'image': '1.png', key: text, **({'text': 'x'} if key == 'label' else {})}
            rows.append(BadInput(f'{key} is {words}', _run([ROWS[0], row]), ('line 2', 'is empty')))
        rows.append(
            BadInput(f'one of several texts is {words}', _run([{'image': '1.png', 'texts': ['a', text]}]), 'empty')
        )
    for words, text in NO_TEXTS.items():
        for key in ('text', 'class'):
            rows.append(BadInput(f'{key} is {words}', _run([{'image': '1.png', key: text}]), ('line 1', key)))
    for words, (path, says) in NO_PATHS.items():
        rows.append(BadInput(f'image is {words}', _run([{'image': path, 'text': 'a'}]), ('line 1', says)))
    for words, line, says in (
        ('a line nested 100,000 deep', '[' * 100_000, ('line 2', 'nested too deeply')),
        ('a line cut off', '{"image": "1.png", "te', ('line 2', 'not a JSON object')),
        ('a line with a key twice', '{"image": "1.png", "text": "a", "text": "b"}', ('line 2', "'text' occurs twice")),
        ('a line that is a list', '["1.png", "a"]', ('line 2', 'list')),
        ('a number of 5,000 digits', '{"image": "1.png", "class": ' + '9' * 5000 + '}', 'line 2'),
        ('NaN as class', '{"image": "1.png", "class": NaN}', ('line 2', 'nan')),
        ('text nested 300 deep', '{"image": "1.png", "text": ' + '[' * 300 + ']' * 300 + '}', ('line 2', 'string')),
        ('`texts` empty', '{"image": "1.png", "texts": []}', ('line 2', 'empty list')),
        ('`texts` an object', '{"image": "1.png", "texts": {"a": 1}}', ('line 2', 'list of strings')),
        ('both `text` and `texts`', '{"image": "1.png", "text": "a", "texts": ["b"]}', ('line 2', '`texts`')),
        ('`augmented` maybe', '{"image": "1.png", "text": "a", "augmented": "maybe"}', ('line 2', 'true or false')),
    ):
        rows.append(BadInput(words, _run([ROWS[0], line, ROWS[2]]), says))
        kept = [('text 0', 0), ('text 2', 100)]
        rows.append(BadInput(f'{words}, skipped', _run([ROWS[0], line, ROWS[2]], skip_bad={'max': 1}), gives=kept))
    return rows


def _files() -> list[BadInput]:
    text = 'image,text\n0.png,a\n1.png,b\n'
    right = [('a', 0), ('b', 50)]
    long = 'w ' * 100_000 + 'w'
    quoted = 'image\ttext\n0.png\t"Sit\n1.png\tplain\n2.png\tdown"\n'
    rows = [
        BadInput('jsonl in UTF-16', _run(json.dumps(ROWS[0]).encode('utf-16')), 'UTF-16'),
        BadInput('jsonl in Latin-1', _run('{"image": "1.png", "text": "é"}'.encode('latin-1')), ('line 1', 'UTF-8')),
        BadInput(
            'jsonl with a byte order mark', _run(b'\xef\xbb\xbf{"image": "0.png", "text": "a"}'), gives=[('a', 0)]
        ),
        BadInput('jsonl without rows', _run(b'\n\n'), 'no usable rows'),
        BadInput('jsonl that is a picture', _run(b'\x89PNG\r\n\x1a\n' + bytes(range(256))), 'UTF-8'),
        BadInput('a manifest of another extension', _run(text, name='m.txt'), '.jsonl, .csv'),
        BadInput('an extension in capitals', _run(text, name='m.CSV'), gives=right),
        BadInput('csv with a byte order mark', _run(b'\xef\xbb\xbf' + text.encode(), name='m.csv'), gives=right),
        BadInput('csv in UTF-16', _run(text.encode('utf-16'), name='m.csv'), 'UTF-16'),
        BadInput('csv in UTF-16 without a mark', _run(text.encode('utf-16-le'), name='m.csv'), 'NUL'),
        BadInput('csv in Latin-1', _run((text + '2.png,é').encode('latin-1'), name='m.csv'), ('line 4', 'UTF-8')),
        BadInput('csv with line ends of an old Macintosh', _run(text.replace('\n', '\r'), name='m.csv'), gives=right),
        BadInput('csv with a column twice', _run('image,text,text\n0.png,a,b\n', name='m.csv'), "'text' occurs twice"),
        BadInput('csv with a cell too many', _run(text + '2.png,c,d\n', name='m.csv'), ('line 4', '3 cells')),
        BadInput('csv with a cell too few', _run(text + '2.png\n', name='m.csv'), ('line 4', '1 cells')),
        BadInput('csv with its header alone', _run('image,text\n', name='m.csv'), 'no usable rows'),
        BadInput(
            'csv with semicolons', _run(text.replace(',', ';'), name='m.csv'), ('line 1', "'image;text'", 'commas')
        ),
        BadInput('csv with tabs', _run(text.replace(',', '\t'), name='m.csv'), ('line 1', 'tabs in a .tsv')),
        BadInput('tsv with commas', _run(text, name='m.tsv'), ('line 1', 'name the file .csv')),
        BadInput('csv that is empty', _run('', name='m.csv'), 'no usable rows'),
        BadInput('csv cut off inside a cell', _run(text + '2.png,"c', name='m.csv'), ('line 4', 'no partner')),
        BadInput('a cell of 200,001 characters', _run(f'image,text\n0.png,{long}', name='m.csv'), gives=[(long, 0)]),
        BadInput('the same in quotation marks', _run(f'image,text\n0.png,"{long}"', name='m.csv'), gives=[(long, 0)]),
        BadInput('`texts` no list', _run('image,texts\n0.png,a|b\n', name='m.csv'), ('line 2', '`texts`')),
        BadInput(
            '`texts` under another name',
            _run('image,said\n0.png,"[""a""]"\n', name='m.csv', columns={'texts': 'said'}),
            gives=[('a', 0)],
        ),
        BadInput(
            'a quotation mark without a partner in tsv',
            _run(quoted, name='m.tsv'),
            gives=[('"Sit', 0), ('plain', 50), ('down"', 100)],
        ),
        BadInput(
            'a quotation mark without a partner in csv',
            _run(quoted.replace('\t', ','), name='m.csv'),
            ('line 2', 'no partner'),
        ),
        BadInput(
            'the same, skipped',
            _run(quoted.replace('\t', ','), name='m.csv', skip_bad={'max': 1}),
            gives=[('plain', 50), ('down"', 100)],
        ),
        BadInput(
            'a cell over lines in csv',
            _run('image,text\n0.png,"two\nlines, both"\n', name='m.csv'),
            gives=[('two\nlines, both', 0)],
        ),
        BadInput(
            'a column twice in parquet',
            _parquet(lambda pa: pa.Table.from_arrays([pa.array(['a'])] * 2, ['text', 'text'])),
            "'text' occurs twice",
        ),
        BadInput(
            'pictures inside a parquet file',
            _parquet(lambda pa: pa.table({'image': [b'\x89PNG'], 'text': ['a']})),
            'stored in the manifest itself',
        ),
        BadInput(
            'numbers as texts in parquet',
            _parquet(lambda pa: pa.table({'image': ['0.png'], 'text': [1.5]})),
            ('line 1', 'string'),
        ),
        BadInput(
            'nulls in parquet',
            _parquet(lambda pa: pa.table({'image': ['0.png', None], 'text': ['a', 'b']}), skip_bad={'max': 1}),
            gives=[('a', 0)],
        ),
        BadInput(
            'a date of the year 36000000 in parquet',
            _parquet(
                lambda pa: pa.table({'image': ['0.png'], 'text': ['a'], 'day': pa.array([2**50], 'timestamp[s]')})
            ),
            ('line 1', 'leave its column out'),
        ),
        BadInput(
            'dictionaries in parquet',
            _parquet(
                lambda pa: pa.table({'image': pa.array(['1.png', '1.png']).dictionary_encode(), 'text': ['a', 'b']})
            ),
            gives=[('a', 50), ('b', 50)],
        ),
        BadInput('a folder of parquet files', _folder_of_parquet, ('m.parquet', 'is a folder')),
        BadInput('parquet that is text', _run('image,text\n', name='m.parquet'), 'not a whole parquet file'),
        BadInput('parquet that is empty', _run(b'', name='m.parquet'), 'not a whole parquet file'),
    ]
    labelled = [{'image': '1.png', 'text': 'a red dog', 'label': 'dog'}, {'image': '1.png', 'text': 'a cat'}]
    other = [labelled[0], {**labelled[1], 'label': 'cat'}]
    same = [labelled[0], {'image': './1.png', 'text': 'Dog!', 'label': 'DOG'}]
    for words, its in {'one row of an image with a label': labelled, 'two labels of an image': other}.items():
        rows.append(BadInput(f'{words}, merged', _run(its, merge_images=True), ('line 2', '`label`', 'line 1')))
    rows.append(
        BadInput('a label twice, merged', _run(same, merge_images=True, test_mode=True), gives=[('a red dog', 50)])
    )
    for first, second in (
        ('1.png', 'file://HERE/1.png'),
        ('1.png', './1.png'),
        ('1.png', 'b/../1.png'),
        ('HERE/1.png', '1.png'),
        ('b/..//1.png', '1.png'),
    ):
        words = f'{first} and {second} in a test'
        rows.append(BadInput(words, _twice(first, second), ('line 2', 'that of line 1')))
        rows.append(BadInput(f'{words}, merged', _twice(first, second, merge_images=True), gives=[(first[-7:], 50)]))
    for path, says in FILES.items():
        kept = [('text 0', 0), ('text 2', 100)]
        name = path if len(path) < 40 else 'a name of 300 letters'
        rows.append(BadInput(f'image is {name}', _image(path), (says, 'line 2')))
        rows.append(BadInput(f'test: image is {name}', _image(path, skip_bad={'max': 1}, test_mode=True), gives=kept))
    return rows


def _arguments() -> list[BadInput]:
    values: dict[str, tuple] = {
        'columns': (['image', 'text'], 'text', 7, {'text': 7}, {'text': 'a', 'image': 'a'}, {'caption': 'a'}),
        'skip_bad': (3, True, 'all', [1], {}, {'maximum': 1}),
        'classes': ({'cat': 0}, {'cat'}, 7, [], [''], ['cat', None], 'nowhere.txt'),
        'indices': ('2', [0, 9], [-9], 1.5, True, ['0'], [], 0, {0: 1}),
        'pipeline': (None, 'LoadImage', {'type': 'LoadImage'}, [None], [{}], ['LoadImage'], 7),
        'test_mode': ('False', None, 1, 0.0),
        'lazy_init': ('no', None, 0),
        'merge_images': ('no', None, 1),
        'drop_augmented': ('no', None, 1),
        'metainfo': ('classes', 7, ['classes'], {'CLASSES': ['cat', 'dog']}),
        'data_root': (None, 7, ['a'], 'a\0b'),
        'data_prefix': (None, 7, ['a'], {'img': 'a'}, {'img_path': 7}),
    }
    rows = [
        BadInput(
            f'{name}={value!r}', _run(ROWS, **{name: value}), 'nowhere.txt' if value == 'nowhere.txt' else name[:8]
        )
        for name, its in values.items()
        for value in its
    ]
    for limit in (-1, 1.5, math.nan, math.inf, '3', None, True, [1]):
        rows.append(BadInput(f'skip_bad at most {limit!r}', _run(ROWS, skip_bad={'max': limit}), 'skip_bad'))
    for name in (None, 7, [], 'm\0.jsonl'):
        rows.append(BadInput(f'ann_file={name!r}', lambda folder, name=name: ImageTextManifest(name), 'ann_file'))
    rows.append(BadInput('a column that no row has', _run(ROWS, columns={'class': 'kind'}), ("'kind'", 'columns')))
    rows.append(BadInput('the last of the indices', _run(ROWS, indices=[-1]), gives=[('text 2', 100)]))
    rows.append(BadInput('a folder as manifest', lambda folder: ImageTextManifest(str(folder)), 'must end in'))
    rows.append(BadInput('no manifest', lambda folder: ImageTextManifest(str(folder / 'a.csv')), 'a.csv'))
    backend = [{'type': 'LoadImage', 'backend_args': {'backend': 'nowhere'}}, PACK[1]]
    words = 'a file backend that is not there, with skip_bad'
    rows.append(BadInput(words, _run(ROWS, pipeline=backend, skip_bad={'max': 3}), 'nowhere'))
    return rows


def cases() -> list[BadInput]:
    return [*_lines(), *_files(), *_arguments()]
