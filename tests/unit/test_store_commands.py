"""connector store: each command through the command line, on a store that a real pull wrote."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from connector.model import Annotation, Prediction, Task
from connector.project import open_project
from tests.conftest import run_command

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def result(label: str) -> str:
    region = {"id": "a", "from_name": "q", "to_name": "t", "type": "choices", "value": {"choices": [label]}}
    return json.dumps([region])


def task(id: str, label: str, skipped: bool = False) -> Task:
    said = Annotation(
        id=id, task_id=id, annotator="ann", result=result(label), created_at=NOW, cancelled=skipped
    )
    guess = Prediction(id=id, task_id=id, result=result(label), model_version="v1", created_at=NOW)
    return Task(id=id, key=f"k{id}", created_at=NOW, annotations=(said,), predictions=(guess,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A line whose store has three versions."""
    (tmp_path / "connector.toml").write_text(
        '[tool]\nurl = "http://localhost:1"\nproject = 1\n[raw]\nurl = "raw"\n[store]\nurl = "labels"\n'
    )
    store = open_project(tmp_path / "connector.toml").store()
    store.append([task("1", "cat"), task("2", "dog")], "1", NOW)
    store.append([task("1", "owl")], "2", NOW)
    store.append([task("3", "cat", skipped=True)], "3", NOW, deleted_tasks=["2"])
    return tmp_path


def ask(folder: Path, *words: str, code: int = 0) -> dict[str, Any]:
    found, out, err = run_command(["store", *words, "--json"], folder, {})
    assert found == code, err
    answer: dict[str, Any] = json.loads(out)
    return answer


def say(folder: Path, *words: str) -> str:
    code, out, err = run_command(["store", *words], folder, {})
    assert code == 0, err
    return out


def test_the_log(folder: Path) -> None:
    found = ask(folder, "log")
    assert [one["version"] for one in found["commits"]] == [2, 1, 0]
    assert found["commits"][0]["annotations"] == {"new": 1, "changed": 0, "deleted": 1}
    assert found["commits"][1]["predictions"] == {"new": 0, "changed": 1, "deleted": 0}
    assert found["writing"] is None
    assert found["source"]["version"] == 2
    assert [one["version"] for one in ask(folder, "log", "--last", "1")["commits"]] == [2]
    assert "1, 0, 1" in say(folder, "log")
    with open_project(folder / "connector.toml").store().lease() as _:
        pass


def test_the_log_tells_who_is_writing_and_hides_what_only_says_that(folder: Path) -> None:
    store = open_project(folder / "connector.toml").store()
    with store.lease():
        store.take()
        assert ask(folder, "log")["writing"].startswith("process ")
        assert "is writing now" in say(folder, "log")
    assert len(ask(folder, "log")["commits"]) == 3
    assert [one["kind"] for one in ask(folder, "log", "--all")["commits"]] == ["lease"] * 2 + ["pull"] * 3


def test_what_is_held(folder: Path) -> None:
    found = ask(folder, "show")
    assert [found[name] for name in ("tasks", "annotations", "skipped", "predictions")] == [2, 1, 1, 2]
    assert found["controls"] == [{"control": "q", "labels": [{"label": "owl", "count": 1}]}]
    assert ask(folder, "show", "--version", "0")["controls"][0]["labels"][0]["label"] == "cat"
    assert "2 tasks, 1 annotations, 1 skipped, 2 predictions" in say(folder, "show")


def test_what_changed(folder: Path) -> None:
    found = ask(folder, "diff", "0", "2", "--out", "changes.jsonl")
    assert found["tasks"] == {"added": 1, "changed": 0, "deleted": 1}
    assert found["annotations"] == found["predictions"] == {"added": 1, "changed": 1, "deleted": 1}
    assert found["annotators"] == [{"annotator": "ann", "added": 1, "changed": 1, "deleted": 1}]
    assert (found["old"], found["new"]) == (0, 2)
    rows = pl.read_ndjson(folder / "changes.jsonl")
    assert rows.height == 8
    text = say(folder, "diff", "0")
    assert "cat" in text
    assert "owl" in text
    back = ask(folder, "diff", "2", "0")
    assert back["annotations"] == found["annotations"]


