"""What goes wrong with a SQLite file, said as an error of ours that names the file and the next step."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from connector.errors import ConnectorError, Temporary, UsageError

_IN_USE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def told(path: Path, name: str) -> Iterator[None]:
    """Turns SQLite's failures into ours.

    Args:
        path: the file.
        name: what it is to people.

    Raises:
        Temporary: if another process has it.
        UsageError: if it is damaged, or may not be written, or there is no room.
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
        return UsageError(f"the disk of the {name} {path} is full", "make room, then run this again")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return UsageError(
            f"the {name} {path} cannot be opened for writing: {error}",
            "check that its folder is there, and the rights of both",
        )
    return UsageError(f"the {name} {path} cannot be used: {error}", "check the disk it lies on")
