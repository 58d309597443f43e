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

from connector.adapters.label_studio.ontology import parse_config
from connector.errors import UsageError
from connector.formats.label_files import read_file
from connector.io.reading import Reading
from connector.model import Annotation, Role, Task
from connector.quality.annotators import annotators
from connector.quality.consensus import consensus
from connector.quality.units import units
from connector.store.label_store import Store
from connector.store.labels import Loaded, read_store, with_gold

AT = datetime(2026, 3, 1, 7, 30, tzinfo=UTC)
HEAD = b"task,annotator,label\n"
COLUMNS = ["task", "annotator", "label", "control", "seconds", "created_at", "role"]

Row = tuple[Any, ...]
"""Cells of `COLUMNS`."""

CONTENT: list[Row] = [
    ("007", "ann", "cat", "animal", 4.5, AT, "person"),
    ("007", "ben@example.com", "dog", "animal", None, AT, "person"),
    ("7", "ann", "Käuzchen, klein", "animal", 4.5, None, "person"),
    ("s3://raw/ä b/8.png", "ann", 'two\nlines, "quoted"', "animal", 0.0, AT, "person"),
    ("s3://raw/ä b/8.png", "007", "cat", "second question", 4.5, AT, "gold"),
]


def answer(*labels: str, control: str = "animal", **more: Any) -> dict[str, Any]:
    """An annotation of an export."""
    region = {"from_name": control, "to_name": "x", "type": "choices", "value": {"choices": list(labels)}}
    return {"completed_by": 1, "result": [region], **more}


def exported(row: Row) -> dict[str, Any]:
    """A row as Label Studio exports it."""
    task, annotator, label, control, seconds, at, role = row
    stamp = at and str(at).replace("+00:00", "Z")
    by = {"id": 3, "email": annotator} if isinstance(annotator, str) else annotator
    about = {"lead_time": seconds, "created_at": stamp, "ground_truth": role == "gold", "completed_by": by}
    return {"id": task, "annotations": [answer(label, control=control, **about)]}


def write(path: Path, rows: Sequence[Row], columns: Sequence[str] = COLUMNS) -> Path:
    """Rows in the form that the file's name asks for."""
    texts = [[str(cell) if isinstance(cell, datetime) else cell for cell in row] for row in rows]
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *texts])
    elif path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in texts]
        path.write_text("\n".join(lines))
    elif path.suffix == ".parquet":
        pl.DataFrame(rows, schema=list(columns), orient="row", infer_schema_length=None).write_parquet(path)
    else:
        path.write_text(json.dumps([exported(row) for row in rows]))
    return path


def content(loaded: Loaded) -> list[Row]:
    """Who said what, whatever an annotation is called; of what is gold, `gold` stands for the role."""
    both = loaded.labels.regions.join(loaded.labels.answers.drop("task"), on="annotation", validate="m:1")
    both = both.with_columns(role=pl.when("gold").then(pl.lit("gold")).otherwise("role"))
    return sorted(both.select(COLUMNS).iter_rows(), key=repr)


@pytest.fixture(autouse=True)
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where the program runs is nobody's business."""
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


FORMS = ["a.csv", "a.parquet", "a.jsonl", "a.json"]


@pytest.mark.parametrize("name", FORMS)
def test_the_same_content_is_the_same_labels_in_every_form(tmp_path: Path, name: str) -> None:
    loaded = read_file(write(tmp_path / name, CONTENT))
    assert content(loaded) == sorted(CONTENT, key=repr)
    assert loaded.rejects == []
    assert dict(loaded.labels.controls) == {"animal": "choice", "second question": "choice"}


@pytest.mark.parametrize("name", FORMS[1:])
def test_a_number_is_an_id_like_any_other(tmp_path: Path, name: str) -> None:
    found = content(read_file(write(tmp_path / name, [(7, 12, "1", "c", 3, AT, "person")])))
    assert found == [("7", "12", "1", "c", 3.0, AT, "person")]


