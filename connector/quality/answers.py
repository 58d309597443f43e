"""What answers that are not drawn say, read from their text, and how alike two of them are.

A choice of several labels is told as `cat + dog`; a label that holds the sign itself stands in quotes.
Numbers are told as such, dates in ISO 8601, a ranking as the items of every bucket in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

import numpy as np
import polars as pl

from connector.quality.interval import Floats, Ints
from connector.quality.similarity import (
    Ragged,
    edit_similarity,
    interval_similarity,
    jaccard,
    normalized,
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


def ranks(texts: Sequence[str]) -> tuple[list[str], Floats]:
    """Rankings as ranks.

    Within a bucket the first is best; buckets are taken in alphabetical order, which is the same for
    everybody. Items that were left in the list, or are not named, share the last rank.

    Returns:
        The items, and (n, items) the rank of each, from 0.

    Raises:
        ValueError: naming the first text that is no ranking.
    """
    given = [_places(text) for text in texts]
    items = sorted({item for places in given for item in places})
    found = np.array([[places.get(item, len(items)) for item in items] for places in given], dtype=np.float64)
    return items, found.reshape(len(texts), len(items))


def _places(text: str) -> dict[str, int]:
    try:
        buckets: Mapping[str, list[Any]] = json.loads(text)
        kept = [str(one) for name in sorted(buckets) if name != UNRANKED for one in buckets[name]]
    except (ValueError, TypeError) as error:
        raise ValueError(f"the answer {text!r} is no ranking: {error}") from error
    left = {str(one): len(kept) for one in buckets.get(UNRANKED, [])}
    return left | {item: place for place, item in enumerate(kept)}


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
    """The share of pairs of items that are in the same order."""
    _, found = ranks(texts)
    width = found.shape[1]

    def similar(i: Ints, j: Ints) -> Floats:
        ends = np.arange(len(i) + 1, dtype=np.int64) * width
        return ranking_similarity((found[i].ravel(), ends), (found[j].ravel(), ends))

    return similar
