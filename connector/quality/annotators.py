"""Annotators: how fast they work, and how far they agree with the others."""

from __future__ import annotations

import re

import polars as pl

from connector.quality.answers import ABSENT
from connector.quality.interval import CONFIDENCE, clustered
from connector.quality.kinds import DETECTED
from connector.quality.units import UNIT, comparable, keep_roles

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
        ("agreement_with_majority", pl.Float64()),
        ("agreement_with_majority_low", pl.Float64()),
        ("agreement_with_majority_high", pl.Float64()),
        ("agreement_with_majority_n", pl.Int64()),
        ("self_agreement", pl.Float64()),
        ("self_agreement_low", pl.Float64()),
        ("self_agreement_high", pl.Float64()),
        ("self_agreement_n", pl.Int64()),
        ("why", pl.String()),
    ]
)

LEAST = 3
"""Annotators of a unit, at least: of two who differ neither is a majority."""

TOO_FEW = f"no agreement with the majority: fewer than {LEAST} annotators per task"
TIED = "no agreement with the majority: the others are tied wherever this annotator answered"

SELF_METHOD = "consecutive answers to the same task; wilson, tasks as clusters (Rao and Scott 1992)"
NO_REPEATS = "no task was answered several times"

_MAJORITY = tuple(name for name in SCHEMA if name.startswith("agreement_with_majority"))
_SELF = tuple(name for name in SCHEMA if name.startswith("self_agreement"))


def annotators(table: pl.DataFrame, answers: pl.DataFrame, confidence: float = CONFIDENCE) -> pl.DataFrame:
    """One row for everyone who answered.

    `agreement` is the share of the others' answers to the same units that are the same; of what is drawn,
    the share of the objects of both that both drew (detection F1). Objects that neither drew do not count.
    `agreement_with_majority` is the share of units in which the annotator gave the answer that most of the
    *others* gave. It is no accuracy: where most are wrong, the one who is right agrees with nobody. Units
    with fewer than three annotators, and those where the others are tied, do not count; where none is left
    it is null, and `why` says so. Of whoever answered a task several times only the last answer is compared
    with others'. `self_agreement` is the intra-annotator consistency: the share of repeated answers that are
    the same as the one before; of what is drawn, the F1 of detection. It is null where nothing was repeated.
    `per_hour` is annotations per hour of time spent on tasks, as the tool measured it.

    Args:
        table: schema `UNITS`.
        answers: schema `ANSWERS`.
        confidence: of the intervals (tasks as clusters).

    Returns:
        Schema `SCHEMA`, those with the most tasks first, then by name; null where there is nothing to judge
        by.
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
    others = _others(people)
    judged = pl.DataFrame(
        [
            {"annotator": name, **_shared(part, _MAJORITY, confidence)}
            for (name,), part in _judged(others).group_by("annotator")
        ],
        schema={name: SCHEMA[name] for name in ("annotator", *_MAJORITY)},
    ).with_columns(role=pl.lit("person"))
    repeated = _repeated(table)
    own = pl.DataFrame(
        [
            {"annotator": name, "role": role, **_shared(part, _SELF, confidence)}
            for (name, role), part in repeated.group_by("annotator", "role")
        ],
        schema={name: SCHEMA[name] for name in ("annotator", "role", *_SELF)},
    )
    agreed = _agreement(others).with_columns(role=pl.lit("person"))
    enough = others.filter(_enough()).select("annotator", role=pl.lit("person")).unique()
    found = (
        worked.join(agreed, on=["annotator", "role"], how="left")
        .join(judged, on=["annotator", "role"], how="left")
        .join(own, on=["annotator", "role"], how="left")
        .join(enough.with_columns(enough=True), on=["annotator", "role"], how="left")
        .with_columns(
            why=pl.when(pl.col("agreement_with_majority").is_null() & (pl.col("role") == "person")).then(
                pl.when("enough").then(pl.lit(TIED)).otherwise(pl.lit(TOO_FEW))
            )
        )
    )
    return by_relevance(found, "tasks").select(SCHEMA.names()).cast(SCHEMA)


def by_relevance(frame: pl.DataFrame, size: str) -> pl.DataFrame:
    """Rows of annotators: those with the most work first, then by name (ann2 before ann10), then as they are.

    Args:
        frame: with a column annotator.
        size: the column of how much an annotator did; the largest of an annotator's rows counts.
    """
    names = {name: n for n, name in enumerate(sorted(frame["annotator"].unique(), key=natural))}
    place = pl.col("annotator").replace_strict(names, return_dtype=pl.Int64)
    return (
        frame.with_columns(_most=pl.col(size).max().over("annotator"), _place=place)
        .sort(
            "_most",
            "_place",
            "role" if "role" in frame.columns else "control",
            descending=[True, False, False],
        )
        .drop("_most", "_place")
    )


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts numbers within names by their value.

    >>> sorted(["ann10", "ann2", "Bob", "ann"], key=natural)
    ['ann', 'ann2', 'ann10', 'Bob']
    """
    parts = re.split(r"([0-9]+)", name)
    key = ((0, int(part), part) if n % 2 else (1, 0, part.casefold()) for n, part in enumerate(parts) if part)
    return (*key, (-1, 0, name))


