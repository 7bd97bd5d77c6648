"""Download of files: resumed, checked by hash, by one process at a time, and never taken for whole before the end."""

import json
import logging
import os
import re
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.logging import print_log

from florence_mm.errors import FULL_DISK, UsageError

from .digests import sha256_of
from .files import write_atomic
from .home import is_offline
from .locks import try_lock
from .progress import format_seconds
from .reading import TIMEOUT
from .transfer import SCHEMES, Interrupted, NotTransferred, PartialFile, readable_size, transfer

#: Transfers of one download after connections that were cut.
_TRIES = 5
_HASH = re.compile('[0-9a-f]{8,64}')


def download(url: str, target: str | Path, sha256: str | None = None, timeout: float = TIMEOUT) -> Path:
    """Download a file unless it is there.

    A download that was cut is continued, at once and by the next call. The file gets its name when it is complete and
    its hash is right; until then it is ``.NAME.part`` beside it. Of two processes one downloads and the other waits.
    Hash and size are noted in ``NAME.json``: a file that has changed since is checked, and downloaded again if it is
    not the same. Without a published hash that of the first download counts.

    Args:
        url: ``http://`` or ``https://``.
        target: the file; its folder is created.
        sha256: the published SHA-256, in hexadecimal digits; its first eight or more are enough.
        timeout: seconds without an answer after which the server is given up.

    Returns:
        ``target``.

    Raises:
        UsageError: it cannot be downloaded, has another hash, or is missing while downloads are switched off; or an
            argument is of another form. The sentence says what to do.
    """
    target, sha256 = Path(target), _digits(sha256)
    _require_web(url)
    if is_whole(target, sha256):
        return target
    if is_offline():
        raise UsageError(
            f'{shown(url)} is not in {target.parent} and downloads are switched off (FLORENCE_MM_OFFLINE or '
            'HF_HUB_OFFLINE); set them to 0, or give a file'
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            # another process may have finished it while this one waited
            if not is_whole(target, sha256):
                _fetch(url, target, sha256, timeout)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise _refusal(url, f'does not fit on the disk of {target.parent}', 'make room there') from error
        raise _refusal(url, f'cannot be written to {target} ({error.strerror})', 'set FLORENCE_MM_HOME') from error
    return target


def is_whole(target: Path, sha256: str | None = None) -> bool:
    """Whether a file is there and is what was downloaded; a damaged one is named in the log.

    The hash is computed if size or time have changed since the download, or if it was never computed.

    Raises:
        UsageError: ``sha256`` is no such hash.
    """
    sha256 = _digits(sha256)
    if not target.is_file():
        return False
    noted, status = _read_note(target), target.stat()
    same = noted is not None and (noted['size'], noted['mtime_ns']) == (status.st_size, status.st_mtime_ns)
    expected = sha256 or (noted['sha256'] if noted else None)
    if expected is None:
        return True
    digest = noted['sha256'] if same else sha256_of(target)
    if digest.startswith(expected):
        return True
    print_log(
        f'{target} is not what was downloaded (its SHA-256 begins with {digest[:8]}, expected {expected[:8]})',
        'current',
        logging.WARNING,
    )
    return False


def shown(url: str) -> str:
    """A URL for messages: without passwords and without its query, which may hold a key."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition('@')[2], parts.path, '', ''))


def _require_web(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme.lower() in SCHEMES and parts.hostname and (parts.port is None or parts.port > 0)
    except (ValueError, AttributeError, TypeError):  # brackets or a port that are none, or no text
        usable = False
    if not usable:
        named = re.sub('//[^/@]*@', '//', str(url)).partition('?')[0] or 'an empty text'  # without a password
        raise UsageError(f'{named} is no address on the web; write http:// or https://, a server and a path')


def _digits(sha256: str | None) -> str | None:
    """Check a published hash; returns its digits in small letters."""
    if sha256 is None:
        return None
    digits = str(sha256).strip().lower()
    if not _HASH.fullmatch(digits):
        raise UsageError(f'{sha256!r} is no SHA-256; give its 64 hexadecimal digits, or at least the first eight')
    return digits


def _fetch(url: str, target: Path, sha256: str | None, timeout: float) -> None:
    partial = PartialFile(target.with_name(f'.{target.name}.part'))
    print_log(f'downloading {shown(url)} to {target}', 'current')
    resumed = _transfer_all(url, partial, sha256, timeout)
    digest = sha256_of(partial.path)
    if sha256 and not digest.startswith(sha256) and resumed:
        # the part that was there may be of another version of the file
        partial.discard()
        _transfer_all(url, partial, sha256, timeout)
        digest = sha256_of(partial.path)
    if sha256 and not digest.startswith(sha256):
        size = partial.size
        partial.discard()
        raise _refusal(
            url,
            f'has another SHA-256 ({digest[:16]}, {readable_size(size)}) than its publisher says ({sha256[:16]})',
            'try again, and do not use the file if it stays so',
        )
    status = partial.path.stat()
    note = {'url': shown(url), 'sha256': digest, 'size': status.st_size, 'mtime_ns': status.st_mtime_ns}
    with partial.path.open('rb+') as file:
        os.fsync(file.fileno())
    write_atomic(_note(target), json.dumps(note))
    partial.path.replace(target)
    partial.discard()


def _transfer_all(url: str, partial: PartialFile, sha256: str | None, timeout: float) -> bool:
    """Transfer a file, again after cuts; returns whether it began with a part that was there."""
    began_with = partial.size
    for number in range(1, _TRIES + 1):
        before = partial.size
        try:
            transfer(url, partial, sha256 is not None, timeout)
            return bool(began_with)
        except NotTransferred as error:
            raise _refusal(url, str(error), error.advice) from error
        except Interrupted as error:
            # without a part the next transfer begins at the first byte
            stuck = 0 < partial.size <= before or number == _TRIES
            if stuck:
                kept = f'give the same command to go on from {readable_size(partial.size)}'
                raise _refusal(url, str(error), kept if partial.size else 'try again later') from error
            print_log(f'{shown(url)} {error}; going on', 'current', logging.WARNING)
            time.sleep(min(0.2 * number, timeout))
    raise AssertionError('the last try returns or raises')


def _refusal(url: str, problem: str, advice: str) -> UsageError:
    return UsageError(f'{shown(url)} {problem}; {advice}')


def _note(target: Path) -> Path:
    return target.with_name(f'{target.name}.json')


def _read_note(target: Path) -> dict | None:
    try:
        noted = json.loads(_note(target).read_text(encoding='utf-8'))
        return {'sha256': str(noted['sha256']), 'size': int(noted['size']), 'mtime_ns': int(noted['mtime_ns'])}
    except (OSError, ValueError, KeyError, TypeError):  # there is none, or a person has changed it
        return None


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep other processes from downloading the same file; they wait, and the lock ends with the process."""
    with target.with_name(f'.{target.name}.lock').open('a') as file:
        start = told = time.monotonic()
        while not try_lock(file.fileno()):
            if time.monotonic() - told > 5:
                told = time.monotonic()
                waited = format_seconds(told - start)
                print_log(f'another process downloads {target.name}; waiting for it since {waited}', 'current')
            time.sleep(0.1)
        yield
