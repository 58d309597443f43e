"""What the quality room reads: two flat tables, whatever was drawn and whatever tool it came from.

`answers` has one row per annotation, so an annotator who looked and drew nothing is seen; `regions` has
one row per region, or per label of an answer with several. Everything in this room starts from these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

_Columns = dict[str, pl.DataType | type[pl.DataType]]

_answers: _Columns = {
    "task": pl.String,
    "annotation": pl.String,  # unique over the table; an annotator may answer a task twice
    "annotator": pl.String,
    "role": pl.String,  # person, gold, reviewer, model, code
    "gold": pl.Boolean,  # a known answer: of the role gold, or marked as ground truth by whoever gave it
    "seconds": pl.Float64,  # may be null
    "created_at": pl.Datetime("us", "UTC"),  # may be null
}

_regions: _Columns = {
    "task": pl.String,
    "annotation": pl.String,
    "control": pl.String,
    "region": pl.String,  # unique within its annotation and control; of a relation, where it leads to
    "parent": pl.String,  # what an answer is about, or where a relation comes from: a drawn region; or null
    # What it was drawn on, where a task shows several things; of a relation, `UNDIRECTED` if it has no
    # direction; else null.
    "place": pl.String,
    # What was answered, as text; of a thing drawn without a label, the empty text; `answers.ABSENT` of a
    # question about the whole task that was left empty.
    "label": pl.String,
    "shape": pl.List(pl.Float64),  # as `kinds` tells; null for an answer
    "picture_width": pl.Float64,  # in pixels; null where there is none or it is unknown
    "picture_height": pl.Float64,
}

UNDIRECTED = "bi"
"""The `place` of a relation without a direction: which of its ends is the first means nothing."""

ANSWERS = pl.Schema(_answers)
REGIONS = pl.Schema(_regions)
UNCOUNTED = pl.Schema({"annotation": pl.String, "control": pl.String, "why": pl.String})


@dataclass(frozen=True, slots=True)
class Scale:
    """What is declared about the answers to one control. None of it is ever taken from the answers.

    Attributes:
        low, high: the declared range of numbers; of dates, in days as `answers.days` counts them.
        step: the declared distance of neighbouring numbers.
        tolerance: the difference (of dates, in days) from which on two answers have nothing in common; it
            goes before the range.
        order: ordered answers from the lowest up, or the buckets of a ranking from the best down.
        inside: whether the order inside a bucket of a ranking counts.
        level: what differences mean, of `agreement.LEVELS`; None for what suits the kind.
    """

    low: float | None = None
    high: float | None = None
    step: float | None = None
    tolerance: float | None = None
    order: tuple[str, ...] = ()
    inside: bool = False
    level: str | None = None

    @property
    def span(self) -> float | None:
        """The difference from which on two answers have nothing in common; None where none is declared."""
        if self.tolerance is not None:
            return self.tolerance
        return None if self.low is None or self.high is None else self.high - self.low


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of many annotators on many tasks.

    Attributes:
        answers: schema `ANSWERS`.
        regions: schema `REGIONS`; every `annotation` stands in `answers`.
        controls: the kind (see `kinds`) of every control, also of one nobody used.
        uncounted: schema `UNCOUNTED`: answers to a control that cannot be counted, and why. They are unknown:
            neither an answer nor `ABSENT`. A row without a control and a reason means all controls that the
            annotation does not answer: it was not asked them.
        scales: what is declared about the answers to some controls.
    """

    answers: pl.DataFrame
    regions: pl.DataFrame
    controls: Mapping[str, str]
    uncounted: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=UNCOUNTED))
    scales: Mapping[str, Scale] = field(default_factory=dict)
