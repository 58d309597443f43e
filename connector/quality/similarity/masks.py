"""How alike two masks are, from their runs, without unpacking them to pixels.

A mask is its runs: (k, 2) int64, first pixel and the one after the last, ascending and apart from one
another. Pixels are counted along the rows of the picture: column x of row y is y * width + x. Many masks are
ragged runs. Rows are pairs: `a[i]` is compared with `b[i]`, two masks of one picture. Two empty masks are
alike (1); an empty one is like no other (0).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from connector.quality.interval import Floats, Ints
from connector.quality.similarity.cover import covered, intervals, levels, overlap
from connector.quality.similarity.rows import (
    Ragged,
    blocks,
    equal_rows,
    offsets_of,
    part,
    place_in_row,
    ratio,
    row_of,
    sums,
)


def mask_iou(a: Ragged, b: Ragged) -> Floats:
    """Intersection over union of masks.

    Args:
        a, b: runs of n masks.

    Returns:
        (n,) in [0, 1].

    References:
        Jaccard, P. (1912). The distribution of the flora in the alpine zone. New Phytologist 11, 37-50.
    """
    both, either = overlap(a, b)
    return ratio(both, either, equal_rows(a, b))


def mask_dice(a: Ragged, b: Ragged) -> Floats:
    """Twice the shared pixels over the sum of both masks' pixels; arguments as in `mask_iou`.

    References:
        Dice, L. R. (1945). Measures of the amount of ecologic association between species. Ecology 26,
        297-302.
    """
    both, either = overlap(a, b)
    return ratio(2 * both, both + either, equal_rows(a, b))


def boundary_f(a: Ragged, b: Ragged, pictures: Ints, tolerance: float = 0.0075) -> Floats:
    """Are the edges drawn alike? The F-measure of two masks' edges, matched within a tolerance.

    The edge is every pixel of a mask with one of its eight neighbours outside the mask, or outside the
    picture. Precision is the share of a's edge that has a pixel of b's edge not farther away than the
    tolerance, recall the share of b's edge near a's; the result is their harmonic mean.

    Args:
        a, b: runs of n masks.
        pictures: (n, 2) width and height.
        tolerance: the distance between pixel centres, as a share of the picture's diagonal.

    Returns:
        (n,) in [0, 1].

    References:
        Csurka, G., Larlus, D. & Perronnin, F. (2013). What is a good evaluation measure for semantic
        segmentation? BMVC (tolerance 0.75 % of the diagonal). Perazzi, F. et al. (2016). A benchmark dataset
        and evaluation methodology for video object segmentation. CVPR (its F, with 0.8 %).
    """
    found = np.zeros(len(pictures))
    near = tolerance * np.hypot(*pictures.T)
    for rows in _picture_blocks(a, b, pictures, near):
        canvas = _Canvas(pictures[rows])
        edges = [_band(canvas.place(part(side, rows)), canvas, np.ones_like(canvas.width)) for side in (a, b)]
        hits = [canvas.count(_shared(edges[i], _dilated(edges[1 - i], canvas, near[rows]))) for i in (0, 1)]
        lengths = [canvas.count(edge) for edge in edges]
        # The harmonic mean of h0 / l0 and h1 / l1, written so that nothing divides by 0.
        twice = 2 * hits[0] * hits[1]
        found[rows] = ratio(twice, hits[0] * lengths[1] + hits[1] * lengths[0], lengths[0] + lengths[1] == 0)
    return found


def boundary_iou(a: Ragged, b: Ragged, pictures: Ints, thickness: float = 0.02) -> Floats:
    """IoU of the bands of two masks that lie along their edges: as IoU, but size does not hide bad edges.

    The band is what `thickness` (rounded to whole pixels, at least 1) erosions by a 3 x 3 square take away;
    what is outside the picture is outside the mask.

    Args:
        a, b: runs of n masks.
        pictures: (n, 2) width and height.
        thickness: of the band, as a share of the picture's diagonal.

    Returns:
        (n,) in [0, 1].

    References:
        Cheng, B. et al. (2021). Boundary IoU: improving object-centric image segmentation evaluation. CVPR;
        the details are those of the authors' implementation.
    """
    found = np.zeros(len(pictures))
    deep = np.maximum(np.rint(thickness * np.hypot(*pictures.T)), 1).astype(np.int64)
    for rows in _picture_blocks(a, b, pictures, deep):
        canvas = _Canvas(pictures[rows])
        one, other = (_band(canvas.place(part(side, rows)), canvas, deep[rows]) for side in (a, b))
        both = canvas.count(_shared(one, other))
        either = canvas.count(one) + canvas.count(other) - both
        found[rows] = ratio(both, either, either == 0)
    return found


def rasterize(polygons: Ragged, pictures: Ints) -> Ragged:
    """Polygons as masks: a pixel is set if its centre is inside.

    A centre on an edge is inside if the polygon lies to the right of it, or below. Polygons that cross
    themselves are filled as in `polygon_iou`. What lies outside the picture is cut off.

    Args:
        polygons: n polygons, (p, 2) x, y of their corners in pixels; pixel (0, 0) spans [0, 1] x [0, 1].
        pictures: (n, 2) width and height.

    Returns:
        Runs of n masks.
    """
    points, offsets = polygons
    row = row_of(offsets)
    following = np.arange(1, len(points) + 1)
    following[offsets[1:][np.diff(offsets) > 0] - 1] = offsets[:-1][np.diff(offsets) > 0]
    ends = points.T, points[following].T
    falls = ends[0][1] < ends[1][1]
    # From the upper end on, so that the polygons on both sides of an edge round alike.
    (x0, y0), (x1, y1) = np.where(falls, *ends), np.where(falls, *ends[::-1])
    canvas = _Canvas(pictures)
    # The rows of pixels whose centres an edge passes, each once.
    top, bottom = (np.clip(np.ceil(y - 0.5), 0, canvas.height[row]).astype(np.int64) for y in (y0, y1))
    passed = offsets_of(bottom - top)
    edge = row_of(passed)
    y = top[edge] + place_in_row(passed)
    x = x0[edge] + (y + 0.5 - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
    column = np.clip(np.ceil(x - 0.5), 0, canvas.width[row[edge]]).astype(np.int64)
    place, winding = levels(
        canvas.start[row[edge]] + y * canvas.width[row[edge]] + column, np.where(falls, 1, -1)[edge]
    )
    return canvas.masks(intervals(place, winding != 0))


class _Canvas:
    """Pictures laid out on one line, a pixel apart, so that all are worked on at once."""

    def __init__(self, pictures: Ints) -> None:
        self.width, self.height = pictures.T.astype(np.int64)
        self.start = offsets_of(self.width * self.height + 1)

    def place(self, runs: Ragged) -> Ints:
        """(k, 2) all masks' runs on the line."""
        values, offsets = runs
        placed: Ints = values + np.repeat(self.start[:-1], np.diff(offsets))[:, None]
        return placed

    def picture(self, places: Ints) -> Ints:
        """The picture that each place is in."""
        return np.searchsorted(self.start, places, side="right") - 1

    def masks(self, placed: Ints) -> Ragged:
        """The runs of each picture's mask."""
        picture = self.picture(placed[:, 0])
        counts = np.bincount(picture, minlength=len(self.width))
        return placed - self.start[picture][:, None], offsets_of(counts)

    def count(self, placed: Ints) -> Floats:
        """(n,) the pixels set in each picture."""
        return sums(placed[:, 1] - placed[:, 0], self.picture(placed[:, 0]), len(self.width))

    def pieces(self, placed: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """Runs cut at the ends of rows: picture, row, first column, the one after the last."""
        picture = self.picture(placed[:, 0])
        width = self.width[picture]
        begin, end = (placed - self.start[picture][:, None]).T
        first, last = begin // width, (end - 1) // width
        cut = offsets_of(last - first + 1)
        run = row_of(cut)
        row = first[run] + place_in_row(cut)
        left = np.maximum(begin[run] - row * width[run], 0)
        right = np.minimum(end[run] - row * width[run], width[run])
        return picture[run], row, left, right

    def stacked(self, pieces: tuple[Ints, Ints, Ints, Ints], reach: Ints, wider: Ints) -> Ints:
        """Copies of pieces `reach` rows up to `reach` rows down, within the picture.

        Args:
            pieces: k pieces, as `pieces` gives them.
            reach: (k,) rows.
            wider: by how much each copy grows to both sides: piece by piece, downwards.

        Returns:
            (m, 2) intervals on the line, overlapping.
        """
        picture, row, left, right = pieces
        copies = offsets_of(2 * reach + 1)
        piece = row_of(copies)
        at = picture[piece]
        y = row[piece] + place_in_row(copies) - reach[piece]
        begin = np.maximum(left[piece] - wider, 0)
        end = np.minimum(right[piece] + wider, self.width[at])
        kept = (y >= 0) & (y < self.height[at]) & (begin < end)
        first = (self.start[at] + y * self.width[at])[kept]
        return np.stack([first + begin[kept], first + end[kept]], axis=1)


def _band(placed: Ints, canvas: _Canvas, deep: Ints) -> Ints:
    """The pixels of masks that are at most `deep` (n,) king's moves from outside."""
    picture, row, left, right = canvas.pieces(placed)
    reach = deep[picture]
    inner = canvas.stacked((picture, row, left + reach, right - reach), reach, np.zeros(1, dtype=np.int64))
    # What a full stack covers is left by the erosion. One interval for each picture takes away all but one.
    whole = np.stack([canvas.start[:-1], canvas.start[1:] - 1], axis=1)
    full = covered([(inner, 1), *((whole[deep == d], -2 * int(d)) for d in np.unique(deep))], 1)
    return covered([(placed, 1), (full, -1)], 1)


def _dilated(placed: Ints, canvas: _Canvas, near: Floats) -> Ints:
    """Every pixel not farther than `near` (n,) from a set one."""
    pieces = canvas.pieces(placed)
    radius = near[pieces[0]]
    reach = radius.astype(np.int64)
    copies = offsets_of(2 * reach + 1)
    piece = row_of(copies)
    down = place_in_row(copies) - reach[piece]
    wider = np.sqrt(np.clip(radius[piece] ** 2 - down**2, 0, None)).astype(np.int64)
    return covered([(canvas.stacked(pieces, reach, wider), 1)], 1)


def _shared(a: Ints, b: Ints) -> Ints:
    return covered([(a, 1), (b, 1)], 2)


def _picture_blocks(a: Ragged, b: Ragged, pictures: Ints, reach: npt.NDArray[Any]) -> Iterator[slice]:
    """Blocks of pairs, by the copies of pieces that they will need."""
    runs = np.diff(a[1]) + np.diff(b[1]) + 2 * pictures[:, 1]
    return blocks(offsets_of(runs * (2 * reach.astype(np.int64) + 1)), most=1 << 20)
