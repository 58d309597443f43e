"""The label store itself, in a folder and in a bucket: what it keeps, for how long, and against whom."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from threading import Barrier

import obstore
import polars as pl
import pytest
import requests
from deltalake import DeltaTable
from hypothesis import example, given, settings
from hypothesis import strategies as st
from obstore.store import from_url

from connector.demo.server import S3
from connector.errors import AuthError, Conflict, ConnectorError, UsageError
from connector.io.objects import Objects
from connector.model import Annotation, Ontology, Task
from connector.store import delta
from connector.store.label_store import ANNOTATION, CURSOR, SCHEMA, TASK, Counts, Store
from tests.stalling import longest_pause, relay
from tests.unit.test_files import without_privileges

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.live)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "folder":
        return Store(f"{tmp_path}/ä b/100% #?")
    s3: S3 = request.getfixturevalue("s3")
    return Store(f"{s3.url}/{tmp_path.name}/ä b", options=s3.options)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def answer(label: str, id: str = "7", made: int = 0, edited: int = 0, task: str = "1") -> Annotation:
    times = {"created_at": after(made), "updated_at": after(edited)}
    return Annotation(id=id, task_id=task, annotator="ann@example.com", result=json.dumps([label]), **times)


def task(*answers: Annotation, id: str = "1", made: int = 0) -> Task:
    return Task(id=id, key="a", created_at=after(made), annotations=answers)


def labels(store: Store, version: int | None = None) -> list[str]:
    return [json.loads(content)[0] for content in store.current(ANNOTATION, version)["content"]]


def kept(store: Store, record: str = ANNOTATION) -> list[tuple[str, bool]]:
    """The id of every row of a kind ever stored, and whether it is a tombstone."""
    rows = store.rows().filter(pl.col("record") == record).select("id", "deleted", "pull").collect()
    return [(id, deleted) for id, deleted, _ in rows.sort("pull", "id", "deleted").rows()]


def test_each_change_is_a_version_and_the_last_one_counts(store: Store) -> None:
    for n, label in enumerate(["cat", "dog", "cat"]):
        counts = store.append([task(answer(label, edited=n))], str(n), NOW)
        assert counts == (Counts(changed=1) if n else Counts(new=1))
        assert labels(store) == [label]
    assert [labels(store, version) for version in range(3)] == [["cat"], ["dog"], ["cat"]]
    assert kept(store) == [("7", False)] * 3
    assert len(kept(store, TASK)) == 1


def test_an_id_that_something_new_got_leaves_the_old_deleted(store: Store) -> None:
    store.append([task(answer("cat"))], "1", NOW)
    assert store.append([task(answer("cat", made=5))], "2", NOW) == Counts(new=1, deleted=1)
    assert kept(store) == [("7", False), ("7", False), ("7", True)]
    assert list(store.tasks()) == [task(answer("cat", made=5))]
    assert store.append([task(made=9)], "3", NOW) == Counts(deleted=1)
    assert list(store.tasks()) == [task(made=9)]


def test_what_is_gone_leaves_a_tombstone_and_may_come_again(store: Store) -> None:
    both = [answer("cat"), answer("dog", id="8")]
    store.append([task(*both), task(id="2")], "1", NOW)
    assert store.append([task(both[1])], "2", NOW) == Counts(deleted=1)
    assert list(store.tasks()) == [task(both[1]), task(id="2")]
    assert store.append([], "2", NOW, deleted_tasks=["1", "unheard of"]) == Counts(deleted=1)
    assert list(store.tasks()) == [task(id="2")]
    assert kept(store) == [("7", False), ("8", False), ("7", True), ("8", True)]
    assert kept(store, TASK) == [("1", False), ("2", False), ("1", True)]
    assert not store.append([], "2", NOW, deleted_tasks=["1"])
    assert replace(store).append([task(*both)], "3", NOW) == Counts(new=2)
    assert list(store.tasks()) == [task(*both), task(id="2")]


def test_of_a_task_that_comes_twice_on_a_page_the_later_reading_counts(store: Store) -> None:
    page = [task(answer("cat"), answer("owl", id="8")), task(answer("dog", edited=1))]
    assert store.append(page, "1", NOW) == Counts(new=1)
    assert labels(store) == ["dog"]
    assert kept(store) == [("7", False)]


def test_only_a_new_row_or_a_new_cursor_makes_a_commit(store: Store) -> None:
    assert (store.version, store.cursor(), store.last_pull(), list(store.tasks())) == (None, None, None, [])
    store.append([task(answer("cat"))], "1", NOW)
    for again in (store, replace(store)):
        assert not again.append([task(answer("cat"))], "1", after(60))
        assert (again.version, again.last_pull()) == (0, NOW)
    assert not store.append([task(answer("cat"))], "2", after(60))
    assert (store.version, store.cursor(), store.last_pull()) == (1, "2", after(60))
    assert kept(store) == [("7", False)]


def test_the_questions_are_kept_when_they_change_and_not_when_their_commit_failed(store: Store) -> None:
    asked = [Ontology(controls=(), objects={"img": ("image", field)}) for field in ("a", "b")]
    store.append([task()], "1", NOW, ontology=asked[0])
    store.append([task()], "1", NOW, ontology=asked[0])
    assert (store.version, store.ontology()) == (0, asked[0])
    replace(store).append([task(id="2")], "2", NOW)
    for _ in range(2):
        with pytest.raises(Conflict):
            store.append([], "1", NOW, ontology=asked[1])
    assert replace(store).ontology() == asked[0]
    late = replace(store)
    late.append([], "2", NOW, ontology=asked[1])
    assert [late.ontology(version) for version in range(3)] == [asked[0], asked[0], asked[1]]
    assert late.current(TASK)["id"].to_list() == ["1", "2"]


def test_a_clock_that_was_set_back_changes_nothing(store: Store) -> None:
    store.append([task(answer("cat", edited=3600))], "1", after(3600))
    store.append([task(answer("dog", edited=1))], "2", NOW)
    assert labels(store) == ["dog"]
    assert (store.cursor(), store.last_pull()) == ("2", NOW)
    assert not replace(store).append([task(answer("dog", edited=1))], "2", NOW)


IDS, MADE = st.sampled_from("123"), st.integers(0, 1)
ANSWERS = st.dictionaries(IDS, st.tuples(st.sampled_from(["cat", "dog"]), MADE))
TASKS = st.builds(
    lambda id, made, said: task(
        *(answer(label, one, at, task=id) for one, (label, at) in sorted(said.items())), id=id, made=made
    ),
    *(IDS, MADE, ANSWERS),
)
PAGE = st.tuples(st.lists(TASKS, max_size=3), st.sets(IDS, max_size=1), st.booleans())


def by_identity(tasks: dict[str, Task]) -> dict[tuple[object, ...], str]:
    return {(t.id, a.id, a.created_at): a.revision for t in tasks.values() for a in t.annotations}


@settings(max_examples=15, deadline=None)
@given(st.lists(PAGE, min_size=2, max_size=5))
def test_whatever_is_pulled_the_store_holds_the_last_of_it_and_loses_no_version(
    pages: Sequence[tuple[list[Task], set[str], bool]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, model = Store(folder), dict[str, Task]()
        before = store.rows().collect()
        for n, (tasks, named, reopened) in enumerate(pages):
            store = replace(store) if reopened else store
            gone, old = sorted(named - {t.id for t in tasks}), by_identity(model)
            model = {id: t for id, t in model.items() if id not in gone} | {t.id: t for t in tasks}
            new = by_identity(model)
            changed = sum(new[one] != old[one] for one in new.keys() & old.keys())
            counts = store.append(tasks, str(n), after(n), gone)
            assert counts == Counts(len(new.keys() - old.keys()), changed, len(old.keys() - new.keys()))
            assert list(store.tasks()) == [model[id] for id in sorted(model)]
            rows = store.rows().collect().sort(pl.all())
            assert rows.filter(pl.col("pull") <= n).equals(before)
            assert not replace(store).append(tasks, str(n), after(n), gone)
            assert not store.append(list(model.values()), str(n), after(n))
            assert store.version == n
            before = rows


# Also half surrogates, which JSON can carry and UTF-8 cannot.
JSON = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters())
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])
TIMES = st.none() | st.datetimes(timezones=ZONES).filter(lambda at: 1 < at.year < 9999)
ODD = "a\x00b ä 日本 👩‍🌾 \u202e '\"\\\r\n"


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.text(), JSON), st.text(), TIMES, st.none() | st.floats(0, 1e9))
@example({ODD: [2**70, -(10**40), 5e-324, "\ud83d", None, True, {"": {}}]}, ODD, after(1e-6), 0.1 + 0.2)
def test_tasks_and_annotations_come_back_as_they_were(
    data: dict[str, object], text: str, at: datetime | None, seconds: float | None
) -> None:
    times = {"created_at": at, "updated_at": at}
    said = Annotation(id="1", task_id=text, annotator=text, result=f" {text} ", seconds=seconds, **times)
    other = Annotation(id="2" + text, task_id=text, annotator="", cancelled=True, ground_truth=True)
    whole = Task(id=text, key=text + "k", data=data, overlap=2**40, annotations=(said, other), **times)
    with tempfile.TemporaryDirectory() as folder:
        Store(folder, source=text).append([whole], text, NOW)
        store = Store(folder, source=text)
        assert (store.cursor(), list(store.tasks())) == (text, [whole])
        assert not store.append([whole], text, NOW)


def test_every_version_can_be_read_also_many_pages_and_months_later(tmp_path: Path) -> None:
    pages = [task(answer("cat", task=f"{n:02}"), id=f"{n:02}") for n in range(70)]
    Store(str(tmp_path)).append(pages[:1], "0", NOW)
    # With a checkpoint, the log before an older one would be cleaned away once it is a month old.
    DeltaTable(tmp_path).alter.set_table_properties({"delta.checkpointInterval": "10"})
    store = Store(str(tmp_path))
    for n in range(1, 70):
        store.append([pages[n]], str(n), NOW)
        for path in (tmp_path / "_delta_log").iterdir():
            os.utime(path, (0, 0))
    for version in (2, 35, 70):
        assert list(store.tasks(version)) == pages[:version]
    assert not store.append(pages, "69", NOW)


def start(script: str, *words: str) -> subprocess.Popen[str]:
    head = (
        "import json, sys\nfrom connector.errors import Conflict\nfrom connector.store.label_store import *\n"
    )
    command = [sys.executable, "-c", head + script, *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_process_that_is_killed_leaves_the_cursor_with_its_rows(tmp_path: Path) -> None:
    script = """
