"""A way to a real server that can stall: from then on it accepts, and never answers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Relay:
    """Passes bytes on until it stalls.

    Attributes:
        url: where it listens.
        stalled: set it, and no byte is passed on any more.
        waiting: how many connections it has accepted since, without an answer.
    """

    server: tuple[str, int]
    url: str = ""
    stalled: threading.Event = field(default_factory=threading.Event)
    waiting: int = 0
    _open: list[socket.socket] = field(default_factory=list)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            self._open.append(client)
            if self.stalled.is_set():
                self.waiting += 1
                continue
            server = socket.create_connection(self.server)
            self._open.append(server)
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                if self.stalled.is_set():
                    self.waiting += 1
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            """One of both is gone."""

    def close(self) -> None:
        """End every connection: whoever waits learns that no answer comes."""
        for wire in self._open:
            wire.close()


@contextmanager
def relay(url: str) -> Iterator[Relay]:
    """A relay to a server, on a free port of loopback, gone when it is left."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    assert host
    assert port
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        made = Relay((host, port), f"http://127.0.0.1:{listening.getsockname()[1]}")
        threading.Thread(target=made._accept, args=(listening,), daemon=True).start()
        try:
            yield made
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            made.close()


@contextmanager
def longest_pause(every: float = 0.01) -> Iterator[list[float]]:
    """The longest time that a thread which runs every few milliseconds had to wait for the interpreter."""
    found, ended = [0.0], threading.Event()

    def tick() -> None:
        last = time.monotonic()
        while not ended.wait(every):
            now = time.monotonic()
            found[0], last = max(found[0], now - last), now

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
