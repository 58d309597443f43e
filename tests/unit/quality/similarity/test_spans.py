"""Spans against sets of positions, tracks frame by frame."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely import affinity

from connector.quality.similarity import (
    Ragged,
    ragged,
    span_iou,
    span_set_iou,
    token_spans,
    track_frames,
    track_iou,
)

Span = tuple[int, int]
Keyframe = tuple[int, ...]
Boxes = dict[int, list[float]]

span = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda ends: (min(ends), max(ends)))
spans = st.lists(span, max_size=5)


def positions(*each: Span) -> set[int]:
    return {place for first, last in each for place in range(first, last)}


def iou(a: set[int], b: set[int], otherwise: bool) -> float:
    return len(a & b) / len(a | b) if a | b else float(otherwise)


@pytest.mark.parametrize("scale", [1, 0.25])
@given(st.lists(st.tuples(span, span), min_size=1, max_size=5))
def test_spans_share_positions(scale: float, pairs: list[tuple[Span, Span]]) -> None:
    a, b = np.array(pairs).transpose(1, 0, 2) * scale
    expected = [iou(positions(one), positions(other), one == other) for one, other in pairs]
    assert span_iou(a, b) == pytest.approx(expected, abs=1e-9)
    assert span_iou(b, a) == pytest.approx(expected, abs=1e-9)


def test_seconds_are_compared_as_they_are() -> None:
    a, b = np.array([[0.5, 2.0], [0.1, 0.4]]), np.array([[1.0, 3.0], [0.4, 0.7]])
    assert span_iou(a, b) == pytest.approx([1 / 2.5, 0], abs=1e-12)


@given(span, span, st.integers(0, 1), st.integers(0, 1))
def test_in_different_containers_nothing_is_shared(one: Span, other: Span, inside: int, beside: int) -> None:
    a, b = np.array([one]), np.array([other])
    found = span_iou(a, b, (np.array([inside]), np.array([beside])))
    assert found == (span_iou(a, b) if inside == beside else 0)


def test_containers_may_have_names() -> None:
    a = np.array([[0, 4], [0, 4], [2, 2]])
    assert span_iou(a, a, (np.array(["p", "p", "p"]), np.array(["p", "q", "q"]))).tolist() == [1, 0, 0]


@pytest.mark.parametrize("scale", [1, 0.25])
@given(st.lists(st.tuples(spans, spans), min_size=1, max_size=4))
def test_sets_of_spans_share_positions(scale: float, pairs: list[tuple[list[Span], list[Span]]]) -> None:
    a, b = (ragged([np.array(p[side]) * scale for p in pairs], type(scale), 2) for side in (0, 1))
    expected = [iou(positions(*one), positions(*other), sorted(one) == sorted(other)) for one, other in pairs]
    assert span_set_iou(a, b) == pytest.approx(expected, abs=1e-9)
    assert span_set_iou(b, a) == pytest.approx(expected, abs=1e-9)
    assert (span_set_iou(a, a) == 1).all()


def test_the_order_of_a_set_does_not_matter_nor_what_two_of_it_cover() -> None:
    a = ragged([[(0, 4), (8, 10)], [(3, 3), (5, 5)], [(0, 6), (2, 4)]], np.int64, 2)
    b = ragged([[(8, 10), (0, 4)], [(5, 5), (3, 3)], [(0, 3), (3, 6)]], np.int64, 2)
    assert span_set_iou(a, b).tolist() == [1, 1, 1]


@st.composite
def tokenized(draw: st.DrawFn) -> list[Span]:
    """Tokens with gaps between them or none."""
    ends = np.cumsum(draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), max_size=5)))
    return list(zip(ends[::2].tolist(), ends[1::2].tolist(), strict=True))


@given(st.lists(tokenized(), min_size=1, max_size=4), st.data())
def test_a_span_has_the_tokens_that_it_touches(texts: list[list[Span]], data: st.DataObject) -> None:
    some = st.tuples(st.integers(0, 25), st.integers(0, 4)).map(lambda at: (at[0], at[0] + at[1]))
    asked = data.draw(st.lists(st.tuples(some, st.integers(0, len(texts) - 1)), max_size=6))
    found = token_spans(
        np.array([one for one, _ in asked], dtype=np.int64).reshape(-1, 2),
        np.array([text for _, text in asked], dtype=np.int64),
        ragged(texts, np.int64, 2),
    )
    assert found.shape == (len(asked), 2)
    for ((start, end), text), (first, after) in zip(asked, found.tolist(), strict=True):
        touched = [i for i, token in enumerate(texts[text]) if positions(token) & positions((start, end))]
        assert list(range(first, after)) == touched
        assert 0 <= first <= after <= len(texts[text])


box = st.tuples(st.integers(-20, 20), st.integers(-20, 20), st.integers(0, 20), st.integers(0, 20))


@st.composite
def track(draw: st.DrawFn) -> list[Keyframe]:
    # Up to 13 times 50 degrees are never a half turn apart, where both ways are as short.
    frames = sorted(draw(st.sets(st.integers(0, 12), max_size=4)))
    return [(frame, draw(st.integers(0, 1)), *draw(box), 50 * draw(st.integers(0, 13))) for frame in frames]


def played(track: list[Keyframe], last: int) -> Boxes:
    """The boxes seen, frame by frame."""
    seen: Boxes = {}
    for frame in range(max([last, *(key[0] for key in track)]) + 1):
        before = [key for key in track if key[0] <= frame]
        after = [key for key in track if key[0] > frame]
        if not before or (before[-1][0] != frame and not before[-1][1]):
            continue
        key, following = before[-1], after[0] if after else before[-1]
        share = (frame - key[0]) / (following[0] - key[0]) if after else 0
        change = [new - old for old, new in zip(key[2:], following[2:], strict=True)]
        change[4] = min((change[4] + 360 * turns for turns in range(-3, 4)), key=abs)
        seen[frame] = [old + share * by for old, by in zip(key[2:], change, strict=True)]
    return seen


def tracks(*each: list[Keyframe]) -> Ragged:
    return ragged(each, width=7)


@given(st.lists(track(), min_size=1, max_size=4), st.integers(0, 16))
def test_a_track_is_seen_where_it_is_played(drawn: list[list[Keyframe]], last: int) -> None:
    boxes, offsets = track_frames(tracks(*drawn), np.full(len(drawn), last))
    assert len(offsets) == len(drawn) + 1
    for one, (first, after) in zip(drawn, pairwise(offsets), strict=True):
        expected = played(one, last)
        assert boxes[first:after, 0].tolist() == list(expected)
        assert boxes[first:after, 1:] == pytest.approx(
            np.array(list(expected.values())).reshape(-1, 5), abs=1e-9
        )


def test_each_video_has_its_own_end() -> None:
    key = [(2, 1, 0, 0, 1, 1, 0)]
    frames, offsets = track_frames(tracks(key, key, key), np.array([5, 0, 2]))
    assert [part.tolist() for part in np.split(frames[:, 0], offsets[1:-1])] == [[2, 3, 4, 5], [2], [2]]


@pytest.mark.parametrize(
    ("start", "end", "quarter"), [(-170, 170, -175), (170, -170, 175), (0, 180, 45), (0, -180, 45)]
)
def test_a_box_turns_as_in_the_editor(start: int, end: int, quarter: int) -> None:
    # The first two are the example of the editor's `interpolateProp`; a half turn goes clockwise there.
    keys = [(0, 1, 0, 0, 1, 1, start), (20, 1, 0, 0, 1, 1, end)]
    assert track_frames(tracks(keys), np.array([20]))[0][5, 5] == pytest.approx(quarter, abs=1e-9)


def drawn_box(x: float, y: float, width: float, height: float, degrees: float) -> shapely.Geometry:
    return affinity.rotate(shapely.box(x, y, x + width, y + height), degrees, origin=(x, y))


def expected_iou(a: list[Keyframe], b: list[Keyframe], last: int) -> float:
    sides = [{frame: drawn_box(*at) for frame, at in played(one, last).items()} for one in (a, b)]
    shared = sum(sides[0][frame].intersection(sides[1][frame]).area for frame in sides[0].keys() & sides[1])
    whole = sum(seen.area for side in sides for seen in side.values()) - shared
    return shared / whole if whole > 0 else float(a == b)


@given(st.lists(st.tuples(track(), track(), st.integers(0, 16)), min_size=1, max_size=3))
def test_tracks_share_areas_summed_over_frames(
    drawn: list[tuple[list[Keyframe], list[Keyframe], int]],
) -> None:
    a, b = (tracks(*(each[side] for each in drawn)) for side in (0, 1))
    last = np.array([each[2] for each in drawn])
    found = track_iou(a, b, last)
    assert found == pytest.approx([expected_iou(*each) for each in drawn], abs=1e-7)
    assert track_iou(b, a, last) == pytest.approx(found, abs=1e-9)
    assert track_iou(a, a, last) == pytest.approx(np.ones(len(drawn)), abs=1e-9)


def test_a_frame_in_which_one_track_is_not_seen_has_nothing_in_common() -> None:
    still: list[Keyframe] = [(0, 1, 0, 0, 10, 10, 0)]
    hidden: list[Keyframe] = [(0, 1, 0, 0, 10, 10, 0), (3, 0, 0, 0, 10, 10, 0), (8, 1, 5, 0, 10, 10, 0)]
    # The second is seen in frames 0 to 3 and, half of it, in 8 and 9; the first in all ten.
    a, b = tracks(still, still, []), tracks(hidden, [], [])
    assert track_iou(a, b, np.array([9, 9, 9])) == pytest.approx([500 / 1100, 0, 1], abs=1e-12)


def test_more_videos_than_are_worked_on_at_once_are_as_alike_as_one() -> None:
    one: list[Keyframe] = [(0, 1, 0, 0, 8, 8, 0), (40, 1, 20, 0, 8, 8, 100)]
    other: list[Keyframe] = [(10, 1, 0, 0, 9, 9, 0), (30, 0, 20, 0, 8, 8, 50)]
    found = track_iou(tracks(*[one] * 1500), tracks(*[other] * 1500), np.full(1500, 100))
    assert found == pytest.approx(np.full(1500, expected_iou(one, other, 100)), abs=1e-7)
