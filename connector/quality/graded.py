"""Agreement of answers that are more or less alike: numbers, ratings, texts, rankings, sets of labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from connector.quality.answers import Similar
from connector.quality.counts import Counts, by_group
from connector.quality.interval import Floats, Ints
from connector.quality.kinds import ANSWERED, CHOICE, DATE, comparer, values_of
from connector.quality.similarity import pairs_within
from connector.quality.table import Scale

DISTINCT = 1000
"""Of so many different answers every two are compared; of more, a sample tells what chance does."""

SAMPLE = 200_000


@dataclass(frozen=True, slots=True)
class Distances:
    """How far answers are apart, and what chance does.

    Attributes:
        measure: the name of the similarity.
        similar, apart: of two labels, by their numbers. Alpha compares what is apart.
        features: (K, F) numbers of each label, whose sums over answers tell what chance does.
        by_chance: those sums (R, F) and the numbers of answers (R,), to the mean distance of two of them
            (R,).
        weight: the sum of the similarity of every two labels, for AC2; None of too many labels.
    """

    measure: str
    similar: Similar
    apart: Similar
    features: Floats
    by_chance: Callable[[Floats, Floats], Floats]
    weight: float | None


def scale_of(paired: Counts, kind: str, declared: Scale, seed: int) -> Distances:
    """How far answers are apart at the declared level.

    How alike two answers are, they and what is declared decide. Alpha takes its distances from the data, as
    Krippendorff (2011) defines them.
    """
    similar = comparer(kind, paired.labels, declared)
    if declared.level == "similarity":
        measure = ANSWERED.get(kind, ANSWERED[CHOICE]).measure
        return _by_any(paired, measure, similar, lambda i, j: 1 - similar(i, j), seed)
    x, measure, level = values_of(kind, paired.labels, declared), "distance over range", declared.level
    if declared.span is None and not declared.order:
        measure = "distance over a month" if kind == DATE else "distance over the larger number"
    near = similar
    if level == "ratio":
        return _by_any(paired, measure, near, lambda i, j: _quotient(x[i], x[j]), seed)
    place = _middle_ranks(paired, x) if level == "ordinal" else x
    place = place - place.mean() if len(place) else place
    # Of squared distances the mean follows from sums: of places, and of their squares.
    return Distances(
        measure,
        near,
        lambda i, j: (place[i] - place[j]) ** 2,
        np.column_stack([place, place**2]),
        lambda sums, n: 2 * (n * sums[:, 1] - sums[:, 0] ** 2) / (n * (n - 1)),
        _weight(len(x), near),
    )


def _quotient(x: Floats, y: Floats) -> Floats:
    whole = x + y
    return np.divide(x - y, whole, out=np.zeros_like(whole), where=whole != 0) ** 2


def _middle_ranks(paired: Counts, x: Floats) -> Floats:
    """(K,) how many answers are below each label's, and half of those that are equal: their squared distance
    is Krippendorff's ordinal one."""
    _, place = np.unique(x, return_inverse=True)
    given = np.bincount(place[paired.label], paired.n, int(place.max(initial=-1)) + 1)
    ranks: Floats = (np.cumsum(given) - given / 2)[place]
    return ranks


def _by_any(paired: Counts, measure: str, similar: Similar, apart: Similar, seed: int) -> Distances:
    """A scale of answers that are only known to be more or less apart, two by two."""
    many = len(paired.labels)
    if many <= DISTINCT:
        every = apart(*np.divmod(np.arange(many * many), max(many, 1))).reshape(many, many)
        return Distances(
            measure,
            similar,
            apart,
            np.eye(many),
            lambda sums, n: ((sums @ every) * sums).sum(axis=1) / (n * (n - 1)),
            _weight(many, similar),
        )
    answers, rng = np.cumsum(paired.n), np.random.default_rng([seed, 2])
    one, other = rng.integers(answers[-1], size=(2, SAMPLE))
    i, j = (paired.label[np.searchsorted(answers, side, side="right")] for side in (one, other))
    mean = float(apart(i, j)[one != other].mean())
    none = np.zeros((many, 0))
    return Distances(measure, similar, apart, none, lambda _, n: np.full(len(n), mean), None)