store = Store(sys.argv[1])
for n in range(int(store.cursor_kept or 0) + 1, 10**6):
    store.append([Task(id=f"{n}/{part}", key="k") for part in range(50)], str(n), datetime.now().astimezone())
    print(n, flush=True)
"""
    for _ in range(2):
        process = start(script, str(tmp_path))
        assert process.stdout
        told = [process.stdout.readline() for _ in range(5)]
        time.sleep(random.uniform(0, 0.05))
        process.kill()
        process.communicate()
        store = Store(str(tmp_path))
        last = int(store.cursor() or 0)
        assert last >= int(told[-1])
        assert store.version == last - 1
        pages = {(f"{n}/{part}", False) for n in range(1, last + 1) for part in range(50)}
        assert sorted(kept(store, TASK)) == sorted(pages)


def one_wrote_and_nothing_is_lost(store: Store, outcomes: dict[str, bool]) -> None:
    [winner] = [who for who, wrote in outcomes.items() if wrote]
    again = replace(store)
    assert (again.cursor_kept, set(again.current(TASK)["id"]) - {"0"}) == (winner, {winner})
    for who in outcomes.keys() - {winner}:
        again.append([task(id=who)], who, NOW)
    assert set(again.current(TASK)["id"]) - {"0"} == set(outcomes)
    assert len(kept(again, CURSOR)) == int(again.version or 0) + 1


@pytest.mark.parametrize("begun", [False, True], ids=["into nothing", "into a store"])
def test_of_threads_that_write_at_once_one_does_and_nothing_is_lost(store: Store, begun: bool) -> None:
    def write(store: Store, who: str, meet: Barrier) -> bool:
        meet.wait()
        try:
            return bool(store.append([task(answer("cat", task=who), id=who)], who, NOW))
        except Conflict:
            return False

    for number in range(6):
        writers = {f"w{n}": replace(store, url=f"{store.url}/{number}") for n in range(4)}
        if begun:
            replace(writers["w0"]).append([task(id="0")], "0", NOW)
        assert {one.cursor_kept for one in writers.values()} == {"0" if begun else None}
        with ThreadPoolExecutor(4) as pool:
            wrote = pool.map(write, writers.values(), writers, [Barrier(4)] * 4)
        one_wrote_and_nothing_is_lost(writers["w0"], dict(zip(writers, wrote, strict=True)))


def test_of_processes_that_write_at_once_one_does_and_nothing_is_lost(store: Store) -> None:
    script = """
