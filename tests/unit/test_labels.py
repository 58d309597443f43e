"""Tables, exports and the store: the same content is the same labels, and what is odd is told."""

from __future__ import annotations

import csv
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.errors import UsageError
from connector.labels import Loaded, read_file, read_store, with_gold
from connector.model import Annotation, Role, Task
from connector.quality.annotators import annotators
from connector.quality.consensus import consensus
from connector.quality.units import units
from connector.store import Store

Row = Mapping[str, Any]
AT = datetime(2026, 3, 1, 7, 30, tzinfo=UTC)
HEAD = b"task,annotator,label\n"


def row(task: Any, annotator: Any, label: str, **more: Any) -> dict[str, Any]:
    whole = {"control": "animal", "seconds": 4.5, "created_at": AT, "role": "person"}
    return {"task": task, "annotator": annotator, "label": label, **whole, **more}


CONTENT = [
    row("007", "ann", "cat"),
    row("007", "ben@example.com", "dog", seconds=None),
    row("7", "ann", "Käuzchen, klein", created_at=None),
    row("s3://raw/ä b/8.png", "ann", 'two\nlines, "quoted"'),
    row("s3://raw/ä b/8.png", "007", "cat", role="gold", control="second question"),
]


def export(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The same rows as Label Studio exports them."""
    return [
        {"id": one["task"], "annotations": [annotation(one["label"], control=one["control"]) | about(one)]}
        for one in rows
    ]


def annotation(*labels: str, control: str = "animal", **more: Any) -> dict[str, Any]:
    region = {"from_name": control, "to_name": "x", "type": "choices", "value": {"choices": list(labels)}}
    return {"completed_by": 1, "result": [region], **more}


def about(one: Row) -> dict[str, Any]:
    at = one["created_at"]
    return {
        "completed_by": {"id": 3, "email": one["annotator"]},
        "ground_truth": one["role"] == "gold",
        "lead_time": one["seconds"],
        "created_at": at and at.isoformat().replace("+00:00", "Z"),
    }


def write(path: Path, rows: Sequence[Row]) -> Path:
    """Rows in the form that the file's name asks for."""
    texts = [{k: v.isoformat() if isinstance(v, datetime) else v for k, v in one.items()} for one in rows]
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(texts[0]))
            writer.writeheader()
            writer.writerows(texts)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(one) + "\n" for one in texts))
    elif path.suffix == ".parquet":
        pl.DataFrame(rows, strict=False).write_parquet(path)
    else:
        path.write_text(json.dumps(export(rows)))
    return path


def content(loaded: Loaded) -> list[tuple[Any, ...]]:
    """Who said what, whatever an annotation is called."""
    columns = ["task", "annotator", "label", "control", "seconds", "created_at", "role"]
    both = loaded.labels.regions.join(loaded.labels.answers.drop("task"), on="annotation", validate="m:1")
    return sorted(both.select(columns).iter_rows(), key=repr)


def rejected(loaded: Loaded) -> list[tuple[str, str]]:
    return [(Path(reject.where).name, reject.why) for reject in loaded.rejects]


@pytest.fixture(autouse=True)
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where the program runs is nobody's business."""
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl", "a.json"])
def test_the_same_content_is_the_same_labels_in_every_form(tmp_path: Path, name: str) -> None:
    loaded = read_file(write(tmp_path / name, CONTENT))
    assert content(loaded) == sorted((tuple(one.values()) for one in CONTENT), key=repr)
    assert loaded.rejects == []
    assert dict(loaded.labels.controls) == {"animal": "choice", "second question": "choice"}
    assert loaded.labels.answers["annotation"].is_unique().all()


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.json"])
def test_a_number_is_an_id_like_any_other(tmp_path: Path, name: str) -> None:
    found = content(read_file(write(tmp_path / name, [row(7, 12, "1", seconds=3)])))
    assert found == [("7", "12", "1", "animal", 3.0, AT, "person")]


