"""How to draw a sample for review, and what it says of the rest."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import polars as pl

from connector.quality.interval import CONFIDENCE, Estimate, Floats, hypergeometric, unknown, wilson

WAYS = ("random", "stratified")
ALL = "all"


def draw(tasks: pl.DataFrame, size: int, by: str, seed: int) -> pl.DataFrame:
    """Draw tasks without replacement.

    Args:
        tasks: column task; `stratified` also needs stratum.
        size: how many, at most all.
        by: `random`, or `stratified`: from each stratum in proportion to its size, at least one where the
            size allows (largest remainders).
        seed: the same tasks and seed give the same sample, in whatever order they come.

    Returns:
        task, probability (with which it was drawn), stratum; sorted by task.

    Raises:
        ValueError: if there are fewer tasks than asked for, or the way is unknown.
    """
    if by not in WAYS:
        raise ValueError(f"unknown way to draw {by!r}; one of {', '.join(WAYS)}")
    if not 0 < size <= len(tasks):
        raise ValueError(f"cannot draw {size} of {len(tasks)} tasks")
    stratum = pl.col("stratum") if by == "stratified" else pl.lit(ALL).alias("stratum")
    frame = tasks.select("task", stratum).unique().sort("stratum", "task")
    sizes = frame.group_by("stratum").agg(n=pl.len()).sort("stratum")
    wanted = _allocate(sizes["n"].to_numpy().astype(float), size)
    rng = np.random.default_rng(seed)
    parts = []
    for (_, part), take in zip(frame.group_by("stratum", maintain_order=True), wanted, strict=True):
        chosen = np.sort(rng.choice(len(part), size=take, replace=False))
        parts.append(part[chosen].with_columns(probability=pl.lit(take / len(part))))
    return pl.concat(parts).select("task", "probability", "stratum").sort("task")


def _allocate(sizes: Floats, size: int) -> list[int]:
    """Whole numbers in proportion to sizes: one each first, if that many are wanted."""
    first = np.ones(len(sizes)) if size >= len(sizes) else np.zeros(len(sizes))
    left = size - first.sum()
    room = sizes - first
    share = room * left / max(room.sum(), 1)
    took = np.floor(share)
    order = np.argsort(-(share - took), kind="stable")
    took[order[: round(left - took.sum())]] += 1
    return [int(n) for n in first + took]


def error_rate(
    sample: pl.DataFrame, verdicts: pl.DataFrame, population: dict[str, int], confidence: float = CONFIDENCE
) -> Estimate:
    """The share of wrong tasks in the whole, from the reviewed part of a sample.

    From one stratum: exact for a finite population. From several: each stratum's share weighted by its
    size, with the finite population correction, and Wilson's interval at the effective sample size of that
    variance. A stratum in which nothing was reviewed leaves the whole unknown.

    Args:
        sample: task, stratum, as `draw` gave them.
        verdicts: task, correct (1 or 0), at most one a task.
        population: how many tasks each stratum holds.
        confidence: of the interval.

    Raises:
        ValueError: naming tasks that have a verdict but were not drawn, or have two.

    References:
        Cochran, W. G. (1977). Sampling Techniques, 3rd ed., sections 5.3-5.4 (stratified proportions).
    """
    strangers = verdicts.join(sample, on="task", how="anti")["task"].sort().to_list()
    if strangers:
        raise ValueError(f"{len(strangers)} tasks with a verdict were not drawn, such as {strangers[0]}")
    twice = verdicts.filter(verdicts["task"].is_duplicated())["task"].sort().to_list()
    if twice:
        raise ValueError(f"task {twice[0]} has more than one verdict")
    seen = (
        sample.join(verdicts, on="task").group_by("stratum").agg(n=pl.len(), k=(pl.col("correct") == 0).sum())
    )
    found = {row["stratum"]: (int(row["k"]), int(row["n"])) for row in seen.iter_rows(named=True)}
    if len(population) == 1:
        k, n = next(iter(found.values()), (0, 0))
        return hypergeometric(k, n, next(iter(population.values())), confidence)
    silent = [name for name in population if name not in found]
    method = "stratified (Cochran 1977), wilson at the effective sample size"
    total = sum(n for _, n in found.values())
    if silent:
        return unknown(total, method, f"nothing was reviewed in stratum {silent[0]}")
    return _stratified(found, population, confidence, method)


def _stratified(
    found: dict[str, tuple[int, int]], population: dict[str, int], confidence: float, method: str
) -> Estimate:
    everything = sum(population.values())
    rate = variance = 0.0
    for name, (k, n) in found.items():
        weight, size = population[name] / everything, population[name]
        p = k / n
        # With no error among n, or nothing but errors, the share itself says nothing of its spread.
        spread = p * (1 - p) if 0 < k < n else (k + 1) / (n + 2) * (1 - (k + 1) / (n + 2))
        rate += weight * p
        variance += weight**2 * (1 - n / size) * spread / max(n - 1, 1)
    reviewed = sum(n for _, n in found.values())
    if variance == 0:
        return Estimate(rate, rate, rate, reviewed, method)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = rate if 0 < rate < 1 else (rate * reviewed + z**2 / 2) / (reviewed + z**2)
    effective = centre * (1 - centre) / variance
    bare = wilson(rate * effective, effective, confidence)
    return Estimate(rate, bare.low, bare.high, reviewed, method)
