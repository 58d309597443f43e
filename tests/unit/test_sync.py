"""Push and pull against the in-memory tool, which can be told to break down on the way."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from connector.adapters.base import LabelingTool
from connector.adapters.contract import LabelingToolContract
from connector.adapters.dry_run import DryRun
from connector.adapters.memory import CAPABILITIES, Faults, MemoryTool, ToolProject
from connector.config import Raw
from connector.errors import Conflict, Overtaken, Reject, Temporary, UsageError
from connector.io.objects import Objects
from connector.model import Item, Task, dump_json
from connector.store.label_store import ANNOTATION, IDENTITY, PREDICTION, TASK, Store
from connector.sync import rounds as sync
from connector.sync.items import BucketItems, Listed
from connector.sync.ledger import Ledger
from connector.sync.rounds import Effects, OnChange, OnDelete
from tests.unit.sources import Given, given, synced

contract = LabelingToolContract()
PNG = b"\x89PNG\r\n\x1a\n..."
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def ticking(start: datetime = NOW) -> Iterator[datetime]:
    return (start + timedelta(seconds=n) for n in itertools.count())


def new_project(**more: object) -> ToolProject:
    clock = ticking()
    return ToolProject(clock=lambda: next(clock), **more)  # type: ignore[arg-type]


def held(tool: MemoryTool) -> list[Task]:
    """What the tool holds, as the store should: by id, without the time at which a task changed last."""
    return sorted((undated(task) for task in tool.project.tasks.values()), key=lambda task: task.id)


def undated(task: Task) -> Task:
    by_id = sorted(task.annotations, key=lambda a: str(a.id))
    return task.model_copy(update={"updated_at": None, "annotations": tuple(by_id)})


def stored(store: Store) -> list[Task]:
    return [undated(task) for task in store.tasks()]


def small_batches(tool: MemoryTool) -> MemoryTool:
    tool.capabilities = replace(CAPABILITIES, import_batch=3)
    return tool


# push


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a crash left in doubt is waited for; the tool in memory has nothing on the way."""
    monkeypatch.setattr(sync, "LONGEST_WAIT_SECONDS", 0)


def keys_of(tool: MemoryTool) -> list[str]:
    return sorted(task.key for task in tool.project.tasks.values())


@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("lost", [False, True], ids=["before the work", "after the work"])
def test_a_push_that_breaks_off_anywhere_and_is_run_again_makes_each_task_once(
    tmp_path: Path, call: int, lost: bool
) -> None:
    tool = small_batches(MemoryTool())
    break_down = tool.faults.lose_answer if lost else tool.faults.fail
    break_down("add_items", call)
    keys = [f"k{n}" for n in range(8)]
    with pytest.raises(Temporary):
        synced(tool, given(*keys), tmp_path)
    with closing(Ledger(tmp_path / "sync.sqlite", "test")) as ledger:
        assert [batch for _, batch, _ in ledger.begun()] == [keys[3 * (call - 1) : 3 * call]]
    _, done = synced(tool, given(*keys), tmp_path)
    assert keys_of(tool) == keys
    assert done.new + done.known == done.found == 8
    assert done.known == min(8, 3 * (call - 1 + lost))
    with closing(Ledger(tmp_path / "sync.sqlite", "test")) as ledger:
        assert ledger.begun() == []


def test_what_was_on_its_way_when_we_died_is_waited_for_and_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, keys = MemoryTool(), ["a", "b"]
    with closing(Ledger(tmp_path / "sync.sqlite", "test")) as ledger:
        ledger.begin(keys, datetime.now(UTC))
    asked = []

    def tasks_of(of: Sequence[str]) -> Mapping[str, Sequence[str]]:
        asked.append(of)
        if len(asked) == 3:  # the tool is slow: it makes the tasks of the lost request only now
            list(tool.add_items(Item(key=key, data={}) for key in keys))
        return MemoryTool.tasks_of(tool, of)

    monkeypatch.setattr(tool, "tasks_of", tasks_of)
    monkeypatch.setattr(sync, "LONGEST_WAIT_SECONDS", 60)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    _, done = synced(tool, given(*keys), tmp_path)
    assert asked == [keys] * 3
    assert (done.new, done.known) == (0, 2)
    assert keys_of(tool) == keys


