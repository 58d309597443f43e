"""Events as they came in, on the disk before they are acknowledged. A SQLite file beside the configuration.

An event that waits here says only that the tool knocked: what changed is for a pull to read. Its body is not
kept, since Label Studio's events carry a token of the project. All that came while the disk was busy is
written in the next commit together, so that many senders wait for few of them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from connector.adapters.base import WakeUp
from connector.database import Database
from connector.errors import ConnectorError, Temporary

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

# The same event anew gets a new number: should a pull be under way, another one follows.
_INSERT = "INSERT OR REPLACE INTO knock (source, id, action, at) VALUES (?, ?, ?, ?)"

DELETED_AT_ONCE = 2000
"""So many leave the inbox in one commit: whoever knocks meanwhile waits for no more than that."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An event that is not on the disk yet, and whoever waits until it is."""

    row: tuple[str, str, str, str]
    kept: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop


class Inbox:
    """The events of one project that no pull has followed yet.

    Args:
        path: the file; it is made when it is not there.
        source: which project of which tool.
        at_once: how many events one commit may take; 1 is a commit for each.
        durable: whether a commit waits for the disk. Off only to measure what that costs.
    """

    def __init__(self, path: Path, source: str, at_once: int = 1000, durable: bool = True) -> None:
        self._source, self._at_once = source, at_once
        self._file = Database(path, _SCHEMA, durable)
        self._came: list[_Waiting] = []
        self._more = threading.Condition()
        self._closed = False
        self._writer = threading.Thread(target=self._write, name="inbox", daemon=True)
        self._writer.start()

    def close(self) -> None:
        """Write what waits, and let go of the file."""
        with self._more:
            self._closed = True
            self._more.notify()
        self._writer.join()
        self._file.close()

    async def put(self, event: WakeUp) -> None:
        """Keep an event; it is on the disk when this returns. The same event twice is one.

        Raises:
            Temporary: if the disk does not take it now.
        """
        loop = asyncio.get_running_loop()
        row = (self._source, event.id, event.action, datetime.now(UTC).isoformat())
        waiting = _Waiting(row, loop.create_future(), loop)
        with self._more:
            if self._closed:
                raise Temporary("the receiver is closing")
            self._came.append(waiting)
            self._more.notify()
        await waiting.kept

    def _write(self) -> None:
        while True:
            with self._more:
                self._more.wait_for(lambda: self._came or self._closed)
                batch, self._came = self._came[: self._at_once], self._came[self._at_once :]
            if not batch:
                return
            error: ConnectorError | None = None
            try:
                with self._file.write() as db:
                    db.executemany(_INSERT, [one.row for one in batch])
            except ConnectorError as failed:
                error = failed
            for loop in {one.loop for one in batch}:
                with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(_tell, [one for one in batch if one.loop is loop], error)

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


def _tell(batch: Sequence[_Waiting], error: ConnectorError | None) -> None:
    for one in batch:
        if one.kept.done():
            continue  # whoever waited has left
        if error:
            one.kept.set_exception(error)
        else:
            one.kept.set_result(None)
