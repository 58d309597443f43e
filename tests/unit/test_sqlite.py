"""What goes wrong with the ledger and the list of events names the file and the next step."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from connector.errors import ConnectorError, Temporary, UsageError
from connector.events.log import EventLog
from connector.io.sqlite import told
from connector.sync.ledger import Ledger
from tests.unit.test_files import without_privileges

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def ledger(path: Path) -> None:
    with closing(Ledger(path, "one")) as opened:
        opened.begin(["a"], NOW)


def events(path: Path) -> None:
    with closing(EventLog(path, "one")) as opened:
        opened.listed("queue", ["1"])


BOTH = pytest.mark.parametrize("use", [ledger, events])
Use = Callable[[Path], None]


def refused(use: Use, path: Path, kind: type[ConnectorError], says: str) -> None:
    with pytest.raises(kind, match=says) as caught:
        use(path)
    assert str(path) in caught.value.what
    assert caught.value.hint


@BOTH
def test_a_file_that_is_damaged_or_none_of_ours(use: Use, tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    use(path)
    whole = path.read_bytes()
    path.write_bytes(b"\xff" * len(whole))
    refused(use, path, UsageError, "is damaged")
    path.write_bytes(whole[:100] + b"\xff" * (len(whole) - 100))
    refused(use, path, UsageError, "is damaged")


@BOTH
def test_a_folder_that_is_not_there_or_is_in_its_place(use: Use, tmp_path: Path) -> None:
    refused(use, tmp_path / "no" / "a.sqlite", UsageError, "cannot be opened for writing")
    refused(use, tmp_path, UsageError, "cannot be opened for writing")


@BOTH
def test_a_file_that_may_only_be_read(use: Use, tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    use(path)
    path.chmod(0o444)
    with without_privileges():
        refused(use, path, UsageError, "cannot be opened for writing")


@BOTH
def test_a_file_that_another_process_has(use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.sqlite"
    use(path)
    script = f"""
import sqlite3
db = sqlite3.connect({str(path)!r}, isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print("mine", flush=True)
input()
"""
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *words, **more: connect(*words, **{**more, "timeout": 0.1})
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "mine\n"
        refused(use, path, Temporary, "in use by another process")
        other.communicate("\n")
    use(path)


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"

    def fill(path: Path) -> None:
        with closing(sqlite3.connect(path)) as db, told(path, "ledger"):
            db.execute("CREATE TABLE t (x)")
            db.execute("PRAGMA max_page_count = 3")
            db.execute("INSERT INTO t VALUES (randomblob(100000))")

    refused(fill, path, Temporary, "is full")


def test_anything_else_is_told_as_it_is(tmp_path: Path) -> None:
    def ask(path: Path) -> None:
        with closing(sqlite3.connect(path)) as db, told(path, "ledger"):
            db.execute("SELECT x FROM nowhere")

    refused(ask, tmp_path / "a.sqlite", UsageError, "no such table")


@BOTH
def test_a_new_file_and_those_beside_it_are_their_owners_alone(use: Use, tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    before = os.umask(0o022)
    try:
        with closing(EventLog(path, "one")) as opened:
            opened.listed("queue", ["1"])
            modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
        use(tmp_path / "b.sqlite")
    finally:
        os.umask(before)
    assert modes == {"a.sqlite": 0o600, "a.sqlite-wal": 0o600, "a.sqlite-shm": 0o600}
    assert (tmp_path / "b.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_file_that_others_may_read_by_its_owners_will_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    events(path)
    path.chmod(0o640)
    events(path)
    assert path.stat().st_mode & 0o777 == 0o640
