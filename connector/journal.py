"""The journal of corrections: what was sent, and what stood there before. A SQLite file, written through."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import TypeAdapter

from connector.model import Annotation
from connector.sqlite import told

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (run TEXT PRIMARY KEY, project TEXT NOT NULL, at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS entry (
    run TEXT NOT NULL REFERENCES run, number INTEGER NOT NULL, action TEXT NOT NULL, state TEXT NOT NULL,
    before TEXT NOT NULL, after TEXT NOT NULL, why TEXT NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (run, number)
);
"""

_BEFORE = TypeAdapter(list[Annotation])


class State(StrEnum):
    """How far a correction has come. `sent` may or may not have arrived."""

    SENT = "sent"
    WRITTEN = "written"
    CONFLICT = "conflict"
    UNDOING = "undoing"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class Entry:
    """One correction of a run: what stood there before, and what we wrote or meant to write."""

    number: int
    action: str
    state: State
    before: Sequence[Annotation]
    after: Annotation
    why: str
    at: datetime


class Journal:
    """Every correction ever sent from one folder. One process at a time has it open.

    Args:
        path: the file; it is made with the first run.
        scratch: work on a copy in memory and leave the file as it is, for a dry run.
    """

    def __init__(self, path: Path, scratch: bool = False) -> None:
        self.path = path
        with self._ours():
            self._db = sqlite3.connect(":memory:" if scratch else path, isolation_level=None, timeout=1)
            if scratch and path.is_file():
                with sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=1) as kept:
                    kept.backup(self._db)
                kept.close()
            # Exclusive: the lock of the first write is kept, so a second run at the same time is refused;
            # the system lets go of it when we die.
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)

    def _ours(self) -> AbstractContextManager[None]:
        return told(self.path, "journal")

    def close(self) -> None:
        """Let others in."""
        self._db.close()

    def open_run(self, run: str, project: str, at: datetime) -> None:
        """Begin a run, or go on with it."""
        with self._ours():
            self._db.execute("INSERT OR IGNORE INTO run VALUES (?, ?, ?)", (run, project, at.isoformat()))

    def intend(
        self,
        run: str,
        number: int,
        action: str,
        before: Sequence[Annotation],
        after: Annotation,
        at: datetime,
    ) -> None:
        """Note what is about to be sent. It is on the disk when this returns."""
        self._put(run, number, action, State.SENT, before, after, "", at)

    def conflict(self, run: str, number: int, action: str, after: Annotation, why: str, at: datetime) -> None:
        """Note that a correction was left out, and why."""
        self._put(run, number, action, State.CONFLICT, [], after, why, at)

    def settle(self, run: str, number: int, state: State, after: Annotation, at: datetime) -> None:
        """Note how far a correction has come, and what the tool holds now."""
        with self._ours():
            self._db.execute(
                "UPDATE entry SET state = ?, after = ?, at = ? WHERE run = ? AND number = ?",
                (state, after.model_dump_json(), at.isoformat(), run, number),
            )

    def _put(
        self,
        run: str,
        number: int,
        action: str,
        state: State,
        before: Sequence[Annotation],
        after: Annotation,
        why: str,
        at: datetime,
    ) -> None:
        kept = _BEFORE.dump_json(list(before)).decode()
        row = (run, number, action, state, kept, after.model_dump_json(), why, at.isoformat())
        with self._ours():
            self._db.execute("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def entries(self, run: str) -> list[Entry]:
        """The corrections of a run, in the plan's order."""
        with self._ours():
            rows = self._db.execute(
                "SELECT number, action, state, before, after, why, at FROM entry "
                "WHERE run = ? ORDER BY number",
                (run,),
            ).fetchall()
        return [
            Entry(
                number,
                action,
                State(state),
                _BEFORE.validate_json(before),
                Annotation.model_validate_json(after),
                why,
                datetime.fromisoformat(at),
            )
            for number, action, state, before, after, why, at in rows
        ]

    def runs(self) -> list[tuple[str, str, datetime, dict[str, int]]]:
        """Every run, the newest last: its name, its project, when it began, and corrections by state."""
        with self._ours():
            runs = self._db.execute("SELECT run, project, at FROM run ORDER BY at, run").fetchall()
            counts = self._db.execute("SELECT run, state, count(*) FROM entry GROUP BY run, state").fetchall()
        return [
            (run, project, datetime.fromisoformat(at), {s: n for r, s, n in counts if r == run})
            for run, project, at in runs
        ]

    def project(self, run: str) -> str | None:
        """Which project a run was of."""
        with self._ours():
            row = self._db.execute("SELECT project FROM run WHERE run = ?", (run,)).fetchone()
        return str(row[0]) if row else None
