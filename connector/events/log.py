"""Task events, and what is to be done about them: on the disk, each once.

A SQLite file beside the configuration. The events that one pull brought, the deliveries that rules make of
them, and how far the store was followed are one transaction: a crash neither loses nor repeats an event. A
delivery is tried until it goes well or is given up; then it is a dead letter, which a person lists and sends
again.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from connector.io.retry import LONGEST_REDELIVERY_SECONDS, Clock
from connector.io.sqlite import Database
from connector.model import digest, dump_json

_SCHEMA = """
CREATE TABLE IF NOT EXISTS event (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    subject TEXT NOT NULL,
    at TEXT NOT NULL,
    data TEXT NOT NULL,
    noted REAL NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS pruned (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS event_subject ON event (source, subject, type);
CREATE TABLE IF NOT EXISTS delivery (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,
    event TEXT NOT NULL REFERENCES event (id),
    subject TEXT NOT NULL,
    rule TEXT NOT NULL,
    action TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    due REAL NOT NULL,
    error TEXT,
    target TEXT NOT NULL DEFAULT '',
    UNIQUE (event, rule)
);
CREATE INDEX IF NOT EXISTS delivery_state ON delivery (source, state, rule, subject, number);
CREATE INDEX IF NOT EXISTS delivery_due ON delivery (source, state, due, number);
CREATE TABLE IF NOT EXISTS standing (
    source TEXT NOT NULL,
    task TEXT NOT NULL,
    batch TEXT NOT NULL,
    times INTEGER NOT NULL,
    complete INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    PRIMARY KEY (source, task)
);
CREATE INDEX IF NOT EXISTS standing_batch ON standing (source, batch, complete);
CREATE TABLE IF NOT EXISTS failing (
    source TEXT NOT NULL, subject TEXT NOT NULL, times INTEGER NOT NULL, now INTEGER NOT NULL,
    PRIMARY KEY (source, subject)
);
CREATE TABLE IF NOT EXISTS listed (
    source TEXT NOT NULL, queue TEXT NOT NULL, task TEXT NOT NULL, PRIMARY KEY (source, queue, task)
);
CREATE TABLE IF NOT EXISTS followed (source TEXT PRIMARY KEY, pull INTEGER NOT NULL);
"""

_PRUNABLE = """
SELECT number, id, subject FROM event e WHERE source = ? AND number BETWEEN ? AND ? AND noted < ?
AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.event = e.id AND d.state = 'waiting')
AND (
    subject LIKE 'ask:%'
    OR EXISTS (
        SELECT 1 FROM event n
        WHERE n.source = e.source AND n.subject = e.subject AND n.type = e.type AND n.number > e.number
    )
    OR subject LIKE 'task:%' AND NOT EXISTS (
        SELECT 1 FROM standing s WHERE s.source = e.source AND s.task = substr(e.subject, 6)
    )
)
"""

PRUNED_AT_ONCE = 500
"""So many events are looked at in one commit: whoever writes meanwhile waits for no more than that."""

_RECENT = 1000
"""So many events are asked for the time."""

WAITING, DONE, DEAD = STATES = ("waiting", "done", "dead")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, which the tool does not tell.

    Attributes:
        id: the same for the same event, whoever finds it and however often.
        subject: whom or what it is about: `task:12`, `annotator:ann@example.com/animal`, `batch:week 7`.
        data: what a receiver wants to know of it.
    """

    id: str
    type: str
    subject: str
    at: datetime
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it is sent."""
        return {
            "id": self.id,
            "type": self.type,
            "subject": self.subject,
            "timestamp": self.at.isoformat(),
            "data": dict(self.data),
        }


def event_id(type: str, *what: Any) -> str:
    """The id of an event: of its type, and of what it was made of."""
    return f"evt_{digest([type, *what])}"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a task stands.

    Attributes:
        times: how often it was completed.
        complete: as many people as asked for have answered.
        failed: they do not agree.
    """

    task: str
    batch: str
    times: int
    complete: bool
    failed: bool


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a rule makes of an event, on its way.

    Attributes:
        action: the rule's, as it was when the event came.
        target: where it goes; see `target_of`.
    """

    number: int
    event: Event
    rule: str
    action: Mapping[str, Any]
    state: str
    attempts: int
    error: str | None
    target: str


def _bring_up_to_date(db: sqlite3.Connection) -> None:
    """Add the columns that a file of an older version lacks."""

    def lacks(table: str, column: str) -> bool:
        return column not in {row[1] for row in db.execute(f"PRAGMA table_info({table})")}

    if lacks("event", "noted"):
        # The times at which they were noted are unknown; they are kept for a while from now on.
        db.execute("ALTER TABLE event ADD COLUMN noted REAL NOT NULL DEFAULT 0")
        db.execute("UPDATE event SET noted = ?", (time.time(),))
    if lacks("delivery", "target"):
        db.execute("ALTER TABLE delivery ADD COLUMN target TEXT NOT NULL DEFAULT ''")
        rows = db.execute("SELECT number, action FROM delivery").fetchall()
        targets = [(target_of(json.loads(action)), number) for number, action in rows]
        db.executemany("UPDATE delivery SET target = ? WHERE number = ?", targets)


def target_of(action: Mapping[str, Any]) -> str:
    """Where an action goes: to a host and port, a command, the labeling tool. What goes to the same target is
    carried out one by one.
    """
    do = action["do"]
    if do == "call":
        place = str(action["url"]).partition("://")[2]
        return "call " + re.split(r"[/?#]", place, maxsplit=1)[0].rpartition("@")[2].lower()
    if do == "slack":
        return f"slack {action['url_from']}"
    if do == "run":
        return f"run {dump_json(action['command'])}"
    return "export" if do == "export" else "the labeling tool"


@dataclass
class Changes:
    """What is kept together: see `EventLog.keep`.

    Attributes:
        pulls: of events, the pull that brought what they tell; what is not named is of now.
        gone: tasks that are not there any more.
        failing: of an annotator and a control, how often it began to fail, and whether it does now.
    """

    events: list[Event] = field(default_factory=list)
    pulls: dict[str, int] = field(default_factory=dict)
    standing: list[Standing] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    failing: dict[str, tuple[int, bool]] = field(default_factory=dict)


Planned = Callable[[Event], Iterable[tuple[str, Mapping[str, Any]]]]
"""What is to be done about an event: the names of rules, and their actions."""


class EventLog:
    """The events of one project, and their deliveries.

    Args:
        path: the file; it is made when it is not there.
        source: which project of which tool.
    """

    def __init__(self, path: Path, source: str) -> None:
        self.file = Database(path, "list of events", _SCHEMA)
        self.source = source
        self._now = Clock(self._move).now
        with self.file.write() as db:
            _bring_up_to_date(db)
            # The clock may have been set back since the last run.
            latest = time.time() + LONGEST_REDELIVERY_SECONDS
            db.execute("UPDATE delivery SET due = ? WHERE state = ? AND due > ?", (latest, WAITING, latest))

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()

    def _move(self, seconds: float) -> None:
        """The clock was set: what waits is due after as long as before."""
        with self.file.write() as db:
            move = "UPDATE delivery SET due = due + ? WHERE source = ? AND state = ?"
            db.execute(move, (seconds, self.source, WAITING))
            # `prune` stops at events that are all new. None was noted later than now.
            now = time.time()
            db.execute("UPDATE event SET noted = ? WHERE source = ? AND noted > ?", (now, self.source, now))

    def followed(self) -> int | None:
        """Up to which pull the store was followed; None before the first time."""
        with self.file.read() as db:
            row = db.execute("SELECT pull FROM followed WHERE source = ?", (self.source,)).fetchone()
        return int(row[0]) if row else None

    def keep(self, changes: Changes, planned: Planned, pull: int | None = None) -> list[Event]:
        """Keep what happened, and what is to be done about it, in one transaction.

        Args:
            planned: asked for each event that is new.
            pull: up to which pull the store was followed with this.

        Returns:
            The events that were not known yet.
        """
        new, source, now = [], self.source, self._now()
        with self.file.write() as db:
            for event in changes.events:
                row = (
                    source,
                    event.id,
                    event.type,
                    event.subject,
                    event.at.isoformat(),
                    dump_json(event.data),
                    max(now, event.at.timestamp()),
                    event.id,
                )
                into = "INSERT OR IGNORE INTO event (source, id, type, subject, at, data, noted)"
                new_ones = "SELECT ?, ?, ?, ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM pruned WHERE id = ?)"
                if not db.execute(f"{into} {new_ones}", row).rowcount:
                    continue
                new.append(event)
                deliveries = [
                    (
                        source,
                        event.id,
                        event.subject,
                        rule,
                        dump_json(action),
                        WAITING,
                        0,
                        now,
                        target_of(action),
                    )
                    for rule, action in planned(event)
                ]
                columns = "source, event, subject, rule, action, state, attempts, due, target"
                into = f"INSERT INTO delivery ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
                db.executemany(into, deliveries)
            db.executemany(
                "INSERT OR REPLACE INTO standing VALUES (?, ?, ?, ?, ?, ?)",
                [(source, s.task, s.batch, s.times, s.complete, s.failed) for s in changes.standing],
            )
            gone = [(source, task) for task in changes.gone]
            db.executemany("DELETE FROM standing WHERE source = ? AND task = ?", gone)
            failing = [(source, who, *state) for who, state in changes.failing.items()]
            db.executemany("INSERT OR REPLACE INTO failing VALUES (?, ?, ?, ?)", failing)
            if pull is not None:
                db.execute("INSERT OR REPLACE INTO followed VALUES (?, ?)", (source, pull))
        return new

    # retention

    def outdated(self, days: float) -> float:
        """The time, in seconds since the epoch, before which things are older than so many days.

        Counted from the newest events of the labeling tool, or from now where that is earlier: a clock of
        ours that is ahead makes nothing old.
        """
        ask = "SELECT at FROM event WHERE source = ? AND subject LIKE 'task:%' ORDER BY number DESC LIMIT ?"
        with self.file.read() as db:
            rows = db.execute(ask, (self.source, _RECENT)).fetchall()
        newest = max((datetime.fromisoformat(at).timestamp() for (at,) in rows), default=0.0)
        return min(newest, time.time()) - days * 24 * 3600

    def prune(self, before: float) -> int:
        """Delete what was noted before a time, with its deliveries; returns how many events.

        What waits to be delivered stays. So does the newest event of each type about anything that is still
        there: by it a question is answered, and a rule's `after` looks back. Of all others that may be found
        again the id is kept, so that nothing happens twice.
        """
        pruned, last = 0, 0
        ask = "SELECT number, noted FROM event WHERE source = ? AND number > ? ORDER BY number LIMIT ?"
        while True:
            with self.file.write() as db:
                seen = db.execute(ask, (self.source, last, PRUNED_AT_ONCE)).fetchall()
                # Numbers grow with time: behind events that are all new there are no old ones.
                if not any(noted < before for _, noted in seen):
                    return pruned
                first, last = seen[0][0], seen[-1][0]
                old = db.execute(_PRUNABLE, (self.source, first, last, before)).fetchall()
                again = [(id,) for _, id, subject in old if not subject.startswith("ask:")]
                db.executemany("INSERT OR IGNORE INTO pruned VALUES (?)", again)
                db.executemany("DELETE FROM delivery WHERE event = ?", [(id,) for _, id, _ in old])
                db.executemany("DELETE FROM event WHERE number = ?", [(number,) for number, *_ in old])
                pruned += len(old)

    # how things stand

    def standing(self, batch: str) -> list[Standing]:
        """The tasks of a batch, in the order of their names."""
        ask = "SELECT task, batch, times, complete, failed FROM standing WHERE source = ? AND batch = ?"
        with self.file.read() as db:
            rows = db.execute(f"{ask} ORDER BY task", (self.source, batch)).fetchall()
        return [Standing(task, name, times, bool(done), bool(bad)) for task, name, times, done, bad in rows]

    def tasks(self) -> set[str]:
        """The tasks that stand here."""
        with self.file.read() as db:
            ask = "SELECT task FROM standing WHERE source = ?"
            return {task for (task,) in db.execute(ask, (self.source,)).fetchall()}

    def batches_of(self, tasks: Sequence[str]) -> set[str]:
        """The batches that these tasks stood in."""
        ask = "SELECT batch FROM standing WHERE source = ? AND task = ?"
        with self.file.read() as db:
            rows = [db.execute(ask, (self.source, task)).fetchone() for task in tasks]
        return {row[0] for row in rows if row}

    def incomplete(self, batch: str, most: int) -> list[str]:
        """Some tasks of a batch that are not completed."""
        ask = "SELECT task FROM standing WHERE source = ? AND batch = ? AND NOT complete LIMIT ?"
        with self.file.read() as db:
            return [task for (task,) in db.execute(ask, (self.source, batch, most)).fetchall()]

    def failing(self) -> dict[str, tuple[int, bool]]:
        """Of each annotator and control that ever failed: how often it began, and whether it does now."""
        ask = "SELECT subject, times, now FROM failing WHERE source = ?"
        with self.file.read() as db:
            rows = db.execute(ask, (self.source,)).fetchall()
        return {subject: (times, bool(now)) for subject, times, now in rows}

    def events(self, type: str | None = None, subject: str | None = None, most: int = -1) -> list[Event]:
        """The last events, in their order.

        Args:
            most: how many at most; by default all.
        """
        where = [("source", self.source), ("type", type), ("subject", subject)]
        asked = [(name, value) for name, value in where if value is not None]
        matches = " AND ".join(f"{name} = ?" for name, _ in asked)
        ask = f"SELECT id, type, subject, at, data FROM event WHERE {matches} ORDER BY number DESC LIMIT ?"
        with self.file.read() as db:
            rows = db.execute(ask, (*(value for _, value in asked), most)).fetchall()
        return [_event(row) for row in reversed(rows)]

    # deliveries

    def due(self, busy: Collection[str] = ()) -> Delivery | None:
        """The next delivery to try: none of the same rule about the same subject is overtaken.

        Args:
            busy: targets to which nothing more goes for now.
        """
        others = f"AND d.target NOT IN ({', '.join('?' * len(busy))})" if busy else ""
        return next(iter(self._due(f"{others} ORDER BY d.due, d.number LIMIT 1", *busy)), None)

    def due_with(self, first: Delivery) -> list[Delivery]:
        """All deliveries that may be tried now and have the same action; the first is among them."""
        return self._due("AND d.action = ? ORDER BY d.due, d.number", dump_json(first.action))

    def _due(self, which: str, *parameters: object) -> list[Delivery]:
        earlier = (
            "SELECT 1 FROM delivery e WHERE e.source = d.source AND e.state = 'waiting' AND e.rule = d.rule "
            "AND e.subject = d.subject AND e.number < d.number"
        )
        ready = f"d.state = 'waiting' AND d.due <= ? AND NOT EXISTS ({earlier}) {which}"
        return self._deliveries(ready, self._now(), *parameters)

    def deliveries(self, state: str | None = None, most: int = -1) -> list[Delivery]:
        """The last deliveries, the newest first.

        Args:
            state: `waiting`, `done` or `dead`; by default all.
        """
        return self._deliveries("d.state LIKE ? ORDER BY d.number DESC LIMIT ?", state or "%", most)

    def count(self, state: str) -> int:
        """How many deliveries are in a state."""
        with self.file.read() as db:
            ask = "SELECT count(*) FROM delivery WHERE source = ? AND state = ?"
            return int(db.execute(ask, (self.source, state)).fetchone()[0])

    def _deliveries(self, which: str, *parameters: object) -> list[Delivery]:
        ask = (
            "SELECT d.number, d.rule, d.action, d.state, d.attempts, d.error, d.target, e.id, e.type, "
            "e.subject, e.at, e.data FROM delivery d JOIN event e ON e.id = d.event "
            f"WHERE d.source = ? AND {which}"
        )
        with self.file.read() as db:
            rows = db.execute(ask, (self.source, *parameters)).fetchall()
        return [
            Delivery(number, _event(event), rule, json.loads(action), state, attempts, error, target)
            for number, rule, action, state, attempts, error, target, *event in rows
        ]

    def delivered(self, deliveries: Sequence[Delivery]) -> None:
        """Note that they went well."""
        with self.file.write() as db:
            db.executemany(
                "UPDATE delivery SET state = ?, attempts = attempts + 1, error = NULL WHERE number = ?",
                [(DONE, one.number) for one in deliveries],
            )

    def not_delivered(self, tried: Sequence[tuple[Delivery, float | None]], error: str) -> None:
        """Note that they failed.

        Args:
            tried: each with the seconds until it is tried again; None makes it a dead letter.
        """
        now = self._now()
        rows = [
            (DEAD if again is None else WAITING, error, now + (again or 0), one.number)
            for one, again in tried
        ]
        with self.file.write() as db:
            db.executemany(
                "UPDATE delivery SET state = ?, attempts = attempts + 1, error = ?, due = ? WHERE number = ?",
                rows,
            )

    def put_off(self, delivery: Delivery, seconds: float, whole_target: bool = False) -> None:
        """Try nothing with the action of a delivery for so many seconds, or nothing with its target."""
        which, value = ("target", delivery.target) if whole_target else ("action", dump_json(delivery.action))
        until = self._now() + seconds
        with self.file.write() as db:
            db.execute(
                f"UPDATE delivery SET due = max(due, ?) WHERE source = ? AND state = ? AND {which} = ?",
                (until, self.source, WAITING, value),
            )

    def resend(self, numbers: Sequence[int] | None = None) -> int:
        """Let dead letters be tried again; returns how many.

        Args:
            numbers: which; by default all.
        """
        dead = {one.number for one in self.deliveries(DEAD)}
        chosen, now = dead if numbers is None else dead & set(numbers), self._now()
        with self.file.write() as db:
            again = "UPDATE delivery SET state = ?, attempts = 0, due = ? WHERE number = ?"
            db.executemany(again, [(WAITING, now, number) for number in sorted(chosen)])
        return len(chosen)

    def listed(self, queue: str, tasks: Sequence[str]) -> list[str]:
        """Add tasks to a list in the tool; returns all that rules put there."""
        with self.file.write() as db:
            rows = [(self.source, queue, task) for task in tasks]
            db.executemany("INSERT OR IGNORE INTO listed VALUES (?, ?, ?)", rows)
            ask = "SELECT task FROM listed WHERE source = ? AND queue = ? ORDER BY rowid"
            return [task for (task,) in db.execute(ask, (self.source, queue)).fetchall()]

    def last(self) -> int:
        """The number of the last event; 0 where there is none. Later events have higher numbers."""
        with self.file.read() as db:
            ask = "SELECT coalesce(max(number), 0) FROM event WHERE source = ?"
            return int(db.execute(ask, (self.source,)).fetchone()[0])

    def numbered(self, subject: str) -> list[tuple[int, Event]]:
        """The events about a subject, in their order, each with its number."""
        ask = "SELECT number, id, type, subject, at, data FROM event WHERE source = ? AND subject = ?"
        with self.file.read() as db:
            rows = db.execute(f"{ask} ORDER BY number", (self.source, subject)).fetchall()
        return [(number, _event(row)) for number, *row in rows]


def _event(row: Sequence[Any]) -> Event:
    id, type, subject, at, data = row
    return Event(id, type, subject, datetime.fromisoformat(at), json.loads(data))
