"""Hostile receivers: where they are, how long they take, how much they send, and what they ask for."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from connector.config import parse
from connector.errors import BadRecord, Temporary, UsageError
from connector.events import callbacks
from connector.events.callbacks import Receivers, Unreachable, asked_to_wait, post
from tests.unit.receiver import LOOPBACK, receiver


@contextmanager
def answering(answer: Callable[[socket.socket], None], address: str = "127.0.0.1") -> Iterator[str]:
    """A server that reads a request and then does with the connection what it wants."""

    def serve() -> None:
        while True:
            try:
                wire, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(wire,), daemon=True).start()

    def handle(wire: socket.socket) -> None:
        with wire, suppress(OSError):
            wire.settimeout(30)
            wire.recv(65536)
            answer(wire)

    with socket.create_server((address, 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://{address}:{server.getsockname()[1]}/"


def send(url: str, receivers: Receivers = LOOPBACK) -> None:
    post(url, "{}", {}, "the receiver", receivers)


# how long, and how much


def drip(wire: socket.socket) -> None:
    """A byte of an endless header now and then: no single wait is long."""
    wire.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(100):
        wire.sendall(b"x")
        time.sleep(0.1)


def mute(wire: socket.socket) -> None:
    while wire.recv(65536):
        pass


def interim(wire: socket.socket) -> None:
    """Answers that are only provisional, without end."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        wire.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.01)


@pytest.mark.parametrize("answer", [drip, mute, interim])
def test_a_call_ends_by_its_deadline_whatever_arrives(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[socket.socket], None]
) -> None:
    monkeypatch.setattr(callbacks, "CALL_SECONDS", 1.0)
    with answering(answer) as url:
        begun = time.monotonic()
        with pytest.raises(Unreachable, match="took too long"):
            send(url)
        assert time.monotonic() - begun < 30


def test_a_receiver_that_does_not_read_is_left_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "CALL_SECONDS", 1.0)
    with answering(lambda wire: time.sleep(8)) as url:
        begun = time.monotonic()
        with pytest.raises(Unreachable, match="took too long"):
            post(url, "x" * 50_000_000, {}, "the receiver", LOOPBACK)
        assert time.monotonic() - begun < 6


def test_a_handshake_that_never_ends_is_left_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "CALL_SECONDS", 1.0)
    with answering(mute) as url:
        begun = time.monotonic()
        with pytest.raises(Unreachable, match="took too long"):
            send(url.replace("http:", "https:"))
        assert time.monotonic() - begun < 30


def test_an_answer_without_end_is_not_read() -> None:
    sent = 0

    def endless(wire: socket.socket) -> None:
        nonlocal sent
        wire.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(200):
            wire.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
            sent += 1 << 20

    with answering(endless) as url:
        tracemalloc.start()
        try:
            send(url)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 8 << 20  # the server's own block is one megabyte
    assert sent < 32 << 20, "more than what the buffers of the connection hold was taken"


def test_a_compressed_answer_is_not_expanded() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    with answering(lambda wire: wire.sendall(head.encode() + bomb)) as url:
        tracemalloc.start()
        try:
            send(url)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 8 << 20


def test_headers_without_end_are_refused() -> None:
    def endless(wire: socket.socket) -> None:
        wire.sendall(b"HTTP/1.1 200 OK\r\n")
        for _ in range(2000):
            wire.sendall(b"X: " + b"x" * 65000 + b"\r\n")

    with answering(endless) as url:
        tracemalloc.start()
        try:
            with pytest.raises(Unreachable):
                send(url)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 32 << 20


# where


