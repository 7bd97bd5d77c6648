"""Atomic writing: a file is complete or not there, and an output never replaces an input."""

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from florence_mm.errors import UsageError

#: Errors of file systems that cannot flush a folder, such as network drives.
_NO_FOLDER_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EISDIR)
FILE = 'a file'
#: The file that tells that a folder is a whole checkpoint (:mod:`florence_mm.models.checkpoints.parts`).
FOLDER_INDEX = 'checkpoint.json'
_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: 'a folder',
    stat.S_IFIFO: 'a named pipe',
    stat.S_IFCHR: 'a device',
    stat.S_IFBLK: 'a device',
    stat.S_IFSOCK: 'a socket',
}
_LONGEST_STEM = 180  # bytes
_TEMPORARY = re.compile(r'\..+\.\d+-[0-9a-f]{8}\.tmp')
#: torch.save's writer of zip archives, whose errors do not say what the system said.
_TORCH_CANNOT_WRITE = re.compile(r'inline_container|PytorchStreamWriter')


@contextmanager
def replacing(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """Replace a file atomically: yield a temporary path beside it, renamed to ``path`` if the block does not raise.

    The folder is created. Readers see the old file or the new one, never a part, even if the process is killed; after
    an error the temporary file is removed. The new file has the permissions of the process's new files (its umask).

    Args:
        path: the file to write.
        durable: flush the file to disk before the rename and its folder afterwards, so that a power cut also leaves
            the old or the new file. Takes a few milliseconds per file; ``False`` is for many small files that are
            checked, or can be generated again, when they are next needed.

    Raises:
        UsageError: ``path`` is a folder, a device or a pipe.
    """
    path = Path(path)
    if path.is_dir() or not path.name:
        raise UsageError(f'{path} is a folder, and a file is to be written; name a file')
    _refuse_special(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # several threads, or several machines on one drive, may write the same path
    temporary = temporary_name(path)
    try:
        with _naming(path, temporary):
            temporary.touch()
            rights = temporary.stat().st_mode
            temporary.unlink()
            yield temporary
            if temporary.stat().st_mode != rights:  # safetensors makes files readable by their owner only
                temporary.chmod(rights)
            if durable:
                _flush(temporary, os.O_RDWR)
        temporary.replace(path)
        if durable:
            flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """A new hidden name beside a path, for what is renamed to it when it is whole."""
    return path.with_name(f'.{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp')


def is_temporary(name: str) -> bool:
    """Whether a name is one of :func:`temporary_name`, of something unfinished."""
    return _TEMPORARY.fullmatch(name) is not None


@contextmanager
def _naming(path: Path, temporary: Path) -> Iterator[None]:
    """Put ``path`` into errors of the system that name no file, such as those of a full disk, or the temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename is not None and Path(error.filename) != temporary):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    except RuntimeError as error:
        if not _TORCH_CANNOT_WRITE.search(str(error)):
            raise
        cause = error.__context__ if isinstance(error.__context__, OSError) else None
        number = cause.errno if cause else errno.EIO
        raise OSError(number, cause.strerror if cause else 'torch could not write it', str(path)) from error


def write_atomic(path: str | Path, data: bytes | str, durable: bool = True) -> None:
    """Write bytes, or text as UTF-8, atomically (see :func:`replacing`)."""
    with replacing(path, durable) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def lies_in(file: str | Path, folder: str | Path) -> bool:
    """Whether a file is in a folder, links followed; neither need exist."""
    # pathlib's resolve raises for a circle of links
    return Path(os.path.realpath(file)).parent == Path(os.path.realpath(folder))


def refuse_overwriting(target: str | Path, sources: Iterable[str | Path | None], option: str = 'the output') -> None:
    """Refuse an output path that is one of the input files or folders, under whatever spelling or link.

    Args:
        target: the file or folder to write; it may be missing.
        sources: the files and folders that are read; None, URLs and missing ones are passed over.
        option: name of the argument that gave ``target``, for the message.

    Raises:
        UsageError: both are the same file, or the target is a device or a pipe.
    """
    target = Path(target)
    if not _is_there(target):
        return
    _refuse_special(target)
    for source in sources:
        if source is not None and _is_there(Path(source)) and target.samefile(source):
            raise UsageError(f'{option} {target} is the input {source}, which it would replace; name another path')


def require_checkpoint(path: str) -> None:
    """Raise a :class:`UsageError` if ``path`` is neither a file, nor a sharded checkpoint's folder, nor a URL."""
    local = Path(path).expanduser()
    if '://' in path or local.is_file() or (local / FOLDER_INDEX).is_file():
        return
    if local.is_dir():
        raise UsageError(f'{path} is a folder without {FOLDER_INDEX}, and no whole checkpoint; name another')
    raise UsageError(f'checkpoint {path} does not exist; check the path')


def kind_of_file(status: os.stat_result) -> str:
    """Name the kind of a file: :data:`FILE` for an ordinary one; reading others may fail, or wait for ever.

    Args:
        status: what :func:`os.stat` says of it.
    """
    return _KINDS.get(stat.S_IFMT(status.st_mode), 'no file')


def short_stem(name: str | Path, otherwise: str) -> str:
    """Return the stem of a file's name, cut so that a number, a suffix and a temporary name can be added to it.

    Names of files end at 255 bytes.

    Args:
        name: the name or path.
        otherwise: the stem if nothing is left.
    """
    return Path(name).stem.encode('utf-8', 'surrogateescape')[:_LONGEST_STEM].decode('utf-8', 'ignore') or otherwise


def _refuse_special(path: Path) -> None:
    """Refuse devices, pipes and sockets: a rename would put a file in their place, for the whole machine."""
    if _is_there(path) and not path.is_file() and not path.is_dir():
        raise UsageError(f'{path} is a device or a pipe, whose place a file would take; name a file')


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that the system cannot have, such as one that is too long
        return False


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, where its file system can."""
    try:
        _flush(folder, os.O_RDONLY)
    except OSError as error:  # the file itself is in place
        if error.errno not in _NO_FOLDER_FLUSH:
            raise
