"""What each kind of answer is compared by: one row a kind, the only place that knows them all.

A drawn region's shape is a flat list of numbers (pictures: percent of their sides, as Label Studio has them):

- box: x, y, width, height, rotation in degrees clockwise about the corner x, y
- ellipse: x, y of the centre, both radii, rotation about the centre
- polygon, line: x, y of each point; keypoint: x, y
- mask: start, end of each run of set pixels, counted along the rows of the picture
- span, html-span: start, end; paragraph-span: paragraph and offset of the start, then of the end
- segment: start, end of each stretch
- track: frame, seen (1 or 0), x, y, width, height, rotation of each keyframe
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from connector.quality import answers, similarity
from connector.quality.answers import UNDECLARED, Similar
from connector.quality.interval import Floats, Ints
from connector.quality.similarity import Ragged, take
from connector.quality.table import Scale

CHOICE, TAXONOMY, RATING, NUMBER, DATE = "choice", "taxonomy", "rating", "number", "date"
TEXT, PAIRWISE, RANKING, RELATION = "text", "pairwise", "ranking", "relation"
BOX, ELLIPSE, POLYGON, MASK, KEYPOINT, LINE = "box", "ellipse", "polygon", "mask", "keypoint", "line"
SPAN, HTML_SPAN, PARAGRAPH_SPAN, SEGMENT, TRACK = "span", "html-span", "paragraph-span", "segment", "track"

POINT_SPREAD = 0.02
"""How far people's points for one thing scatter (a standard deviation), as a share of the root of the
picture's area. `oks` takes twice that: two points are one thing up to 26 pixels apart in 640 x 480."""