def refusing(host: str, addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A host name with these addresses: the next one each time it is resolved."""
    real, left = socket.getaddrinfo, list(addresses)

    def resolve(name: Any, port: Any, *args: Any, **more: Any) -> Any:
        if name == host:
            name = left.pop(0) if len(left) > 1 else left[0]
        return real(name, port, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


PRIVATE = [
    *("127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1"),
    *("::1", "::", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1"),
    *("::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "::127.0.0.1"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_not_called(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    def connects(*args: Any) -> None:
        raise AssertionError("it was connected to")

    monkeypatch.setattr(socket, "create_connection", connects)
    for host in (f"[{address}]" if ":" in address else address, "named.example"):
        refusing("named.example", [address], monkeypatch)
        with pytest.raises(UsageError, match="not a public address") as caught:
            send(f"http://{host}/", Receivers())
        assert "[callbacks]" in caught.value.hint
    with pytest.raises(UsageError, match="not a public address"):
        Receivers().check(f"http://[{address}]/" if ":" in address else f"http://{address}/", "x")


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.0.0.1", "017700000001", "localhost"])
def test_other_ways_to_write_an_address_are_no_way_around(host: str) -> None:
    with receiver() as hook, pytest.raises(UsageError, match="not a public address"):
        send(hook.url.replace("127.0.0.1", host), Receivers())
    assert hook.bodies == []


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_a_public_address_may_be_called(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    called = []

    def connects(place: tuple[str, int], timeout: float) -> None:
        called.append(place)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connects)
    with pytest.raises(Unreachable):
        send(f"http://[{address}]/" if ":" in address else f"http://{address}/", Receivers())
    assert called == [("2606:4700::1" if address.startswith("26") else "8.8.8.8", 80)]


def test_a_name_that_changes_its_address_after_the_check_is_called_at_the_one_that_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with receiver() as inside, answering(lambda wire: None, "127.0.0.2") as outside:
        port = outside.rsplit(":", 1)[1]
        refusing("rebinding.example", ["127.0.0.2", "127.0.0.1"], monkeypatch)
        with pytest.raises(Unreachable):  # 127.0.0.2 was called: it takes the request and answers nothing
            send(f"http://rebinding.example:{port}", Receivers(["127.0.0.2"]))
        inside_port = inside.url.split(":")[2].split("/")[0]
        with pytest.raises(UsageError, match=r"127\.0\.0\.1 is not a public address"):
            send(f"http://rebinding.example:{inside_port}/", Receivers(["127.0.0.2"]))
    assert inside.bodies == []


def test_what_the_configuration_allows_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing("model.internal", ["127.0.0.1"], monkeypatch)
    with receiver() as hook:
        named = hook.url.replace("127.0.0.1", "model.internal")
        for allowed, url in (
            ('["127.0.0.1"]', hook.url),
            ('["127.0.0.0/8"]', named),
            ('["Model.Internal."]', named),
        ):
            config = parse(f"[callbacks]\nallow = {allowed}", tmp_path / "connector.toml")
            send(url, Receivers(config.callbacks.allow))
        with pytest.raises(UsageError):
            send(hook.url, Receivers(["model.internal"]))
    assert len(hook.bodies) == 3


@pytest.mark.parametrize("entry", ["http://x", "10.0.0.1/8", "a b", "", "x:80", "*"])
def test_an_entry_that_allows_nothing_is_refused(tmp_path: Path, entry: str) -> None:
    with pytest.raises(UsageError, match=r"callbacks\.allow"):
        parse(f'[callbacks]\nallow = ["{entry}"]', tmp_path / "connector.toml")


def test_the_labeling_tool_is_not_a_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing("labels.example", ["127.0.0.1"], monkeypatch)
    refusing("alias.example", ["127.0.0.1"], monkeypatch)
    with receiver() as tool, receiver() as other:
        tools = Receivers(["127.0.0.0/8"], tool.url.replace("127.0.0.1", "labels.example"))
        for host in ("127.0.0.1", "127.0.0.5", "labels.example", "alias.example"):
            with pytest.raises(UsageError, match="the labeling tool's own address"):
                send(tool.url.replace("127.0.0.1", host), tools)
        send(other.url, tools)  # another port is another service
        shared = Receivers(["alias.example"], tool.url)  # a proxy that serves both under one address
        send(tool.url.replace("127.0.0.1", "alias.example"), shared)
    assert (len(tool.bodies), len(other.bodies)) == (1, 1)


def test_a_redirect_is_not_followed() -> None:
    with receiver() as inside:
        answer = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {inside.url}\r\n\r\n"
        with (
            answering(lambda wire: wire.sendall(answer.encode())) as url,
            pytest.raises(Temporary, match="answered 307"),
        ):
            send(url)
    assert inside.bodies == []


# what is sent along


def test_neither_stored_credentials_nor_proxies_of_the_environment_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password hidden\ndefault login me password hidden\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    with receiver() as hook, receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        send(hook.url)
    assert proxy.bodies == []
    [headers] = hook.headers
    assert "authorization" not in headers
    assert headers["accept-encoding"] == "identity"
    assert headers["host"] == hook.url.split("/")[2]


@pytest.mark.parametrize("url", ["http://", "http://[", "http://x:port/", "http://.x/", "https://a b/"])
def test_an_address_that_is_no_url_is_given_up(url: str) -> None:
    with pytest.raises((UsageError, Unreachable)):
        send(url)


def test_tls_is_checked_against_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(lambda wire: None) as url, pytest.raises(Unreachable):
        send(url.replace("http:", "https:"))  # not TLS at all
    context = callbacks._tls()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


# what it asks for


def test_a_receiver_says_by_seconds_or_by_a_date_how_long_to_wait() -> None:
    now = datetime.now(UTC)
    assert asked_to_wait("120") == 120
    assert asked_to_wait(format_datetime(now + timedelta(hours=2), usegmt=True)) == pytest.approx(7200, abs=3)
    assert asked_to_wait(format_datetime(now - timedelta(hours=2), usegmt=True)) == 0
    # RFC 9110, section 5.6.7: the three forms of a date; the receiver's clock is its own.
    date = "Sun, 06 Nov 1994 08:49:37 GMT"
    assert asked_to_wait("Sun, 06 Nov 1994 08:50:37 GMT", date) == 60
    assert asked_to_wait("Sunday, 06-Nov-94 08:50:37 GMT", date) == 60
    assert asked_to_wait("Sun Nov  6 08:50:37 1994", date) == 60


@pytest.mark.parametrize("text", [None, "", "soon", "-5", "1e3", "٣", "Sun, 99 Nov 1994", "9 " * 2000])
def test_a_malformed_wait_is_none(text: str | None) -> None:
    assert asked_to_wait(text) is None


def test_the_date_is_read_from_the_answer() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    with receiver(503, retry_after=later) as hook, pytest.raises(Temporary) as caught:
        send(hook.url)
    assert caught.value.retry_after == pytest.approx(600, abs=5)


def test_whoever_is_gone_is_left_alone() -> None:
    with receiver(410) as hook, pytest.raises(BadRecord, match="wants no more"):
        send(hook.url)
