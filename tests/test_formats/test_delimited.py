"""Comma- and tab-separated files: cells as Python's csv module splits them, and quotation marks without a partner."""

import csv
import io
import random

import pytest

from florence_mm.errors import DataError
from florence_mm.formats.delimited import MAX_LINES
from florence_mm.formats.rows import read_rows


@pytest.fixture
def read(tmp_path):
    """Rows of a text by line, errors as their texts."""

    def read(text, name='a.csv', **kwargs):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        rows = {line: str(row) if isinstance(row, DataError) else row for line, row in read_rows(path, **kwargs)}
        return {line: row.replace(f'{path}, ', '') if isinstance(row, str) else row for line, row in rows.items()}

    return read


@pytest.mark.parametrize(('name', 'delimiter'), [('a.csv', ','), ('a.TSV', '\t')])
def test_rows_are_those_of_the_csv_module(read, name, delimiter):
    draw = random.Random(0)
    # without tabs in a tsv, where a cell over lines with as many tabs as a row is none
    pieces = ['a', 'b c', '"', '""', ',', ',' if delimiter == '\t' else '\t', '\n', '\r\n', 'é', "'", '\\', ' ']
    cells = [[''.join(draw.choices(pieces, k=draw.randrange(1, 9))) for _ in range(3)] for _ in range(300)]
    for number, row in enumerate(cells):
        row[1] = f'{number}.jpg'
    for style in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC):
        file = io.StringIO(newline='')
        csv.writer(file, delimiter=delimiter, quoting=style).writerows([['x', 'y', 'z'], *cells])
        reader = csv.reader(io.StringIO(file.getvalue(), newline=''), delimiter=delimiter)
        lines = [1 + reader.line_num for _ in reader]
        rows = read(file.getvalue(), name)
        assert list(rows.values()) == [dict(zip('xyz', row, strict=True)) for row in cells]
        assert list(rows) == lines[:-1]


PETS = ['a dog', '"Sit', 'plain', '"a" b', 'down"', 'last']


def test_a_quotation_mark_without_a_partner_takes_no_other_line(read):
    text = 'image\ttext\n' + ''.join(f'{n}.png\t{pet}\n' for n, pet in enumerate(PETS))
    # a text that is quoted as a whole would lose its quotation marks, as any reader of such files has it
    assert [row['text'] for row in read(text, 'a.tsv').values()] == PETS
    rows = read(text.replace('\t', ','))
    assert rows[3].startswith('line 3: a quotation mark opens a cell and has no partner')
    assert rows[5].startswith('line 5: a quotation mark opens a cell and has no partner')
    assert [rows[line]['text'] for line in (2, 4, 6, 7)] == ['a dog', 'plain', 'down"', 'last']
    # the text before the image, which then tells that a line is a row
    text = 'text\timage\n' + ''.join(f'{pet}\t{n}.png\n' for n, pet in enumerate(PETS))
    assert [row['text'] for row in read(text, 'a.tsv').values()] == PETS


def test_lines_between_two_quotation_marks_are_counted_one_by_one(read):
    # no file name tells whether lines 2 to 4 are one caption
    text = 'id,text\na,"two\nb,three\nc,four"\nd,five\n'
    rows = read(text)
    assert list(rows) == [2, 3, 4, 5] and rows[5] == {'id': 'd', 'text': 'five'}
    assert all('each of which could be a row' in rows[line] for line in (2, 3, 4))
    assert [row['text'] for row in read(text.replace(',', '\t'), 'a.tsv').values()] == [
        '"two',
        'three',
        'four"',
        'five',
    ]


def test_cells_over_lines_stay_cells(read):
    assert read('image,text\n1.png,"two dogs\nrun, fast\n"\n2.png,x\n') == {
        2: {'image': '1.png', 'text': 'two dogs\nrun, fast\n'},
        5: {'image': '2.png', 'text': 'x'},
    }
    long = 'line\n' * (MAX_LINES - 1)
    assert read(f'image,text\n1.png,"{long}"\n')[2]['text'] == long
    assert 'has no partner' in read(f'image,text\n1.png,"{long}\n"\n')[2]


def test_a_file_that_ends_inside_a_cell(read):
    assert read('image\ttext\n1.png\t"two', 'a.tsv') == {2: {'image': '1.png', 'text': '"two'}}
    assert 'has no partner' in read('image,text\n1.png,"two')[2]


def test_cells_of_any_length_and_lists_by_name(read):
    limit = csv.field_size_limit()
    long = 'x' * (2 * limit)
    assert read(f'image,text\n1.png,"{long}"\n2.png,{long}\n') == {
        line: {'image': f'{line - 1}.png', 'text': long} for line in (2, 3)
    }
    assert csv.field_size_limit() == limit
    text = 'image,said,texts\n1.png,"[""a"", ""b""]",plain\n'
    assert read(text, lists=['said'])[2] == {'image': '1.png', 'said': ['a', 'b'], 'texts': 'plain'}
    assert 'line 2: `texts` must be a JSON list' in read(text)[2]
    assert 'must be a JSON list' in read('image,texts\n1.png,' + '[' * 100000)[2]


@pytest.mark.parametrize('name', ['a.csv', 'a.tsv', 'a.jsonl'])
def test_other_encodings(read, name):
    for encoding in ('utf-16', 'utf-32'):
        with pytest.raises(DataError, match='is UTF-16 or UTF-32 text; save it as UTF-8'):
            read('image,text\n1.png,a\n'.encode(encoding), name)
    if name != 'a.jsonl':
        with pytest.raises(DataError, match='line 1: the header has NUL characters'):
            read('image,text\n1.png,a\n'.encode('utf-16-le'), name)


def test_a_parquet_file_with_a_column_twice_or_other_bytes(read, tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / 'a.parquet'
    column = pyarrow.array(['a', 'b'])
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([column, column], ['text', 'text']), path)
    with pytest.raises(DataError, match="the column 'text' occurs twice"):
        list(read_rows(path))
    broken = pyarrow.array([b'a', b'\xff', b'c']).cast(pyarrow.string(), safe=False)
    pyarrow.parquet.write_table(pyarrow.table({'text': broken}), path)
    rows = dict(read_rows(path))
    assert (rows[1], rows[3]) == ({'text': 'a'}, {'text': 'c'})
    assert 'line 2: a text is not UTF-8' in str(rows[2])
