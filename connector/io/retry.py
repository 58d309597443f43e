"""The one policy for waiting and trying again, and the one place for time-outs.

Only `Temporary` is tried again: an adapter decides what is temporary, this file decides how often. A
request that creates something is never wrapped in this: the caller looks first whether it arrived.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_after_delay,
    stop_when_event_set,
    wait_exponential_jitter,
    wait_random_exponential,
)

from connector.errors import Conflict, Temporary

T = TypeVar("T")

CONNECT_SECONDS = 5.0
CLUSTER_SECONDS = 30.0
"""The scheduler of a busy cluster may take this long to accept a client."""

WORKERS_SECONDS = 60.0
"""A cluster without workers is waited for so long: they may be starting."""

READ_SECONDS = 120.0
"""Label Studio builds a page of 1000 tasks in some seconds and an export in one request."""

ATTEMPTS = 5
GIVE_UP_SECONDS = 120.0
FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 30.0
"""Storage libraries try again by themselves: they are given these too."""

STORE_ANSWER_SECONDS = 30.0
STORE_GIVE_UP_SECONDS = 30.0
"""For the label store's library, which tries again by itself: how long an answer may take, and after how long
no attempt begins any more. So it is told within a minute that a bucket is away."""

LEASE_SECONDS = 300.0
"""A holder of the label store's lease that shows no sign of life for so long is taken for dead. Each page
that is kept is such a sign, and with all attempts the tool may need minutes for one."""

_backoff = wait_random_exponential(multiplier=FIRST_WAIT_SECONDS, max=LONGEST_WAIT_SECONDS)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = getattr(error, "retry_after", None)
    return float(_backoff(state)) if asked is None else min(float(asked), LONGEST_WAIT_SECONDS)


SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 300.0
"""Between rounds of a watch that failed."""

JITTER = 0.1
"""Share of an interval by which rounds are moved, so that many lines do not knock at once."""

patient = Retrying(
    retry=retry_if_exception_type(Temporary),
    wait=_wait,
    stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(GIVE_UP_SECONDS),
    reraise=True,
)
"""Calls a function again while it raises `Temporary`: five times at most, two minutes at most."""


def persistent(stop: threading.Event, failed: Callable[[RetryCallState], None]) -> Retrying:
    """Tries until it goes well or `stop` is set, with longer and longer pauses.

    Args:
        failed: told of every failure, and of the pause that follows.
    """
    return Retrying(
        retry=retry_if_exception_type((Temporary, Conflict)),
        wait=wait_exponential_jitter(max=LONGEST_PAUSE_SECONDS, min=SHORTEST_PAUSE_SECONDS),
        stop=stop_when_event_set(stop),
        sleep=sleep_using_event(stop),
        before_sleep=failed,
        retry_error_callback=lambda _: None,
    )


def paced(things: Iterable[T], per_second: float | None) -> Iterator[T]:
    """The things as they are, at most so many a second; None: as fast as they are taken."""
    due = time.monotonic()
    for thing in things:
        if per_second is not None:
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic()) + 1 / per_second
        yield thing


def elapsed() -> float:
    """Seconds since some moment, whatever the clock is set to; on Linux with those that the system slept."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


LEAST_STEP_SECONDS = 1.0
"""By less than this nothing is moved; smaller steps add up."""


class Clock:
    """The system's clock, for deadlines that stand on the disk; it notices when it was set.

    No other clock survives a restart and is shown to people.

    Args:
        move: moves the deadlines forward by a number of seconds, or back where that is negative. If it
            raises, it is called again the next time.
    """

    def __init__(self, move: Callable[[float], object]) -> None:
        self._move, self._lock, self._offset = move, threading.Lock(), time.time() - elapsed()

    def now(self) -> float:
        """Seconds since the epoch. If the clock was set since the last call, the deadlines are moved first.

        Never within a transaction that the move would wait for.
        """
        with self._lock:
            now = time.time()
            step = now - elapsed() - self._offset
            if abs(step) >= LEAST_STEP_SECONDS:
                self._move(step)
                self._offset += step
            return now


def jittered(seconds: float) -> float:
    """About so many seconds."""
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)


REDELIVERED_AFTER = (5.0, 30.0, 120.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0)
"""Seconds from each failed delivery to the next try; after the last it is given up."""


LONGEST_REDELIVERY_SECONDS = (1 + JITTER) * REDELIVERED_AFTER[-1]
"""No delivery waits longer for its next try; see `redelivery`."""


def redelivery(attempts: int, asked: float | None = None) -> float | None:
    """Seconds until a delivery that failed is tried again; None when it is given up.

    Args:
        attempts: how often it was tried before this time.
        asked: how long the receiver asked us to wait.
    """
    if attempts >= len(REDELIVERED_AFTER):
        return None
    return max(jittered(REDELIVERED_AFTER[attempts]), min(asked or 0, REDELIVERED_AFTER[-1]))
