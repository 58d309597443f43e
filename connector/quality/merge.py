"""One shape from many that were drawn for the same thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

from connector.quality.interval import Floats, Ints
from connector.quality.kinds import BOX, DRAWN, KEYPOINT, Shapes
from connector.quality.similarity import offsets_of, pairs_within, take
from connector.quality.units import UNIT, shapes_of

Merge = Callable[[Shapes, Ints], tuple[Floats, Ints]]
"""Shapes and the number of the unit of each, never falling, to one shape a unit, ragged."""


def merged_shapes(drawn: pl.DataFrame) -> pl.DataFrame:
    """One shape for each unit.

    Args:
        drawn: schema `UNITS`, only rows with a shape; of one control.

    Returns:
        `UNIT`, shape, picture_width, picture_height; sorted.
    """
    drawn = drawn.sort(*UNIT, "annotator", "annotation")
    first = drawn.group_by(UNIT, maintain_order=True).agg(pl.col("picture_width", "picture_height").first())
    if not len(drawn):
        return first.with_columns(shape=pl.lit(None, pl.List(pl.Float64)))
    kind = drawn["kind"][0]
    unit = drawn.select(pl.struct(UNIT).rle_id()).to_series().to_numpy().astype(np.int64)
    shapes = shapes_of(drawn)
    if kind in MERGES:
        values, offsets = MERGES[kind](shapes, unit)
    else:
        values, offsets = take((shapes.values, shapes.offsets), medoid(kind, shapes, unit))
    return first.with_columns(shape=_lists(values, offsets))


def medoid(kind: str, shapes: Shapes, unit: Ints) -> Ints:
    """Of each unit the shape that is most like the others; the first of several.

    Args:
        kind: of the shapes.
        shapes: n.
        unit: (n,) never falling.

    Returns:
        (u,) the number of the shape.
    """
    n = len(unit)
    i, j = pairs_within(unit)
    alike = DRAWN[kind].similar(shapes.of(i), shapes.of(j))
    total = np.bincount(i, alike, n) + np.bincount(j, alike, n)
    order = np.lexsort((np.arange(n), -total.round(12), unit))
    first: Ints = order[np.unique(unit[order], return_index=True)[1]]
    return first


def _median(shapes: Shapes, unit: Ints) -> tuple[Floats, Ints]:
    width = int(shapes.offsets[1])
    rows = shapes.rows(width)
    names = [str(n) for n in range(width)]
    middle = pl.DataFrame(rows, schema=names).group_by(pl.Series("unit", unit), maintain_order=True).median()
    values = middle.select(names).to_numpy()
    return values.ravel(), offsets_of(np.full(len(values), width))


def _boxes(shapes: Shapes, unit: Ints) -> tuple[Floats, Ints]:
    """The median of each side; where a box is turned there is none of angles, so the one most like the
    others."""
    values, offsets = _median(shapes, unit)
    turned = np.unique(unit[shapes.rows(5)[:, 4] % 360 != 0])
    if len(turned):
        values.reshape(-1, 5)[turned] = shapes.rows(5)[medoid(BOX, shapes, unit)[turned]]
    return values, offsets


MERGES: Mapping[str, Merge] = {BOX: _boxes, KEYPOINT: _median}
"""How shapes of a kind are merged; of all others the one most like the others is taken."""


def _lists(values: Floats, offsets: Ints) -> pl.Series:
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    lists = pl.DataFrame({"row": row, "shape": values}).group_by("row", maintain_order=True).agg("shape")
    every = pl.DataFrame({"row": np.arange(len(offsets) - 1)})
    return every.join(lists, on="row", how="left", maintain_order="left")["shape"]
