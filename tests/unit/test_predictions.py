"""A model's answers: checked line by line, shown once, and in place of stale ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from connector.adapters.contract import LabelingToolContract
from connector.adapters.memory import MemoryTool
from connector.errors import UsageError
from connector.store.label_store import Store
from connector.sync.predictions import Predicted, push_predictions
from connector.sync.rounds import pull
from tests.unit.test_sync import held, new_project, stored

contract = LabelingToolContract()


class Shown:
    """A project with three tasks, its store, and a file of predictions."""

    def __init__(self, folder: Path) -> None:
        self.tool, self.store = MemoryTool(new_project()), Store(str(folder / "labels"))
        self.file = folder / "model.jsonl"
        self.tool.write_ontology(self.tool.parse_ontology(contract.source))
        self.tasks = contract.add(self.tool, "a", "b", "c")

    def push(self, *rows: object, keep_others: bool = False) -> Predicted:
        self.file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        pull(self.tool, self.store)
        done = push_predictions(self.tool, self.store, self.file, keep_others)
        pull(self.tool, self.store)
        assert stored(self.store) == held(self.tool)
        return done

    def said(self) -> list[list[tuple[str, str, float | None]]]:
        return [contract.said(self.tool, task) for task in self.tasks]


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    return Shown(tmp_path)


def row(key: str, label: str, model: str = "v1", **more: Any) -> dict[str, Any]:
    return {"key": key, "result": [contract.choice(label)], "model_version": model, **more}


def test_predictions_are_shown_by_key_or_by_id(shown: Shown) -> None:
    by_id = {**row("", "dog", score=0.5), "task": shown.tasks[1].id}
    done = shown.push(row("a", "cat", score=1), by_id)
    assert (done.found, done.stored, done.replaced, done.rejects) == (2, 2, 0, [])
    assert shown.said() == [[("v1", "cat", 1.0)], [("v1", "dog", 0.5)], []]
    again = shown.push(row("a", "cat", score=1), by_id)
    assert (again.found, again.stored, again.replaced) == (2, 0, 0)


def test_a_new_version_takes_the_place_of_stale_ones_on_its_tasks(shown: Shown) -> None:
    shown.push(row("a", "cat", "v1"), row("b", "cat", "v1"), row("a", "dog", "other"), keep_others=True)
    done = shown.push(row("a", "dog", "v2"))
    assert (done.stored, done.replaced) == (1, 2)
    assert shown.said() == [[("v2", "dog", None)], [("v1", "cat", None)], []]
    kept = shown.push(row("a", "cat", "v3"), keep_others=True)
    assert (kept.stored, kept.replaced) == (1, 0)
    assert shown.said()[0] == [("v2", "dog", None), ("v3", "cat", None)]


def test_broken_lines_are_named_and_the_others_shown(shown: Shown) -> None:
    broken: list[tuple[Any, str]] = [
        ("text", "not a JSON object"),
        (row("nobody", "cat"), "no task has the key or id 'nobody'"),
        ({**row("a", "cat"), "model_version": ""}, "model_version must be a name"),
        (row("a", "cat", score=1.5), "score must be a number from 0 to 1"),
        (row("a", "cat", score=True), "score must be"),
        (row("a", "wolf"), "label 'wolf' is not in the ontology"),
        ({**row("a", "cat"), "result": None}, "must be a list of regions"),
        (row("b", "cat"), ""),
    ]
    done = shown.push(*(line for line, _ in broken))
    assert (done.found, done.stored) == (8, 1)
    assert [reject.where.rsplit(":", 1)[1] for reject in done.rejects] == [*"1234567"]
    for reject, (_, why) in zip(done.rejects, broken, strict=False):
        assert why in reject.why
    shown.file.write_text("{torn\n")
    assert "not JSON" in push_predictions(shown.tool, shown.store, shown.file).rejects[0].why


def test_a_file_that_is_not_there_is_a_usage_error(shown: Shown) -> None:
    with pytest.raises(UsageError, match=r"model\.jsonl"):
        push_predictions(shown.tool, shown.store, shown.file)
