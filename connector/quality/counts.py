"""How often each label was given in each unit: what agreement is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from connector.quality.answers import ABSENT, parted
from connector.quality.interval import Floats, Ints
from connector.quality.kinds import DETECTED, kind_of
from connector.quality.units import latest


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each label was given in each unit; pairs of a unit and a label that was not given are left
    out.

    Attributes:
        unit, label, n: (r,) units never fall.
        task: (U,) the number of the task of each unit.
        start: (U,) the first entry of each unit.
        answers: (U,) how many there are to each unit.
        labels: the names of the labels, by their numbers.
        of_things: whether a unit exists only because an annotator drew something, or answered a question
            about it. Two others who both say `ABSENT` then agree on nothing; to a question about the whole
            task they gave the same answer.
    """

    unit: Ints
    label: Ints
    n: Ints
    task: Ints
    start: Ints
    answers: Ints
    labels: Sequence[str]
    of_things: bool = True

    @property
    def tasks(self) -> int:
        """How many different tasks the units are of."""
        return len(np.unique(self.task))

    def per_unit(self, values: Floats) -> Floats:
        """(U,) the sums of (r,) values."""
        return np.add.reduceat(values, self.start) if len(self.start) else np.zeros(0)

    def paired(self) -> Counts:
        """Only units with two answers or more."""
        return self._only(self.answers[self.unit] >= 2)

    def both_absent(self) -> Floats:
        """(U,) how many pairs of answers to each unit, in both orders, are both `ABSENT`.

        0 where all answers are: no annotator drew anything, and that is agreement. Elsewhere such a pair is
        no answer to anything: the unit exists only because another annotator drew there.
        """
        if not self.of_things or ABSENT not in self.labels:
            return np.zeros(len(self.answers))
        absent = self.given(ABSENT)
        return np.where(absent < self.answers, absent * (absent - 1.0), 0.0)

    def given(self, label: str) -> Floats:
        """(U,) how often a label was given in each unit."""
        number = list(self.labels).index(label) if label in self.labels else -1
        return self.per_unit(self.n * (self.label == number).astype(np.float64))

    def without(self, label: str) -> Counts:
        """Without the answers that give this label."""
        if label not in self.labels:
            return self
        number = list(self.labels).index(label)
        kept = self._only(self.label != number)
        labels = [name for name in self.labels if name != label]
        return replace(kept, label=kept.label - (kept.label > number), labels=labels)

    def _only(self, entry: npt.NDArray[np.bool_]) -> Counts:
        if entry.all():
            return self
        old = self.unit[entry]
        start = np.flatnonzero(np.diff(old, prepend=-1))
        unit = np.zeros(len(old), dtype=np.int64)
        unit[start[1:]] = 1
        n = self.n[entry]
        answers = np.add.reduceat(n, start) if len(start) else start
        return replace(
            self,
            unit=np.cumsum(unit),
            label=self.label[entry],
            n=n,
            task=self.task[old[start]],
            start=start,
            answers=answers,
        )


def counts(table: pl.DataFrame) -> Counts:
    """How often each label was given in each unit.

    Of an annotator's repeated answers the last one counts.

    Args:
        table: columns of `UNITS`, of one control. The order of the rows does not matter.

    Raises:
        ValueError: if there are several controls.
    """
    kind, table = kind_of(table), latest(table)
    names = table["label"].unique().sort()
    task, unit, label = (_ranks(table[name]) for name in ("task", "unit", "label"))
    of_things = kind in DETECTED or table["parent_control"].null_count() < len(table)
    return replace(counts_of_codes(task, unit, label, names.to_list()), of_things=of_things)


def label_counts(table: pl.DataFrame) -> Counts:
    """How often each single label was given in each unit, also where several may be given at once.

    Args:
        table: columns of `UNITS`, of one control.

    Returns:
        As `counts`; `answers` still counts whole answers, of which each may have given several labels.

    Raises:
        ValueError: if there are several controls.
    """
    kind_of(table)
    table = latest(table)
    said = table["label"].unique()
    parts = [parted(text) or [text] for text in said]
    if all(len(labels) == 1 for labels in parts):
        return counts(table)
    whole = table.group_by("task", "control", "unit").len().sort("task", "control", "unit")
    each = table.join(pl.DataFrame({"label": said, "part": parts}), on="label").explode("part")
    return replace(counts(each.with_columns(label="part")), answers=whole["len"].to_numpy().astype(np.int64))


def _ranks(names: pl.Series) -> Ints:
    """(n,) the place of each name among all that are different, in alphabetical order."""
    return names.cast(pl.Enum(names.unique().sort())).to_physical().to_numpy().astype(np.int64)


def counts_of_codes(task: Ints, unit: Ints, label: Ints, labels: Sequence[str]) -> Counts:
    """How often each label was given in each unit.

    Args:
        task, unit, label: (n,) of each answer, whole numbers from 0; units are counted within their task.
        labels: the names of the labels.
    """
    units, width = int(unit.max(initial=0)) + 1, max(len(labels), 1)
    cells = (int(task.max(initial=0)) + 1) * units * width
    # Half the memory to move, where that is enough.
    size = np.uint32 if cells < 1 << 32 else np.int64
    cell: npt.NDArray[Any] = task.astype(size)
    for part, of in ((unit, units), (label, width)):
        cell *= size(of)
        cell += part.astype(size)
    cell.sort()
    given, n = _runs(cell)
    key = given // given.dtype.type(width)
    new = np.ones(len(key), dtype=bool)
    new[1:] = key[1:] != key[:-1]
    start = np.flatnonzero(new)
    of_task = key[start] // key.dtype.type(units)
    return Counts(
        np.cumsum(new) - 1,
        (given - key * given.dtype.type(width)).astype(np.int64),
        n,
        np.cumsum(np.diff(of_task, prepend=of_task[:1]) != 0),
        start,
        np.add.reduceat(n, start) if len(start) else start,
        labels,
    )


def _runs(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Ints]:
    """Each different one of ascending values, and how often it stands there."""
    first = np.ones(len(values), dtype=bool)
    first[1:] = values[1:] != values[:-1]
    start = np.flatnonzero(first)
    return values[start], np.diff(start, append=len(values))


def by_group(group: Ints, label: Ints, weights: Floats | Ints, groups: int, labels: int) -> Floats:
    """(G, K) sums of weights by group and label."""
    cell = group * labels
    cell += label
    found = np.bincount(cell, weights, groups * labels).astype(np.float64, copy=False)
    return found.reshape(groups, labels)
