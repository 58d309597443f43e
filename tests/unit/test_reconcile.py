"""Whether bucket, tool and store agree, and what is said where they do not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from connector.adapters.contract import LabelingToolContract
from connector.adapters.memory import MemoryTool
from connector.errors import Reject
from connector.model import Item
from connector.store.label_store import Store
from connector.sync.items import Listed
from connector.sync.ledger import Ledger
from connector.sync.reconcile import Reconciled, reconcile
from connector.sync.rounds import Effects, OnDelete, Pushed, pull
from tests.unit.sources import Given, synced
from tests.unit.test_sync import made_by_hand, new_project

contract = LabelingToolContract()
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_after_a_sync_all_agree(tmp_path: Path) -> None:
    tool, source = MemoryTool(new_project(), page_size=2), Given({f"raw/{n}": str(n) for n in range(7)})
    synced(tool, source, tmp_path)
    task = tool.read_task("3")
    contract.write(tool, task, "", contract.choice("cat"))
    tool.write_predictions([contract.predicted(task, "cat", "v1")])
    pull(tool, Store(str(tmp_path / "labels")))
    found = reconcile(tool, Store(str(tmp_path / "labels")), source)
    assert (found.items, found.tasks, found.annotations, len(found.differences)) == (7, 7, 1, 0)


def test_each_difference_is_listed_by_its_name(tmp_path: Path) -> None:
    tool = MemoryTool(new_project())
    source = Given(
        {f"raw/{name}": "1" for name in ("same", "gone", "changed", "twice", "deleted", "answered")}
    )
    synced(tool, source, tmp_path)
    by_key = {task.key: task for task in tool.project.tasks.values()}
    tool._new_task(Item(key="raw/twice", data={}))
    pull(tool, Store(str(tmp_path / "labels")))

    tool.project.delete_task(by_key["raw/deleted"].id)
    contract.write(tool, by_key["raw/answered"], "", contract.choice("cat"))
    tool.project.keep(tool.read_task(by_key["raw/same"].id).model_copy(update={"overlap": 9}))
    [late] = tool.add_items([Item(key="made by hand", data={})])
    now = {key: "1" for key in source.versions if key not in ("raw/gone", "raw/deleted")}
    found = reconcile(
        tool, Store(str(tmp_path / "labels")), Given({**now, "raw/changed": "2", "raw/new": "1"})
    )
    told = sorted(
        (row["what"], row["key"] or "", row["detail"]) for row in found.differences.iter_rows(named=True)
    )
    answer = tool.read_task(by_key["raw/answered"].id).annotations[0]
    assert told == sorted(
        [
            ("raw data changed", "raw/changed", "2 instead of 1"),
            ("two tasks", "raw/twice", ""),
            ("two tasks", "raw/twice", ""),
            ("raw data gone", "raw/gone", ""),
            ("no task", "raw/new", ""),
            ("not in store", "", f"annotation {answer.id}"),
            ("not in store", "made by hand", f"task {late.id}"),
            ("not in tool", "raw/deleted", f"task {by_key['raw/deleted'].id}"),
            ("store is stale", "raw/same", f"task {by_key['raw/same'].id}"),
        ]
    )


def test_people_who_label_while_it_reads_spoil_nothing(tmp_path: Path) -> None:
    tool, source = MemoryTool(new_project(), page_size=2), Given({f"raw/{n}": str(n) for n in range(6)})
    synced(tool, source, tmp_path, Effects(on_delete=OnDelete.KEEP))
    wrote = []

    def meanwhile(_: int) -> None:
        if not wrote:
            wrote.append(contract.write(tool, tool.read_task("1"), "", contract.choice("cat")))

    found = reconcile(tool, Store(str(tmp_path / "labels")), source, meanwhile)
    assert (found.tasks, found.annotations) == (6, 1)
    assert set(found.differences["what"]) == {"not in store"}


def test_tasks_that_no_push_made_are_duplicates_or_unexplained(tmp_path: Path) -> None:
    tool, source = MemoryTool(new_project()), Given({"s3://raw/a": "1"})
    synced(tool, source, tmp_path)
    [ours] = tool.task_ids()
    twin = made_by_hand(tool, image="s3://raw/a")
    resolved = made_by_hand(tool, image="address of a cache")
    tool.project.imported[resolved.id] = "s3://raw/a"
    alone = made_by_hand(tool, text="no object at all")
    pull(tool, Store(str(tmp_path / "labels")))
    found = reconcile(tool, Store(str(tmp_path / "labels")), source).differences
    assert found.select("task", "what", "detail").rows() == [
        (twin.id, "two tasks", f"its object is that of task {ours}"),
        (resolved.id, "two tasks", f"its object is that of task {ours}"),
        (alone.id, "no item", ""),
    ]


class Rejecting(Given):
    """A bucket in which some objects are empty, which its listing reports."""

    def __init__(self, versions: dict[str, str], empty: dict[str, str]) -> None:
        super().__init__(versions)
        self.empty = empty
        self.rejects: list[Reject] = []

    def __iter__(self) -> Iterator[Listed]:
        self.rejects += [Reject(key, "the object is empty", version) for key, version in self.empty.items()]
        return super().__iter__()


class Rejects:
    """A project whose tool refuses `raw/refused`, and whose bucket holds an empty object."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tool = MemoryTool(new_project())
        self.tool.faults.refuse("raw/refused")
        self.versions = {"raw/good": "1", "raw/refused": "1"}
        self.empty = {"raw/empty": "1"}

    def ledger(self) -> Ledger:
        return Ledger(self.folder / "sync.sqlite", "test")

    def push(self) -> Pushed:
        source = Rejecting(self.versions, self.empty)
        return synced(self.tool, source, self.folder, rejects=source.rejects)[1]

    def compare(self) -> Reconciled:
        source = Rejecting(self.versions, self.empty)
        store = Store(str(self.folder / "labels"))
        with closing(self.ledger()) as ledger:
            return reconcile(self.tool, store, source, rejects=source.rejects, ledger=ledger)

    def accept(self, *where: str) -> None:
        with closing(self.ledger()) as ledger:
            ledger.accept(where, "ann", NOW)


