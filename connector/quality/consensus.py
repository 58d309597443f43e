"""Consensus: the merged answer of many, and how far they agreed on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from connector.quality.agreement import Agreement, agreement
from connector.quality.interval import CONFIDENCE
from connector.quality.merge import merged_shapes
from connector.quality.truth import dawid_skene, majority, votes
from connector.quality.units import SHAPE, UNIT, keep_roles

METHODS = ("majority", "dawid-skene")


@dataclass(frozen=True, slots=True)
class ControlSummary:
    """What stands behind the agreement of one control."""

    control: str
    kind: str
    tasks: int
    units: int
    annotations: int
    annotators: int
    ties: int
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class Consensus:
    """The merged answers.

    Attributes:
        units: task, control, unit, label, confidence, votes, annotators, agreement (share of pairs that
            agree; null with one answer), tie, and of what was drawn shape, picture_width and
            picture_height: merged from those who saw the thing. `ABSENT` as label says that most saw nothing
            there.
        controls: one summary a control.
        method: how answers were merged.
    """

    units: pl.DataFrame
    controls: list[ControlSummary]
    method: str


def consensus(
    table: pl.DataFrame,
    seed: int,
    method: str = "majority",
    roles: Sequence[str] = ("person",),
    confidence: float = CONFIDENCE,
) -> Consensus:
    """Merge the answers of some roles, control by control.

    Args:
        table: schema `UNITS`.
        seed: of the intervals of the agreement.
        method: one of `METHODS`.
        roles: whose answers count.
        confidence: of the intervals.

    Raises:
        ValueError: if the method is unknown.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; one of {', '.join(METHODS)}")
    said = keep_roles(table, roles)
    merged, summaries = [], []
    for (control,), part in said.group_by("control", maintain_order=True):
        truth = majority(part) if method == "majority" else dawid_skene(part).truth
        merged.append(truth)
        summaries.append(
            ControlSummary(
                control=str(control),
                kind=part["kind"][0],
                tasks=part["task"].n_unique(),
                units=len(truth),
                annotations=part["annotation"].n_unique(),
                annotators=part["annotator"].n_unique(),
                ties=int(truth["tie"].sum()),
                agreement=agreement(part, seed, confidence),
            )
        )
    truth = pl.concat(merged) if merged else majority(said)
    drawn = said.filter(pl.col("shape").is_not_null())
    shapes = [merged_shapes(part) for _, part in drawn.group_by("control", maintain_order=True)]
    units = (
        truth.join(_agreed(said), on=UNIT, how="left")
        .join(pl.concat(shapes or [merged_shapes(drawn)]), on=UNIT, how="left")
        .select(*UNIT, "label", "confidence", "votes", "annotators", "agreement", "tie", *SHAPE)
        .sort(UNIT)
    )
    return Consensus(units, summaries, method)


def _agreed(said: pl.DataFrame) -> pl.DataFrame:
    """The share of pairs that agree, of each unit with two answers."""
    same, n = pl.col("votes") * (pl.col("votes") - 1), pl.col("votes").sum()
    return votes(said).group_by(UNIT).agg(agreement=pl.when(n > 1).then(same.sum() / (n * (n - 1))))
