"""A web server on 127.0.0.1 in a thread, which serves files well or in one of many bad ways."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class WebServer(ThreadingHTTPServer):
    """Serves the bytes in ``files`` by path; ``ways`` says how: a path's list of ways, one for each request, then well.

    Ways: ``('cut', n)`` closes after n bytes, ``('status', code)``, ``('to', url)`` redirects, ``('hang',)`` answers
    nothing, ``('drip', n)`` sends n bytes and then nothing, ``('length', n)`` says another Content-Length,
    ``('untold',)`` says none, ``('page',)`` sends a page, ``('packed',)`` says that it is packed with gzip.
    ``settings``: ``ranges`` off ignores Range, ``tags`` off sends no ETag, ``if_range`` off ignores If-Range.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), _Handler)
        self.files, self.ways, self.requests = {}, {}, []
        self.settings = {'ranges': True, 'tags': True, 'if_range': True}
        self.released = threading.Event()

    def url(self, path: str) -> str:
        return f'http://127.0.0.1:{self.server_port}{path}'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        server = self.server
        server.requests.append((self.path, self.headers.get('Range')))
        ways = server.ways.get(self.path, [])
        way = ways.pop(0) if ways else ('well',)
        self.close_connection = True
        if way[0] == 'hang':
            server.released.wait(30)
            return
        if way[0] == 'status':
            self._head(way[1], {'Content-Length': 0})
            return
        if way[0] == 'to':
            self._head(302, {'Location': way[1], 'Content-Length': 0})
            return
        if self.path not in server.files:
            self._head(404, {'Content-Length': 0})
            return
        self._send(server.files[self.path], way)

    def _head(self, status: int, headers: dict) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def _send(self, data: bytes, way: tuple) -> None:
        settings, tag = self.server.settings, f'"{hashlib.md5(data).hexdigest()}"'
        headers = {'Content-Type': 'text/html' if way[0] == 'page' else 'application/octet-stream'}
        if settings['tags']:
            headers['ETag'] = tag
        if way[0] == 'packed':
            headers['Content-Encoding'] = 'gzip'
        first, asked = 0, self.headers.get('Range', '')
        same = not settings['if_range'] or self.headers.get('If-Range', tag) == tag
        if settings['ranges'] and asked and same:
            first = int(asked.removeprefix('bytes=').rstrip('-'))
            if first >= len(data):
                self._head(416, {'Content-Range': f'bytes */{len(data)}', 'Content-Length': 0})
                return
            headers['Content-Range'] = f'bytes {first}-{len(data) - 1}/{len(data)}'
        body = data[first:]
        if way[0] != 'untold':
            headers['Content-Length'] = way[1] if way[0] == 'length' else len(body)
        self._head(206 if first or 'Content-Range' in headers else 200, headers)
        if way[0] in ('cut', 'drip'):
            body = body[: way[1]]
        try:
            self.wfile.write(body)
            if way[0] == 'drip':
                self.wfile.flush()
                self.server.released.wait(30)
            if way[0] == 'slow':
                time.sleep(way[1])
        except (BrokenPipeError, ConnectionResetError):
            return


@contextmanager
def web_server() -> Iterator[WebServer]:
    """Context manager that runs a server."""
    server = WebServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
