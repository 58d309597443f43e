"""What the pushes of a project did: batches in flight, rounds, rejects. A SQLite file by the configuration.

Before a batch is sent it is recorded here, on the disk. Whoever finds it here after a crash knows that the
tool may still be working on it. What a push rejects is remembered, so that users can accept it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from connector.errors import Reject, UsageError
from connector.io.sqlite import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batch (source TEXT NOT NULL, keys TEXT NOT NULL, at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS round (source TEXT NOT NULL, at TEXT NOT NULL, error TEXT);
CREATE TABLE IF NOT EXISTS reject (
    source TEXT NOT NULL, manifest TEXT NOT NULL, place TEXT NOT NULL, why TEXT NOT NULL,
    version TEXT NOT NULL, since TEXT NOT NULL, accepted_by TEXT, accepted_at TEXT,
    PRIMARY KEY (source, manifest, place, why)
);
"""

ROUNDS = 1000
"""The number of rounds that are remembered."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round of a sync: when it ended, and what went wrong, if anything did."""

    at: datetime
    error: str | None


@dataclass(frozen=True, slots=True)
class KnownReject:
    """What the last push rejected, and whether a user has accepted that it stays out.

    Attributes:
        where: the key of the item, or the place of the row.
        version: of the object or row; empty where it has none.
        manifest: the URL of the manifest that was pushed; None where it was the bucket.
        since: when a push first rejected this version for this reason; None before the first one has.
        accepted_by, accepted_at: by whom and when; None where it is not accepted.
    """

    where: str
    why: str
    version: str = ""
    manifest: str | None = None
    since: datetime | None = None
    accepted_by: str | None = None
    accepted_at: datetime | None = None

    @property
    def accepted(self) -> bool:
        """Whether it does not count any more."""
        return self.accepted_at is not None

    @property
    def key(self) -> str:
        """The key of the item as it is listed: a task for a new content has the version behind its key."""
        return self.where.removesuffix(f"#{self.version}") if self.version else self.where

    @property
    def reject(self) -> Reject:
        """As the push reported it."""
        return Reject(self.where, self.why, self.version)


class Ledger:
    """Batches in flight to one project, the rounds of its sync, and what its pushes reject.

    Args:
        path: the file; it is made when it is not there.
        source: which project of which tool.
    """

    def __init__(self, path: Path, source: str) -> None:
        self._source = source
        self._file = Database(path, "ledger", _SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def copy(self) -> Ledger:
        """A copy in memory, for a dry run."""
        made = Ledger(Path(":memory:"), self._source)
        self._file.copy_to(made._file)
        return made

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
        """The batches in flight, whose outcome is unknown: number, keys, and since when."""
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

    # rejects

    def keep_rejects(
        self, rejects: Sequence[Reject], manifest: str | None, at: datetime
    ) -> list[KnownReject]:
        """Record all that a push rejected, in place of what the last push of the same manifest did.

        A reject of the same version for the same reason stays accepted; every other one is new. What is not
        rejected any more is forgotten.

        Returns:
            What is known of each of the rejects.
        """
        given = {(one.where, one.why): one.version for one in rejects}
        with self._file.write() as db:
            known = {(k.where, k.why): k for k in self._rejects(db) if k.manifest == manifest}
            stale = [k for name, k in known.items() if given.get(name) != k.version]
            row = (self._source, manifest or "")
            forget = "DELETE FROM reject WHERE source = ? AND manifest = ? AND place = ? AND why = ?"
            db.executemany(forget, [(*row, k.where, k.why) for k in stale])
            for k in stale:
                del known[k.where, k.why]
            new = {
                name: KnownReject(*name, version, manifest, at)
                for name, version in given.items()
                if name not in known
            }
            db.executemany(
                "INSERT INTO reject VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)",
                [(*row, k.where, k.why, k.version, at.isoformat()) for k in new.values()],
            )
        known |= new
        return [known[one.where, one.why] for one in rejects]

    def rejects(self) -> list[KnownReject]:
        """What the last pushes rejected, those of the bucket first."""
        with self._file.read() as db:
            return self._rejects(db)

    def present(
        self, listed: Sequence[Reject], manifest: str | None, versions: Mapping[str, str]
    ) -> list[KnownReject]:
        """The rejects of a bucket or manifest as it is now. Nothing is recorded.

        Args:
            listed: those that its listing reports.
            manifest: None is the bucket.
            versions: of the items that are listed, at least of those that the last push rejected, by key.

        Returns:
            Those, and what the last push rejected of the versions that are listed.
        """
        known = {k.reject: k for k in self.rejects() if k.manifest == manifest}
        now = {one: known.pop(one, KnownReject(one.where, one.why, one.version, manifest)) for one in listed}
        return [*now.values(), *(k for k in known.values() if k.version in ("", versions.get(k.key)))]

    def accept(self, where: Collection[str] | None, by: str, at: datetime) -> int:
        """Accept that rejects stay out; they do not count until their version or reason changes.

        Args:
            where: which, as they are listed; None is all.
            by: who accepts them.

        Returns:
            How many were not accepted before.

        Raises:
            UsageError: if one is not known; none is accepted then.
        """
        change = "accepted_by = ?, accepted_at = ? WHERE accepted_at IS NULL"
        return self._change(change, (by, at.isoformat()), where)

    def unaccept(self, where: Collection[str]) -> int:
        """Take acceptances back; returns how many.

        Raises:
            UsageError: if one is not known; nothing is changed then.
        """
        return self._change("accepted_by = NULL, accepted_at = NULL WHERE accepted_at NOT NULL", (), where)

    def _change(self, change: str, values: tuple[str, ...], where: Collection[str] | None) -> int:
        with self._file.write() as db:
            known = {k.where for k in self._rejects(db)}
            for name in where or ():
                if name not in known:
                    raise UsageError(
                        f"{name} is not among the rejects of this project",
                        "name one that `connector status` lists; `connector push` finds new ones",
                    )
            rows = [(*values, self._source, name) for name in (known if where is None else where)]
            ask = f"UPDATE reject SET {change} AND source = ? AND place = ?"
            return db.executemany(ask, rows).rowcount if rows else 0

    def _rejects(self, db: sqlite3.Connection) -> list[KnownReject]:
        ask = """SELECT place, why, version, manifest, since, accepted_by, accepted_at FROM reject
                 WHERE source = ? ORDER BY manifest, place, why"""
        return [
            KnownReject(
                where,
                why,
                version,
                manifest or None,
                datetime.fromisoformat(since),
                by,
                datetime.fromisoformat(accepted) if accepted else None,
            )
            for where, why, version, manifest, since, by, accepted in db.execute(ask, (self._source,))
        ]
