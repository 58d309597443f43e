"""One shape from many: against counting point by point, against shapely, and by exact cases."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.quality import kinds
from connector.quality.interval import Floats
from connector.quality.merge import merged_shapes
from connector.quality.similarity import from_pixels, ragged, to_pixels, track_frames, upright_box_iou
from connector.quality.units import UNITS

Shape = list[float]


def drawn(kind: str, *units: list[Shape]) -> pl.DataFrame:
    """The rows of what some people drew for some things on pictures of 12 by 8 pixels."""
    rows = [
        {
            "task": "t",
            "control": "c",
            "kind": kind,
            "unit": f"{u:03}",
            "annotation": f"{who}",
            "label": "x",
            "shape": [float(one) for one in shape],
            "picture_width": 12.0,
            "picture_height": 8.0,
        }
        for u, shapes in enumerate(units)
        for who, shape in enumerate(shapes)
    ]
    return pl.concat(
        [pl.DataFrame(schema=UNITS), pl.DataFrame(rows, schema_overrides={"shape": pl.List(pl.Float64)})],
        how="diagonal",
    )


def merged(kind: str, *units: list[Shape]) -> list[Shape]:
    return merged_shapes(drawn(kind, *units))["shape"].to_list()


def test_boxes_take_the_median_of_each_edge_and_points_of_each_number() -> None:
    three = [[0, 0, 10, 10, 0], [2, 0, 10, 10, 0], [1, 0, 16, 10, 0]]
    assert merged(kinds.BOX, three) == [[1, 0, 11, 10, 0]]
    assert merged(kinds.KEYPOINT, [[0, 1], [2, 1], [50, 9]]) == [[2, 1]]


def test_two_give_their_middle_and_an_even_number_the_middle_of_the_middle_two() -> None:
    assert merged(kinds.BOX, [[0, 0, 10, 10, 0], [2, 4, 10, 4, 0]]) == [[1, 2, 10, 7, 0]]
    assert merged(kinds.BOX, [[n, 0, 10 - n, 5, 0] for n in (0, 1, 3, 9)]) == [[2, 0, 8, 5, 0]], (
        "edge by edge"
    )
    assert merged(kinds.KEYPOINT, [[0, 1], [2, 3]]) == [[1, 2]]
    assert merged(kinds.ELLIPSE, [[5, 5, 2, 3, 0], [6, 5, 4, 3, 0]]) == [[5.5, 5, 3, 3, 0]]
    assert merged(kinds.SEGMENT, [[1, 3, 7, 9], [2, 4, 8, 9]]) == [[1.5, 3.5, 7.5, 9]]
    assert merged(kinds.SEGMENT, [[1, 3, 7, 9], [1, 9]], [[1, 2], [3, 4]], [[5, 6]] * 3) == [
        [1, 3, 7, 9],
        [2, 3],
        [5, 6],
    ]
    assert merged(kinds.TRACK, [[0, 1, 5, 5, 9, 9, 0], [0, 1, 5, 7, 9, 8, 0]]) == [[0, 1, 5, 6, 9, 8.5, 0]]


def test_turned_boxes_give_the_middle_of_centre_size_and_angle() -> None:
    square = pl.lit(100.0)

    def middle(kind: str, *shapes: Shape) -> Shape:
        table = drawn(kind, list(shapes)).with_columns(picture_width=square, picture_height=square)
        return merged_shapes(table)["shape"].to_list()[0]

    assert middle(kinds.ELLIPSE, [50, 50, 9, 5, 10], [52, 50, 9, 7, 20]) == pytest.approx([51, 50, 9, 6, 15])
    assert middle(kinds.ELLIPSE, [50, 50, 9, 5, 350], [50, 50, 9, 5, 20]) == pytest.approx([50, 50, 9, 5, 5])
    # The same box, told with its sides exchanged and a quarter turn more: its corner is the next one.
    tall: Shape = [40, 30, 20, 10, 0]
    turned = middle(kinds.BOX, tall, [60, 30, 10, 20, 90])
    assert turned == pytest.approx(tall)
    boxes = [middle(kinds.BOX, [40, 30, 20, 10, angle], [42, 30, 20, 10, angle]) for angle in (5, 95, 185)]
    assert boxes == [pytest.approx([41, 30, 20, 10, angle]) for angle in (5, 95, 185)]


@pytest.mark.parametrize(("noise", "first", "middle"), [(0.06, 0.83, 0.875)])
def test_the_middle_of_two_boxes_is_nearer_to_the_true_box_than_one_of_them(
    noise: float, first: float, middle: float
) -> None:
    rng = np.random.default_rng(0)
    true = np.column_stack([rng.uniform(10, 60, (800, 2)), rng.uniform(10, 30, (800, 2))])
    sizes = np.tile(true[:, 2:], 2)
    edges = np.column_stack([true[:, :2], true[:, :2] + true[:, 2:]])
    said = edges + rng.normal(0, noise, (2, 800, 4)) * sizes
    said[:, :, 2:] -= said[:, :, :2]
    shapes = [[[*one, 0.0], [*other, 0.0]] for one, other in zip(*said.tolist(), strict=True)]
    found = np.array(merged(kinds.BOX, *shapes))[:, :4]
    assert upright_box_iou(said[0], true).mean() == pytest.approx(first, abs=0.01)
    assert upright_box_iou(found, true).mean() == pytest.approx(middle, abs=0.01)


@pytest.mark.parametrize("kind", [kinds.POLYGON, kinds.SPAN, kinds.MASK, kinds.LINE])
def test_of_one_or_two_one_is_taken_as_it_is(kind: str) -> None:
    shapes: dict[str, list[Shape]] = {
        kinds.POLYGON: [[0, 0, 9, 0, 9, 9], [0, 0, 9, 0, 9, 8]],
        kinds.SPAN: [[3, 9], [4, 9]],
        kinds.MASK: [[0, 5, 12, 17], [0, 5]],
        kinds.LINE: [[0, 0, 9, 9], [0, 1, 9, 9]],
    }
    for many in (shapes[kind][:1], shapes[kind]):
        (found,) = merged(kind, many)
        assert found in [[float(one) for one in shape] for shape in many]


pixels = st.lists(st.booleans(), min_size=96, max_size=96)


@given(st.lists(st.lists(pixels, min_size=3, max_size=5), min_size=1, max_size=3))
@settings(deadline=None, max_examples=40)
def test_masks_are_the_pixels_that_a_majority_set(units: list[list[list[bool]]]) -> None:
    shapes = [
        [from_pixels(np.array(one).reshape(8, 12)).ravel().tolist() for one in masks] for masks in units
    ]
    for masks, found in zip(units, merged(kinds.MASK, *shapes), strict=True):
        most = np.array(masks).sum(axis=0) * 2 > len(masks)
        if most.any():
            runs = np.array(found, dtype=np.int64).reshape(-1, 2)
            assert np.array_equal(to_pixels(runs, 12, 8).ravel(), most)


span = st.tuples(st.integers(0, 12), st.integers(1, 9)).map(lambda s: [float(s[0]), float(s[0] + s[1])])


@given(st.lists(span, min_size=3, max_size=6))
@settings(deadline=None)
def test_a_span_is_the_longest_stretch_that_a_majority_marked(spans: list[Shape]) -> None:
    deep = [sum(start <= at < end for start, end in spans) * 2 > len(spans) for at in range(30)]
    edges = np.flatnonzero(np.diff(np.array([False, *deep, False]).astype(int)))
    stretches = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    (found,) = merged(kinds.SPAN, spans)
    if stretches:
        assert found == list(max(stretches, key=lambda s: (s[1] - s[0], -s[0])))
    else:
        assert found in spans


def test_spans_in_paragraphs_are_counted_through_and_come_back_in_paragraphs() -> None:
    three = [[0, 5, 1, 7], [0, 8, 1, 9], [0, 6, 1, 3]]
    assert merged(kinds.PARAGRAPH_SPAN, three) == [[0, 6, 1, 7]]


def test_segments_keep_every_stretch_that_a_majority_marked() -> None:
    three = [[0, 2, 5, 8], [1, 2.5, 6, 9], [1.5, 3]]
    assert merged(kinds.SEGMENT, three) == [[1, 2.5, 6, 8]]
    overlapping = [[0, 2, 1, 3], [2, 4], [9, 10]]
    assert merged(kinds.SEGMENT, overlapping) == [[2, 3]], "what one marks twice counts once"


def star(rng: np.random.Generator) -> Shape:
    """A polygon around the middle whose sides do not cross."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, 7))
    reach = rng.uniform(15, 40, 7)
    return np.column_stack([50 + reach * np.cos(angle), 50 + reach * np.sin(angle)]).ravel().tolist()


