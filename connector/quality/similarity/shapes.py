"""How alike two shapes in a picture are: boxes, ellipses, polygons, points and lines.

Rows are pairs: `a[i]` is compared with `b[i]`. Lengths are in pixels, y grows downwards. Percent of a picture
serve as well where only shares of areas count: for upright boxes and for polygons. What lies outside the
picture counts like the rest. Two shapes without area are alike (1) if they are the same shape, else not (0).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from connector.quality.interval import Floats, Ints
from connector.quality.similarity.rows import (
    Ragged,
    blocks,
    equal_rows,
    part,
    place_in_row,
    ratio,
    row_of,
    sums,
)

SLICES = 128
"""Slices that an overlap of ellipses is measured by; see `ellipse_iou`."""


def box_iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of every pair of axis-aligned boxes.

    Args:
        a: (n, 4) x, y, width, height; any unit, the same on both sides.
        b: (m, 4)

    Returns:
        (n, m) in [0, 1]. A box without area is like nothing, not even itself: 0.

    References:
        Jaccard, P. (1912). The distribution of the flora in the alpine zone. New Phytologist 11, 37-50.
    """
    a, b = a.reshape(-1, 4), b.reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    union = a[:, 2:].prod(axis=1)[:, None] + b[:, 2:].prod(axis=1)[None, :] - shared
    iou: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def upright_box_iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of axis-aligned boxes.

    Args:
        a, b: (n, 4) x, y, width, height.

    Returns:
        (n,) in [0, 1].

    References:
        Jaccard, P. (1912). The distribution of the flora in the alpine zone. New Phytologist 11, 37-50.
    """
    return _iou(_upright_shared(a, b), a[:, 2] * a[:, 3], b[:, 2] * b[:, 3], (a == b).all(axis=1))


def rotated_box_iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of boxes turned about their top left corner, as Label Studio turns them.

    Args:
        a, b: (n, 5) x, y, width, height, rotation in degrees clockwise. x, y is the corner that is top left
            before the turn, and the point that the box turns about.

    Returns:
        (n,) in [0, 1].

    References:
        Jaccard (1912), as in `upright_box_iou`; for the overlap see `rotated_box_shared`.
    """
    return _iou(rotated_box_shared(a, b), a[:, 2] * a[:, 3], b[:, 2] * b[:, 3], (a == b).all(axis=1))


def rotated_box_shared(a: Floats, b: Floats) -> Floats:
    """Area that two turned boxes share.

    `b` is seen in the frame of `a`, where `a` is [0, width] x [0, height]. By Green's theorem the area of a
    polygon within it is the sum, over the polygon's edges, of the integral of y dx with both held within `a`.

    Args:
        a, b: (n, 5), as in `rotated_box_iou`.

    Returns:
        (n,) areas.
    """
    shared = np.empty(len(a))
    for start in range(0, len(a), 1 << 14):
        rows = slice(start, start + (1 << 14))
        shared[rows] = _rotated_shared(a[rows], b[rows])
    return shared


