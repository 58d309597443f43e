"""IoU against shapely, and by its invariants."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from connector.quality.similarity import box_iou

side = st.floats(0.01, 100, allow_nan=False)
box = st.tuples(st.floats(0, 100), st.floats(0, 100), side, side)


@given(st.lists(box, min_size=1, max_size=6), st.lists(box, min_size=1, max_size=6))
def test_iou_is_shapelys(a: list[tuple[float, ...]], b: list[tuple[float, ...]]) -> None:
    found = box_iou(np.array(a), np.array(b))
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            p, q = (shapely.box(x, y, x + w, y + h) for x, y, w, h in (one, other))
            assert found[i, j] == pytest.approx(p.intersection(q).area / p.union(q).area, abs=1e-7)


@given(st.lists(box, min_size=1, max_size=5), st.floats(0.1, 10), st.floats(-50, 50))
def test_iou_is_symmetric_one_with_itself_and_blind_to_scale_and_place(
    boxes: list[tuple[float, ...]], scale: float, shift: float
) -> None:
    a = np.array(boxes)
    found = box_iou(a, a)
    assert np.allclose(np.diag(found), 1)
    assert np.allclose(found, found.T)
    moved = a * scale + np.array([shift, shift, 0, 0])
    assert np.allclose(box_iou(moved, moved), found, atol=1e-6)


def test_a_box_without_area_is_like_nothing() -> None:
    flat = np.array([[1.0, 1.0, 0.0, 5.0]])
    assert box_iou(flat, flat)[0, 0] == 0
    assert box_iou(np.zeros((0, 4)), flat).shape == (0, 1)
