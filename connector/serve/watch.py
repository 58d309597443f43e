"""A sync that goes on: round after round, slower while the other side is unavailable."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from tenacity import RetryCallState

from connector.io.retry import jittered, persistent

OPENS_AFTER = 5
"""After so many failures in a row the tool is only asked whether it is there, until it is."""


def watch(
    round: Callable[[], object],
    probe: Callable[[], object],
    interval: float,
    stop: threading.Event,
    say: Callable[[str], None],
    pause: Callable[[float], object] | None = None,
) -> int:
    """Go on until `stop` is set; returns how many rounds went well.

    Args:
        round: one round; it raises one of our errors where it fails.
        probe: cheap, and raises where the tool is not well.
        interval: seconds from the end of a round to the next.
        say: told what went wrong.
        pause: how to wait for the next round, so many seconds at most; by default until `stop`.

    Raises:
        ConnectorError: what waiting does not fix: a wrong configuration, a token that is refused.
    """

    def failed(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        say(f"{error}; again in {state.upcoming_sleep:.0f} s")

    rounds = 0
    while not stop.is_set():
        for attempt in persistent(stop, failed):
            with attempt:
                if attempt.retry_state.attempt_number > OPENS_AFTER:
                    probe()
                round()
                rounds += 1
        (pause or stop.wait)(jittered(interval))
    return rounds


class Bell:
    """Wakes whoever waits for the next round.

    Args:
        stop: ends every wait.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop, self._rung = stop, threading.Event()

    def ring(self) -> None:
        """Let the next round come soon."""
        self._rung.set()

    def wait(self, seconds: float, settle: float) -> None:
        """Wait for a ring, so many seconds at most.

        Args:
            settle: seconds to wait after the first ring: what rings meanwhile is one round.
        """
        until = time.monotonic() + seconds
        while not self._stop.is_set() and (left := until - time.monotonic()) > 0:
            # In short pieces: a signal sets `stop`, and rings nothing.
            if self._rung.wait(min(left, 0.25)):
                self._stop.wait(settle)
                break
        self._rung.clear()


def notify_manager(state: str) -> None:
    """Tell the service manager how we are, where one asks for it: `READY=1`, `STOPPING=1`.

    Source: sd_notify(3) of systemd, a datagram to the socket that NOTIFY_SOCKET names.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@") or len(address) < 2:
        return
    # An abstract address begins with a zero byte, which a variable cannot hold.
    place = "\0" + address[1:] if address.startswith("@") else address
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.setblocking(False)
        manager.connect(place)
        manager.send(state.encode())


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let SIGTERM, SIGHUP and the first SIGINT end the watch after the round; a second SIGINT interrupts it.

    A SIGHUP that was ignored before, as `nohup` lets it be, stays ignored.
    """

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if number == signal.SIGINT and stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    ending = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        ending.append(signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in ending}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
