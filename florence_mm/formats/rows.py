"""Readers of jsonl, csv, tsv and parquet files that yield rows one at a time, with line numbers.

Each reader yields ``(line, row)``. ``row`` is a dict without empty cells, or a :class:`DataError` if the line cannot
be read; faults of the whole file are raised. Line numbers start at 1, as in an editor; in a parquet file they count
rows.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from florence_mm.errors import DataError
from florence_mm.utils.json_files import unique_keys
from florence_mm.utils.progress import ProgressLog

from .delimited import WIDE_MARKS, read_csv

Rows = Iterator[tuple[int, 'dict | DataError']]


def read_rows(path: str | Path, lists: Sequence[str] = ('texts',)) -> Rows:
    """Read the rows of a file; its extension tells the format.

    Args:
        path (str | Path): The file.
        lists (Sequence[str]): Columns that hold JSON lists in a csv or tsv.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the extension is unknown, or the file as a whole is unusable.
    """
    path = Path(path)
    readers = {'.jsonl': read_jsonl, '.csv': read_csv, '.tsv': read_csv, '.parquet': read_parquet}
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise DataError(f'{path} must end in one of {", ".join(readers)}')
    if not path.is_file():
        advice = 'make it (docs/data.md) or correct `ann_file` and `data_root`'
        if path.exists():
            raise DataError(f'the manifest {path} is a folder, pipe or device; {advice}')
        raise FileNotFoundError(f'there is no manifest {path}; {advice}')
    return read_csv(path, lists) if readers[suffix] is read_csv else readers[suffix](path)


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
        if file.read(2) in WIDE_MARKS:
            raise DataError(f'{path} is UTF-16 or UTF-32 text; save it as UTF-8')
        file.seek(0)
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
    except RecursionError:
        return DataError(f'{path}, line {line}: lists or objects are nested too deeply')
    except ValueError as error:
        return DataError(f'{path}, line {line}: {error}')
    if not isinstance(row, dict):
        return DataError(f'{path}, line {line}: expected a JSON object, got {type(row).__name__}')
    return {key: value for key, value in row.items() if value is not None}


_JSON = json.JSONDecoder(object_pairs_hook=unique_keys)


def read_parquet(path: Path) -> Rows:
    """Read the rows of a parquet file in batches; needs pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError(f"reading {path} needs pyarrow; install it with 'pip install pyarrow'") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise DataError(f'{path}: the column {twice!r} occurs twice; name or drop one of them')
            progress = ProgressLog(f'reading {path}', file.metadata.num_rows)
            line = 0
            for batch in file.iter_batches(batch_size=8192):
                for row in batch_rows(batch):
                    line += 1
                    if isinstance(row, str):
                        yield line, DataError(f'{path}, line {line}: {row}')
                    else:
                        yield line, {key: value for key, value in row.items() if value is not None}
                progress.update(line)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f'{path} is not a whole parquet file ({str(error).splitlines()[0]})') from None


def batch_rows(batch: Any) -> list[dict | str]:
    """Rows of a record batch of pyarrow; what is wrong where a value has no counterpart in Python."""
    try:
        return batch.to_pylist()
    # of a text that is not UTF-8, a date beyond the year 9999, an unknown time zone
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            utf8 = isinstance(error, UnicodeDecodeError)
            return [
                'a text is not UTF-8'
                if utf8
                else f'a value cannot be read ({str(error).splitlines()[0]}); leave its column out'
            ]
    return [row for number in range(batch.num_rows) for row in batch_rows(batch.slice(number, 1))]
