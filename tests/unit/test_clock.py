"""The system's clock is set, by an hour or by years: nothing expires or is late because of that."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from connector.adapters.label_studio import client as label_studio_server
from connector.adapters.label_studio.client import Server
from connector.errors import Temporary
from connector.events.log import PRUNED_AT_ONCE, Changes, Delivery, Event, EventLog
from connector.io import retry
from connector.io.objects import Objects
from connector.io.retry import LONGEST_REDELIVERY_SECONDS, Clock
from connector.serve.ask import Asks, Question
from connector.serve.receiver import OfOneAddress
from connector.store.label_store import Store
from tests.unit.memory_line import MemoryLine
from tests.unit.test_live import live_on
from tests.waiting import until

DAY = 24 * 3600.0
NOW = datetime(2026, 3, 1, tzinfo=UTC)
BOTH_WAYS = pytest.mark.parametrize("step", [DAY, -DAY])
_real = time.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the clock forward by so many seconds."""

    def set_forward(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: _real() + seconds)

    return set_forward


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with closing(EventLog(tmp_path / "log.sqlite", "one")) as opened:
        yield opened


def waiting(log: EventLog, seconds: float) -> Delivery:
    """A delivery that is tried again after so long."""
    event = Event("e", "task.completed", "task:1", NOW)
    log.keep(Changes(events=[event]), lambda _: [("rule", {"do": "x"})])
    [delivery] = log.deliveries()
    log.not_delivered([(delivery, seconds)], "no")
    return delivery


@BOTH_WAYS
def test_a_delivery_is_tried_again_after_as_long_as_it_was_to_wait(
    log: EventLog, clock: Any, step: float
) -> None:
    waiting(log, 4)
    clock(step)
    assert log.due() is None
    until(log.due)


@BOTH_WAYS
def test_what_was_put_off_stays_so_for_as_long(log: EventLog, clock: Any, step: float) -> None:
    delivery = waiting(log, 0)
    log.put_off(delivery, 4)
    clock(step)
    assert log.due() is None
    until(log.due)


def test_a_clock_that_was_set_back_while_nothing_ran_delays_by_the_longest_pause_at_most(
    tmp_path: Path, clock: Any
) -> None:
    path = tmp_path / "log.sqlite"
    clock(1000 * DAY)
    with closing(EventLog(path, "one")) as log:
        waiting(log, 60)
    clock(0)
    with closing(EventLog(path, "one")) as log:
        assert log.due() is None
        with log.file.read() as db:
            [(due,)] = db.execute("SELECT due FROM delivery").fetchall()
    assert due <= time.time() + LONGEST_REDELIVERY_SECONDS


@BOTH_WAYS
def test_a_question_expires_after_as_long_as_it_was_to_wait(tmp_path: Path, clock: Any, step: float) -> None:
    line = MemoryLine(tmp_path)
    asks = Asks(line.log)
    asks.put(Question(key="k", data={"image": "k.png"}, seconds=60))
    clock(step)
    assert asks.settle(line.tool, lambda _: (), 0) == []
    assert asks.seconds_left() == pytest.approx(60, abs=20)
    assert asks.put(Question(key="l", data={"image": "l.png"}, seconds=0.1))
    time.sleep(0.2)
    assert [one.question.key for one in asks.settle(line.tool, lambda _: (), 0)] == ["l"]


def test_a_question_does_not_wait_for_a_clock_that_was_set_back_while_nothing_ran(
    tmp_path: Path, clock: Any
) -> None:
    line = MemoryLine(tmp_path)
    clock(1000 * DAY)
    Asks(line.log).put(Question(key="k", data={"image": "k.png"}, seconds=60))
    clock(0)
    assert Asks(line.log).seconds_left() <= 60


