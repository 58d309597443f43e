"""Shapes against shapely and pycocotools, by exact cases, and by their invariants."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco
from pycocotools.cocoeval import COCOeval, Params
from shapely import affinity

from connector.quality.similarity import (
    box_iou,
    ellipse_iou,
    line_distance,
    line_similarity,
    oks,
    point_distance,
    polygon_dice,
    polygon_iou,
    ragged,
    rotated_box_iou,
    upright_box_iou,
)

Floats = NDArray[np.float64]

place = st.floats(-50, 100)
side = st.floats(0.01, 100)
angle = st.floats(-720, 720)
upright = st.tuples(place, place, side, side)
turned = st.tuples(place, place, side, side, angle)
ellipse = st.tuples(place, place, st.floats(1, 50), st.floats(1, 50), angle)
corner = st.tuples(st.integers(0, 12), st.integers(0, 12))
polygon = st.lists(corner, min_size=3, max_size=8)
line = st.lists(st.tuples(place, place), min_size=1, max_size=6)

PICTURE = np.array([[640, 480]])


def rows(
    count: int, *shape: st.SearchStrategy[tuple[float, ...]]
) -> st.SearchStrategy[list[tuple[float, ...]]]:
    return st.lists(st.tuples(*shape), min_size=1, max_size=count)


def sides(pairs: list[tuple[tuple[float, ...], tuple[float, ...]]]) -> tuple[Floats, Floats]:
    return np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])


def shapely_iou(p: shapely.Geometry, q: shapely.Geometry) -> float:
    return p.intersection(q).area / p.union(q).area


def turned_box(x: float, y: float, w: float, h: float, degrees: float) -> shapely.Geometry:
    return affinity.rotate(shapely.box(x, y, x + w, y + h), degrees, origin=(x, y))


pairs_of_upright = st.lists(st.tuples(upright, upright), min_size=1, max_size=5)
pairs_of_turned = st.lists(st.tuples(turned, turned), min_size=1, max_size=5)
pairs_of_ellipses = st.lists(st.tuples(ellipse, ellipse), min_size=1, max_size=3)


@given(st.lists(upright, min_size=1, max_size=6), st.lists(upright, min_size=1, max_size=6))
def test_every_pair_of_boxes_is_shapelys(a: list[tuple[float, ...]], b: list[tuple[float, ...]]) -> None:
    found = box_iou(np.array(a), np.array(b))
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            p, q = (shapely.box(x, y, x + w, y + h) for x, y, w, h in (one, other))
            assert found[i, j] == pytest.approx(shapely_iou(p, q), abs=1e-7)


def test_among_all_pairs_a_box_without_area_is_like_nothing() -> None:
    flat = np.array([[1.0, 1.0, 0.0, 5.0]])
    assert box_iou(flat, flat)[0, 0] == 0
    assert box_iou(np.zeros((0, 4)), flat).shape == (0, 1)


@given(pairs_of_upright)
def test_upright_boxes_are_pycocotools(pairs: list[tuple[tuple[float, ...], tuple[float, ...]]]) -> None:
    a, b = sides(pairs)
    assert upright_box_iou(a, b) == pytest.approx(np.diag(coco.iou(a, b, [0] * len(b))), abs=1e-9)


@given(pairs_of_turned)
def test_turned_boxes_are_shapelys(pairs: list[tuple[tuple[float, ...], tuple[float, ...]]]) -> None:
    a, b = sides(pairs)
    expected = [shapely_iou(turned_box(*p), turned_box(*q)) for p, q in pairs]
    assert rotated_box_iou(a, b) == pytest.approx(expected, abs=1e-7)


@given(pairs_of_upright, st.integers(-4, 4))
def test_boxes_turned_by_nothing_or_all_the_way_are_upright(
    pairs: list[tuple[tuple[float, ...], tuple[float, ...]]], turns: int
) -> None:
    a, b = sides(pairs)
    found = rotated_box_iou(np.insert(a, 4, 0.0, axis=1), np.insert(b, 4, 360.0 * turns, axis=1))
    assert found == pytest.approx(upright_box_iou(a, b), abs=1e-9)


def test_a_box_turns_clockwise_about_its_top_left_corner() -> None:
    # Ten wide and two high, a quarter turn about (5, 5): y points down, so it hangs from (5, 5) to the left.
    quarter, hanging = np.array([[5.0, 5, 10, 2, 90]]), np.array([[3.0, 5, 2, 10, 0]])
    assert rotated_box_iou(quarter, hanging) == pytest.approx([1], abs=1e-15)


def test_two_squares_at_45_degrees_share_a_regular_octagon() -> None:
    square, half = np.array([[-1.0, -1, 2, 2, 0]]), np.sqrt(2)
    diamond = np.array([[0.0, -half, 2, 2, 45]])
    octagon = 8 * (np.sqrt(2) - 1)
    assert rotated_box_iou(square, diamond) == pytest.approx([octagon / (8 - octagon)], abs=1e-14)


@given(pairs_of_ellipses)
def test_ellipses_are_polygons_of_many_corners_to_a_thousandth(
    pairs: list[tuple[tuple[float, ...], tuple[float, ...]]],
) -> None:
    def drawn(x: float, y: float, rx: float, ry: float, degrees: float) -> shapely.Geometry:
        circle = shapely.Point(0, 0).buffer(1, quad_segs=512)
        return affinity.translate(
            affinity.rotate(affinity.scale(circle, rx, ry), degrees, origin=(0, 0)), x, y
        )

    a, b = sides(pairs)
    expected = [shapely_iou(drawn(*p), drawn(*q)) for p, q in pairs]
    assert ellipse_iou(a, b) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("apart", [0.0, 0.3, 1.0, 1.9, 2.0, 3.0])
def test_circles_share_the_lens_of_the_closed_formula(apart: float) -> None:
    near = min(apart, 2.0)
    lens = 2 * np.arccos(near / 2) - near / 2 * np.sqrt(4 - near**2)
    a, b = np.array([[0.0, 0, 1, 1, 30]]), np.array([[apart, 0.0, 1, 1, 70]])
    assert ellipse_iou(a, b) == pytest.approx([lens / (2 * np.pi - lens)], abs=2e-4)


@given(st.lists(st.tuples(polygon, polygon), min_size=1, max_size=5))
def test_polygons_are_shapelys_and_may_cross_themselves(
    pairs: list[tuple[list[tuple[int, int]], list[tuple[int, int]]]],
) -> None:
    a, b = (ragged(each, width=2) for each in zip(*pairs, strict=True))
    iou, dice = polygon_iou(a, b), polygon_dice(a, b)
    for i, pair in enumerate(pairs):
        # The area that is wound around: of both directions, what a buffer of nothing leaves.
        p, q = (
            shapely.make_valid(shapely.Polygon(p), method="structure", keep_collapsed=False) for p in pair
        )
        if p.area or q.area:
            assert iou[i] == pytest.approx(shapely_iou(p, q), abs=1e-9)
            assert dice[i] == pytest.approx(2 * p.intersection(q).area / (p.area + q.area), abs=1e-9)
        else:
            assert iou[i] == dice[i] == (pair[0] == pair[1])


def test_a_polygon_that_crosses_itself_has_the_area_a_canvas_fills() -> None:
    bow = [(0, 0), (2, 2), (2, 0), (0, 2)]
    both_wings = [(0, 0), (1, 1), (0, 2)], [(2, 0), (2, 2), (1, 1)]
    assert polygon_iou(ragged([bow, bow], width=2), ragged(both_wings, width=2)) == pytest.approx([0.5, 0.5])
    fifths = np.stack([np.cos(np.arange(5) * 0.4 * np.pi), np.sin(np.arange(5) * 0.4 * np.pi)], axis=1)
    star, inner = fifths[[0, 2, 4, 1, 3]], (3 - np.sqrt(5)) / 2
    # The pentagon in the middle is wound around twice, and counts.
    found = polygon_iou(ragged([-inner * fifths], width=2), ragged([star], width=2))
    assert found == pytest.approx([inner * np.cos(np.pi / 5)])


@pytest.mark.parametrize(
    ("a", "b", "alike"),
    [
        ([], [], 1),
        ([], [(0, 0), (1, 0), (1, 1)], 0),
        ([(0, 0), (1, 0)], [(0, 0), (1, 0)], 1),
        ([(0, 0), (1, 0)], [(0, 0), (2, 0)], 0),
        ([(0, 0), (1, 0), (2, 0)], [(0, 0), (1, 0), (2, 0)], 1),
    ],
)
def test_polygons_without_area_are_alike_if_they_are_the_same(
    a: list[tuple[int, int]], b: list[tuple[int, int]], alike: int
) -> None:
    assert polygon_iou(ragged([a], width=2), ragged([b], width=2)) == [alike]
    assert polygon_dice(ragged([b], width=2), ragged([a], width=2)) == [alike]


@pytest.mark.parametrize(("iou", "size"), [(upright_box_iou, 4), (rotated_box_iou, 5), (ellipse_iou, 5)])
def test_shapes_without_area_are_alike_if_they_are_the_same(iou: type[upright_box_iou], size: int) -> None:
    flat = np.array([1.0, 1, 0, 5, 20])[:size]
    moved, full = flat + [1, 0, 0, 0, 0][:size], np.array([0.0, 0, 9, 9, 0])[:size]
    a, b = np.array([flat, flat, flat, full]), np.array([flat, moved, full, flat])
    assert list(iou(a, b)) == [1, 0, 0, 0]
    assert iou(a[:0], b[:0]).shape == (0,)


@given(pairs_of_turned, st.floats(0.1, 10), place, place)
def test_iou_is_bounded_symmetric_one_with_itself_and_blind_to_scale_and_place(
    pairs: list[tuple[tuple[float, ...], tuple[float, ...]]], scale: float, right: float, down: float
) -> None:
    moved = np.array([scale, scale, scale, scale, 1]), np.array([right, down, 0, 0, 0])
    a, b = sides(pairs)
    for iou, near in ((rotated_box_iou, 1e-6), (ellipse_iou, 1e-6)):
        found = iou(a, b)
        assert ((found >= 0) & (found <= 1)).all()
        assert iou(a, a) == pytest.approx(np.ones(len(a)), abs=1e-9)
        assert iou(b, a) == pytest.approx(found, abs=1e-9)
        assert iou(a * moved[0] + moved[1], b * moved[0] + moved[1]) == pytest.approx(found, abs=near)


def test_the_distance_of_points_is_a_share_of_the_diagonal() -> None:
    a, b = np.array([[0.0, 0], [3, 0]]), np.array([[300.0, 400], [3, 0]])
    assert point_distance(a, b, np.array([[600, 800], [600, 800]])) == pytest.approx([0.5, 0])


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=34, max_size=34), st.floats(1, 1e4))
def test_oks_is_pycocotools(points: list[tuple[float, float]], area: float) -> None:
    a, b = np.array(points[:17]), np.array(points[17:])

    def skeleton(at: Floats) -> dict[str, object]:
        flat = [one for x, y in at for one in (x, y, 2)]
        return {"keypoints": flat, "num_keypoints": 17, "area": area, "bbox": [0, 0, 1, 1], "score": 1}

    judge = COCOeval.__new__(COCOeval)
    judge.params = Params("keypoints")
    judge.params.catIds, judge.params.imgIds = [1], [1]
    judge._gts, judge._dts = {(1, 1): [skeleton(a)]}, {(1, 1): [skeleton(b)]}
    found = oks(a, b, np.sqrt(area), 2 * judge.params.kpt_oks_sigmas).mean()
    assert found == pytest.approx(judge.computeOks(1, 1)[0, 0], abs=1e-9)


def test_oks_without_a_scale_knows_only_the_same_point() -> None:
    assert list(oks(np.zeros((2, 2)), np.array([[0.0, 0], [1, 0]]), 0.0, 0.1)) == [1, 0]


@given(line, line)
def test_the_distance_of_lines_is_shapelys_between_their_samples(
    a: list[tuple[float, float]], b: list[tuple[float, float]]
) -> None:
    def sampled(points: list[tuple[float, float]]) -> shapely.Geometry:
        drawn = shapely.LineString(points * 2 if len(points) == 1 else points)
        return shapely.LineString(
            [drawn.interpolate(share, normalized=True) for share in np.linspace(0, 1, 32)]
        )

    p, q = sampled(a), sampled(b)
    each = [[shapely.Point(c).distance(other) for c in one.coords] for one, other in ((p, q), (q, p))]
    expected = np.mean(each) / 800
    assert line_distance(ragged([a], width=2), ragged([b], width=2), PICTURE)[0] == pytest.approx(
        expected, abs=1e-9
    )


def cvat(a: Floats, b: Floats, area: float, thickness: float) -> float:
    """The mean over both lines' corners, point by point: interpolated by shapely."""
    lines = [shapely.LineString(points) for points in (a, b)]
    shares = [[one.project(shapely.Point(p), normalized=True) for p in one.coords] for one in lines]
    at = [*shares[0], *shares[1][1:-1]]
    apart = [
        lines[0].interpolate(s, normalized=True).distance(lines[1].interpolate(s, normalized=True))
        for s in at
    ]
    return float(np.exp(-np.square(apart) / (2 * area * (2 * thickness) ** 2)).mean())


