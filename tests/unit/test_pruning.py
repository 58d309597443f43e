"""Old events, deliveries and questions are deleted, and nothing happens twice for it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from connector.events.log import PRUNED_AT_ONCE, WAITING, Changes, Delivery, Event, EventLog, Standing
from connector.serve.ask import Asks, Question
from tests.unit.memory_line import MemoryLine
from tests.unit.test_live import live_on

DAY = 24 * 3600
NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = time.time() + DAY
"""All that the tests note is older than this."""


class Acted(MemoryLine):
    """A line that remembers which events it acted on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.acted = list[str]()

    def planned(self, event: Event) -> Iterator[tuple[str, Mapping[str, Any]]]:
        self.acted.append(event.type)
        yield "rule", {"do": "queue", "queue": "q"}

    def round(self) -> None:
        self.follow(self.planned)
        self.log.delivered(self.log.deliveries(WAITING))


@pytest.fixture
def line(tmp_path: Path) -> Acted:
    return Acted(tmp_path)


def kept(log: EventLog) -> list[str]:
    return [event.type for event in log.events()]


def test_what_is_pruned_does_not_happen_again_when_its_task_changes(line: Acted) -> None:
    [task] = line.add("a")
    first, second = line.say(task, "ann", "cat"), line.say(task, "ben", "dog")
    line.round()
    first = line.change(first, "dog")  # they agree
    line.round()
    line.change(second, "cat")  # and again not
    line.round()
    happened = list(line.acted)
    assert happened.count("consensus.failed") == 2
    before = kept(line.log)
    assert line.log.prune(LATER) == 1  # the first of the two: the others are the newest of their kind
    assert sorted(kept(line.log)) == sorted([*set(before)])
    assert len(line.log.deliveries()) == len(before) - 1

    line.change(first, "cat")  # the whole life of the task is read anew
    line.round()
    assert line.acted == [*happened, "consensus.reached"]


def test_a_batch_that_was_completed_long_ago_is_not_completed_again(line: Acted) -> None:
    [task] = line.add("a")
    said = [line.say(task, who, "cat") for who in ("ann", "ben")]
    line.round()
    assert line.acted.count("batch.completed") == 1
    line.log.prune(LATER)
    line.change(said[0], "dog")
    line.round()
    assert line.acted.count("batch.completed") == 1


def test_a_store_that_goes_back_repeats_nothing_that_was_pruned(line: Acted) -> None:
    [task] = line.add("a")
    said = [line.say(task, "ann", "cat"), line.say(task, "ben", "dog")]
    line.round()
    line.change(said[0], "dog")
    line.round()
    line.change(said[1], "cat")
    line.round()
    happened = list(line.acted)
    assert line.log.prune(LATER) == 1
    with line.log.file.write() as db:
        db.execute("UPDATE followed SET pull = pull + 100")  # the store that was followed was longer
    line.round()
    assert line.acted == happened


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with closing(EventLog(tmp_path / "log.sqlite", "one")) as opened:
        yield opened


def happen(log: EventLog, id: str, subject: str = "task:gone", at: datetime = NOW) -> Delivery:
    log.keep(Changes(events=[Event(id, "task.completed", subject, at)]), lambda _: [("rule", {"do": "x"})])
    return log.deliveries()[0]


def test_what_waits_stays_and_what_is_done_or_given_up_goes(log: EventLog) -> None:
    waiting, done, dead = (happen(log, id) for id in ("waiting", "done", "dead"))
    log.delivered([done])
    log.not_delivered([(dead, None)], "no")
    assert log.prune(LATER) == 2
    assert [(one.event.id, one.state) for one in log.deliveries()] == [("waiting", WAITING)]
    log.delivered([waiting])
    assert log.prune(LATER) == 1
    assert log.events() == log.deliveries() == []
    happen(log, "next")
    assert log.last() == 4  # numbers are never used again


def test_what_is_not_old_stays(log: EventLog) -> None:
    log.delivered([happen(log, "a")])
    assert log.prune(time.time() - 60) == 0
    assert log.prune(LATER) == 1


