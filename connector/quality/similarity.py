"""How alike two drawn things are, from 0 to 1. One function for each kind."""

from __future__ import annotations

import numpy as np

from connector.quality.interval import Floats


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
