"""Reader of comma- and tab-separated files that tells cells over several lines from unpaired quotation marks."""

import csv
import io
import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from florence_mm.errors import DataError, shown
from florence_mm.utils.progress import ProgressLog
from florence_mm.utils.text_files import is_encodable

#: Lines of the longest quoted cell; a quotation mark without its partner would otherwise take in the rest of a file.
MAX_LINES = 1000
#: First bytes of UTF-16 and of little-endian UTF-32.
WIDE_MARKS = (b'\xff\xfe', b'\xfe\xff')
# a file name with an extension, or a URL: what tells the first cell of a row from a piece of a caption
_LOCATION = re.compile(r'.*[^\s.]\.[A-Za-z][A-Za-z0-9]{1,4}|\w+://\S+')
_LONELY = 'a quotation mark opens a cell and has no partner; double the quotation marks of a text, or leave them out'
_UNCLEAR = 'a cell that goes on over lines, each of which could be a row; double the quotation marks of a text'


def read_csv(
    path: Path, lists: Sequence[str] = ('texts',), columns: Sequence[str] | None = None
) -> Iterator[tuple[int, 'dict | DataError']]:
    """Read comma- or tab-separated rows under a header line; yield line number and row, or what is wrong with it.

    Cells are quoted as in RFC 4180, may be of any length, and may have line ends between quotation marks. If a
    quotation mark has no partner, only its own line suffers: a cell that goes on over lines which are rows
    themselves (in number of cells and with a file name where the first has one) is none. In a ``.tsv``, whose texts
    are often published without quoting, such a line is read with its quotation mark; in a ``.csv`` it is an error.

    Args:
        path (Path): The file.
        lists (Sequence[str]): Columns whose cells are JSON lists.
        columns (Sequence[str] | None): Names of the columns of a file whose header line may be missing.

    Raises:
        DataError: the file is not UTF-8 but UTF-16 or UTF-32, or its header line is unusable.
    """
    progress = ProgressLog(f'reading {path}', path.stat().st_size)
    delimiter = '\t' if path.suffix.lower() == '.tsv' else ','
    with path.open('rb') as raw:
        if raw.read(2) in WIDE_MARKS:
            raise DataError(f'{path} is UTF-16 or UTF-32 text; save it as UTF-8')
        raw.seek(0)
        # bytes that are not UTF-8 become lone surrogates, which are detected per line
        file = io.TextIOWrapper(raw, encoding='utf-8-sig', errors='surrogateescape', newline='')
        lines = _Lines(file)
        header = list(columns) if columns else _header(lines, delimiter, path)
        while (text := lines.peek()) is not None:
            cells = _split(text, delimiter) if '"' not in text else _in_one_line(text, delimiter)
            rows = _next_rows(lines, header, delimiter) if cells is None else [(lines.take(), cells)]
            for line, found in rows:
                if isinstance(found, str):
                    yield line, DataError(f'{path}, line {line}: {found}')
                elif found:
                    yield line, _row(header, found, lists, path, line)
            progress.update(raw.tell())


class _Lines:
    """Lines of a file with their numbers, of which any number can be looked at before they are taken."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        self.file = file
        self.ahead: deque[str] = deque()
        self.number = 1  # of the line that is taken next

    def peek(self, offset: int = 0) -> str | None:
        while len(self.ahead) <= offset:
            line = self.file.readline()
            if not line:
                return None
            self.ahead.append(line)
        return self.ahead[offset]

    def take(self) -> int:
        """Go on to the next line; returns the number of the one that is taken."""
        self.ahead.popleft()
        self.number += 1
        return self.number - 1


def _next_rows(lines: _Lines, header: list[str], delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Take the lines of a cell that does not end in its line; yield line number and cells, or what is wrong."""
    line = lines.number
    cells, count = _quoted(lines, delimiter)
    if cells is not None and count == 1:
        lines.take()
        yield line, cells
        return
    span = [lines.peek(offset) for offset in range(count)]
    literal = [_split(text, delimiter) for text in span]
    fits = [not cells or len(cells) == len(header) for cells in literal]
    if cells is not None:
        places = [place for place, cell in enumerate(literal[0]) if _LOCATION.fullmatch(cell.strip())]
        rows = [
            fit and row and any(_LOCATION.fullmatch(row[place].strip()) for place in places)
            for fit, row in zip(fits[1:], literal[1:], strict=True)
        ]
        if not any(rows) and (places or not all(fits)):
            for _ in span:
                lines.take()
            yield line, cells
            return
        if not places and delimiter == ',':  # nothing tells one reading from the other
            for _ in span:
                yield lines.number, _UNCLEAR
                lines.take()
            return
    # only the line with the quotation mark is decided; those after it are looked at by themselves
    lines.take()
    yield line, literal[0] if delimiter == '\t' else _LONELY