def test_refused_items_are_named_and_take_nobody_along(tmp_path: Path) -> None:
    tool = small_batches(MemoryTool())
    for key in ("k1", "k2", "k7"):
        tool.faults.refuse(key)
    rejects: list[Reject] = []
    _, done = synced(tool, given(*(f"k{n}" for n in range(9))), tmp_path, rejects=rejects)
    assert (done.found, done.new, done.known) == (9, 6, 0)
    assert [reject.where for reject in rejects] == ["k1", "k2", "k7"]
    assert keys_of(tool) == ["k0", "k3", "k4", "k5", "k6", "k8"]


def test_a_second_sync_changes_nothing_and_asks_for_little(tmp_path: Path) -> None:
    tool = MemoryTool()
    synced(tool, given(*(f"k{n}" for n in range(30)), version="v"), tmp_path)
    before, calls = dict(tool.project.tasks), tool.faults.calls.copy()
    _, done = synced(tool, given(*(f"k{n}" for n in range(30)), version="v"), tmp_path)
    assert (done.known, done.new, done.changed) == (30, 0, 0)
    assert tool.project.tasks == before
    asked = tool.faults.calls - calls
    counts = {"count_tasks", "count_annotations", "count_predictions"}
    assert set(asked) == {"read_ontology", "changed_tasks", *counts}
    assert set(asked.values()) == {1}


def test_a_key_that_other_people_pushed_meanwhile_is_not_pushed_again(tmp_path: Path) -> None:
    tool = small_batches(MemoryTool())
    synced(tool, given("a"), tmp_path)
    theirs = MemoryTool(tool.project)

    class Late(Given):
        def items(self, listed: Sequence[Listed], tool: LabelingTool) -> Iterator[Item]:
            ready = list(super().items(listed, tool))
            list(theirs.add_items(ready))
            return iter(ready)

    _, done = synced(tool, Late({"a": "", "b": "", "c": ""}), tmp_path)
    assert keys_of(tool) == ["a", "b", "c"]
    assert done.known + done.new == 3


def test_two_tasks_of_one_item_become_one_unless_people_answered_both(tmp_path: Path) -> None:
    tool = MemoryTool(new_project())
    synced(tool, given("raw/a", "raw/b", "raw/c"), tmp_path)
    for key in ("raw/a", "raw/b", "raw/c"):
        tool._new_task(Item(key=key, data={"image": key}))
    by_key = {key: [t for t in tool.project.tasks.values() if t.key == key] for key in keys_of(tool)}
    for task in (by_key["raw/b"][1], *by_key["raw/c"]):
        contract.write(tool, task, "", contract.choice("cat"))
    rejects: list[Reject] = []
    _, done = synced(tool, given("raw/a", "raw/b", "raw/c", "raw/d"), tmp_path, rejects=rejects)
    assert done.doubles == 2
    left = sorted(task.id for task in tool.project.tasks.values() if task.key != "raw/d")
    assert left == sorted([by_key["raw/a"][0].id, by_key["raw/b"][1].id, *(t.id for t in by_key["raw/c"])])
    assert [(r.where, "answered both" in r.why) for r in rejects] == [("raw/c", True)]


# raw data that is not what it was


def labeled(tool: MemoryTool, key: str) -> Task:
    [task] = [task for task in tool.project.tasks.values() if task.key == key]
    contract.write(tool, task, "", contract.choice("cat"))
    return tool.read_task(task.id)


