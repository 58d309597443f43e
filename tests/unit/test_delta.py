"""The care of the table: merging and deleting files loses no row and no version."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from connector.demo.server import S3
from connector.errors import Conflict, Temporary, UsageError
from connector.io import retry
from connector.model import Annotation, Task
from connector.store import delta
from connector.store.history import contents
from connector.store.label_store import ANNOTATION, SCHEMA, Store, Version

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "ä b #"))


def task(id: str, label: str = "cat") -> Task:
    said = Annotation(id=id, task_id=id, annotator="ann", result=json.dumps([label]), created_at=NOW)
    return Task(id=id, key=f"k{id}", created_at=NOW, annotations=(said,))


def pulled(store: Store, numbers: Sequence[int], at: datetime = NOW) -> None:
    """Each pull brings a task and changes the answer of the one before."""
    for n in numbers:
        store.append([task(str(n)), *([task(str(n - 1), "dog")] if n else [])], str(n), at)


def held(store: Store, version: Version | None = None) -> list[Task]:
    return list(replace(store).tasks(version))


def rows(store: Store) -> pl.DataFrame:
    return replace(store).rows().collect().sort(pl.all())


def files(store: Store, tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "ä b #").glob("*.parquet")}


def as_others_read(url: str, version: int) -> pl.DataFrame:
    """What stands in the files that the version had."""
    places = [
        unquote(place).removeprefix("file://") for place in DeltaTable(url, version=version).file_uris()
    ]
    return pl.read_parquet(places, glob=False, missing_columns="insert")


def test_after_a_compaction_all_rows_and_all_versions_are_as_before(store: Store) -> None:
    pulled(store, range(6))
    before, versions = rows(store), [held(store, n) for n in range(6)]
    assert store.compact(NOW, dry_run=True) == store.compact(NOW)
    assert len(DeltaTable(store.url).file_uris()) == 1
    assert rows(store).equals(before)
    assert [held(store, n) for n in range(6)] == versions
    assert held(store) == versions[-1]
    assert store.compact(NOW).files == 0


def test_pulls_go_on_after_a_compaction_with_what_they_know(store: Store) -> None:
    pulled(store, range(3))
    store.compact(NOW)
    assert not store.append([task("2")], "2", NOW)
    pulled(store, range(3, 5))
    assert store.compact(NOW).files == 3
    assert not replace(store).append([task("4")], "4", NOW)
    assert [one.annotations[0].result for one in held(store)] == ['["dog"]'] * 4 + ['["cat"]']


def test_files_are_merged_up_to_a_size_and_large_ones_left_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled(store, range(6))
    size = max(pl.DataFrame(DeltaTable(store.url).get_add_actions(flatten=True))["size_bytes"])
    monkeypatch.setattr(delta, "MERGED_BYTES", 3 * size)
    done = store.compact(NOW)
    assert done.files == 6
    assert done.into == len(DeltaTable(store.url).file_uris()) == 2
    monkeypatch.setattr(delta, "SMALL_BYTES", 1)
    assert store.compact(NOW).files == 0


def test_a_compaction_by_one_who_missed_a_commit_is_refused(store: Store) -> None:
    pulled(store, range(3))
    late = replace(store)
    with late.lease(seconds=0.2):
        late.take()
        time.sleep(0.1)
        with store.lease():
            pulled(store, [3])
        before = rows(store)
        with pytest.raises(Conflict):
            late.compact(NOW)
    assert rows(store).equals(before)


def test_two_compactions_at_once_double_nothing(store: Store) -> None:
    pulled(store, range(8))
    before = rows(store)
    script = """
import sys
from datetime import datetime, UTC
from connector.errors import Overtaken
from connector.store.label_store import Store
try:
    Store(sys.argv[1]).compact(datetime.now(UTC))
except Overtaken:
    pass
