"""Whether bucket, tool and store agree, and what is said where they do not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from connector.adapters.contract import LabelingToolContract
from connector.adapters.memory import MemoryTool
from connector.model import Item
from connector.reconcile import reconcile
from connector.store import Store
from connector.sync import Effects, OnDelete, pull
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
    alone = made_by_hand(tool, text="no object at all")
    pull(tool, Store(str(tmp_path / "labels")))
    found = reconcile(tool, Store(str(tmp_path / "labels")), source).differences
    assert found.select("task", "what", "detail").rows() == [
        (twin.id, "two tasks", f"its object is that of task {ours}"),
        (alone.id, "no item", ""),
    ]
