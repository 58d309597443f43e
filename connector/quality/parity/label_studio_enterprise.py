"""Label Studio Enterprise: the default metric of each control, the lower one of both directions.

References:
    "Built-in agreement metrics" and "Task agreement" of its guide; where these leave something open, its
    makers' package label-studio-evalme. Numbers and ratings ("numeric difference"), rankings and tracks have
    no published formula.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from connector.quality import similarity
from connector.quality.answers import joined
from connector.quality.interval import Floats, Ints
from connector.quality.kinds import (
    BOX,
    CHOICE,
    DATE,
    DRAWN,
    ELLIPSE,
    HTML_SPAN,
    KEYPOINT,
    LINE,
    MASK,
    PAIRWISE,
    PARAGRAPH_SPAN,
    POLYGON,
    SEGMENT,
    SPAN,
    TAXONOMY,
    TEXT,
)
from connector.quality.parity.base import Side, as_they_stand, counts, crossed, equal, said, scored

_EXACT = {CHOICE, TAXONOMY, PAIRWISE, DATE}
_WHOLE = {ELLIPSE, MASK, KEYPOINT, LINE}
_OVERLAP = {BOX, POLYGON, SPAN, HTML_SPAN, PARAGRAPH_SPAN, SEGMENT}


def score(side: Side, both: pl.DataFrame, kind: str) -> pl.DataFrame | None:
    """task, annotator_a, annotator_b, score, weight of each pair; None where no definition is published."""
    if side.drawn in _OVERLAP:
        return _best_overlaps(side, both)
    if kind in _WHOLE:
        return _equal_in_order(side, both)
    if kind in _EXACT and side.shapes is None:
        return equal(said(side, both, joined))
    if kind == TEXT:
        told = said(side, both, as_they_stand).with_columns(pl.col("said_a", "said_b").fill_null(""))
        alike = similarity.edit_similarity(told["said_a"].to_list(), told["said_b"].to_list())
        return scored(told, alike)
    return None


def _best_overlaps(side: Side, both: pl.DataFrame) -> pl.DataFrame:
    """Each region with the one of its label that overlaps it most, whichever regions that one has had
    already."""
    counted = counts(side, both)
    pair, i, j, rows = crossed(side, both)
    overlap = np.where(rows["label_a"] == rows["label_b"], _ls_overlap(side, i, j), 0.0)
    score = np.ones(len(counted))
    at = counted["pair"].to_numpy().astype(np.int64)
    for own, n in ((i, "n_a"), (j, "n_b")):
        key = np.unique(np.column_stack([pair, own]), axis=0, return_inverse=True)
        best = np.zeros(len(key[0]))
        np.maximum.at(best, key[1].ravel(), overlap)
        total = np.bincount(key[0][:, 0], best, len(both))
        mine = counted[n].to_numpy()
        score = np.minimum(score, np.divide(total[at], mine, out=np.zeros(len(at)), where=mine > 0))
    return scored(counted, score)


def _ls_overlap(side: Side, i: Ints, j: Ints) -> Floats:
    assert side.shapes is not None
    a, b = side.shapes.of(i), side.shapes.of(j)
    if side.drawn == BOX:  # whatever their rotation
        return similarity.upright_box_iou(a.rows(5)[:, :4], b.rows(5)[:, :4])
    return DRAWN[side.drawn].similar(a, b)


def _equal_in_order(side: Side, both: pl.DataFrame) -> pl.DataFrame:
    """The share of regions that are equal to the other's at the same place of the list; none if one list is
    longer."""
    counted = counts(side, both)
    same_length = (counted["n_a"] == counted["n_b"]).to_numpy()
    pair, i, j, rows = crossed(side, both)
    order = side.rows.select(pl.int_range(pl.len()).over("annotation")).to_series().to_numpy()
    assert side.shapes is not None
    shapes = (side.shapes.values, side.shapes.offsets)
    equal = similarity.same_set(similarity.take(shapes, i), similarity.take(shapes, j)) > 0
    equal &= (rows["label_a"] == rows["label_b"]).to_numpy() & (order[i] == order[j])
    total = np.bincount(pair, equal, len(both))
    at, n = counted["pair"].to_numpy().astype(np.int64), counted["n_a"].to_numpy()
    return scored(counted, np.where(same_length, total[at] / np.maximum(n, 1), 0.0))
