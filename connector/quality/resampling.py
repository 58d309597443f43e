"""Intervals of what is computed from sums over tasks, by leaving each task out in turn.

Whole tasks are left out, since the answers to one task are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from connector.quality.interval import Estimate, Floats, Ints, unknown

FEWEST = 5
"""Fewer tasks with two answers give no interval."""

IMAGINED = 2.0
"""As many tasks on which all agree, and on which nobody does, are added before an interval is made."""

MANY = 2000
"""More tasks than this are randomly put into so many groups, which are then left out in turn."""

CELLS = 1 << 22
"""Numbers held at once, at most."""

Statistic = Callable[[Floats], Floats]
"""Sums over tasks to numbers: (R, S) -> (R, M). NaN where there is none."""

METHOD = "; jackknife over tasks, plus 2 agreements and 2 disagreements, Student's t"
FEW = f"fewer than {FEWEST} tasks with two answers give no interval"
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


def jackknife(
    sums: Floats,
    imagined: Floats,
    statistic: Statistic,
    names: Sequence[str],
    n: int | Sequence[int],
    tasks: int,
    confidence: float,
    lowest: Sequence[float],
) -> list[Estimate]:
    """Each number with an interval that also holds for few tasks.

    As Agresti and Coull do for a proportion, imagined successes and failures are added before the interval
    is made, so that tasks which all agree do not give an interval of no width. The variance is that of the
    delete-one jackknife of all tasks, imagined ones included; the quantile is Student's t. The number
    itself is that of the real tasks, and lies in its interval. The coverage is shown in docs/statistics.md.

    Args:
        sums: (G, S) of each task, or group of tasks.
        imagined: (2, S) the sums of one task on which all agree, and of one on which nobody does.
        statistic: gives M numbers.
        names: (M,) of the numbers.
        n: the units behind them, or behind each of them.
        tasks: how many tasks have two answers.
        confidence: of the intervals.
        lowest: (M,) the least possible value of each number; the greatest is 1.

    References:
        Agresti, A. & Coull, B. A. (1998). Approximate is better than "exact" for interval estimation of
        binomial proportions. The American Statistician 52(2), 119-126. Efron, B. & Tibshirani, R. (1993). An
        Introduction to the Bootstrap, chapter 11.
    """
    behind = [n] * len(names) if isinstance(n, int) else n
    if not any(behind):
        return [unknown(0, name + METHOD, TWO) for name in names]
    whole = sums.sum(axis=0)
    more = whole + IMAGINED * imagined.sum(axis=0)
    step = max(1, CELLS // 2 // len(whole))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = statistic(whole[None])[0]
        centre = statistic(more[None])[0]
        moved = sum(
            np.nansum((statistic(more - sums[at : at + step]) - centre) ** 2, axis=0)
            for at in range(0, len(sums), step)
        ) + IMAGINED * np.nansum((statistic(more - imagined) - centre) ** 2, axis=0)
    count = len(sums) + 2 * IMAGINED
    half = _t(min(tasks, len(sums)) - 1, confidence) * np.sqrt(moved * (count - 1) / count)
    made = []
    for m, (name, n) in enumerate(zip(names, behind, strict=True)):
        point = float(value[m])
        if not np.isfinite(point):
            made.append(unknown(n, name + METHOD, ONE_LABEL if n else TWO))
        elif tasks < FEWEST:
            made.append(Estimate(point, None, None, n, name, FEW))
        else:
            low, high = float(centre[m] - half[m]), float(centre[m] + half[m])
            low, high = min(max(lowest[m], low), point), max(min(1.0, high), point)
            made.append(Estimate(point, low, high, n, name + METHOD))
    return made


def _t(freedom: int, confidence: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(max(freedom, 1), 0.5 + confidence / 2))