def _others(people: pl.DataFrame) -> pl.DataFrame:
    """Each answer with the answers of others to its unit, counted by label."""
    one = people.select(*UNIT, "kind", "annotator", "annotation", "label")
    return one.join(one.select(*UNIT, other="annotator", theirs="label"), on=UNIT).filter(
        pl.col("annotator") != pl.col("other")
    )


def _agreement(others: pl.DataFrame) -> pl.DataFrame:
    """The share of the others' answers that are the same; of what is drawn, the F1 of detection.

    An object that both drew counts for both of them in the F1, which is 2 * both / (mine + theirs).
    """
    beside = comparable(others, "theirs", ["task", "control", "annotator", "annotation", "other"])
    return beside.group_by("annotator").agg(agreement=(_WEIGHT * _SAME).sum() / _WEIGHT.sum())


_BOTH_DREW = pl.col("kind").is_in(list(DETECTED)) & (pl.col("label") != ABSENT) & (pl.col("theirs") != ABSENT)
_WEIGHT = pl.when(_BOTH_DREW).then(2).otherwise(1)
_SAME = (pl.col("label") == pl.col("theirs")) | _BOTH_DREW


def _repeated(table: pl.DataFrame) -> pl.DataFrame:
    """Each answer beside the same annotator's one before it to the same unit, with `right` and `weight`."""
    key = [*UNIT, "annotator", "role"]
    whose = ["task", "annotator", "role"]
    said = table.join(table.filter(pl.col("turn") > 0).select(whose).unique(), on=whose, how="semi")
    before = said.select(*key, turn=pl.col("turn") - 1, theirs="label")
    both = said.select(*key, "kind", "annotation", "turn", "label").join(before, on=[*key, "turn"])
    both = comparable(both, "theirs", ["task", "control", "annotator", "role", "annotation"])
    return both.with_columns(right=_WEIGHT * _SAME, weight=_WEIGHT)


def _enough() -> pl.Expr:
    """Whether a unit has as many annotators as a majority takes."""
    return pl.col("other").n_unique().over(*UNIT, "annotator") >= LEAST - 1


def _judged(others: pl.DataFrame) -> pl.DataFrame:
    """Of each answer whether it is what most others said; ties among the others are left out."""
    mine = [*UNIT, "annotator", "annotation", "label"]
    counted = others.filter(_enough()).group_by(*mine, "theirs").agg(n=pl.len())
    most = counted.filter(pl.col("n") == pl.col("n").max().over(mine))
    clear = most.filter(pl.len().over(mine) == 1)
    clear = comparable(clear, "theirs", ["task", "control", "annotator", "annotation"])
    return clear.with_columns(right=pl.col("label") == pl.col("theirs"), weight=pl.lit(1)).sort(mine)


def _shared(part: pl.DataFrame, names: tuple[str, ...], confidence: float) -> dict[str, object]:
    """The share of what is right, its limits and its n, under these names."""
    by_task = (
        part.group_by("task")
        .agg(k=pl.col("right").sum(), n=pl.col("weight").sum())
        .sort("task")
        .cast({"k": pl.Float64, "n": pl.Float64})
    )
    found = clustered(by_task["k"].to_numpy(), by_task["n"].to_numpy(), confidence)
    return dict(zip(names, (found.value, found.low, found.high, found.n), strict=True))
