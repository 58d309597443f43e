"""The estimated truth against the majority and plain maximum likelihood: tables in docs/statistics.md.

Every crowd is simulated anew from a seed; the difference is taken crowd by crowd.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from connector.quality.kinds import CHOICE
from connector.quality.truth import dawid_skene, majority
from connector.quality.units import UNITS

LABELS = 4
SIZES = (1, 3, 10, 30, 100)
SEEDS = 200


def main() -> None:
    print("answers of each annotator | share right of the majority | difference of the model")
    for size in SIZES:
        _print(size, [sparse_crowd(size, seed) for seed in range(SEEDS)])
    print("tasks, all answered by 5 annotators | of plain maximum likelihood | difference of the model")
    for tasks in (300, 1000, 3000):
        _print(tasks, [confused_crowd(tasks, seed) for seed in range(SEEDS // 4)])


def sparse_crowd(size: int, seed: int) -> tuple[float, float]:
    """Shares of right tasks of the majority and of the model: 300 tasks with 3 answers each.

    Skills are drawn from Beta(6, 2); wrong answers are any other label.

    Args:
        size: how many answers each annotator gives.
    """
    rng, tasks = np.random.default_rng([seed, size]), 300
    truth, unit = rng.integers(0, LABELS, tasks), np.repeat(np.arange(tasks), 3)
    annotators = len(unit) // size
    # In each round everyone answers once, so that no task is answered twice by the same annotator.
    who = np.concatenate([rng.permutation(annotators) for _ in range(size)])
    right = rng.random(len(unit)) < rng.beta(6, 2, annotators)[who]
    said = np.where(right, truth[unit], (truth[unit] + rng.integers(1, LABELS, len(unit))) % LABELS)
    table = _table(unit, who, said)
    return _right(majority(table), truth), _right(dawid_skene(table).truth, truth)


def confused_crowd(tasks: int, seed: int) -> tuple[float, float]:
    """Shares of right tasks of plain maximum likelihood and of the model: 5 annotators answer every task.

    Everyone confuses labels in a way of their own: rows of Dirichlet(1, ..., 1), with 1.5 added to the
    diagonal before they are normalised.
    """
    rng, annotators = np.random.default_rng([seed, tasks]), 5
    truth = rng.choice(LABELS, tasks, p=[0.4, 0.3, 0.2, 0.1])
    rows = rng.dirichlet(np.ones(LABELS), (annotators, LABELS)) + 1.5 * np.eye(LABELS)
    limits = np.cumsum(rows / rows.sum(axis=2, keepdims=True), axis=2)
    unit, who = np.repeat(np.arange(tasks), annotators), np.tile(np.arange(annotators), tasks)
    said = (rng.random(len(unit))[:, None] > limits[who, truth[unit], :-1]).sum(axis=1)
    table = _table(unit, who, said)
    return _right(dawid_skene(table, smoothing=0).truth, truth), _right(dawid_skene(table).truth, truth)


def _table(unit: np.ndarray, who: np.ndarray, said: np.ndarray) -> pl.DataFrame:
    given = pl.DataFrame({"task": unit, "annotator": who, "label": said}).select(
        pl.col("task").cast(pl.String).str.zfill(6), pl.col("annotator", "label").cast(pl.String)
    )
    same = {"control": pl.lit("c"), "kind": pl.lit(CHOICE), "unit": pl.lit("whole"), "role": pl.lit("person")}
    table = given.with_columns(annotation=pl.format("{}/{}", "task", "annotator"), **same)
    return pl.concat([pl.DataFrame(schema=UNITS), table], how="diagonal")


def _right(chosen: pl.DataFrame, truth: np.ndarray) -> float:
    return float((chosen.sort("task")["label"].cast(pl.Int64).to_numpy() == truth).mean())


def _print(size: int, shares: list[tuple[float, float]]) -> None:
    plain, model = np.array(shares).T
    error = (model - plain).std(ddof=1) / np.sqrt(len(shares))
    print(f"{size} | {plain.mean():.3f} | {(model - plain).mean():+.4f} ± {error:.4f}", flush=True)


if __name__ == "__main__":
    main()
