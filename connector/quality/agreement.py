"""How far annotators agree with each other: observed, and corrected for chance.

Everything is computed from one table of counts (units × labels), in one pass; intervals come from
resampling whole tasks, since the units of one task are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from connector.quality.interval import CONFIDENCE, Estimate, Floats, Ints, unknown
from connector.quality.units import UNIT

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Agreement:
    """Four answers to one question, over units with at least two answers."""

    observed: Estimate
    krippendorff_alpha: Estimate
    fleiss_kappa: Estimate
    gwet_ac1: Estimate


def counts(table: pl.DataFrame) -> tuple[Floats, Ints]:
    """How often each label was given in each unit.

    Args:
        table: columns of `UNITS`, of one control.

    Returns:
        (U, K) counts; (U,) the number of the task of each unit.
    """
    unit = table.select(pl.struct(UNIT).rank("dense")).to_series().to_numpy().astype(np.int64) - 1
    label = table["label"].rank("dense").to_numpy().astype(np.int64) - 1
    task = table["task"].rank("dense").to_numpy().astype(np.int64) - 1
    if not len(table):
        return np.zeros((0, 0)), np.zeros(0, dtype=np.int64)
    n_units, n_labels = int(unit.max()) + 1, int(label.max()) + 1
    found = np.bincount(unit * n_labels + label, minlength=n_units * n_labels)
    of_unit = np.zeros(n_units, dtype=np.int64)
    of_unit[unit] = task
    return found.reshape(n_units, n_labels).astype(float), of_unit


def agreement(
    table: pl.DataFrame, seed: int, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Agreement:
    """Agreement among all rows of a unit table of one control.

    Observed is the mean over units of the share of pairs that agree. Units with one answer say nothing
    about agreement; kappa and AC1 count them when they judge what chance would do, as Gwet (2014) does.
    `ABSENT` is a label like any other.

    Args:
        table: columns of `UNITS`.
        seed: of the resampling of tasks (percentile bootstrap).
        confidence: of the intervals.
        resamples: how often tasks are drawn anew.

    References:
        Observed and kappa: Fleiss, J. L. (1971). Measuring nominal scale agreement among many raters.
        Psychological Bulletin 76, 378-382; for missing answers Gwet, K. L. (2014). Handbook of Inter-Rater
        Reliability, 4th ed., chapter 2. AC1: Gwet (2008). Br J Math Stat Psychol 61, 29-48. Alpha:
        Krippendorff, K. (2011). Computing Krippendorff's Alpha-Reliability. Intervals: Efron, B. &
        Tibshirani, R. (1993). An Introduction to the Bootstrap, chapter 13.
    """
    found, task = counts(table)
    return agreement_of_counts(found, task, seed, confidence, resamples)


def agreement_of_counts(
    found: Floats,
    task: Ints,
    seed: int,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Agreement:
    """The same from counts.

    Args:
        found: (U, K) how often each label was given in each unit.
        task: (U,) the task of each unit.
    """
    pairable = int((found.sum(axis=1) >= 2).sum())
    names = ("observed", "krippendorff", "fleiss", "gwet ac1")
    method = "; percentile bootstrap over tasks"
    if not pairable:
        why = "no unit has two answers"
        return Agreement(*(unknown(0, name + method, why) for name in names))
    sums = _sums_by_task(found, task)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = _statistics(sums.sum(axis=0, keepdims=True), found.shape[1])[0]
        drawn = _statistics(_resampled(sums, seed, resamples), found.shape[1])
    tail = (1 - confidence) / 2
    made = []
    for name, point, column in zip(names, value, drawn.T, strict=True):
        column = column[np.isfinite(column)]
        if not np.isfinite(point):
            why = "only one label was ever given, so agreement by chance is certain"
            made.append(unknown(pairable, name + method, why))
        elif len(sums) < 2 or not len(column):
            made.append(Estimate(float(point), None, None, pairable, name, "one task gives no interval"))
        else:
            low, high = np.quantile(column, [tail, 1 - tail])
            made.append(Estimate(float(point), float(low), float(high), pairable, name + method))
    return Agreement(*made)


def _sums_by_task(found: Floats, task: Ints) -> Floats:
    """(T, 4 + 2K) the additive parts of all four statistics.

    Of units with two answers: how many, agreement, coincidences, labels given. Of all with an answer: how
    many, and the share of each label, from which kappa and AC1 take chance.
    """
    rated = found.sum(axis=1)
    two, one = rated >= 2, rated >= 1
    same = (found * (found - 1)).sum(axis=1)
    others = np.where(two, rated - 1, 1.0)
    parts = np.column_stack(
        [
            two,
            np.where(two, same / (np.where(two, rated, 1.0) * others), 0.0),
            np.where(two, same / others, 0.0),
            one,
            np.where(two[:, None], found, 0.0),
            found / np.where(one, rated, 1.0)[:, None],
        ]
    )
    number = np.unique(task, return_inverse=True)[1]
    sums = np.zeros((int(number.max()) + 1, parts.shape[1]))
    np.add.at(sums, number, parts)
    return sums


def _resampled(sums: Floats, seed: int, resamples: int) -> Floats:
    """(R, S) the sums over tasks drawn with replacement."""
    rng = np.random.default_rng(seed)
    tasks = len(sums)
    drawn = np.empty((resamples, sums.shape[1]))
    for r in range(resamples):
        drawn[r] = np.bincount(rng.integers(tasks, size=tasks), minlength=tasks) @ sums
    return drawn


def _statistics(sums: Floats, labels: int) -> Floats:
    """(R, 4) observed, alpha, kappa, AC1 from (R, S) sums."""
    units, agreed, coincide = sums[:, 0], sums[:, 1], sums[:, 2]
    given, shares = sums[:, 4 : 4 + labels], sums[:, 4 + labels :] / sums[:, 3, None]
    observed = agreed / units
    n = given.sum(axis=1)
    alpha = 1 - (n - 1) * (n - coincide) / (n**2 - (given**2).sum(axis=1))
    by_chance = (shares**2).sum(axis=1)
    kappa = (observed - by_chance) / (1 - by_chance)
    gwet = (shares * (1 - shares)).sum(axis=1) / (labels - 1) if labels > 1 else np.full(len(sums), np.nan)
    ac1 = (observed - gwet) / (1 - gwet)
    # A sample of one label only has nothing to disagree on; rounding must not make a number of it.
    settled = np.isclose(by_chance, 1)
    alpha[settled], kappa[settled] = np.nan, np.nan
    return np.column_stack([observed, alpha, kappa, ac1])


def pairs(table: pl.DataFrame) -> pl.DataFrame:
    """Agreement of every two annotators, over the units both answered.

    Args:
        table: columns of `UNITS`; several controls may stand in it.

    Returns:
        annotator_a < annotator_b, units, agreement, kappa (Cohen, J. (1960). Educational and Psychological
        Measurement 20, 37-46; null where chance agreement is certain), sorted.
    """
    said = table.select(*UNIT, "annotator", "label").with_columns(
        label=pl.format("{}\x1f{}", "control", "label")
    )
    both = said.join(said, on=UNIT, suffix="_b").filter(pl.col("annotator") < pl.col("annotator_b"))
    both = both.rename({"annotator": "annotator_a"})
    two = ["annotator_a", "annotator_b"]
    seen = both.group_by(two).agg(units=pl.len(), agreement=(pl.col("label") == pl.col("label_b")).mean())
    a = both.group_by(*two, "label").agg(a=pl.len())
    b = both.group_by(*two, pl.col("label_b").alias("label")).agg(b=pl.len())
    chance = a.join(b, on=[*two, "label"]).group_by(two).agg(both=(pl.col("a") * pl.col("b")).sum())
    by_chance = pl.col("both").fill_null(0) / pl.col("units").cast(pl.Float64) ** 2
    kappa = pl.when(by_chance < 1).then((pl.col("agreement") - by_chance) / (1 - by_chance))
    return seen.join(chance, on=two, how="left").with_columns(kappa=kappa).drop("both").sort(two)