@given(st.lists(st.integers(1, 90), min_size=4, max_size=12), st.integers(2, 4), st.integers(-20, 20))
def test_lines_are_as_alike_as_cvat_says(steps: list[int], first: int, down: int) -> None:
    # Both run to the right, so that shapely finds each corner's place on its own line.
    a, b = (
        np.stack([np.cumsum(part), np.cumsum(part[::-1])], axis=1).astype(float)
        for part in (steps[:first], steps[first:] or steps)
    )
    a, b = (np.vstack([[[0.0, 0]], each]) for each in (a, b))
    b[:, 1] += down
    found = [
        line_similarity(ragged([a], width=2), ragged([other], width=2), PICTURE, directed=True)[0]
        for other in (b, b[::-1])
    ]
    assert found[0] == pytest.approx(cvat(a, b, 640 * 480, 0.01), abs=1e-9)
    assert found[1] == pytest.approx(cvat(a, b[::-1], 640 * 480, 0.01), abs=1e-9)
    blind = line_similarity(ragged([a], width=2), ragged([b], width=2), PICTURE)
    assert blind == [max(found)]


@given(line, line)
def test_lines_are_alike_whatever_end_they_begin_with_unless_asked(
    a: list[tuple[float, float]], b: list[tuple[float, float]]
) -> None:
    one, other, back = (ragged([each], width=2) for each in (a, b, b[::-1]))
    assert line_distance(one, back, PICTURE) == pytest.approx(line_distance(one, other, PICTURE), abs=1e-9)
    assert line_distance(other, one, PICTURE) == pytest.approx(line_distance(one, other, PICTURE), abs=1e-9)
    found = line_similarity(one, other, PICTURE)
    assert 0 <= found[0] <= 1
    assert line_similarity(one, back, PICTURE) == pytest.approx(found, abs=1e-9)
    assert line_similarity(one, one, PICTURE, directed=True) == pytest.approx([1])
