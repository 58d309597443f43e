"""Rows of unequal length, kept as one array.

A ragged array is `(values, offsets)`: row i is `values[offsets[i] : offsets[i + 1]]`. `offsets` is int64, has
one entry more than there are rows, starts with 0 and ends with `len(values)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from connector.quality.interval import Floats, Ints

Values = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Ragged = tuple[Values, Ints]

BLOCK = 1 << 18
"""Values worked on at once: few enough to stay in the processor's cache, enough to be worth a call."""


def ragged(rows: Sequence[npt.ArrayLike], dtype: npt.DTypeLike = np.float64, width: int = 0) -> Ragged:
    """Rows put after one another.

    Args:
        rows: each (p,), or (p, width); a row may be empty.
        dtype: of the values.
        width: columns of a row; 0 where its values are plain numbers.
    """
    shape = (-1, width) if width else (-1,)
    arrays = [np.asarray(row, dtype=dtype).reshape(shape) for row in rows]
    values = np.concatenate(arrays) if arrays else np.zeros((0, width) if width else 0, dtype=dtype)
    return values, offsets_of([len(array) for array in arrays])


def offsets_of(lengths: npt.ArrayLike) -> Ints:
    """(n + 1,) where rows of these lengths begin, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]).astype(np.int64)


def row_of(offsets: Ints) -> Ints:
    """(m,) the row that each value belongs to."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def place_in_row(offsets: Ints) -> Ints:
    """(m,) the position of each value in its row, from 0."""
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))


def take(rows: Ragged, index: npt.ArrayLike) -> Ragged:
    """Some rows, in the order asked for and as often: how a caller writes down the sides of its pairs."""
    values, offsets = rows
    index = np.asarray(index, dtype=np.int64)
    made = offsets_of(np.diff(offsets)[index])
    return values[place_in_row(made) + np.repeat(offsets[index], np.diff(made))], made


def part(rows: Ragged, block: slice) -> Ragged:
    """The rows of a block, without a copy."""
    values, offsets = rows
    bounds = offsets[block.start : block.stop + 1]
    return values[bounds[0] : bounds[-1]], bounds - bounds[0]


def blocks(*offsets: Ints, most: int = BLOCK) -> Iterator[slice]:
    """Consecutive rows with about `most` values on all sides together; at least one row each."""
    ends = sum(offsets[1:], start=offsets[0])
    first, n = 0, len(ends) - 1
    while first < n:
        last = max(first + 1, int(np.searchsorted(ends, ends[first] + most, side="right")) - 1)
        yield slice(first, last)
        first = last


def sums(values: Values, row: Ints, n: int) -> Floats:
    """(n,) the sum of the values of each row; 0 for an empty one."""
    return np.bincount(row, values, n).astype(np.float64, copy=False)


def pairs_within(group: Ints) -> tuple[Ints, Ints]:
    """Every two rows of a group, the earlier first.

    Args:
        group: (n,) never falling.
    """
    n = len(group)
    many = np.searchsorted(group, group, side="right") - np.arange(n) - 1
    i = np.repeat(np.arange(n), many)
    return i, np.arange(len(i)) - np.repeat(np.cumsum(many) - many, many) + i + 1


def equal_rows(a: Ragged, b: Ragged) -> Bools:
    """(n,) whether two rows hold the same values in the same order."""
    lengths = np.diff(a[1])
    same: Bools = lengths == np.diff(b[1])
    index = np.flatnonzero(same)
    if len(index) and lengths[index].any():
        one, bounds = take(a, index)
        differ = one != take(b, index)[0]
        same[index] = sums(differ.reshape(len(one), -1).any(axis=1), row_of(bounds), len(index)) == 0
    return same


def ratio(part_of: Floats, whole: Floats, otherwise: npt.NDArray[Any]) -> Floats:
    """(n,) `part_of / whole`, clipped to [0, 1]; where there is no whole, `otherwise`.

    Everything in this package is a share of something: with nothing to share, two rows are alike (1) if they
    are the same and else not (0).
    """
    share = np.divide(part_of, whole, out=np.asarray(otherwise, dtype=np.float64).copy(), where=whole > 0)
    return np.clip(share, 0.0, 1.0)
