"""Which regions that different annotators drew are the same object.

Regions are joined into objects so that what they have in common is greatest: the sum, over every two regions
of one object, of their similarity where it reaches the threshold, less what is missing where it does not. An
annotation has one region in an object at most. For two annotations this is the assignment problem (Kuhn, H.
W. (1955). The Hungarian method for the assignment problem. Naval Research Logistics Quarterly 2, 83-97); for
more it is the multidimensional one, which is NP-hard.

Most objects are clear: everybody's region is like everybody else's there and like nothing else. These are
found for all tasks at once. Of what is contested all ways are tried where it is small; where it is large,
each annotation in turn is assigned anew, as well as can be, until nothing improves.

Labels break ties: two regions of one label count as `LABEL_BONUS` more similar than they are. So nested or
crowded regions that could be paired in two ways which are equally good, or nearly, are paired by label;
where the shapes differ clearly, the shapes decide, and a wrong label stays a confusion.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

from connector.quality.answers import Similar
from connector.quality.interval import Floats, Ints
from connector.quality.similarity import pairs_within

PAIRS = 1 << 19
"""How many pairs of regions are held at once, unless one task alone has more."""

LABEL_BONUS = 0.05
"""The similarity that a matching label outweighs, for each two regions of an object: about what the shapes of
two careful annotators differ by (one pixel in the width and in the height of a box of 40 by 40). Regions
below the threshold get none, so labels alone never join anything."""

_GRID = 2.0**30
"""Similarities are compared in steps of 1 / _GRID. Sums of these are exact in whatever order they are added,
so equal totals are equal, and rounding does not decide a tie."""

_SMALL = 8
"""Of so many regions all ways to join them are tried: 4,140."""

_ROUNDS = 100
_STARTS = 8
_CELLS = 1 << 22
_NEVER = 1e6


def align(
    group: Ints,
    owner: Ints,
    similar: Similar,
    threshold: float,
    label: Ints | None = None,
    bounds: Floats | None = None,
    same_label: bool = False,
) -> tuple[Ints, Floats]:
    """Join the regions of each group into objects.

    Totals that are equal or nearly equal are decided by matching labels; see `LABEL_BONUS`. What then is
    still equal is decided by position, so sort the regions by what was drawn and not by who drew.

    Args:
        group: (n,) never falling; only regions of one group can be one object.
        owner: (n,) the annotation of each region.
        similar: asked for pairs of one group and of different owners.
        threshold: the least similarity, above 0, at which two regions may be one object.
        label: (n,) the label of each, as a number; without it, labels decide nothing.
        bounds: (n, 2d) lows, then highs: regions whose bounds do not meet are not alike at all.
        same_label: whether only regions of one label can be one object.

    Returns:
        (n,) the number of the object of each region, which is the position of its first; (n,) the mean
        similarity to the other regions of the object, NaN where there is none.
    """
    unit = np.arange(len(group), dtype=np.int64)
    # Without labels every region has one of its own, and none match.
    label = unit.copy() if label is None else label
    total = np.zeros(len(group))
    for block in _blocks(group):
        i, j = _pairs(group[block], owner[block], label[block] if same_label else None)
        if bounds is not None:
            i, j = _meeting(i, j, bounds[block])
        start = block.start
        sim = similar(i + start, j + start)
        unit[block] = start + _objects(i, j, sim, owner[block], label[block], threshold)
        same = unit[block][i] == unit[block][j]
        for side in (i, j):
            total[block] += np.bincount(side[same], sim[same], minlength=len(total[block]))
    others = np.bincount(unit, minlength=len(unit))[unit] - 1
    return unit, np.divide(total, others, out=np.full(len(unit), np.nan), where=others > 0)


def _blocks(group: Ints) -> Iterator[slice]:
    """Whole groups, with about `PAIRS` pairs each."""
    if not len(group):
        return
    ends = np.append(np.flatnonzero(np.diff(group)) + 1, len(group))
    sizes = np.diff(ends, prepend=0)
    pairs = np.cumsum(sizes * (sizes - 1) // 2)
    first = done = 0
    while first < len(ends):
        last = max(first + 1, int(np.searchsorted(pairs, done + PAIRS, side="right")))
        yield slice(int(ends[first - 1]) if first else 0, int(ends[last - 1]))
        first, done = last, int(pairs[last - 1])


def _pairs(group: Ints, owner: Ints, label: Ints | None) -> tuple[Ints, Ints]:
    """Every two regions of a group that may be one object, the earlier first."""
    i, j = pairs_within(group)
    may = owner[i] != owner[j]
    if label is not None:
        may &= label[i] == label[j]
    return i[may], j[may]


def _meeting(i: Ints, j: Ints, bounds: Floats) -> tuple[Ints, Ints]:
    half = bounds.shape[1] // 2
    for axis in range(half):
        low, high = np.ascontiguousarray(bounds[:, axis]), np.ascontiguousarray(bounds[:, half + axis])
        meet = (low[i] <= high[j]) & (low[j] <= high[i])
        i, j = i[meet], j[meet]
    return i, j


def _objects(i: Ints, j: Ints, sim: Floats, owner: Ints, label: Ints, threshold: float) -> Ints:
    """(n,) the first region of the object of each."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(owner)
    near = sim >= threshold
    touching = coo_array((np.ones(near.sum()), (i[near], j[near])), shape=(n, n))
    piece = connected_components(touching, directed=False)[1].astype(np.int64)
    size = np.bincount(piece)
    links = np.bincount(piece[i[near]], minlength=len(size))
    twice = np.zeros(len(size), dtype=bool)
    by_owner = np.lexsort((owner, piece))
    again = (np.diff(piece[by_owner]) == 0) & (np.diff(owner[by_owner]) == 0)
    twice[piece[by_owner][1:][again]] = True
    # A chain of three is worth joining whatever its ends are like; of a longer one that depends.
    loose = (size > 3) & (links < size * (size - 1) // 2)
    contested = twice | loose
    first = np.full(len(size), n, dtype=np.int64)
    np.minimum.at(first, piece, np.arange(n))
    unit = first[piece]
    if contested.any():
        inside = (piece[i] == piece[j]) & contested[piece[i]]
        _settle(unit, piece, contested, (i[inside], j[inside], sim[inside]), owner, label, threshold)
    return unit


def _settle(
    unit: Ints,
    piece: Ints,
    contested: npt.NDArray[np.bool_],
    pairs: tuple[Ints, Ints, Floats],
    owner: Ints,
    label: Ints,
    threshold: float,
) -> None:
    """Divide each contested piece into objects, in place."""
    i, j, sim = pairs
    members = np.flatnonzero(contested[piece])
    members = members[np.argsort(piece[members], kind="stable")]
    starts = np.flatnonzero(np.diff(piece[members], prepend=-1))
    sizes = np.diff(starts, append=len(members))
    place = np.zeros(len(piece), dtype=np.int64)
    place[members] = np.arange(len(members)) - np.repeat(starts, sizes)
    number = np.zeros(len(contested), dtype=np.int64)
    number[piece[members[starts]]] = np.arange(len(starts))
    of_pair = number[piece[i]]
    for size in np.unique(sizes):
        these = np.flatnonzero(sizes == size)
        regions = members[starts[these][:, None] + np.arange(size)]
        here = np.flatnonzero(sizes[of_pair] == size)
        row = np.searchsorted(these, of_pair[here])
        alike = np.zeros((len(these), size, size))
        a, b = place[i[here]], place[j[here]]
        alike[row, a, b] = alike[row, b, a] = sim[here]
        if size <= _SMALL:
            first = _best_of_all(alike, owner[regions], label[regions], threshold)
        else:
            parts = zip(alike, owner[regions], label[regions], strict=True)
            first = np.stack([divide(*one, threshold) for one in parts])
        unit[regions] = np.take_along_axis(regions, first, axis=1)


def _best_of_all(alike: Floats, owner: Ints, label: Ints, threshold: float) -> Ints:
    """Of all ways to divide small pieces, the best of each.

    Args:
        alike: (p, n, n) the similarity of every two regions of each piece.
        owner: (p, n) the annotation of each.
        label: (p, n) the label of each.

    Returns:
        (p, n) the first region of the object of each.
    """
    size = owner.shape[1]
    ways = _partitions(size)
    a, b = np.triu_indices(size, 1)
    together = (ways[:, a] == ways[:, b]).astype(np.float64)
    first = np.argmax(ways[:, :, None] == ways[:, None, :], axis=2)
    best = np.empty(owner.shape, dtype=np.int64)
    many = max(1, _CELLS // len(ways))
    for start in range(0, len(owner), many):
        block = slice(start, start + many)
        gain = worth(alike[block], owner[block], label[block], threshold)[:, a, b]
        gain[owner[block][:, a] == owner[block][:, b]] = -_NEVER
        best[block] = first[np.argmax(gain @ together.T, axis=1)]
    return best


@cache
def _partitions(size: int) -> Ints:
    """(P, n) every way to divide n things: the number of the group of each, groups in order of appearance."""
    ways = np.zeros((1, 1), dtype=np.int64)
    for _ in range(size - 1):
        groups = ways.max(axis=1) + 2
        again = np.repeat(np.arange(len(ways)), groups)
        last = np.arange(len(again)) - np.repeat(np.cumsum(groups) - groups, groups)
        ways = np.column_stack([ways[again], last])
    return ways


def divide(alike: Floats, owner: Ints, label: Ints, threshold: float) -> Ints:
    """Divide regions into objects so that the objects' regions have most in common.

    Args:
        alike: (n, n) the similarity of every two regions.
        owner: (n,) the annotation of each.
        label: (n,) the label of each.
        threshold: the least similarity at which two regions may be one object.

    Returns:
        (n,) the first region of the object of each.
    """
    gain = worth(alike, owner, label, threshold)
    turns = [np.flatnonzero(owner == one) for one in dict.fromkeys(owner.tolist())]
    # Where the turns begin decides where they end; of two annotations, any order ends at the best.
    starts = range(1 if len(turns) == 2 else min(len(turns), _STARTS))
    found = [_in_turns(gain, turns[first:] + turns[:first]) for first in starts]
    unit = max(found, key=lambda one: one[1])[0]
    order = np.full(len(owner), len(owner))
    np.minimum.at(order, unit, np.arange(len(owner)))
    return order[unit]


def worth(alike: Floats, owner: Ints, label: Ints, threshold: float) -> Floats:
    """What two regions in one object add to the sum; 0 of one annotation, whose regions never meet.

    Args:
        alike: (..., n, n) the similarity of every two regions.
        owner, label: (..., n) the annotation and the label of each.
        threshold: the least similarity at which two regions may be one object.

    Returns:
        (..., n, n) multiples of 1 / `_GRID`.
    """
    bonus = LABEL_BONUS * (label[..., :, None] == label[..., None, :])
    gain = np.where(alike >= threshold, alike + bonus, alike - threshold)
    gain[owner[..., :, None] == owner[..., None, :]] = 0
    return np.asarray(np.rint(gain * _GRID) / _GRID)


def _in_turns(gain: Floats, turns: list[Ints]) -> tuple[Ints, float]:
    """Assign one annotation's regions after the other, over and over until the sum stays; returns it too."""
    from scipy.optimize import linear_sum_assignment

    n = len(gain)
    unit, most = np.full(n, -1), -np.inf
    inside = np.zeros((n, n))
    for _ in range(_ROUNDS):
        for mine in turns:
            inside[mine] = 0
            worths = gain[mine] @ inside
            # An object that is empty is worth nothing and always free: who stays alone takes one.
            worths[(worths <= 0) & inside.any(axis=0)] = -1
            rows, columns = linear_sum_assignment(worths, maximize=True)
            unit[mine[rows]] = columns
            inside[mine[rows], columns] = 1
        total = float((gain * (inside @ inside.T)).sum()) / 2
        if total <= most:
            break
        most = total
    return unit, most
