"""Downloads from a server on 127.0.0.1 that serves well and in every bad way."""

import hashlib
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from web_server import web_server

from florence_mm.errors import UsageError
from florence_mm.utils import download as module
from florence_mm.utils import transfer
from florence_mm.utils.download import download, is_whole, shown

DATA = bytes(range(256)) * 4000  # 1 MB
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(monkeypatch):
    for name in ('FLORENCE_MM_OFFLINE', 'HF_HUB_OFFLINE', 'http_proxy', 'HTTP_PROXY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module.time, 'sleep', lambda seconds: None)
    with web_server() as running:
        running.files['/w.pth'] = DATA
        yield running


def refused(url, target, says, **arguments):
    """The sentence of a download that is refused; nothing has the name of the file."""
    with pytest.raises(UsageError) as error:
        download(url, target, **arguments)
    text = str(error.value)
    assert text.startswith(shown(url)) and '; ' in text and '\n' not in text
    assert says in text
    assert not Path(target).exists()
    return text


def only_file_and_note(folder):
    return {path.name for path in folder.iterdir()} == {'w.pth', 'w.pth.json', '.w.pth.lock'}


def test_a_file_is_downloaded_once(server, tmp_path):
    target = tmp_path / 'new/w.pth'
    assert download(server.url('/w.pth'), target) == target
    assert target.read_bytes() == DATA and only_file_and_note(target.parent)
    assert json.loads((target.parent / 'w.pth.json').read_text())['sha256'] == SHA256
    download(server.url('/w.pth'), target, SHA256)
    assert server.requests == [('/w.pth', None)]


def test_a_cut_download_goes_on_where_it_was(server, tmp_path):
    server.ways['/w.pth'] = [('cut', 300_000), ('cut', 200_000)]
    download(server.url('/w.pth'), tmp_path / 'w.pth')
    assert (tmp_path / 'w.pth').read_bytes() == DATA
    assert [asked for _, asked in server.requests] == [None, 'bytes=300000-', 'bytes=500000-']


def test_the_next_call_goes_on_too(server, tmp_path):
    # after five transfers in one call
    server.ways['/w.pth'] = [('cut', 100_000)] * 5
    says = 'was cut off at 500000 of 1024000 bytes; give the same command to go on from 500 kB'
    refused(server.url('/w.pth'), tmp_path / 'w.pth', says)
    download(server.url('/w.pth'), tmp_path / 'w.pth')
    assert (tmp_path / 'w.pth').read_bytes() == DATA
    assert server.requests[-1] == ('/w.pth', 'bytes=500000-')


@pytest.mark.parametrize('setting', ['ranges', 'tags'])
def test_a_server_without_ranges_or_tags_sends_all_again(server, tmp_path, setting):
    server.settings[setting] = False
    server.ways['/w.pth'] = [('cut', 300_000)]
    download(server.url('/w.pth'), tmp_path / 'w.pth')
    assert (tmp_path / 'w.pth').read_bytes() == DATA


@pytest.mark.parametrize('if_range', [True, False])
def test_parts_of_two_versions_are_never_joined(server, tmp_path, if_range):
    server.settings['if_range'] = if_range
    server.ways['/w.pth'] = [('cut', 300_000)] + [('status', 503)]
    refused(server.url('/w.pth'), tmp_path / 'w.pth', '503')
    server.files['/w.pth'] = DATA[::-1]
    download(server.url('/w.pth'), tmp_path / 'w.pth')
    assert (tmp_path / 'w.pth').read_bytes() == DATA[::-1]


def test_a_part_of_a_former_version_without_tags_fails_the_hash_and_is_replaced(server, tmp_path):
    server.settings['tags'] = False
    server.files['/w.pth'] = DATA[::-1]
    server.ways['/w.pth'] = [('cut', 300_000), ('status', 503)]
    refused(server.url('/w.pth'), tmp_path / 'w.pth', '503', sha256=SHA256)
    server.files['/w.pth'] = DATA
    download(server.url('/w.pth'), tmp_path / 'w.pth', SHA256)
    assert (tmp_path / 'w.pth').read_bytes() == DATA
    assert [asked for _, asked in server.requests[2:]] == ['bytes=300000-', None]


def test_a_part_as_long_as_the_file(server, tmp_path):
    (tmp_path / '.w.pth.part').write_bytes(DATA)
    (tmp_path / '.w.pth.part.json').write_text(json.dumps({'url': server.url('/w.pth'), 'validator': ''}))
    download(server.url('/w.pth'), tmp_path / 'w.pth', SHA256)
    assert (tmp_path / 'w.pth').read_bytes() == DATA
    assert server.requests == [('/w.pth', f'bytes={len(DATA)}-')]


@pytest.mark.parametrize('extra', [b'too long', b''])
def test_a_part_of_unknown_origin_is_not_used(server, tmp_path, extra):
    (tmp_path / '.w.pth.part').write_bytes(b'x' * 1000 + extra)
    (tmp_path / '.w.pth.part.json').write_text('{"url": "http' if extra else '{}')
    download(server.url('/w.pth'), tmp_path / 'w.pth')
    assert (tmp_path / 'w.pth').read_bytes() == DATA


def test_another_hash_is_refused_and_nothing_kept(server, tmp_path):
    text = refused(server.url('/w.pth'), tmp_path / 'w.pth', f'another SHA-256 ({SHA256[:16]}', sha256='ab' * 32)
    assert 'abababababababab' in text
    assert {path.name for path in tmp_path.iterdir()} == {'.w.pth.lock'}


def test_eight_digits_of_a_hash_are_enough(server, tmp_path):
    download(server.url('/w.pth'), tmp_path / 'w.pth', SHA256[:8].upper())
    assert is_whole(tmp_path / 'w.pth', SHA256[:8])


def test_a_file_that_changed_is_downloaded_again(server, tmp_path):
    target = tmp_path / 'w.pth'
    download(server.url('/w.pth'), target)
    target.write_bytes(DATA[:-1] + b'!')
    assert not is_whole(target)
    download(server.url('/w.pth'), target)
    assert target.read_bytes() == DATA and len(server.requests) == 2


@pytest.mark.parametrize(
    ('way', 'says'),
    [
        (('status', 404), 'is answered with 404 Not Found; correct the address'),
        (('status', 403), 'is answered with 403 Forbidden; correct'),
        (('status', 503), 'is answered with 503 Service Unavailable; try again later'),
        (('status', 429), '429 Too Many Requests; try again later'),
        (('page',), 'page of a web site'),
        (('packed',), 'is sent packed (gzip)'),
        (('untold',), 'does not tell its size'),
        (('to', 'ftp://127.0.0.1/w.pth'), 'is redirected to ftp://'),
        (('to', 'file:///etc/passwd'), 'is redirected to file://'),
    ],
)
def test_answers_that_are_no_file(server, tmp_path, way, says):
    server.ways['/w.pth'] = [way]
    refused(server.url('/w.pth'), tmp_path / 'w.pth', says)
    assert len(server.requests) == 1


def test_a_size_that_is_not_told_is_fine_where_the_hash_is_known(server, tmp_path):
    server.ways['/w.pth'] = [('untold',)]
    download(server.url('/w.pth'), tmp_path / 'w.pth', SHA256)
    assert (tmp_path / 'w.pth').read_bytes() == DATA


def test_an_empty_file(server, tmp_path):
    server.files['/empty.pth'] = b''
    refused(server.url('/empty.pth'), tmp_path / 'w.pth', 'is empty')


@pytest.mark.parametrize('said', [len(DATA) + 100, len(DATA) - 100])
def test_a_wrong_length(server, tmp_path, said):
    """A larger one looks like a cut, again and again; a smaller one cuts the file, which the hash tells."""
    server.ways['/w.pth'] = [('length', said)] * 9
    server.settings['ranges'] = False
    says = 'cut off at 1024000 of 1024100' if said > len(DATA) else 'another SHA-256'
    refused(server.url('/w.pth'), tmp_path / 'w.pth', says, sha256=SHA256)


def test_redirects_are_followed(server, tmp_path):
    server.ways['/a'] = [('to', '/b')]
    server.ways['/b'] = [('to', server.url('/w.pth'))]
    download(server.url('/a'), tmp_path / 'w.pth')
    assert (tmp_path / 'w.pth').read_bytes() == DATA


def test_redirects_in_a_circle(server, tmp_path):
    server.ways['/a'] = [('to', '/b')] * 20
    server.ways['/b'] = [('to', '/a')] * 20
    refused(server.url('/a'), tmp_path / 'w.pth', 'redirected in a circle')


def test_a_server_that_hangs(server, tmp_path):
    server.ways['/w.pth'] = [('hang',)]
    refused(server.url('/w.pth'), tmp_path / 'w.pth', 'is not answered within 0.3 s; check', timeout=0.3)


def test_a_server_that_stops_in_the_middle(server, tmp_path):
    server.ways['/w.pth'] = [('drip', 400_000)]
    download(server.url('/w.pth'), tmp_path / 'w.pth', timeout=0.3)
    assert server.requests[-1] == ('/w.pth', 'bytes=400000-')
    assert (tmp_path / 'w.pth').read_bytes() == DATA


def test_a_server_that_sends_a_byte_now_and_then(tmp_path):
    class Answer:
        def read1(self, size):
            time.sleep(0.05)
            return b'.'

    with pytest.raises(transfer.NotTransferred, match='comes too slowly, [1-9] bytes in'):
        transfer._receive(Answer(), tmp_path / '.w.part', 0, 1000, timeout=0.2)


def test_servers_that_are_not_there(server, tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    refused(f'http://127.0.0.1:{port}/w.pth', tmp_path / 'w.pth', 'takes no connections')
    refused('http://nowhere.invalid/w.pth', tmp_path / 'w.pth', 'server that is not found')
    refused('http://127.0.0.1:port/w.pth', tmp_path / 'w.pth', 'is no address on the web')


def test_a_disk_that_is_too_small(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer.shutil, 'disk_usage', lambda folder: type('Usage', (), {'free': 1000}))
    refused(server.url('/w.pth'), tmp_path / 'w.pth', 'has 1.0 MB to come, and the disk of')


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UsageError, match='cannot be written to .*; set FLORENCE_MM_HOME'):
        download(server.url('/w.pth'), tmp_path / 'file/w.pth')


@pytest.mark.parametrize('switch', ['FLORENCE_MM_OFFLINE', 'HF_HUB_OFFLINE'])
def test_offline(server, tmp_path, monkeypatch, switch):
    monkeypatch.setenv(switch, '1')
    refused(server.url('/w.pth'), tmp_path / 'w.pth', 'downloads are switched off')
    assert server.requests == []
    (tmp_path / 'w.pth').write_bytes(DATA)
    assert download(server.url('/w.pth'), tmp_path / 'w.pth', SHA256) == tmp_path / 'w.pth'
    monkeypatch.setenv(switch, 'perhaps')
    with pytest.raises(UsageError, match=f'{switch}=perhaps is neither 1'):
        download(server.url('/w.pth'), tmp_path / 'v.pth')


def test_keys_in_addresses_are_not_shown(server, tmp_path):
    text = refused(f'http://me:secret@127.0.0.1:{server.server_port}/n.pth?key=secret', tmp_path / 'w.pth', '')
    assert 'secret' not in text


def test_two_at_once_download_once(server, tmp_path):
    start, errors = threading.Barrier(4), []

    def one():
        start.wait()
        try:
            download(server.url('/w.pth'), tmp_path / 'w.pth')
        except UsageError as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(server.requests) == 1
    assert (tmp_path / 'w.pth').read_bytes() == DATA


def test_two_processes_download_once(server, tmp_path):
    # new processes: a copy of this one could wait for a lock that one of its threads holds
    code = 'import sys; from florence_mm.utils.download import download; download(*sys.argv[1:])'
    command = [sys.executable, '-c', code, server.url('/w.pth'), str(tmp_path / 'w.pth'), SHA256]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert len(server.requests) == 1 and (tmp_path / 'w.pth').read_bytes() == DATA
