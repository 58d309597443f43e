"""Consensus: the merged answer of many, and how far they agreed on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import polars as pl

from connector.quality.agreement import Agreement, agreement_of, by_label
from connector.quality.answers import ABSENT, UNDECLARED
from connector.quality.counts import Counts, counts, label_counts
from connector.quality.graded import pair_similarity
from connector.quality.interval import CONFIDENCE, Estimate
from connector.quality.kinds import DATE, NUMBER, RANKING, RATING, TEXT, comparer
from connector.quality.merge import merged_shapes
from connector.quality.table import Scale
from connector.quality.truth import dawid_skene, majority, usual
from connector.quality.units import SHAPE, UNIT, keep_roles

METHODS = ("majority", "dawid-skene")


@dataclass(frozen=True, slots=True)
class ControlSummary:
    """What stands behind the agreement of one control.

    Attributes:
        empty: how many of the annotations leave it empty.
        truth: how its answers were merged.
        iterations, converged: of Dawid and Skene's model; None of other methods.
        labels: of each label its positive agreement, and alpha against all others together.
    """

    control: str
    kind: str
    tasks: int
    units: int
    annotations: int
    annotators: int
    empty: int
    ties: int
    truth: str
    agreement: Agreement
    labels: list[tuple[str, Estimate, Estimate]]
    iterations: int | None = None
    converged: bool | None = None


@dataclass(frozen=True, slots=True)
class Consensus:
    """The merged answers.

    Attributes:
        units: task, control, unit, label, confidence, votes, annotators, agreement (share of pairs that
            agree, or how alike they are; null with one answer), tie, and of what was drawn shape,
            picture_width and
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
    level: str | None = None,
    analytic: bool = False,
    scales: Mapping[str, Scale] = MappingProxyType({}),
) -> Consensus:
    """Merge the answers of some roles, control by control.

    Args:
        table: schema `UNITS`.
        seed: of the intervals of the agreement.
        method: one of `METHODS`; for answers that are the same or others. All else is merged as `truth.usual`
            tells.
        roles: whose answers count.
        confidence: of the intervals.
        level: of every control, in the place of what `scales` declares; see `agreement`.
        analytic: as in `agreement`.
        scales: what is declared about the answers to each control: `Labels.scales`.

    Raises:
        ValueError: if the method or the level is unknown, or answers are no numbers where they should be.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; one of {', '.join(METHODS)}")
    said = keep_roles(table, roles)
    merged, agreed, summaries = [], [], []
    for (control,), part in said.group_by("control", maintain_order=True):
        kind, found = str(part["kind"][0]), counts(part)
        scale = _scale(scales, control, level)
        truth, name = usual(part, scale)
        fitted: tuple[int, bool] | tuple[None, None] = (None, None)
        if method == "dawid-skene" and name == "majority":
            model, name = dawid_skene(part), method
            truth, fitted = model.truth, (model.iterations, model.converged)
        merged.append(truth)
        agreed.append(_agreed(part, kind, found, scale))
        summaries.append(
            ControlSummary(
                control=str(control),
                kind=kind,
                tasks=part["task"].n_unique(),
                units=len(truth),
                annotations=part["annotation"].n_unique(),
                annotators=part["annotator"].n_unique(),
                empty=len(part.group_by("annotation").agg((pl.col("label") == ABSENT).all()).filter("label")),
                ties=int(truth["tie"].sum()),
                truth=name,
                iterations=fitted[0],
                converged=fitted[1],
                labels=by_label(label_counts(part), seed, confidence) if kind not in _NO_LABELS else [],
                agreement=agreement_of(found, kind, seed, confidence, analytic=analytic, scale=scale),
            )
        )
    truth = pl.concat(merged) if merged else majority(said)
    drawn = said.filter(pl.col("shape").is_not_null())
    shapes = [merged_shapes(part) for _, part in drawn.group_by("control", maintain_order=True)]
    units = (
        truth.join(pl.concat(agreed) if agreed else truth.select(*UNIT, agreement="confidence"), on=UNIT)
        .join(pl.concat(shapes or [merged_shapes(drawn)]), on=UNIT, how="left")
        .select(*UNIT, "label", "confidence", "votes", "annotators", "agreement", "tie", *SHAPE)
        .sort(UNIT)
    )
    return Consensus(units, summaries, method)


def _scale(scales: Mapping[str, Scale], control: object, level: str | None = None) -> Scale:
    found = scales.get(str(control), UNDECLARED)
    return replace(found, level=level) if level is not None else found


def merged_answers(table: pl.DataFrame, scales: Mapping[str, Scale] = MappingProxyType({})) -> pl.DataFrame:
    """The answer that suits each unit, and how far the answers agree: `Consensus.units` without shapes.

    For a few tasks that somebody waits for: nothing is said of the whole, so there are no intervals.

    Args:
        table: schema `UNITS`, of the roles that count.
        scales: as of `consensus`.

    Raises:
        ValueError: if answers are no numbers where they should be.
    """
    made = []
    for (control,), part in table.group_by("control", maintain_order=True):
        scale = _scale(scales, control)
        agreed = _agreed(part, str(part["kind"][0]), counts(part), scale)
        made.append(usual(part, scale)[0].join(agreed, on=UNIT))
    nothing = majority(table).with_columns(agreement="confidence")
    units = pl.concat(made) if made else nothing
    return units.select(*UNIT, "label", "confidence", "votes", "annotators", "agreement", "tie").sort(UNIT)


_NO_LABELS = (RATING, NUMBER, DATE, TEXT, RANKING)


def _agreed(part: pl.DataFrame, kind: str, found: Counts, scale: Scale) -> pl.DataFrame:
    """The share of pairs that agree, or how alike they are, of each unit of one control with two answers."""
    similar = comparer(kind, found.labels, scale)
    shared = pl.Series("agreement", pair_similarity(found, similar), dtype=pl.Float64).fill_nan(None)
    return part.select(UNIT).unique().sort(UNIT).with_columns(shared)
