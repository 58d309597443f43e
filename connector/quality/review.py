"""Review: what an expert's own answers say of the consensus."""

from __future__ import annotations

import polars as pl

from connector.quality.answers import ABSENT
from connector.quality.units import latest


def verdicts(table: pl.DataFrame, consensus: pl.DataFrame) -> pl.DataFrame:
    """Whether the consensus of each task is what a reviewer answered to it.

    Of boxes it is when both see the same objects (aligned by overlap) with the same labels.

    Args:
        table: schema `UNITS`, with rows of role reviewer.
        consensus: `Consensus.units` of the same table.

    Returns:
        task, control, correct (1 or 0), wrong (how many units differ), of the tasks a reviewer answered and
        that have a consensus; sorted.

    Raises:
        ValueError: if two reviewers answered one task differently, naming the task.
    """
    said = latest(table).filter(pl.col("role") == "reviewer")
    answers = said.group_by("task", "control", "unit").agg(truth=pl.col("label").unique().sort())
    split = answers.filter(pl.col("truth").list.len() > 1)
    if len(split):
        raise ValueError(f"the reviewers of task {split['task'].sort()[0]} do not agree: keep one answer")
    reviewed = answers.select("task", "control").unique()
    merged = consensus.join(reviewed, on=["task", "control"], how="semi")
    both = merged.select("task", "control", "unit", "label").join(
        answers.with_columns(pl.col("truth").list.first()),
        on=["task", "control", "unit"],
        how="full",
        coalesce=True,
    )
    known = both.join(merged.select("task", "control").unique(), on=["task", "control"], how="semi")
    differs = pl.col("label").fill_null(ABSENT) != pl.col("truth").fill_null(ABSENT)
    return (
        known.group_by("task", "control")
        .agg(wrong=differs.sum().cast(pl.Int64))
        .with_columns(correct=(pl.col("wrong") == 0).cast(pl.Int64))
        .select("task", "control", "correct", "wrong")
        .sort("task", "control")
    )