"""
    both = [subprocess.Popen([sys.executable, "-c", script, store.url]) for _ in range(2)]
    assert [one.wait(300) for one in both] == [0, 0]
    assert rows(store).equals(before)


def test_a_compaction_that_is_killed_leaves_all_as_it_was_or_is_done(store: Store) -> None:
    pulled(store, range(8))
    before, versions = rows(store), [held(store, n) for n in range(8)]
    script = "import sys\nfrom datetime import *\nfrom connector.store.label_store import Store\n"
    script += "print(flush=True)\nStore(sys.argv[1]).compact(datetime.now(UTC))"
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", script, store.url], stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        time.sleep(random.uniform(0, 0.08))
        process.kill()
        process.communicate()
        assert rows(store).equals(before)
        assert [held(store, n) for n in range(8)] == versions
    store.compact(NOW)
    assert rows(store).equals(before)


def test_a_torn_file_is_named_and_not_merged(store: Store, tmp_path: Path) -> None:
    pulled(store, range(3))
    victim = tmp_path / "ä b #" / min(files(store, tmp_path))
    os.truncate(victim, victim.stat().st_size - 20)
    with pytest.raises(UsageError, match="is damaged") as caught:
        store.compact(NOW)
    assert caught.value.hint
    assert len(DeltaTable(store.url).file_uris()) == 3
    assert store.holder() is None


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("harm", ["empty", "torn", "overwritten", "gone"])
def test_whoever_reads_is_told_which_file_is_damaged(
    store: Store, tmp_path: Path, harm: str, which: int
) -> None:
    pulled(store, range(3))
    victim = sorted((tmp_path / "ä b #").glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)[which]
    whole = victim.read_bytes()
    harmed = {"empty": b"", "torn": whole[:-50], "overwritten": bytes(len(whole))}
    victim.write_bytes(harmed.get(harm, b""))
    if harm == "gone":
        victim.unlink()
    with pytest.raises(UsageError) as caught:
        contents(replace(store))
    assert victim.name in caught.value.what
    assert "restore it from a copy" in caught.value.hint
    victim.write_bytes(whole)
    assert contents(replace(store)).tasks == 3


def test_whoever_reads_is_told_that_a_commit_is_missing(store: Store, tmp_path: Path) -> None:
    pulled(store, range(3))
    (tmp_path / "ä b #" / "_delta_log" / f"{1:020}.json").write_bytes(b"")
    with pytest.raises(UsageError, match="lacks commits before number 3"):
        contents(replace(store))


@pytest.mark.parametrize("emptied", [False, True])
def test_a_lost_log_is_refused_and_nothing_is_written(
    store: Store, tmp_path: Path, emptied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta, "FIRST_COMMIT_SECONDS", 0.2)
    pulled(store, range(1))
    folder = tmp_path / "ä b #"
    kept = folder / "_delta_log"
    kept.rename(tmp_path / "copy")
    if emptied:
        kept.mkdir()
    before = sorted(folder.rglob("*"))
    for attempt in (lambda s: s.append([task("7")], "7", NOW), contents, lambda s: s.version):
        with pytest.raises(UsageError, match="has lost its log") as caught:
            attempt(replace(store))
        assert store.url in caught.value.what
        assert "restore _delta_log" in caught.value.hint
    assert sorted(folder.rglob("*")) == before
    if emptied:
        kept.rmdir()
    (tmp_path / "copy").rename(kept)
    assert len(held(store)) == 1


def test_a_log_that_comes_after_its_data_is_waited_for(store: Store, tmp_path: Path) -> None:
    pulled(store, range(1))
    kept = tmp_path / "ä b #" / "_delta_log"
    kept.rename(tmp_path / "copy")
    threading.Timer(0.3, (tmp_path / "copy").rename, [kept]).start()
    assert store.version == 0


def test_a_commit_is_on_the_disk_when_it_counts_and_its_log_entry_last(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    real = os.fsync

    def watched(opened: int) -> None:
        real(opened)
        synced.append(Path(f"/proc/self/fd/{opened}").readlink())

    monkeypatch.setattr(os, "fsync", watched)
    folder = tmp_path / "ä b #"
    for version, commit in enumerate([*[partial(pulled, store, [n]) for n in range(3)], store.compact]):
        synced.clear()
        old = set(folder.glob("*.parquet"))
        commit() if isinstance(commit, partial) else commit(NOW)
        entry = folder / "_delta_log" / f"{version:020}.json"
        written = {*folder.glob("*.parquet")} - old
        assert written
        for path in (*written, folder):
            assert synced.index(path) < synced.index(entry)
        assert synced.index(entry) < len(synced) - 1 - synced[::-1].index(entry.parent)
        assert version or tmp_path in synced, "the name of a new folder"


def test_a_checkpoint_is_on_the_disk_too(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled(store, range(1))
    DeltaTable(tmp_path / "ä b #").alter.set_table_properties({"delta.checkpointInterval": "2"})
    old = set((tmp_path / "ä b #" / "_delta_log").glob("*.checkpoint.parquet"))
    synced: set[str] = set()
    real = os.fsync

    def watched(opened: int) -> None:
        real(opened)
        synced.add(Path(f"/proc/self/fd/{opened}").readlink().name)

    monkeypatch.setattr(os, "fsync", watched)
    pulled(replace(store), range(1, 5))
    log = tmp_path / "ä b #" / "_delta_log"
    new = set(log.glob("*.checkpoint.parquet")) - old
    assert new
    assert {path.name for path in (*new, log / "_last_checkpoint")} <= synced


def test_a_file_with_fewer_rows_than_its_log_says_is_not_merged(store: Store, tmp_path: Path) -> None:
    pulled(store, range(3))
    victim = tmp_path / "ä b #" / min(files(store, tmp_path))
    pl.read_parquet(victim).head(1).write_parquet(victim)
    with pytest.raises(UsageError, match="do not hold what its log says"):
        store.compact(NOW)


def test_a_vacuum_deletes_what_was_merged_long_ago_and_every_version_stays(
    store: Store, tmp_path: Path
) -> None:
    pulled(store, range(6))
    versions = [held(store, n) for n in range(6)]
    store.compact(datetime.now(UTC))
    assert len(files(store, tmp_path)) == 7
    assert store.vacuum(datetime.now(UTC), 30).files == 0
    age(store, tmp_path, days=31)
    would = store.vacuum(datetime.now(UTC), 30, dry_run=True)
    done = store.vacuum(datetime.now(UTC), 30)
    assert (done.files, done.bytes) == (would.files, would.bytes)
    assert done.files == 6
    assert len(files(store, tmp_path)) == 1
    assert [held(store, n) for n in range(6)] == versions
    pulled(store, [6])
    assert [held(store, n) for n in range(6)] == versions


def age(store: Store, tmp_path: Path, days: int) -> None:
    """Let everything in the log have happened so many days ago."""
    earlier = int(timedelta(days=days).total_seconds() * 1000)

    def aged(value: object) -> object:
        if isinstance(value, dict):
            return {
                name: one - earlier if name in ("timestamp", "deletionTimestamp") else aged(one)
                for name, one in value.items()
            }
        return value

    for log in (tmp_path / "ä b #" / "_delta_log").glob("*.json"):
        log.write_text("\n".join(json.dumps(aged(json.loads(line))) for line in log.read_text().splitlines()))


def test_a_vacuum_keeps_the_files_of_snapshots_and_of_versions_within_the_horizon(
    store: Store, tmp_path: Path
) -> None:
    pulled(store, range(4))
    store.name("first", NOW, version=1)
    store.compact(datetime.now(UTC))
    age(store, tmp_path, days=40)
    store = replace(store)
    recent = 8
    pulled(store, range(4, recent))
    number = store.version
    assert number is not None
    counts = {version: len(as_others_read(store.url, version)) for version in (1, number)}
    store.compact(datetime.now(UTC))
    done = store.vacuum(datetime.now(UTC), 30)
    assert done.files == 3  # two pulls of four, and the row that named the snapshot
    for version in (1, number):
        assert len(as_others_read(store.url, version)) == counts[version]
    with pytest.raises(FileNotFoundError):
        as_others_read(store.url, 3)
    assert [one.id for one in held(store, "first")] == ["0", "1"]
    assert [one.id for one in held(store, 3)] == ["0", "1", "2", "3"]
    store.forget("first", NOW)
    assert replace(store).vacuum(datetime.now(UTC), 30).files == 2
    assert [one.id for one in held(store, 1)] == ["0", "1"]


def test_a_horizon_that_is_too_near_is_refused_unless_forced(store: Store, tmp_path: Path) -> None:
    pulled(store, range(3))
    store.compact(NOW)
    with pytest.raises(UsageError, match="may still be read") as caught:
        store.vacuum(datetime.now(UTC), 1)
    assert "--force" in caught.value.hint
    assert store.vacuum(datetime.now(UTC), 0, force=True).files == 3


def test_care_of_nothing_is_nothing(store: Store) -> None:
    assert store.compact(NOW).files == 0
    assert store.vacuum(NOW, dry_run=True).files == 0


def test_columns_of_a_later_version_of_the_program_are_kept(store: Store) -> None:
    pulled(store, range(2))
    later = rows(store).head(1).with_columns(mood=pl.lit("happy"), pull=pl.lit(2, pl.Int64))
    write_deltalake(store.url, later, mode="append", schema_mode="merge")
    store.compact(NOW)
    assert as_others_read(store.url, replace(store).version or 0)["mood"].drop_nulls().to_list() == ["happy"]
    assert "mood" not in rows(store).columns


@pytest.mark.parametrize("absent", [("version", "score"), ("score",)])
def test_a_store_of_an_earlier_version_of_the_program_is_read_and_gets_the_new_columns(
    store: Store, absent: tuple[str, ...]
) -> None:
    pulled(replace(store, url=store.url + "/new"), range(2))
    new = DeltaTable(store.url + "/new")
    for version in range(2):
        table = as_others_read(store.url + "/new", version)
        rows_of_pull = table.filter(pl.col("pull") == version + 1).drop(absent)
        write_deltalake(store.url, rows_of_pull, mode="append", commit_properties=numbered(version + 1))
    old = replace(store)
    found = old.rows().collect()
    assert dict(found.schema) == dict(SCHEMA)
    assert all(found[name].null_count() == len(found) for name in absent)
    assert [one.key for one in old.tasks()] == ["k0", "k1"]
    before = found.sort(pl.all())
    old.append([task("2")], "2", NOW)
    assert set(absent) <= {one.name for one in DeltaTable(store.url).schema().fields}
    assert rows(old).filter(pl.col("pull") <= 2).equals(before)
    assert [one.id for one in held(old, 1)] == ["0", "1"]
    assert old.compact(NOW).files == 3
    assert rows(old).filter(pl.col("pull") <= 2).equals(before)
    assert len(new.file_uris()) == 2


def numbered(pull: int) -> delta.CommitProperties:
    return delta.CommitProperties(app_transactions=[delta.Transaction("default", pull)])


def test_a_column_of_another_type_is_named(store: Store) -> None:
    pulled(store, [0])
    other = rows(store).with_columns(pl.col("score").cast(pl.String))
    write_deltalake(store.url + "/other", other)
    with pytest.raises(UsageError, match="String in the column score, not Float64"):
        Store(store.url + "/other").current(ANNOTATION)


def test_the_log_tells_who_did_what_also_where_another_program_wrote(store: Store, tmp_path: Path) -> None:
    pulled(store, range(2))
    store.name("first", NOW)
    store.compact(NOW)
    write_deltalake(store.url, rows(store).head(0), mode="append")
    told = [(one.version, one.kind, one.by is not None) for one in replace(store).commits()]
    ours = [(n, kind, True) for n, kind in ((2, "snapshot"), (1, "pull"), (0, "pull"))]
    assert told[0][1:] == ("write", False)
    assert told[-3:] == ours
    assert {kind for _, kind, _ in told[1:-3]} == {"compact", "lease"}
    assert store.commits()[-1].told["tasks"] == {"new": 1, "changed": 0, "deleted": 0}
    DeltaTable(store.url).create_checkpoint()
    (tmp_path / "ä b #" / "_delta_log" / f"{0:020}.json").unlink()
    assert [one.version for one in replace(store).commits()] == [one[0] for one in told[:-1]]


@pytest.mark.live
def test_in_a_bucket_the_care_is_the_same(s3: S3, tmp_path: Path) -> None:
    store = Store(f"{s3.url}/{tmp_path.name}", options=s3.options)
    pulled(store, range(4))
    store.name("first", NOW, version=1)
    before, versions = rows(store), [held(store, n) for n in range(4)]
    assert store.compact(datetime.now(UTC)).files == 5
    assert rows(store).equals(before)
    with store.lease():
        store.take()
        with pytest.raises(Temporary, match="in use by process"), replace(store).lease(wait=0):
            pass
    assert store.vacuum(datetime.now(UTC), 0, force=True).files == 3
    assert store.vacuum(datetime.now(UTC), 0, force=True).files == 0
    assert [held(store, n) for n in range(4)] == versions
    assert store.commits()[-1].kind == "pull"
    assert store.holder() is None


@pytest.mark.parametrize("mute", [True, False], ids=["says nothing", "is away"])
def test_that_a_bucket_is_away_is_told_soon(mute: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "STORE_ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(delta, "STORE_GIVE_UP_SECONDS", 1.0)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if mute:
            server.listen()
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        options = {"endpoint": endpoint, "region": "x", "access_key_id": "x", "secret_access_key": "x"}
        begun = time.monotonic()
        with pytest.raises(Temporary, match="cannot be read"):
            _ = Store("s3://raw/labels", options=options).version
        assert time.monotonic() - begun < 10
    assert retry.STORE_ANSWER_SECONDS + retry.STORE_GIVE_UP_SECONDS <= 60
