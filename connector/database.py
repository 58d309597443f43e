"""A SQLite file that the threads of one process share, and other processes may open. It is on the disk when a
write returns."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from connector.errors import Temporary, UsageError

BUSY_SECONDS = 10
"""How long to wait for another process that writes."""


class Database:
    """A file of our own.

    Args:
        path: the file, or `:memory:`; it is made when it is not there.
        schema: statements that do nothing where everything is there.

    Raises:
        UsageError: if there can be no such file.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS
            )
        except sqlite3.OperationalError as error:
            raise UsageError(f"{path} cannot be opened: {error}", "check its folder") from error
        self._lock = threading.RLock()
        with self.read() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.executescript(schema)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time.

        Raises:
            Temporary: if the file cannot be used now.
            UsageError: if it is damaged.
        """
        with self._lock:
            try:
                yield self._db
            except sqlite3.OperationalError as error:
                raise Temporary(f"{self.path} cannot be used now: {error}") from error
            except sqlite3.DatabaseError as error:
                raise UsageError(f"{self.path} is damaged: {error}", "move that file away") from error

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is on the disk afterwards, or nothing.

        Raises:
            Temporary, UsageError: as of `read`.
        """
        with self.read() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
