"""A sync that goes on: round after round, slower while the other side is unwell."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType

from tenacity import RetryCallState

from connector.errors import ConnectorError
from connector.ledger import Ledger
from connector.retry import jittered, persistent

OPENS_AFTER = 5
"""After so many failures in a row the tool is only asked whether it is there, until it is."""


@dataclass(frozen=True)
class Watch:
    """What goes on, and how.

    Args:
        round: one round; it raises one of our errors where it fails.
        probe: cheap, and raises where the tool is not well.
        interval: seconds from the end of a round to the next.
        ledger: where each round is noted.
        say: told of what people want to know.
    """

    round: Callable[[], object]
    probe: Callable[[], object]
    interval: float
    ledger: Ledger
    say: Callable[[str], None]

    def run(self, stop: threading.Event) -> int:
        """Go on until `stop` is set; returns how many rounds went well.

        Raises:
            ConnectorError: what waiting does not mend: a wrong configuration, a token that is refused.
        """
        rounds = 0
        while not stop.is_set():
            for attempt in persistent(stop, self._failed):
                with attempt:
                    self._one(attempt.retry_state.attempt_number)
                    rounds += 1
            stop.wait(jittered(self.interval))
        return rounds

    def _one(self, attempt: int) -> None:
        try:
            if attempt > OPENS_AFTER:
                self.probe()
            self.round()
        except ConnectorError as error:
            self.ledger.note(datetime.now(UTC), error.what)
            raise
        self.ledger.note(datetime.now(UTC), None)

    def _failed(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        again = state.next_action.sleep if state.next_action else 0
        self.say(f"{error}; again in {again:.0f} s")


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let SIGTERM and the first SIGINT end the watch after the round; a second SIGINT interrupts it."""

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if number == signal.SIGINT and stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