def polygon(shape: Shape) -> shapely.Polygon:
    return shapely.make_valid(shapely.Polygon(np.array(shape).reshape(-1, 2)))


@pytest.mark.parametrize("many", [3, 4, 5])
def test_a_polygon_is_the_largest_part_of_what_a_majority_covers(many: int) -> None:
    rng = np.random.default_rng(many)
    units = [[star(rng) for _ in range(many)] for _ in range(5)]
    points = rng.uniform(0, 100, (2000, 2))
    for shapes, found in zip(units, merged(kinds.POLYGON, *units), strict=True):
        each = np.array([shapely.contains_xy(polygon(shape), points) for shape in shapes])
        most = each.sum(axis=0) * 2 > many
        inside = shapely.contains_xy(polygon(found), points)
        # Small parts apart from the largest, and holes, are left out or filled; there are few.
        assert (inside == most).mean() > 0.99


def test_polygons_without_a_majority_leave_the_most_typical_one() -> None:
    apart = [[0.0, 0, 10, 0, 10, 10], [30.0, 0, 40, 0, 40, 10], [60.0, 0, 70, 0, 70, 10]]
    assert merged(kinds.POLYGON, apart)[0] in apart


key = st.tuples(st.integers(1, 9), st.booleans(), st.integers(0, 40), st.integers(0, 40))
track = st.lists(key, min_size=1, max_size=4).map(
    lambda keys: np.column_stack(
        [
            np.cumsum([k[0] for k in keys]),
            [k[1] for k in keys],
            [k[2:] for k in keys],
            np.full((len(keys), 2), 9),
        ]
    )
)


