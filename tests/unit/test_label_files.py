"""Files as people have them: each in `tests/cases` gives the labels in it, or an error with a way out."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.adapters.label_studio.ontology import parse_config
from connector.commands import run
from connector.errors import Unsupported, UsageError
from connector.formats.label_files import read_file
from connector.io.reading import Reading, columns_of
from connector.quality.answers import parted
from connector.quality.consensus import consensus
from connector.quality.units import units
from connector.review.samples import read_verdicts
from connector.store.labels import Loaded

CASES = Path(__file__).parent.parent / "cases"


def load(name: str, **reading: Any) -> Loaded:
    return read_file(CASES / name, reading=Reading(**reading))


def numbers(loaded: Loaded) -> tuple[float | None, float | None]:
    """Observed agreement and Krippendorff's alpha of the only control."""
    (found,) = consensus(units(loaded.labels), 0).controls
    return found.agreement.observed.value, found.agreement.krippendorff_alpha.value


def alpha(name: str, delimiter: str = ",") -> float:
    """Krippendorff's alpha of the plain rows of a case, by an independent reading and library."""
    with (CASES / name).open(newline="") as file:
        rows = list(csv.reader(file, delimiter=delimiter))[1:]
    tasks, people, labels = (sorted({row[n] for row in rows}) for n in range(3))
    table = np.full((len(people), len(tasks)), np.nan)
    for task, who, label in rows:
        if label not in ("", "NaN"):
            table[people.index(who), tasks.index(task)] = labels.index(label)
    return float(krippendorff.alpha(table, level_of_measurement="nominal"))


SAME = [
    *("02_crowdkit.csv", "03_semicolon.csv", "04_tab.tsv", "04b_tab_named.csv", "05_bom.csv"),
    *("06_crlf.csv", "08_intids.csv", "09_floatids.csv", "13_upper.csv", "13c_caps_labels.csv"),
    *("14_extracols.csv", "15_latin1.csv", "16_item_rater.csv", "20_wide.csv"),
    *("22_plain.csv.gz", "22b_plain.csv.zip", "30_rows.jsonl", "31_rows.ndjson", "32_rows.json"),
    "33_lists.jsonl",
]


@pytest.mark.parametrize("name", SAME)
def test_the_same_labels_in_another_form_give_the_same_numbers(name: str) -> None:
    loaded, plain = load(name, merge_similar=name.startswith("13c")), load("01_plain.csv")
    assert numbers(loaded) == numbers(plain)
    assert numbers(plain)[1] == pytest.approx(alpha("01_plain.csv"))
    assert (loaded.rejects, len(loaded.labels.answers)) == ([], 180)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.xlsx", "a.parquet", "a.jsonl.gz", "a.json"])
def test_ids_and_labels_stay_as_they_are_written(tmp_path: Path, name: str) -> None:
    rows = pl.DataFrame(
        {"task": ["007", "7.0", "7"], "annotator": ["01", "1", " 1"], "label": ['"no"', "a + b", "x, y\nz"]}
    )
    path = tmp_path / name
    if name == "a.xlsx":
        rows.write_excel(path)
    elif name == "a.parquet":
        rows.write_parquet(path)
    elif name == "a.jsonl.gz":
        path.write_bytes(gzip.compress(rows.write_ndjson().encode()))
    elif name == "a.json":
        path.write_text(rows.write_json())
    else:
        rows.write_csv(path, separator="\t" if name == "a.tsv" else ",")
    labels = read_file(path).labels
    both = labels.regions.join(labels.answers.drop("task"), on="annotation")
    assert set(both.select("task", "annotator", "label").rows()) == set(rows.rows())


def test_ids_of_numbers_are_texts() -> None:
    assert "7" in set(load("08_intids.csv").labels.answers["task"])
    assert "7.0" in set(load("09_floatids.csv").labels.answers["task"])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "cp1252", "cp1251"])
