"""Somebody else's receiver of what we send: a real HTTP server that remembers, and fails when told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from connector.events.callbacks import Receivers

LOOPBACK = Receivers(["127.0.0.0/8"])
"""What the tests call is on this machine, which is no public address."""


@dataclass
class Received:
    """What came, in its order, and what is answered: the first status first, at last always 204."""

    url: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    @property
    def json(self) -> list[Any]:
        return [json.loads(body) for body in self.bodies]


@contextmanager
def receiver(*statuses: int, retry_after: int | str | None = None, port: int = 0) -> Iterator[Received]:
    """Listens until it is left.

    Args:
        retry_after: the seconds or the date that it asks to wait for, with every answer.
        port: where it listens; by default any that is free.
    """
    received = Received(statuses=list(statuses))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.headers.append({name.lower(): value for name, value in self.headers.items()})
            received.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(received.statuses.pop(0) if received.statuses else 204)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            if retry_after is not None:
                self.send_header("Retry-After", str(retry_after))
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    received.url = f"http://127.0.0.1:{server.server_port}/hook?token=hidden"
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