@given(st.lists(track, min_size=3, max_size=5))
@settings(deadline=None, max_examples=60)
def test_a_track_is_seen_at_keyframes_where_a_majority_sees_it_with_the_median_box(
    tracks: list[Floats],
) -> None:
    keys = [np.column_stack([one, np.zeros(len(one))]) for one in tracks]
    (found,) = merged(kinds.TRACK, [one.ravel().tolist() for one in keys])
    frames, offsets = track_frames(ragged(keys, width=7), np.full(len(keys), 60))
    seen = [
        dict(zip(part[:, 0].astype(int), part[:, 1:], strict=True))
        for part in np.split(frames, offsets[1:-1])
    ]
    expected = {}
    for frame in sorted({int(row[0]) for one in keys for row in one}):
        boxes = [one[frame] for one in seen if frame in one]
        if 2 * len(boxes) > len(keys):
            expected[frame] = np.median(boxes, axis=0)
    rows = np.array(found).reshape(-1, 7)
    if expected:
        assert rows[:, 0].tolist() == list(expected)
        assert rows[:, 2:] == pytest.approx(np.array(list(expected.values())))
    else:
        assert any(np.array_equal(rows, one) for one in keys)


def test_a_line_is_somebodys_and_upright_ellipses_take_the_median_of_each_number() -> None:
    lines = [[0, 0, 50, 50], [0, 1, 50, 51], [0, 40, 50, 9]]
    assert merged(kinds.LINE, lines)[0] in [[float(one) for one in line] for line in lines[:2]]
    assert merged(kinds.ELLIPSE, [[50, 50, 9, 5, 0], [52, 50, 9, 5, 0], [51, 50, 9, 7, 0]]) == [
        [51, 50, 9, 5, 0]
    ]


def test_the_order_of_the_people_decides_nothing() -> None:
    rng = np.random.default_rng(0)
    shapes = [star(rng) for _ in range(4)]
    assert merged(kinds.POLYGON, shapes) == merged(kinds.POLYGON, shapes[::-1])
    two = [[3.0, 9], [4, 10]]
    assert merged(kinds.SPAN, two) == merged(kinds.SPAN, two[::-1])
