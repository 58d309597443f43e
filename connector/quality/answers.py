"""What answers that are not drawn say, read from their text, and how alike two of them are.

A choice of several labels is told as `cat + dog`; a label that holds the sign itself stands in quotes.
Numbers are told as such, dates in ISO 8601, a ranking as the items of every bucket in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time

import numpy as np
import polars as pl

from connector.quality.interval import Floats, Ints
from connector.quality.similarity import (
    Ragged,
    edit_similarity,
    interval_similarity,
    jaccard,
    normalized,
    offsets_of,
    ragged,
    ranking_similarity,
    same,
    take,
    taxonomy_similarity,
)

ABSENT = "ABSENT"
"""What an annotator says of an object that others drew and he did not, or of a question about it."""

SEVERAL = " + "
"""Joins the labels of a multiple choice, in alphabetical order."""

STEP = " / "
"""Joins the steps of a path."""

UNRANKED = "_"
"""The bucket of the items that were left in the list."""

Similar = Callable[[Ints, Ints], Floats]
"""The similarity, in [0, 1], of the things of these numbers: (p,), (p,) -> (p,)."""


def joined(labels: pl.Expr) -> pl.Expr:
    """Several labels as one text, for a group of rows.

    >>> pl.DataFrame({"label": ["b", "a + c"]}).select(joined(pl.col("label"))).item()
    '"a + c" + b'
    """
    # What could be taken for several labels, or for one in quotes, stands in quotes, as in JSON.
    odd = labels.str.contains(SEVERAL, literal=True) | labels.str.starts_with('"')
    escaped = labels.str.replace_all("\\", "\\\\", literal=True).str.replace_all('"', '\\"', literal=True)
    quoted = pl.when(odd).then(pl.format('"{}"', escaped)).otherwise(labels)
    return quoted.unique().sort().str.join(SEVERAL)


def together(labels: Iterable[str]) -> str:
    """As `joined`, of some labels by themselves.

    >>> together(["b", "a + c", "b"])
    '"a + c" + b'
    """
    return SEVERAL.join(sorted({_quoted(label) for label in labels}))


def _quoted(label: str) -> str:
    if SEVERAL not in label and not label.startswith('"'):
        return label
    return '"{}"'.format(label.replace("\\", "\\\\").replace('"', '\\"'))


def parted(text: str) -> list[str]:
    """The labels of a text that `joined` made.

    >>> parted('"a + c" + b')
    ['a + c', 'b']
    """
    if '"' not in text:
        return text.split(SEVERAL) if text else []
    labels, at = [], 0
    reader = json.JSONDecoder(strict=False)
    while at < len(text):
        if text[at] == '"':
            label, at = reader.raw_decode(text, at)
        else:
            end = text.find(SEVERAL, at)
            end = len(text) if end < 0 else end
            label, at = text[at:end], end
        labels.append(label)
        at += len(SEVERAL)
    return labels


def numbers(texts: Sequence[str]) -> Floats:
    """(n,) what numbers the texts tell.

    Raises:
        ValueError: naming the first text that is no finite number.
    """
    found = np.empty(len(texts))
    for at, text in enumerate(texts):
        try:
            found[at] = float(text)
        except ValueError:
            found[at] = np.nan
        if not np.isfinite(found[at]):
            raise ValueError(f"the answer {text!r} is no number")
    return found


def days(texts: Sequence[str]) -> Floats:
    """(n,) dates and times as days since the year 1; a time of day as a part of one day.

    Raises:
        ValueError: naming the first text that is neither.
    """
    return np.array([_day(text) for text in texts], dtype=np.float64)


def _day(text: str) -> float:
    try:
        if ":" in text[:3]:
            of_day, whole = time.fromisoformat(text), 0
        else:
            whole = date.fromisoformat(text[:10]).toordinal()
            of_day = datetime.fromisoformat(text).time() if len(text) > 10 else time()
    except ValueError as error:
        raise ValueError(f"the answer {text!r} is no date: {error}") from error
    seconds = (of_day.hour * 60 + of_day.minute) * 60 + of_day.second + of_day.microsecond / 1e6
    return whole + seconds / 86_400


def label_sets(texts: Sequence[str]) -> Ragged:
    """Each text as a set of labels: whole numbers, ascending."""
    number: dict[str, int] = {}
    rows = [sorted({number.setdefault(label, len(number)) for label in parted(text)}) for text in texts]
    return ragged(rows, dtype=np.int64)


def path_sets(texts: Sequence[str]) -> tuple[Ragged, Ragged]:
    """Each text as a set of paths, and every path once as its steps."""
    number: dict[str, int] = {}
    rows = [sorted({number.setdefault(path, len(number)) for path in parted(text)}) for text in texts]
    step: dict[str, int] = {}
    paths = [[step.setdefault(one, len(step)) for one in path.split(STEP)] for path in number]
    return ragged(rows, dtype=np.int64), ragged(paths, dtype=np.int64)


def buckets_of(text: str) -> dict[str, list[str]]:
    """A ranking: the items of every bucket, the best first.

    Raises:
        ValueError: if the text is no ranking.
    """
    try:
        found = json.loads(text)
        return {str(name): [str(item) for item in items] for name, items in sorted(found.items())}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"the answer {text!r} is no ranking: {error}") from error


def ranks_of(text: str) -> dict[str, int]:
    """The rank of each item of a ranking, from 0.

    Buckets are taken in alphabetical order, which is the same for everybody. What was left in the list is
    last, and all of it is equal.

    Raises:
        ValueError: if the text is no ranking.
    """
    buckets = buckets_of(text)
    left = buckets.pop(UNRANKED, [])
    ranked = [item for items in buckets.values() for item in items]
    return {item: place for place, item in enumerate(ranked)} | dict.fromkeys(left, len(ranked))


# How alike answers are: each takes the different answers, and compares them by their numbers.


def same_answers(texts: Sequence[str]) -> Similar:  # noqa: ARG001
    """The same or not."""
    return same


def choices(texts: Sequence[str]) -> Similar:
    """Labels in both over labels in either."""
    sets = label_sets(texts)
    return lambda i, j: jaccard(take(sets, i), take(sets, j))


def taxonomies(texts: Sequence[str]) -> Similar:
    """As choices, with partial credit for a path that begins alike."""
    sets, paths = path_sets(texts)
    return lambda i, j: taxonomy_similarity(take(sets, i), take(sets, j), paths)


def amounts(texts: Sequence[str]) -> Similar:
    """1 less the distance as a share of the distance of the two that are farthest apart."""
    return _near(numbers(texts))


def moments(texts: Sequence[str]) -> Similar:
    """As numbers, of dates and times."""
    return _near(days(texts))


def _near(values: Floats) -> Similar:
    spread = float(np.ptp(values)) if len(values) else 0.0
    return lambda i, j: interval_similarity(values[i], values[j], spread)


def texts(texts: Sequence[str]) -> Similar:
    """1 less the share of characters to be changed, whatever the case, white space or way of composing."""
    plain = normalized(texts)
    return lambda i, j: edit_similarity([plain[n] for n in i], [plain[n] for n in j])


def rankings(texts: Sequence[str]) -> Similar:
    """The share of pairs of items that are in the same order; what one does not name is last there."""
    number: dict[str, int] = {}
    given = [{number.setdefault(i, len(number)): r for i, r in ranks_of(text).items()} for text in texts]
    last = np.array([max(places.values(), default=-1) + 1 for places in given], dtype=np.float64)
    items = ragged([list(places) for places in given], dtype=np.int64)
    ranks = ragged([list(places.values()) for places in given])

    def similar(i: Ints, j: Ints) -> Floats:
        sides = []
        for side in (i, j):
            mine, offsets = take(items, side)
            pair = np.repeat(np.arange(len(side)), np.diff(offsets))
            sides.append((pair * len(number) + mine, take(ranks, side)[0]))
        every = np.unique(np.concatenate([key for key, _ in sides]))
        pair = every // max(len(number), 1)
        filled = []
        for side, (key, rank) in zip((i, j), sides, strict=True):
            found = last[side][pair]
            found[np.searchsorted(every, key)] = rank
            filled.append(found)
        offsets = offsets_of(np.bincount(pair, minlength=len(i)))
        return ranking_similarity((filled[0], offsets), (filled[1], offsets))

    return similar
