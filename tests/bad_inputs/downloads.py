"""Bad inputs: addresses, hashes, servers, what is left of earlier downloads, and the folder that keeps them."""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from web_server import web_server

from florence_mm.models.checkpoints.fetching import fetch
from florence_mm.utils.download import download
from florence_mm.utils.home import home, is_offline

from .case import BadInput, call

AREA = 'downloads'
_DATA = bytes(range(256)) * 40
_SHA256 = hashlib.sha256(_DATA).hexdigest()
_HOLDER = 'import fcntl, sys, time; f = open(sys.argv[1], "a"); fcntl.flock(f, 2); print(flush=True); time.sleep(60)'
_PART, _LOCK = '.w.pth.part', '.w.pth.lock'


def _from_server(
    *ways: tuple,
    sha256: str | None = _SHA256,
    before: Callable[[str], Any] = lambda url: None,
    ranges: bool = True,
    tags: bool = True,
) -> Callable[[Path], Any]:
    """Download w.pth from a server that answers in these ways, and then well; returns whether it is what was served."""

    def run(folder: Path) -> Any:
        for name in ('http_proxy', 'HTTP_PROXY', 'FLORENCE_MM_OFFLINE', 'HF_HUB_OFFLINE'):
            os.environ.pop(name, None)
        with web_server() as server:
            server.files['/w.pth'], server.ways['/w.pth'] = _DATA, list(ways)
            server.settings |= {'ranges': ranges, 'tags': tags}
            before(server.url('/w.pth'))
            return download(server.url('/w.pth'), folder / 'w.pth', sha256, timeout=5).read_bytes() == _DATA

    return run


def _part(data: bytes) -> Callable[[str], Any]:
    """Leave a part of a download behind."""

    def make(url: str) -> None:
        Path(_PART).write_bytes(data)
        tag = hashlib.md5(_DATA).hexdigest()  # as the server has it
        Path(f'{_PART}.json').write_text(json.dumps({'url': url, 'validator': f'"{tag}"'}))

    return make


