"""From many answers to one: by what most said, by what lies in the middle, and by Dawid and Skene's model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from connector.quality.answers import ABSENT, STEP, UNDECLARED, UNRANKED, buckets_of, joined, parted, ranks_of
from connector.quality.interval import Floats, Ints
from connector.quality.kinds import (
    CHOICE,
    DATE,
    NUMBER,
    ON_A_SCALE,
    RANKING,
    RATING,
    TAXONOMY,
    TEXT,
    comparer,
    kind_of,
    level_of,
    values_of,
)
from connector.quality.merge import medoid
from connector.quality.table import Scale
from connector.quality.units import UNIT, latest


def votes(table: pl.DataFrame) -> pl.DataFrame:
    """How many annotators gave each label in each unit: `UNIT`, label, votes, annotators.

    Of an annotator's repeated answers the last one is the vote.
    """
    return (
        latest(table)
        .group_by(*UNIT, "label")
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


def usual(table: pl.DataFrame, scale: Scale = UNDECLARED) -> tuple[pl.DataFrame, str]:
    """One answer from many, as suits their kind.

    Single labels, what was drawn, comparisons and relations: `majority`. Of several labels each by itself,
    and of a tree the deepest places, that more than half gave. Numbers, and whatever has an interval or ratio
    level: the median, of an even number of answers the mean of the two in the middle. Ratings, dates and
    whatever is on an ordinal level: the median, of an even number the lower of the two in the middle, as
    nothing lies between two steps; they are a tie where they differ. Rankings: `borda`. Texts: the most
    typical one, which is most like the others.

    Args:
        table: columns of `UNITS`, of one control.

    Returns:
        As of `majority`, where the confidence of answers that are more or less alike is their mean similarity
        to the one that was chosen; and the name of the method.

    Raises:
        ValueError: if there are several controls.
    """
    kind, table = kind_of(table), latest(table)
    level = level_of(kind, table["label"].unique().to_list(), scale)
    if level == "nominal" or kind not in _MERGES:
        return majority(table), "majority"
    name, merge = ("median", _median) if level in ON_A_SCALE else _MERGES[kind]
    present = _mostly_answered(table)
    chosen = merge(present, scale).select(*UNIT, "label", "tie")
    whole = majority(table.join(present, on=UNIT, how="anti"))
    return pl.concat([_judged(table, chosen, kind, scale), whole]).sort(UNIT), name


def _mostly_answered(table: pl.DataFrame) -> pl.DataFrame:
    """The answers to units that not more than half left unanswered."""
    absent = pl.col("label") == ABSENT
    return table.filter(absent.mean().over(UNIT) <= 0.5, ~absent)


def _judged(table: pl.DataFrame, chosen: pl.DataFrame, kind: str, scale: Scale) -> pl.DataFrame:
    """With confidence, votes and annotators."""
    both = table.join(chosen.rename({"label": "chosen"}), on=UNIT)
    said = pl.concat([both["label"], both["chosen"]]).unique().sort()
    codes = pl.Enum(said)
    i, j = (both[name].cast(codes).to_physical().to_numpy().astype(np.int64) for name in ("label", "chosen"))
    alike = comparer(kind, said.to_list(), scale)(i, j)
    return (
        both.with_columns(alike=pl.Series(alike))
        .group_by(UNIT)
        .agg(
            pl.col("chosen").first().alias("label"),
            confidence=pl.col("alike").mean(),
            votes=(pl.col("alike") > 1 - 1e-9).sum().cast(pl.Int64),
            annotators=pl.len().cast(pl.Int64),
            tie=pl.col("tie").first(),
        )
        .select(*UNIT, "label", "confidence", "votes", "annotators", "tie")
    )


def _median(table: pl.DataFrame, scale: Scale) -> pl.DataFrame:
    """The median. Of an even number of answers: of numbers the mean of the two in the middle, of all else the
    lower one, and a tie where they differ."""
    kind = kind_of(table)
    said = table["label"].unique()
    level = level_of(kind, said.to_list(), scale)
    values = pl.DataFrame({"label": said, "value": values_of(kind, said.to_list(), scale)})
    n = pl.len()
    found = (
        table.join(values, on="label")
        .sort(*UNIT, "value", "label")
        .group_by(UNIT, maintain_order=True)
        .agg(
            pl.col("label").get((n - 1) // 2),
            lower=pl.col("value").get((n - 1) // 2),
            upper=pl.col("value").get(n // 2),
        )
    )
    lower, upper = found["lower"].to_numpy(), found["upper"].to_numpy()
    continuous = kind in (CHOICE, NUMBER) and level in ("interval", "ratio") and not scale.order
    middle, between = (lower + upper) / 2, lower != upper
    if continuous and scale.step:
        steps = (middle - (scale.low or 0.0)) / scale.step
        on_grid = np.isclose(steps, np.rint(steps))
    else:
        on_grid = np.full(len(found), continuous)
    means = pl.Series([f"{one:.15g}" for one in middle], dtype=pl.String)
    return found.with_columns(
        label=pl.when(pl.Series(between & on_grid)).then(means).otherwise("label"),
        tie=pl.Series(between & ~on_grid, dtype=pl.Boolean),
    )


def _per_label(table: pl.DataFrame, scale: Scale) -> pl.DataFrame:  # noqa: ARG001
    parts = _exploded(table, parted)
    return _from_parts(table, parts, _given_by_most(table, parts))


def _deepest(table: pl.DataFrame, scale: Scale) -> pl.DataFrame:  # noqa: ARG001
    parts = _exploded(table, _with_all_that_lead_there)
    kept = _given_by_most(table, parts)
    steps = pl.col("part").str.split(STEP)
    above = kept.filter(steps.list.len() > 1).with_columns(
        part=steps.list.head(steps.list.len() - 1).list.join(STEP)
    )
    return _from_parts(table, parts, kept.join(above, on=[*UNIT, "part"], how="anti"))


def _with_all_that_lead_there(text: str) -> list[str]:
    steps = [path.split(STEP) for path in parted(text)]
    return sorted({STEP.join(path[:n]) for path in steps for n in range(1, len(path) + 1)})


def _exploded(table: pl.DataFrame, parts: Callable[[str], list[str]]) -> pl.DataFrame:
    """`UNIT`, part: of each answer all of its parts."""
    said = table["label"].unique().sort()
    schema = pl.Schema([("label", pl.String()), ("part", pl.List(pl.String()))])
    each = pl.DataFrame([(text, parts(text)) for text in said], schema=schema, orient="row")
    return table.select(*UNIT, "label").join(each, on="label").explode("part").drop("label").drop_nulls()


def _given_by_most(table: pl.DataFrame, parts: pl.DataFrame) -> pl.DataFrame:
    """`UNIT`, part: what more than half of the answers to a unit hold."""
    held = parts.group_by(*UNIT, "part").agg(k=pl.len()).join(_answers(table), on=UNIT)
    return held.filter(2 * pl.col("k") > pl.col("n")).select(*UNIT, "part")


def _answers(table: pl.DataFrame) -> pl.DataFrame:
    return table.group_by(UNIT).agg(n=pl.len())


def _from_parts(table: pl.DataFrame, parts: pl.DataFrame, chosen: pl.DataFrame) -> pl.DataFrame:
    """What was chosen, put together; where that is nothing, what most gave as a whole."""
    held = parts.group_by(*UNIT, "part").agg(k=pl.len()).join(_answers(table), on=UNIT)
    half = held.group_by(UNIT).agg(tie=(2 * pl.col("k") == pl.col("n")).any())
    made = chosen.group_by(UNIT).agg(label=joined(pl.col("part"))).join(half, on=UNIT)
    rest = majority(table.join(made, on=UNIT, how="anti")).with_columns(tie=pl.lit(True))
    return pl.concat([made, rest.select(*UNIT, "label", "tie")])


def _typical(table: pl.DataFrame, scale: Scale) -> pl.DataFrame:
    """The answer that is most like the others; the first in the alphabet of several."""
    table = table.sort(*UNIT, "label")
    said = table["label"].unique().sort()
    code = table["label"].cast(pl.Enum(said)).to_physical().to_numpy().astype(np.int64)
    unit = table.select(pl.struct(UNIT).rle_id()).to_series().to_numpy().astype(np.int64)
    kind = str(table["kind"][0]) if len(table) else TEXT
    alike = comparer(kind, said.to_list(), scale)
    chosen = table[medoid(lambda i, j: alike(code[i], code[j]), unit)]
    # Of two that differ neither is the more typical.
    two = table.group_by(UNIT).agg(tie=(pl.len() == 2) & (pl.col("label").n_unique() == 2))
    return chosen.select(*UNIT, "label").join(two, on=UNIT)


def borda(table: pl.DataFrame, scale: Scale = UNDECLARED) -> pl.DataFrame:
    """Rankings merged by mean rank; of several buckets, each item is put into the one that most put it into.

    References:
        de Borda, J.-C. (1781). Memoire sur les elections au scrutin. Ties are broken by the items' names.
    """
    rows = []
    for key, part in table.sort(*UNIT, "label").group_by(UNIT, maintain_order=True):
        label, tie = _mean_ranking(part["label"].to_list(), scale)
        rows.append((*key, label, tie))
    schema = {**dict.fromkeys((*UNIT, "label"), pl.String), "tie": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _mean_ranking(texts: Sequence[str], scale: Scale) -> tuple[str, bool]:
    given, buckets = [ranks_of(text, scale) for text in texts], [buckets_of(text) for text in texts]
    items = sorted({item for ranks in given for item in ranks})
    last = [max(ranks.values(), default=-1) + 1 for ranks in given]
    mean = {
        item: sum(ranks.get(item, end) for ranks, end in zip(given, last, strict=True)) / len(given)
        for item in items
    }
    names = list(dict.fromkeys([*scale.order, *sorted({name for one in buckets for name in one})]))
    merged: dict[str, list[str]] = {name: [] for name in names}
    undecided = False
    for item in sorted(items, key=lambda item: (mean[item], item)):
        put = Counter(name for one in buckets for name, held in one.items() if item in held)
        most = [name for name in names if put[name] == max(put.values())]
        merged[most[0]].append(item)
        undecided |= len(most) > 1
    text = json.dumps(merged, sort_keys=True, separators=(",", ":"))
    inside = scale.inside if scale.order else len(set(names) - {UNRANKED}) == 1
    return text, undecided or (inside and len(set(mean.values())) < len(items))


_MERGES: Mapping[str, tuple[str, Callable[[pl.DataFrame, Scale], pl.DataFrame]]] = {
    CHOICE: ("vote on each label", _per_label),
    TAXONOMY: ("deepest majority", _deepest),
    RATING: ("median", _median),
    NUMBER: ("median", _median),
    DATE: ("median", _median),
    TEXT: ("most typical", _typical),
    RANKING: ("Borda", borda),
}


@dataclass(frozen=True, slots=True)
class DawidSkene:
    """A fitted model of one control.

    Attributes:
        truth: as `majority` returns it; confidence is the posterior probability.
        annotators, labels: the names behind the axes of `confusion`.
        confusion: (W, K, K) the probability that an annotator says the second when the first is true.
        prior: (K,) how frequent each label is.
        log_likelihood: after each iteration of the plain model (penalised by the smoothing); never falls.
        iterations, converged: how many were needed, and whether the tolerance was reached.
        weight: how many answers the crowd's row counts for in everyone's; None of the plain model.
    """

    truth: pl.DataFrame
    annotators: list[str]
    labels: list[str]
    confusion: Floats
    prior: Floats
    log_likelihood: list[float]
    iterations: int
    converged: bool
    weight: float | None


def dawid_skene(
    table: pl.DataFrame, iterations: int = 200, tolerance: float = 1e-8, smoothing: float | None = None
) -> DawidSkene:
    """Estimate truth and everyone's confusions together, by expectation maximisation.

    Starts from the shares of votes. A repeated answer counts as often as it was given.

    Args:
        table: columns of `UNITS`, of one control. Every row is an observation, as in the paper, whose first
            observer answered three times; `consensus` passes the last answer of each annotator.
        iterations: at most.
        tolerance: stop when the mean log-likelihood per unit grows by less.
        smoothing: None shrinks everyone's rows towards those of the crowd, by a weight that is learned from
            how well it predicts each answer from the others. A number is the plain model with so many
            imagined answers added to every cell; 0 is that of the paper.

    Raises:
        ValueError: if there are several controls.

    References:
        Dawid, A. P. & Skene, A. M. (1979). Maximum likelihood estimation of observer error-rates using the
        EM algorithm. Applied Statistics 28(1), 20-28.
    """
    kind_of(table)
    units = table.select(UNIT).unique().sort(UNIT).with_row_index("u")
    names = table["annotator"].unique().sort().to_list()
    labels = table["label"].unique().sort().to_list()
    u = table.join(units, on=UNIT, how="left", maintain_order="left")["u"].to_numpy().astype(np.int64)
    w = table["annotator"].rank("dense").to_numpy().astype(np.int64) - 1
    said = table["label"].rank("dense").to_numpy().astype(np.int64) - 1
    shape, weight = (len(units), len(names), len(labels)), None
    if smoothing is None:
        posterior, confusion, prior, done, converged, weight = _shrunk(u, w, said, shape, iterations)
        history: list[float] = []
    else:
        posterior, confusion, prior, history = _em(u, w, said, shape, iterations, tolerance, smoothing)
        done = len(history)
        converged = done > 1 and history[-1] - history[-2] < tolerance * len(units)
    first = np.sort(posterior, axis=1)[:, ::-1][:, :2]
    tie = first[:, 0] - first[:, 1] < SAME if len(labels) > 1 else np.zeros(len(units), dtype=bool)
    best = posterior.argmax(axis=1)
    chosen = units.select(UNIT).with_columns(
        label=pl.Series([labels[k] for k in best], dtype=pl.String),
        confidence=pl.Series(posterior[np.arange(len(best)), best]),
        tie=pl.Series(tie, dtype=pl.Boolean),
    )
    tally = votes(table)
    truth = (
        chosen.join(tally.select(*UNIT, "label", "votes"), on=[*UNIT, "label"], how="left")
        .join(tally.select(*UNIT, "annotators").unique(), on=UNIT)
        .with_columns(votes=pl.col("votes").fill_null(0))
        .select(*UNIT, "label", "confidence", "votes", "annotators", "tie")
        .sort(UNIT)
    )
    return DawidSkene(truth, names, labels, confusion, prior, history, done, converged, weight)


SAME = 0.02
"""Two labels whose probabilities differ by less are tied."""

_WEIGHTS = np.array([1, 1.5, 2, 3, 4, 6, 8, 16, 32, 64, 128, 256], dtype=np.float64)
_LEARNED, _EVERY, _STILL = 30, 3, 1e-4


def _shrunk(
    u: Ints, w: Ints, said: Ints, shape: tuple[int, int, int], iterations: int
) -> tuple[Floats, Floats, Floats, int, bool, float]:
    """Variational EM with everyone's rows shrunk towards the crowd's.

    The crowd's rows are themselves shrunk towards those of one coin: right with one probability, else any
    other label. So labels cannot trade places where everyone gave one answer only.

    References:
        Kim, H.-C. & Ghahramani, Z. (2012). Bayesian classifier combination. AISTATS 22, 619-627.
    """
    from scipy.special import digamma

    n, annotators, k = shape
    posterior = np.bincount(u * k + said, minlength=n * k).reshape(n, k).astype(float)
    posterior /= posterior.sum(axis=1, keepdims=True)
    cell, weight, done, converged = w * k + said, 2.0, 0, False
    row: Floats = np.ones((annotators, k, k))
    prior: Floats = np.full(k, 1 / max(k, 1))
    tally: Floats = np.zeros((annotators, k, k))
    for done in range(1, iterations + 1):
        prior = (posterior.sum(axis=0) + 1) / (n + k)
        tally = (
            np.stack([np.bincount(cell, posterior[u, true], annotators * k) for true in range(k)])
            .reshape(k, annotators, k)
            .transpose(1, 0, 2)
            .astype(np.float64)
        )
        crowd = tally.sum(axis=0) + 4 * _one_coin(tally.sum(axis=0))
        crowd /= crowd.sum(axis=1, keepdims=True)
        if done > 1 and done % _EVERY == 1 and done <= _LEARNED + 1:
            weight = _learned(posterior[u], tally, row, crowd, w, said)
        shrunk = tally + weight * crowd
        row = np.exp(digamma(shrunk) - digamma(shrunk.sum(axis=2, keepdims=True)))
        logs, joint = np.log(row), np.tile(np.log(prior), (n, 1))
        for true in range(k):
            joint[:, true] += np.bincount(u, logs[w, true, said], minlength=n)
        new = np.exp(joint - joint.max(axis=1, keepdims=True))
        new /= new.sum(axis=1, keepdims=True)
        moved = float(np.abs(new - posterior).sum(axis=1).mean()) if n else 0.0
        posterior = new
        if moved < _STILL and (done > _LEARNED or done > _EVERY + 1):
            converged = True
            break
    confusion = tally + weight * crowd
    return posterior, confusion / confusion.sum(axis=2, keepdims=True), prior, done, converged, weight


def _one_coin(given: Floats) -> Floats:
    """(K, K) right with one probability, which is better than chance; else any other label."""
    k = len(given)
    right = max((np.trace(given) + 1) / (given.sum() + 2), 1 / k + 1e-3) if k > 1 else 1.0
    rows: Floats = np.full((k, k), (1 - right) / max(k - 1, 1))
    np.fill_diagonal(rows, right)
    return rows


def _learned(of_answer: Floats, tally: Floats, row: Floats, crowd: Floats, w: Ints, said: Ints) -> float:
    """The weight by which each answer is best predicted from all others; the larger one of equals."""
    others = of_answer / row[w, :, said]
    others /= others.sum(axis=1, keepdims=True)
    mine = np.maximum(tally[w, :, said] - of_answer, 0)
    whole, usual = np.maximum(tally.sum(axis=2)[w] - of_answer, 0), crowd[:, said].T
    scores = [
        float(np.log((others * (mine + c * usual) / (whole + c)).sum(axis=1)).sum()) + 2 * np.log(c)
        for c in _WEIGHTS
    ]
    return float(_WEIGHTS[int(np.argmax(scores))])


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