def _weight(labels: int, similar: Similar) -> float | None:
    if labels > DISTINCT:
        return None
    return float(similar(*np.divmod(np.arange(labels * labels), max(labels, 1))).sum())


def graded_sums(found: Counts, paired: Counts, scale: Distances, group: Ints) -> Floats:
    """(G, 5 + F + K) the additive parts: of units with two answers how many, how alike they are, how far
    apart, and how many answers; of all units how many; the features of paired answers, the shares of
    labels."""
    size, mine = int(group.max(initial=-1)) + 1, group[found.answers >= 2]
    sums = [
        np.bincount(mine, minlength=size),
        np.bincount(mine, pair_similarity(paired, scale.similar), size),
        np.bincount(mine, _over_pairs(paired, scale.apart) / (paired.answers - 1.0), size),
        np.bincount(mine, paired.answers, size),
        np.bincount(group, minlength=size),
    ]
    entry = mine[paired.unit]
    given = [np.bincount(entry, paired.n * feature[paired.label], size) for feature in scale.features.T]
    if scale.weight is None:
        return np.column_stack([*sums, *given])
    shares = found.n / found.answers[found.unit]
    labels = len(found.labels)
    return np.column_stack([*sums, *given, by_group(group[found.unit], found.label, shares, size, labels)])


def graded_imagined(paired: Counts, scale: Distances) -> Floats:
    """(2, 5 + F + K) what `graded_sums` holds of a task on which all agree, and of one on which nobody does:
    whose answers are any different labels, each as likely as the others."""
    labels, answers = len(paired.labels), float(paired.answers.mean()) if len(paired.answers) else 0.0
    each = scale.features.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = answers * float(scale.by_chance(each[None], np.array([float(labels)]))[0])
    known = scale.weight is not None and labels > 1
    alike = ((scale.weight or 0.0) - labels) / (labels * (labels - 1)) if known else 0.0
    shares = [] if scale.weight is None else [1 / labels] * labels
    rest = [answers, 1.0, *(answers * each / max(labels, 1)), *shares]
    return np.array([[1.0, 1.0, 0.0, *rest], [1.0, alike, apart, *rest]])


def pair_similarity(found: Counts, similar: Similar) -> Floats:
    """(U,) how alike every two answers to each unit are, on average; NaN where there is only one.

    Pairs that are both `ABSENT` are left out, unless all are.
    """
    shared = found.both_absent()
    pairs = found.answers * (found.answers - 1.0) - shared
    alike = _over_pairs(found, similar) + found.per_unit(found.n * (found.n - 1.0)) - shared
    mean: Floats = np.divide(alike, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
    return mean


def _over_pairs(paired: Counts, of_two: Similar) -> Floats:
    """(U,) the sum over every two answers of a unit with different labels, in both orders."""
    i, j = pairs_within(paired.unit)
    value = of_two(paired.label[i], paired.label[j]) * paired.n[i] * paired.n[j]
    whole: Floats = 2 * np.bincount(paired.unit[i], value, len(paired.answers)).astype(np.float64)
    return whole


def graded(sums: Floats, scale: Distances) -> Floats:
    """(R, 3) mean similarity, alpha, AC2 from (R, S) sums."""
    units, alike, apart, answers, everything = sums[:, :5].T
    features = scale.features.shape[1]
    observed = alike / units
    by_chance = scale.by_chance(sums[:, 5 : 5 + features], answers)
    alpha = np.where(by_chance > 1e-12, 1 - apart / answers / by_chance, np.nan)
    shares = sums[:, 5 + features :] / everything[:, None]
    labels = shares.shape[1]
    if scale.weight is None or labels < 2:
        return np.column_stack([observed, alpha, np.full(len(sums), np.nan)])
    gwet = scale.weight / (labels * (labels - 1)) * (shares * (1 - shares)).sum(axis=1)
    return np.column_stack([observed, alpha, (observed - gwet) / (1 - gwet)])
