"""How to draw a sample for review, and what it says of the rest."""

from __future__ import annotations

import numpy as np
import polars as pl

from connector.quality.interval import CONFIDENCE, Estimate, Floats, clopper_pearson, hypergeometric, unknown

WAYS = ("random", "stratified")
ALL = "all"

METHOD = "stratified (Cochran 1977), Clopper-Pearson at the effective sample size (Korn and Graubard 1998)"

SAMPLE = pl.Schema(
    {
        "task": pl.String(),
        "probability": pl.Float64(),
        "stratum": pl.String(),
        "population": pl.Int64(),
        "stratum_population": pl.Int64(),
    }
)
"""A sample: the probability with which each task was drawn, how many tasks there are, and how many in its
stratum."""


def draw(tasks: pl.DataFrame, size: int, by: str, seed: int) -> pl.DataFrame:
    """Draw tasks without replacement.

    With more strata than tasks to draw, chance decides which strata are drawn from (systematically, in
    proportion to their size), so that every task has the same probability.

    Args:
        tasks: column task; `stratified` also needs stratum.
        size: how many, at most all.
        by: `random`, or `stratified`: from each stratum in proportion to its size, at least one where the
            size allows (largest remainders).
        seed: the same tasks and seed give the same sample, in whatever order they come.

    Returns:
        Schema `SAMPLE`, sorted by task.

    Raises:
        ValueError: if there are fewer tasks than asked for, or the way is unknown.
    """
    if by not in WAYS:
        raise ValueError(f"unknown way to draw {by!r}; one of {', '.join(WAYS)}")
    if not 0 < size <= len(tasks):
        raise ValueError(f"cannot draw {size} of {len(tasks)} tasks")
    stratum = pl.col("stratum") if by == "stratified" else pl.lit(ALL).alias("stratum")
    frame = tasks.select("task", stratum).unique().sort("stratum", "task")
    sizes = frame.group_by("stratum").agg(n=pl.len()).sort("stratum")["n"].to_numpy().astype(float)
    rng = np.random.default_rng(seed)
    covered = size >= len(sizes)
    wanted = _allocate(sizes, size) if covered else _systematic(sizes, size, rng)
    parts = []
    for (_, part), take in zip(frame.group_by("stratum", maintain_order=True), wanted, strict=True):
        chosen = np.sort(rng.choice(len(part), size=take, replace=False))
        probability = take / len(part) if covered else size / len(frame)
        parts.append(
            part[chosen].with_columns(
                probability=pl.lit(probability),
                population=pl.lit(len(frame), pl.Int64),
                stratum_population=pl.lit(len(part), pl.Int64),
            )
        )
    return pl.concat(parts).select(SAMPLE.names()).cast(SAMPLE).sort("task")


def _allocate(sizes: Floats, size: int) -> list[int]:
    """Whole numbers in proportion to sizes, at least one each; `size` is at least their number."""
    room = sizes - 1
    share = room * (size - len(sizes)) / max(room.sum(), 1)
    took = np.floor(share)
    order = np.argsort(-(share - took), kind="stable")
    took[order[: round(size - len(sizes) - took.sum())]] += 1
    return [int(n) for n in 1 + took]


def _systematic(sizes: Floats, size: int, rng: np.random.Generator) -> list[int]:
    """Whole numbers whose expectation is in proportion to sizes: equal steps from a random start.

    References:
        Cochran, W. G. (1977). Sampling Techniques, 3rd ed., chapter 8.
    """
    ends = np.cumsum(sizes) * size / sizes.sum()
    below = np.clip(np.ceil(ends - rng.random()), 0, size)
    return [int(n) for n in np.diff(below, prepend=0)]


