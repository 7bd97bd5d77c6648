"""One transfer of a file over HTTP into a partial file, which a later transfer can continue."""

import http.client
import json
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from florence_mm.version import __version__

from .files import write_atomic
from .progress import ProgressLog
from .reading import TIMEOUT

_CHUNK = 1 << 18
#: Bytes a second, over :data:`TIMEOUT`, below which a server is given up.
_SLOWEST = 100
_COULD_NOT_RESUME = 416
#: Schemes of addresses that are transferred, and that redirects may lead to.
SCHEMES = ('http', 'https')
_REDIRECTS = (301, 302, 303, 307, 308)


class NotTransferred(Exception):
    """A transfer that cannot succeed; the message is a predicate of the URL, and ``advice`` says what to do."""

    def __init__(self, message: str, advice: str = 'correct the address, or give a file') -> None:
        super().__init__(message)
        self.advice = advice


class Interrupted(Exception):
    """A transfer that stopped in the middle; the next one continues the partial file, if it is still there."""


@dataclass
class PartialFile:
    """A file that is being downloaded, and what the server said of it.

    The URL and the validator, a strong ``ETag`` or a ``Last-Modified``, are kept beside the file, so that bytes of
    another version of the file are never appended.

    Attributes:
        path: the file.
    """

    path: Path

    @property
    def note(self) -> Path:
        """The file with URL and validator."""
        return self.path.with_name(f'{self.path.name}.json')

    @property
    def size(self) -> int:
        """Bytes that have come so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self, url: str) -> str | None:
        """What the server named the version of the file that the bytes are from; '' if nothing, None without bytes."""
        try:
            said = json.loads(self.note.read_text(encoding='utf-8'))
            return str(said['validator']) if said['url'] == url and self.size else None
        except (OSError, ValueError, KeyError, TypeError):  # no note, or one that was cut off
            return None

    def begin(self, url: str, validator: str) -> None:
        """Note where the bytes come from, before the first."""
        write_atomic(self.note, json.dumps({'url': url, 'validator': validator}), durable=False)
        self.path.write_bytes(b'')

    def discard(self) -> None:
        """Delete what has come so far."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def transfer(url: str, partial: PartialFile, verified: bool, timeout: float = TIMEOUT) -> None:
    """Fetch a file, or the rest of it; returns if all its bytes are in the partial file.

    The rest is asked for with ``Range`` and ``If-Range``; a server that ignores them, or whose file has changed, sends
    the whole file, which begins again.

    Args:
        url: ``http://`` or ``https://``.
        partial: the partial file; its folder exists.
        verified: the file's hash is known, so that a wrong continuation or end would be found.
        timeout: seconds without an answer after which the server is given up.

    Raises:
        Interrupted: the connection was cut, or the partial file had to be discarded; try again.
        NotTransferred: the server refuses, does not answer, or the disk is too small.
    """
    validator, have = partial.validator(url), partial.size
    if validator is None or not (validator or verified):  # nothing tells whether the server still has that file
        partial.discard()
        validator, have = '', 0
    headers = {'User-Agent': f'florence_mm/{__version__}', 'Accept-Encoding': 'identity'}
    if have:
        headers['Range'] = f'bytes={have}-'
        headers |= {'If-Range': validator} if validator else {}
    with _failures(partial, timeout), _open(url, headers, timeout) as answer:
        if answer.status == _COULD_NOT_RESUME:
            total = _total(answer)
            if have and total == have:
                return
            partial.discard()
            raise Interrupted('has another size than the part that was there')
        _check_content(answer, url)
        if answer.status == http.client.PARTIAL_CONTENT:
            if _first_byte(answer) != have or _changed(answer, validator):
                partial.discard()
                raise Interrupted('was changed while it was downloaded')
            total = _total(answer)
        else:
            have, total = 0, _length(answer)
            if total is None and not answer.chunked and not verified:
                raise NotTransferred('does not tell its size, so that a cut file would look like a whole one')
            partial.begin(url, _validator(answer))
        if total == 0:
            raise NotTransferred('is empty')
        _check_disk(partial.path, have, total)
        _receive(answer, partial.path, have, total, timeout)
    if total is not None and partial.size != total:
        raise Interrupted(f'was cut off at {partial.size} of {total} bytes')


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in SCHEMES or req.full_url.startswith('https:') and scheme != 'https':
            raise NotTransferred(f'is redirected to {scheme}://, which is not followed')
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _open(url: str, headers: dict[str, str], timeout: float) -> Iterator[Any]:
    # letters outside ASCII are escaped; what is escaped already stays
    asked = urllib.request.Request(urllib.parse.quote(url, safe="%/:=&?~#+!$,;'@()*[]"), headers=headers)
    try:
        answer = urllib.request.build_opener(_Redirects).open(asked, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != _COULD_NOT_RESUME or 'Range' not in headers:
            raise
        answer = error
    with answer:
        yield answer


@contextmanager
def _failures(partial: PartialFile, timeout: float) -> Iterator[None]:
    """Turn errors of the network into sentences."""
    before = partial.size
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code in _REDIRECTS:  # said by Python's handler of redirects
            raise NotTransferred(f'is redirected {_where(error.headers.get("Location"))}') from error
        busy = error.code == 429 or error.code >= 500
        advice = 'try again later, or give a file' if busy else 'correct the address, or give a file'
        raise NotTransferred(f'is answered with {error.code} {error.reason or "without a reason"}', advice) from error
    except (http.client.IncompleteRead, ConnectionResetError, ConnectionAbortedError, BrokenPipeError) as error:
        if not partial.size:
            raise NotTransferred('is not sent, the connection was cut', 'try again later, or give a file') from error
        raise Interrupted(f'was cut off at {partial.size} bytes') from error
    except (TimeoutError, urllib.error.URLError, ssl.SSLError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, TimeoutError) and partial.size > before:
            raise Interrupted(f'stopped at {partial.size} bytes for {timeout:g} s') from error
        raise NotTransferred(*_network_sentence(reason, timeout)) from error


def _where(location: str | None) -> str:
    """Say what is wrong with the target of a redirect."""
    if not location:
        return 'without an address'
    scheme = location.partition(':')[0] if ':' in location.partition('/')[0] else ''
    elsewhere = scheme and scheme.lower() not in SCHEMES
    return f'to {scheme}://, which is not followed' if elsewhere else 'in a circle or too often'


def _network_sentence(reason: Any, timeout: float) -> tuple[str, str]:
    connection = 'check the connection, or give a file'
    if isinstance(reason, TimeoutError):
        return f'is not answered within {timeout:g} s', connection
    if isinstance(reason, socket.gaierror):
        return 'names a server that is not found', 'check the address and the connection, or give a file'
    if isinstance(reason, ConnectionRefusedError):
        return 'is refused, the server takes no connections', connection
    said = ' '.join(str(reason).split()) or type(reason).__name__
    return f'cannot be fetched, {said}', connection


def _check_content(answer: Any, url: str) -> None:
    encoding = answer.headers.get('Content-Encoding', 'identity').lower()
    if encoding != 'identity':
        raise NotTransferred(f'is sent packed ({encoding}), which was not asked for')
    is_page = answer.headers.get_content_type() == 'text/html'
    if is_page and not urllib.parse.urlsplit(url).path.endswith(('.html', '.htm')):
        raise NotTransferred('is answered with a page of a web site, as where one has to sign in')


def _length(answer: Any) -> int | None:
    said = answer.headers.get('Content-Length', '').strip()
    return int(said) if said.isdecimal() else None


def _total(answer: Any) -> int | None:
    """Size of the whole file from ``Content-Range: bytes 5-9/10``, or ``bytes */10``; None if it is not told."""
    said = answer.headers.get('Content-Range', '').rpartition('/')[2].strip()
    return int(said) if said.isdecimal() else None


def _first_byte(answer: Any) -> int | None:
    unit, _, said = answer.headers.get('Content-Range', '').strip().partition(' ')
    first = said.partition('-')[0].strip()
    return int(first) if unit == 'bytes' and first.isdecimal() else None


def _validator(answer: Any) -> str:
    tag = answer.headers.get('ETag', '').strip()
    # a weak tag, W/"...", does not promise the same bytes
    return tag if tag.startswith('"') else answer.headers.get('Last-Modified', '').strip()


def _changed(answer: Any, validator: str) -> bool:
    """Whether a part of the file is of another version than the bytes that are there."""
    said = _validator(answer)
    return bool(validator and said) and said != validator


def _check_disk(path: Path, have: int, total: int | None) -> None:
    free = shutil.disk_usage(path.parent).free
    if total is not None and total - have > free:
        raise NotTransferred(
            f'has {readable_size(total - have)} to come, and the disk of {path.parent} has {readable_size(free)} free',
            'make room there, or set FLORENCE_MM_HOME to a folder on another disk',
        )


def _receive(answer: Any, path: Path, have: int, total: int | None, timeout: float) -> None:
    progress = None if total is None else ProgressLog(f'downloading {path.name.strip(".")[:-5]}', total)
    since, come = time.monotonic(), have
    with path.open('r+b' if have else 'wb') as file:
        file.seek(have)
        while chunk := answer.read1(_CHUNK):
            file.write(chunk)
            have += len(chunk)
            if progress is not None:
                progress.update(have)
            if (passed := time.monotonic() - since) > timeout:
                if have - come < _SLOWEST * passed:
                    raise NotTransferred(
                        f'comes too slowly, {have - come} bytes in {passed:.0f} s', 'try again later, or give a file'
                    )
                since, come = time.monotonic(), have


def readable_size(size: int) -> str:
    """Format a number of bytes.

    >>> readable_size(500), readable_size(1536), readable_size(3 * 10**9)
    ('500 bytes', '2 kB', '3.0 GB')
    """
    if size >= 10**9:
        return f'{size / 10**9:.1f} GB'
    if size >= 10**6:
        return f'{size / 10**6:.1f} MB'
    return f'{size / 1000:.0f} kB' if size >= 1000 else f'{size} bytes'