@BOTH_WAYS
def test_a_clock_that_is_set_during_a_pull_ends_no_question(
    tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    with live_on(MemoryLine(tmp_path / "people").tool, tmp_path) as live:
        asked, _ = live.asks.put(Question(key="k", data={"image": "k.png"}, seconds=60))
        changed = live.tool.changed_tasks

        def set_meanwhile(*words: Any, **more: Any) -> Any:
            clock(step)
            return changed(*words, **more)

        monkeypatch.setattr(live.tool, "changed_tasks", set_meanwhile)
        live.round()
        found = live.asks.get(asked.id)
    assert found
    assert found.state in ("asked", "open")


def test_a_clock_that_is_set_back_turns_no_request_away(clock: Any) -> None:
    answered: list[int] = []

    async def answer(*_: Any) -> None:
        answered.append(202)

    async def note(message: Any) -> None:
        if message["type"] == "http.response.start":
            answered.append(message["status"])

    limited = OfOneAddress(answer, 2)
    scope = {"type": "http", "client": ("192.0.2.1", 1)}

    def ask() -> int:
        asyncio.run(limited(scope, answer, note))
        return answered.pop()

    assert [ask() for _ in range(3)][:2] == [202, 202]
    clock(-DAY)
    for _ in range(4):
        time.sleep(0.6)
        assert ask() == 202


@BOTH_WAYS
def test_a_token_is_renewed_after_as_long_as_it_is_good_for(
    clock: Any, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    renewed = list[int]()
    server = Server("http://127.0.0.1:9", "a.b.c")

    def post(*_: Any, **__: Any) -> Any:
        renewed.append(1)
        return type("Answer", (), {"status_code": 200, "text": "", "json": lambda _: {"access": "x"}})()

    monkeypatch.setattr(label_studio_server.requests, "post", post)
    server._authorization()
    clock(step)
    server._authorization()
    assert len(renewed) == 1
    later = retry.elapsed() + 201
    monkeypatch.setattr(label_studio_server, "elapsed", lambda: later)
    server._authorization()
    assert len(renewed) == 2


def test_a_step_that_could_not_be_followed_is_followed_the_next_time(clock: Any) -> None:
    moved, failing = list[float](), True

    def move(seconds: float) -> None:
        if failing:
            raise OSError
        moved.append(seconds)

    watched = Clock(move)
    clock(DAY)
    with pytest.raises(OSError):
        watched.now()
    failing = False
    assert watched.now() == pytest.approx(_real() + DAY, abs=1)
    watched.now()
    clock(0)
    watched.now()
    assert moved == pytest.approx([DAY, -DAY], abs=1)


def test_a_line_goes_on_when_the_clock_is_set_while_nothing_can_be_written(
    tmp_path: Path, clock: Any
) -> None:
    with live_on(MemoryLine(tmp_path / "people").tool, tmp_path) as live:
        live.asks.put(Question(key="k", data={"image": "k.png"}, seconds=60))
        with live.log.file.read() as db:
            db.execute("PRAGMA query_only = ON")
        clock(DAY)
        live.pause(0.01)
        with live.log.file.read() as db:
            db.execute("PRAGMA query_only = OFF")
        assert live.asks.seconds_left() == pytest.approx(60, abs=20)


def test_what_was_noted_while_the_clock_was_ahead_is_pruned_no_later(log: EventLog, clock: Any) -> None:
    def note(*names: str) -> None:
        log.keep(
            Changes(events=[Event(name, "ask.answered", f"ask:{name}", NOW) for name in names]), no_rules
        )

    clock(400 * DAY)
    note(*(f"{number}" for number in range(PRUNED_AT_ONCE)))
    clock(0)
    note("later")
    assert log.prune(time.time() + DAY) == PRUNED_AT_ONCE + 1


def no_rules(_: Event) -> tuple[()]:
    return ()


SKEWED = (
    b"<Error><Code>RequestTimeTooSkewed</Code><Message>The difference "
    b"between the request time and the current time is too large.</Message></Error>"
)


@pytest.fixture
def strict() -> Iterator[dict[str, str]]:
    """A bucket that refuses the time of every request, in the words of S3."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(403)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(SKEWED)))
            self.end_headers()
            self.wfile.write(SKEWED)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield {
            "endpoint": f"http://127.0.0.1:{server.server_port}",
            "region": "us-east-1",
            "access_key_id": "a",
            "secret_access_key": "b",
        }
        server.shutdown()
        thread.join()


def test_a_bucket_that_refuses_the_time_of_our_requests_is_waited_for(strict: dict[str, str]) -> None:
    for read in (
        lambda: Store("s3://bucket/labels", options=strict).current("task"),
        lambda: list(Objects("s3://bucket/raw", strict).list()),
        lambda: Objects("s3://bucket/raw", strict).read("a"),
    ):
        with pytest.raises(Temporary, match="RequestTimeTooSkewed") as caught:
            read()
        assert "clock" in caught.value.hint
