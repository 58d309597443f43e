"""CVAT: right over right, mislabeled, missing and extra, against known answers.

References:
    `cvat/apps/quality_control`, and "Automated QA, review & honeypots" of its manual: IoU from 0.4 on,
    regions of one label matched first, then the rest whatever the label.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from connector.quality.alignment import align
from connector.quality.interval import Floats, Ints
from connector.quality.kinds import BOX, CHOICE, DRAWN, ELLIPSE, KEYPOINT, LINE, MASK, POLYGON, Shapes
from connector.quality.parity.base import Side, counts, crossed, scored
from connector.quality.similarity import oks

THRESHOLD = 0.4
"""CVAT's default."""

OKS_SIGMA = 0.09
"""CVAT's default; COCO's constant k is twice that. A point alone has the whole picture as its scale."""


def score(side: Side, both: pl.DataFrame, kind: str) -> pl.DataFrame | None:
    """task, annotator_a, annotator_b, score, weight of each pair; None of what it does not compare.

    The weight is how many are right, mislabeled, missing and extra together.
    """
    if kind == CHOICE and side.shapes is None:
        return _tags(side, both)
    if kind not in (BOX, ELLIPSE, POLYGON, MASK, LINE, KEYPOINT) or side.drawn != kind:
        return None
    counted = counts(side, both)
    rows = side.rows.select("annotation", "label").with_row_index("row")
    every = pl.concat(
        [
            both.select("pair", "annotation", owner=n).join(rows, on="annotation")
            for n, both in _sides(counted)
        ]
    ).sort("pair", "owner", "row")
    unit, label = _matched(side, every)
    at = every["pair"].to_numpy().astype(np.int64)
    twin = np.bincount(unit, minlength=len(unit))[unit] == 2
    first = twin & (unit == np.arange(len(unit)))
    other = np.full(len(unit), -1)
    second = twin & ~first
    other[unit[second]] = np.flatnonzero(second)
    right = first.copy()
    right[first] = label[first] == label[other[first]]
    pairs = counted["pair"].to_numpy().astype(np.int64)
    valid, matched = np.bincount(at, right, len(both))[pairs], np.bincount(at, first, len(both))[pairs]
    total = counted["n_a"].to_numpy() + counted["n_b"].to_numpy() - matched
    return scored(counted, valid / total, total)


def _sides(counted: pl.DataFrame) -> list[tuple[pl.Expr, pl.DataFrame]]:
    return [(pl.lit(n), counted.select("pair", annotation=name)) for n, name in enumerate(("a", "b"))]


def _matched(side: Side, every: pl.DataFrame) -> tuple[Ints, Ints]:
    """Regions of one label are matched first, then the rest whatever the label."""
    assert side.shapes is not None
    shapes, similar = side.shapes, DRAWN[side.drawn].similar if side.drawn != KEYPOINT else _points_alike
    row, owner, group = (every[name].to_numpy().astype(np.int64) for name in ("row", "owner", "pair"))
    label = every["label"].rank("dense").to_numpy().astype(np.int64)
    unit, _ = align(
        group,
        owner,
        lambda i, j: similar(shapes.of(row[i]), shapes.of(row[j])),
        THRESHOLD,
        label,
        same_label=True,
    )
    alone = np.flatnonzero(np.bincount(unit, minlength=len(unit))[unit] == 1)
    rest = row[alone]
    again, _ = align(
        group[alone],
        owner[alone],
        lambda i, j: similar(shapes.of(rest[i]), shapes.of(rest[j])),
        THRESHOLD,
    )
    unit[alone] = alone[again]
    return unit, label


def _points_alike(a: Shapes, b: Shapes) -> Floats:
    one, other = (side.rows(2) * side.pictures / 100 for side in (a, b))
    return oks(one, other, np.sqrt(a.pictures.prod(axis=1)), 2 * OKS_SIGMA)


def _tags(side: Side, both: pl.DataFrame) -> pl.DataFrame:
    """Labels of the whole picture: equal ones are right, all others are missing or extra."""
    n = counts(side, both)
    _, _, _, rows = crossed(side, both)
    same = rows.filter(pl.col("label_a") == pl.col("label_b")).group_by("pair").len("same")
    counted = n.join(same, on="pair", how="left").with_columns(pl.col("same").fill_null(0)).sort("pair")
    valid = counted["same"].to_numpy().astype(np.float64)
    total = counted["n_a"].to_numpy() + counted["n_b"].to_numpy() - valid
    return scored(counted, valid / total, total)
