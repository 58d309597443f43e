"""Rounds that go well, rounds that fail, and how a watch ends."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from connector.errors import AuthError, Conflict, Temporary
from connector.serve.watch import OPENS_AFTER, notify_manager, stopped_by_signals, watch

DOWN = Temporary("the server is away", "start it")


class Stop(threading.Event):
    """Remembers how long was to be waited, and waits not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0)
        return self.is_set()


def scripted(stop: Stop, *outcomes: Exception | None) -> Callable[[], None]:
    """A round that goes as told, and asks to stop with the last one."""
    left = list(outcomes)

    def one() -> None:
        outcome = left.pop(0)
        if not left:
            stop.set()
        if outcome:
            raise outcome

    return one


def test_rounds_follow_each_other_at_about_the_interval() -> None:
    stop = Stop()
    assert watch(scripted(stop, None, None, None), lambda: None, 60, stop, print) == 3
    assert len(stop.waits) == 3
    assert all(54 <= wait <= 66 for wait in stop.waits)
    assert len(set(stop.waits)) == 3


def test_after_a_failure_it_is_tried_again_after_longer_and_longer_pauses() -> None:
    stop, said = Stop(), list[str]()
    failures = [DOWN, Conflict("two at once"), DOWN, DOWN]
    assert watch(scripted(stop, *failures, None, None), lambda: None, 60, stop, said.append) == 2
    pauses = stop.waits[:4]
    assert pauses == sorted(pauses)
    assert pauses[0] < 3
    assert pauses[-1] > 8
    assert [text.split("\n")[0] for text in said][:2] == ["the server is away", said[1].split("\n")[0]]
    assert "again in" in said[0]


def test_a_server_that_is_ill_is_only_asked_whether_it_is_there() -> None:
    stop, asked = Stop(), []

    def probe() -> None:
        asked.append(1)
        if len(asked) < 4:
            raise DOWN

    one = scripted(stop, *[DOWN] * OPENS_AFTER, None)
    assert watch(one, probe, 60, stop, lambda _: None) == 1
    assert len(asked) == 4
    assert max(stop.waits[:-1]) <= 301


def test_what_waiting_does_not_mend_ends_the_watch() -> None:
    stop = Stop()
    with pytest.raises(AuthError):
        watch(scripted(stop, None, AuthError("the token is refused"), None), lambda: None, 60, stop, print)


def test_asked_to_stop_while_the_server_is_away_it_stops() -> None:
    stop = Stop()
    assert watch(scripted(stop, DOWN, DOWN), lambda: None, 60, stop, lambda _: None) == 0


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_asks_to_stop_and_a_second_interrupts(number: signal.Signals) -> None:
    before, stop = signal.getsignal(number), threading.Event()
    with stopped_by_signals(stop):
        os.kill(os.getpid(), number)
        assert stop.wait(60)
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                interrupt()
    assert signal.getsignal(number) is before


def test_what_nohup_lets_ignore_a_hangup_goes_on() -> None:
    before, stop = signal.signal(signal.SIGHUP, signal.SIG_IGN), threading.Event()
    try:
        with stopped_by_signals(stop):
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.wait(0.2)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("abstract", [False, True])
def test_a_service_manager_is_told_and_without_one_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    place = f"@connector-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(place.replace("@", "\0", 1) if abstract else place)
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", place)
        notify_manager("READY=1")
        assert manager.recv(100) == b"READY=1"
    for nowhere in (place, "", "/", "relative", "/no/such/socket"):
        monkeypatch.setenv("NOTIFY_SOCKET", nowhere)
        notify_manager("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify_manager("READY=1")