def test_a_snapshot_names_a_version_for_every_command(folder: Path) -> None:
    assert ask(folder, "snapshot", "first", "--version", "0", "--dry-run")["snapshots"] == []
    named = ask(folder, "snapshot", "first", "--version", "0")["snapshots"]
    assert [(one["name"], one["version"]) for one in named] == [("first", 0)]
    assert ask(folder, "show", "--snapshot", "first")["tasks"] == 2
    assert ask(folder, "show", "--snapshot", "first")["source"]["version"] == 0
    assert ask(folder, "diff", "first", "2")["old"] == 0
    assert ask(folder, "log")["commits"][-1]["snapshot"] == "first"
    assert "first" in say(folder, "snapshot")
    code, out, err = run_command(["export", "out.json", "--version", "first", "--json"], folder, {})
    assert code == 0, err
    assert json.loads(out)["version"] == 0
    assert {one["id"] for one in json.loads((folder / "out.json").read_text())} == {1, 2}
    assert ask(folder, "snapshot", "first", "--remove", "--dry-run")["snapshots"] == named
    assert ask(folder, "snapshot", "first", "--remove")["snapshots"] == []
    assert ask(folder, "show", "--snapshot", "first", code=2)["next"]


@pytest.mark.parametrize("words", [["compact"], ["vacuum", "--days", "0", "--force"]])
def test_a_dry_run_says_the_same_and_does_nothing(folder: Path, words: list[str]) -> None:
    if words[0] == "vacuum":
        ask(folder, "compact")
    before = sorted(path.name for path in (folder / "labels").rglob("*"))
    would = ask(folder, *words, "--dry-run")
    assert "would be" in say(folder, *words, "--dry-run")
    assert sorted(path.name for path in (folder / "labels").rglob("*")) == before
    did = ask(folder, *words)
    same = ("files", "bytes", "into", "kept")
    assert {name: would[name] for name in same if name in would} == {
        name: did[name] for name in same if name in did
    }
    assert did["files"] == 3
    assert (would["dry_run"], did["dry_run"]) == (True, False)
    assert ask(folder, "show", "--version", "0")["tasks"] == 2


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("show --version 9", "has no version 9; its last is 2"),
        ("show --version -1", "has no version -1"),
        ("show --snapshot nope", "has no snapshot 'nope'"),
        ("show --version 1 --snapshot nope", "--version and --snapshot"),
        ("diff 0 9", "has no version 9"),
        ("diff nope", "has no snapshot 'nope'"),
        ("snapshot 7up", "cannot name a snapshot"),
        ("snapshot late --version 9", "has no version 9"),
        ("snapshot --remove", "no name is given"),
        ("snapshot nope --remove", "has no snapshot 'nope'"),
        ("vacuum --days 1", "may still be read"),
    ],
)
def test_what_cannot_be_is_said_with_the_next_step(folder: Path, words: str, what: str) -> None:
    found = ask(folder, *words.split(), code=2)
    assert what in found["error"]
    assert found["next"]
    assert ask(folder, "log", "--all")["commits"][0]["kind"] in ("pull", "lease")


@pytest.mark.parametrize("words", ["show", "diff 0", "snapshot", "compact", "vacuum"])
def test_of_an_empty_store_there_is_nothing_to_tell(folder: Path, words: str) -> None:
    (folder / "connector.toml").write_text(
        (folder / "connector.toml").read_text().replace('"labels"', '"none"')
    )
    assert "is empty" in ask(folder, *words.split(), code=2)["error"]
    assert ask(folder, "log")["commits"] == []
    assert say(folder, "log") == "The label store has no versions yet; run `connector pull`.\n"
    assert not (folder / "none").exists()


@pytest.mark.parametrize(
    "label", ["[/x]", "[occluded]", "[bold]cat", "\x1b[2J\x07cat", "\x9b2Jcat", "\u202ecat"]
)
def test_labels_are_shown_as_they_are_and_a_terminal_obeys_none_of_them(folder: Path, label: str) -> None:
    open_project(folder / "connector.toml").store().append([task("1", label)], "4", NOW)
    shown = say(folder, "show")
    if label.isprintable():
        assert label in shown
    else:
        assert all(sign.isprintable() or sign == "\n" for sign in shown)
        assert ascii(label)[1:-1] in shown