def error_rate(
    sample: pl.DataFrame,
    verdicts: pl.DataFrame,
    population: dict[str, int],
    confidence: float = CONFIDENCE,
    everything: int | None = None,
) -> Estimate:
    """The share of wrong tasks in the whole, from the reviewed part of a sample.

    From one stratum: exact for a finite population. From several: each stratum's share weighted by its
    size, and Clopper and Pearson's interval at an effective sample size, after Korn and Graubard. Few tasks
    of a stratum say little of how its answers vary, above all when none of them is wrong. So each stratum's
    variance is that of its share joined with one task at the rate of the whole, and the interval is never
    narrower than if all strata had the same rate.

    A drawn stratum in which nothing was reviewed leaves the rate unknown; the interval then holds for the
    whole whatever the tasks of that stratum are.

    Args:
        sample: task, stratum, as `draw` gave them.
        verdicts: task, correct (1 or 0), at most one a task.
        population: how many tasks each stratum of the sample holds.
        confidence: of the interval.
        everything: how many tasks there are, by default those of `population`. Of the strata from which
            nothing was drawn, by chance, the others speak.

    Raises:
        ValueError: naming tasks that have a verdict but were not drawn, or have two.

    References:
        Cochran, W. G. (1977). Sampling Techniques, 3rd ed., sections 5.3-5.4 (stratified proportions).
        Korn, E. L. & Graubard, B. I. (1998). Confidence intervals for proportions with small expected number
        of positive counts estimated from survey data. Survey Methodology 24, 193-201.
    """
    strangers = verdicts.join(sample, on="task", how="anti")["task"].sort().to_list()
    if strangers:
        raise ValueError(f"{len(strangers)} tasks with a verdict were not drawn, such as {strangers[0]}")
    twice = verdicts.filter(verdicts["task"].is_duplicated())["task"].sort().to_list()
    if twice:
        raise ValueError(f"task {twice[0]} has more than one verdict")
    everything = sum(population.values()) if everything is None else everything
    seen = (
        sample.join(verdicts, on="task")
        .group_by("stratum")
        .agg(n=pl.len(), k=(pl.col("correct") == 0).sum())
        .sort("stratum")
    )
    if len(population) == 1 and everything == sum(population.values()):
        k, n = seen.select("k", "n").row(0) if len(seen) else (0, 0)
        return hypergeometric(k, n, everything, confidence)
    if not len(seen):
        return unknown(0, METHOD, "nothing was reviewed")
    k, n = (seen[name].to_numpy().astype(float) for name in ("k", "n"))
    sizes = np.array([population[name] for name in seen["stratum"]], float)
    silent = sorted(set(population) - set(seen["stratum"]))
    unseen = sum(population[name] for name in silent)
    # Strata from which chance drew nothing are spoken for by those it drew from.
    found = _stratified(k, n, sizes, everything - unseen, confidence)
    if not silent:
        return found
    share = unseen / everything
    low, high = ((found.low or 0) * (1 - share), (found.high or 0) * (1 - share) + share)
    more = f" and {len(silent) - 1} more" if len(silent) > 1 else ""
    why = f"nothing was reviewed in stratum {silent[0]}{more} ({unseen} of {everything} tasks)"
    return Estimate(None, low, high, found.n, METHOD, why)


def _stratified(k: Floats, n: Floats, sizes: Floats, everything: int, confidence: float) -> Estimate:
    """From the wrong and the reviewed tasks of each stratum, (H,) each, and how many tasks it holds."""
    weight, reviewed = sizes / sizes.sum(), int(n.sum())
    rate = float((weight * k / n).sum())
    if reviewed == everything:
        return Estimate(rate, rate, rate, reviewed, METHOD)
    unreviewed = 1 - n / sizes if sizes.sum() == everything else 1 - reviewed / everything
    unit = weight**2 * unreviewed / n
    share = (k + rate) / (n + 1)
    effective = 1 / float(unit.sum())
    variance = float((unit * share * (1 - share)).sum())
    if variance > 0:
        effective = min(effective, rate * (1 - rate) / variance)
    bare = clopper_pearson(rate * effective, effective, confidence)
    # What was seen is certain, whatever the rest is.
    low = max(bare.low or 0.0, float(k.sum()) / everything)
    high = min(1.0 if bare.high is None else bare.high, 1 - float((n - k).sum()) / everything)
    return Estimate(rate, low, high, reviewed, METHOD)
