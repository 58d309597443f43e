"""From many answers to one: majority, and Dawid and Skene's model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from connector.quality.interval import Floats, Ints
from connector.quality.units import UNIT


def votes(table: pl.DataFrame) -> pl.DataFrame:
    """How many answers each label got in each unit: `UNIT`, label, votes, annotators."""
    return (
        table.group_by(*UNIT, "label")
        .agg(votes=pl.len().cast(pl.Int64))
        .with_columns(annotators=pl.col("votes").sum().over(UNIT))
    )


def majority(table: pl.DataFrame) -> pl.DataFrame:
    """The label most annotators gave.

    A tie goes to the label that is more frequent in the whole control, then to the first in the alphabet,
    and is marked: there is no majority in it.

    Args:
        table: columns of `UNITS`.

    Returns:
        task, control, unit, label, confidence (its share of the answers), votes, annotators, tie; sorted.
    """
    counted = votes(table).with_columns(usual=pl.col("votes").sum().over("control", "label"))
    most = counted.filter(pl.col("votes") == pl.col("votes").max().over(UNIT))
    return (
        most.with_columns(tie=pl.len().over(UNIT) > 1, confidence=pl.col("votes") / pl.col("annotators"))
        .sort("usual", "label", descending=[True, False])
        .unique(UNIT, keep="first", maintain_order=True)
        .select(*UNIT, "label", "confidence", "votes", "annotators", "tie")
        .sort(UNIT)
    )


@dataclass(frozen=True, slots=True)
class DawidSkene:
    """A fitted model of one control.

    Attributes:
        truth: as `majority` returns it; confidence is the posterior probability.
        annotators, labels: the names behind the axes of `confusion`.
        confusion: (W, K, K) the probability that an annotator says the second when the first is true.
        prior: (K,) how frequent each label is.
        log_likelihood: after each iteration (penalised by the smoothing); never falls.
    """

    truth: pl.DataFrame
    annotators: list[str]
    labels: list[str]
    confusion: Floats
    prior: Floats
    log_likelihood: list[float]


def dawid_skene(
    table: pl.DataFrame, iterations: int = 200, tolerance: float = 1e-8, smoothing: float = 0.01
) -> DawidSkene:
    """Estimate truth and everyone's confusions together, by expectation maximisation.

    Starts from the shares of votes. A repeated answer counts as often as it was given.

    Args:
        table: columns of `UNITS`, of one control.
        iterations: at most.
        tolerance: stop when the mean log-likelihood per unit grows by less.
        smoothing: imagined answers added to every cell of every confusion matrix (a Dirichlet prior), so
            that few answers give no certainty; 0 is the model of the paper.

    References:
        Dawid, A. P. & Skene, A. M. (1979). Maximum likelihood estimation of observer error-rates using the
        EM algorithm. Applied Statistics 28(1), 20-28.
    """
    units = table.select(UNIT).unique().sort(UNIT).with_row_index("u")
    names = table["annotator"].unique().sort().to_list()
    labels = table["label"].unique().sort().to_list()
    u = table.join(units, on=UNIT, how="left", maintain_order="left")["u"].to_numpy().astype(np.int64)
    w = table["annotator"].rank("dense").to_numpy().astype(np.int64) - 1
    said = table["label"].rank("dense").to_numpy().astype(np.int64) - 1
    posterior, confusion, prior, history = _em(
        u, w, said, (len(units), len(names), len(labels)), iterations, tolerance, smoothing
    )
    best = posterior.argmax(axis=1)
    chosen = units.select(UNIT).with_columns(
        label=pl.Series([labels[k] for k in best], dtype=pl.String),
        confidence=pl.Series(posterior[np.arange(len(best)), best]),
    )
    tally = votes(table)
    truth = (
        chosen.join(tally.select(*UNIT, "label", "votes"), on=[*UNIT, "label"], how="left")
        .join(tally.select(*UNIT, "annotators").unique(), on=UNIT)
        .with_columns(votes=pl.col("votes").fill_null(0), tie=pl.lit(False))
        .select(*UNIT, "label", "confidence", "votes", "annotators", "tie")
        .sort(UNIT)
    )
    return DawidSkene(truth, names, labels, confusion, prior, history)


def _em(
    u: Ints,
    w: Ints,
    said: Ints,
    shape: tuple[int, int, int],
    iterations: int,
    tolerance: float,
    smoothing: float,
) -> tuple[Floats, Floats, Floats, list[float]]:
    n, annotators, k = shape
    posterior = np.bincount(u * k + said, minlength=n * k).reshape(n, k).astype(float)
    posterior /= posterior.sum(axis=1, keepdims=True)
    history: list[float] = []
    confusion: Floats = np.empty((annotators, k, k))
    prior: Floats = np.empty(k)
    cell = w * k + said
    for _ in range(iterations):
        prior = posterior.mean(axis=0)
        given = np.stack(
            [np.bincount(cell, posterior[u, true], minlength=annotators * k) for true in range(k)]
        ).reshape(k, annotators, k)
        tally = given.transpose(1, 0, 2) + smoothing
        answers = tally.sum(axis=2, keepdims=True)
        confusion = np.divide(tally, answers, out=np.full(tally.shape, 1 / k), where=answers > 0)
        with np.errstate(divide="ignore"):
            log_confusion = np.log(confusion)
            joint = np.tile(np.log(prior), (n, 1))
        for true in range(k):
            joint[:, true] += np.bincount(u, log_confusion[w, true, said], minlength=n)
        peak = joint.max(axis=1, keepdims=True)
        posterior = np.exp(joint - peak)
        mass = posterior.sum(axis=1, keepdims=True)
        posterior /= mass
        penalty = smoothing * float(log_confusion.sum()) if smoothing else 0.0
        history.append(float((peak + np.log(mass)).sum()) + penalty)
        if len(history) > 1 and history[-1] - history[-2] < tolerance * n:
            break
    return posterior, confusion, prior, history
