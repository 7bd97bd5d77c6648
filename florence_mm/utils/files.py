"""Files that are whole or not there."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: What file systems answer that cannot flush a folder, network drives among them.
_NO_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EISDIR)


@contextmanager
def replacing(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path in the folder of ``path`` and rename it to ``path`` if the block ends without an error.

    The folder is made. A reader, or a kill at any moment, sees the old file or the new one, never a part; after an
    error the temporary file is gone. The new file gets the rights that the process gives to new files (its umask).

    Args:
        path: the file to write.
        durable: flush the file to the disk before the rename and the folder after it, so that a power cut leaves the
            old file or the new one too. It takes some milliseconds a file: ``False`` is for many small files that are
            checked or made anew when they are next needed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    temporary.touch()
    rights = temporary.stat().st_mode
    temporary.unlink()
    try:
        yield temporary
        if temporary.stat().st_mode != rights:  # safetensors writes files for their owner alone
            temporary.chmod(rights)
        if durable:
            _flush(temporary, os.O_RDWR)
        temporary.replace(path)
        if durable:
            _flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: str | Path, data: bytes | str, durable: bool = True) -> None:
    """Write bytes, or text as UTF-8, with :func:`replacing`."""
    with replacing(path, durable) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    try:
        _flush(folder, os.O_RDONLY)
    except OSError as error:  # the file itself is in place
        if error.errno not in _NO_FOLDERS:
            raise
