import io
import json

import pytest

from florence_mm.errors import DataError
from florence_mm.preparation.merging.json_lists import _Whole, iter_list

PAIR = '\ud83d\ude00'
WHOLE = (PAIR, f'\u00e9{PAIR}\u4e2d{PAIR}', '\\', '\\\\ud800', '\\ud800', 'a\\', f'"\\{PAIR}')
HALVES = ('\ud83d', '\ude00', '\ude00\ud83d', '\ud83dx\ude00', '\\\ud83d', '\u00e9\ud83d\u00e9')


def blocks(data, size):
    reader = _Whole(io.BytesIO(data), 'a.json')
    return b''.join(iter(lambda: reader.read(size), b''))


@pytest.mark.parametrize('size', [1, 2, 3, 5, 7, 11, 64])
@pytest.mark.parametrize('text', WHOLE)
def test_whole_characters_pass_however_the_blocks_lie(size, text):
    text = text.encode('utf-16', 'surrogatepass').decode('utf-16')
    data = json.dumps({'name': text, 'more': [text, text]}).encode()
    assert blocks(data, size) == data


@pytest.mark.parametrize('size', [1, 2, 3, 5, 7, 11, 64])
@pytest.mark.parametrize('text', HALVES)
def test_halves_of_characters_are_refused_however_the_blocks_lie(size, text):
    with pytest.raises(DataError, match=r'a.json has the text .*(\\ud83d|\\ude00).*, half of a character'):
        blocks(json.dumps({'name': text, 'more': 1}).encode(), size)


def test_nesting(tmp_path):
    path = tmp_path / 'a.json'
    path.write_bytes(b'{"x": ' + b'[' * 50_000 + b']' * 50_000 + b', "images": [{"id": 1}]}')
    with pytest.raises(DataError, match='a.json is not a COCO-format file: .* nested too deeply'):
        list(iter_list(path, 'images'))
    path.write_bytes(b'\xef\xbb\xbf{"x": ' + b'[' * 50 + b']' * 50 + b', "images": [{"id": 1}]}')
    assert list(iter_list(path, 'images')) == [{'id': 1}]
