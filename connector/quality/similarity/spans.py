"""How alike two stretches are: of text, sound, time or frames.

Rows are pairs: `a[i]` is compared with `b[i]`. Ends are excluded, as in Label Studio's text spans. Two
stretches without length are alike (1) if they are the same and else not (0).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from connector.quality.interval import Floats, Ints
from connector.quality.similarity.cover import overlap
from connector.quality.similarity.rows import (
    Ragged,
    blocks,
    equal_rows,
    offsets_of,
    part,
    place_in_row,
    ratio,
    row_of,
    sums,
    take,
)
from connector.quality.similarity.shapes import rotated_box_shared


def span_iou(
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    containers: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None,
) -> Floats:
    """Intersection over union of single stretches: characters, tokens, seconds, frames.

    Args:
        a, b: (n, 2) start and end.
        containers: (n,) and (n,) ids of what each start and end is counted in, such as a paragraph or an HTML
            element; in different ones nothing is shared. None where all of a task is counted through.

    Returns:
        (n,) in [0, 1].

    References:
        Jaccard, P. (1912). The distribution of the flora in the alpine zone. New Phytologist 11, 37-50.
    """
    shared = np.clip(np.minimum(a[:, 1], b[:, 1]) - np.maximum(a[:, 0], b[:, 0]), 0, None).astype(np.float64)
    same = (a == b).all(axis=1)
    if containers is not None:
        together = containers[0] == containers[1]
        shared, same = shared * together, same & together
    return ratio(shared, (a[:, 1] - a[:, 0]) + (b[:, 1] - b[:, 0]) - shared, same)


def span_set_iou(a: Ragged, b: Ragged) -> Floats:
    """Intersection over union of sets of stretches, such as all that one label marks in a recording.

    Args:
        a, b: n sets, (k, 2) starts and ends in any order; what two of a set cover counts once.

    Returns:
        (n,) in [0, 1]; two empty sets are alike.
    """
    both, either = overlap(a, b)
    same = np.zeros(len(either))
    bare = np.flatnonzero(either == 0)
    same[bare] = equal_rows(_sorted(take(a, bare)), _sorted(take(b, bare)))
    return ratio(both, either, same)


def token_spans(spans: Ints, texts: Ints, tokens: Ragged) -> Ints:
    """Which tokens a span of characters touches, if only by one character.

    Args:
        spans: (n, 2) start and end in characters.
        texts: (n,) the row of `tokens` that holds the text of each span.
        tokens: for each text (k, 2) start and end of its tokens in characters, ascending, not overlapping.

    Returns:
        (n, 2) first token and the one after the last, for `span_iou`; equal where none is touched.
    """
    bounds, offsets = tokens
    if not len(bounds):
        return np.zeros((len(spans), 2), dtype=np.int64)
    step = max(int(bounds.max()), int(spans.max(initial=0))) + 1
    row = row_of(offsets) * step
    # The first token that ends after the start, and the first that starts at the end or later.
    first = np.searchsorted(row + bounds[:, 1], texts * step + spans[:, 0], side="right")
    after = np.searchsorted(row + bounds[:, 0], texts * step + spans[:, 1], side="left")
    after = np.where(spans[:, 1] > spans[:, 0], np.maximum(first, after), first)
    return np.stack([first, after], axis=1) - offsets[texts][:, None]


def track_iou(a: Ragged, b: Ragged, last: Ints) -> Floats:
    """Spatio-temporal IoU of two tracks: shared areas summed over frames, over united areas so summed.

    Args:
        a, b: n tracks of keyframes, as in `track_frames`.
        last: (n,) the last frame of each video.

    Returns:
        (n,) in [0, 1]. A frame in which only one of the two is seen has nothing in common.

    References:
        Yang, L., Fan, Y. & Xu, N. (2019). Video instance segmentation. ICCV 2019, 5188-5197: the IoU of two
        sequences of masks, here of boxes.
    """
    found = np.zeros(len(last))
    same = equal_rows(a, b)
    for rows in blocks(offsets_of(2 * last)):  # a track may be seen in every frame of its video
        left, right = (track_frames(part(side, rows), last[rows]) for side in (a, b))
        n = len(left[1]) - 1
        areas = [sums(boxes[:, 3] * boxes[:, 4], row_of(offsets), n) for boxes, offsets in (left, right)]
        row, one, other = _same_frames(left, right)
        shared = sums(rotated_box_shared(left[0][one, 1:], right[0][other, 1:]), row, n)
        found[rows] = ratio(shared, areas[0] + areas[1] - shared, same[rows])
    return found


def track_frames(tracks: Ragged, last: Ints) -> Ragged:
    """The box of every frame in which a track is seen, from its keyframes.

    As Label Studio plays a track: a keyframe is seen in its own frame; an enabled one also in all frames up
    to the next keyframe, the box moving evenly, and turning the shorter way; after the last keyframe it
    stands still until the video ends.

    Args:
        tracks: n tracks, (k, 7) frame, enabled (1 or 0), x, y, width, height, rotation, one row per keyframe;
            frames whole numbers from 0, ascending, none twice. Boxes as in `rotated_box_iou`: pixels.
        last: (n,) the last frame of each video (`framesCount`).

    Returns:
        (m, 6) frame, x, y, width, height, rotation; frames ascending.

    References:
        Label Studio's editor: `VideoRegion.isInLifespan`, `VideoRectangleRegion.getShape`, `interpolateProp`.
    """
    keys, offsets = tracks
    if not len(keys):
        return np.zeros((0, 6)), offsets
    frame = keys[:, 0].astype(np.int64)
    final = np.zeros(len(keys), dtype=bool)
    final[offsets[1:][np.diff(offsets) > 0] - 1] = True
    upto = np.where(final, np.maximum(last[row_of(offsets)], frame) + 1, np.roll(frame, -1))
    seen = offsets_of(np.where(keys[:, 1] > 0, upto - frame, 1))
    key, step = row_of(seen), place_in_row(seen)
    following = np.where(final, 0, 1) + np.arange(len(keys))
    before = keys[key, 2:]
    change = keys[following[key], 2:] - before
    change[:, 4] = 180 - (180 - change[:, 4]) % 360
    share = step / (upto - frame)[key]
    boxes = before + change * share[:, None]
    return np.column_stack([frame[key] + step, boxes]), seen[offsets]


def _sorted(sets: Ragged) -> Ragged:
    values, offsets = sets
    return values[np.lexsort((*values.T, row_of(offsets)))], offsets


def _same_frames(a: Ragged, b: Ragged) -> tuple[Ints, Ints, Ints]:
    """Frames that both tracks of a row are seen in: the row, and where each side's box stands."""
    step = int(max(frames[:, 0].max(initial=0) for frames, _ in (a, b))) + 1
    one, other = (row_of(offsets) * step + frames[:, 0].astype(np.int64) for frames, offsets in (a, b))
    place = np.searchsorted(other, one)
    both = np.flatnonzero(np.append(other, -1)[place] == one)
    return one[both] // step, both, place[both]
