"""Whoever has no secret takes neither the receiver's connections nor its memory from those who have it."""

from __future__ import annotations

import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest
from starlette.responses import Response

from benchmarks.webhooks import SECRET, event, port_of
from connector.adapters.signatures import SECRET_HEADER
from connector.serve import connections
from connector.serve.receiver import serving

if not Path("/proc/self/status").is_file():
    pytest.skip("this system does not report what a process holds", allow_module_level=True)

MOST_BYTES = 300 * 2**20
LARGE = 9_900_000

HALF = b"POST /events HTTP/1.1\r\nHost: x\r\nX-Anything: "


@dataclass
class Served:
    """A receiver in a process of its own."""

    process: subprocess.Popen[str]
    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def knock(self, number: int) -> None:
        """Send an event as a labeling tool does; it must be acknowledged."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=60)) as wire:
            wire.request("POST", "/events", event(number), {SECRET_HEADER: SECRET})
            assert wire.getresponse().status == 202

    @property
    def most_bytes(self) -> int:
        """The most memory that it ever held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


@contextmanager
def served(folder: Path, files: int = 0) -> Iterator[Served]:
    """A receiver.

    Args:
        files: how many files and sockets it may open.
    """

    def limit() -> None:
        if files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    words = [sys.executable, "-m", "benchmarks.webhooks", str(folder / "inbox.sqlite"), "connector"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, preexec_fn=limit) as process:
        try:
            port = port_of(process)
            yield Served(process, port)
            assert process.poll() is None
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """This process holds the other ends of all connections."""
    soft, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("this process may not open enough files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def until_cut_off(wire: socket.socket, piece: bytes, every: float = 0) -> int:
    """Send a piece again and again, until the connection is closed; returns how many bytes went out."""
    deadline, sent = time.monotonic() + 60, 0
    try:
        while time.monotonic() < deadline and sent < 300 * 2**20:
            wire.sendall(piece)
            sent += len(piece)
            time.sleep(every)
    except ConnectionError:
        return sent
    raise AssertionError(f"the connection is open after {sent} bytes")


@pytest.mark.parametrize("sent", [b"", HALF], ids=["idle", "half-sent headers"])
@pytest.mark.parametrize(("files", "strangers"), [(0, 600), (1024, 1500)])
def test_strangers_that_hold_connections_shut_nobody_out(
    tmp_path: Path, sent: bytes, files: int, strangers: int
) -> None:
    with served(tmp_path, files) as receiver, ExitStack() as held:
        for n in range(strangers):
            held.enter_context(wire := receiver.connect())
            wire.sendall(sent)
            if n % 100 == 0:
                receiver.knock(n)
        for n in range(20):
            receiver.knock(strangers + n)
        assert len(list(Path(f"/proc/{receiver.process.pid}/fd").iterdir())) < connections.MOST + 100
        assert receiver.most_bytes < MOST_BYTES


def test_connections_that_all_come_at_once_are_no_more_than_files(tmp_path: Path) -> None:
    with served(tmp_path, 256) as receiver, ExitStack() as held:
        receiver.knock(0)  # its port is known before it has begun to accept, with a queue that long
        receiver.process.send_signal(signal.SIGSTOP)  # so that all of them wait to be accepted
        for _ in range(900):
            held.enter_context(receiver.connect()).sendall(HALF)
        receiver.process.send_signal(signal.SIGCONT)
        for n in range(40):
            receiver.knock(n)


@pytest.mark.parametrize("answered", [False, True], ids=["first", "after an answer"])
def test_headers_that_come_too_slowly_end_the_connection(
    monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    with (
        serving(Response("hello"), "127.0.0.1", 0) as url,
        socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=60) as wire,
    ):
        if answered:
            wire.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            while not wire.recv(1000).endswith(b"hello"):
                """The headers come first."""
        wire.sendall(b"GET / HTTP/1.1\r\n")
        until_cut_off(wire, b"X: y\r\n", every=0.05)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nX: ",
        b"POST /events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"POST /events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ",
    ],
    ids=["address", "header", "chunk's name", "trailer"],
)
def test_what_never_ends_is_cut_off(tmp_path: Path, head: bytes) -> None:
    with served(tmp_path) as receiver:
        before = receiver.most_bytes
        with receiver.connect() as wire:
            wire.sendall(head)
            assert until_cut_off(wire, b"x" * 2**16) < 20 * 2**20  # most of it waits in the system's buffers
        assert receiver.most_bytes < before + 20 * 2**20
        receiver.knock(1)


def send_large(receiver: Served, secret: str, answers: list[bytes], whole: bool = True) -> socket.socket:
    """A large event, or all of it but its last byte; the answer to a whole one is added to the answers."""
    wire = receiver.connect()
    head = f"POST /events HTTP/1.1\r\nHost: x\r\n{SECRET_HEADER}: {secret}\r\nContent-Length: {LARGE}\r\n\r\n"
    try:
        wire.sendall(head.encode() + b"[" + b" " * (LARGE - 2) + (b"]" if whole else b""))
        if whole:
            answers.append(wire.recv(1000))
    except ConnectionError:
        answers.append(b"")
    return wire


def all_at_once(count: int, send: Callable[[], socket.socket]) -> list[socket.socket]:
    wires: list[socket.socket] = []
    threads = [threading.Thread(target=lambda: wires.append(send())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wires


def test_the_body_of_someone_without_the_secret_is_not_read(tmp_path: Path) -> None:
    with served(tmp_path) as receiver:
        before, answers = receiver.most_bytes, list[bytes]()
        # They stall before their last byte: a receiver that waits for bodies would hold all of them at once.
        stalled = all_at_once(80, lambda: send_large(receiver, "a guess", answers, whole=False))
        assert receiver.most_bytes < before + 80 * 2**20
        assert {wire.recv(12) for wire in stalled} == {b"HTTP/1.1 401"}
        for wire in stalled:
            wire.close()
        receiver.knock(1)


def test_large_bodies_of_those_with_the_secret_take_no_more_memory_than_allowed(tmp_path: Path) -> None:
    with served(tmp_path) as receiver:
        answers = list[bytes]()
        # They stall before their last byte, so that all that are taken are held at the same time.
        stalled = all_at_once(30, lambda: send_large(receiver, SECRET, answers, whole=False))
        assert receiver.most_bytes < MOST_BYTES
        assert sum(wire.recv(1000).startswith(b"HTTP/1.1 503") for wire in stalled) >= 20
        for wire in stalled:
            wire.close()
        receiver.knock(1)
        [wire] = all_at_once(1, lambda: send_large(receiver, SECRET, answers))
        assert answers[-1].startswith(b"HTTP/1.1 400")  # it was read, and is no event
        wire.close()


def test_a_client_that_reads_no_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.5)
    with (
        serving(Response("x" * 100_000_000), "127.0.0.1", 0) as url,
        socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=60) as wire,
    ):
        wire.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        until_cut_off(wire, b"\r\n", every=0.05)


def test_answers_on_a_connection_that_stays_open_are_not_delayed(tmp_path: Path) -> None:
    with served(tmp_path) as receiver, closing(HTTPConnection("127.0.0.1", receiver.port)) as wire:
        took = []
        for _ in range(30):
            begun = time.monotonic()
            wire.request("GET", "/healthz")
            assert wire.getresponse().read()
            took.append(time.monotonic() - begun)
        # A packet that waits for the acknowledgement of the one before waits 40 ms on Linux.
        # The first answer on a connection has none before it.
        assert min(took[1:]) < 0.02
