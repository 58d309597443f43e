"""Annotators: how fast, and how often right as far as the others can tell."""

from __future__ import annotations

import polars as pl

from connector.quality.interval import CONFIDENCE, clustered
from connector.quality.units import UNIT, keep_roles

METHOD = "leave-one-out majority; wilson, tasks as clusters (Rao and Scott 1992)"

SCHEMA = pl.Schema(
    [
        ("annotator", pl.String()),
        ("role", pl.String()),
        ("tasks", pl.Int64()),
        ("annotations", pl.Int64()),
        ("seconds_median", pl.Float64()),
        ("per_hour", pl.Float64()),
        ("agreement", pl.Float64()),
        ("accuracy", pl.Float64()),
        ("accuracy_low", pl.Float64()),
        ("accuracy_high", pl.Float64()),
        ("accuracy_n", pl.Int64()),
    ]
)

_ACCURACY = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_n")


def annotators(table: pl.DataFrame, answers: pl.DataFrame, confidence: float = CONFIDENCE) -> pl.DataFrame:
    """One row for everyone who answered.

    `agreement` is the share of the others' answers to the same units that are the same. `accuracy` is the
    share of units in which the annotator said what most of the *others* said; a consensus that counted
    the annotator's own vote would flatter. Units where the others are tied or silent do not count.
    `per_hour` is annotations per hour of time spent on tasks, as the tool measured it.

    Args:
        table: schema `UNITS`.
        answers: schema `ANSWERS`.
        confidence: of the accuracy's interval (tasks as clusters).

    Returns:
        Schema `SCHEMA`, sorted by annotator and role; null where there is nothing to judge by.
    """
    worked = answers.group_by("annotator", "role").agg(
        tasks=pl.col("task").n_unique().cast(pl.Int64),
        annotations=pl.len().cast(pl.Int64),
        seconds_median=pl.col("seconds").median(),
        per_hour=pl.when(pl.col("seconds").sum() > 0).then(
            3600 * pl.col("seconds").count() / pl.col("seconds").sum()
        ),
    )
    people = keep_roles(table, ["person"])
    judged = pl.DataFrame(
        [_accuracy(str(name), part, confidence) for (name,), part in _judged(people).group_by("annotator")],
        schema={name: SCHEMA[name] for name in ("annotator", *_ACCURACY)},
    ).with_columns(role=pl.lit("person"))
    agreed = _agreement(people).with_columns(role=pl.lit("person"))
    return (
        worked.join(agreed, on=["annotator", "role"], how="left")
        .join(judged, on=["annotator", "role"], how="left")
        .select(SCHEMA.names())
        .cast(SCHEMA)
        .sort("annotator", "role")
    )


def _others(people: pl.DataFrame) -> pl.DataFrame:
    """Each answer with the answers of others to its unit, counted by label."""
    one = people.select(*UNIT, "annotator", "annotation", "label")
    return one.join(one.select(*UNIT, other="annotator", theirs="label"), on=UNIT).filter(
        pl.col("annotator") != pl.col("other")
    )


def _agreement(people: pl.DataFrame) -> pl.DataFrame:
    return _others(people).group_by("annotator").agg(agreement=(pl.col("label") == pl.col("theirs")).mean())


def _judged(people: pl.DataFrame) -> pl.DataFrame:
    """Of each answer whether it is what most others said; ties among the others are left out."""
    mine = [*UNIT, "annotator", "annotation", "label"]
    counted = _others(people).group_by(*mine, "theirs").agg(n=pl.len())
    most = counted.filter(pl.col("n") == pl.col("n").max().over(mine))
    clear = most.filter(pl.len().over(mine) == 1)
    return clear.with_columns(right=pl.col("label") == pl.col("theirs")).sort(mine)


def _accuracy(name: str, part: pl.DataFrame, confidence: float) -> dict[str, object]:
    by_task = (
        part.group_by("task")
        .agg(k=pl.col("right").sum(), n=pl.len())
        .sort("task")
        .cast({"k": pl.Float64, "n": pl.Float64})
    )
    found = clustered(by_task["k"].to_numpy(), by_task["n"].to_numpy(), confidence)
    return {
        "annotator": name,
        "accuracy": found.value,
        "accuracy_low": found.low,
        "accuracy_high": found.high,
        "accuracy_n": found.n,
    }