def test_a_file_of_another_encoding_is_read_with_a_notice(tmp_path: Path, encoding: str) -> None:
    label = {"cp1251": "кошка"}.get(encoding, "Bär")
    text = "task,annotator,label\n" + "".join(f"{n},ann,{label}\n" for n in range(30))
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    loaded = read_file(tmp_path / "a.csv")
    assert set(loaded.labels.regions["label"]) == {label}
    assert loaded.read
    assert "UTF" in loaded.read.notices[0]
    assert numbers(read_file(tmp_path / "a.csv", reading=Reading(encoding=encoding))) == numbers(loaded)


def test_an_encoding_that_cannot_be_told_must_be_named(tmp_path: Path) -> None:
    rows = "".join(f"{n},ann,猫です\n" for n in range(30))
    (tmp_path / "a.csv").write_bytes(f"task,annotator,label\n{rows}".encode("shift_jis"))
    with pytest.raises(UsageError, match="cannot be told") as caught:
        read_file(tmp_path / "a.csv")
    assert "--encoding" in caught.value.hint
    named = read_file(tmp_path / "a.csv", reading=Reading(encoding="shift_jis"))
    assert set(named.labels.regions["label"]) == {"猫です"}


@pytest.mark.parametrize("name", ["10_missing.csv", "10b_nan.csv"])
def test_empty_answers_are_reported_and_not_counted(name: str) -> None:
    loaded = load(name)
    assert loaded.read
    assert (loaded.read.empty, loaded.read.labels) == (18, 3)
    assert len(loaded.labels.answers) == 162
    assert numbers(loaded)[1] == pytest.approx(alpha(name))


def test_a_label_that_looks_missing_can_be_kept() -> None:
    loaded = load("10b_nan.csv", keep_missing=True)
    assert loaded.read
    assert (loaded.read.empty, loaded.read.labels) == (0, 4)


def test_repeats_are_counted_once_and_contradictions_are_named() -> None:
    loaded = load("12_dups.csv")
    assert loaded.read
    assert (loaded.read.repeats, loaded.read.identical, len(loaded.read.contradicting)) == (30, 23, 7)
    assert loaded.read.contradicting[0] == "img_007.jpg of ann: bird, then dog"
    assert len(loaded.labels.answers) == 180
    said = loaded.labels.regions.join(loaded.labels.answers.drop("task"), on="annotation")
    assert said.filter(task="img_007.jpg", annotator="ann")["label"].to_list() == ["dog"]
    assert len(load("12_dups.csv", repeats="all").labels.answers) == 210


def test_the_later_answer_counts_wherever_it_stands(tmp_path: Path) -> None:
    rows = "1,ann,dog,2026-03-02T00:00:00Z\n1,ann,cat,2026-03-01T00:00:00Z\n"
    (tmp_path / "a.csv").write_text("task,annotator,label,created_at\n" + rows)
    assert read_file(tmp_path / "a.csv").labels.regions["label"].to_list() == ["dog"]


