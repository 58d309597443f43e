"""A way to a real server that can stall: while it does, it accepts connections and never answers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Relay:
    """Passes bytes on until it stalls.

    Attributes:
        url: where it listens.
        stalled: set it, and no byte is passed on any more; see `resume`.
        waiting: how many connections it has left without an answer.
    """

    server: tuple[str, int]
    url: str = ""
    stalled: threading.Event = field(default_factory=threading.Event)
    waiting: int = 0
    _resumed: threading.Event = field(default_factory=threading.Event)
    _open: set[socket.socket] = field(default_factory=set)

    def resume(self) -> None:
        """Pass bytes on again. Connections that wait are ended: whoever has one must ask again."""
        self.stalled.clear()
        resumed, self._resumed = self._resumed, threading.Event()
        resumed.set()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._open.add(client)
        if self._ended_by_a_stall():
            self._close(client)
            return
        server = socket.create_connection(self.server)
        self._open.add(server)
        back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
        back.start()
        self._pass_on(client, server)
        back.join()
        self._close(client, server)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # one of both is gone
            while data := source.recv(1 << 16):
                if self._ended_by_a_stall():
                    source.shutdown(socket.SHUT_RDWR)
                    break
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _ended_by_a_stall(self) -> bool:
        """False at once where it does not stall; else True, as soon as it works again."""
        resumed = self._resumed
        if not self.stalled.is_set():
            return False
        self.waiting += 1
        resumed.wait()
        return True

    def _close(self, *wires: socket.socket) -> None:
        for wire in wires:
            self._open.discard(wire)
            wire.close()

    def close(self) -> None:
        """End every connection: whoever waits learns that no answer comes."""
        self._close(*self._open)
        self._resumed.set()


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
