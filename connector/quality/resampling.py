"""Intervals of what is computed from sums over tasks, by drawing the tasks anew.

Whole tasks are drawn, since the answers to one task are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from connector.quality.interval import Estimate, Floats, Ints, unknown

RESAMPLES = 1000

MANY = 2000
"""More tasks than this are put together by chance into so many groups before they are drawn."""

CELLS = 1 << 24
"""Numbers held at once, at most."""

Statistic = Callable[[Floats], Floats]
"""Sums over tasks to numbers: (R, S) -> (R, M). NaN where there is none."""

METHOD = "; percentile bootstrap over tasks"
ONE_TASK = "one task gives no interval"
ONE_LABEL = "only one label was ever given, so agreement by chance is certain"
TWO = "no unit has two answers"


def groups(task: Ints, width: int, seed: int) -> Ints:
    """The group that each task is in: the task itself, unless there are too many.

    Args:
        task: (U,) the number of the task of each unit.
        width: how many sums there will be for each group.

    Returns:
        (U,) the number of the group of each unit's task.
    """
    tasks = int(task.max(initial=-1)) + 1
    most = max(2, min(MANY, CELLS // max(width, 1)))
    if tasks <= most:
        return task
    dealt = np.random.default_rng([seed, 1]).permutation(tasks) % most
    of_unit: Ints = dealt[task]
    return of_unit


def bootstrap(
    sums: Floats,
    statistic: Statistic,
    names: Sequence[str],
    n: int,
    seed: int,
    confidence: float,
    resamples: int,
) -> list[Estimate]:
    """Each number with its percentile interval.

    Args:
        sums: (G, S) of each task, or group of tasks.
        names: (M,) of the numbers.
        n: the units behind them.

    References:
        Efron, B. & Tibshirani, R. (1993). An Introduction to the Bootstrap, chapter 13.
    """
    if not n:
        return [unknown(0, name + METHOD, TWO) for name in names]
    with np.errstate(divide="ignore", invalid="ignore"):
        value = statistic(sums.sum(axis=0, keepdims=True))[0]
        drawn = statistic(_resampled(sums, seed, resamples))
    tail = (1 - confidence) / 2
    made = []
    for name, point, column in zip(names, value, drawn.T, strict=True):
        column = column[np.isfinite(column)]
        if not np.isfinite(point):
            made.append(unknown(n, name + METHOD, ONE_LABEL))
        elif len(sums) < 2 or not len(column):
            made.append(Estimate(float(point), None, None, n, name, ONE_TASK))
        else:
            low, high = np.quantile(column, [tail, 1 - tail])
            made.append(Estimate(float(point), float(low), float(high), n, name + METHOD))
    return made


def _resampled(sums: Floats, seed: int, resamples: int) -> Floats:
    """(R, S) the sums over tasks drawn with replacement."""
    rng, tasks = np.random.default_rng(seed), len(sums)
    drawn = np.empty((resamples, sums.shape[1]))
    for start in range(0, resamples, 100):
        many = min(100, resamples - start)
        times = np.stack([np.bincount(rng.integers(tasks, size=tasks), minlength=tasks) for _ in range(many)])
        drawn[start : start + many] = times @ sums
    return drawn
