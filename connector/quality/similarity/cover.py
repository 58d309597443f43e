"""Where intervals on a line lie over each other. Masks, spans and segments are all sets of intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from connector.quality.interval import Floats, Ints
from connector.quality.similarity.rows import Bools, Ragged, Values, blocks, part, row_of, sums


def overlap(a: Ragged, b: Ragged) -> tuple[Floats, Floats]:
    """Length that lies on both sides, and length that lies on either.

    Args:
        a, b: n rows of intervals, (k, 2) start and end, end excluded, in any order; integers or floats. What
            several intervals of one row cover counts once.

    Returns:
        (n,) intersections and (n,) unions.
    """
    n = len(a[1]) - 1
    both, either = np.zeros(n), np.zeros(n)
    for rows in blocks(a[1], b[1]):
        both[rows], either[rows] = _overlap(part(a, rows), part(b, rows))
    return both, either


def _overlap(a: Ragged, b: Ragged) -> tuple[Floats, Floats]:
    sides = [(side, row_of(offsets)) for side, offsets in (a, b)]
    place = np.concatenate([side[:, end] for end in (0, 1) for side, _ in sides])
    row = np.concatenate([row for _ in (0, 1) for _, row in sides])
    m, k = len(sides[0][1]), len(sides[1][1])
    order = _order(row, place)
    length, row = np.diff(place[order]), row[order[:-1]]
    on_a, on_b = (
        np.cumsum(np.repeat(changes, [m, k, m, k]).astype(np.int8)[order], dtype=np.int32)[:-1] > 0
        for changes in ([1, 0, -1, 0], [0, 1, 0, -1])
    )
    n = len(a[1]) - 1
    # After a row's last end nothing is on, so the step to the next row counts nothing.
    return sums(length * (on_a & on_b), row, n), sums(length * (on_a | on_b), row, n)


def _order(row: Ints, place: Values) -> Ints:
    """The order by row, then place."""
    if place.dtype.kind == "i" and len(place):
        low = place.min()
        # One whole number for both; a stable sort merges what is sorted already, as runs are.
        key: Ints = row * (place.max() - low + 1) + (place - low)
        by_key: Ints = np.argsort(key, kind="stable")
        return by_key
    by_both: Ints = np.lexsort((place, row))
    return by_both


def levels(place: Ints, change: Ints) -> tuple[Ints, Ints]:
    """The sum of all changes up to and with each place: (k,) places in order, each once; (k,) sums."""
    order = np.argsort(place, kind="stable")
    place, level = place[order], np.cumsum(change[order])
    last = np.ones(len(place), dtype=bool)
    last[:-1] = place[1:] != place[:-1]
    return place[last], level[last]


def intervals(place: Ints, inside: Bools) -> Ints:
    """(k, 2) the longest intervals that are inside.

    Args:
        place: (m,) ascending.
        inside: (m,) whether it is inside from there to the next place; not from the last.
    """
    turns = np.flatnonzero(np.diff(inside, prepend=False))
    return place[turns].reshape(-1, 2)


def covered(parts: list[tuple[npt.NDArray[Any], int]], least: int) -> Ints:
    """Where intervals lie at least so deep.

    Args:
        parts: intervals (k, 2) of whole numbers, end excluded, and by how much each of them deepens.
        least: the depth asked for, at least 1.

    Returns:
        (k, 2) intervals, ascending, apart from one another.
    """
    place = np.concatenate([piece[:, end] for end in (0, 1) for piece, _ in parts])
    depth = np.concatenate([np.full(len(piece), sign * by) for sign in (1, -1) for piece, by in parts])
    place, level = levels(place, depth)
    return intervals(place, level >= least)