@pytest.mark.parametrize("effect", OnChange)
def test_changed_raw_data_does_to_its_task_what_was_asked_for(tmp_path: Path, effect: OnChange) -> None:
    tool = MemoryTool(new_project())
    synced(tool, Given({"raw/a": "1", "raw/b": "1"}), tmp_path)
    old = labeled(tool, "raw/a")
    for _ in range(2):
        _, done = synced(tool, Given({"raw/a": "2", "raw/b": "1"}), tmp_path, Effects(on_change=effect))
    tasks = {task.key: task for task in tool.project.tasks.values()}
    assert tasks["raw/a"].annotations == old.annotations
    assert tasks["raw/b"].version == "1"
    if effect is OnChange.UPDATE:
        assert (tasks["raw/a"].id, tasks["raw/a"].version) == (old.id, "2")
        assert tasks["raw/a"].data["content"] == "2"
        assert (done.changed, done.updated, done.known) == (0, 0, 2)
    elif effect is OnChange.NEW_TASK:
        assert (tasks["raw/a"].version, tasks["raw/a#2"].version) == ("1", "2")
        assert (done.changed, done.new, done.known) == (0, 0, 2)
        assert len(tasks) == 3
    else:
        assert tasks["raw/a"].version == "1"
        assert tool.project.queues == {sync.CHANGED_QUEUE: [old.id]}
        assert (done.changed, done.updated, done.known) == (1, 0, 1)


@pytest.mark.parametrize("effect", OnDelete)
def test_raw_data_that_is_gone_does_to_its_task_what_was_asked_for(tmp_path: Path, effect: OnDelete) -> None:
    tool = MemoryTool(new_project())
    many = {f"raw/{n:02}": str(n) for n in range(30)}
    synced(tool, Given(many), tmp_path)
    synced(tool, given("of a manifest"), tmp_path, Effects(on_delete=OnDelete.KEEP))
    old = labeled(tool, "raw/00")
    left = {key: version for key, version in many.items() if key > "raw/01"}
    _, done = synced(tool, Given(left), tmp_path, Effects(on_delete=effect))
    [bare] = [task.id for task in tool.project.tasks.values() if task.key == "raw/01"] or ["removed"]
    assert done.gone == 2
    assert tool.read_task(old.id) == old
    queues = {
        OnDelete.KEEP: {},
        OnDelete.FLAG: {sync.GONE_QUEUE: [old.id, bare]},
        OnDelete.REMOVE_UNLABELED: {sync.GONE_QUEUE: [old.id]},
    }
    assert tool.project.queues == queues[effect]
    assert (bare == "removed", done.removed) == (effect is OnDelete.REMOVE_UNLABELED,) * 2
    assert "of a manifest" in keys_of(tool)


def test_a_listing_that_lost_too_much_deletes_nothing(tmp_path: Path) -> None:
    tool = MemoryTool()
    synced(tool, given(*(f"raw/{n}" for n in range(20))), tmp_path)
    rejects: list[Reject] = []
    remove = Effects(on_delete=OnDelete.REMOVE_UNLABELED)
    _, done = synced(tool, given("raw/1"), tmp_path, remove, rejects)
    assert (done.gone, done.removed, len(tool.project.tasks)) == (19, 0, 20)
    assert "19 of 20 tasks" in rejects[0].why
    everything = Effects(on_delete=OnDelete.REMOVE_UNLABELED, most_removed=1)
    assert synced(tool, given("raw/1"), tmp_path, everything)[1].removed == 19


def test_what_was_answered_in_the_last_moment_is_not_deleted(tmp_path: Path) -> None:
    tool = MemoryTool(new_project())
    synced(tool, given(*(f"raw/{n:02}" for n in range(20))), tmp_path)
    real = MemoryTool.delete_task

    def late(task: Task) -> None:
        contract.write(tool, task, "", contract.choice("cat"))
        real(tool, task)

    tool.delete_task = late  # type: ignore[method-assign]
    left = given(*(f"raw/{n:02}" for n in range(1, 20)))
    _, done = synced(tool, left, tmp_path, Effects(on_delete=OnDelete.REMOVE_UNLABELED))
    assert (done.removed, len(tool.project.tasks)) == (0, 20)
    assert len(tool.project.queues[sync.GONE_QUEUE]) == 1


def test_a_task_follows_what_moved_with_its_labels(tmp_path: Path) -> None:
    tool = MemoryTool(new_project())
    synced(tool, Given({"raw/a": "x", "raw/b": "y", "raw/c": "y", "raw/d": "z"}), tmp_path)
    old = labeled(tool, "raw/a")
    # `a` moved; of b and c, which are alike, one moved and one is gone: nobody can tell which; d was copied.
    moved = {"raw/new/a": "x", "raw/new/b": "y", "raw/d": "z", "raw/e": "z"}
    _, done = synced(tool, Given(moved), tmp_path, Effects(on_delete=OnDelete.KEEP))
    assert (done.moved, done.new, done.known, done.gone) == (1, 2, 1, 2)
    now = tool.read_task(old.id)
    assert (now.key, now.annotations, now.data["image"]) == ("raw/new/a", old.annotations, "raw/new/a")


