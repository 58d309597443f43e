"""Ragged rows and covered intervals, against plain lists and pixels."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.quality.similarity.cover import covered, overlap
from connector.quality.similarity.rows import (
    Ragged,
    blocks,
    equal_rows,
    offsets_of,
    pairs_within,
    part,
    place_in_row,
    ragged,
    ratio,
    row_of,
    sums,
    take,
)

lists = st.lists(st.lists(st.integers(-3, 3), max_size=4), max_size=6)
interval = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(sorted)
piece = st.tuples(st.lists(interval, max_size=4), st.integers(-2, 3))


def as_lists(rows: Ragged) -> list[list[int]]:
    values, offsets = rows
    return [values[first:last].tolist() for first, last in pairwise(offsets)]


@given(lists)
def test_rows_put_together_come_apart_again(rows: list[list[int]]) -> None:
    values, offsets = ragged(rows, np.int64)
    assert as_lists((values, offsets)) == rows
    assert (values.dtype, offsets.dtype, offsets[0], offsets[-1]) == (np.int64, np.int64, 0, len(values))
    assert row_of(offsets).tolist() == [i for i, row in enumerate(rows) for _ in row]
    assert place_in_row(offsets).tolist() == [place for row in rows for place in range(len(row))]


def test_rows_of_points_keep_their_columns() -> None:
    values, offsets = ragged([[(1, 2), (3, 4)], [], [(5, 6)]], width=2)
    assert values.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert offsets.tolist() == [0, 2, 2, 3]
    assert ragged([], width=2)[0].shape == ragged([[]], width=2)[0].shape == (0, 2)
    assert ragged([])[1].tolist() == offsets_of([]).tolist() == [0]


@given(lists.filter(bool), st.data())
def test_rows_are_taken_in_the_order_asked_for_and_as_often(
    rows: list[list[int]], data: st.DataObject
) -> None:
    index = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    assert as_lists(take(ragged(rows, np.int64), index)) == [rows[i] for i in index]


@given(lists, st.integers(0, 6), st.integers(0, 6))
def test_a_part_is_a_slice_of_the_rows(rows: list[list[int]], first: int, last: int) -> None:
    block = slice(min(first, len(rows)), min(max(first, last), len(rows)))
    assert as_lists(part(ragged(rows, np.int64), block)) == rows[block]


@given(lists, st.integers(1, 8))
def test_blocks_go_through_all_rows_and_hold_one_long_row_or_no_more_than_asked(
    rows: list[list[int]], most: int
) -> None:
    offsets = ragged(rows)[1]
    found = list(blocks(offsets, offsets, most=most))
    assert [i for block in found for i in range(block.start, block.stop)] == list(range(len(rows)))
    for block in found:
        assert block.stop == block.start + 1 or 2 * sum(map(len, rows[block])) <= most


@given(st.lists(st.integers(0, 4), max_size=8).map(sorted))
def test_pairs_are_all_twos_of_a_group(group: list[int]) -> None:
    expected = [(i, j) for i, j in combinations(range(len(group)), 2) if group[i] == group[j]]
    i, j = pairs_within(np.array(group, dtype=np.int64))
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == expected


@given(st.lists(st.tuples(*[st.lists(st.integers(0, 1), max_size=3)] * 2), max_size=8))
def test_rows_are_equal_as_lists_are(pairs: list[tuple[list[int], list[int]]]) -> None:
    a, b = ([pair[side] for pair in pairs] for side in (0, 1))
    found = equal_rows(ragged(a, np.int64), ragged(b, np.int64))
    assert found.tolist() == [one == other for one, other in pairs]


def test_rows_of_points_are_equal_if_every_column_is() -> None:
    a, b = [[(1, 2)], [(1, 2)], [], [(0, 0), (1, 1)]], [[(1, 2)], [(1, 3)], [], [(1, 1), (0, 0)]]
    assert equal_rows(ragged(a, width=2), ragged(b, width=2)).tolist() == [True, False, True, False]


def test_the_values_of_each_row_are_summed_and_empty_rows_are_0() -> None:
    assert sums(np.array([1, 2, 4]), np.array([0, 2, 2]), 4).tolist() == [1, 0, 6, 0]


def test_a_share_is_clipped_and_without_a_whole_it_is_what_was_said() -> None:
    part_of, whole = np.array([1.0, 3, -1, 5, 5]), np.array([4.0, 2, 2, 0, 0])
    assert ratio(part_of, whole, np.array([0, 0, 0, 1, 0])).tolist() == [0.25, 1, 0, 1, 0]


@given(st.lists(piece, min_size=1, max_size=3), st.integers(1, 4))
def test_what_is_covered_is_where_pixels_are_deep_enough(
    pieces: list[tuple[list[list[int]], int]], least: int
) -> None:
    depth = np.zeros(12, dtype=int)
    for intervals, by in pieces:
        for first, last in intervals:
            depth[first:last] += by
    parts = [(np.array(each, dtype=np.int64).reshape(-1, 2), by) for each, by in pieces]
    found = covered(parts, least)
    assert [pixel for first, last in found for pixel in range(first, last)] == np.flatnonzero(
        depth >= least
    ).tolist()
    # Apart from one another, and none empty.
    assert (np.diff(found.ravel()) > 0).all()


@pytest.mark.parametrize("scale", [1, 0.25])
@given(st.lists(st.tuples(*[st.lists(interval, max_size=4)] * 2), max_size=4))
def test_overlap_is_the_pixels_on_both_sides_and_on_either(
    scale: float, rows: list[tuple[list[list[int]], list[list[int]]]]
) -> None:
    # Powers of two, so that floats are exact.
    a, b = (ragged([np.array(row[side]) * scale for row in rows], type(scale), 2) for side in (0, 1))
    pixels = [[{p for first, last in side for p in range(first, last)} for side in row] for row in rows]
    both, either = overlap(a, b)
    assert both.tolist() == [len(one & other) * scale for one, other in pixels]
    assert either.tolist() == [len(one | other) * scale for one, other in pixels]
