"""Sets of shards: webdataset tars with an index each, and ``index.json``, which says that the set is whole.

``index.json`` holds the format's version, the number of samples, and for each shard its name, its samples and bytes,
and the BLAKE2b digests of the tar and of its index. It is written last: a folder without it is not a whole set.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from florence_mm.errors import DataError, UsageError, shown, shown_path
from florence_mm.utils.digests import blake2b_of
from florence_mm.utils.files import replacing, write_atomic
from florence_mm.utils.json_files import parse_json, read_json
from florence_mm.utils.numbers import is_whole

from .shard_index import AUGMENTED, Place, ShardIndex, index_path
from .shard_samples import IMAGES, TEXTS, RawSample, group_samples, is_augmented, parse_text, read_range, split_name
from .tar import BLOCK, Member

__all__ = [
    'IMAGES',
    'Place',
    'RawSample',
    'SET_FILE',
    'Shard',
    'ShardIndex',
    'ShardSet',
    'TEXTS',
    'describe_shard',
    'group_samples',
    'index_path',
    'parse_set',
    'parse_text',
    'read_range',
    'read_set',
    'split_name',
    'write_set',
    'write_shard',
]

SET_FILE = 'index.json'
_FORMAT, _VERSION = 'florence_mm shards', 1
_DIGEST = re.compile('[0-9a-f]{32}')
_TOO_MANY = 1 << 45  # bytes of a tar; the sum over a set stays below 2**63


def write_shard(path: str | Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> int:
    """Write a webdataset tar and its index beside it; equal samples give equal bytes.

    Both are on disk before the tar has its name, and whoever finds the tar finds its index.

    Args:
        path: ``NAME.tar``.
        samples: key and content by extension of each, such as ``('0001', {'jpg': ..., 'json': ...})``. Keys have no dot
            in their last part, where webdataset would cut them.

    Returns:
        the number of samples.

    Raises:
        UsageError: ``path`` does not end in .tar, a key has a dot or occurs twice, or there are no samples.
    """
    path = Path(path)
    if path.suffix != '.tar':
        raise UsageError(f'the shard {shown_path(path)} must be named .tar, which webdataset looks for')
    rows: list[RawSample] = []
    augmented: list[bool] = []
    keys: set[str] = set()
    with replacing(path) as temporary:
        with temporary.open('wb') as file, tarfile.open(fileobj=file, mode='w', format=tarfile.PAX_FORMAT) as tar:
            for key, contents in samples:
                _check_key(key, keys, path)
                row = RawSample(key)
                for extension, content in contents.items():
                    info = tarfile.TarInfo(f'{key}.{extension}')
                    info.size, info.mode, info.mtime = len(content), 0o644, 0
                    tar.addfile(info, io.BytesIO(content))
                    padded = -(-info.size // BLOCK) * BLOCK
                    row.members[extension] = Member(info.name, tar.offset - padded, info.size)
                rows.append(row)
                augmented.append((row.first(TEXTS) or ('', None))[0] == 'json' and is_augmented(contents['json']))
        if not rows:
            raise UsageError(f'the shard {shown_path(path)} would have no samples; write it with at least one')
        # the old tar of this name would not fit the new index
        path.unlink(missing_ok=True)
        index = ShardIndex.of(rows, path)
        index.rows['flags'][augmented] = AUGMENTED
        index.write()
    return len(rows)


def _check_key(key: str, keys: set[str], path: Path) -> None:
    if not key or '.' in key.rpartition('/')[2] or '\0' in key or key.startswith('/'):
        raise UsageError(f'{shown_path(path)}: the key {shown(key)} must be a relative name without dots')
    if key in keys:
        raise UsageError(f'{shown_path(path)}: the key {shown(key)} occurs twice; number the samples')
    keys.add(key)


@dataclass(frozen=True)
class Shard:
    """Entry of a shard in ``index.json``.

    Attributes:
        name: of the tar, without a folder.
        samples: number of samples.
        bytes: size of the tar.
        digest, index_digest: BLAKE2b of 16 bytes, in hexadecimal, of the tar and of its index.
        augmented: number of samples whose text is already inside a template.
    """

    name: str
    samples: int
    bytes: int
    digest: str
    index_digest: str
    augmented: int = 0


@dataclass(frozen=True)
class ShardSet:
    """A whole set of shards; arrays, as a set may have 100,000 of them.

    Attributes:
        root: its folder or address.
        names: of the tars.
        samples, bytes, augmented: ``(S,)``, of each shard.
        digests, index_digests: ``(S,)``, bytes in hexadecimal.
    """

    root: str
    names: np.ndarray
    samples: np.ndarray
    bytes: np.ndarray
    digests: np.ndarray
    index_digests: np.ndarray
    augmented: np.ndarray

    @property
    def total(self) -> int:
        """Number of samples of all shards."""
        return int(self.samples.sum())

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Shard:
        return Shard(
            self.names[number].decode(),
            int(self.samples[number]),
            int(self.bytes[number]),
            self.digests[number].decode(),
            self.index_digests[number].decode(),
            int(self.augmented[number]),
        )


def describe_shard(tar: str | Path) -> Shard:
    """Read a shard and give its entry of ``index.json``; an index that is missing is made.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the tar is damaged or cut off, or its index is of another tar.
    """
    tar = Path(tar)
    index = ShardIndex.read(tar) if index_path(tar).is_file() else ShardIndex.build(tar)
    size = tar.stat().st_size
    index.check_fits(size)
    if not index_path(tar).is_file():
        index.write()
    augmented = len(index) - len(index.originals)
    return Shard(tar.name, len(index), size, blake2b_of(tar), blake2b_of(index_path(tar)), augmented)


def write_set(folder: str | Path, shards: Sequence[Shard] | None = None) -> ShardSet:
    """Write ``index.json`` of a folder of shards, which makes them a whole set.

    Args:
        folder: of the shards.
        shards: their entries, in order, see :func:`describe_shard`; None: all tars of the folder, sorted by name, which
            are read.

    Raises:
        UsageError: there are no shards.
        DataError: see :func:`describe_shard`.
    """
    folder = Path(folder)
    if shards is None:
        shards = [describe_shard(path) for path in sorted(folder.glob('*.tar'))]
    if not shards:
        raise UsageError(f'{shown_path(folder)} has no shards; expected files such as 00000.tar')
    head = {'format': _FORMAT, 'version': _VERSION, 'samples': sum(one.samples for one in shards)}
    lines = ',\n'.join(f'  {json.dumps(asdict(one))}' for one in shards)
    write_atomic(folder / SET_FILE, f'{json.dumps(head)[:-1]}, "shards": [\n{lines}\n]}}\n')
    return read_set(folder)


def read_set(folder: str | Path) -> ShardSet:
    """Read the ``index.json`` of a local set of shards.

    Args:
        folder: of the set, or its ``index.json``.

    Raises:
        FileNotFoundError: there is none: the set is not whole.
        DataError: it is damaged or of another version.
    """
    path = Path(folder)
    path = path if path.name == SET_FILE else path / SET_FILE
    content = read_json(
        path,
        missing='if its writer was stopped, let it end; for tars of others call write_set',
    )
    return _set_of(content, str(path.parent), str(path))


def parse_set(data: bytes, root: str) -> ShardSet:
    """Read the content of an ``index.json`` that lies under ``root``; errors are those of :func:`read_set`."""
    where = f'{root}/{SET_FILE}'
    return _set_of(parse_json(data, where), root, where)


def _set_of(content: Any, root: str, where: str) -> ShardSet:
    if not isinstance(content, Mapping) or content.get('format') != _FORMAT:
        raise DataError(f'{where} is no index of a set of shards; name the folder that tools/curate.py has written')
    if content.get('version') != _VERSION:
        version = shown(content.get('version'))
        raise DataError(f'{where} has version {version}, and this release reads {_VERSION}; update florence_mm')
    try:
        shards = [Shard(**entry) for entry in content['shards']]
        if not shards or not all(map(_is_whole_entry, shards)):
            raise ValueError('a shard without samples, bytes or digests, or an impossible number of them')
        if content['samples'] != sum(one.samples for one in shards):
            raise ValueError('another total of samples than its shards have')
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f'{where} is damaged ({error}); write the set again') from None
    names = [one.name.encode('utf-8', 'surrogateescape') for one in shards]
    if len(set(names)) < len(names):
        raise DataError(f'{where} is damaged (a shard occurs twice); write the set again')
    return ShardSet(
        root,
        np.array(names),
        np.array([one.samples for one in shards], np.int64),
        np.array([one.bytes for one in shards], np.int64),
        np.array([one.digest.encode() for one in shards]),
        np.array([one.index_digest.encode() for one in shards]),
        np.array([one.augmented for one in shards], np.int64),
    )


def _is_whole_entry(shard: Shard) -> bool:
    texts = (shard.name, shard.digest, shard.index_digest)
    numbers = (shard.samples, shard.bytes)
    if not all(isinstance(one, str) and one for one in texts) or not all(
        is_whole(one) and 0 < one < _TOO_MANY for one in numbers
    ):
        return False
    if not is_whole(shard.augmented) or not 0 <= shard.augmented <= shard.samples:
        return False
    if not all(map(_DIGEST.fullmatch, (shard.digest, shard.index_digest))):  # the names of files in a cache, too
        return False
    return '/' not in shard.name and '\0' not in shard.name and shard.name.endswith('.tar')
