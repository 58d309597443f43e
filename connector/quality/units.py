"""Alignment: from what was drawn to the things annotators can agree or differ on.

A choice is one unit per task and control. Boxes are clustered into units: one box per annotation at most,
drawn for the same object; an annotation without a box there says `ABSENT`. Everyone is aligned together,
whatever the role; statistics choose roles afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import polars as pl

from connector.quality.interval import Floats, Ints
from connector.quality.similarity import box_iou
from connector.quality.table import BOX, CHOICE, Labels

ABSENT = "ABSENT"
"""What an annotator says of an object that others drew and he did not."""

SEVERAL = " + "
"""Joins the labels of a multiple choice, in alphabetical order."""

GEOMETRY = ["x", "y", "width", "height"]

UNIT = ["task", "control", "unit"]

UNITS = pl.Schema(
    [
        ("task", pl.String()),
        ("control", pl.String()),
        ("kind", pl.String()),
        ("unit", pl.String()),
        ("annotation", pl.String()),
        ("annotator", pl.String()),
        ("role", pl.String()),
        ("label", pl.String()),
        ("region", pl.String()),
        ("similarity", pl.Float64()),  # mean IoU with the unit's other boxes; null for a choice, or alone
        ("x", pl.Float64()),
        ("y", pl.Float64()),
        ("width", pl.Float64()),
        ("height", pl.Float64()),
    ]
)


def units(labels: Labels, threshold: float = 0.5) -> pl.DataFrame:
    """The unit table of all controls, sorted.

    Args:
        labels: who said what.
        threshold: the least IoU at which two boxes may be one object. Geometry decides first; labels are
            compared afterwards, so a box with the wrong label is a confusion, not a miss and an invention.

    Returns:
        Schema `UNITS`. The order of the input and of the annotators does not matter.
    """
    parts = [pl.DataFrame(schema=UNITS)]
    for control, kind in sorted(labels.controls.items()):
        regions = labels.regions.filter(pl.col("control") == control)
        made = {CHOICE: _choices, BOX: _boxes}[kind](regions, labels.answers, threshold)
        said = made.join(labels.answers.select("annotation", "annotator", "role"), on="annotation")
        parts.append(
            said.with_columns(control=pl.lit(control), kind=pl.lit(kind)).select(UNITS.names()).cast(UNITS)
        )
    return pl.concat(parts).sort(*UNIT, "annotator", "annotation")


def keep_roles(table: pl.DataFrame, roles: Sequence[str]) -> pl.DataFrame:
    """The rows of some roles; a unit that only others drew is none among these.

    Where these drew nothing in a task at all, one unit remains and says so: agreeing on nothing is agreeing.
    """
    kept = table.filter(pl.col("role").is_in(list(roles)))
    drawn = (pl.col("label") != ABSENT).any()
    whole = kept.with_columns(
        drawn=drawn.over(UNIT),
        any_drawn=drawn.over("task", "control"),
        first=pl.col("unit").min().over("task", "control"),
    )
    empty = ~pl.col("any_drawn") & (pl.col("unit") == pl.col("first"))
    return whole.filter(pl.col("drawn") | empty).drop("drawn", "any_drawn", "first")


def _choices(regions: pl.DataFrame, answers: pl.DataFrame, threshold: float) -> pl.DataFrame:  # noqa: ARG001
    label = pl.col("label").unique().sort().str.join(SEVERAL)
    return (
        regions.group_by("task", "annotation")
        .agg(label=label)
        .with_columns(
            unit=pl.lit("choice"),
            region=pl.lit(None, pl.String),
            similarity=pl.lit(None, pl.Float64),
            **{name: pl.lit(None, pl.Float64) for name in GEOMETRY},
        )
    )


def _boxes(regions: pl.DataFrame, answers: pl.DataFrame, threshold: float) -> pl.DataFrame:
    # Sorted by what was drawn, so that neither names nor arrival decide a tie.
    drawn = regions.sort("task", *GEOMETRY, "label", "annotation", "region")
    clusters, alike = [], []
    for (_,), task in drawn.group_by("task", maintain_order=True):
        cluster, similarity = _cluster(
            task.select(GEOMETRY).to_numpy(), task["annotation"].rank("dense").to_numpy(), threshold
        )
        clusters.append(cluster)
        alike.append(similarity)
    numbered = drawn.with_columns(
        unit=pl.Series(np.concatenate(clusters) if clusters else [], dtype=pl.Int64),
        similarity=pl.Series(np.concatenate(alike) if alike else [], dtype=pl.Float64).fill_nan(None),
    )
    everyone = answers.select("task", "annotation")
    asked = numbered.select("task", "unit").unique().join(everyone, on="task")
    nothing = everyone.join(drawn.select("task").unique(), on="task", how="anti")
    asked = pl.concat(
        [asked, nothing.with_columns(unit=pl.lit(1, pl.Int64)).select("task", "unit", "annotation")]
    )
    return asked.join(
        numbered.select("task", "unit", "annotation", "label", "region", "similarity", *GEOMETRY),
        on=["task", "unit", "annotation"],
        how="left",
    ).with_columns(
        label=pl.col("label").fill_null(ABSENT),
        unit=pl.format("{}", pl.col("unit").cast(pl.String).str.zfill(3)),
    )


def _cluster(boxes: Floats, owners: Floats, threshold: float) -> tuple[Ints, Floats]:
    """Group the boxes of one task into objects.

    For every two annotations the one-to-one matching of greatest total IoU says which boxes may be the same
    object (Kuhn 1955, The Hungarian method for the assignment problem). Then groups grow along these
    matches, the most alike first, never taking in two boxes of one annotation.

    Args:
        boxes: (n, 4), sorted so that the order says nothing about who drew.
        owners: (n,) whose annotation each is.

    Returns:
        (n,) the number of the object from 1, by position; (n,) mean IoU with the object's other boxes, NaN
        for a box alone.
    """
    iou = box_iou(boxes, boxes)
    group = np.arange(len(boxes))
    for i, j in _matches(iou, owners, threshold):
        here, there = group == group[i], group == group[j]
        if group[i] != group[j] and not set(owners[here]) & set(owners[there]):
            group[there | here] = min(group[i], group[j])
    same = (group[:, None] == group[None, :]) & ~np.eye(len(boxes), dtype=bool)
    others = same.sum(axis=1)
    alike = np.divide((iou * same).sum(axis=1), others, out=np.full(len(boxes), np.nan), where=others > 0)
    return np.unique(group, return_inverse=True)[1] + 1, alike


def _matches(iou: Floats, owners: Floats, threshold: float) -> list[tuple[int, int]]:
    """Pairs of boxes that two annotations drew for the same object, the most alike first."""
    from scipy.optimize import linear_sum_assignment  # half a second, which only boxes need

    of = [np.flatnonzero(owners == owner) for owner in np.unique(owners)]
    pairs: list[tuple[float, int, int]] = []
    for a, b in combinations(of, 2):
        between = np.where(iou[np.ix_(a, b)] >= threshold, iou[np.ix_(a, b)], 0.0)
        for row, column in zip(*linear_sum_assignment(between, maximize=True), strict=True):
            if between[row, column] > 0:
                i, j = sorted((int(a[row]), int(b[column])))
                pairs.append((-float(between[row, column]), i, j))
    return [(i, j) for _, i, j in sorted(pairs)]
