"""Reading the bytes of an image or video from a local path or a URL, with one sentence for each way to fail."""

import http.client
import os
import stat
import urllib.parse
import urllib.request
from pathlib import Path

from mmengine import fileio

from florence_mm.errors import DataError, UsageError, shown_path

from .files import kind_of_file
from .home import is_web_off

#: Seconds without an answer after which a web server is given up.
TIMEOUT = 60.0


def read_bytes(
    path: str | os.PathLike,
    backend_args: dict | None = None,
    source: str = '',
    what: str = 'image',
    limit: int | None = None,
) -> bytes:
    """Read a whole file; only ordinary files are opened, so that a named pipe or device cannot hang the reader.

    Args:
        path (str | PathLike): A local path, or a URL: ``file://``, ``http://`` and ``https://`` are read here, other
            schemes by fsspec with its package for the scheme (s3fs for ``s3://``).
        backend_args (dict | None): A file backend of mmengine, see :func:`mmengine.fileio.get`, which then reads the
            path. None: as above.
        source (str): Put before error messages, as in "train.jsonl, line 3: ".
        what (str): Name of the content in messages.
        limit (int | None): Most bytes of a local file.

    Raises:
        DataError: the file is missing, not an ordinary file, larger than ``limit``, or its URL cannot be read, also
            because downloads are switched off.
        UsageError: there is no such file backend.
    """
    path = os.fspath(path)
    try:
        if backend_args is not None:
            return _from_backend(path, backend_args)
        scheme, found, rest = path.partition('://')
        if not found or not scheme.isalnum():
            return _local(path, limit)
        if scheme.lower() == 'file':
            if rest[:1] != '/':
                raise _Unreadable('names a machine; write file:///folder/name for a local file')
            return _local(urllib.request.url2pathname(rest), limit)
        if scheme.lower() in ('http', 'https'):
            return _from_web(path, limit)
        return _from_fsspec(path)
    except OSError as error:
        reason = error.strerror or getattr(error, 'reason', None) or type(error).__name__
        problem = f'cannot be read ({reason}); restore it or remove it'
    except http.client.HTTPException as error:
        problem = f'cannot be read ({type(error).__name__}); correct the URL or remove it'
    except _Unreadable as error:
        problem = str(error)
    raise DataError(f'{source}the {what} {shown_path(path)} {problem}')


class _Unreadable(Exception):
    """The message is a predicate: what is wrong and what to do."""


def _local(path: str, limit: int | None) -> bytes:
    file = Path(path)
    try:
        status = file.stat()
    except ValueError:  # of a NUL character, or of one that no file name can hold
        raise _Unreadable('has a character that no file name can have; correct the path') from None
    if not stat.S_ISREG(status.st_mode):
        raise _Unreadable(f'is {kind_of_file(status)}; expected a file, so correct the path')
    if limit is not None and status.st_size > limit:
        raise _Unreadable(f'has {status.st_size} bytes, more than {limit}; remove it or make it smaller')
    return file.read_bytes()


def _from_web(path: str, limit: int | None) -> bytes:
    if is_web_off():
        raise _Unreadable(
            'is not read, as FLORENCE_MM_OFFLINE switches downloads off; set it to 0, or save the file and give that'
        )
    # letters outside ASCII are escaped; what is escaped already stays
    with urllib.request.urlopen(urllib.parse.quote(path, safe="%/:=&?~#+!$,;'@()*[]"), timeout=TIMEOUT) as answer:
        data = answer.read() if limit is None else answer.read(limit + 1)
    if limit is not None and len(data) > limit:
        raise _Unreadable(f'has more than {limit} bytes; remove it or make it smaller')
    return data


def _from_backend(path: str, backend_args: dict) -> bytes:
    try:
        backend = fileio.get_file_backend(path, backend_args=backend_args)
    except (ImportError, KeyError, TypeError, ValueError, AssertionError) as error:
        text = ' '.join(str(error).split())
        raise UsageError(f'backend_args={backend_args} names no usable file backend ({text}); correct it') from None
    return backend.get(path)


def _from_fsspec(path: str) -> bytes:
    scheme = path.partition('://')[0]
    try:
        import fsspec  # comes with torch
    except ImportError:
        raise _Unreadable(f"needs fsspec for {scheme}://; install it with 'pip install fsspec'") from None
    try:
        with fsspec.open(path, 'rb') as file:
            return file.read()
    except OSError:
        raise
    except Exception as error:  # each file system of fsspec has its own errors, those of its libraries included
        text = ' '.join(str(error).split()) or type(error).__name__
        raise _Unreadable(f'cannot be read by fsspec ({text}); correct the URL, or copy the file here') from None
