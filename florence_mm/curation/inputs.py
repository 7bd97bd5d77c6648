"""Sources of raw pairs, divided into raw shards: a tar, some row groups of a parquet file, or some rows of a list."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from florence_mm.errors import DataError, UsageError, shown_path
from florence_mm.formats.rows import read_rows
from florence_mm.formats.shard_samples import IMAGES, TEXTS, split_name
from florence_mm.utils.files import replacing
from florence_mm.utils.json_files import read_json
from florence_mm.utils.numbers import is_whole
from florence_mm.utils.text_files import is_encodable

from .columns import MAX_SHARD, POSITION_BITS, require_pyarrow
from .options import InputOptions
from .reasons import INVALID_TEXT, NO_IMAGE
from .state import combined_digest, read_record, sampled_digest, write_record

#: About how many pairs a raw shard of a manifest, folder or parquet file has.
ROWS = 10_000
_SUFFIXES = {'tars': ('.tar',), 'parquet': ('.parquet',), 'manifest': ('.jsonl', '.csv', '.tsv', '.parquet')}


@dataclass(frozen=True)
class RawShard:
    """A part of the raw pairs that one process works on.

    Attributes:
        number: of the shard in the run.
        path: the tar, the parquet file, or the list of rows.
        options: of its source.
        groups: row groups of a parquet file with pictures.
        expected: pairs that it should have, as the downloader says; None: unknown.
    """

    number: int
    path: str
    options: InputOptions
    groups: tuple[int, ...] = ()
    expected: int | None = None

    def __str__(self) -> str:
        rows = f', row groups {self.groups[0]} to {self.groups[-1]}' if self.groups else ''
        return f'raw shard {self.number} ({shown_path(self.path)}{rows})'

    def digest(self) -> str:
        """Digest of what the shard is made of; pictures that only a list names count by their sizes."""
        files = [sampled_digest(self.path)]
        if self.options.kind == 'tars' and (beside := parquet_beside(self.path)).is_file():
            files.append(sampled_digest(beside))
        if self.options.kind in ('manifest', 'folder'):
            files += [_size(path) for row in read_list(self.path) for path in (row['path'], *row['texts']) if path]
        return combined_digest(
            files, self.groups, self.expected, sorted(self.options.names.items()), self.options.query
        )


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def parquet_beside(tar: str) -> Path:
    """The table that img2dataset writes beside a tar, with a row for each URL."""
    return Path(tar).with_suffix('.parquet')


def find_shards(sources: Sequence[InputOptions], work: Path, written: Sequence[Path] = ()) -> list[RawShard]:
    """Find the raw shards of all sources, in the order of sources and names.

    Args:
        sources: the sources.
        work: folder for the lists of manifests' and folders' rows.
        written: folders that the run writes to; what is in them is no source.

    Raises:
        UsageError: a source has nothing, or has files that the run itself writes.
        DataError: a manifest or parquet file cannot be read.
    """
    shards: list[RawShard] = []
    for place, source in enumerate(sources):
        find = {'tars': _tars, 'parquet': _row_groups, 'manifest': _manifest_lists, 'folder': _folder_lists}[
            source.kind
        ]
        before = len(shards)
        _check_apart(source, written)
        for path, groups, expected in find(source, work / f'{place:03}'):
            shards.append(RawShard(len(shards), path, source, groups, expected))
        if len(shards) == before:
            raise UsageError(f'inputs: there is nothing in {shown_path(source.path)}; correct the path or its kind')
    if len(shards) > MAX_SHARD:
        raise UsageError(f'the inputs have {len(shards)} raw shards, more than {MAX_SHARD}; curate them in parts')
    return shards


def _check_apart(source: InputOptions, written: Sequence[Path]) -> None:
    """Check that a source has no files of the run's own folders, which would be raw pairs of the next run."""
    folders = [folder.resolve() for folder in written]
    root = Path(source.path).expanduser().resolve()
    if source.kind == 'folder':
        inside = next((folder for folder in folders if folder.is_relative_to(root)), None)
    else:
        places = {path.parent.resolve() for path in _files(source, _SUFFIXES[source.kind])}
        inside = next((one for one in sorted(places) if any(map(one.is_relative_to, folders))), None)
    if inside is not None:
        raise UsageError(
            f'inputs: {shown_path(source.path)} includes {shown_path(inside)}, which this run writes to; name another '
            'work or out folder, or a narrower path'
        )


_Found = Iterator[tuple[str, tuple[int, ...], 'int | None']]


def _files(source: InputOptions, suffixes: tuple[str, ...]) -> list[Path]:
    """Files that a source names: itself, those of a folder, or the matches of a pattern, sorted."""
    path = Path(source.path).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = list(path.iterdir())
    else:
        # from the root, or else from the current folder
        found = list(Path(path.anchor or '.').glob(str(path.relative_to(path.anchor))))
    return sorted((one for one in found if one.name.endswith(suffixes) and one.is_file()), key=str)


