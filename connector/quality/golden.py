"""Golden: how near each annotator is to known answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from connector.quality.agreement import level_of
from connector.quality.answers import ABSENT
from connector.quality.interval import CONFIDENCE, Estimate, clustered, mean_of, unknown, wilson
from connector.quality.kinds import DRAWN, comparer
from connector.quality.units import UNIT, keep_roles, shapes_of


@dataclass(frozen=True, slots=True)
class Detection:
    """What was drawn, beside what was to be drawn.

    Attributes:
        precision: of the things drawn, those that are there, whatever their labels.
        recall: of the things that are there, those drawn.
        f1: of both.
        label_accuracy: of the things found, those with the right label.
        similarity: how exactly things found were drawn.
        boundary: how exactly their edges were drawn; unknown of what has no edges.
    """

    precision: Estimate
    recall: Estimate
    f1: Estimate
    label_accuracy: Estimate
    similarity: Estimate
    boundary: Estimate


@dataclass(frozen=True, slots=True)
class Golden:
    """The golden scores.

    Attributes:
        annotators: annotator, control, tasks, n (units), score, low, high, verdict; and of what was drawn
            precision, recall, f1, label_accuracy, similarity, boundary, else null.
        together: of each annotator, the score of all controls together.
        controls: of each control, the score of everybody together.
        detection: of each control that draws, the same in parts: of an annotator, and with "" of everybody.
        confusion: control, gold, label, count: what was given where something else was right.
    """

    annotators: pl.DataFrame
    together: Mapping[str, Estimate]
    controls: Mapping[str, Estimate]
    detection: Mapping[tuple[str, str], Detection]
    confusion: pl.DataFrame


_PARTS = ("precision", "recall", "f1", "label_accuracy", "similarity", "boundary")

_SCHEMA = pl.Schema(
    [
        *((name, pl.String()) for name in ("annotator", "control")),
        *((name, pl.Int64()) for name in ("tasks", "n")),
        *((name, pl.Float64()) for name in ("score", "low", "high")),
        ("verdict", pl.String()),
        *((name, pl.Float64()) for name in _PARTS),
    ]
)

EVERYBODY = ""


def golden(table: pl.DataFrame, limit: float, confidence: float = CONFIDENCE) -> Golden:
    """Compare everyone with the gold answers.

    The score is the share of right units. Of what is drawn these are right / (right + wrong label + missed +
    invented), which is CVAT's accuracy; the objects of one picture err together, so its interval takes
    tasks as clusters. Of numbers, texts and the like it is how alike the answers are to the gold ones.

    Args:
        table: schema `UNITS`; gold answers have the role gold, everyone else of role person is scored.
        limit: what is demanded. `pass` when the whole interval lies at or above it, `fail` when it lies
            below, `undecided` between.
        confidence: of the intervals.

    Raises:
        ValueError: if two gold answers of one task differ, naming the task; or an answer is none of its kind.
    """
    compared = _compare(keep_roles(table, ["person", "gold"]))
    rows, controls, detection = [], {}, {}
    for (control,), whole in compared.group_by("control", maintain_order=True):
        name = str(control)
        controls[name] = _score(whole, confidence)
        if whole["kind"][0] in DRAWN:
            detection[EVERYBODY, name] = _detection(whole, confidence)
        for (annotator,), part in whole.sort("annotator").group_by("annotator", maintain_order=True):
            score = _score(part, confidence)
            row = {
                "annotator": annotator,
                "control": control,
                "tasks": part["task"].n_unique(),
                "n": score.n,
                "score": score.value,
                "low": score.low,
                "high": score.high,
                "verdict": verdict(score, limit),
            }
            if whole["kind"][0] in DRAWN:
                found = detection[str(annotator), name] = _detection(part, confidence)
                row |= {one: getattr(found, one).value for one in _PARTS}
            rows.append(row)
    together = {
        str(annotator): _score(part, confidence)
        for (annotator,), part in compared.sort("annotator").group_by("annotator", maintain_order=True)
    }
    confusion = compared.group_by("control", "gold", "label").agg(count=pl.len().cast(pl.Int64))
    return Golden(
        pl.DataFrame(rows, schema=_SCHEMA).sort("annotator", "control"),
        together,
        controls,
        detection,
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
    both = people.join(known, on=UNIT).sort(*UNIT, "annotator", "annotation")
    # What another annotator invented is no question to this one: an object that neither drew does not count,
    # unless the whole task is empty for both, which is an answer and a right one.
    either = (pl.col("label") != ABSENT) | (pl.col("gold") != ABSENT)
    answer = ["task", "control", "annotation"]
    empty = ~either.any().over(answer) & (pl.col("unit") == pl.col("unit").min().over(answer))
    both = both.filter(either | empty)
    parts = [_measured(part) for _, part in both.group_by("control", maintain_order=True)]
    return pl.concat(parts) if parts else _measured(both)


def _measured(part: pl.DataFrame) -> pl.DataFrame:
    """With `right`, from 0 to 1, and of shapes of both `alike` and `edges`."""
    kind = str(part["kind"][0]) if len(part) else ""
    right = (part["label"] == part["gold"]).cast(pl.Float64)
    said = pl.concat([part["label"], part["gold"]]).unique().sort()
    if level_of(kind, said.to_list()) != "nominal":
        i, j = (part[name].cast(pl.Enum(said)).to_physical().to_numpy() for name in ("label", "gold"))
        right = pl.Series(comparer(kind, said.to_list())(i.astype(np.int64), j.astype(np.int64)))
    alike, edges = np.full((2, len(part)), np.nan)
    both = (part["shape"].is_not_null() & part["gold_shape"].is_not_null()).to_numpy()
    if kind in DRAWN and both.any():
        drawn = part.filter(both)
        mine, theirs = shapes_of(drawn), shapes_of(drawn.drop("shape").rename({"gold_shape": "shape"}))
        alike[both] = DRAWN[kind].similar(mine, theirs)
        boundary = DRAWN[kind].boundary
        if boundary is not None:
            edges[both] = boundary(mine, theirs)
    return part.with_columns(right=right, alike=alike, edges=edges).with_columns(
        pl.col("alike", "edges").fill_nan(None)
    )


def _score(part: pl.DataFrame, confidence: float) -> Estimate:
    right = part.group_by("task").agg(k=pl.col("right").sum(), n=pl.len()).sort("task")
    if not len(right):
        return unknown(0, "wilson", "no gold task was answered")
    whole = bool(part["right"].is_in([0.0, 1.0]).all())
    if whole and not part["kind"].is_in(list(DRAWN)).any() and len(right) == len(part):
        return wilson(int(right["k"].sum()), int(right["n"].sum()), confidence)
    interval = clustered if whole else mean_of
    return interval(right["k"].to_numpy(), right["n"].cast(pl.Float64).to_numpy(), confidence)


def _detection(part: pl.DataFrame, confidence: float) -> Detection:
    drawn, there = pl.col("label") != ABSENT, pl.col("gold") != ABSENT
    by_task = part.group_by("task").agg(
        drawn=drawn.sum(),
        there=there.sum(),
        found=(drawn & there).sum(),
        right=(drawn & there & (pl.col("label") == pl.col("gold"))).sum(),
        either=(drawn.sum() + there.sum()) / 2,
    )
    by_task = by_task.sort("task").cast(dict.fromkeys(("drawn", "there", "found", "right"), pl.Float64))

    def share(of: str, whole: str) -> Estimate:
        return clustered(by_task[of].to_numpy(), by_task[whole].to_numpy(), confidence)

    return Detection(
        share("found", "drawn"),
        share("found", "there"),
        share("found", "either"),
        share("right", "found"),
        _mean(part, "alike", confidence),
        _mean(part, "edges", confidence),
    )


def _mean(part: pl.DataFrame, column: str, confidence: float) -> Estimate:
    known = part.drop_nulls(column).group_by("task").agg(k=pl.col(column).sum(), n=pl.len()).sort("task")
    return mean_of(known["k"].to_numpy(), known["n"].cast(pl.Float64).to_numpy(), confidence)
