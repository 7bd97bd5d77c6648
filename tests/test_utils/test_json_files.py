import codecs

import pytest

from florence_mm.errors import DataError
from florence_mm.utils.json_files import parse_json, read_json, require_list


@pytest.mark.parametrize(
    'data',
    [
        '{"a": [1, "é"]}'.encode(),
        codecs.BOM_UTF8 + '{"a": [1, "é"]}'.encode(),
        '{"a": [1, "é"]}'.encode('utf-16'),
        '{"a": [1, "é"]}'.encode('utf-32'),
        b'{"a": [1, "\\u00e9"]}',
    ],
)
def test_encodings(tmp_path, data):
    path = tmp_path / 'file.json'
    path.write_bytes(data)
    assert read_json(path) == {'a': [1, 'é']}


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (b'', 'is empty'),
        (b' \n', 'is empty'),
        (b'{"a": "\xe9t\xe9"}', r'is not UTF-8 text \(byte 0xe9 at position 7\)'),
        (b'\x1f\x8b\x08\x00', 'is not UTF-8 text'),
        (b'{"a": [1, 2', 'cannot be read as JSON'),
        (b'{"a": 1} {"a": 1}', 'cannot be read as JSON .*Extra data'),
        (b'[' * 100_000 + b']' * 100_000, 'nested too deeply'),
        (b'{"a":' * 100_000 + b'1' + b'}' * 100_000, 'nested too deeply'),
        (b'{"a": ' + b'9' * 5000 + b'}', 'cannot be read as JSON'),
        (b'{"b": {"a": 1, "c": 2, "a": 1}}', "the key 'a' occurs twice"),
    ],
)
def test_what_is_no_json(data, message):
    with pytest.raises(DataError, match=f'^file.json, line 3 .*{message}'):
        parse_json(data, 'file.json, line 3')


@pytest.mark.parametrize(
    ('data', 'held'),
    [(b'[]', 'a list'), (b'"a"', 'a text'), (b'null', 'null'), (b'true', 'a truth value'), (b'1', 'a number')],
)
def test_top_level_of_another_kind(tmp_path, data, held):
    path = tmp_path / 'file.json'
    path.write_bytes(data)
    with pytest.raises(DataError, match=f'file.json holds {held}; expected an object$'):
        read_json(path)
    if held != 'a list':
        with pytest.raises(DataError, match=f'file.json holds {held}; expected an object or a list$'):
            read_json(path, (dict, list))


def test_missing_file_and_missing_list(tmp_path):
    for path in (tmp_path / 'none.json', tmp_path):
        with pytest.raises(FileNotFoundError, match='there is no file .*; fetch it$'):
            read_json(path, missing='fetch it')
    assert require_list({'rows': []}, 'rows', 'f.json', 'rows') == []
    for content in ({}, {'rows': {}}, {'rows': None}):
        with pytest.raises(DataError, match="^f.json has no list 'rows'; expected rows of a table$"):
            require_list(content, 'rows', 'f.json', 'rows of a table')


def test_objects_are_replaced_while_parsing():
    assert parse_json(b'[{"a": 1}, {"b": {"c": 2}}]', 'file', object_hook=tuple) == [('a',), ('b',)]