@pytest.mark.parametrize("name", FORMS[:3])
def test_what_a_table_leaves_out_is_filled_in(tmp_path: Path, name: str) -> None:
    loaded = read_file(write(tmp_path / name, [("1", "a", "x")], COLUMNS[:3]))
    assert content(loaded) == [("1", "a", "x", "label", None, None, "person")]


TORN = "the line must have 3 cells, found "
LINE = b'{"task":"1","annotator":"a","label":"x"}\n'
BOM = b"\xef\xbb\xbf"


def crlf(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\n")


@pytest.mark.parametrize(
    ("name", "data", "labels", "rejects"),
    [
        ("bom.csv", BOM + HEAD + b"1,a,x\n", "x", []),
        ("bom, torn.csv", BOM + HEAD + b"1,a,x\n2\n", "x", [("3", TORN + "1")]),
        ("crlf.csv", crlf(HEAD + b"1,a,x\n2,a,y\n"), "xy", []),
        ("crlf, torn.csv", crlf(HEAD + b"1,a,x\n2,a\n"), "x", [("3", TORN + "2")]),
        ("no end.csv", HEAD + b"1,a,x\n2,a,y", "xy", []),
        ("empty lines.csv", HEAD + b"1,a,x\n\n2,a,y\n\n\n", "xy", []),
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
        ("below newlines.csv", HEAD + b'1,"\n\n",x\n,a,y\n', "", [("2", "annotator"), ("5", "task")]),
        ("torn below them.csv", HEAD + b'1,"a\n\nb",x\n2\n,a,y\n', "x", [("5", TORN), ("6", "the task")]),
        ("open quote.csv", HEAD + b'1,a,x\n2,a,"y\n3,a,z\n', "xz", [("3", "a quote never ends")]),
        ("odd quote.csv", HEAD + b'1,a,"x"x\n2,a,y\n', "y", [("2", "the line is torn")]),
        ("quote inside.csv", HEAD + b'1,a,x\n2,3" wide,y\n', "xy", []),
        ("bytes.csv", HEAD + b"1,a,x\n2,a,\xff\n3,a,\xef\xbf\xbd\n", "x\ufffd", [("3", "not UTF-8")]),
        ("bom.jsonl", BOM + LINE, "x", []),
        ("crlf.jsonl", b"\r\n" + crlf(LINE) + b"\r\n", "x", []),
        ("torn.jsonl", LINE + LINE[:20], "x", [("2", "the line is not JSON")]),
        ("all torn.jsonl", LINE[:20], "", [("1", "the line is not JSON")]),
        ("list.jsonl", b"[]\n" + LINE, "x", [("1", "not a JSON object")]),
        ("bytes.jsonl", b'{"task":"\xff"}\n\n' + LINE, "x", [("1", "can't decode byte 0xff")]),
        ("half a pair.jsonl", LINE.replace(b"x", b"\\ud800") + LINE, "x", [("1", "no Unicode text")]),
        ("list.jsonl", LINE + LINE.replace(b'"1"', b'"2"').replace(b'"x"', b'["x"]'), "xx", []),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_a_damaged_line_is_rejected_by_its_place_and_the_others_are_read(
    tmp_path: Path, name: str, data: bytes, labels: str, rejects: list[tuple[str, str]]
) -> None:
    (tmp_path / name).write_bytes(data)
    loaded = read_file(tmp_path / name)
    assert sorted(loaded.labels.regions["label"]) == sorted(labels)
    assert [r.where for r in loaded.rejects] == [f"{tmp_path / name}:{line}" for line, _ in rejects]
    assert all(part in r.why for r, (_, part) in zip(loaded.rejects, rejects, strict=True))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.csv", b"", "has no rows: it is empty"),
        ("a.csv", HEAD, "has no rows: only a header"),
        ("a.csv", b"task,annotator,text\n1,a,x\n", "no column label; it has task, annotator, text"),
        ("a.csv", b"task,task,annotator,label\n1,2,a,x\n", "has the column task twice"),
        ("a.jsonl", b"", "has no rows: it is empty"),
        ("a.jsonl", b'{"task": 1, "annotator": 2}\n', "no column label; it has task, annotator"),
        ("a.parquet", b"PAR1", "is not a table we can read"),
        ("b.parquet", None, "no column annotator; it has task, who, label"),
        ("a.json", b'[{"id": 1', "is not JSON"),
        ("a.json", b"\xff", "is not JSON"),
        ("a.json", b'{"id": 1}', "neither a list of records nor a Label Studio export"),
        ("a.xlsx", b"", "is not an Excel file we can read"),
        ("a.doc", b"", "is not a kind of file we read"),
        ("missing.csv", None, "file not found"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_next_step(
    tmp_path: Path, name: str, data: bytes | None, said: str
) -> None:
    pl.DataFrame({"task": [1], "who": ["a"], "label": ["x"]}).write_parquet(tmp_path / "b.parquet")
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError) as caught:
        read_file(tmp_path / name)
    assert said in caught.value.what
    assert name in caught.value.what
    assert caught.value.hint


@pytest.mark.parametrize(("name", "line"), [("a.csv", 3), ("a.jsonl", 2), ("a.parquet", 2)])
@pytest.mark.parametrize(
    ("column", "odd", "why"),
    [
        ("task", None, "the task is missing"),
        ("task", "  ", "the task is missing"),
        ("annotator", None, "the annotator is missing"),
        ("label", "ABSENT", "the label ABSENT is kept for what nobody drew; rename it"),
        ("role", "boss", "the role must be one of person, gold, reviewer, model, code, found boss"),
        ("seconds", "-1", "seconds must be a number from 0 on, found -1"),
        ("seconds", "nan", "seconds must be a number from 0 on, found nan"),
        ("seconds", "inf", "seconds must be a number from 0 on, found inf"),
        ("seconds", "soon", "seconds must be a number from 0 on, found soon"),
        ("created_at", "today", "created_at must be a time such as 2026-01-31T08:00:00Z, found today"),
    ],
)
def test_an_odd_row_is_rejected_and_the_others_are_read(
    tmp_path: Path, name: str, line: int, column: str, odd: str | None, why: str
) -> None:
    good = dict(zip(COLUMNS, ("1", "ann", "cat", "c", "1.5", str(AT), "person"), strict=True))
    rows = [tuple(row.values()) for row in (good, {**good, column: odd}, {**good, "task": "2"})]
    loaded = read_file(write(tmp_path / name, rows))
    assert sorted(loaded.labels.regions["task"]) == ["1", "2"]
    assert [(r.where, r.why) for r in loaded.rejects] == [(f"{tmp_path / name}:{line}", why)]


def box(**value: Any) -> dict[str, Any]:
    """An annotation of an export with one box."""
    whole = {"x": 1, "y": 2, "width": 3, "height": 4, "rectanglelabels": ["car"], **value}
    return answer(result=[{"from_name": "b", "to_name": "x", "type": "rectanglelabels", "value": whole}])


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ([7], "a task needs an id and its annotations"),
        ([{"annotations": []}], "a task needs an id"),
        ([{"id": None, "annotations": []}], "a task needs an id"),
        ([{"id": " ", "annotations": []}], "a task needs an id"),
        ([{"id": 1}], "a task needs an id and its annotations"),
        (None, "an annotation must be a JSON object"),
        (answer("x", completed_by=None), "no annotator is named in completed_by"),
        (answer("x", completed_by={"email": ""}), "no annotator is named in completed_by"),
        (answer("x", created_at="today"), "created_at cannot be read"),
        (answer("x", created_at="0001-01-01T00:00:00+14:00"), "created_at cannot be read"),
        (answer("x", lead_time=-1), "lead_time must be a number from 0 on, found -1"),
        (answer("x", lead_time=float("nan")), "lead_time must be a number"),
        (answer(result=None), "a result must be a list of regions"),
        (answer(result=[1]), "a region must be a JSON object, found 1"),
        (answer(result=[{"type": "choices"}]), "from_name is missing"),
        (answer(), "choices must be a list of texts that are not empty, found []"),
        (answer("x", "ABSENT"), "the label ABSENT is kept for what nobody drew; rename it"),
        (answer("\ud800"), "choices must be a list of texts"),
        (answer("x", control="b"), "of control 'b': the control is a box elsewhere, and here a choice"),
        (
            answer(result=[*box()["result"], *box(height=-1)["result"]]),
            "height must be a finite number from 0",
        ),
        (box(x=float("nan")), "x must be a finite number, found nan"),
        (box(y=float("inf")), "y must be a finite number, found inf"),
        (box(x=10**400), "x must be a finite number, found 1000"),
        (box(x="1"), "x must be a finite number, found '1'"),
        (box(width=None), "width must be a finite number from 0 on, found None"),
        (box(rotation="45"), "rotation must be a finite number, found '45'"),
        (answer(result=[{**box()["result"][0], "id": "1"}] * 2), "two regions of this control have this id"),
    ],
)
def test_an_odd_answer_of_an_export_is_rejected_whole(tmp_path: Path, odd: Any, why: str) -> None:
    good = {"id": 1, "annotations": [box(rotation=360, rectanglelabels=["van", "car"])]}
    task = odd[0] if isinstance(odd, list) else {"id": 2, "annotations": [odd]}
    (tmp_path / "a.json").write_text(json.dumps([good, task, {**good, "id": 3}]))
    loaded = read_file(tmp_path / "a.json")
    (reject,) = loaded.rejects
    assert reject.where.split(",")[0] == f"{tmp_path / 'a.json'}: task 1"
    assert why in reject.why
    found = loaded.labels.regions.select("task", "label", "shape")
    assert found.rows() == [(name, "car + van", [1, 2, 3, 4, 360]) for name in "13"]
    assert loaded.labels.answers["annotation"].is_unique().all()


def test_an_export_says_what_was_skipped_left_empty_or_is_not_measured(tmp_path: Path) -> None:
    note = {"from_name": "note", "to_name": "x", "type": "reactcode", "value": {"reactcode": {}}}
    answers = [
        answer("cat", "dog"),
        answer("cat", was_cancelled=True),
        answer(result=[]),
        answer(result=[note]),
    ]
    (tmp_path / "a.json").write_bytes(BOM + json.dumps([{"id": 1, "annotations": answers}]).encode())
    loaded = read_file(tmp_path / "a.json")
    assert (loaded.rejects, len(loaded.labels.answers)) == ([], 3)
    assert loaded.labels.regions["label"].to_list() == ["cat", "dog"]
    assert dict(loaded.unmeasured) == {"note": "reactcode"}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    ("time", "at"),
    [
        ("2026-03-01T07:30:00Z", AT),
        ("2026-03-01T07:30:00", AT),
        ("2026-03-01 07:30:00", AT),
        ("2026-03-01T09:30:00+02:00", AT),
        ("2026-02-28T21:00:00.250-10:30", AT.replace(microsecond=250000)),
        (AT.replace(tzinfo=None), AT),
    ],
)
def test_a_time_without_a_zone_is_utc(tmp_path: Path, name: str, time: object, at: datetime) -> None:
    loaded = read_file(write(tmp_path / name, [("1", "ann", "cat", "c", 1, time, "person")]))
    assert loaded.labels.answers["created_at"].to_list() == [at]


