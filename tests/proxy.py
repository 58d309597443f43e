"""A way to the real server on which things go wrong, by chance and as often as wanted."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PAGE = b"<!DOCTYPE html><title>502 Bad Gateway</title>"
KINDS = {
    "500 before": 4,
    "500 after": 4,
    "page before": 2,
    "page after": 2,
    "cut before": 4,
    "cut after": 4,
    "hang after": 1,  # whoever waits for a hanging server does nothing meanwhile: there would be no chaos
}
"""What goes wrong, before the server was asked or after, and how often compared with the others."""

NOT_PASSED_ON = {"connection", "transfer-encoding", "keep-alive", "host", "content-length", "date", "server"}


@dataclass
class Proxy:
    """Passes requests on to a server.

    Attributes:
        share: of the requests that go wrong.
        hang_seconds: how long a request hangs that does.
        done: what went wrong, and how often.
    """

    server: str
    rng: random.Random
    share: float
    hang_seconds: float
    url: str = ""
    done: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def trouble(self) -> str:
        """What goes wrong with this request; mostly nothing."""
        with self._lock:
            if self.rng.random() >= self.share:
                return ""
            kind = self.rng.choices(list(KINDS), list(KINDS.values()))[0]
            self.done[kind] += 1
            return kind

    def ask(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """What the server answers."""
        connection = http.client.HTTPConnection(urlsplit(self.server).netloc, timeout=120)
        told = handler.headers.items()
        kept = {name: value for name, value in told if name.lower() not in NOT_PASSED_ON}
        try:
            connection.request(handler.command, handler.path, body or None, kept)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


@contextmanager
def proxy(server: str, rng: random.Random, share: float, hang_seconds: float) -> Iterator[Proxy]:
    """A proxy on loopback, gone when it is left."""
    troubled = Proxy(server, rng, share, hang_seconds)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind, _, when = troubled.trouble().partition(" ")
            if when == "before":
                return self._go_wrong(kind)
            try:
                status, headers, content = troubled.ask(self, body)
            except OSError:  # the server is away
                return self._go_wrong("page")
            if when == "after":
                return self._go_wrong(kind)
            return self._answer(status, headers, content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _pass_on

        def _go_wrong(self, kind: str) -> None:
            if kind == "500":
                return self._answer(500, [("Content-Type", "application/json")], b'{"detail": "chaos"}')
            if kind == "page":
                return self._answer(502, [("Content-Type", "text/html")], PAGE)
            if kind == "hang":
                time.sleep(troubled.hang_seconds)
            self.close_connection = True
            return None

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response_only(status)
            self.send_header("Date", self.date_time_string())
            for name, value in headers:
                if name.lower() not in NOT_PASSED_ON:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                return  # whoever asked was killed

        def log_message(self, *args: object) -> None:
            """Nothing is logged."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    troubled.url = f"http://127.0.0.1:{listening.server_port}"
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield troubled
    finally:
        listening.shutdown()
        listening.server_close()
