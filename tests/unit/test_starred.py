"""An answer that is marked as ground truth is gold, and stays a vote of whoever gave it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.formats.label_files import read_file
from connector.quality.annotators import annotators
from connector.quality.consensus import consensus
from connector.quality.golden import Golden, golden
from connector.quality.parity import both_of
from connector.quality.units import units
from connector.store.labels import with_gold
from tests.conftest import run_command

CASES = Path(__file__).parent.parent / "cases"


def ask(folder: Path, command: str, *options: str) -> Mapping[str, Any]:
    code, out, err = run_command(["quality", command, *options, "--json"], folder, {})
    assert code == 0, err
    answer: Mapping[str, Any] = json.loads(out)
    return answer


def scores(table: pl.DataFrame, limit: float = 0.8) -> dict[str, tuple[float | None, int]]:
    found: Golden = golden(table, limit)
    return {row["annotator"]: (row["score"], row["n"]) for row in found.annotators.iter_rows(named=True)}


def starred(*tasks: Mapping[str, str]) -> pl.DataFrame:
    """The units of tasks of one choice: the label that each annotator gave, with a star where it is gold."""
    rows = [
        (f"{n}", who, label.rstrip("*"), label.endswith("*"))
        for n, said in enumerate(tasks)
        for who, label in said.items()
    ]
    frame = pl.DataFrame(rows, schema=["task", "annotator", "label", "gold"], orient="row")
    return pl.concat(
        [
            units(read_file(CASES / "85b_not_starred.json").labels).clear(),
            frame.with_columns(
                control=pl.lit("kind"),
                kind=pl.lit("choice"),
                unit=pl.lit("whole"),
                role=pl.lit("person"),
                annotation=pl.format("{}/{}", "task", "annotator"),
            ),
        ],
        how="diagonal_relaxed",
    )


def test_a_star_changes_no_agreement_and_judges_the_others(tmp_path: Path) -> None:
    """cat*, cat, dog on six tasks: one of three pairs agrees."""
    with_star, without = (
        ask(tmp_path, "consensus", "--labels", str(CASES / name))
        for name in ("85_starred.json", "85b_not_starred.json")
    )
    assert with_star["controls"] == without["controls"]
    (control,) = with_star["controls"]
    assert control["agreement"]["observed"]["value"] == pytest.approx(1 / 3)
    assert (control["annotators"], control["truth"]["ties"]) == (3, 0)
    found = ask(tmp_path, "golden", "--labels", str(CASES / "85_starred.json"))
    judged = {row["annotator"]: row["score"]["value"] for row in found["annotators"]}
    assert judged == {"bob@example.com": 1.0, "cy@example.com": 0.0}


LABELS = st.sampled_from(["cat", "dog", "owl"])
TASKS = st.lists(st.dictionaries(st.sampled_from("abcd"), LABELS, min_size=1), min_size=1, max_size=6)


@given(TASKS, st.data())
@settings(deadline=None, max_examples=40)
def test_starring_any_answers_changes_no_vote_and_no_agreement(tasks: Any, data: st.DataObject) -> None:
    plain = starred(*tasks)
    stars = data.draw(st.lists(st.booleans(), min_size=len(plain), max_size=len(plain)))
    marked = plain.with_columns(gold=pl.Series(stars))
    before, after = (consensus(table, seed=0) for table in (plain, marked))
    assert before.units.equals(after.units)
    assert before.controls == after.controls
    times = plain.select("task", "annotation", "annotator", "role").with_columns(
        seconds=pl.lit(None, pl.Float64), created_at=pl.lit(None, pl.Datetime("us", "UTC"))
    )
    assert annotators(plain, times).equals(annotators(marked, times))


def test_no_annotator_is_scored_by_an_answer_of_their_own() -> None:
    table = starred(
        {"ann": "cat*", "ben": "cat", "cy": "dog"},  # ann's alone is gold: it does not count for ann
        {"ann": "cat*", "ben": "cat*", "cy": "cat"},  # for ann and ben the other's is
        {"ann": "dog*"},  # judges no annotator
    )
    assert scores(table) == {"ann": (1.0, 1), "ben": (1.0, 2), "cy": (0.5, 2)}


def test_gold_answers_of_one_task_must_be_the_same() -> None:
    with pytest.raises(ValueError, match="task 0 has different gold answers for kind: keep one of them"):
        golden(starred({"ann": "cat*", "ben": "dog*", "cy": "dog"}), 0.8)


def test_whoever_gave_the_gold_is_no_witness_for_it() -> None:
    """Most of the *other* answers are compared with the gold."""
    split = {"ann": "cat*", "eve": "cat", "ben": "dog", "cy": "dog"}
    clear = {"ann": "cat*", "ben": "dog", "cy": "dog", "dee": "dog"}
    check = golden(starred(split, clear), 0.8).checks["kind"]
    assert (check.tasks, list(check.differ)) == (2, ["0", "1"])


def test_a_gold_file_takes_the_place_of_the_stars_and_removes_no_vote(tmp_path: Path) -> None:
    people = read_file(CASES / "85_starred.json")
    path = tmp_path / "gold.csv"
    path.write_text("task,label,control\n1,dog,kind\n2,dog,kind\n")
    loaded = with_gold(people, read_file(path, gold=True))
    table = units(loaded.labels)
    ann, bob, cy = (f"{name}@example.com" for name in ("ann", "bob", "cy"))
    assert scores(table) == {ann: (0.0, 2), bob: (0.0, 2), cy: (1.0, 2)}
    assert consensus(table, 0).units.equals(consensus(units(people.labels), 0).units)


def test_other_tools_scores_compare_no_answer_with_itself() -> None:
    labels = read_file(CASES / "85_starred.json").labels
    with_gold_answers = both_of(labels, gold=True)
    assert set(with_gold_answers["annotator_a"]) == {"bob@example.com", "cy@example.com"}
    assert len(both_of(labels, gold=False)) == 6 * 3
