"""One shape from many that were drawn for the same thing.

Of three or more the majority decides, point by point. Of two boxes, ellipses, points, segments and tracks
it is the middle; of two of another kind the one that stands first: the order is by what was drawn, and not by
who drew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from connector.quality.answers import Similar
from connector.quality.interval import Floats, Ints
from connector.quality.kinds import (
    BOX,
    DRAWN,
    ELLIPSE,
    HTML_SPAN,
    KEYPOINT,
    MASK,
    PARAGRAPH,
    PARAGRAPH_SPAN,
    POLYGON,
    SEGMENT,
    SPAN,
    TRACK,
    Shapes,
    kind_of,
)
from connector.quality.similarity import Ragged, offsets_of, pairs_within, polygons, take
from connector.quality.units import CONTENT, UNIT, shapes_of

Merge = Callable[[Shapes, Ints], Ragged]
"""Shapes and the number of the unit of each, never falling, to one shape a unit; an empty one where there is
no majority for anything."""

_KEY = 7
"""Numbers of a keyframe of a track."""


def merged_shapes(drawn: pl.DataFrame) -> pl.DataFrame:
    """One shape for each unit.

    Boxes: the median of each edge; ellipses and points: of each number; of turned ones: of centre, size and
    angle. Of an even number the median is the mean of the middle two, so two boxes give their midpoint.
    Polygons, masks, spans and segments: what a majority covers. Tracks: the median box of each keyframe of
    any annotator, where a majority sees the thing. Lines, and what has no majority: the most typical, which
    is the one most like the others.

    Args:
        drawn: schema `UNITS`, only rows with a shape; of one control.

    Returns:
        `UNIT`, shape, picture_width, picture_height; sorted.

    Raises:
        ValueError: if there are several controls.
    """
    kind = kind_of(drawn)
    drawn = drawn.sort(*UNIT, *CONTENT, "annotation")
    first = drawn.group_by(UNIT, maintain_order=True).agg(pl.col("picture_width", "picture_height").first())
    if not len(drawn):
        return first.with_columns(shape=pl.lit(None, pl.List(pl.Float64)))
    how = DRAWN[kind]
    unit = drawn.select(pl.struct(UNIT).rle_id()).to_series().to_numpy().astype(np.int64)
    shapes = shapes_of(drawn)
    typical = medoid(lambda i, j: how.similar(shapes.of(i), shapes.of(j)), unit)
    values, offsets = take((shapes.values, shapes.offsets), typical)
    merge = MERGES.get(kind)
    if merge is not None:
        many = np.flatnonzero(np.bincount(unit)[unit] > (1 if kind in _OF_TWO else 2))
        number = np.unique(unit[many], return_inverse=True)[1].astype(np.int64)
        found = merge(shapes.of(many), number)
        at = np.unique(unit[many])
        values, offsets = _replaced((values, offsets), at, found)
    return first.with_columns(shape=_lists(values, offsets))


def medoid(similar: Similar, unit: Ints) -> Ints:
    """Of each unit the thing that is most like the others; the first of several.

    Args:
        similar: of things, by their numbers.
        unit: (n,) of each thing, never falling.

    Returns:
        (u,) the number of the thing.
    """
    n = len(unit)
    i, j = pairs_within(unit)
    alike = similar(i, j)
    total = np.bincount(i, alike, n) + np.bincount(j, alike, n)
    order = np.lexsort((np.arange(n), -total.round(12), unit))
    first: Ints = order[np.unique(unit[order], return_index=True)[1]]
    return first


def _replaced(rows: Ragged, at: Ints, found: Ragged) -> Ragged:
    """Rows of which some are replaced by others that are not empty."""
    kept = np.diff(found[1]) > 0
    both = np.concatenate([rows[0], found[0]])
    index = np.arange(len(rows[1]) - 1)
    index[at[kept]] = len(index) + np.flatnonzero(kept)
    return take((both, np.concatenate([rows[1], rows[1][-1] + found[1][1:]])), index)


def _majority(unit: Ints) -> Ints:
    """(u,) how many are more than half of a unit's."""
    return np.bincount(unit) // 2 + 1