def test_labels_that_differ_by_case_or_spaces_are_reported() -> None:
    read = load("13c_caps_labels.csv").read
    assert read
    assert [set(group) for group in read.similar][1] == {"cat", "cat ", "CAT"}
    assert "--merge-similar" in " ".join(read.notices)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("23_empty.csv", "has no rows"),
        ("23b_header.csv", "has no rows"),
        ("67_absent.csv", "has no answers"),
        ("72_ratings_named.csv", "--columns"),
        ("60_multilabel_pipe.csv", "--multi-label '|'"),
        ("65_dates.csv", "65_dates.csv:2: seconds '12,5'; "),
        ("65_dates.csv", "65_dates.csv:2: created_at '11/20/2026 10:00' cannot be read"),
        ("65_dates.csv", "give --decimal , --date-format '%m/%d/%Y %H:%M'"),
    ],
)
def test_a_file_that_needs_a_flag_or_has_no_answers_ends_with_the_way_out(name: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(name)
    assert said in str(caught.value)


def test_local_dates_and_decimals_are_read_as_the_flags_say() -> None:
    loaded = load("65_dates.csv", decimal=",", date_format="%m/%d/%Y %H:%M")
    assert loaded.labels.answers["seconds"].unique().to_list() == [12.5]
    assert str(loaded.labels.answers["created_at"][0]) == "2026-11-20 10:00:00+00:00"


def test_labels_with_decimal_commas_are_numbers_on_request_and_keep_their_comma(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "a.csv", tmp_path / "out.csv"
    path.write_text("task;annotator;label\n1;a;3,5\n1;b;4\n2;a;1,5\n2;b;1,5\n")
    words = ["quality", "consensus", "--labels", str(path), "--level", "interval", "--out", str(out)]
    assert run(words) == 2
    assert "--decimal ," in capsys.readouterr().err
    assert run([*words, "--decimal", ","]) == 0
    assert pl.read_csv(out, infer_schema=False)["label"].to_list() == ["3,75", "1,5"]


@pytest.mark.parametrize(
    "name", ["40b_ls_export_ids.json", "42_ls_json_min.json", "43_ls_export.csv", "43b_ls_export.tsv"]
)
def test_every_export_of_label_studio_gives_its_labels(name: str) -> None:
    loaded = load(name)
    assert (loaded.labels.answers["task"].n_unique(), len(loaded.labels.answers), loaded.rejects) == (
        40,
        120,
        [],
    )
    assert dict(loaded.labels.controls) == {"sentiment": "choice"}


def test_short_exports_and_the_old_key_agree_with_each_other() -> None:
    assert numbers(load("42_ls_json_min.json")) == numbers(load("43_ls_export.csv"))
    assert numbers(load("43_ls_export.csv")) == numbers(load("43b_ls_export.tsv"))
    old, short = load("44_ls_completions.json"), load("42_ls_json_min.json")
    assert sorted(old.labels.answers["task"].unique()) == ["1", "2", "3", "4", "5"]
    first = short.labels.regions.filter(pl.col("task").is_in(["1", "2", "3", "4", "5"]))
    assert sorted(old.labels.regions.select("task", "label").rows()) == sorted(
        first.select("task", "label").rows()
    )


def test_boxes_in_the_cells_of_an_export_are_boxes() -> None:
    labels = load("43c_ls_export_boxes.csv").labels
    assert dict(labels.controls) == {"label": "box"}
    assert labels.regions["shape"][0].to_list()[:2] == [10, 10]
    assert len(labels.answers) == 10


def test_a_mixed_export_is_read_for_what_it_is() -> None:
    loaded = load("41_ls_mixed.json")
    (reject,) = loaded.rejects
    assert reject.where.endswith("task 2, annotation 0")
    assert "completed_by" in reject.why
    notices = " ".join(loaded.read.notices) if loaded.read else ""
    for part in (
        "1 draft not read",
        "1 cancelled",
        "7 of ann@x.com",
        "counted once: 8",
        "1 submitted annotation left empty",
    ):
        assert part in notices
    answers = loaded.labels.answers
    assert answers.filter(task="4", gold=True).select("annotator", "role").rows() == [("ann@x.com", "person")]
    assert len(answers.filter(task="8")) == 3
    assert not len(answers.filter(task="2", annotator="ann@x.com"))  # the cancelled one


def test_a_task_that_occurs_twice_counts_once_with_a_notice() -> None:
    once, twice = load("41a_once.json"), load("41b_task_twice.json")
    assert numbers(once) == numbers(twice)
    assert once.read
    assert twice.read
    assert (once.read.repeats, twice.read.repeats) == (0, 3)
    assert "listed several times, counted once" in twice.read.notices[0]


@pytest.mark.parametrize(
    ("start", "tool"),
    [
        *(("50", "Argilla"), ("51", "doccano"), ("52", "Prodigy"), ("53", "COCO"), ("54", "CVAT")),
        *(("55", "Labelbox"), ("56", "Mechanical Turk"), ("57", "Ground Truth"), ("59", "Potato")),
        *(("70", "table of regions"), ("71", "table of regions")),
    ],
)
def test_a_file_of_another_tool_is_named(start: str, tool: str) -> None:
    names = sorted(path.name for path in CASES.glob(f"{start}*"))
    assert names
    for name in names:
        with pytest.raises(Unsupported, match=tool) as caught:
            load(name)
        assert "not supported yet" in str(caught.value)


def test_a_table_of_regions_is_none_of_choices_whatever_columns_are_named() -> None:
    with pytest.raises(Unsupported, match="regions"):
        load("70_boxes_table.csv", columns=columns_of("task=image,label=class_name"))
    with pytest.raises(Unsupported, match="regions"):
        load("71_segments_table.csv", columns=columns_of("task=movie_id,start=start_frame,end=end_frame"))


def test_columns_are_named() -> None:
    loaded = load(
        "72_ratings_named.csv", columns=columns_of("task=instance_id,annotator=user_id,label=politeness")
    )
    answers = loaded.labels.answers
    assert (answers["task"].n_unique(), len(answers)) == (30, 120)
    assert loaded.read
    assert list(loaded.read.ignored) == ["text", "gender", "age"]
    turk = columns_of("task=HITId,annotator=WorkerId,label=Answer.category.label,seconds=WorkTimeInSeconds")
    assert load("56_mturk.csv", columns=turk).labels.answers["seconds"].unique().to_list() == [60]


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("item,instance,worker,label", "the task may be any of the columns item, instance"),
        ("task,worker,performer,label", "the annotator may be any of the columns worker, performer"),
        ("task,worker,class,rating", "the label may be any of the columns class, rating"),
        ("task,Task,worker,label", "has the column task twice"),
    ],
)
def test_a_column_that_could_be_one_of_two_must_be_named(tmp_path: Path, head: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(f"{head}\n1,2,3,4\n")
    with pytest.raises(UsageError, match=said):
        read_file(tmp_path / "a.csv")


def test_several_questions_are_columns_or_rows(tmp_path: Path) -> None:
    (tmp_path / "wide.csv").write_text("task,annotator,mood,topic\n1,a,good,x\n1,b,bad,\n")
    (tmp_path / "long.csv").write_text(
        "task,annotator,control,label\n1,a,mood,good\n1,a,topic,x\n1,b,mood,bad\n1,b,topic,\n"
    )
    columns = read_file(tmp_path / "wide.csv", reading=Reading(columns=columns_of("label=mood,label=topic")))
    rows = read_file(tmp_path / "long.csv")
    assert dict(columns.labels.controls) == {"mood": "choice", "topic": "choice"}
    assert columns.labels.regions.equals(rows.labels.regions)


def test_a_wide_table_may_name_its_annotators(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("picture,text,ann,bob\n1,p,cat,dog\n2,q,cat,\n")
    columns = columns_of("task=picture,annotator=ann,annotator=bob")
    loaded = read_file(tmp_path / "a.csv", reading=Reading(wide=True, columns=columns))
    assert sorted(loaded.labels.answers["annotator"]) == ["ann", "ann", "bob"]
    with pytest.raises(UsageError, match="no column"):
        read_file(tmp_path / "a.csv")


SETS: list[tuple[str, dict[str, Any]]] = [
    ("60_multilabel_pipe.csv", {"multi_label": "|"}),
    ("60b_multilabel_rows.csv", {}),
    ("60c_multilabel_set.csv", {}),
]


@pytest.mark.parametrize(("name", "reading"), SETS)
def test_several_labels_are_a_set(name: str, reading: dict[str, Any]) -> None:
    table = units(load(name, **reading).labels)
    assert {frozenset(parted(text)) for text in table["label"]} <= {
        frozenset("a"),
        frozenset("b"),
        frozenset("ab"),
    }
    assert any(len(parted(text)) == 2 for text in table["label"])
    assert len(table) == 40


def test_commas_and_signs_belong_to_labels() -> None:
    assert numbers(load("62_commas.csv")) == numbers(load("62b_nocommas.csv"))
    assert set(units(load("63_plus.csv").labels)["label"]) == {'"rain + snow"', '"snow + rain"'}
    assert numbers(load("63_plus.csv"))[0] == 0


def test_numbers_hint_at_their_level() -> None:
    read = load("61_ratings.csv").read
    assert read
    assert "--level ordinal" in " ".join(read.notices)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("07_quoted_newline.csv", {"cat", "dog", "bird"}),
        ("62_commas.csv", None),
        ("63_plus.csv", {"rain + snow", "snow + rain"}),
        ("60_multilabel_pipe.csv", {"a", "b", "a|b"}),
        ("34_bool.jsonl", {True, False}),
    ],
)
def test_out_has_the_labels_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, labels: set[object] | None
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--multi-label", "|"] if name.startswith("60_") else []
    assert run(["quality", "consensus", "--labels", str(CASES / name), "--out", "o.jsonl", *flags]) == 0
    found = {json.loads(line)["label"] for line in Path("o.jsonl").read_text().splitlines()}
    labels = labels or set(pl.read_csv(CASES / name)["label"])
    assert found <= labels
    assert len(found) > 1 or name == "63_plus.csv"


