"""Masks against pycocotools, and pixel by pixel as the papers define."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as coco
from scipy import ndimage

from connector.quality.similarity import (
    Ragged,
    boundary_f,
    boundary_iou,
    from_pixels,
    mask_dice,
    mask_iou,
    ragged,
    rasterize,
    take,
    to_pixels,
)

Pixels = NDArray[np.bool_]
Corners = list[tuple[float, float]]

SQUARE = np.ones((3, 3))


@st.composite
def pairs(draw: st.DrawFn) -> Pixels:
    """(2, height, width) two masks of one picture, made of blocks, the second one moved."""
    height, width = draw(array_shapes(min_dims=2, max_dims=2, max_side=7))
    a, b = np.kron(draw(arrays(bool, (2, height, width))), np.ones((1, *draw(sides)), dtype=bool))
    return np.stack([a, np.roll(b, draw(sides), axis=(0, 1))])


sides = st.tuples(st.integers(1, 5), st.integers(1, 5))
several = st.lists(pairs(), min_size=1, max_size=4)


def runs(masks: list[Pixels]) -> tuple[Ragged, Ragged, NDArray[np.int64]]:
    a, b = (ragged([from_pixels(pair[side]) for pair in masks], np.int64, 2) for side in (0, 1))
    return a, b, np.array([pair.shape[:0:-1] for pair in masks])


def pixels(masks: Ragged, pictures: list[tuple[int, int]]) -> list[Pixels]:
    return [to_pixels(take(masks, [i])[0], *picture) for i, picture in enumerate(pictures)]


def share(part: float, whole: float) -> float:
    return part / whole if whole else 1


def edge_f(a: Pixels, b: Pixels, tolerance: float) -> float:
    near = tolerance * np.hypot(*a.shape)
    edges = [mask & ~ndimage.binary_erosion(mask, SQUARE) for mask in (a, b)]
    if not all(edge.any() for edge in edges):
        return float(not any(edge.any() for edge in edges))
    precision, recall = (
        (ndimage.distance_transform_edt(~other)[edge] <= near).mean() for edge, other in (edges, edges[::-1])
    )
    return 2 * precision * recall / (precision + recall) if precision + recall else 0


def band_iou(a: Pixels, b: Pixels, thickness: float) -> float:
    deep = max(1, round(thickness * np.hypot(*a.shape)))
    a, b = (mask & ~ndimage.binary_erosion(mask, SQUARE, iterations=deep) for mask in (a, b))
    return share((a & b).sum(), (a | b).sum())


@given(several)
def test_iou_and_dice_are_pycocotools_and_empty_masks_are_alike(masks: list[Pixels]) -> None:
    a, b, _ = runs(masks)
    iou, dice = mask_iou(a, b), mask_dice(a, b)
    for i, pair in enumerate(masks):
        theirs = [coco.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in pair]
        expected = coco.iou([theirs[0]], [theirs[1]], [0])[0, 0] if pair.any() else 1
        assert iou[i] == pytest.approx(expected, abs=1e-9)
        assert dice[i] == pytest.approx(share(2 * (pair[0] & pair[1]).sum(), pair.sum()), abs=1e-9)


# No tolerance is the distance of two pixels of any picture that is drawn: there, rounding would decide.
@given(several, st.sampled_from([0, 0.0075, 0.0613, 0.1234, 0.3217]))
def test_boundary_f_matches_edge_pixels_within_the_tolerance(masks: list[Pixels], tolerance: float) -> None:
    expected = [edge_f(*pair, tolerance) for pair in masks]
    assert boundary_f(*runs(masks), tolerance) == pytest.approx(expected, abs=1e-9)


@given(several, st.sampled_from([0.001, 0.02, 0.06, 0.15, 0.9]))
def test_boundary_iou_compares_what_erosions_take_away(masks: list[Pixels], thickness: float) -> None:
    expected = [band_iou(*pair, thickness) for pair in masks]
    assert boundary_iou(*runs(masks), thickness) == pytest.approx(expected, abs=1e-9)


def test_the_default_tolerance_and_thickness_are_those_of_the_papers() -> None:
    # On a picture of 320 x 240 with a diagonal of 400: 3 pixels, and bands of 8 pixels.
    disc = np.hypot(*np.ogrid[-120:120, -160:160]) < 70
    for down, right in [(3, 0), (2, 2), (0, 4), (9, 5)]:
        pair = np.stack([disc, np.roll(disc, (down, right), axis=(0, 1))])
        assert boundary_f(*runs([pair])) == pytest.approx([edge_f(*pair, 0.0075)], abs=1e-9)
        assert boundary_iou(*runs([pair])) == pytest.approx([band_iou(*pair, 0.02)], abs=1e-9)


def test_an_edge_as_far_away_as_the_tolerance_is_near() -> None:
    # The diagonal is 50, and a dot 3 to the right and 4 down is 5 away.
    pair = np.zeros((2, 30, 40), dtype=bool)
    pair[0, 10, 10] = pair[1, 14, 13] = True
    assert boundary_f(*runs([pair]), 0.1) == [1]
    assert boundary_f(*runs([pair]), 0.0999) == [0]


def test_the_border_of_the_picture_is_an_edge() -> None:
    whole = np.ones((20, 30), dtype=bool)
    frame = whole.copy()
    frame[1:-1, 1:-1] = False
    pair = runs([np.stack([whole, frame])])
    assert mask_iou(*pair[:2]) == pytest.approx([96 / 600])
    assert boundary_f(*pair, 0) == [1]
    assert boundary_iou(*pair, 0.02) == [1]


def alike(masks: list[Pixels]) -> NDArray[np.float64]:
    a, b, pictures = runs(masks)
    return np.array(
        [mask_iou(a, b), mask_dice(a, b), boundary_f(a, b, pictures), boundary_iou(a, b, pictures)]
    )


@given(several)
def test_masks_are_alike_both_ways_all_at_once_or_one_by_one_and_wholly_with_themselves(
    masks: list[Pixels],
) -> None:
    found = alike(masks)
    assert ((found >= 0) & (found <= 1)).all()
    assert alike([pair[::-1] for pair in masks]) == pytest.approx(found, abs=1e-12)
    assert np.concatenate([alike([pair]) for pair in masks], axis=1) == pytest.approx(found, abs=1e-12)
    assert (alike([pair[[0, 0]] for pair in masks]) == 1).all()


@given(pairs().map(lambda pair: pair[:1]))
def test_an_empty_mask_is_like_an_empty_one_and_like_no_other(mask: Pixels) -> None:
    nothing = np.zeros_like(mask)
    found = alike([np.concatenate(pair) for pair in ((mask, nothing), (nothing, mask), (nothing, nothing))])
    assert (found == [not mask.any(), not mask.any(), True]).all()


def test_more_pairs_than_are_worked_on_at_once_are_as_alike_as_one() -> None:
    disc = np.hypot(*np.ogrid[-15:15, -20:20]) < 9
    pair = np.stack([disc, np.roll(disc, 2)])
    a, b, pictures = (
        np.tile(side[0] if isinstance(side, tuple) else side, (3000, 1)) for side in runs([pair])
    )
    offsets = [np.arange(3001) * (len(side) // 3000) for side in (a, b)]
    for compared, single in ((boundary_f, edge_f(*pair, 0.05)), (boundary_iou, band_iou(*pair, 0.05))):
        found = compared((a, offsets[0]), (b, offsets[1]), pictures, 0.05)
        assert found == pytest.approx(np.full(3000, single), abs=1e-9)


corner = st.tuples(st.integers(-8, 60), st.integers(-8, 60)).map(lambda at: (at[0] / 4, at[1] / 4))
polygon = st.lists(corner, max_size=7)
picture = st.tuples(st.integers(1, 14), st.integers(1, 14))


def wound(corners: Corners, width: int, height: int) -> Pixels:
    """Around which pixel centres a polygon winds; in eighths of a pixel, so that nothing is rounded."""
    points = [tuple(round(8 * c) for c in corner) for corner in corners]
    y, x = np.mgrid[4 : 8 * height : 8, 4 : 8 * width : 8]
    winding = np.zeros((height, width), dtype=int)
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        side = (x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)
        winding += (y0 <= y) & (y < y1) & (side >= 0)
        winding -= (y1 <= y) & (y < y0) & (side <= 0)
    return winding != 0


@given(st.lists(st.tuples(polygon, picture), min_size=1, max_size=4))
@example([([(0, -3), (27, 10), (0, 10)], (14, 14))])  # passes right through a centre
@settings(max_examples=300)
def test_a_polygon_sets_the_pixels_whose_centres_it_winds_around(
    drawn: list[tuple[Corners, tuple[int, int]]],
) -> None:
    corners, sizes = zip(*drawn, strict=True)
    found = pixels(rasterize(ragged(corners, width=2), np.array(sizes)), sizes)
    for mask, points, size in zip(found, corners, sizes, strict=True):
        assert (mask == wound(points, *size)).all()


@pytest.mark.parametrize("clockwise", [1, -1])
def test_a_centre_on_an_edge_belongs_to_what_is_right_or_below(clockwise: int) -> None:
    square = [(1.5, 1.5), (3.5, 1.5), (3.5, 3.5), (1.5, 3.5)][::clockwise]
    expected = np.zeros((6, 5), dtype=bool)
    expected[1:3, 1:3] = True
    (found,) = pixels(rasterize(ragged([square], width=2), np.array([[5, 6]])), [(5, 6)])
    assert (found == expected).all()


@given(
    st.sampled_from([1, 3, 7, 10]), st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24)), max_size=4)
)
@example(3, [(0, 2), (12, 22)])
@example(3, [(7, 5), (0, 12)])
@example(3, [(24, 6), (2, 20)])
def test_two_polygons_with_a_common_edge_share_no_pixel_and_leave_none_out(
    parts: int, corners: list[tuple[int, int]]
) -> None:
    # Thirds and tenths have no exact floats: an edge through a centre is rounded to one side of it.
    inner = [(x / parts, y / parts) for x, y in sorted(corners, key=lambda at: at[1])]
    cut = [(4, 0), *inner, (4, 24)]
    left, right = [(0, 0), *cut, (0, 24)], [(24, 24), *cut[::-1], (24, 0)]
    one, other = pixels(rasterize(ragged([left, right], width=2), np.full((2, 2), 24)), [(24, 24)] * 2)
    assert (one != other).all()


def test_what_lies_outside_the_picture_is_cut_off() -> None:
    around = [(-1e9, -1e9), (1e9, -1e9), (1e9, 1e9), (-1e9, 1e9)]
    beside = [(9, 0), (12, 0), (12, 9), (9, 9)]
    values, offsets = rasterize(ragged([around, [], beside, around], width=2), np.array([[7, 5]] * 4))
    assert values.tolist() == [[0, 35], [0, 35]]
    assert offsets.tolist() == [0, 1, 1, 1, 2]
