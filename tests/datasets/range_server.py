"""A web server on loopback that misbehaves as told."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server(ThreadingHTTPServer):
    """Serves a folder, with Range, If-Range and HEAD.

    `cuts` holds for a path the number of bytes after which to cut its next answers off; `answers` the status of its
    next answers; `asked` what was asked for: (method, path, Range).
    """

    daemon_threads = False  # so that closing waits for them

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.cuts: dict[str, list[int]] = defaultdict(list)
        self.answers: dict[str, list[int]] = defaultdict(list)
        self.asked: list[tuple[str, str, str | None]] = []
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """Say nothing: the client may hang up."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.lstrip("/")
        asked = self.headers.get("Range")
        self.server.asked.append((self.command, path, asked))
        self.close_connection = True
        status = self.server.answers[path].pop(0) if self.server.answers[path] else None
        cut = self.server.cuts[path].pop(0) if status is None and body and self.server.cuts[path] else None
        file = self.server.folder / path
        if status is not None or not file.is_file():
            self.send_response(status or 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = file.read_bytes()
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        begin = 0
        if asked and self.server.ranges and self.headers.get("If-Range") in (None, etag):
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            if begin >= len(content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.send_header("ETag", etag)
        self.end_headers()
        if body:
            self.wfile.write(content[begin : None if cut is None else begin + cut])

    def log_message(self, *args) -> None:
        """Say nothing."""
