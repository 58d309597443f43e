"""Golden: how near each annotator is to known answers."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from connector.quality.answers import ABSENT
from connector.quality.interval import CONFIDENCE, Estimate, clustered, unknown, wilson
from connector.quality.kinds import DRAWN
from connector.quality.units import UNIT, keep_roles, shapes_of


@dataclass(frozen=True, slots=True)
class Golden:
    """The golden scores.

    Attributes:
        annotators: annotator, control, tasks, n (units), score, low, high, verdict, similarity (mean
            over the things both drew: how exactly; null for an answer).
        controls: of each control, the score of everybody together.
        confusion: control, gold, label, count: what was given where something else was right.
    """

    annotators: pl.DataFrame
    controls: dict[str, Estimate]
    confusion: pl.DataFrame


def golden(table: pl.DataFrame, limit: float, confidence: float = CONFIDENCE) -> Golden:
    """Compare everyone with the gold answers.

    The score is the share of right units. Of boxes these are right / (right + wrong label + missed +
    invented), which is CVAT's accuracy; the objects of one picture err together, so its interval takes
    tasks as clusters.

    Args:
        table: schema `UNITS`; gold answers have the role gold, everyone else of role person is scored.
        limit: what is demanded. `pass` when the whole interval lies at or above it, `fail` when it lies
            below, `undecided` between.
        confidence: of the intervals.

    Raises:
        ValueError: if two gold answers of one task differ, naming the task.
    """
    compared = _compare(keep_roles(table, ["person", "gold"]))
    rows = []
    for (annotator, control), part in compared.group_by("annotator", "control", maintain_order=True):
        score = _score(part, confidence)
        rows.append(
            {
                "annotator": annotator,
                "control": control,
                "tasks": part["task"].n_unique(),
                "n": score.n,
                "score": score.value,
                "low": score.low,
                "high": score.high,
                "verdict": verdict(score, limit),
                "similarity": part["similarity"].mean(),
            }
        )
    schema = {
        **dict.fromkeys(("annotator", "control"), pl.String),
        **dict.fromkeys(("tasks", "n"), pl.Int64),
        **dict.fromkeys(("score", "low", "high"), pl.Float64),
        "verdict": pl.String,
        "similarity": pl.Float64,
    }
    controls = {
        str(control): _score(part, confidence)
        for (control,), part in compared.group_by("control", maintain_order=True)
    }
    confusion = compared.group_by("control", "gold", "label").agg(count=pl.len().cast(pl.Int64))
    return Golden(
        pl.DataFrame(rows, schema=schema).sort("annotator", "control"),
        controls,
        confusion.sort("control", "gold", "label"),
    )


def verdict(score: Estimate, limit: float) -> str:
    """What the interval says of a limit: `pass`, `fail`, or `undecided` while it holds the limit inside."""
    if score.low is None or score.high is None:
        return "undecided"
    if score.low >= limit:
        return "pass"
    return "fail" if score.high < limit else "undecided"


def _compare(table: pl.DataFrame) -> pl.DataFrame:
    """Every answer of a person beside the gold answer of its unit."""
    gold = table.filter(pl.col("role") == "gold")
    answers = gold.group_by(UNIT).agg(
        gold=pl.col("label").unique().sort(), gold_shape=pl.col("shape").drop_nulls().first()
    )
    contested = answers.filter(pl.col("gold").list.len() > 1)
    if len(contested):
        task, control = contested.sort(UNIT).row(0)[:2]
        raise ValueError(f"task {task} has different gold answers for {control}: keep one of them")
    known = answers.with_columns(pl.col("gold").list.first())
    people = table.filter(pl.col("role") == "person")
    compared = _with_similarity(people.join(known, on=UNIT)).sort(*UNIT, "annotator", "annotation")
    # What another annotator invented is no question to this one: an object that neither drew does not count,
    # unless the whole task is empty for both, which is an answer and a right one.
    either = (pl.col("label") != ABSENT) | (pl.col("gold") != ABSENT)
    answer = ["task", "control", "annotation"]
    empty = ~either.any().over(answer) & (pl.col("unit") == pl.col("unit").min().over(answer))
    return compared.filter(either | empty)


def _with_similarity(compared: pl.DataFrame) -> pl.DataFrame:
    """With `similarity` to the gold's shape, where both drew one."""
    parts = []
    for (kind,), part in compared.group_by("kind", maintain_order=True):
        alike = pl.Series([None] * len(part), dtype=pl.Float64)
        both = part["shape"].is_not_null() & part["gold_shape"].is_not_null()
        if kind in DRAWN and both.any():
            drawn = part.filter(both)
            theirs = shapes_of(drawn.drop("shape").rename({"gold_shape": "shape"}))
            found = DRAWN[str(kind)].similar(shapes_of(drawn), theirs)
            alike = alike.scatter(both.arg_true(), pl.Series(found))
        parts.append(part.with_columns(similarity=alike))
    return pl.concat(parts) if parts else compared


def _score(part: pl.DataFrame, confidence: float) -> Estimate:
    right = (
        part.group_by("task", "annotation")
        .agg(k=(pl.col("label") == pl.col("gold")).sum(), n=pl.len())
        .sort("task", "annotation")
    )
    if not len(right):
        return unknown(0, "wilson", "no gold task was answered")
    if part["kind"][0] not in DRAWN and part.select("task", "annotation").is_unique().all():
        return wilson(int(right["k"].sum()), int(right["n"].sum()), confidence)
    return clustered(
        right["k"].cast(pl.Float64).to_numpy(), right["n"].cast(pl.Float64).to_numpy(), confidence
    )