PARAGRAPH = 1e6
"""Longer than any paragraph, so that no offset reaches into the next."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """The shapes of n regions of one kind, and the pictures they lie on.

    Attributes:
        values, offsets: ragged, as the module describes.
        pictures: (n, 2) width and height in pixels; any two numbers where nothing is a picture.
    """

    values: Floats
    offsets: Ints
    pictures: Floats

    def of(self, index: npt.NDArray[Any]) -> Shapes:
        """Some of them, in the order asked for."""
        values, offsets = take((self.values, self.offsets), index)
        return Shapes(values, offsets, self.pictures[index])

    def rows(self, width: int) -> Floats:
        """(n, width) where all shapes have that many numbers."""
        return self.values.reshape(-1, width)

    def ragged(self, width: int) -> Ragged:
        """The shapes as rows of `width` numbers."""
        return self.values.reshape(-1, width), self.offsets // width

    @property
    def per_value(self) -> Floats:
        """(m, 2) the picture of each number."""
        return np.repeat(self.pictures, np.diff(self.offsets), axis=0)


@dataclass(frozen=True, slots=True)
class Drawn:
    """How regions of a kind are compared.

    Attributes:
        similar: shapes on either side, row by row, to (n,) in [0, 1].
        threshold: from which similarity on two regions may be one object, unless said otherwise.
        measure: the name of the similarity, for people.
        bounds: (n, 2d) lows, then highs; regions whose bounds do not meet have nothing in common.
        boundary: shapes on either side to (n,) how alike their edges are, of areas.
    """

    similar: Callable[[Shapes, Shapes], Floats]
    threshold: float
    measure: str
    bounds: Callable[[Shapes], Floats] | None = None
    boundary: Callable[[Shapes, Shapes], Floats] | None = None


def _points(shapes: Shapes) -> Ragged:
    """Points in pixels."""
    points, offsets = shapes.ragged(2)
    return points * np.repeat(shapes.pictures / 100, np.diff(offsets), axis=0), offsets


def _boxes(shapes: Shapes) -> Floats:
    """(n, 5) boxes or ellipses in pixels."""
    boxes = shapes.rows(5).copy()
    boxes[:, :2] *= shapes.pictures / 100
    boxes[:, 2:4] *= shapes.pictures / 100
    return boxes


def _box_similar(a: Shapes, b: Shapes) -> Floats:
    one, other = a.rows(5), b.rows(5)
    turned = (one[:, 4] % 360 != 0) | (other[:, 4] % 360 != 0)
    found = similarity.upright_box_iou(one[:, :4], other[:, :4])
    if turned.any():
        at = np.flatnonzero(turned)
        found[at] = similarity.rotated_box_iou(_boxes(a.of(at)), _boxes(b.of(at)))
    return found


def _box_bounds(shapes: Shapes) -> Floats:
    box = shapes.rows(5)
    low, high = box[:, :2].copy(), box[:, :2] + box[:, 2:4]
    turned = np.flatnonzero(box[:, 4] % 360)
    if len(turned):
        pixels = _boxes(shapes.of(turned))
        reach = np.hypot(pixels[:, 2], pixels[:, 3])[:, None] / (shapes.pictures[turned] / 100)
        low[turned], high[turned] = box[turned, :2] - reach, box[turned, :2] + reach
    return np.concatenate([low, high], axis=1)


def _point_similar(a: Shapes, b: Shapes) -> Floats:
    side = np.sqrt(a.pictures.prod(axis=1))
    return similarity.oks(_points(a)[0], _points(b)[0], side, 2 * POINT_SPREAD)


def _span_similar(a: Shapes, b: Shapes) -> Floats:
    return similarity.span_iou(a.rows(2), b.rows(2))


def _counted_through(shapes: Shapes) -> Floats:
    """(n, 2) the ends of spans in paragraphs, on one scale."""
    rows = shapes.rows(4)
    return rows[:, ::2] * PARAGRAPH + rows[:, 1::2]


def _track_similar(a: Shapes, b: Shapes) -> Floats:
    # The video ends with the last keyframe of either: what stands still after both are gone says nothing.
    (one, at), (other, there) = a.ragged(7), b.ragged(7)
    last = np.maximum(one[at[1:] - 1, 0], other[there[1:] - 1, 0]).astype(np.int64)
    return similarity.track_iou((one, at), (other, there), last)


def _ends(shapes: Shapes) -> Floats:
    """(n, 2) the first start and the last end of sets of stretches."""
    return np.column_stack(
        [
            np.minimum.reduceat(shapes.values, shapes.offsets[:-1]),
            np.maximum.reduceat(shapes.values, shapes.offsets[:-1]),
        ]
    )


def _point_bounds(shapes: Shapes) -> Floats:
    points, offsets = shapes.ragged(2)
    return np.concatenate(
        [np.minimum.reduceat(points, offsets[:-1]), np.maximum.reduceat(points, offsets[:-1])], axis=1
    )


def _runs(shapes: Shapes) -> tuple[Ints, Ints]:
    runs, offsets = shapes.ragged(2)
    return runs.astype(np.int64), offsets


def _sizes(shapes: Shapes) -> Ints:
    return np.rint(shapes.pictures).astype(np.int64)


def _polygon_boundary(a: Shapes, b: Shapes) -> Floats:
    one, other = (similarity.rasterize(_points(side), _sizes(side)) for side in (a, b))
    return similarity.boundary_f(one, other, _sizes(a))


def _mask_boundary(a: Shapes, b: Shapes) -> Floats:
    return similarity.boundary_f(_runs(a), _runs(b), _sizes(a))


DRAWN: Mapping[str, Drawn] = {
    BOX: Drawn(_box_similar, 0.5, "IoU", _box_bounds),
    ELLIPSE: Drawn(lambda a, b: similarity.ellipse_iou(_boxes(a), _boxes(b)), 0.5, "IoU"),
    POLYGON: Drawn(
        lambda a, b: similarity.polygon_iou(_points(a), _points(b)),
        0.5,
        "IoU",
        _point_bounds,
        _polygon_boundary,
    ),
    MASK: Drawn(lambda a, b: similarity.mask_iou(_runs(a), _runs(b)), 0.5, "IoU", None, _mask_boundary),
    KEYPOINT: Drawn(_point_similar, 0.5, "OKS"),
    LINE: Drawn(
        lambda a, b: similarity.line_similarity(_points(a), _points(b), a.pictures), 0.5, "soft share"
    ),
    SPAN: Drawn(_span_similar, 0.5, "IoU", lambda shapes: shapes.rows(2)),
    HTML_SPAN: Drawn(_span_similar, 0.5, "IoU", lambda shapes: shapes.rows(2)),
    PARAGRAPH_SPAN: Drawn(
        lambda a, b: similarity.span_iou(_counted_through(a), _counted_through(b)),
        0.5,
        "IoU",
        _counted_through,
    ),
    SEGMENT: Drawn(lambda a, b: similarity.span_set_iou(a.ragged(2), b.ragged(2)), 0.5, "IoU", _ends),
    TRACK: Drawn(_track_similar, 0.5, "IoU over space and time"),
}
"""Kinds that are drawn: they are aligned before they are compared."""


@dataclass(frozen=True, slots=True)
class Answered:
    """How answers of a kind are compared.

    Attributes:
        compare: the different answers, as text, and what is declared about them, to the similarity of any two
            of them by their numbers.
        measure: the name of the similarity, for people; empty where answers are the same or not.
        level: what distances between them mean; see `agreement`.
        values: their numbers, where they are on a scale.
    """

    compare: Callable[[Sequence[str], Scale], Similar]
    measure: str = ""
    level: str = "nominal"
    values: Callable[[Sequence[str]], Floats] | None = None


ANSWERED: Mapping[str, Answered] = {
    CHOICE: Answered(answers.choices, "Jaccard"),
    TAXONOMY: Answered(answers.taxonomies, "shared path", "similarity"),
    RATING: Answered(answers.amounts, "distance over range", "ordinal", answers.numbers),
    NUMBER: Answered(answers.amounts, "distance over range", "interval", answers.numbers),
    DATE: Answered(answers.moments, "distance over range", "interval", answers.days),
    TEXT: Answered(answers.texts, "edit similarity", "similarity"),
    PAIRWISE: Answered(answers.same_answers),
    RANKING: Answered(answers.rankings, "Kendall and buckets", "similarity"),
}
"""Kinds that answer a question: one unit for each task, or for each drawn thing that the question is
about."""


def level_of(kind: str, said: Sequence[str], scale: Scale = UNDECLARED) -> str:
    """What differences between the answers of a kind mean: what is declared, or else what suits the kind.

    Args:
        said: the different answers.
    """
    if scale.level is not None:
        return scale.level
    if kind == CHOICE:
        return "similarity" if any(len(answers.parted(label)) > 1 for label in said) else "nominal"
    return ANSWERED[kind].level if kind in ANSWERED else "nominal"


ON_A_SCALE = ("ordinal", "interval", "ratio")
"""Levels at which answers are numbers, or places in an order."""


def values_of(kind: str, said: Sequence[str], scale: Scale = UNDECLARED) -> Floats:
    """(n,) the numbers of answers, or their places in the declared order.

    Raises:
        ValueError: naming an answer that is neither.
    """
    if scale.order and kind == CHOICE:
        return answers.places(said, scale.order)
    how = ANSWERED.get(kind)
    return (how.values if how is not None and how.values is not None else answers.numbers)(said)


def comparer(kind: str, said: Sequence[str], scale: Scale = UNDECLARED) -> Similar:
    """How alike any two different answers of a kind are, by their numbers.

    Labels of what was drawn are the same or not, and so is everything at the nominal level. `ABSENT` is like
    nothing but itself. How alike two answers are depends on them and on what is declared, never on a third.

    Args:
        said: the different answers.
        scale: what is declared about them.

    Raises:
        ValueError: naming an answer that is none of this kind.
    """
    how = ANSWERED.get(kind)
    level = level_of(kind, said, scale)
    if level == "nominal" or how is None or how.compare is answers.same_answers:
        return answers.same_answers(said)

    def compared(some: Sequence[str]) -> Similar:
        if kind == CHOICE and level in ON_A_SCALE:
            steps = replace(scale, low=0.0, high=len(scale.order) - 1.0) if scale.order else scale
            return answers.near(values_of(kind, some, scale), steps)
        return how.compare(some, scale)

    if answers.ABSENT not in said:
        return compared(said)
    absent = list(said).index(answers.ABSENT)
    told = compared([text for text in said if text != answers.ABSENT])

    def similar(i: Ints, j: Ints) -> Floats:
        alike = similarity.same(i, j)
        both = (i != absent) & (j != absent)
        left, right = i[both], j[both]
        alike[both] = told(left - (left > absent), right - (right > absent))
        return alike

    return similar


DETECTED = frozenset({*DRAWN, RELATION})
"""Kinds of which any number may be there, so that one can be missed or invented."""

MEASURED = frozenset({*DRAWN, *ANSWERED, RELATION})


def kind_of(table: pl.DataFrame) -> str:
    """The kind of the answers in the unit table of one control.

    Units are numbered within their control, so a table of several controls would merge unrelated answers.

    Args:
        table: columns of `UNITS`.

    Returns:
        The kind; `CHOICE` of an empty table.

    Raises:
        ValueError: if there are several controls, naming them.
    """
    controls = table["control"].unique().sort().to_list()
    if len(controls) > 1:
        names = ", ".join(map(repr, controls[:10])) + (", …" if len(controls) > 10 else "")
        raise ValueError(
            f"the table holds {len(controls)} controls ({names}) where one is expected: "
            "filter it by control, or call consensus(), which answers for each control"
        )
    return str(table["kind"][0]) if len(table) else CHOICE