def counted(found: Pushed | Reconciled) -> list[str]:
    rejects = found.rejects if isinstance(found, Pushed) else found.counted
    return sorted(reject.where for reject in rejects)


def test_accepted_rejects_count_neither_in_a_push_nor_for_agreement(tmp_path: Path) -> None:
    line = Rejects(tmp_path)
    assert counted(line.push()) == ["raw/empty", "raw/refused"]
    found = line.compare()
    assert (counted(found), len(found.differences), found.agree) == (["raw/empty", "raw/refused"], 0, False)

    line.accept("raw/refused")
    assert (counted(line.push()), counted(line.compare()), line.compare().agree) == (
        ["raw/empty"],
        ["raw/empty"],
        False,
    )
    line.accept("raw/empty")
    pushed = line.push()
    assert (counted(pushed), len(pushed.accepted), pushed.found) == ([], 2, 3)
    found = line.compare()
    assert (counted(found), [one.accepted_by for one in found.rejects]) == ([], ["ann", "ann"])
    assert found.agree


def test_what_changed_is_not_accepted_any_more(tmp_path: Path) -> None:
    line = Rejects(tmp_path)
    line.push()
    line.accept("raw/refused", "raw/empty")
    line.versions["raw/refused"] = "2"
    found = line.compare()  # before a push has seen it, it is an item without a task
    assert [(row["key"], row["what"]) for row in found.differences.iter_rows(named=True)] == [
        ("raw/refused", "no task")
    ]
    assert counted(line.push()) == ["raw/refused"]
    line.empty["raw/empty"] = "2"
    assert (counted(line.compare()), line.compare().agree) == (["raw/empty", "raw/refused"], False)
    assert counted(line.push()) == ["raw/empty", "raw/refused"]


def test_a_reject_whose_cause_is_gone_is_no_longer_listed(tmp_path: Path) -> None:
    line = Rejects(tmp_path)
    line.push()
    line.accept("raw/refused")
    del line.versions["raw/refused"]
    line.versions["raw/empty"] = line.empty.pop("raw/empty") + "0"
    assert line.compare().rejects == []
    assert counted(line.push()) == []
    with closing(line.ledger()) as ledger:
        assert ledger.rejects() == []
    assert line.compare().agree


def test_an_object_that_became_empty_after_its_task_was_made_is_one_reject(tmp_path: Path) -> None:
    line = Rejects(tmp_path)
    line.versions.pop("raw/refused")
    line.push()
    line.empty["raw/good"] = "2"
    del line.versions["raw/good"]
    line.push()
    line.accept("raw/good", "raw/empty")
    assert line.compare().agree


def test_two_answered_tasks_of_one_item_can_be_accepted(tmp_path: Path) -> None:
    tool, source = MemoryTool(new_project()), Given({"raw/a": "1"})
    synced(tool, source, tmp_path)
    tool._new_task(Item(key="raw/a", data={}))
    for id in tool.task_ids():
        contract.write(tool, tool.read_task(id), "", contract.choice("cat"))
    source = replace(source, versions={"raw/a": "1", "raw/new": "1"})
    _, pushed = synced(tool, source, tmp_path)
    assert counted(pushed) == ["raw/a"]
    with closing(Ledger(tmp_path / "sync.sqlite", "test")) as ledger:
        found = reconcile(tool, Store(str(tmp_path / "labels")), source, ledger=ledger)
        assert (counted(found), len(found.differences)) == (["raw/a"], 0)
        ledger.accept(None, "ann", NOW)
        assert reconcile(tool, Store(str(tmp_path / "labels")), source, ledger=ledger).agree
        # A reject of another manifest explains nothing here.
        other = replace(source, manifest="file:///m.csv")
        assert len(reconcile(tool, Store(str(tmp_path / "labels")), other, ledger=ledger).differences) == 2