def ellipse_iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of ellipses.

    The overlap is measured by the vertical slices of both ellipses at `SLICES` abscissae, dense towards the
    ends of the range that both span: the midpoint rule after x = middle + half sin t. That is exact for an
    ellipse within another; else the error falls with the square of the number of slices.

    Args:
        a, b: (n, 5) x and y of the centre, horizontal and vertical radius, rotation in degrees clockwise
            about the centre.

    Returns:
        (n,) in [0, 1].

    References:
        Jaccard (1912), as in `upright_box_iou`.
    """
    shared = np.empty(len(a))
    for start in range(0, len(a), 1 << 10):
        rows = slice(start, start + (1 << 10))
        shared[rows] = _ellipse_shared(a[rows], b[rows])
    area_a, area_b = (np.pi * side[:, 2] * side[:, 3] for side in (a, b))
    return _iou(shared, area_a, area_b, (a == b).all(axis=1))


def polygon_iou(a: Ragged, b: Ragged) -> Floats:
    """Intersection over union of polygons.

    Args:
        a, b: n polygons, (p, 2) x, y of their corners in order; the last is joined to the first. A polygon
            that crosses itself has the area that a canvas fills: every part wound around at least once.

    Returns:
        (n,) in [0, 1]. Fewer than three corners have no area.

    References:
        Jaccard (1912), as in `upright_box_iou`. Overlay and repair are those of GEOS: JTS OverlayNG, and
        `GeometryFixer`, the "structure" method of `shapely.make_valid`.
    """
    shared, area_a, area_b = _polygon_areas(a, b)
    return _iou(shared, area_a, area_b, equal_rows(a, b))


def polygon_dice(a: Ragged, b: Ragged) -> Floats:
    """Twice the shared area over the sum of areas of polygons; arguments and edges as in `polygon_iou`.

    References:
        Dice, L. R. (1945). Measures of the amount of ecologic association between species. Ecology 26,
        297-302.
    """
    shared, area_a, area_b = _polygon_areas(a, b)
    return ratio(2 * shared, area_a + area_b, equal_rows(a, b))


def point_distance(a: Floats, b: Floats, pictures: npt.NDArray[Any]) -> Floats:
    """Distance between points, as a share of the picture's diagonal.

    Args:
        a, b: (n, 2) x, y in pixels.
        pictures: (n, 2) width and height.

    Returns:
        (n,) a distance, 0 for the same point; more than 1 is possible outside the picture.
    """
    apart: Floats = np.hypot(*(a - b).T) / np.hypot(*pictures.T)
    return apart


def oks(a: Floats, b: Floats, scale: npt.ArrayLike, k: npt.ArrayLike) -> Floats:
    """Object keypoint similarity of single points: exp(-d^2 / (2 s^2 k^2)).

    The similarity of two skeletons is the mean over the points that both hold.

    Args:
        a, b: (n, 2) x, y in pixels.
        scale: s, the square root of the object's area, or of the picture's where no object is known.
        k: the constant of the kind of point, in shares of the scale: twice the standard deviation of
            annotators. COCO's run from 0.05 (eyes) to 0.214 (hips); CVAT takes 0.18 for all.

    Returns:
        (n,) in [0, 1]. Without a scale only the same point is alike.

    References:
        The COCO keypoint task's own measure; written out in Ronchi, M. R. & Perona, P. (2017). Benchmarking
        and error diagnosis in multi-instance pose estimation. ICCV 2017, 369-378.
    """
    squared = ((a - b) ** 2).sum(axis=1)
    spread = np.broadcast_to(2 * (np.asarray(scale, float) * np.asarray(k, float)) ** 2, squared.shape)
    exponent = np.divide(squared, spread, out=np.where(squared > 0, np.inf, 0.0), where=spread > 0)
    alike: Floats = np.exp(-exponent)
    return alike


def line_distance(a: Ragged, b: Ragged, pictures: npt.NDArray[Any], samples: int = 32) -> Floats:
    """Average symmetric distance of two lines, as a share of the picture's diagonal. Blind to direction.

    Each line is sampled at equal steps of its length. The mean distance from the samples of one line to the
    other line, averaged over both directions.

    Args:
        a, b: n lines, (p, 2) x, y of their points, at least one.
        pictures: (n, 2) width and height.
        samples: points on each line, at least 2.

    Returns:
        (n,) a distance.

    References:
        Heimann, T. et al. (2009). Comparison and evaluation of methods for liver segmentation from CT
        datasets. IEEE Transactions on Medical Imaging 28, 1251-1265: average symmetric surface distance.
    """
    n = len(a[1]) - 1
    found = np.empty(n)
    steps = np.linspace(0, 1, samples)
    for start in range(0, n, max(1, (1 << 18) // samples**2)):
        rows = slice(start, min(n, start + max(1, (1 << 18) // samples**2)))
        count = rows.stop - rows.start
        at, row = np.tile(steps, count), np.repeat(np.arange(count), samples)
        p, q = (_along(part(side, rows), row, at).reshape(count, samples, 2) for side in (a, b))
        found[rows] = (_to_line(p, q) + _to_line(q, p)) / 2
    found /= np.hypot(*pictures.T)
    return found


def line_similarity(
    a: Ragged, b: Ragged, pictures: npt.NDArray[Any], thickness: float = 0.01, directed: bool = False
) -> Floats:
    """Share of two lines that lies together, soft: the mean of exp(-d^2 / (2 A (2 t)^2)).

    d is the distance of the two points that lie at the same share of both lines' lengths. One such pair is
    taken for each corner of either line, and for both ends. A is the picture's area, t the thickness.

    Args:
        a, b: n lines, (p, 2) x, y of their points, at least one.
        pictures: (n, 2) width and height.
        thickness: t, a share of the square root of the picture's area; CVAT's default.
        directed: whether a line differs from the same line drawn from its other end.

    Returns:
        (n,) in [0, 1].

    References:
        CVAT's quality control compares lines so (class `LineMatcher`; manual, "Automated QA, review &
        honeypots"). The kernel is that of `oks` with k = 2 t.
    """
    n = len(a[1]) - 1
    found = np.empty(n)
    spread = 2 * pictures.prod(axis=1) * (2 * thickness) ** 2
    for rows in blocks(a[1], b[1]):
        one, other = part(a, rows), part(b, rows)
        found[rows] = _lines_alike(one, other, spread[rows], reverse=False)
        if not directed:
            backwards = _lines_alike(one, other, spread[rows], reverse=True)
            found[rows] = np.maximum(found[rows], backwards)
    return found


def _iou(shared: Floats, area_a: Floats, area_b: Floats, same: npt.NDArray[np.bool_]) -> Floats:
    return ratio(shared, area_a + area_b - shared, same)


def _upright_shared(a: Floats, b: Floats) -> Floats:
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, :2] + a[:, 2:4], b[:, :2] + b[:, 2:4])
    sides = np.clip(high - low, 0, None)
    shared: Floats = sides[:, 0] * sides[:, 1]
    return shared


def _turn(degrees: Floats) -> tuple[Floats, Floats]:
    """Cosine and sine; exact for whole quarter turns."""
    quarters, rest = np.divmod(degrees, 90.0)
    cos, sin = np.cos(np.radians(rest)), np.sin(np.radians(rest))
    quarter = quarters.astype(np.int64) % 4
    return np.choose(quarter, [cos, -sin, -cos, sin]), np.choose(quarter, [sin, cos, -sin, -cos])


def _rotated_shared(a: Floats, b: Floats) -> Floats:
    (cos_a, sin_a), (cos_b, sin_b) = _turn(a[:, 4]), _turn(b[:, 4])
    cos, sin = cos_b * cos_a + sin_b * sin_a, sin_b * cos_a - cos_b * sin_a
    apart = b[:, :2] - a[:, :2]
    left = apart[:, 0] * cos_a + apart[:, 1] * sin_a
    top = apart[:, 1] * cos_a - apart[:, 0] * sin_a
    across, down = b[:, 2], b[:, 3]
    # The corners of b one after another, (5, n), the first again at the end.
    x = np.stack([left, left + across * cos, left + across * cos - down * sin, left - down * sin, left])
    y = np.stack([top, top + across * sin, top + across * sin + down * cos, top + down * cos, top])
    return np.clip(_area_within(x, y, a[:, 2], a[:, 3]), 0, None)


def _area_within(x: Floats, y: Floats, width: Floats, height: Floats) -> Floats:
    """Area of the polygons (p, n) that lies in [0, width] x [0, height]; positive if they run clockwise."""
    x0, y0, rise, run = x[:-1], y[:-1], np.diff(y, axis=0), np.diff(x, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Where along each edge x enters and leaves the box; an edge straight down counts nothing.
        slope = np.where(run == 0, 0.0, rise / run)
    begin, end = np.clip(x0, 0, width), np.clip(x[1:], 0, width)
    y_begin, y_end = y0 + (begin - x0) * slope, y0 + (end - x0) * slope
    climb = y_end - y_begin
    with np.errstate(divide="ignore", invalid="ignore"):
        cuts = np.clip(np.stack([-y_begin / climb, (height - y_begin) / climb]), 0, 1)
    cuts = np.sort(np.where(climb == 0, 0.0, cuts), axis=0)
    # Between the cuts, y held within the box is linear: a trapezoid each.
    at = np.stack([np.zeros_like(climb), *cuts, np.ones_like(climb)])
    held = np.clip(y_begin + at * climb, 0, height)
    mean = ((held[1:] + held[:-1]) / 2 * np.diff(at, axis=0)).sum(axis=0)
    area: Floats = -(mean * (end - begin)).sum(axis=0)
    return area


def _ellipse_shared(a: Floats, b: Floats) -> Floats:
    spans = [_spread(side) for side in (a, b)]
    low = np.maximum(*(side[:, 0] - np.sqrt(xx) for side, (xx, _, _) in zip((a, b), spans, strict=True)))
    high = np.minimum(*(side[:, 0] + np.sqrt(xx) for side, (xx, _, _) in zip((a, b), spans, strict=True)))
    half = np.clip((high - low) / 2, 0, None)
    t = ((np.arange(SLICES) + 0.5) / SLICES - 0.5) * np.pi
    x = ((low + high) / 2)[:, None] + half[:, None] * np.sin(t)
    top, bottom = np.full_like(x, -np.inf), np.full_like(x, np.inf)
    for side, (xx, xy, area2) in zip((a, b), spans, strict=True):
        share = (x - side[:, :1]) / np.sqrt(xx)[:, None]
        tilt = np.divide(xy, np.sqrt(xx), out=np.zeros_like(xy), where=xx > 0)
        reach = np.sqrt(np.divide(area2, xx, out=np.zeros_like(xx), where=xx > 0))
        centre = side[:, 1:2] + tilt[:, None] * share
        tall = reach[:, None] * np.sqrt(np.clip(1 - share**2, 0, None))
        top, bottom = np.maximum(top, centre - tall), np.minimum(bottom, centre + tall)
    shared: Floats = np.clip(bottom - top, 0, None) @ np.cos(t) * half * (np.pi / SLICES)
    return shared


def _spread(ellipse: Floats) -> tuple[Floats, Floats, Floats]:
    """S = R diag(r^2) R': its xx, its xy, and its determinant. The ellipse is (p - c)' S^-1 (p - c) <= 1."""
    across, down = ellipse[:, 2] ** 2, ellipse[:, 3] ** 2
    cos, sin = _turn(ellipse[:, 4])
    return cos**2 * across + sin**2 * down, cos * sin * (across - down), across * down


def _polygon_areas(a: Ragged, b: Ragged) -> tuple[Floats, Floats, Floats]:
    import shapely

    left, right = polygons(a), polygons(b)
    shared = np.zeros(len(left))
    low = np.maximum(shapely.bounds(left)[:, :2], shapely.bounds(right)[:, :2])
    high = np.minimum(shapely.bounds(left)[:, 2:], shapely.bounds(right)[:, 2:])
    near = (low < high).all(axis=1)  # never for an empty one: its bounds are NaN
    shared[near] = shapely.area(shapely.intersection(left[near], right[near]))
    return shared, shapely.area(left), shapely.area(right)


def polygons(rows: Ragged) -> npt.NDArray[Any]:
    """(n,) polygons as shapely has them, valid; empty where there are fewer than three corners."""
    import shapely

    points, offsets = rows
    made = np.full(len(offsets) - 1, shapely.Polygon(), dtype=object)
    closed = np.diff(offsets) >= 3
    index = row_of(offsets)
    used = closed[index]
    if used.any():
        rings = shapely.linearrings(points[used], indices=np.cumsum(closed)[index[used]] - 1)
        made[closed] = shapely.polygons(rings)
        crossed = ~shapely.is_valid(made)
        made[crossed] = shapely.make_valid(made[crossed], method="structure", keep_collapsed=False)
    return made


def _along(lines: Ragged, row: Ints, at: Floats) -> Floats:
    """(m, 2) the points at shares `at` of the length of the lines `row`."""
    points, offsets = lines
    place, owner = _shares(lines), row_of(offsets)
    # Shares lie in [0, 1], so twice the row keeps every line's apart from the next one's.
    after = np.searchsorted(place + 2.0 * owner, at + 2.0 * row, side="left")
    after = np.clip(after, offsets[row], offsets[row + 1] - 1)
    before = np.maximum(after - 1, offsets[row])
    step = place[after] - place[before]
    share = np.divide(at - place[before], step, out=np.zeros_like(at), where=step > 0)[:, None]
    made: Floats = points[before] * (1 - share) + points[after] * share
    return made


def _shares(lines: Ragged) -> Floats:
    """(m,) at which share of its line's length each point stands; 0 on a line without length."""
    points, offsets = lines
    steps = np.zeros(len(points))
    steps[1:] = np.hypot(*np.diff(points, axis=0).T)
    steps[offsets[:-1]] = 0.0
    gone = np.cumsum(steps)
    row = row_of(offsets)
    whole = sums(steps, row, len(offsets) - 1)[row]
    since = gone - np.repeat(gone[offsets[:-1]], np.diff(offsets))
    share: Floats = np.divide(since, whole, out=np.zeros_like(since), where=whole > 0)
    return np.minimum(share, 1.0)