def _medians(rows: Floats, unit: Ints) -> Floats:
    """(u, k) of each number of (n, k) rows; of an even number of rows the mean of the middle two."""
    names = [str(n) for n in range(rows.shape[1])]
    frame = pl.DataFrame(rows, schema=names).with_columns(unit=pl.Series(unit))
    found = frame.group_by("unit", maintain_order=True).median().select(names)
    return found.to_numpy(writable=True)


def _point(shapes: Shapes, unit: Ints) -> Ragged:
    found = _medians(shapes.rows(2), unit)
    return found.ravel(), offsets_of(np.full(len(found), 2))


def _box(shapes: Shapes, unit: Ints) -> Ragged:
    """The median of each edge; where one is turned, of centre, size and angle."""
    edges = shapes.rows(5).copy()
    edges[:, 2:4] += edges[:, :2]
    found = _medians(edges, unit)
    found[:, 2:4] -= found[:, :2]
    return _with_turned(found, shapes, unit, corner=True)


def _ellipse(shapes: Shapes, unit: Ints) -> Ragged:
    return _with_turned(_medians(shapes.rows(5), unit), shapes, unit, corner=False)


def _with_turned(found: Floats, shapes: Shapes, unit: Ints, corner: bool) -> Ragged:
    """Boxes or ellipses (u, 5) whose units with a turned one are replaced by their median as turned ones."""
    turned = np.zeros(len(found), dtype=bool)
    turned[unit[shapes.rows(5)[:, 4] % 360 != 0]] = True
    if turned.any():
        at = np.flatnonzero(turned[unit])
        number = np.unique(unit[at], return_inverse=True)[1].astype(np.int64)
        found[turned] = _turned_median(shapes.of(at), number, corner)
    return found.ravel(), offsets_of(np.full(len(found), 5))


def _turned_median(shapes: Shapes, unit: Ints, corner: bool) -> Floats:
    """(u, 5) the median of centre, size and angle, in pixels.

    A box that is turned by a quarter is the same box with its sides exchanged. So angles are compared within
    a quarter turn, around their circular mean there.

    Args:
        corner: whether x, y is the corner that the shape is turned about, and not its centre.
    """
    scale = np.tile(shapes.pictures / 100, 2)
    rows = shapes.rows(5)
    sizes, angle = rows[:, :4] * scale, rows[:, 4]
    if corner:
        sizes[:, :2] += _rotated(sizes[:, 2:4] / 2, angle)
    around = np.exp(4j * np.radians(angle))
    mean = np.degrees(np.angle(np.bincount(unit, around.real) + 1j * np.bincount(unit, around.imag))) / 4
    first = np.searchsorted(unit, np.arange(len(mean)))
    base = angle[first] + _within_quarter(mean - angle[first])
    off = _within_quarter(angle - base[unit])
    exchanged = np.rint((angle - base[unit] - off) / 90) % 2 == 1
    sizes[exchanged, 2:4] = sizes[exchanged, 3:1:-1]
    found = _medians(np.column_stack([sizes, off]), unit)
    found[:, 4] = (found[:, 4] + base) % 360
    if corner:
        found[:, :2] -= _rotated(found[:, 2:4] / 2, found[:, 4])
    found[:, :4] /= scale[first]
    return found


def _within_quarter(angle: Floats) -> Floats:
    return (angle + 45) % 90 - 45


