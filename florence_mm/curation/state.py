"""State of a run on disk: which files are whole, and of what they were made.

A step writes its files, each under a temporary name first, and then a record beside them: what they were made of and
with which options, and size and digest of each. A file counts only with a record that agrees with both, so that neither
a file of a killed run nor one of other options or inputs is taken for the result.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from florence_mm.errors import UsageError, shown_path
from florence_mm.utils.digests import blake2b_of
from florence_mm.utils.files import is_temporary, write_atomic
from florence_mm.utils.locks import try_lock

#: Part of every record; another one after a change of what a step writes.
VERSION = 3
_BLOCK = 1 << 12
_BLOCKS = 256


def sampled_digest(path: str | Path) -> str:
    """Digest of a large file by its size and 256 blocks of 4 KiB spread evenly over it; of a small one by all bytes.

    Tells whether an input is the one it was, without reading terabytes again. Times of change do not count, as copying
    changes them.

    Args:
        path: the file.
    """
    path = Path(path)
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open('rb') as file:
        if size <= _BLOCK * _BLOCKS:
            digest.update(file.read())
        else:
            for number in range(_BLOCKS):
                digest.update(os.pread(file.fileno(), _BLOCK, (size - _BLOCK) * number // (_BLOCKS - 1)))
    return digest.hexdigest()


def combined_digest(*parts: Any) -> str:
    """Digest of values that JSON knows."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def read_record(record: Path, made_of: Mapping[str, Any]) -> dict | None:
    """Read the record of a finished step; None unless its files are whole and made of the same.

    Args:
        record: the record's file.
        made_of: input and options, in JSON's types.

    Returns:
        ``files``, size and digest by path from the record's folder, and ``result``.
    """
    try:
        found = json.loads(record.read_bytes())
        wanted = json.loads(json.dumps({'version': VERSION, **made_of}))
        if found['made_of'] != wanted:
            return None
        for name, (size, digest) in found['files'].items():
            path = record.parent / name
            if path.stat().st_size != size or blake2b_of(path) != digest:
                return None
        return {'files': found['files'], 'result': dict(found['result'])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing, cut off, or something else
        return None


def write_record(record: Path, made_of: Mapping[str, Any], files: Iterable[Path], result: Mapping[str, Any]) -> dict:
    """Write the record of a finished step, after its files.

    Args:
        record: the record's file; the files lie in or below its folder, or in another by a path from it.
        made_of: input and options, in JSON's types.
        files: what the step wrote.
        result: what it found, in JSON's types.

    Returns:
        as :func:`read_record`.
    """
    entries = {os.path.relpath(path, record.parent): [path.stat().st_size, blake2b_of(path)] for path in files}
    content = {'made_of': {'version': VERSION, **made_of}, 'files': entries, 'result': result}
    write_atomic(record, json.dumps(content, sort_keys=True, indent=1))
    return {'files': entries, 'result': dict(result)}


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that a killed run has left in a folder and those below it."""
    for path in folder.rglob('.*'):
        if is_temporary(path.name):
            path.unlink(missing_ok=True)


@contextmanager
def one_run(folder: Path) -> Iterator[None]:
    """Hold a work folder for one run, and clear it of what a killed one left unfinished.

    The lock ends with the process, however it ends.

    Args:
        folder: the work folder; it is created.

    Raises:
        UsageError: another run works in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / '.lock', f'another run works in {shown_path(folder)}; let it end, or name another work folder'):
        remove_unfinished(folder)
        yield


@contextmanager
def held(file: Path, otherwise: str) -> Iterator[None]:
    """Hold the lock of a file, which is made if there is none; it ends with the process.

    Args:
        file: the file.
        otherwise: what to say if another process holds it.

    Raises:
        UsageError: another process holds it.
    """
    with file.open('ab') as lock:
        if not try_lock(lock.fileno()):
            raise UsageError(otherwise)
        yield
