"""Bytes of pictures where they lie: in a tar, a file of their own, or a column of a parquet file."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from florence_mm.errors import DataError, shown_path
from florence_mm.formats.image import MAX_BYTES
from florence_mm.formats.rows import batch_rows
from florence_mm.formats.shard_samples import read_range
from florence_mm.utils.reading import read_bytes

from .columns import require_pyarrow, split_id
from .inputs import RawShard
from .options import InputOptions

#: Rows with pictures that are in memory at once.
_BATCH = 64
#: How the bytes of a picture begin, at an offset, and the extension of its file.
_STARTS = (
    (0, b'\xff\xd8', 'jpg'),
    (0, b'\x89PNG\r\n\x1a\n', 'png'),
    (8, b'WEBP', 'webp'),
    (0, b'GIF8', 'gif'),
    (0, b'BM', 'bmp'),
    (4, b'ftypavif', 'avif'),
    (4, b'ftypavis', 'avif'),
    (0, b'II', 'tif'),
    (0, b'MM', 'tif'),
    (0, b'P', 'ppm'),
    (4, b'jP  ', 'jp2'),
)


def extension_of(data: bytes) -> str:
    """Extension of a picture's file by the first bytes of its content.

    >>> extension_of(b'GIF89a')
    'gif'
    """
    return next((name for offset, start, name in _STARTS if data.startswith(start, offset)), 'jpg')


def parquet_rows(shard: RawShard, names: Sequence[str] = ()) -> Iterator['dict | str']:
    """Yield the rows of a parquet shard, with the picture and other columns; what is wrong of one that has no values.

    Args:
        shard: the shard.
        names: columns beside the picture; those that the file lacks are passed over.

    Raises:
        DataError: the file has no column of pictures, or is damaged.
    """
    pa = require_pyarrow()
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(shard.path) as file:
            there = file.schema_arrow.names
            image = next((name for name in shard.options.names_of('image') if name in there), None)
            if image is None:
                raise DataError(
                    f'{shown_path(shard.path)} has no column {" or ".join(shard.options.names_of("image"))}, but '
                    f"{', '.join(there)}; name the pictures' with names=dict(image=...)"
                )
            columns = [image, *(name for name in names if name in there)]
            twice = next((name for name in columns if there.count(name) > 1), None)
            if twice is not None:
                raise DataError(
                    f'{shown_path(shard.path)}: the column {twice!r} occurs twice; name or drop one of them'
                )
            batches = file.iter_batches(_BATCH, row_groups=shard.groups, columns=columns, use_threads=False)
            for batch in batches:
                yield from batch_rows(batch)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f'{shown_path(shard.path)} cannot be read ({str(error).splitlines()[0]})') from None


def picture_of(row: Mapping[str, Any], source: InputOptions) -> bytes | None:
    """The picture's bytes in a row of a parquet file, also within ``{'bytes': ..., 'path': ...}``; None without."""
    value = next((row[name] for name in source.names_of('image') if row.get(name) is not None), None)
    value = value.get('bytes') if isinstance(value, Mapping) else value
    return value if isinstance(value, bytes) and 0 < len(value) <= MAX_BYTES else None


def fetch_pictures(shard: RawShard, rows: Collection[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield the bytes of pictures of one shard, one at a time, except those of a parquet file.

    Args:
        shard: the shard.
        rows: rows of its sidecar, ascending by ``id``.

    Raises:
        DataError: a picture is not where it was.
    """
    try:
        if shard.options.kind == 'tars':
            descriptor = os.open(shard.path, os.O_RDONLY)
            try:
                for row in rows:
                    yield read_range(descriptor, row['image_offset'], row['image_size'])
            finally:
                os.close(descriptor)
        elif shard.options.kind == 'parquet':
            yield from _from_parquet(shard, rows)
        else:
            for row in rows:
                yield read_bytes(row['path'], limit=MAX_BYTES)
    except (DataError, FileNotFoundError) as error:
        raise DataError(
            f'{shard} has changed since stage A looked at it ({error}); restore it, or run the command again'
        ) from None


def _from_parquet(shard: RawShard, rows: Collection[Mapping[str, Any]]) -> Iterator[bytes]:
    wanted = iter(rows)
    row = next(wanted, None)
    for position, found in enumerate(parquet_rows(shard)):
        if row is None:
            return
        if position == split_id(row['id'])[1]:
            data = picture_of(found, shard.options) if isinstance(found, dict) else None
            if data is None:
                raise DataError(f'row {position} has no picture')
            yield data
            row = next(wanted, None)
