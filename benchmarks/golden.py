"""How often verdicts of golden scores and doubts about the gold are wrong: tables in docs/statistics.md."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
from scipy.stats import binom

from connector.quality.golden import decide, golden
from connector.quality.interval import Floats
from connector.quality.kinds import CHOICE
from connector.quality.units import UNITS

LIMIT = 0.8
VERDICTS, CHECKS = 4000, 200

Scores = tuple[Floats, Floats]
"""The sum of the scores of each task's units, and how many units each has."""


def main() -> None:
    print("answers of an annotator exactly at the limit | tasks | passes | fails")
    for tasks in (5, 10, 20, 50, 100):
        shares = {
            "right or wrong": single(tasks),
            "pictures missed as a whole": verdicts(missed_pictures, tasks),
            "graded": verdicts(graded, tasks),
        }
        for name, (passed, failed) in shares.items():
            print(f"{name} | {tasks} | {passed:.3f} | {failed:.3f}")
    print("wrong gold | people right | gold tasks | gold doubted")
    for wrong in (0.0, 0.1, 0.2, 0.3, 1.0):
        for right in (0.7, 0.9):
            shares = [f"{doubted(wrong, right, tasks):.3f}" for tasks in (10, 20, 50, 100)]
            print(f"{wrong:.0%}", f"{right:.0%}", *shares, sep=" | ", flush=True)


def missed_pictures(rng: np.random.Generator, tasks: int) -> Scores:
    """One to eight objects of a picture; 18 % of the pictures are missed with all their objects."""
    units = rng.integers(1, 9, tasks)
    found = rng.binomial(units, LIMIT / 0.82)
    return np.where(rng.random(tasks) < 0.82, found, 0).astype(float), units.astype(float)


def graded(rng: np.random.Generator, tasks: int) -> Scores:
    """Answers that are nearly right, or not at all, in 5 %."""
    return np.where(rng.random(tasks) < 0.95, LIMIT / 0.95, 0.0), np.ones(tasks)


def single(tasks: int) -> tuple[float, float]:
    """How often an annotator passes, and fails, whose answers are right or wrong: exact."""
    right = np.arange(tasks + 1)
    chance = binom.pmf(right, tasks, LIMIT)
    found = [decide((np.arange(tasks) < k).astype(float), np.ones(tasks), LIMIT).verdict for k in right]
    passed, failed = (chance[[one == name for one in found]].sum() for name in ("pass", "fail"))
    return float(passed), float(failed)


def verdicts(answers: Callable[[np.random.Generator, int], Scores], tasks: int) -> tuple[float, float]:
    """How often an annotator passes, and fails."""
    rng = np.random.default_rng(tasks)
    found = [decide(*answers(rng, tasks), LIMIT).verdict for _ in range(VERDICTS)]
    return found.count("pass") / VERDICTS, found.count("fail") / VERDICTS


def doubted(wrong: float, right: float, tasks: int) -> float:
    """How often the gold is to be checked first; three people answer each task, among three labels.

    One task in twenty is so hard that most people give the same wrong answer.

    Args:
        wrong: the share of gold answers that are drawn at random instead of being right.
        right: how often a person is, where the task is not hard.
    """
    rng = np.random.default_rng([int(100 * wrong), int(100 * right), tasks])
    alarms = 0
    for _ in range(CHECKS):
        truth = rng.integers(0, 3, tasks)
        seen = np.where(rng.random(tasks) < 0.05, (truth + 1) % 3, truth)
        other = (seen + rng.integers(1, 3, (3, tasks))) % 3
        people = np.where(rng.random((3, tasks)) < right, seen, other)
        gold = np.where(rng.random(tasks) < wrong, rng.integers(0, 3, tasks), truth)
        alarms += golden(_table(gold, people), LIMIT).checks["c"].surprising
    return alarms / CHECKS


def _table(gold: np.ndarray, people: np.ndarray) -> pl.DataFrame:
    tasks = np.char.zfill(np.arange(len(gold)).astype(str), 6)
    parts = [
        pl.DataFrame({"task": tasks, "label": said.astype(str)}).with_columns(
            annotator=pl.lit(who), role=pl.lit(role), gold=pl.lit(role == "gold")
        )
        for who, role, said in (
            ("gold", "gold", gold),
            *((f"a{n}", "person", p) for n, p in enumerate(people)),
        )
    ]
    same = {"control": pl.lit("c"), "kind": pl.lit(CHOICE), "unit": pl.lit("whole")}
    table = pl.concat(parts).with_columns(annotation=pl.format("{}/{}", "task", "annotator"), **same)
    return pl.concat([pl.DataFrame(schema=UNITS), table], how="diagonal")
