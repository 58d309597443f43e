"""How often the intervals of agreement hold the true value: the table in docs/statistics.md."""

from __future__ import annotations

import itertools

import numpy as np

from connector.quality.agreement import Agreement, agreement_of
from connector.quality.counts import counts_of_codes
from connector.quality.interval import Estimate
from connector.quality.kinds import CHOICE

RUNS = 1000
NAMES = ("observed", "krippendorff_alpha", "fleiss_kappa", "gwet_ac1")


def main() -> None:
    print("tasks | number | least coverage | mean coverage | mean width")
    designs = list(itertools.product((2, 3, 5), (2, 5), (0.0, 0.7, 0.9), (0.7, 0.8, 0.9)))
    for tasks in (10, 20, 50):
        seen = np.array([coverage(tasks, *design) for design in designs])
        for name, (inside, width) in zip(NAMES, seen.transpose(1, 2, 0), strict=True):
            print(
                f"{tasks} | {name} | {inside.min():.3f} | {inside.mean():.3f} | {width.mean():.3f}",
                flush=True,
            )


def coverage(
    tasks: int, annotators: int, labels: int, prevalence: float, right: float
) -> list[tuple[float, float]]:
    """Of each number the share of intervals that hold the truth, and their mean width.

    Args:
        prevalence: of the first label; 0 where all are as frequent.
        right: how often an annotator is; other answers are any other label.
    """
    rng = np.random.default_rng([annotators, labels, int(10 * prevalence), int(10 * right)])
    rest = (1 - prevalence) / (labels - 1)
    share = [prevalence, *[rest] * (labels - 1)] if prevalence else [1 / labels] * labels

    def drawn(n: int) -> Agreement:
        truth = rng.choice(labels, size=(n, 1), p=share)
        other = (truth + rng.integers(1, labels, (n, annotators))) % labels
        said = np.where(rng.random((n, annotators)) < right, truth, other)
        unit = np.repeat(np.arange(n), annotators)
        codes = counts_of_codes(unit, np.zeros_like(unit), said.ravel(), [str(k) for k in range(labels)])
        return agreement_of(codes, CHOICE, seed=0)

    true = drawn(200_000)
    found = [drawn(tasks) for _ in range(RUNS)]
    return [_of(name, true, found) for name in NAMES]


def _of(name: str, true: Agreement, found: list[Agreement]) -> tuple[float, float]:
    value: float = getattr(true, name).value
    made: list[Estimate] = [getattr(one, name) for one in found]
    bounds = [(one.low, one.high) for one in made if one.low is not None and one.high is not None]
    inside = [low <= value <= high for low, high in bounds]
    return float(np.mean(inside)), float(np.mean([high - low for low, high in bounds]))