def test_the_task_of_a_file_that_was_renamed_follows_it(tmp_path: Path) -> None:
    tool, raw = MemoryTool(new_project()), tmp_path / "raw"
    tool.project.buckets.append(tmp_path.as_uri())
    raw.mkdir()
    for name in ("a", "b"):
        (raw / f"{name}.png").write_bytes(PNG)
    source = BucketItems(Objects(str(raw)), Raw(), [], frozenset({"image"}))
    synced(tool, source, tmp_path)
    old = labeled(tool, source.objects.key_of("a.png"))
    (raw / "a.png").rename(raw / "ä c.png")
    _, done = synced(tool, source, tmp_path)
    assert (done.moved, done.known, done.new, done.gone) == (1, 1, 0, 0)
    now, key = tool.read_task(old.id), source.objects.key_of("ä c.png")
    assert (now.key, now.data["image"], now.annotations) == (key, key, old.annotations)


def test_what_cannot_be_shown_any_more_is_told_once_and_its_task_stays(tmp_path: Path) -> None:
    tool, raw, rejects = MemoryTool(new_project()), tmp_path / "raw", list[Reject]()
    tool.project.buckets.append(tmp_path.as_uri())
    raw.mkdir()
    for name in ("a", "b"):
        (raw / f"{name}.txt").write_bytes(PNG)
    synced(tool, BucketItems(Objects(str(raw)), Raw(), []), tmp_path)
    before = dict(tool.project.tasks)
    (raw / "a.txt").write_text("no picture")
    (raw / "b.txt").write_text("nor this")
    (raw / "b.txt").rename(raw / "c.txt")
    source = BucketItems(Objects(str(raw)), Raw(), rejects, frozenset({"image"}))
    update = Effects(OnChange.UPDATE, OnDelete.KEEP)
    _, done = synced(tool, source, tmp_path, update, rejects)
    assert sorted(reject.where[-5:] for reject in rejects) == ["a.txt", "c.txt"]
    assert (done.found, done.changed, done.updated, done.gone) == (2, 0, 0, 1)
    assert tool.project.tasks == before


def test_without_a_version_nothing_is_said_to_have_changed(tmp_path: Path) -> None:
    tool = MemoryTool()
    synced(tool, given("raw/a", "raw/b"), tmp_path)
    _, done = synced(tool, Given({"raw/a": "1", "raw/b": ""}), tmp_path, Effects(on_change=OnChange.UPDATE))
    assert (done.known, done.changed) == (2, 0)


def test_a_dry_run_counts_alike_and_writes_nothing(tmp_path: Path) -> None:
    tool = MemoryTool(new_project())
    synced(tool, Given({f"raw/{n:02}": str(n) for n in range(20)}), tmp_path)
    list(tool.add_items([Item(key="raw/pushed by others", data={})]))
    before = dict(tool.project.tasks)
    now = {"raw/01": "other", "raw/new": "19", "raw/pushed by others": "", "raw/02": "2"}
    effects = Effects(OnChange.UPDATE, OnDelete.REMOVE_UNLABELED, most_removed=1)
    store = Store(str(tmp_path / "labels"))
    version = store.version
    with closing(Ledger(Path(":memory:"), "test")) as ledger:
        dry = sync.push(DryRun(tool), store, Given(now), [], ledger, effects, dry_run=True)
    assert (tool.project.tasks, tool.project.queues, store.version) == (before, {}, version)
    _, done = synced(tool, Given(now), tmp_path, effects)
    assert dry == done


# predictions


