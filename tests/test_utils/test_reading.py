"""Paths and URLs of images: what is read, and that nothing that is not an ordinary file is opened."""

import os
import pickle
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import fsspec
import pytest

from florence_mm.errors import DataError, UsageError
from florence_mm.utils.reading import read_bytes


def test_local_paths_and_file_urls(tmp_path):
    (tmp_path / 'a b.bin').write_bytes(b'content')
    for path in (tmp_path / 'a b.bin', str(tmp_path / 'a b.bin'), f'file://{tmp_path}/a%20b.bin'):
        assert read_bytes(path) == b'content'
    assert read_bytes(str(tmp_path / 'a b.bin'), {'backend': 'local'}) == b'content'
    assert read_bytes(str(tmp_path / 'a b.bin'), limit=7) == b'content'
    with pytest.raises(DataError, match='the image .*a b.bin has 7 bytes, more than 6'):
        read_bytes(str(tmp_path / 'a b.bin'), limit=6)


def test_other_schemes_are_read_by_fsspec():
    with fsspec.open('memory://pictures/1.bin', 'wb') as file:
        file.write(b'kept')
    assert read_bytes('memory://pictures/1.bin') == b'kept'
    for url, message in (
        ('memory://pictures/2.bin', 'cannot be read'),
        ('nowhere://1.bin', 'Protocol not known: nowhere'),
        ('file://machine/1.bin', 'names a machine'),
        ('http:///1.bin', 'no host given'),
        ('http://two words/1.bin', 'InvalidURL'),
    ):
        with pytest.raises(DataError, match=f'^line 3: the video {url} .*{message}'):
            read_bytes(url, source='line 3: ', what='video')


def test_the_package_of_a_scheme_is_named(monkeypatch):
    def missing(*args):
        raise ImportError('Install s3fs to access S3')

    monkeypatch.setattr(fsspec, 'open', missing)
    with pytest.raises(DataError, match='s3://bucket/1.png cannot be read by fsspec .Install s3fs to access S3'):
        read_bytes('s3://bucket/1.png')


def test_web_servers(monkeypatch):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == '/%C3%A9%20a.png' else 404)
            self.end_headers()
            self.wfile.write(b'12345')

        def log_message(self, *args):
            return

    server = HTTPServer(('127.0.0.1', 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f'http://127.0.0.1:{server.server_port}/'
        assert read_bytes(url + 'é%20a.png') == b'12345'
        with pytest.raises(DataError, match='has more than 4 bytes'):
            read_bytes(url + 'é%20a.png', limit=4)
        with pytest.raises(DataError, match='other.png cannot be read'):
            read_bytes(url + 'other.png')
        monkeypatch.setenv('HF_HUB_OFFLINE', '1')  # which is of the hub alone
        assert read_bytes(url + 'é%20a.png') == b'12345'
        monkeypatch.setenv('FLORENCE_MM_OFFLINE', '1')
        with pytest.raises(DataError, match='the image .*a.png is not read, as FLORENCE_MM_OFFLINE .*; set it to 0'):
            read_bytes(url + 'é%20a.png')
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_only_ordinary_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / 'pipe.png')
    (tmp_path / 'folder.png').mkdir()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / 's.png'))
    for path, message in (
        (tmp_path / 'pipe.png', 'is a named pipe'),
        (tmp_path / 'folder.png', 'is a folder'),
        (tmp_path / 's.png', 'is a socket'),
        ('/dev/zero', 'is a device'),
        (tmp_path / 'none.png', 'cannot be read .No such file'),
        (tmp_path / ('x' * 5000), 'cannot be read .File name too long'),
        ('a\0b.png', r'a\\x00b.png has a character that no file name can have'),
        ('a\ud800.png', r'a\\ud800.png has a character'),
    ):
        with pytest.raises(DataError, match=message) as caught:
            read_bytes(path)
        str(caught.value).encode()
    listening.close()


def test_a_backend_that_is_not_there_is_no_fault_of_the_data():
    for backend in ({'backend': 'nowhere'}, {'backend': 'petrel'}, {'root': 3}):
        with pytest.raises(UsageError, match='names no usable file backend'):
            read_bytes('1.png', backend)


def test_errors_reach_other_processes():
    with pytest.raises(DataError) as caught:
        read_bytes('none.png')
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