store = Store(sys.argv[1], options=json.loads(sys.argv[2]))
print(store.cursor_kept, flush=True)
input()
try:
    store.append([Task(id=sys.argv[3], key="k")], sys.argv[3], datetime.now().astimezone())
except Conflict as error:
    sys.exit(error.exit_code)
"""
    both = {who: start(script, store.url, json.dumps(store.options), who) for who in ("w0", "w1")}
    assert [process.stdout.readline() for process in both.values() if process.stdout] == ["None\n"] * 2
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda process: process.communicate("go\n", timeout=300), both.values()))
    assert sorted(process.returncode for process in both.values()) == [0, Conflict.exit_code]
    one_wrote_and_nothing_is_lost(store, {who: process.returncode == 0 for who, process in both.items()})


def test_a_second_project_is_refused_also_when_both_found_the_store_empty(store: Store) -> None:
    one, two = replace(store, source="one"), replace(store, source="two")
    assert one.cursor_kept is two.cursor_kept is None
    one.append([task(answer("cat"))], "1", NOW)
    with pytest.raises(Conflict):
        two.append([task(id="2")], "2", NOW)
    with pytest.raises(UsageError, match="holds the labels of one, and this is two"):
        replace(two).append([task(id="2")], "2", NOW)
    assert list(replace(one).tasks()) == [task(answer("cat"))]


def three_commits(folder: Path) -> Store:
    store = Store(str(folder))
    for n in range(3):
        store.append([task(answer("cat", task=str(n)), id=str(n))], str(n), NOW)
    return replace(store)


ASKS: list[Callable[[Store], object]] = [
    lambda store: store.current(TASK),
    Store.cursor,
    Store.last_pull,
    lambda store: store.append([task(id="9")], "9", NOW),
]


@pytest.mark.parametrize("files", ["*.parquet", "_delta_log/*.json"])
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_damaged_store_is_named_with_the_next_step(tmp_path: Path, files: str, harm: str) -> None:
    store = three_commits(tmp_path)
    victim = sorted(tmp_path.glob(files))[1]
    os.truncate(victim, victim.stat().st_size // 2)
    if harm == "gone":
        victim.unlink()
    for ask in ASKS:
        with pytest.raises(UsageError) as caught:
            ask(replace(store))
        assert store.url in caught.value.what
        assert "restore it from a copy" in caught.value.hint


def test_a_commit_whose_log_became_empty_is_pulled_again_or_missed(tmp_path: Path) -> None:
    store = three_commits(tmp_path)
    log = sorted((tmp_path / "_delta_log").glob("*.json"))
    log[2].write_bytes(b"")
    assert store.cursor_kept == "1"
    store.append([task(answer("cat", task="2"), id="2")], "2", NOW)
    assert [found.id for found in replace(store).tasks()] == ["0", "1", "2"]
    log[1].write_bytes(b"")
    with pytest.raises(UsageError, match="lacks commits before number 3"):
        replace(store).append([], "3", NOW)


@pytest.mark.parametrize("place", ["plain", "plain/labels", "[x]", "a^b", "a%20b"])
def test_a_place_that_cannot_hold_a_store_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "plain").write_text("no folder")
    with pytest.raises(UsageError) as caught:
        Store(str(tmp_path / place)).append([task()], "1", NOW)
    assert str(tmp_path / place) in caught.value.what
    assert caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]


def test_a_store_that_may_only_be_read_is_read_and_one_that_may_not_is_named() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = three_commits(Path(folder))
        for rights in (0o555, 0o000):
            Path(folder).chmod(rights)
            with without_privileges():
                assert rights == 0 or len(store.current(TASK)) == 3
                with pytest.raises(UsageError, match=f"{folder} cannot be {'written' if rights else 'read'}"):
                    replace(store).append([task()], "9", NOW)
        Path(folder).chmod(0o755)
        next(Path(folder).glob("*.parquet")).chmod(0o000)
        with without_privileges(), pytest.raises(UsageError, match=f"{folder} cannot be read"):
            store.current(TASK)


@pytest.mark.live
def test_a_bucket_that_lets_nobody_in_or_lost_something_is_named(s3: S3, tmp_path: Path) -> None:
    store = Store(f"{s3.url}/{tmp_path.name}", options=s3.options)
    store.append([task(answer("cat"))], "1", NOW)
    stranger = replace(store, options={**s3.options, "access_key_id": "AKIASTRANGER"})
    requests.post(f"{s3.endpoint}/moto-api/reset-auth", data="0", timeout=60).raise_for_status()
    try:
        for ask in ASKS:
            with pytest.raises(AuthError, match="403 Forbidden") as caught:
                ask(replace(stranger))
            assert not set("\x1b↳") & set(caught.value.what)
    finally:
        requests.post(f"{s3.endpoint}/moto-api/reset-auth", data="inf", timeout=60).raise_for_status()
    with pytest.raises(ConnectorError, match="NoSuchBucket"):
        replace(store, url="s3://nowhere/labels").append([task()], "1", NOW)
    assert labels(store) == ["cat"]
    assert s3.secret_key not in repr(store)
    [file] = [one.path for one in Objects(store.url, s3.options).list() if one.path.endswith(".parquet")]
    bucket = from_url(store.url, config=s3.options, client_options={"allow_http": True})
    obstore.delete(bucket, file)
    with pytest.raises(UsageError, match="is damaged"):
        labels(store)


def test_the_name_of_a_deleted_account_is_kept(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    two = tuple(
        Annotation(id=str(n), task_id="1", annotator=who, result="[]", created_at=NOW, updated_at=NOW)
        for n, who in enumerate(("ann", "ben"))
    )
    store.append([Task(id="1", key="a", annotations=two, created_at=NOW)], "1", NOW)
    lost = tuple(one.model_copy(update={"annotator": "unknown"}) for one in two)
    new = lost[0].model_copy(update={"id": "9"})
    held = Task(id="1", key="a", annotations=(*lost, new), created_at=NOW)
    store.append([held], "2", NOW)
    assert store.current(ANNOTATION)["annotator"].to_list() == ["ann", "ben", "unknown"]
    [stored] = store.tasks()
    assert stored.revision == held.revision  # what a correction expects is what the tool holds
    assert store.append([held], "3", NOW) == Counts()


@pytest.mark.live
def test_a_bucket_that_does_not_answer_holds_up_no_other_thread(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stall = 3.0
    monkeypatch.setattr(delta, "STORE_ANSWER_SECONDS", stall)
    monkeypatch.setattr(delta, "STORE_GIVE_UP_SECONDS", stall)
    monkeypatch.setattr(delta, "ATTEMPTS", 1)
    with relay(s3.endpoint) as way:
        store = Store(f"{s3.url}/{tmp_path.name}", options={**s3.options, "endpoint": way.url})
        for n in range(3):
            store.append([task(answer("cat", id=str(n)))], str(n), NOW)
        table = DeltaTable(store.url, storage_options=store._table._delta_options)
        way.stalled.set()
        asked: list[Callable[[], object]] = [
            lambda: replace(store).version,
            lambda: replace(store).holder(),
            lambda: store._table.append(pl.DataFrame(schema=SCHEMA), "lease", {}),
            table.update_incremental,
            lambda: table.transaction_version("default"),
        ]
        for ask in asked:
            before = way.waiting
            with longest_pause() as pause, pytest.raises((ConnectorError, OSError)):
                ask()
            assert way.waiting > before
            assert pause[0] < stall / 3