def _to_line(p: Floats, q: Floats) -> Floats:
    """(n,) mean distance from the points p (n, s, 2) to the line through q (n, s, 2)."""
    start, along = q[:, None, :-1], np.diff(q, axis=1)[:, None]
    apart = p[:, :, None] - start
    length2 = (along**2).sum(axis=3)
    share = np.divide((apart * along).sum(axis=3), length2, out=np.zeros(apart.shape[:3]), where=length2 > 0)
    foot = apart - np.clip(share, 0, 1)[..., None] * along
    nearest: Floats = np.sqrt((foot**2).sum(axis=3).min(axis=2)).mean(axis=1)
    return nearest


def _lines_alike(a: Ragged, b: Ragged, spread: Floats, reverse: bool) -> Floats:
    points, offsets = b
    last = np.repeat(np.diff(offsets) - 1, np.diff(offsets))
    place = place_in_row(offsets)
    if reverse:
        b = points[np.arange(len(points)) + last - 2 * place], offsets
    inner = (place > 0) & (place < last)
    row = np.concatenate([row_of(a[1]), row_of(offsets)[inner]])
    at = np.concatenate([_shares(a), _shares(b)[inner]])
    squared = ((_along(a, row, at) - _along(b, row, at)) ** 2).sum(axis=1)
    alike = np.exp(-squared / spread[row])
    n = len(spread)
    mean: Floats = sums(alike, row, n) / np.bincount(row, minlength=n)
    return mean