def _rotated(vectors: Floats, degrees: Floats) -> Floats:
    """(n, 2) turned clockwise, y pointing down."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x, y = vectors.T
    return np.column_stack([x * cos - y * sin, x * sin + y * cos])


# What a majority covers.


def voted(stretches: Floats, unit: Ints, least: Ints) -> Ragged:
    """Where stretches lie at least so deep.

    Args:
        stretches: (k, 2) start and end, end excluded.
        unit: (k,) of each, below u.
        least: (u,) the depth asked for, at least 1.

    Returns:
        (m, 2) stretches for each of u units, ascending, apart from one another.
    """
    place = np.concatenate([stretches[:, 0], stretches[:, 1]])
    change = np.repeat([1, -1], len(stretches))
    owner = np.concatenate([unit, unit])
    order = np.lexsort((place, owner))
    place, owner, level = place[order], owner[order], np.cumsum(change[order])
    last = np.ones(len(place), dtype=bool)
    last[:-1] = (place[1:] != place[:-1]) | (owner[1:] != owner[:-1])
    place, owner, level = place[last], owner[last], level[last]
    turns = np.flatnonzero(np.diff(level >= least[owner], prepend=False))
    found = place[turns].reshape(-1, 2)
    return found, offsets_of(np.bincount(owner[turns[::2]], minlength=len(least)))


def _stretches(shapes: Shapes, unit: Ints) -> Ragged:
    """The stretches that a majority covers. What several stretches of one cover counts once."""
    each, offsets = shapes.ragged(2)
    one = np.repeat(np.arange(len(unit)), np.diff(offsets))
    own, bounds = voted(each, one, np.ones(len(unit), dtype=np.int64))
    return voted(own, np.repeat(unit, np.diff(bounds)), _majority(unit))


def _cover(shapes: Shapes, unit: Ints) -> Ragged:
    found, offsets = _stretches(shapes, unit)
    return found.ravel(), offsets * 2


def _longest(found: Ragged) -> Ragged:
    """(m, 2) the longest stretch of each row, or none."""
    stretches, offsets = found
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((stretches[:, 0], stretches[:, 0] - stretches[:, 1], row))
    first = order[np.unique(row[order], return_index=True)[1]]
    return stretches[first], offsets_of(np.minimum(np.diff(offsets), 1))


def _segment(shapes: Shapes, unit: Ints) -> Ragged:
    """What a majority covers; of two with as many stretches each, these with the middle of their ends."""
    sizes, lengths = np.bincount(unit), np.diff(shapes.offsets)
    first = np.searchsorted(unit, np.arange(len(sizes)))
    two = np.flatnonzero(sizes == 2)
    alike = two[lengths[first[two]] == lengths[first[two] + 1]]
    rows = (shapes.values, shapes.offsets)
    (one, offsets), (other, _) = (take(rows, first[alike] + n) for n in (0, 1))
    values, bounds = _cover(shapes, unit)
    # What only one of two marked is as likely right as wrong: their overlap would always be too short.
    index = np.where(sizes == 2, len(sizes) + len(alike), np.arange(len(sizes)))
    index[alike] = len(sizes) + np.arange(len(alike))
    ends = np.concatenate([bounds, bounds[-1] + offsets[1:], [bounds[-1] + offsets[-1]]])
    return take((np.concatenate([values, (one + other) / 2]), ends), index)


def _span(shapes: Shapes, unit: Ints) -> Ragged:
    found, offsets = _longest(_stretches(shapes, unit))
    return found.ravel(), offsets * 2


def _paragraph_span(shapes: Shapes, unit: Ints) -> Ragged:
    rows = shapes.rows(4)
    through = (rows[:, ::2] * PARAGRAPH + rows[:, 1::2]).ravel()
    flat = Shapes(through, offsets_of(np.full(len(rows), 2)), shapes.pictures)
    found, offsets = _longest(_stretches(flat, unit))
    paragraph, offset = np.divmod(found, PARAGRAPH)
    return np.stack([paragraph, offset], axis=2).ravel(), offsets * 4


def _polygon(shapes: Shapes, unit: Ints) -> Ragged:
    """The largest connected part, without its holes, of what a majority covers."""
    import shapely

    drawn = polygons(shapes.ragged(2))
    sizes, first = np.bincount(unit), np.searchsorted(unit, np.arange(int(unit.max(initial=-1)) + 1))
    voted_for = np.full(len(sizes), shapely.Polygon(), dtype=object)
    for size in np.unique(sizes):
        units = np.flatnonzero(sizes == size)
        voted_for[units] = _covered_by(drawn[first[units][:, None] + np.arange(size)], int(size) // 2 + 1)
    parts, of = shapely.get_parts(voted_for, return_index=True)
    order = np.lexsort((-shapely.area(parts), of))
    order = order[shapely.area(parts[order]) > 0]
    largest = order[np.unique(of[order], return_index=True)[1]]
    rings = shapely.get_exterior_ring(parts[largest])
    points, ring = shapely.get_coordinates(rings, return_index=True)
    closing = np.diff(ring, append=-1) != 0  # a ring ends where it began
    lengths = np.zeros(len(sizes), dtype=np.int64)
    lengths[of[largest]] = 2 * np.bincount(ring[~closing], minlength=len(largest))
    return points[~closing].ravel(), offsets_of(lengths)


def _covered_by(drawn: npt.NDArray[Any], least: int) -> npt.NDArray[Any]:
    """(u,) what at least so many of (u, n) polygons cover.

    With each polygon in turn, what j of them cover grows by what j - 1 covered before and this one covers
    too.
    """
    import shapely

    nothing: npt.NDArray[Any] = np.full(len(drawn), shapely.Polygon(), dtype=object)
    deep = [nothing] * least
    for polygon in drawn.T:
        for j in range(least - 1, 0, -1):
            deep[j] = shapely.union(deep[j], shapely.intersection(deep[j - 1], polygon))
        deep[0] = shapely.union(deep[0], polygon)
    return deep[least - 1]


# Frame by frame.


def _track(shapes: Shapes, unit: Ints) -> Ragged:
    keys, offsets = shapes.ragged(_KEY)
    of_key = np.repeat(np.arange(len(unit)), np.diff(offsets))
    asked = np.unique(np.column_stack([unit[of_key], keys[:, 0]]), axis=0)
    tracks, first = np.bincount(unit), np.searchsorted(unit, np.arange(int(unit.max(initial=-1)) + 1))
    many = tracks[asked[:, 0].astype(np.int64)]
    question = np.repeat(np.arange(len(asked)), many)
    place = np.arange(len(question)) - np.repeat(np.cumsum(many) - many, many)
    track = first[asked[question, 0].astype(np.int64)] + place
    seen, goes_on, box = _at(keys, offsets, of_key, track, asked[question, 1])
    least = many // 2 + 1
    there = np.bincount(question, seen) >= least
    stays = np.bincount(question, goes_on) >= least
    names = ["x", "y", "width", "height", "rotation"]
    boxes = pl.DataFrame(box[seen], schema=names).with_columns(question=pl.Series(question[seen]))
    middle = boxes.group_by("question").median().sort("question")
    found = middle.filter(pl.Series(there)[middle["question"].to_list()])
    at = found["question"].to_numpy()
    rows = np.column_stack([asked[at, 1], stays[at], found.select(names).to_numpy()])
    lengths = _KEY * np.bincount(asked[at, 0].astype(np.int64), minlength=len(tracks))
    return rows.ravel(), offsets_of(lengths)


def _at(
    keys: Floats, offsets: Ints, of_key: Ints, track: Ints, frame: Floats
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], Floats]:
    """Of tracks at frames: whether seen there, whether also in the next frame, and the box (q, 5).

    As in `similarity.track_frames`: a keyframe is seen in its own frame, an enabled one up to the next.
    """
    step = keys[:, 0].max(initial=0) + 1
    key = np.searchsorted(of_key * step + keys[:, 0], track * step + frame, side="right") - 1
    known = key >= offsets[track]
    key = np.maximum(key, offsets[track])
    goes_on = known & (keys[key, 1] > 0)
    seen = known & (goes_on | (keys[key, 0] == frame))
    following = np.minimum(key + 1, offsets[track + 1] - 1)
    run = keys[following, 0] - keys[key, 0]
    share = np.divide(frame - keys[key, 0], run, out=np.zeros_like(frame), where=run > 0)
    change = keys[following, 2:] - keys[key, 2:]
    change[:, 4] = 180 - (180 - change[:, 4]) % 360
    return seen, goes_on, keys[key, 2:] + change * share[:, None]


MERGES: Mapping[str, Merge] = {
    BOX: _box,
    ELLIPSE: _ellipse,
    KEYPOINT: _point,
    POLYGON: _polygon,
    MASK: _cover,
    SEGMENT: _segment,
    SPAN: _span,
    HTML_SPAN: _span,
    PARAGRAPH_SPAN: _paragraph_span,
    TRACK: _track,
}
"""How several shapes of a kind are merged; of all others the most typical is taken."""

_OF_TWO = frozenset({BOX, ELLIPSE, KEYPOINT, SEGMENT, TRACK})
"""Kinds of which two have a middle. What two spans or areas both cover is always too small, so one of the two
is taken there; a span in the middle of two would also cut words."""


def _lists(values: Floats, offsets: Ints) -> pl.Series:
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    lists = pl.DataFrame({"row": row, "shape": values}).group_by("row", maintain_order=True).agg("shape")
    every = pl.DataFrame({"row": np.arange(len(offsets) - 1)})
    return every.join(lists, on="row", how="left", maintain_order="left")["shape"]
