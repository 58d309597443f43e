"""Events as they came in, on the disk before they are acknowledged. A SQLite file beside the configuration.

An event that waits here says only that the tool knocked: what changed is for a pull to read. Its body is not
kept, since Label Studio's events carry a token of the project. All that came while the disk was busy is
written in the next commit together, so that many senders wait for few of them. Commits have a thread of their
own: the event loop goes on answering, and takes the next events, while the disk works.
"""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from connector.adapters.base import WakeUp
from connector.errors import ConnectorError
from connector.io.sqlite import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS knock (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    action TEXT NOT NULL,
    at TEXT NOT NULL,
    UNIQUE (source, id)
);
"""

# The same event anew gets a new number: should a pull be under way, another one follows. A batch is a single
# statement and so a transaction. SQLite executes all of it, the wait for the disk included, without the
# interpreter's lock; with a statement for each row, the two threads would wait for each other at every row.
_INSERT = """
INSERT OR REPLACE INTO knock (source, id, action, at)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
    json_extract(value, '$[3]')
FROM json_each(?)
"""

DELETED_AT_ONCE = 500
"""So many leave the inbox in one commit: whoever knocks meanwhile waits for no more than that."""

BUSY_SECONDS = 0.1
"""How long to wait for another process that writes. Whoever else sends an event waits meanwhile, too."""

CHECKED_SECONDS = 1.0
"""How long it is believed that events can be kept, or cannot: anyone may ask, and the disk is slow."""

_Row = tuple[str, str, str, str]


class Inbox:
    """The events of one project that no pull has followed yet.

    Args:
        path: the file; it is made when it is not there.
        source: which project of which tool.
        at_once: how many events one commit may take; 1 is a commit for each.
    """

    def __init__(self, path: Path, source: str, at_once: int = 1000) -> None:
        self._source, self._at_once = source, at_once
        self._file = Database(path, "inbox", _SCHEMA, BUSY_SECONDS)
        self._came: list[tuple[_Row, asyncio.Future[None]]] = []
        self._committing: asyncio.Task[None] | None = None
        self._disk = ThreadPoolExecutor(1, "inbox")
        self._checked = -CHECKED_SECONDS
        self._trouble: str | None = None

    def close(self) -> None:
        """Let go of the file."""
        self._disk.shutdown()
        self._file.close()

    async def put(self, event: WakeUp) -> None:
        """Keep an event; it is on the disk when this returns. The same event twice is one.

        Raises:
            Temporary: if the disk does not take it now.
        """
        await self._write((self._source, event.id, event.action, _now()))

    async def trouble(self) -> str | None:
        """Why no event can be kept now; None if one can. It is tried, with an event of no project."""
        if time.monotonic() - self._checked >= CHECKED_SECONDS:
            try:
                await self._write(("", "check", "", _now()))
                self._trouble = None
            except ConnectorError as error:
                self._trouble = error.what
            self._checked = time.monotonic()
        return self._trouble

    async def _write(self, row: _Row) -> None:
        kept = asyncio.get_running_loop().create_future()
        self._came.append((row, kept))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit())
        await kept

    async def _commit(self) -> None:
        """Write all that came, batch by batch; what comes while the disk works is the next batch."""
        loop = asyncio.get_running_loop()
        while self._came:
            batch, self._came = self._came[: self._at_once], self._came[self._at_once :]
            error: Exception | None = None
            try:
                await loop.run_in_executor(self._disk, self._insert, json.dumps([row for row, _ in batch]))
            except Exception as failed:
                error = failed
            for _, kept in batch:
                if kept.done():
                    continue  # whoever waited has left
                if error:
                    kept.set_exception(error)
                else:
                    kept.set_result(None)

    def _insert(self, rows: str) -> None:
        with self._file.read() as db:
            db.execute(_INSERT, (rows,))

    def last(self) -> int:
        """The number of the event that came last, for `followed` after a pull; 0 when none waits."""
        with self._file.read() as db:
            ask = "SELECT coalesce(max(number), 0) FROM knock WHERE source = ?"
            return int(db.execute(ask, (self._source,)).fetchone()[0])

    def waiting(self) -> int:
        """How many events no pull has followed yet."""
        with self._file.read() as db:
            ask = "SELECT count(*) FROM knock WHERE source = ?"
            return int(db.execute(ask, (self._source,)).fetchone()[0])

    def followed(self, number: int) -> None:
        """Let go of the events up to this number: a pull that began after them has ended."""
        some = "SELECT number FROM knock WHERE source = ? AND number <= ? LIMIT ?"
        deleted = DELETED_AT_ONCE
        while deleted == DELETED_AT_ONCE:
            with self._file.write() as db:
                parameters = (self._source, number, DELETED_AT_ONCE)
                deleted = db.execute(f"DELETE FROM knock WHERE number IN ({some})", parameters).rowcount


def _now() -> str:
    return datetime.now(UTC).isoformat()
