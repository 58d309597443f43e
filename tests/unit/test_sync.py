"""Push and pull against the in-memory tool, which can be told to break down on the way."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from connector import sync
from connector.adapters.contract import LabelingToolContract
from connector.adapters.memory import CAPABILITIES, Faults, MemoryTool, Project
from connector.adapters.objects import Objects
from connector.errors import Conflict, Reject, Temporary, UsageError
from connector.model import Item, Task, dump_json
from connector.store import ANNOTATION, IDENTITY, TASK, Store

contract = LabelingToolContract()
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def ticking(start: datetime = NOW) -> Iterator[datetime]:
    return (start + timedelta(seconds=n) for n in itertools.count())


def new_project(**more: object) -> Project:
    clock = ticking()
    return Project(clock=lambda: next(clock), **more)  # type: ignore[arg-type]


def items(keys: Sequence[str]) -> Iterator[Item]:
    return (Item(key=key, data={"image": f"s3://raw/{key}"}) for key in keys)


def held(tool: MemoryTool) -> list[Task]:
    """What the tool holds, as the store should: by id, without the time at which a task changed last."""
    return sorted((undated(task) for task in tool.project.tasks.values()), key=lambda task: task.id)


def undated(task: Task) -> Task:
    by_id = sorted(task.annotations, key=lambda a: str(a.id))
    return task.model_copy(update={"updated_at": None, "annotations": tuple(by_id)})


def stored(store: Store) -> list[Task]:
    return [undated(task) for task in store.tasks()]


def small_batches(tool: MemoryTool) -> MemoryTool:
    from dataclasses import replace

    tool.capabilities = replace(CAPABILITIES, import_batch=3)
    return tool


# push


@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("lost", [False, True], ids=["before the work", "after the work"])
def test_a_push_that_breaks_off_anywhere_and_is_run_again_makes_each_task_once(call: int, lost: bool) -> None:
    tool = small_batches(MemoryTool())
    break_down = tool.faults.lose_answer if lost else tool.faults.fail
    break_down("add_items", call)
    keys = [f"k{n}" for n in range(8)]
    with pytest.raises(Temporary):
        sync.push(tool, items(keys), [])
    done = sync.push(tool, items(keys), [])
    assert sorted(task.key for task in tool.project.tasks.values()) == keys
    assert done.new + done.known == done.found == 8
    assert done.known == 3 * (call - 1 + lost) if call < 3 else done.known in (6, 8)


def test_refused_items_are_named_and_take_nobody_along() -> None:
    tool = small_batches(MemoryTool())
    for key in ("k1", "k2", "k7"):
        tool.faults.refuse(key)
    done = sync.push(tool, items([f"k{n}" for n in range(9)]), [])
    assert (done.found, done.new, done.known) == (9, 6, 0)
    assert [reject.where for reject in done.rejects] == ["k1", "k2", "k7"]
    assert set(tool.known_keys()) == {"k0", "k3", "k4", "k5", "k6", "k8"}


def test_a_key_that_comes_twice_is_one_task() -> None:
    tool = MemoryTool()
    done = sync.push(tool, items(["a", "b", "a"]), [])
    assert (done.found, done.new, done.known) == (3, 2, 1)


@pytest.mark.parametrize(
    ("start", "shown"),
    [
        (b"\x89PNG\r\n\x1a\n", True),
        (b"\xff\xd8\xff\xe0", True),
        (b"RIFF\x00\x00\x00\x00WEBP", True),
        (b"\x00\x00\x00\x20ftypavif", True),
        (b"RIFF\x00\x00\x00\x00WAVE", False),
        (b"%PDF-1.7", False),
        (b"", False),
    ],
)
def test_pictures_are_known_by_their_first_bytes(start: bytes, shown: bool) -> None:
    assert sync.is_image(start) is shown


def manifest(path: Path, text: str) -> tuple[list[Item], list[Reject]]:
    path.write_text(text, encoding="utf-8")
    rejects: list[Reject] = []
    raw = Objects("memory://raw")
    return list(sync.items_of_manifest(path, MemoryTool(), "image", raw, rejects)), rejects


def test_a_manifest_names_what_it_shows_by_url_by_path_or_by_key(tmp_path: Path) -> None:
    found, rejects = manifest(tmp_path / "m.csv", "key,image,site\na,s3://x/a.png,\nb,b.png,Linz\nc.png,,\n")
    assert [(i.key, i.data["image"]) for i in found] == [
        ("a", "s3://x/a.png"),
        ("b", "memory://raw/b.png"),
        ("c.png", "memory://raw/c.png"),
    ]
    assert found[1].data["site"] == "Linz"
    assert "site" not in found[0].data
    assert rejects == []


def test_a_manifest_of_json_lines_keeps_types_and_names_torn_lines(tmp_path: Path) -> None:
    found, rejects = manifest(tmp_path / "m.jsonl", '{"key": "007", "n": 3}\n{"key": "b"\n[1]\n\n{"n": 1}\n')
    assert [(i.key, i.data["n"]) for i in found] == [("007", 3)]
    assert [r.where.rsplit(":", 1)[1] for r in rejects] == ["2", "3", "5"]


@pytest.mark.parametrize("name", ["absent.csv", "m.txt"])
def test_a_manifest_that_cannot_be_read_is_a_usage_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "m.txt").write_text("key\na\n")
    with pytest.raises(UsageError, match="manifest"):
        list(sync.items_of_manifest(tmp_path / name, MemoryTool(), "image", Objects("memory://raw"), []))


def test_a_bucket_gives_an_item_for_each_object_and_names_what_is_no_picture() -> None:
    raw = Objects("memory://raw")
    raw.write("a/1.png", b"\x89PNG\r\n\x1a\n...")
    raw.write("b.png", b"")
    raw.write("c.txt", b"hello")
    rejects: list[Reject] = []
    found = list(sync.items_of_bucket(raw, MemoryTool(), "image", rejects, check_images=True))
    assert [i.key for i in found] == ["memory://raw/a/1.png"]
    assert sorted(r.where for r in rejects) == ["memory://raw/b.png", "memory://raw/c.txt"]


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
        sync.push(self.tool, items([f"k{next(self.keys)}" for _ in range(n)]), [])
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