def _in_one_line(text: str, delimiter: str) -> list[str] | None:
    """Split a line whose cells all end in it, by Python's fast reader; None for any other."""
    try:
        return next(csv.reader((text,), delimiter=delimiter, strict=True))
    except csv.Error:
        return None


def _quoted(lines: _Lines, delimiter: str) -> tuple[list[str] | None, int]:
    """Split the next lines as RFC 4180 has it; return the cells and their number of lines, or None and 1."""
    cells: list[str] = []
    count, at, text = 1, 0, lines.peek().rstrip('\r\n')
    ending = lines.peek()[len(text) :]
    while True:
        if not text.startswith('"', at):
            end = text.find(delimiter, at)
            cells.append(text[at:] if end < 0 else text[at:end])
            if end < 0:
                return cells, count
            at = end + 1
            continue
        parts, at = [], at + 1
        while True:
            end = text.find('"', at)
            if end < 0:  # the cell goes on in the next line
                following = lines.peek(count) if count < MAX_LINES else None
                if following is None:
                    return None, 1
                parts.append(text[at:] + ending)
                at, text = 0, following.rstrip('\r\n')
                ending = following[len(text) :]
                count += 1
            elif text.startswith('"', end + 1):
                parts.append(text[at : end + 1])
                at = end + 2
            else:
                parts.append(text[at:end])
                at = end + 1
                break
        cells.append(''.join(parts))
        if at == len(text):
            return cells, count
        if text[at] != delimiter:
            return None, 1
        at += 1


def _split(text: str, delimiter: str) -> list[str]:
    text = text.rstrip('\r\n')
    return text.split(delimiter) if text else []


def _header(lines: _Lines, delimiter: str, path: Path) -> list[str]:
    if lines.peek() is None:
        return []
    cells, count = _quoted(lines, delimiter)
    if cells is None:
        raise DataError(f'{path}, line 1: {_LONELY}')
    for _ in range(count):
        lines.take()
    header = [name.strip() for name in cells]
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f'{path}, line 1: the column {twice!r} occurs twice')
    if any('\0' in name for name in header):
        raise DataError(f'{path}, line 1: the header has NUL characters; save the file as UTF-8 text')
    other = next((mark for mark in '\t;,|' if len(header) == 1 and mark in header[0]), None)
    if other is not None:
        raise DataError(
            f'{path}, line 1: the header is one cell, {header[0]!r}; separate the columns by '
            f'{"tabs, or name the file .csv" if delimiter != "," else "commas, or by tabs in a .tsv"}'
        )
    return header


def _row(header: list[str], cells: list[str], lists: Sequence[str], path: Path, line: int) -> dict | DataError:
    if len(cells) != len(header):
        return DataError(f'{path}, line {line}: {len(cells)} cells, but the header has {len(header)}')
    if not all(cell.isascii() or is_encodable(cell) for cell in cells):
        return DataError(f'{path}, line {line}: the line is not UTF-8')
    row: dict = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    for name in lists:
        if name in row:
            try:
                row[name] = json.loads(row[name])
            except (ValueError, RecursionError):
                return DataError(
                    f'{path}, line {line}: `{name}` must be a JSON list of strings, but is {shown(row[name])}'
                )
    return row