@pytest.mark.parametrize("data", [HEAD + b"1,a,x\n", b'{"task":"1","annotator":"a","label":"x"}\n'])
def test_what_a_table_does_not_say_is_filled_in_as_documented(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / ("a.csv" if data.startswith(HEAD) else "a.jsonl")
    path.write_bytes(data)
    assert content(read_file(path)) == [("1", "a", "x", "label", None, None, "person")]


TORN = "the line must have 3 cells, found "

OPEN = '{"task":"1","annotator":"a","label":"x"}\n'


@pytest.mark.parametrize(
    ("name", "data", "labels", "rejects"),
    [
        ("bom.csv", b"\xef\xbb\xbf" + HEAD + b"1,a,x\n", "x", []),
        ("bom, torn.csv", b"\xef\xbb\xbf" + HEAD + b"1,a,x\n2\n", "x", [("3", TORN + "1")]),
        ("crlf.csv", HEAD.replace(b"\n", b"\r\n") + b"1,a,x\r\n2,a,y\r\n", "xy", []),
        ("crlf, torn.csv", HEAD.replace(b"\n", b"\r\n") + b"1,a,x\r\n2,a\r\n", "x", [("3", TORN + "2")]),
        ("no end.csv", HEAD + b"1,a,x\n2,a,y", "xy", []),
        ("empty lines.csv", HEAD + b"1,a,x\n\n2,a,y\n\n\n", "xy", []),
        ("no rows.csv", HEAD, "", []),
        ("all quoted.csv", b'task,annotator,label,role,control,seconds\n"1","a","x","","",""', "x", []),
        (
            "our own names.csv",
            b"row,why,at,took,turn,annotation,region," + HEAD + b"1,,,,,,,1,a,x\n",
            "x",
            [],
        ),
        ("long.csv", HEAD + b"1,a,x\n2,a,y,z\n3,a,z\n", "xz", [("3", TORN + "4")]),
        ("cut off.csv", b"control," + HEAD + b"c,1,a,x\nc,2,a\n", "x", [("3", "4 cells, found 3")]),
        ("optional cut off.csv", HEAD[:-1] + b",role\n1,a,x,\n2,a,y\n", "x", [("3", "4 cells, found 3")]),
        ("below quoted newlines.csv", HEAD + b'1,"\n\n",x\n,a,y\n', "", [("2", "annotator"), ("5", "task")]),
        ("torn below them.csv", HEAD + b'1,"a\n\nb",x\n2\n,a,y\n', "x", [("5", TORN), ("6", "the task")]),
        ("open quote.csv", HEAD + b'1,a,x\n2,a,"y\n3,a,z\n', "xz", [("3", "a quote never ends")]),
        ("odd quote.csv", HEAD + b'1,a,"x"x\n2,a,y\n', "y", [("2", "the line is torn")]),
        ("quote inside.csv", HEAD + b'1,a,x\n2,3" wide,y\n', "xy", []),
        ("bytes.csv", HEAD + b"1,a,x\n2,a,\xff\n3,a,\xef\xbf\xbd\n", "x\ufffd", [("3", "not UTF-8")]),
        ("bom.jsonl", b"\xef\xbb\xbf" + OPEN.encode(), "x", []),
        ("crlf.jsonl", b"\r\n" + OPEN.replace("\n", "\r\n").encode() + b"\r\n", "x", []),
        ("torn.jsonl", (OPEN + OPEN[:20]).encode(), "x", [("2", "the line is not JSON")]),
        ("all torn.jsonl", OPEN[:20].encode(), "", [("1", "the line is not JSON")]),
        ("list.jsonl", b"[]\n" + OPEN.encode(), "x", [("1", "not a JSON object")]),
        ("bytes.jsonl", b'{"task":"\xff"}\n\n' + OPEN.encode(), "x", [("1", "can't decode byte 0xff")]),
        ("half.jsonl", (OPEN * 2).encode().replace(b"x", b"\\ud800", 1), "x", [("1", "no Unicode text")]),
        ("no text.jsonl", (OPEN + OPEN.replace('"x"', '["x"]')).encode(), "x", [("2", "text or a number")]),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_a_damaged_line_is_rejected_by_its_place_and_the_others_are_read(
    tmp_path: Path, name: str, data: bytes, labels: str, rejects: list[tuple[str, str]]
) -> None:
    (tmp_path / name).write_bytes(data)
    loaded = read_file(tmp_path / name)
    assert sorted(loaded.labels.regions["label"]) == sorted(labels)
    assert len(loaded.rejects) == len(rejects)
    for (where, why), (line, part) in zip(rejected(loaded), rejects, strict=True):
        assert where == f"{name}:{line}"
        assert part in why


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.csv", b"", "no column task, annotator, label; it has none"),
        ("a.csv", b"task,annotator,labels\n1,a,x\n", "no column label; it has task, annotator, labels"),
        ("a.csv", b"task,task,annotator,label\n1,2,a,x\n", "has the column task twice"),
        ("a.jsonl", b"", "no column task, annotator, label; it has none"),
        ("a.jsonl", b'{"task": 1, "annotator": 2}\n', "no column label; it has task, annotator"),
        ("a.parquet", b"PAR1", "is not a table we can read"),
        ("a.json", b'[{"id": 1', "is not JSON"),
        ("a.json", b"\xff", "is not JSON"),
        ("a.json", b'{"id": 1}', "is no Label Studio export"),
        ("a.xlsx", b"", "is no kind of file we read"),
        ("missing.csv", None, "there is no file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_next_step(
    tmp_path: Path, name: str, data: bytes | None, said: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError) as caught:
        read_file(tmp_path / name)
    assert said in caught.value.what
    assert name in caught.value.what
    assert caught.value.hint


def test_a_parquet_without_a_column_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"task": [1], "who": ["a"], "label": ["x"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="no column annotator; it has task, who, label"):
        read_file(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ({"task": None}, "the task is missing"),
        ({"task": "  "}, "the task is missing"),
        ({"annotator": None}, "the annotator is missing"),
        ({"label": ""}, "the label is missing"),
        ({"label": "ABSENT"}, "the label ABSENT is kept for what nobody drew; rename it"),
        ({"role": "boss"}, "the role must be one of person, gold, reviewer, model, code, found boss"),
        ({"seconds": "-1"}, "seconds must be a number from 0 on, found -1"),
        ({"seconds": "nan"}, "seconds must be a number from 0 on, found nan"),
        ({"seconds": "inf"}, "seconds must be a number from 0 on, found inf"),
        ({"seconds": "soon"}, "seconds must be a number from 0 on, found soon"),
        ({"created_at": "today"}, "created_at must be a time such as 2026-01-31T08:00:00Z, found today"),
    ],
)
def test_an_odd_row_is_rejected_and_the_others_are_read(
    tmp_path: Path, name: str, odd: Row, why: str
) -> None:
    good = {key: None if value is None else str(value) for key, value in row("1", "ann", "cat").items()}
    loaded = read_file(write(tmp_path / name, [good, {**good, **odd}, {**good, "task": "2"}]))
    assert sorted(loaded.labels.regions["task"]) == ["1", "2"]
    assert rejected(loaded) == [(f"{name}:{2 if name == 'a.parquet' else 3 - (name == 'a.jsonl')}", why)]


def box(**value: Any) -> dict[str, Any]:
    place = {"x": 1, "y": 2, "width": 3, "height": 4, "rectanglelabels": ["car"], **value}
    return {"from_name": "b", "to_name": "x", "type": "rectanglelabels", "value": place}


@pytest.mark.parametrize(
    ("task", "why"),
    [
        (7, "a task needs an id and its annotations"),
        ({"annotations": []}, "a task needs an id"),
        ({"id": None, "annotations": []}, "a task needs an id"),
        ({"id": " ", "annotations": []}, "a task needs an id"),
        ({"id": 1}, "a task needs an id and its annotations"),
        ([None], "an annotation must be a JSON object"),
        ([annotation("x", completed_by=None)], "nobody is named in completed_by"),
        ([annotation("x", completed_by={"email": ""})], "nobody is named in completed_by"),
        ([annotation("x", created_at="today")], "created_at cannot be read"),
        ([annotation("x", created_at="0001-01-01T00:00:00+14:00")], "created_at cannot be read"),
        ([annotation("x", lead_time=-1)], "lead_time must be a number from 0 on, found -1"),
        ([annotation("x", lead_time=float("nan"))], "lead_time must be a number"),
        ([annotation("x", result=None)], "a result must be a list of regions"),
        ([annotation("x", result=[1])], "region 0 must be a JSON object"),
        ([annotation("x", result=[{"type": "choices"}])], "lacks from_name, type or value"),
        ([annotation()], "has no labels"),
        ([annotation("x", "ABSENT")], "the label ABSENT is kept for what nobody drew; rename it"),
        ([annotation("\ud800")], "no Unicode text"),
        ([annotation("x", control="b")], "control b is a box elsewhere, and here choices"),
        ([annotation(result=[box(width=0)])], "region 0 of b has no area: width 0.0, height 4.0"),
        ([annotation(result=[box(), box(height=-1)])], "region 1 of b has no area"),
        ([annotation(result=[box(x=float("nan"))])], "x must be a number, found nan"),
        ([annotation(result=[box(y=float("inf"))])], "y must be a number, found inf"),
        ([annotation(result=[box(x=10**400)])], "x must be a number, found 1000"),
        ([annotation(result=[box(x="1")])], "x must be a number, found '1'"),
        ([annotation(result=[box(width=None)])], "width must be a number, found None"),
        ([annotation(result=[box(rotation=45)])], "is a rotated box; only upright ones are measured yet"),
        ([annotation(result=[box(rotation="45")])], "rotation must be a number, found '45'"),
        ([annotation(result=[box(rectanglelabels=["car", "van"])])], "has 2 labels; boxes have one each"),
        ([annotation(result=[box(rectanglelabels=[])])], "has no labels"),
    ],
)
def test_an_odd_answer_of_an_export_is_rejected_whole_and_the_others_are_read(
    tmp_path: Path, task: Any, why: str
) -> None:
    good = {"id": 1, "annotations": [annotation("x", result=[box(rotation=360)])]}
    odd = {"id": 2, "annotations": task} if isinstance(task, list) else task
    (tmp_path / "a.json").write_text(json.dumps([good, odd, good]))
    loaded = read_file(tmp_path / "a.json")
    assert [reject.where.split(": ")[1].split(",")[0] for reject in loaded.rejects] == ["task 1"]
    assert why in loaded.rejects[0].why
    found = loaded.labels.regions.select("task", "label", "x", "y", "width", "height")
    assert found.rows() == [("1", "car", 1, 2, 3, 4)] * 2
    assert loaded.labels.answers["annotation"].is_unique().all()


def test_an_export_says_what_was_skipped_left_empty_or_is_not_measured(tmp_path: Path) -> None:
    answers = [
        annotation("cat", "dog"),
        annotation("cat", was_cancelled=True),
        annotation(result=[]),
        annotation(result=[{"from_name": "note", "to_name": "x", "type": "textarea", "value": {"text": []}}]),
    ]
    (tmp_path / "a.json").write_bytes(
        b"\xef\xbb\xbf" + json.dumps([{"id": 1, "annotations": answers}]).encode()
    )
    loaded = read_file(tmp_path / "a.json")
    assert loaded.rejects == []
    assert len(loaded.labels.answers) == 3
    assert loaded.labels.regions["label"].to_list() == ["cat", "dog"]
    assert dict(loaded.unmeasured) == {"note": "textarea"}


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-03-01T07:30:00Z", AT),
        ("2026-03-01T07:30:00", AT),
        ("2026-03-01 07:30:00", AT),
        ("2026-03-01T09:30:00+02:00", AT),
        ("2026-02-28T21:00:00.250-10:30", AT.replace(microsecond=250000)),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.json"])
def test_a_time_is_kept_as_utc_and_is_utc_without_a_zone(
    tmp_path: Path, name: str, text: str, at: datetime
) -> None:
    one = row("1", "ann", "cat", created_at=text)
    if name == "a.json":
        answer = annotation("cat", created_at=text)
        (tmp_path / name).write_text(json.dumps([{"id": 1, "annotations": [answer]}]))
    else:
        write(tmp_path / name, [one])
    assert read_file(tmp_path / name).labels.answers["created_at"].to_list() == [at]


def test_a_column_of_times_may_have_no_zone(tmp_path: Path) -> None:
    loaded = read_file(
        write(tmp_path / "a.parquet", [row("1", "a", "x", created_at=AT.replace(tzinfo=None))])
    )
    assert loaded.labels.answers["created_at"].to_list() == [AT]


def test_whoever_answers_twice_has_two_answers_and_slashes_in_names_mix_nobody_up(tmp_path: Path) -> None:
    rows = [row("1", "ann", "cat"), row("1", "ann", "dog"), row("1", "ann", "red", control="colour")]
    rows += [row("a/b", "c", "cat"), row("a", "b/c", "dog")]
    loaded = read_file(write(tmp_path / "a.csv", rows))
    assert loaded.labels.answers.select("task", "annotator").sort("task", "annotator").rows() == [
        ("1", "ann"),
        ("1", "ann"),
        ("a", "b/c"),
        ("a/b", "c"),
    ]
    assert content(loaded) == sorted((tuple(one.values()) for one in rows), key=repr)


# gold, and the store


def result(label: str) -> str:
    return json.dumps(annotation(label)["result"])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Task 7 shows the item k7, and task 8 the item 7."""
    made = Store(str(tmp_path / "store"))
    tasks = []
    for task, key in (("7", "k7"), ("8", "7")):
        said = [
            Annotation(id=f"{task}1", task_id=task, annotator="ann", result=result("cat"), seconds=2),
            Annotation(id=f"{task}2", task_id=task, annotator="ben", result=result("dog"), cancelled=True),
            Annotation(id=f"{task}3", task_id=task, annotator="eve", result=result("owl"), ground_truth=True),
        ]
        tasks.append(Task(id=task, key=key, annotations=tuple(said)))
    made.append(tasks, "c", AT)
    return made


def test_the_store_knows_gold_roles_and_skips_and_its_versions(store: Store, tmp_path: Path) -> None:
    before = store.version
    bad = Annotation(id="91", task_id="9", annotator="ann", result='{"no": "list"}')
    store.append([Task(id="9", key="k9", annotations=(bad,))], "d", AT)
    loaded = read_store(store, {"ann": Role.REVIEWER, "eve": Role.MODEL})
    assert content(loaded) == [
        (task, who, label, "animal", seconds, None, role)
        for task in "78"
        for who, label, seconds, role in (("ann", "cat", 2, "reviewer"), ("eve", "owl", None, "gold"))
    ]
    assert [(r.where, r.why) for r in loaded.rejects] == [
        ("annotation 91 of task 9", "a result must be a list of regions, found dict")
    ]
    assert loaded.source == {"store": store.url, "version": store.version}
    old = read_store(store, {}, before)
    assert (old.rejects, old.source["version"]) == ([], before)
    with pytest.raises(UsageError, match="is empty"):
        read_store(Store(str(tmp_path / "nothing")), {})


@pytest.mark.parametrize(
    ("named", "task"), [("k7", "7"), ("8", "8"), ("7", "8")], ids=["by key", "by id", "by key before id"]
)
def test_gold_names_its_task_by_the_items_key_or_by_id(
    store: Store, tmp_path: Path, named: str, task: str
) -> None:
    (tmp_path / "gold.csv").write_text(f"task,label,control\n{named},dog,animal\n")
    loaded = with_gold(read_store(store, {}), read_file(tmp_path / "gold.csv", gold=True))
    gold = loaded.labels.answers.filter(role="gold")
    assert gold["task"].to_list() == [task]  # and what was ground truth in the tool is not gold any more
    assert loaded.labels.regions.join(gold, on="annotation", how="semi")["label"].to_list() == ["dog"]
    assert loaded.labels.regions["annotation"].is_in(loaded.labels.answers["annotation"].implode()).all()
    assert loaded.source["gold"]["file"] == str(tmp_path / "gold.csv")
    assert loaded.rejects == []


@pytest.mark.parametrize("name", ["g.csv", "g.jsonl", "g.parquet", "g.json"])
def test_gold_needs_no_annotator_and_gold_of_unknown_tasks_is_rejected(tmp_path: Path, name: str) -> None:
    people = read_file(write(tmp_path / "people.csv", [row("007", "ann", "cat"), row("8", "ann", "cat")]))
    rows = [{"task": task, "label": "dog", "control": "animal"} for task in ("007", "7", "9")]
    if name == "g.json":
        tasks = [{"id": r["task"], "annotations": [annotation("dog", completed_by=None)]} for r in rows]
        (tmp_path / name).write_text(json.dumps(tasks))
    else:
        write(tmp_path / name, rows)
    loaded = with_gold(people, read_file(tmp_path / name, gold=True))
    assert loaded.labels.answers.filter(role="gold").select("task", "annotator").rows() == [("007", "gold")]
    assert len(loaded.labels.answers) == 3
    why = "no task of the labels has this id or key"
    assert [(r.where, r.why) for r in loaded.rejects] == [("gold task 7", why), ("gold task 9", why)]


tables = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "a/b", "a"]),
        st.sampled_from(["ann", "ben", "b/ann"]),
        st.sampled_from(["cat", "dog", "owl"]),
        st.sampled_from(["animal", "second"]),
        st.sampled_from([None, 0.1, 0.2, 0.7]),
        st.sampled_from([None, "2026-03-01", "2026-03-01T07:30:00Z", "2026-03-02T07:30:00Z"]),
        st.sampled_from(["person", "person", "reviewer"]),
    ),
    min_size=1,
    max_size=25,
)


def outputs(rows: Sequence[tuple[Any, ...]]) -> list[str]:
    columns = ["task", "annotator", "label", "control", "seconds", "created_at", "role"]
    with tempfile.TemporaryDirectory() as folder:
        loaded = read_file(
            write(Path(folder) / "a.csv", [dict(zip(columns, one, strict=True)) for one in rows])
        )
    table = units(loaded.labels)
    merged = [consensus(table, 0, method) for method in ("majority", "dawid-skene")]
    frames = [*(one.units for one in merged), annotators(table, loaded.labels.answers)]
    said = [repr(merged[0].controls), repr(sorted(reject.why for reject in loaded.rejects))]
    return said + [frame.write_csv() for frame in frames]


@given(tables.flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows))))
@settings(deadline=None, max_examples=30)
def test_the_order_of_the_rows_changes_nothing(both: tuple[list[Any], list[Any]]) -> None:
    here, there = map(outputs, both)
    assert here == there