def test_predictions_are_pulled_also_where_the_tool_says_nothing_of_them(tmp_path: Path) -> None:
    tool, store = MemoryTool(new_project()), Store(str(tmp_path / "labels"))
    a, b = contract.add(tool, "a", "b")
    sync.pull(tool, store)
    tool.write_predictions([contract.predicted(a, "cat", "v1"), contract.predicted(b, "dog", "v1", None)])
    # As a bulk import does it: the task does not count as changed.
    tool.project._changed.clear()
    sync.pull(tool, store)
    assert stored(store) == held(tool)
    assert store.count(PREDICTION) == 2
    tool.delete_predictions(tool.read_task(b.id).predictions)
    tool.project._changed.clear()
    sync.pull(tool, store)
    assert stored(store) == held(tool)
    assert store.count(PREDICTION) == 1


# pull


def test_each_version_is_kept_once_also_when_a_label_comes_back(tmp_path: Path) -> None:
    tool, store = MemoryTool(new_project()), Store(str(tmp_path / "labels"))
    [task] = contract.add(tool, "a")
    annotation = contract.write(tool, task, "", contract.choice("cat"))
    sync.pull(tool, store)
    for label in ("dog", "cat"):
        annotation = contract.edit(tool, annotation, contract.choice(label))
        sync.pull(tool, store)
        sync.pull(tool, store)
    versions = store.rows().filter(pl.col("record") == ANNOTATION).sort("pull").collect()["content"]
    assert [label for text in versions for label in ("cat", "dog") if label in text] == ["cat", "dog", "cat"]
    assert stored(store) == held(tool)


def test_a_ground_truth_that_is_taken_without_a_trace_is_noticed(tmp_path: Path) -> None:
    tool, store = MemoryTool(new_project()), Store(str(tmp_path / "labels"))
    [task] = contract.add(tool, "a")
    first = contract.write(tool, task, "", contract.choice("cat"))
    tool.write_annotation(first.model_copy(update={"ground_truth": True}), expect=first.revision)
    sync.pull(tool, store)
    other = first.model_copy(update={"id": None, "ground_truth": True, "annotator": "ben@example.com"})
    tool.write_annotation(other, expect=None)
    assert sync.pull(tool, store).annotations.changed == 1
    assert stored(store) == held(tool)


@pytest.mark.parametrize("page", [1, 2, 3, 4])
def test_an_interrupted_pull_keeps_its_pages_and_goes_on(tmp_path: Path, page: int) -> None:
    tool, store = MemoryTool(new_project(), page_size=2), Store(str(tmp_path / "labels"))
    contract.add(tool, *"abcdef")
    tool.faults.fail("changed_tasks", page)
    with pytest.raises(Temporary):
        sync.pull(tool, store)
    again = Store(str(tmp_path / "labels"))
    assert len(again.current(TASK)) == 2 * (page - 1)
    assert sync.pull(tool, again).tasks == 6 - 2 * (page - 1)
    assert stored(again) == held(tool)
    rows = again.rows().filter(pl.col("record") != "cursor").collect()
    assert not rows.select(IDENTITY).is_duplicated().any()


def test_of_two_writers_of_one_source_one_is_refused_and_loses_nothing(tmp_path: Path) -> None:
    tool = MemoryTool(new_project())
    contract.add(tool, "a", "b")
    [page] = tool.changed_tasks(None)
    one, two = Store(str(tmp_path / "labels")), Store(str(tmp_path / "labels"))
    assert one.cursor_kept == two.cursor_kept is None
    one.append(page.tasks, page.cursor, NOW)
    with pytest.raises(Conflict, match="another process"):
        two.append(page.tasks, page.cursor, NOW)
    assert len(Store(str(tmp_path / "labels")).current(TASK)) == 2
    assert stored(one) == held(tool)


def test_a_store_of_another_project_is_not_mixed_up_with_ours(tmp_path: Path) -> None:
    url = str(tmp_path / "labels")
    Store(url, "one").append([Task(id="1", key="a")], "10", NOW)
    with pytest.raises(UsageError, match="holds the labels of one, and this is two"):
        sync.pull(MemoryTool(), Store(url, "two"))
    assert Store(url, "one").cursor() == "10"
    assert len(Store(url, "one").current(TASK)) == 1


def test_a_pull_that_brings_nothing_new_writes_nothing(tmp_path: Path) -> None:
    tool, store = MemoryTool(new_project()), Store(str(tmp_path / "labels"))
    contract.add(tool, "a")
    sync.pull(tool, store)
    version = store.version
    sync.pull(tool, Store(str(tmp_path / "labels")))
    assert store.version == version