def _tars(source: InputOptions, lists: Path) -> _Found:
    for path in _files(source, _SUFFIXES['tars']):
        statistics = path.with_name(f'{path.stem}_stats.json')
        count = None
        if statistics.is_file():
            count = read_json(statistics).get('successes')
            if not is_whole(count) or not 0 <= count <= 2**POSITION_BITS:
                raise DataError(
                    f"{shown_path(statistics)} has no count 'successes' from 0 to {2**POSITION_BITS}; remove it or "
                    'restore it'
                )
        yield str(path), (), count


def _row_groups(source: InputOptions, lists: Path) -> _Found:
    pa = require_pyarrow()
    from pyarrow import parquet

    for path in _files(source, _SUFFIXES['parquet']):
        try:
            metadata = parquet.read_metadata(path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f'{shown_path(path)} is not a whole parquet file ({str(error).splitlines()[0]})') from None
        groups: list[int] = []
        rows = 0
        for number in range(metadata.num_row_groups):
            groups.append(number)
            rows += metadata.row_group(number).num_rows
            if rows >= ROWS or number == metadata.num_row_groups - 1:
                yield str(path), tuple(groups), rows
                groups, rows = [], 0


def _manifest_lists(source: InputOptions, lists: Path) -> _Found:
    for number, path in enumerate(_files(source, _SUFFIXES['manifest'])):
        folder = lists / f'{number:05}'  # several may have the same name, in different folders
        made_of = {'manifest': sampled_digest(path), 'names': dict(source.names), 'prefix': source.prefix}
        made_of |= {'rows': ROWS, 'path': str(path.resolve())}
        record = folder / 'lists.json'
        if read_record(record, made_of) is None:
            files = _write_lists(_manifest_rows(source, path), folder)
            write_record(record, made_of, files, {})
        for name in sorted(json.loads(record.read_bytes())['files']):
            yield str(folder / name), (), None


def _manifest_rows(source: InputOptions, path: Path) -> Iterator[dict]:
    prefix = path.resolve().parent if source.prefix is None else Path(source.prefix).expanduser()
    for line, row in read_rows(path):
        listed = {'key': str(line), 'path': None, 'texts': [], 'fields': '{}', 'drop': None}
        if isinstance(row, DataError):
            listed['drop'] = INVALID_TEXT
        else:
            image = next((row[name] for name in source.names_of('image') if name in row), None)
            if not isinstance(image, str) or not image or '\0' in image or not is_encodable(image):
                listed['drop'] = NO_IMAGE
            else:
                listed['path'] = image if '://' in image else str(prefix / image)
            fields = {name: row[name] for name in text_names(source) if name in row}
            listed['fields'] = json.dumps(fields, default=str)
        yield listed


def _folder_lists(source: InputOptions, lists: Path) -> _Found:
    root = Path(source.path).expanduser()
    if not root.is_dir():
        raise UsageError(f'inputs: {shown_path(root)} is no folder; correct the path or its kind')
    # a folder has no digest of its own, so it is listed at every start
    for path in _write_lists(_folder_rows(root), lists):
        yield str(path), (), None


def _folder_rows(root: Path) -> Iterator[dict]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        samples: dict[str, list[dict[str, str]]] = {}
        for name in sorted(names):
            key, extension = split_name(name)
            if extension in (*IMAGES, *TEXTS):
                same = samples.setdefault(key, [{}])
                if extension in same[-1]:  # 1.JPG and 1.jpg are two pairs, as in a tar
                    same.append({})
                same[-1][extension] = str(Path(folder, name))
        for key, files in ((key, files) for key, same in samples.items() for files in same):
            image = next((files[one] for one in IMAGES if one in files), None)
            texts = [files[one] for one in TEXTS if one in files]
            name = str(Path(folder, key).relative_to(root))
            if not all(map(is_encodable, (folder, *files.values()))):  # a column of texts cannot hold such a path
                name, image, texts = shown_path(name), None, []
            drop = NO_IMAGE if image is None else None
            yield {'key': name, 'path': image, 'texts': texts, 'fields': '{}', 'drop': drop}


def _write_lists(rows: Iterator[dict], folder: Path) -> list[Path]:
    pa = require_pyarrow()
    from pyarrow import parquet

    schema = pa.schema(
        [
            ('key', pa.string()),
            ('path', pa.string()),
            ('texts', pa.list_(pa.string())),
            ('fields', pa.string()),
            ('drop', pa.string()),
        ]
    )
    written = []
    for number, part in enumerate(_in_parts(rows)):
        written.append(folder / f'{number:05}.parquet')
        with replacing(written[-1]) as temporary:
            parquet.write_table(pa.Table.from_pylist(part, schema=schema), temporary)
    return written


def _in_parts(rows: Iterator[dict]) -> Iterator[list[dict]]:
    while part := list(islice(rows, ROWS)):
        yield part


def text_names(source: InputOptions) -> list[str]:
    """What the fields other than the picture are called in the files of a source."""
    return [name for field in ('text', 'texts', 'label', 'query', 'augmented') for name in source.names_of(field)]


def read_list(path: str) -> list[dict[str, Any]]:
    """Read a list of rows that :func:`find_shards` wrote."""
    from pyarrow import parquet

    return parquet.read_table(path, use_threads=False).to_pylist()
