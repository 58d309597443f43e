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
    bucket_similarity,
    edit_similarity,
    interval_similarity,
    jaccard,
    normalized,
    offsets_of,
    ragged,
    ranking_similarity,
    relative_similarity,
    same,
    take,
    taxonomy_similarity,
)
from connector.quality.table import Scale

ABSENT = "ABSENT"
"""What an annotator says of an object that only others drew, and of a question that was left empty."""

SEVERAL = " + "
"""Joins the labels of a multiple choice, in alphabetical order."""

STEP = " / "
"""Joins the steps of a path."""

UNRANKED = "_"
"""The bucket of the items that were left in the list."""

UNDECLARED = Scale()
"""Of a control about whose answers nothing is declared."""

_LAST = 1e9
"""The rank of what was left in the list, or not named: after all others."""

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


def deepest(text: str) -> str:
    """A set of paths without those that lead to another one of it: ticking those says nothing more.

    >>> deepest("Animal + Animal / Mammal + Plant")
    'Animal / Mammal + Plant'
    """
    paths = parted(text)
    if len(paths) < 2:
        return text
    above = {path[:at] for path in paths for at in range(len(path)) if path.startswith(STEP, at)}
    return together(path for path in paths if path not in above)


def path_sets(texts: Sequence[str]) -> tuple[Ragged, Ragged]:
    """Each text as a set of paths, and every path once as its steps."""
    number: dict[str, int] = {}
    rows = [
        sorted({number.setdefault(path, len(number)) for path in parted(text)})
        for text in map(deepest, texts)
    ]
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
        return {str(name): [str(item) for item in items] for name, items in found.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"the answer {text!r} is no ranking: {error}") from error


def ranks_of(text: str, scale: Scale = UNDECLARED) -> dict[str, int]:
    """The rank of each item of a ranking, from 0; items that are not told apart have the same one.

    Buckets are in their declared order. Inside a bucket the order counts where that is declared, and where
    there is but one. Buckets without a declared order are not ranked against each other: all have one rank.
    What was left in the list is last, and all of it is equal.

    Raises:
        ValueError: if the text is no ranking, or names a bucket that the declared order does not have.
    """
    buckets = buckets_of(text)
    left = buckets.pop(UNRANKED, [])
    strange = [name for name in buckets if scale.order and name not in scale.order]
    if strange:
        raise ValueError(f"there is no bucket {strange[0]!r}, only {', '.join(scale.order)}")
    inside = scale.inside if scale.order else len(buckets) == 1
    ranks, rank = dict[str, int](), 0
    for name in scale.order or buckets:
        items = buckets.get(name, [])
        ranks |= {item: rank + place * inside for place, item in enumerate(items)}
        rank += max(len(items), 1) if scale.order or inside else 0
    return ranks | dict.fromkeys(left, max(rank, 1))


# How alike answers are: each takes the different answers, and compares them by their numbers.


def same_answers(texts: Sequence[str], scale: Scale = UNDECLARED) -> Similar:  # noqa: ARG001
    """The same or not."""
    return same


def choices(texts: Sequence[str], scale: Scale = UNDECLARED) -> Similar:  # noqa: ARG001
    """Labels in both over labels in either."""
    sets = label_sets(texts)
    return lambda i, j: jaccard(take(sets, i), take(sets, j))


def taxonomies(texts: Sequence[str], scale: Scale = UNDECLARED) -> Similar:  # noqa: ARG001
    """As choices, of the deepest paths only, with partial credit for a path that begins alike."""
    sets, paths = path_sets(texts)
    return lambda i, j: taxonomy_similarity(take(sets, i), take(sets, j), paths)


def amounts(texts: Sequence[str], scale: Scale = UNDECLARED) -> Similar:
    """See `near`."""
    return near(numbers(texts), scale)


MONTH = 30.0
"""Dates without a declared range that are so many days apart have nothing in common."""


def moments(texts: Sequence[str], scale: Scale = UNDECLARED) -> Similar:
    """1 less the distance as a share of the declared range or tolerance; without one, of a `MONTH` between
    dates, and of a day between times of day."""
    values = days(texts)
    if scale.span is not None:
        return near(values, scale)
    return lambda i, j: interval_similarity(
        values[i], values[j], np.where((values[i] < 1) & (values[j] < 1), 1.0, MONTH)
    )


def near(values: Floats, scale: Scale) -> Similar:
    """1 less the distance as a share of the declared range or tolerance; without one, of the larger number.

    Nothing is taken from what others answered: one wild answer must not make all others look alike.
    """
    span = scale.span
    if span is None:
        return lambda i, j: relative_similarity(values[i], values[j])
    return lambda i, j: interval_similarity(values[i], values[j], span)


def places(texts: Sequence[str], order: Sequence[str]) -> Floats:
    """(n,) the place of each answer in a declared order, from 0.

    Raises:
        ValueError: naming the first answer that is not in it.
    """
    place = {label: float(n) for n, label in enumerate(order)}
    strange = [text for text in texts if text not in place]
    if strange:
        raise ValueError(f"the answer {strange[0]!r} is not in the order {', '.join(order)}")
    return np.array([place[text] for text in texts], dtype=np.float64)


def texts(texts: Sequence[str], scale: Scale = UNDECLARED) -> Similar:  # noqa: ARG001
    """1 less the share of characters to be changed, whatever the case, white space or way of composing."""
    plain = normalized(texts)
    return lambda i, j: edit_similarity([plain[n] for n in i], [plain[n] for n in j])


def rankings(texts: Sequence[str], scale: Scale = UNDECLARED) -> Similar:
    """How alike two rankings are; what one does not name is as if left in the list.

    In one list: the share of pairs of items in the same order. In several buckets: the mean of two shares,
    that of the items that are in the same bucket, and that of the pairs in the same order among those that
    either one puts in an order. Where no pair is in an order, the buckets alone count.
    """
    number: dict[str, int] = {}
    bucket = {UNRANKED: 0}
    items, ranks, where = [], [], []
    for text in texts:
        rank = ranks_of(text, scale)
        held = {item: name for name, some in buckets_of(text).items() for item in some}
        items.append([number.setdefault(item, len(number)) for item in rank])
        ranks.append([_LAST if held[item] == UNRANKED else place for item, place in rank.items()])
        where.append([bucket.setdefault(held[item], len(bucket)) for item in rank])
    one_list = np.array([not scale.order and len({*row} - {0}) <= 1 for row in where], dtype=bool)
    named, placed, put_in = ragged(items, dtype=np.int64), ragged(ranks), ragged(where)

    def similar(i: Ints, j: Ints) -> Floats:
        keys = []
        for side in (i, j):
            mine, offsets = take(named, side)
            pair = np.repeat(np.arange(len(side)), np.diff(offsets))
            keys.append(pair * len(number) + mine)
        every = np.unique(np.concatenate(keys))
        pair = every // max(len(number), 1)
        offsets = offsets_of(np.bincount(pair, minlength=len(i)))
        filled = []
        for side, key in zip((i, j), keys, strict=True):
            rank, put = np.full(len(pair), _LAST), np.zeros(len(pair))
            at = np.searchsorted(every, key)
            rank[at], put[at] = take(placed, side)[0], take(put_in, side)[0]
            filled.append(((rank, offsets), (put, offsets)))
        (ranks_i, put_i), (ranks_j, put_j) = filled
        plain = ranking_similarity(ranks_i, ranks_j)
        several = bucket_similarity(ranks_i, ranks_j, put_i, put_j)
        both: Floats = np.where(one_list[i] & one_list[j], plain, several)
        return both

    return similar