def test_whoever_answers_twice_has_two_answers_and_slashes_in_names_mix_nobody_up(tmp_path: Path) -> None:
    more = ("c", None, None, "person")
    rows = [("1", "ann", "cat", *more), ("1", "ann", "dog", *more), ("1", "ann", "red", "colour", *more[1:])]
    rows += [("a/b", "c", "cat", *more), ("a", "b/c", "dog", *more)]
    loaded = read_file(write(tmp_path / "a.csv", rows), reading=Reading(repeats="all"))
    answers = loaded.labels.answers.select("task", "annotator").sort("task", "annotator").rows()
    assert answers == [("1", "ann"), ("1", "ann"), ("a", "b/c"), ("a/b", "c")]
    assert content(loaded) == sorted(rows, key=repr)


# the store, and gold


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Task 7 shows the item k7, and task 8 the item 7."""

    def said(task: str, who: str, label: str, **more: Any) -> Annotation:
        result = json.dumps(answer(label)["result"])
        return Annotation(id=task + who, task_id=task, annotator=who, result=result, **more)

    made = Store(str(tmp_path / "store"))
    tasks = []
    for task, key in (("7", "k7"), ("8", "7")):
        skipped = said(task, "ben", "dog", cancelled=True)
        truth = said(task, "eve", "owl", ground_truth=True)
        tasks.append(
            Task(id=task, key=key, annotations=(said(task, "ann", "cat", seconds=2), skipped, truth))
        )
    made.append(tasks, "c", AT)
    return made


def test_the_store_knows_gold_roles_skips_and_its_versions(store: Store, tmp_path: Path) -> None:
    before = store.version
    bad = Annotation(id="91", task_id="9", annotator="ann", result='{"no": "list"}')
    store.append([Task(id="9", key="k9", annotations=(bad,))], "d", AT)
    loaded = read_store(store, {"ann": Role.REVIEWER, "eve": Role.MODEL})
    both = (("ann", "cat", "animal", 2.0, None, "reviewer"), ("eve", "owl", "animal", None, None, "gold"))
    assert content(loaded) == [(task, *said) for task in "78" for said in both]
    assert set(loaded.labels.answers.filter("gold").select("annotator", "role").rows()) == {("eve", "model")}
    why = "a result must be a list of regions, found {'no': 'list'}"
    assert [(r.where, r.why) for r in loaded.rejects] == [("annotation 91 of task 9", why)]
    assert loaded.source == {"store": store.url, "version": store.version}
    old = read_store(store, {}, before)
    assert (old.rejects, old.source["version"]) == ([], before)
    with pytest.raises(UsageError, match="is empty"):
        read_store(Store(str(tmp_path / "nothing")), {})


@pytest.mark.parametrize(("named", "task"), [("k7", "7"), ("8", "8"), ("7", "8")], ids=["key", "id", "both"])
def test_gold_names_its_task_by_key_or_id_and_by_the_key_where_both_fit(
    store: Store, tmp_path: Path, named: str, task: str
) -> None:
    gold = write(tmp_path / "gold.csv", [(named, "dog", "animal")], ("task", "label", "control"))
    loaded = with_gold(read_store(store, {}), read_file(gold, gold=True))
    # What was ground truth in the tool is gold no more.
    assert [row for row in content(loaded) if row[-1] == "gold"] == [
        (task, "gold", "dog", "animal", None, None, "gold")
    ]
    assert len(loaded.labels.regions) == len(loaded.labels.answers) == 5
    assert loaded.source["gold"]["file"] == str(gold)
    assert loaded.rejects == []


def test_gold_of_a_table_is_about_what_people_answered(store: Store, tmp_path: Path) -> None:
    gold = write(tmp_path / "gold.csv", [("k7", "dog", "animal")], ("task", "label", "control"))
    table = units(with_gold(read_store(store, {}), read_file(gold, gold=True)).labels)
    said = table.filter(task="7").select("unit", "role", "gold", "label").rows()
    people = [("whole", "person", False, "cat"), ("whole", "person", False, "owl")]
    assert said == [*people, ("whole", "gold", True, "dog")]


@pytest.mark.parametrize("name", FORMS)
def test_gold_needs_no_annotator_and_gold_of_unknown_tasks_is_rejected(tmp_path: Path, name: str) -> None:
    people = read_file(write(tmp_path / "people.csv", CONTENT[:2]))
    if name == "a.json":
        path = write(
            tmp_path / name, [(task, None, "dog", "animal", None, None, "") for task in ("007", "9")]
        )
    else:
        path = write(tmp_path / name, [("007", "dog"), ("9", "dog")], ("task", "label"))
    loaded = with_gold(people, read_file(path, gold=True))
    assert loaded.labels.answers.filter(role="gold").select("task", "annotator").rows() == [("007", "gold")]
    assert len(loaded.labels.answers) == 3
    why = "no task of the labels has this id or key"
    assert [(r.where, r.why) for r in loaded.rejects] == [("gold task 9", why)]


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


def outputs(rows: Sequence[Row]) -> Mapping[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        loaded = read_file(write(Path(folder) / "a.csv", rows), reading=Reading(repeats="all"))
    table = units(loaded.labels)
    merged = {method: consensus(table, 0, method) for method in ("majority", "dawid-skene")}
    return {
        "rejects": repr(sorted(reject.why for reject in loaded.rejects)),
        "agreement": repr(merged["majority"].controls),
        "annotators": annotators(table, loaded.labels.answers).write_csv(),
        **{method: one.units.drop("shape").write_csv() for method, one in merged.items()},
    }


@given(tables.flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows))))
@settings(deadline=None, max_examples=30)
def test_the_order_of_the_rows_changes_nothing_but_which_answer_is_an_annotators_last(
    both: tuple[list[Row], list[Row]],
) -> None:
    rows, shuffled = both
    in_order = {who: iter([row for row in rows if whose(row) == who]) for who in map(whose, rows)}
    assert outputs(rows) == outputs([next(in_order[whose(row)]) for row in shuffled])


def whose(row: Row) -> tuple[object, ...]:
    """Task, annotator and role."""
    return row[0], row[1], row[6]


TWO = (
    '<View><Image name="i" value="$i"/><Choices name="mood" toName="i"><Choice value="pos"/></Choices>'
    '<RectangleLabels name="box" toName="i"><Label value="car"/></RectangleLabels>'
    '<Choices name="size" toName="i" perRegion="true"><Choice value="big"/></Choices></View>'
)


def test_a_label_that_is_not_in_the_ontology_costs_one_control_and_is_reported(tmp_path: Path) -> None:
    """Ann's mood, and ben's box with all that is about it, are unknown: neither answered nor absent."""

    def said(mood: str, label: str) -> str:
        place = {"x": 1, "y": 1, "width": 5, "height": 5}
        shown = {"to_name": "i", "original_width": 10, "original_height": 10}
        regions = [
            {**shown, "id": "m", "from_name": "mood", "type": "choices", "value": {"choices": [mood]}},
            {
                **shown,
                "id": "b",
                "from_name": "box",
                "type": "rectanglelabels",
                "value": {**place, "rectanglelabels": [label]},
            },
            {
                **shown,
                "id": "b",
                "from_name": "size",
                "type": "choices",
                "value": {**place, "choices": ["big"]},
            },
        ]
        return json.dumps(regions)

    answers = {"ann": said("neg", "car"), "ben": said("pos", "bus"), "cleo": said("pos", "car")}
    annotations = tuple(
        Annotation(id=who, task_id="1", annotator=who, result=result) for who, result in answers.items()
    )
    store = Store(str(tmp_path / "s"))
    store.append([Task(id="1", key="k", annotations=annotations)], "c", AT, ontology=parse_config(TWO))
    loaded = read_store(store, {})
    assert [str(one) for one in loaded.not_counted] == [
        "box: 1 of 3 answers not counted: label 'bus' is not in the ontology",
        "mood: 1 of 3 answers not counted: label 'neg' is not in the ontology",
        "size: 1 of 3 answers not counted: it is about a region of control 'box', which is not counted",
    ]
    assert len(loaded.rejects) == 3
    counted = units(loaded.labels).select("control", "annotator", "label").sort("control", "annotator")
    assert list(counted.iter_rows()) == [
        ("box", "ann", "car"),
        ("box", "cleo", "car"),
        ("mood", "ben", "pos"),
        ("mood", "cleo", "pos"),
        ("size", "ann", "big"),
        ("size", "cleo", "big"),
    ]
