"""Labels out: each form holds all that the store does."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from connector.errors import UsageError
from connector.formats.export import export
from connector.formats.label_files import read_file
from connector.io.objects import Objects
from connector.model import Annotation, Prediction, Task
from connector.store.label_store import Store
from connector.store.labels import read_store

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def choice(label: str) -> str:
    return json.dumps(
        [{"id": "a", "from_name": "q", "to_name": "t", "type": "choices", "value": {"choices": [label]}}]
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "labels"))
    said = [
        Annotation(id=str(n), task_id="7", annotator=who, result=choice(label), created_at=NOW, seconds=1.5)
        for n, (who, label) in enumerate([("ann", "cat"), ("bën", 'd"o\ng')])
    ]
    said.append(Annotation(id="9", task_id="7", annotator="cleo", cancelled=True, created_at=NOW))
    guess = Prediction(
        id="3", task_id="7", result=choice("cat"), model_version="v1", score=0.25, created_at=NOW
    )
    tasks = [
        Task(id="7", key="k7", data={"text": "ü\n"}, version="e1", annotations=said, predictions=[guess])
    ]
    store.append([*tasks, Task(id="8", key="k8", data={"n": 1})], "1", NOW)
    return store


def test_an_export_in_json_reads_back_as_the_same_labels(store: Store, tmp_path: Path) -> None:
    done = export(store, Objects(str(tmp_path / "out.json")))
    assert (done.tasks, done.annotations, done.version) == (2, 3, 0)
    again, ours = read_file(tmp_path / "out.json"), read_store(store, {})
    people = pl.col("role") == "person"
    columns = ["task", "annotator", "role", "seconds", "created_at"]
    assert again.labels.answers.select(columns).equals(ours.labels.answers.filter(people).select(columns))
    assert again.labels.regions["label"].to_list() == ["cat", 'd"o\ng']
    [first, second] = json.loads((tmp_path / "out.json").read_text())
    assert (first["key"], first["data"], second["data"]) == ("k7", {"text": "ü\n"}, {"n": 1})
    assert [p["score"] for p in first["predictions"]] == [0.25]


def test_json_lines_are_the_same_tasks(store: Store, tmp_path: Path) -> None:
    for name in ("out.json", "out.jsonl"):
        export(store, Objects(str(tmp_path / name)))
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == json.loads((tmp_path / "out.json").read_text())


def test_a_file_may_have_any_name(store: Store, tmp_path: Path) -> None:
    export(store, Objects(str(tmp_path / "ä 100% #1.json")))
    assert (tmp_path / "ä 100% #1.json").is_file()


def test_a_table_has_a_row_for_each_annotation_and_each_bare_task(store: Store, tmp_path: Path) -> None:
    export(store, Objects(str(tmp_path / "out.parquet")))
    table = pl.read_parquet(tmp_path / "out.parquet")
    assert table.select("task", "key", "annotator", "cancelled").rows() == [
        ("7", "k7", "ann", False),
        ("7", "k7", "bën", False),
        ("7", "k7", "cleo", True),
        ("8", "k8", None, None),
    ]
    assert json.loads(table["result"][1]) == json.loads(choice('d"o\ng'))


def test_an_older_version_is_exported_as_it_was(store: Store, tmp_path: Path) -> None:
    store.append([], "2", NOW, deleted_tasks=["7"])
    assert export(store, Objects(str(tmp_path / "out.json"))).tasks == 1
    assert export(store, Objects(str(tmp_path / "out.json")), version=0).tasks == 2
    assert len(json.loads((tmp_path / "out.json").read_text())) == 2
    assert export(store, Objects(str(tmp_path / "dry.json")), dry_run=True).tasks == 1
    assert not (tmp_path / "dry.json").exists()


def test_an_empty_project_is_an_empty_list(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "labels"))
    store.append([], "1", NOW)
    for name, content in (("out.json", []), ("out.jsonl", None)):
        assert export(store, Objects(str(tmp_path / name))).tasks == 0
        text = (tmp_path / name).read_text()
        assert (json.loads(text) if text else None) == content


@pytest.mark.parametrize("name", ["out.csv", "out", "no/folder/out.json"])
def test_a_place_that_cannot_be_written_is_named(store: Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="folder" if "/" in name else "out") as caught:
        export(store, Objects(str(tmp_path / name)))
    assert caught.value.hint


def test_nothing_pulled_is_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is empty"):
        export(Store(str(tmp_path / "labels")), Objects(str(tmp_path / "out.json")))