def test_the_summary_is_one_line_and_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    case = str(CASES / "10b_nan.csv")
    assert run(["quality", "consensus", "--labels", case]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first == f"read {case}: 180 rows, 60 tasks, 3 annotators, 3 labels, 18 empty answers not counted"
    assert run(["quality", "annotators", "--labels", case, "--json"]) == 0
    read = json.loads(capsys.readouterr().out)["read"]
    assert (read["rows"], read["empty_answers"], read["rejects"]) == (180, 18, 0)
    assert run(["quality", "consensus", "--labels", str(CASES / "53_coco.json")]) == 2
    assert run(["quality", "consensus", "--labels", str(CASES / "65_dates.csv"), "--decimal", ","]) == 2
    assert "--date-format" in capsys.readouterr().err


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
    lambda text: text.strip() and text not in ("ABSENT", "NA", "n/a", "null")
)


@given(st.lists(st.sets(words, min_size=1, max_size=3), min_size=1, max_size=8))
@settings(deadline=None, max_examples=60)
def test_labels_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, sets: list[set[str]]
) -> None:
    path = tmp_path_factory.mktemp("round") / "a.jsonl"
    rows = [{"task": f"{n}", "annotator": "a", "label": sorted(one)} for n, one in enumerate(sets)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = read_file(path, reading=Reading(keep_missing=True))
    table = units(loaded.labels)
    written = loaded.written.restore(table, loaded.labels.controls, "label")
    found = dict(written.select("task", "label").iter_rows())
    for n, one in enumerate(sets):
        expected = {label.strip() for label in one}
        text = found[f"{n}"]
        assert {text} == expected if len(expected) == 1 else set(json.loads(text)) == expected


@given(st.lists(words, min_size=1, max_size=8))
@settings(deadline=None, max_examples=60)
def test_single_labels_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str]
) -> None:
    path = tmp_path_factory.mktemp("round") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("task", "annotator", "label"), *((n, "a", label) for n, label in enumerate(labels))]
        )
    loaded = read_file(path, reading=Reading(multi_label="", keep_missing=True))
    written = loaded.written.restore(units(loaded.labels), loaded.labels.controls, "label")
    assert dict(written.select("task", "label").iter_rows()) == {f"{n}": one for n, one in enumerate(labels)}