def _killed(url: str) -> None:
    """Let a process lock the download and kill it."""
    with subprocess.Popen([sys.executable, '-c', _HOLDER, _LOCK], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with Path(_LOCK).open('a') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder.send_signal(signal.SIGKILL)


def _home(**variables: str) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        Path('t.txt').write_text('text')
        os.environ.pop('FLORENCE_MM_HOME', None)
        os.environ.update(variables)
        return str(home())

    return run


def _unreadable(folder: Path) -> Any:
    """Look for a kept file, as a user who may not look into the folder."""
    Path('closed').mkdir(0)
    os.environ['FLORENCE_MM_HOME'] = str(folder / 'closed/kept')
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        return str(home())
    finally:
        os.seteuid(user)
        Path('closed').chmod(0o700)


def _offline(**variables: str) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        os.environ.update({'FLORENCE_MM_OFFLINE': '', 'HF_HUB_OFFLINE': '', **variables})
        return is_offline()

    return run


def cases() -> list[BadInput]:
    """The inputs."""
    rows = [
        BadInput('a hash in capitals, with a line end', _from_server(sha256=f'{_SHA256.upper()}\n'), gives=True),
        BadInput('a part', _from_server(before=_part(_DATA[:99])), gives=True),
        BadInput('a part of other bytes', _from_server(before=_part(bytes(99))), gives=True),
        BadInput('a part longer than the file', _from_server(before=_part(_DATA + b'more')), gives=True),
        BadInput('a longer part, no hash', _from_server(sha256=None, before=_part(_DATA + b'more')), gives=True),
        BadInput('a longer part, no ranges', _from_server(before=_part(_DATA + b'more'), ranges=False), gives=True),
        BadInput('a part, no hash, no tag', _from_server(sha256=None, before=_part(_DATA[:9]), tags=False), gives=True),
        BadInput('a lock of a killed process', _from_server(before=_killed), gives=True),
        BadInput('a lock file with a number', _from_server(before=lambda url: Path(_LOCK).write_text('1')), gives=True),
        BadInput('a folder as lock', _from_server(before=lambda url: Path(_LOCK).mkdir()), says='Is a directory'),
        BadInput('a folder as part', _from_server(before=lambda url: Path(_PART).mkdir()), says='Is a directory'),
        BadInput('a folder as target', _from_server(before=lambda url: Path('w.pth').mkdir()), says='Is a directory'),
        BadInput('a pipe as target', _from_server(before=lambda url: os.mkfifo('w.pth')), gives=True),
        BadInput('a note of nothing', _from_server(before=lambda url: Path('w.pth.json').touch()), gives=True),
        BadInput('a length that is too large', _from_server(('length', 99_999)), gives=True),
        BadInput('a length that is too small', _from_server(('length', 500)), says='has another SHA-256'),
        BadInput('a length of words', _from_server(('length', 'ten')), gives=True),
        BadInput('a length of words, no hash', _from_server(('length', 'ten'), sha256=None), says='tell its size'),
        BadInput('redirected to a file', _from_server(('to', 'file:///etc/hosts')), says='is redirected to file://'),
        BadInput('redirected to data', _from_server(('to', 'data:,hello')), says='is redirected to data://'),
        BadInput('redirected to ftp', _from_server(('to', 'ftp://127.0.0.1/w')), says='is redirected to ftp://'),
        BadInput('redirected nowhere', _from_server(('status', 302)), says='is redirected without an address'),
        BadInput('redirected to itself', _from_server(*[('to', '/w.pth')] * 30), says='in a circle or too often'),
        BadInput('not modified', _from_server(('status', 304)), says='is answered with 304'),
        BadInput('the home of nobody named', _home(HOME=''), says='set FLORENCE_MM_HOME'),
        BadInput('a home below a file', _from_home_below_a_file, says='Not a directory'),
        BadInput('a home that may not be read', _unreadable, says='closed/kept: Permission denied'),
        BadInput('FLORENCE_MM_OFFLINE=maybe', _offline(FLORENCE_MM_OFFLINE='maybe'), says='FLORENCE_MM_OFFLINE=maybe'),
        BadInput('HF_HUB_OFFLINE=2', _offline(HF_HUB_OFFLINE='2'), says='HF_HUB_OFFLINE=2 is neither'),
        BadInput('FLORENCE_MM_OFFLINE=On', _offline(FLORENCE_MM_OFFLINE=' On '), gives=True),
        BadInput('a URL of a bad port for weights', call(fetch, 'http://127.0.0.1:x/w.pth'), says='is no address on'),
    ]  # fmt: skip
    for sha256 in ('', '4c2', f'sha256:{_SHA256}', f'{_SHA256}00', 'z' * 64):
        rows.append(
            BadInput(f'the hash {sha256[:12]!r}', _from_server(sha256=sha256), says='is no SHA-256; give its 64')
        )
    for url in (
        '',
        'w.pth',
        'file:///etc/hosts',
        'ftp://host/w',
        'http:///w',
        'http://host:99999/w',
        'http://[::1/w',
        5,
    ):
        run = lambda folder, url=url: download(url, folder / 'w.pth')  # noqa: E731
        rows.append(BadInput(f'the address {url!r}', run, says=f'{url or "an empty text"} is no address on the web'))
    secret = lambda folder: download('http://me:secret@host:port/w?key=secret', folder / 'w.pth')  # noqa: E731
    return [*rows, BadInput('a bad address with a password', secret, says='http://host:port/w is no address')]


def _from_home_below_a_file(folder: Path) -> Any:
    Path('t.txt').write_text('text')
    os.environ['FLORENCE_MM_HOME'] = 't.txt/home'
    return fetch('http://127.0.0.1:9/w.pth')
