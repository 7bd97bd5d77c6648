"""Readers of jsonl, csv, tsv and parquet files that yield rows one at a time, with line numbers.

Each reader yields ``(line, row)``. ``row`` is a dict without empty cells, or a :class:`DataError` if the line cannot
be read; faults of the whole file are raised. Line numbers start at 1, as in an editor; in a parquet file they count
rows.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from florence_mm.errors import DataError
from florence_mm.utils.progress import ProgressLog

Rows = Iterator[tuple[int, 'dict | DataError']]


def read_rows(path: str | Path) -> Rows:
    """Read the rows of a file; its extension tells the format.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the extension is unknown, or the file as a whole is unusable.
    """
    path = Path(path)
    readers = {'.jsonl': read_jsonl, '.csv': read_csv, '.tsv': read_csv, '.parquet': read_parquet}
    if path.suffix not in readers:
        raise DataError(f'{path} must end in one of {", ".join(readers)}')
    if not path.is_file():
        raise FileNotFoundError(
            f'there is no manifest {path}; make it (docs/data.md) or correct `ann_file` and `data_root`'
        )
    return readers[path.suffix](path)


def read_jsonl(path: Path) -> Rows:
    """Read JSON lines: one object per line; blank lines are skipped.

    >>> path = Path('pairs.jsonl')
    >>> path.write_text('{"image": "1.jpg", "text": "two dogs"}\\n\\n{"image": "2.jpg", "image": "3.jpg"}')
    76
    >>> for line, row in read_jsonl(path):
    ...     print(line, row)
    1 {'image': '1.jpg', 'text': 'two dogs'}
    3 pairs.jsonl, line 3: the key 'image' occurs twice
    """
    progress = ProgressLog(f'reading {path}', path.stat().st_size)
    done = 0
    with path.open('rb') as file:
        for line, raw in enumerate(file, 1):
            done += len(raw)
            progress.update(done)
            if raw.strip():
                yield line, _parse_json(raw, path, line)


def _parse_json(raw: bytes, path: Path, line: int) -> dict | DataError:
    try:
        row = _JSON.decode(raw.decode('utf-8-sig' if line == 1 else 'utf-8'))
    except UnicodeDecodeError:
        return DataError(f'{path}, line {line}: the line is not UTF-8')
    except json.JSONDecodeError as error:
        return DataError(f'{path}, line {line}: not a JSON object ({error.msg} at column {error.colno})')
    except (ValueError, RecursionError) as error:
        return DataError(f'{path}, line {line}: {error}')
    if not isinstance(row, dict):
        return DataError(f'{path}, line {line}: expected a JSON object, got {type(row).__name__}')
    return {key: value for key, value in row.items() if value is not None}


def _unique_keys(pairs: list[tuple]) -> dict:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f'the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice')
    return row


_JSON = json.JSONDecoder(object_pairs_hook=_unique_keys)


def read_csv(path: Path) -> Rows:
    """Read comma- or tab-separated rows under a header line, quoted as in RFC 4180; ``texts`` is a JSON list."""
    progress = ProgressLog(f'reading {path}', path.stat().st_size)
    delimiter = '\t' if path.suffix == '.tsv' else ','
    with path.open('rb') as raw:
        # bytes that are not UTF-8 become lone surrogates, which are detected per line
        file = io.TextIOWrapper(raw, encoding='utf-8-sig', errors='surrogateescape', newline='')
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header = _csv_header(reader, path)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, DataError(f'{path}, line {line}: not a line of cells ({error})')
                continue
            progress.update(raw.tell())
            if cells:
                yield line, _parse_cells(header, cells, path, line)


def _csv_header(reader: 'csv.reader', path: Path) -> list[str]:
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise DataError(f'{path}, line 1: not a header line ({error})') from None
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f'{path}, line 1: the column {twice!r} occurs twice')
    return header


def _parse_cells(header: list[str], cells: list[str], path: Path, line: int) -> dict | DataError:
    if len(cells) != len(header):
        return DataError(f'{path}, line {line}: {len(cells)} cells, but the header has {len(header)}')
    row = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    if any(not cell.isascii() and _has_surrogate(cell) for cell in cells):
        return DataError(f'{path}, line {line}: the line is not UTF-8')
    if 'texts' in row:
        try:
            row['texts'] = json.loads(row['texts'])
        except json.JSONDecodeError:
            return DataError(f'{path}, line {line}: `texts` must be a JSON list of strings, but is {row["texts"]!r}')
    return row


def _has_surrogate(cell: str) -> bool:
    return any('\ud800' <= char <= '\udfff' for char in cell)


def read_parquet(path: Path) -> Rows:
    """Read the rows of a parquet file in batches; needs pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError(f"reading {path} needs pyarrow; install it with 'pip install pyarrow'") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            progress = ProgressLog(f'reading {path}', file.metadata.num_rows)
            line = 0
            for batch in file.iter_batches(batch_size=8192):
                for row in batch.to_pylist():
                    line += 1
                    yield line, {key: value for key, value in row.items() if value is not None}
                progress.update(line)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f'{path} is not a whole parquet file ({str(error).splitlines()[0]})') from None