def test_an_old_version_is_what_the_store_held_then(tmp_path: Path) -> None:
    tool, store = MemoryTool(new_project()), Store(str(tmp_path / "labels"))
    [task] = contract.add(tool, "a")
    contract.write(tool, task, "", contract.choice("cat"))
    version = sync.pull(tool, store).version
    then = held(tool)
    tool.project.delete_task(task.id)
    sync.pull(tool, store)
    assert stored(store) == []
    assert [undated(task) for task in store.tasks(version)] == then


def test_a_torn_file_of_the_store_is_named(tmp_path: Path) -> None:
    tool, store = MemoryTool(new_project()), Store(str(tmp_path / "labels"))
    contract.add(tool, "a")
    sync.pull(tool, store)
    for path in (tmp_path / "labels").rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match="labels is damaged") as error:
        Store(str(tmp_path / "labels")).current(TASK)
    assert "pull everything again" in error.value.hint


class People(RuleBasedStateMachine):
    """People work, tasks come and go, ids come again, pulls break off: the store follows."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.tool = MemoryTool(new_project(reuse_ids=True), page_size=2)
        contract.add(self.tool)
        self.store = Store(self.folder.name + "/labels")
        self.keys = itertools.count()
        self.complete = True

    def teardown(self) -> None:
        self.pull()
        self.the_store_holds_what_the_tool_holds()
        self.folder.cleanup()

    def some(self, data: st.DataObject, what: Sequence[str]) -> str | None:
        return data.draw(st.sampled_from(sorted(what))) if what else None

    @rule(n=st.integers(1, 3))
    def add(self, n: int) -> None:
        contract.add(self.tool, *(f"k{next(self.keys)}" for _ in range(n)))
        self.complete = False

    @rule(data=st.data(), label=st.sampled_from(["cat", "dog"]))
    def answer(self, data: st.DataObject, label: str) -> None:
        if task := self.some(data, list(self.tool.project.tasks)):
            contract.write(self.tool, self.tool.read_task(task), "", contract.choice(label))
            self.complete = False

    @rule(data=st.data(), label=st.sampled_from(["cat", "dog"]), truth=st.booleans())
    def edit(self, data: st.DataObject, label: str, truth: bool) -> None:
        if id := self.some(data, self.annotations()):
            now = self.tool.read_annotation(id)
            result = dump_json([contract.choice(label)])
            said = now.model_copy(update={"result": result, "ground_truth": truth})
            self.tool.write_annotation(said, expect=now.revision)
            self.complete = False

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if id := self.some(data, self.annotations()):
            self.tool.delete_annotation(id, self.tool.read_annotation(id).revision)
            self.complete = False

    @rule(data=st.data())
    def delete_task(self, data: st.DataObject) -> None:
        if task := self.some(data, list(self.tool.project.tasks)):
            self.tool.project.delete_task(task)
            self.complete = False

    @rule()
    def pull(self) -> None:
        self.tool.faults = Faults()
        sync.pull(self.tool, self.store)
        self.complete = True

    @rule(page=st.integers(1, 3), method=st.sampled_from(["changed_tasks", "count_tasks", "task_ids"]))
    def pull_that_breaks_off(self, page: int, method: str) -> None:
        self.tool.faults.fail(method, self.tool.faults.calls[method] + page)
        try:
            sync.pull(self.tool, self.store)
            self.complete = True
        except Temporary:
            self.store = Store(self.folder.name + "/labels")

    def annotations(self) -> list[str]:
        return [str(a.id) for task in self.tool.project.tasks.values() for a in task.annotations]

    @invariant()
    def the_store_holds_what_the_tool_holds(self) -> None:
        if self.complete:
            assert stored(self.store) == held(self.tool)


TestPeople = People.TestCase
TestPeople.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


# one at a time


def test_two_syncs_at_once_make_each_task_once_and_both_end_well(tmp_path: Path) -> None:
    tool, keys = small_batches(MemoryTool()), [f"k{n}" for n in range(20)]
    meet = Barrier(2)

    def one(_: int) -> tuple[sync.Pulled, sync.Pushed]:
        meet.wait()
        return synced(tool, given(*keys), tmp_path)

    with ThreadPoolExecutor(2) as pool:
        both = [pushed for _, pushed in pool.map(one, range(2))]
    assert keys_of(tool) == sorted(keys)
    assert sorted((done.new, done.known, done.doubles) for done in both) == [(0, 20, 0), (20, 0, 0)]
    assert stored(Store(str(tmp_path / "labels"))) == held(tool)


def test_who_was_overtaken_before_it_wrote_begins_again_and_rejects_nothing_twice(tmp_path: Path) -> None:
    tool, store = MemoryTool(), Store(str(tmp_path / "labels"))
    rejects: list[Reject] = [Reject("earlier", "stays")]

    class Meanwhile(Given):
        """Another sync takes place while ours lists its items for the first time."""

        def __iter__(self) -> Iterator[Listed]:
            rejects.append(Reject("no picture", "of every listing"))
            if len(rejects) == 2 and not tool.project.tasks:
                synced(tool, given("a"), tmp_path)
            return super().__iter__()

    with closing(Ledger(tmp_path / "other.sqlite", "test")) as ledger:
        _, done = sync.sync(tool, store, Meanwhile(dict.fromkeys("ab", "")), rejects, ledger)
    assert (done.new, done.known) == (1, 1)
    assert keys_of(tool) == ["a", "b"]
    assert [reject.where for reject in rejects] == ["earlier", "no picture"]


def test_a_sync_that_lost_its_lease_sends_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, store = small_batches(MemoryTool()), Store(str(tmp_path / "labels"))
    add_items = tool.add_items

    def stands_still(*words: object, **more: object) -> Iterator[Task]:
        yield from add_items(*words, **more)  # type: ignore[arg-type]
        other = replace(store)
        monkeypatch.setattr(other._table, "_wait_for_turn", lambda _: None)
        other._table._silent = other.holder()
        with other.lease():
            other.take()

    monkeypatch.setattr(tool, "add_items", stands_still)
    monkeypatch.setattr("connector.store.delta.SIGNS", 1e9)
    with pytest.raises(Conflict) as caught, closing(Ledger(tmp_path / "l.sqlite", "test")) as ledger:
        sync.sync(tool, store, given(*(f"k{n}" for n in range(9))), [], ledger)
    assert not isinstance(caught.value, Overtaken)
    assert len(tool.project.tasks) == 3


def test_a_round_without_changes_commits_nothing(tmp_path: Path) -> None:
    tool, store = MemoryTool(), Store(str(tmp_path / "labels"))
    synced(tool, given("a", "b"), tmp_path)
    synced(tool, given("a", "b"), tmp_path)
    version = store.version
    synced(tool, given("a", "b"), tmp_path)
    assert store.version == version


def test_a_pull_by_itself_waits_for_its_turn_and_says_for_whom(tmp_path: Path) -> None:
    said: list[str] = []
    store = Store(str(tmp_path / "labels"), say=said.append)
    holder, tool = replace(store, say=print), MemoryTool()
    list(tool.add_items([Item(key="a", data={})]))
    with holder.lease(seconds=1.2):
        holder.take()
        assert sync.pull(tool, store).tasks == 1
    assert "in use by process" in said[0]


def test_an_answer_that_a_dying_server_kept_without_telling_is_found_when_it_is_quiet(tmp_path: Path) -> None:
    tool = MemoryTool(new_project())
    synced(tool, given("a", "b"), tmp_path)
    task = next(iter(tool.project.tasks.values()))
    answer = contract.write(tool, task, tool.whoami().name, contract.choice("cat"))
    silent = tool.project.tasks[task.id].model_copy(update={"updated_at": task.updated_at})
    tool.project.tasks[task.id] = silent
    store = Store(str(tmp_path / "labels"))
    assert sync.pull(tool, store).annotations.new == 1
    assert store.current(ANNOTATION)["id"].to_list() == [answer.id]
    calls = tool.faults.calls["changed_tasks"]
    assert not sync.pull(tool, store).annotations
    assert tool.faults.calls["changed_tasks"] == calls + 1
    edited = silent.annotations[0].model_copy(update={"result": "[]"})
    tool.project.tasks[task.id] = silent.model_copy(update={"annotations": (edited,)})
    assert not sync.pull(tool, store).annotations
    assert sync.pull(tool, store, everything=True).annotations.changed == 1


# tasks that the tool had before


def made_by_hand(tool: MemoryTool, **data: object) -> Task:
    id = tool._new_task(Item(key="?", data=data))
    tool.project.keep(tool.read_task(id).model_copy(update={"key": f"task:{id}"}))
    return tool.read_task(id)


def test_a_task_that_refers_to_the_object_is_adopted_and_keeps_its_data_and_answers(tmp_path: Path) -> None:
    tool = MemoryTool(new_project())
    old = made_by_hand(tool, image="s3://raw/a.png", patient="p-17")
    said = contract.write(tool, old, "", contract.choice("cat"))
    made_by_hand(tool, image="s3://raw/of-another-bucket.png")
    source, rejects = Given({"s3://raw/a.png": "1", "s3://raw/b.png": "1"}), list[Reject]()
    with closing(Ledger(tmp_path / "dry.sqlite", "test")) as ledger:
        store = Store(str(tmp_path / "labels"))
        dry = sync.push(DryRun(tool), store, source, rejects, ledger, dry_run=True)
    before = dict(tool.project.tasks)
    assert before[old.id].key == f"task:{old.id}"
    _, done = synced(tool, source, tmp_path, rejects=rejects)
    assert (dry.found, dry.new, dry.adopted) == (done.found, done.new, done.adopted) == (2, 1, 1)
    now = tool.read_task(old.id)
    assert (now.key, now.version, now.data, now.annotations) == ("s3://raw/a.png", "1", old.data, (said,))
    _, again = synced(tool, source, tmp_path)
    assert (again.known, again.new, again.adopted) == (2, 0, 0)
    assert tool.count_tasks() == 3
    assert rejects == []


def test_a_task_that_the_tool_made_of_the_object_is_adopted_where_its_data_names_none(tmp_path: Path) -> None:
    tool = MemoryTool(new_project())
    resolved = made_by_hand(tool, image="address of a cache", patient="p-17")
    listed = [made_by_hand(tool, image=f"row {n}") for n in range(2)]
    tool.project.imported |= {resolved.id: "s3://raw/a.png"}
    tool.project.imported |= dict.fromkeys([task.id for task in listed], "s3://raw/list.json")
    source = given("s3://raw/a.png", "s3://raw/list.json", "s3://raw/b.png", version="v1")
    with closing(Ledger(tmp_path / "dry.sqlite", "test")) as ledger:
        store = Store(str(tmp_path / "no labels"))
        dry = sync.push(DryRun(tool), store, source, [], ledger, dry_run=True)
    _, done = synced(tool, source, tmp_path)
    for pushed in (dry, done):
        assert (pushed.new, pushed.adopted, [r.where for r in pushed.rejects]) == (
            1,
            1,
            ["s3://raw/list.json"],
        )
    assert f"tasks {listed[0].id}, {listed[1].id} all refer to it" in done.rejects[0].why
    now = tool.read_task(resolved.id)
    assert (now.key, now.version, now.data) == ("s3://raw/a.png", "v1", resolved.data)


def test_an_ambiguous_adoption_is_a_reject_that_says_so(tmp_path: Path) -> None:
    tool = MemoryTool(new_project())
    for _ in range(2):
        made_by_hand(tool, image="s3://raw/twice.png")
    made_by_hand(tool, left="s3://raw/left.png", right="s3://raw/right.png")
    rejects: list[Reject] = []
    keys = [f"s3://raw/{name}.png" for name in ("twice", "left", "right", "new")]
    _, done = synced(tool, given(*keys), tmp_path, rejects=rejects)
    assert (done.found, done.new, done.adopted) == (4, 1, 0)
    told = {r.where: r.why for r in rejects}
    assert set(told) == set(keys[:3])
    assert "tasks 1, 2 all refer to it" in told[keys[0]]
    assert "refers to 2 objects" in told[keys[1]]
    assert tool.count_tasks() == 4