def test_verdicts_may_come_from_a_spreadsheet(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_bytes("task;correct;reviewer\n007;1;Zoë\n8;0;Zoë\n".encode("latin-1"))
    pl.DataFrame({"task": ["007", "8"], "correct": [1, 0]}).write_excel(tmp_path / "v.xlsx")
    for name in ("v.csv", "v.xlsx"):
        assert read_verdicts(tmp_path / name).select("task", "correct").rows() == [("007", 1), ("8", 0)]


def test_answers_in_a_tree_by_value_and_by_alias_agree(tmp_path: Path) -> None:
    ontology = parse_config(
        """<View><Text name="text" value="$text"/><Taxonomy name="animal" toName="text">
        <Choice value="Tier" alias="pet"><Choice value="Katze" alias="cat"/></Choice></Taxonomy></View>"""
    )
    head = {"id": "r", "from_name": "animal", "to_name": "text", "type": "taxonomy"}
    annotations = [
        {
            "id": n,
            "completed_by": {"email": f"{n}@x.example"},
            "result": [{**head, "value": {"taxonomy": [p]}}],
        }
        for n, p in enumerate([["pet", "cat"], ["Tier", "Katze"]], 1)
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps([{"id": 1, "data": {"text": "x"}, "annotations": annotations}]))
    loaded = read_file(path, ontology=ontology)
    assert loaded.rejects == []
    assert set(loaded.labels.regions["label"]) == {"pet / cat"}
