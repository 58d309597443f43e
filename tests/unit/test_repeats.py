"""An annotator who answers a task twice is one annotator: the last answer counts, both show consistency."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from connector.formats.label_files import read_file
from connector.io.reading import Reading
from connector.quality.agreement import agreement, by_label, pairs
from connector.quality.annotators import NO_REPEATS, annotators
from connector.quality.answers import ABSENT
from connector.quality.consensus import consensus
from connector.quality.counts import counts, label_counts
from connector.quality.golden import golden
from connector.quality.interval import clustered
from connector.quality.kinds import BOX
from connector.quality.parity import both_of
from connector.quality.table import ANSWERS, REGIONS, Labels
from connector.quality.truth import majority
from connector.quality.units import latest, units
from tests.conftest import run_command
from tests.unit.quality.tables import Row, choices, last_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def exported(folder: Path, *given: tuple[int, str, str, str], gold: bool = False) -> Path:
    """An export: task, annotator, label and hour of each annotation, in the order of the file."""
    tasks: dict[int, list[dict[str, Any]]] = {}
    for n, (task, who, label, hour) in enumerate(given):
        value = {"choices": [label]}
        region = {"from_name": "kind", "to_name": "x", "type": "choices", "value": value}
        tasks.setdefault(task, []).append(
            {
                "id": n,
                "completed_by": {"email": who},
                "result": [region],
                "created_at": f"2026-03-01T{hour}:00:00Z",
                "ground_truth": gold,
            }
        )
    made = [{"id": task, "data": {}, "annotations": said} for task, said in tasks.items()]
    path = folder / "a.json"
    path.write_text(json.dumps(made))
    return path


def ask(folder: Path, *words: str) -> Mapping[str, Any]:
    code, out, err = run_command(["quality", *words, "--json"], folder, {})
    assert code == 0, err
    answer: Mapping[str, Any] = json.loads(out)
    return answer


def test_one_annotator_alone_agrees_with_no_other(tmp_path: Path) -> None:
    path = exported(tmp_path, (1, "ann", "cat", "08"), (1, "ann", "cat", "09"))
    (control,) = ask(tmp_path, "consensus", "--labels", str(path), "--out", "out.csv")["controls"]
    assert (control["annotators"], control["agreement"]["observed"]["value"]) == (1, None)
    assert pl.read_csv(tmp_path / "out.csv").select("votes", "annotators", "agreement").row(0) == (1, 1, None)


def test_the_last_answer_counts_and_the_consistency_stands_beside_it(tmp_path: Path) -> None:
    path = exported(
        tmp_path,
        (1, "ann", "dog", "10"),  # the last, though it stands first
        (1, "ann", "cat", "08"),
        (1, "bob", "dog", "09"),
        (2, "ann", "cat", "08"),
        (2, "ann", "cat", "09"),
        (2, "bob", "cat", "09"),
    )
    words = ("--labels", str(path))
    (control,) = ask(tmp_path, "consensus", *words)["controls"]
    assert (control["annotators"], control["annotations"]) == (2, 4)
    assert control["agreement"]["observed"]["value"] == 1.0
    ann, bob = ask(tmp_path, "annotators", *words)["annotators"]
    # Of two tasks as clusters the design effect is 2 / (2 - 1).
    low, high = proportion_confint(1 / 2, 2 / 2, method="wilson")
    assert ann["self_agreement"].pop("method").startswith("consecutive answers")
    assert ann["self_agreement"] == pytest.approx({"value": 0.5, "low": low, "high": high, "n": 2})
    assert (bob["self_agreement"]["value"], bob["self_agreement"]["why"]) == (None, NO_REPEATS)
    _, out, _ = run_command(["quality", "annotators", *words], tmp_path, {})
    assert "Consistency of repeated answers" in out


@pytest.mark.parametrize(("repeats", "annotations"), [("last", 4), ("all", 6), (None, 6)])
def test_an_export_is_read_with_its_repeats_or_without(
    tmp_path: Path, repeats: str | None, annotations: int
) -> None:
    given = [(1, "ann", "cat", "08"), (1, "ann", "dog", "10"), (1, "bob", "dog", "09")]
    given += [(2, "ann", "cat", "08"), (2, "ann", "cat", "09"), (2, "bob", "cat", "09")]
    path = exported(tmp_path, *given)
    loaded = read_file(path, reading=Reading(repeats=repeats))
    assert len(loaded.labels.answers) == len(loaded.labels.regions) == annotations
    assert loaded.read
    assert loaded.read.repeats == 2
    assert "the last annotation counts" in " ".join(loaded.read.notices)
    assert majority(units(loaded.labels))["label"].to_list() == ["dog", "cat"]


def test_an_export_has_no_rows_that_are_labels_of_one_answer(tmp_path: Path) -> None:
    path = exported(tmp_path, (1, "ann", "cat", "08"))
    code, _, err = run_command(
        ["quality", "consensus", "--labels", str(path), "--repeats", "labels"], tmp_path, {}
    )
    assert code == 2
    assert "give --repeats last or all" in err


@pytest.mark.parametrize("repeats", ["last", "all"])
def test_a_table_gives_the_same_agreement_however_its_repeats_are_read(tmp_path: Path, repeats: str) -> None:
    """Also where one of two questions was answered once only."""
    rows = [
        *("1,ann,a,cat", "1,ann,b,sun", "1,ann,a,dog", "1,bob,a,dog", "1,bob,b,sun"),
        *("2,ann,a,cat", "2,bob,a,cat", "2,bob,a,owl", "2,ann,b,rain", "2,bob,b,sun"),
    ]
    (tmp_path / "a.csv").write_text("\n".join(["task,annotator,control,label", *rows]))
    labels = read_file(tmp_path / "a.csv", reading=Reading(repeats=repeats)).labels
    assert len(labels.regions) == (10 if repeats == "all" else 8)
    merged = consensus(units(labels), seed=0)
    assert merged.units.select("task", "control", "agreement").rows() == [
        *[("1", "a", 1.0), ("1", "b", 1.0), ("2", "a", 0.0), ("2", "b", 0.0)]
    ]
    own = annotators(units(labels), labels.answers).select("annotator", "self_agreement", "self_agreement_n")
    found = (
        {"ann": (0.0, 1), "bob": (0.0, 1)}
        if repeats == "all"
        else dict.fromkeys(("ann", "bob"), (None, None))
    )
    assert {who: (value, n) for who, value, n in own.rows()} == found


SAID = st.lists(
    st.tuples(st.sampled_from("123"), st.sampled_from("abc"), st.sampled_from(["cat", "dog"])),
    min_size=1,
    max_size=14,
)


@given(SAID)
@settings(deadline=None, max_examples=40)
def test_no_figure_of_agreement_counts_an_annotator_twice(said: list[Row]) -> None:
    """Every public function gives what it gives of the last answers alone."""
    table, last = choices(said), choices(last_of(said))
    assert agreement(table, seed=0) == agreement(last, seed=0)
    assert pairs(table).equals(pairs(last))
    assert majority(table).equals(majority(last))
    for method in ("majority", "dawid-skene"):
        units_of = [consensus(one, seed=0, method=method).units for one in (table, last)]
        assert units_of[0].equals(units_of[1])
    assert consensus(table, seed=0).controls == consensus(last, seed=0).controls
    assert by_label(counts(table), 0) == by_label(label_counts(last), 0)
    assert not len(pairs(table).filter(pl.col("annotator_a") == pl.col("annotator_b")))


@given(SAID)
@settings(deadline=None, max_examples=40)
def test_consistency_is_the_share_of_answers_that_are_as_the_one_before(said: list[Row]) -> None:
    table = choices(said)
    answers = table.select("task", "annotation", "annotator", "role", "gold").with_columns(
        seconds=pl.lit(None, pl.Float64), created_at=pl.lit(None, pl.Datetime("us", "UTC"))
    )
    for row in annotators(table, answers).iter_rows(named=True):
        of_tasks = []
        for task in "123":
            mine = [label for t, who, label in said if (t, who) == (task, row["annotator"])]
            same = [a == b for a, b in itertools.pairwise(mine)]
            of_tasks += [(float(sum(same)), float(len(same)))] if same else []
        found = (
            clustered(*(pl.Series([one[at] for one in of_tasks]).to_numpy() for at in (0, 1)))
            if of_tasks
            else None
        )
        assert row["self_agreement"] == (found.value if found else None)
        assert (row["self_agreement_low"], row["self_agreement_n"]) == (
            (found.low, found.n) if found else (None, None)
        )


def test_of_what_was_drawn_twice_the_objects_of_both_count() -> None:
    """Two boxes, then one of them and a new one: F1 is 2 * 1 / (2 + 2)."""
    here, there, new = ([x, 10.0, 20.0, 20.0, 0.0] for x in (0.0, 30.0, 60.0))
    drawn = {"first": [here, there], "second": [here, new]}
    answers = [
        ("t", name, "ann", "person", False, None, NOON.replace(hour=hour))
        for name, hour in (("first", 8), ("second", 9))
    ]
    regions = [
        ("t", name, "b", str(n), None, None, "car", shape, None, None)
        for name, shapes in drawn.items()
        for n, shape in enumerate(shapes)
    ]
    labels = Labels(
        pl.DataFrame(answers, schema=ANSWERS, orient="row"),
        pl.DataFrame(regions, schema=REGIONS, orient="row"),
        {"b": BOX},
    )
    table = units(labels)
    (ann,) = annotators(table, labels.answers).iter_rows(named=True)
    assert (ann["self_agreement"], ann["tasks"], ann["annotations"]) == (0.5, 1, 2)
    merged = consensus(table, seed=0).units
    assert merged["annotators"].to_list() == [1, 1]
    assert ABSENT not in merged["label"].to_list()


def test_gold_judges_the_last_answer_and_a_star_on_an_earlier_one_stays_gold() -> None:
    said = [("1", "ann", "dog"), ("1", "ann", "cat"), ("1", "bob", "cat"), ("1", "bob", "dog")]
    table = choices(said).with_columns(gold=pl.Series([True, False, False, False]))
    found = golden(table, 0.8).annotators.select("annotator", "score").rows()
    assert found == [("bob", 1.0)]


def test_names_with_numbers_are_in_their_order_where_times_are_unknown() -> None:
    rows = [("t", f"{n}", "ann", "person", False, None, None) for n in (9, 100, 10)]
    regions = [("t", f"{n}", "c", "0", None, None, f"{n}", None, None, None) for n in (9, 100, 10)]
    labels = Labels(
        pl.DataFrame(rows, schema=ANSWERS, orient="row"),
        pl.DataFrame(regions, schema=REGIONS, orient="row"),
        {"c": "choice"},
    )
    table = units(labels)
    assert dict(table.select("label", "turn").rows()) == {"9": 2, "10": 1, "100": 0}
    assert latest(table)["label"].to_list() == ["100"]


def test_other_tools_scores_compare_different_annotators(tmp_path: Path) -> None:
    path = exported(tmp_path, (1, "ann", "cat", "08"), (1, "ann", "dog", "10"), (1, "bob", "dog", "09"))
    both = both_of(read_file(path).labels, gold=False)
    assert both.select("annotator_a", "annotator_b").rows() == [("ann", "bob")]