def test_a_task_that_is_there_keeps_its_newest_event_of_each_type(log: EventLog) -> None:
    log.keep(Changes(standing=[Standing("1", "b", 1, True, False)]), lambda _: ())
    for id, subject in (("a", "task:1"), ("b", "task:1"), ("c", "task:2"), ("d", "batch:b")):
        log.delivered([happen(log, id, subject)])
    assert log.prune(LATER) == 2
    assert [event.id for event in log.events()] == ["b", "d"]


def test_many_are_pruned_in_several_commits_and_new_ones_stay(log: EventLog) -> None:
    many = [Event(f"e{n}", "task.completed", "task:gone", NOW) for n in range(2 * PRUNED_AT_ONCE + 7)]
    log.keep(Changes(events=many), lambda _: ())
    with log.file.write() as db:
        db.execute("UPDATE event SET noted = noted - ?", (10 * DAY,))
    happen(log, "new")
    assert log.prune(time.time() - DAY) == len(many)
    assert [event.id for event in log.events()] == ["new"]
    log.keep(Changes(events=many), lambda _: ())
    assert [event.id for event in log.events()] == ["new"]


def test_a_clock_that_is_ahead_makes_nothing_old(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    happen(log, "a", at=now)
    monkeypatch.setattr("time.time", lambda: now.timestamp() + 10_000 * DAY)
    assert log.outdated(90) == pytest.approx((now - timedelta(days=90)).timestamp(), abs=1)
    monkeypatch.setattr("time.time", lambda: now.timestamp() - 10 * DAY)
    assert log.outdated(90) == pytest.approx((now - timedelta(days=100)).timestamp(), abs=1)


def test_events_of_an_older_file_are_kept_for_a_while_from_now_on(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with closing(EventLog(path, "one")) as log:
        log.delivered([happen(log, "a")])
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE event DROP COLUMN noted")
        db.execute("DROP TABLE pruned")
        db.commit()
    with closing(EventLog(path, "one")) as log:
        assert log.prune(time.time() - 60) == 0
        assert log.prune(LATER) == 1


# Questions.


def answered(line: MemoryLine, asks: Asks) -> str:
    asked, _ = asks.put(Question(key="k", data={"image": "k.png"}, seconds=60))
    asks.place(line.tool, line.store, lambda _: ())
    [opened] = asks.unanswered("open")
    for who in ("ann", "ben"):
        line.say(str(opened.task), who, "cat")
    line.follow()
    assert [one.id for one in asks.settle(line.tool, lambda _: (), 0)] == [asked.id]
    return asked.id


def test_an_answer_is_the_same_until_it_is_pruned_and_is_found_again_afterwards(line: Acted) -> None:
    asks = Asks(line.log)
    id = answered(line, asks)
    first = asks.get(id)
    assert first
    before = first.expires + 1
    assert asks.prune(before) == 0  # the event that tells its end is still there
    line.log.prune(LATER)
    assert asks.prune(first.expires) == 0
    assert asks.get(id) == first
    assert asks.prune(before) == 1
    assert asks.get(id) is None

    called: list[Event] = []
    asks.put(first.question)
    asks.place(line.tool, line.store, lambda _: ())
    [again] = asks.settle(line.tool, lambda event: called.append(event) or (), 0)
    assert again.id == id
    found = asks.get(id)
    assert found
    assert found.answer == first.answer
    assert [event.type for event in called] == ["ask.answered"]


def test_a_question_that_waits_is_never_pruned(line: Acted) -> None:
    asks = Asks(line.log)
    asked, _ = asks.put(Question(key="k", data={"image": "k.png"}, seconds=1))
    assert asks.prune(LATER) == 0
    asks.place(line.tool, line.store, lambda _: ())
    assert asks.prune(LATER) == 0
    assert asks.get(asked.id)


def test_a_process_that_serves_prunes_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with live_on(MemoryLine(tmp_path / "people").tool, tmp_path) as live:
        pruned: list[float] = []
        monkeypatch.setattr(live.log, "prune", pruned.append)
        live.round()
        live.round()
        assert len(pruned) == 1
        monkeypatch.setattr("connector.serve.live.PRUNE_EVERY_SECONDS", 0.0)
        live.round()
        assert len(pruned) == 2
