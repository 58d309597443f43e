"""What a sync has begun and not ended, and how its last rounds went. A SQLite file beside the configuration.

Before a batch is sent it stands here, on the disk. Whoever finds it here after a crash knows that the tool
may still be working on it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from connector.sqlite import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batch (source TEXT NOT NULL, keys TEXT NOT NULL, at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS round (source TEXT NOT NULL, at TEXT NOT NULL, error TEXT);
"""

ROUNDS = 1000
"""So many rounds are remembered."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round of a sync: when it ended, and what went wrong, if anything did."""

    at: datetime
    error: str | None


class Ledger:
    """Batches on their way to one project, and the rounds of its sync.

    Args:
        path: the file; it is made when it is not there.
        source: which project of which tool.
    """

    def __init__(self, path: Path, source: str) -> None:
        self._source = source
        self._file = Database(path, "ledger", _SCHEMA)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def begin(self, keys: Sequence[str], at: datetime) -> int:
        """Note a batch that is about to be sent; it is on the disk when this returns. Gives its number."""
        with self._file.write() as db:
            row = (self._source, json.dumps(list(keys)), at.isoformat())
            return int(db.execute("INSERT INTO batch VALUES (?, ?, ?)", row).lastrowid or 0)

    def end(self, number: int) -> None:
        """Note that a batch is in the tool, or never will be."""
        with self._file.write() as db:
            db.execute("DELETE FROM batch WHERE rowid = ?", (number,))

    def begun(self) -> list[tuple[int, list[str], datetime]]:
        """The batches of which nobody knows what became of them: number, keys, and since when."""
        with self._file.read() as db:
            rows = db.execute("SELECT rowid, keys, at FROM batch WHERE source = ?", (self._source,))
            return [
                (number, json.loads(keys), datetime.fromisoformat(at)) for number, keys, at in rows.fetchall()
            ]

    def note(self, at: datetime, error: str | None) -> None:
        """Note how a round went."""
        with self._file.write() as db:
            db.execute("INSERT INTO round VALUES (?, ?, ?)", (self._source, at.isoformat(), error))
            oldest = "SELECT max(rowid) - ? FROM round"
            db.execute(f"DELETE FROM round WHERE rowid <= ({oldest})", (ROUNDS,))

    def rounds(self, most: int = 10) -> list[Round]:
        """The last rounds, the newest first."""
        with self._file.read() as db:
            ask = "SELECT at, error FROM round WHERE source = ? ORDER BY rowid DESC LIMIT ?"
            rows = db.execute(ask, (self._source, most)).fetchall()
        return [Round(datetime.fromisoformat(at), error) for at, error in rows]
