"""Labelbox: class by class, and the mean of the classes that either has.

References:
    `labelbox.data.metrics.iou.calculation` of its Python SDK 7. Regions of a class are paired off greedily by
    IoU, and what is left over counts 0; points and lines are widened by 70 pixels first; all masks of a class
    are one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from connector.quality import similarity
from connector.quality.answers import choices, joined
from connector.quality.interval import Floats, Ints
from connector.quality.kinds import BOX, CHOICE, DRAWN, KEYPOINT, LINE, MASK, POLYGON, SPAN, TEXT
from connector.quality.parity.base import Side, as_they_stand, crossed, equal, said, scored

BUFFER = 70.0
"""Pixels by which points and lines are widened."""

_DRAWN = {BOX, POLYGON, LINE, KEYPOINT, MASK, SPAN}


def score(side: Side, both: pl.DataFrame, kind: str) -> pl.DataFrame | None:
    """task, annotator_a, annotator_b, score, weight (classes) of each pair; None of what it does not know."""
    if kind in _DRAWN:
        return _drawn(side, both)
    if kind == CHOICE and side.shapes is None:
        return _shared_labels(said(side, both, joined))
    if kind == TEXT:
        return equal(said(side, both, as_they_stand))
    return None


def _shared_labels(said: pl.DataFrame) -> pl.DataFrame:
    """Labels of both over labels of either; 0 where one gave none."""
    every = pl.concat([said["said_a"], said["said_b"]]).drop_nulls().unique().sort()
    answered = said.drop_nulls(["said_a", "said_b"])
    i, j = (
        answered[name].cast(pl.Enum(every)).to_physical().to_numpy().astype(np.int64)
        for name in ("said_a", "said_b")
    )
    found = np.zeros(len(said))
    found[said["pair"].is_in(answered["pair"].to_list()).to_numpy()] = choices(every.to_list())(i, j)
    return scored(said, found)


def _drawn(side: Side, both: pl.DataFrame) -> pl.DataFrame:
    n = side.rows.group_by("annotation", "label").len()
    counted = pl.concat(
        [
            both.join(n, left_on=which, right_on="annotation").select(
                "pair", "label", n_a=pl.col("len") * int(which == "a"), n_b=pl.col("len") * int(which == "b")
            )
            for which in ("a", "b")
        ]
    )
    counted = counted.group_by("pair", "label").agg(pl.col("n_a", "n_b").sum()).sort("pair", "label")
    counted = counted.with_row_index("class")
    _, i, j, rows = crossed(side, both)
    same = (rows["label_a"] == rows["label_b"]).to_numpy()
    i, j = i[same], j[same]
    classes = counted.select("pair", "class", label_a="label")
    of = rows.filter(same).join(classes, on=["pair", "label_a"], maintain_order="left")
    owner = of["class"].to_numpy().astype(np.int64)
    most = counted.select(pl.max_horizontal("n_a", "n_b")).to_series().to_numpy().astype(np.float64)
    if side.drawn == MASK:
        score = _union_iou(side, i, j, owner, len(counted))
    else:
        score = _greedy(_overlap(side, i, j), i, j, owner, len(counted)) / most
    by_class = counted.with_columns(score=pl.Series(score))
    by_pair = by_class.group_by("pair").agg(pl.col("score").mean(), weight=pl.len().cast(pl.Float64))
    whole = both.join(by_pair, on="pair").sort("pair")
    return scored(whole, whole["score"].to_numpy(), whole["weight"].to_numpy())


def _greedy(overlap: Floats, i: Ints, j: Ints, group: Ints, groups: int) -> Floats:
    """(groups,) the sum of the overlaps of pairs that are taken one after another, the greatest first."""
    total, order = np.zeros(groups), np.lexsort((j, i, -overlap))
    left = order
    while len(left):
        # Whatever is first for both of its ends is taken by the greedy order, whenever its turn comes.
        first_i = np.zeros(len(left), dtype=bool)
        first_j = np.zeros(len(left), dtype=bool)
        first_i[np.unique(np.column_stack([group[left], i[left]]), axis=0, return_index=True)[1]] = True
        first_j[np.unique(np.column_stack([group[left], j[left]]), axis=0, return_index=True)[1]] = True
        taken = left[first_i & first_j]
        total += np.bincount(group[taken], overlap[taken], groups)
        span = int(max(i.max(), j.max())) + 1
        used_i, used_j = group[taken] * span + i[taken], group[taken] * span + j[taken]
        kept = ~np.isin(group[left] * span + i[left], used_i) & ~np.isin(group[left] * span + j[left], used_j)
        left = left[kept]
    return total


def _union_iou(side: Side, i: Ints, j: Ints, owner: Ints, classes: int) -> Floats:
    """(classes,) IoU of all masks of a class together."""
    assert side.shapes is not None
    unions = []
    for rows in (i, j):
        one = np.unique(np.column_stack([owner, rows]), axis=0)
        runs, offsets = side.shapes.of(one[:, 1]).ragged(2)
        lengths = np.bincount(one[:, 0], np.diff(offsets), classes).astype(np.int64)
        unions.append((runs.astype(np.int64), similarity.offsets_of(lengths)))
    return similarity.mask_iou(*unions) * (np.bincount(owner, minlength=classes) > 0)


def _overlap(side: Side, i: Ints, j: Ints) -> Floats:
    assert side.shapes is not None
    a, b = side.shapes.of(i), side.shapes.of(j)
    if side.drawn in (LINE, KEYPOINT):
        import shapely

        wide: list[npt.NDArray[Any]] = []
        for shapes in (a, b):
            points, offsets = shapes.ragged(2)
            pixels = points * np.repeat(shapes.pictures / 100, np.diff(offsets), axis=0)
            row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
            points_only = side.drawn == KEYPOINT
            drawn: Any = shapely.points(pixels) if points_only else shapely.linestrings(pixels, indices=row)
            wide.append(shapely.buffer(drawn, BUFFER))
        shared = shapely.area(shapely.intersection(wide[0], wide[1]))
        iou: Floats = shared / shapely.area(shapely.union(wide[0], wide[1]))
        return iou
    if side.drawn == SPAN:
        (s1, e1), (s2, e2) = a.rows(2).T, b.rows(2).T
        shared, whole = np.minimum(e1, e2) - np.maximum(s1, s2), np.maximum(e1, e2) - np.minimum(s1, s2)
        ratio = np.divide(shared, whole, out=np.ones_like(shared), where=whole > 0)
        held: Floats = np.clip(ratio, 0.0, 1.0)
        return held
    return DRAWN[side.drawn].similar(a, b)
