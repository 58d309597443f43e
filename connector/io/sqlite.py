"""SQLite files of our own. Whatever goes wrong with one is told with its name and the next step."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from connector.errors import ConnectorError, Temporary, UsageError
from connector.io.files import MAKE_ROOM, REMOUNT, no_handle_left, read_only
from connector.io.retry import patient

BUSY_SECONDS = 10
"""How long to wait for another process that writes."""

_IN_USE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def told(path: Path, name: str) -> Iterator[None]:
    """Turns SQLite's failures into ours.

    Args:
        path: the file.
        name: what it is to people.

    Raises:
        Temporary: if another process has it, the disk is full, fails or is mounted read-only, or no
            file handle is left.
        UsageError: if it is damaged, or may not be written.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _ours(path, name, error) from error


def _ours(path: Path, name: str, error: sqlite3.Error) -> ConnectorError:
    # Extended codes tell more in the higher bytes.
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in _IN_USE:
        return Temporary(
            f"the {name} {path} is in use by another process",
            "wait until the other run has ended, then run this again",
        )
    if code in _DAMAGED:
        return UsageError(
            f"the {name} {path} is damaged, or is something else: {error}",
            "restore it from a copy, or move it away and begin a new one",
        )
    if code == sqlite3.SQLITE_FULL:
        return Temporary(f"the disk of the {name} {path} is full", MAKE_ROOM)
    if code == sqlite3.SQLITE_CANTOPEN and no_handle_left():
        return Temporary(f"the {name} {path} cannot be opened: no file handle is left", MAKE_ROOM)
    if code == sqlite3.SQLITE_IOERR:
        return Temporary(
            f"the {name} {path} cannot be used now: {error}",
            "check the disk it lies on, and whether it is full, then run this again",
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN) and read_only(path):
        return Temporary(f"the disk of the {name} {path} is mounted read-only", REMOUNT)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return UsageError(
            f"the {name} {path} cannot be opened for writing: {error}",
            "check that its folder is there, and the rights of both",
        )
    return UsageError(f"the {name} {path} cannot be used: {error}", "check the disk it lies on")


def _make_private(path: Path) -> None:
    """Make the file, for its owner alone; SQLite gives the files beside it (-wal, -shm) the same mode."""
    if str(path) == ":memory:":
        return
    # Only a new file is opened here: the system drops SQLite's locks when a process closes a file that it
    # has open elsewhere. What else may be wrong with the path, SQLite finds and `told` reports.
    with suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


class Database:
    """A file of our own, for its owner alone where it is new.

    Args:
        path: the file, or `:memory:`; it is made when it is not there.
        name: what it is to people.
        schema: statements that do nothing where everything is there.
        busy_seconds: how long to wait for another process that writes.

    Raises:
        UsageError: if there can be no such file.
    """

    def __init__(self, path: Path, name: str, schema: str, busy_seconds: float = BUSY_SECONDS) -> None:
        self._path, self._name = path, name
        _make_private(path)
        with told(path, name):
            self._db = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=busy_seconds
            )
        self._lock = threading.RLock()
        # Two who make the file at once are told at once that it is locked, whatever the time-out.
        patient(self._prepare, schema)

    def _prepare(self, schema: str) -> None:
        with self.read() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.executescript(schema)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def copy_to(self, other: Database) -> None:
        """Replace all that another one holds with what this one holds."""
        with self.read() as db, other.read() as target:
            db.backup(target)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time.

        Raises:
            Temporary: if the file cannot be used now.
            UsageError: if it is damaged.
        """
        with self._lock, told(self._path, self._name):
            yield self._db

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
