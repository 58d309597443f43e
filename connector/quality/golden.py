"""Golden: how near each annotator is to known answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import polars as pl

from connector.quality.agreement import pairs
from connector.quality.annotators import by_relevance
from connector.quality.answers import ABSENT, UNDECLARED
from connector.quality.interval import (
    CONFIDENCE,
    Estimate,
    Floats,
    clopper_pearson,
    clustered,
    mean_of,
    unknown,
    wilson,
)
from connector.quality.kinds import DETECTED, DRAWN, comparer, level_of
from connector.quality.table import Scale
from connector.quality.units import LAST, UNIT, keep, shapes_of


@dataclass(frozen=True, slots=True)
class Detection:
    """What was drawn or related, beside what should have been.

    Attributes:
        precision: of the things drawn, those that are there, whatever their labels.
        recall: of the things that are there, those drawn.
        f1: of both.
        label_accuracy: of the things found, those with the right label.
        similarity: how exactly things found were drawn.
        boundary: how exactly their edges were drawn; unknown of what has no edges.
    """

    precision: Estimate
    recall: Estimate
    f1: Estimate
    label_accuracy: Estimate
    similarity: Estimate
    boundary: Estimate


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a score says of a limit.

    Attributes:
        verdict: `pass`, `fail` or `undecided`.
        more: gold tasks still needed on average, should the score stay what it is; 0 where decided; None
            where that cannot be estimated.
        why: in one sentence.
    """

    verdict: str
    more: int | None
    why: str


@dataclass(frozen=True, slots=True)
class GoldCheck:
    """Whether the gold answers to a control agree with what most people answered.

    Attributes:
        tasks: gold tasks to which at least two persons gave the same answer, and more than any other.
        differ: those of them where the gold answer differs.
        surprising: whether there are more of them than hard tasks explain; see `check_gold`.
    """

    tasks: int
    differ: Sequence[str]
    surprising: bool

    def __str__(self) -> str:
        first = ": check the gold first" if self.surprising else ""
        return f"gold disagrees with the majority on {len(self.differ)} of {self.tasks} tasks{first}"


@dataclass(frozen=True, slots=True)
class Golden:
    """The golden scores.

    Attributes:
        annotators: annotator, control, tasks, n (units), score, low, high, verdict, more, why; and of
            what was drawn precision, recall, f1, label_accuracy, similarity, boundary, else null. Those
            with the most gold tasks first, then by name.
        together: of each annotator, the score of all controls together.
        overall: the score of everybody on all controls together.
        controls: of each control, the score of everybody together.
        checks: of each control, how the gold answers compare with those of most people.
        detection: of each control that draws or relates, the same in parts: of an
            annotator, and with "" of everybody.
        confusion: control, gold, label, count: what was given where something else was right.
    """

    annotators: pl.DataFrame
    together: Mapping[str, Estimate]
    overall: Estimate
    controls: Mapping[str, Estimate]
    checks: Mapping[str, GoldCheck]
    detection: Mapping[tuple[str, str], Detection]
    confusion: pl.DataFrame


_PARTS = ("precision", "recall", "f1", "label_accuracy", "similarity", "boundary")

_SCHEMA = pl.Schema(
    [
        *((name, pl.String()) for name in ("annotator", "control")),
        *((name, pl.Int64()) for name in ("tasks", "n")),
        *((name, pl.Float64()) for name in ("score", "low", "high")),
        ("verdict", pl.String()),
        ("more", pl.Int64()),
        ("why", pl.String()),
        *((name, pl.Float64()) for name in _PARTS),
    ]
)

EVERYBODY = ""

_SCORED = (pl.col("role") == "person") & LAST
"""Whose answers are compared with the gold ones."""


LEAST = 5
"""Gold tasks, at least, before an annotator passes or fails."""

ERROR = 0.05
"""How often, at most, an annotator at the limit passes, or fails, in one evaluation."""

MOST = 1000
"""Of more gold tasks than this nobody is told how many are needed."""

HARD = 0.1
"""So large a share of tasks may be so hard that most people err, before the gold is doubted."""


def golden(
    table: pl.DataFrame,
    limit: float,
    confidence: float = CONFIDENCE,
    least: int = LEAST,
    scales: Mapping[str, Scale] = MappingProxyType({}),
) -> Golden:
    """Compare everyone with the gold answers.

    The score is the share of right units. Of what is drawn these are right / (right + wrong label + missed +
    invented), which is CVAT's accuracy; the objects of one picture err together, so its interval takes
    tasks as clusters. Of numbers, texts and the like it is how alike the answers are to the gold ones.

    No annotator is scored by an answer of their own: where that alone is gold, the task does not count for
    them. Where several answers to one unit are gold they must be the same.

    Args:
        table: schema `UNITS`; everyone of role person is scored.
        limit: what is demanded; see `decide`.
        confidence: of the intervals. Verdicts do not depend on it.
        least: gold tasks that a verdict needs.
        scales: what is declared about the answers to each control: `Labels.scales`.

    Raises:
        ValueError: if two gold answers of one task differ, naming the task; or an answer is none of its kind.
    """
    compared = _compare(keep(table, _SCORED | pl.col("gold")), scales)
    rows, controls, detection, checks = [], {}, {}, {}
    for (control,), whole in compared.group_by("control", maintain_order=True):
        name = str(control)
        controls[name] = _score(whole, confidence)
        checks[name] = check_gold(table.filter(pl.col("control") == name), whole)
        if whole["kind"][0] in DETECTED:
            detection[EVERYBODY, name] = _detection(whole, confidence)
        for (annotator,), part in whole.sort("annotator").group_by("annotator", maintain_order=True):
            score, found_to = _score(part, confidence), _decide(part, limit, least)
            row = {
                "annotator": annotator,
                "control": control,
                "tasks": part["task"].n_unique(),
                "n": score.n,
                "score": score.value,
                "low": score.low,
                "high": score.high,
                "verdict": found_to.verdict,
                "more": found_to.more,
                "why": found_to.why,
            }
            if whole["kind"][0] in DETECTED:
                found = detection[str(annotator), name] = _detection(part, confidence)
                row |= {one: getattr(found, one).value for one in _PARTS}
            rows.append(row)
    people = {
        str(annotator): part
        for (annotator,), part in compared.sort("annotator").group_by("annotator", maintain_order=True)
    }
    confusion = compared.group_by("control", "gold", "label").agg(count=pl.len().cast(pl.Int64))
    return Golden(
        by_relevance(pl.DataFrame(rows, schema=_SCHEMA), "tasks"),
        {annotator: _score(part, confidence) for annotator, part in people.items()},
        _score(compared, confidence),
        controls,
        checks,
        detection,
        confusion.sort("control", "gold", "label"),
    )


def decide(right: Floats, units: Floats, limit: float, least: int = LEAST) -> Verdict:
    """Decide whether an annotator reaches a limit, from the answers to gold tasks.

    Two one-sided tests, each at the level `ERROR`, whatever confidence intervals are shown with. Of tasks
    with one answer that is right or wrong the test is the exact binomial one. Of other scores (objects of
    one picture, answers that are more or less alike) it is the bound of Chernoff and Hoeffding, with tasks
    as the independent observations, since the objects of one picture can all be wrong together. It holds at
    every number of tasks; where answers within a task are independent it asks for more tasks than needed.

    Args:
        right: (T,) the sum of the scores of each task's units.
        units: (T,) how many units each task has, above 0.
        limit: the score that is demanded, between 0 and 1.
        least: with fewer tasks nothing is decided.

    References:
        Hoeffding, W. (1963). Probability inequalities for sums of bounded random variables. JASA 58, 13-30.
    """
    tasks, total, whole = len(units), float(right.sum()), float(units.sum())
    if not tasks:
        return Verdict("undecided", None, "no gold task was answered")
    single = bool((units == 1).all() and np.isin(right, (0.0, 1.0)).all())
    above = total >= limit * whole
    surprise = _binomial(total, whole, limit, above) if single else _chernoff(right, units, limit)
    if tasks >= least and float(surprise) <= ERROR:
        return (
            Verdict("pass", 0, "the score reaches the limit")
            if above
            else Verdict("fail", 0, "the score lies below the limit")
        )
    if single:
        sizes = np.arange(tasks + 1, MOST + 1, dtype=float)
        enough = sizes[_binomial(total / whole * sizes, sizes, limit, above) <= ERROR]
        needed = float(enough[0]) if len(enough) else np.inf
    else:  # the logarithm of the bound grows with the tasks, if they stay alike
        needed = tasks * np.log(ERROR) / np.log(surprise) if surprise < 1 else np.inf
    if needed > MOST:
        return Verdict(
            "undecided", None, "the score lies too close to the limit to tell how many gold tasks decide"
        )
    more = max(int(np.ceil(needed)), least, tasks + 1) - tasks
    return Verdict("undecided", more, f"about {more} more gold tasks needed")


def _binomial(k: float | Floats, n: float | Floats, limit: float, above: bool) -> Floats:
    """The probability of k or more right answers of n at the limit, or of k or fewer."""
    from scipy.special import betainc

    k, n = np.asarray(k, dtype=float), np.asarray(n, dtype=float)
    at_least = k if above else n - k
    chance = limit if above else 1 - limit
    some = np.maximum(at_least, 1e-300)
    tail: Floats = np.where(at_least > 0, betainc(some, n - at_least + 1, chance), 1.0)
    return tail


def _chernoff(right: Floats, units: Floats, limit: float) -> float:
    """The least upper bound, over exponential tilts, of the probability of a total as far from the limit."""
    weights, total = units / units.max(), float(right.sum()) / float(units.max())
    low, high = -60.0, 60.0
    for _ in range(60):  # the slope of the bound's logarithm rises with the tilt
        tilt = (low + high) / 2
        tilted = limit * np.exp(np.minimum(tilt * weights, 700))
        slope = float((weights * tilted / (1 - limit + tilted)).sum()) - total
        low, high = (tilt, high) if slope < 0 else (low, tilt)
    tilted = limit * np.exp(np.minimum(tilt * weights, 700))
    return float(np.exp(min(0.0, float(np.log(1 - limit + tilted).sum()) - tilt * total)))


def _decide(part: pl.DataFrame, limit: float, least: int) -> Verdict:
    by_task = part.group_by("task").agg(k=pl.col("right").sum(), n=pl.len().cast(pl.Float64)).sort("task")
    return decide(by_task["k"].to_numpy(), by_task["n"].to_numpy(), limit, least)


def check_gold(table: pl.DataFrame, compared: pl.DataFrame) -> GoldCheck:
    """Compare the gold answers to one control with those most other people gave.

    A task disagrees when on more than half of its units the most frequent answer, given by at least two
    persons and more often than any other, is not the gold one. The gold is to be checked when that happens
    in more tasks than hard ones explain (the exact lower limit of their share, one-sided at 95 %, lies above
    `HARD`), and when people agree with one another more than with the gold: careless people disagree with
    each other, too.

    Args:
        table: schema `UNITS`, of one control.
        compared: what people answered beside the gold answers, of the same control.
    """
    known = compared.select(*UNIT, "gold").unique()
    people = keep(table, _SCORED & ~pl.col("gold"))
    people = people.drop("gold").join(known.select(UNIT), on=UNIT, how="semi")
    counted = (
        people.join(known, on=UNIT).group_by(*UNIT, "gold", "label").agg(n=pl.col("annotator").n_unique())
    )
    most = counted.filter(pl.col("n") == pl.col("n").max().over(UNIT))
    clear = most.filter(pl.len().over(UNIT) == 1, pl.col("n") > 1)
    by_task = clear.group_by("task").agg(off=(pl.col("label") != pl.col("gold")).mean())
    differ = by_task.filter(pl.col("off") > 0.5)["task"].sort().to_list()
    if not differ:
        return GoldCheck(len(by_task), differ, False)
    both = pairs(people)
    shares = both.select((pl.col("agreement") * pl.col("units")).sum() / pl.col("units").sum())
    each_other = float(shares.item())
    with_gold = float(compared.select((pl.col("label") == pl.col("gold")).mean()).item())
    low = clopper_pearson(len(differ), len(by_task), 1 - 2 * ERROR).low
    return GoldCheck(len(by_task), differ, (low or 0) > HARD and each_other > with_gold)


def _compare(table: pl.DataFrame, scales: Mapping[str, Scale]) -> pl.DataFrame:
    """Every answer of a person beside another one's gold answer to its unit."""
    gold = table.filter("gold").sort(*UNIT, "annotator", "annotation")
    contested = gold.group_by(UNIT).agg(pl.col("label").n_unique()).filter(pl.col("label") > 1)
    if len(contested):
        task, control = contested.sort(UNIT).row(0)[:2]
        raise ValueError(f"task {task} has different gold answers for {control}: keep one of them")
    # The first two who gave it are enough: one of them is another than the annotator who is scored.
    known = (
        gold.unique([*UNIT, "annotator"], keep="first", maintain_order=True)
        .filter(pl.int_range(pl.len()).over(UNIT) < 2)
        .select(*UNIT, by="annotator", gold_label="label", gold_shape="shape")
    )
    people = table.filter(_SCORED).drop("gold")
    both = (
        people.join(known, on=UNIT, maintain_order="left_right")
        .filter(pl.col("annotator") != pl.col("by"))
        .unique([*UNIT, "annotation"], keep="first", maintain_order=True)
        .rename({"gold_label": "gold"})
        .sort(*UNIT, "annotator", "annotation")
    )
    # What another annotator invented is no question to this one: an object that neither drew does not count,
    # unless the whole task is empty for both, which is an answer and a right one.
    either = (pl.col("label") != ABSENT) | (pl.col("gold") != ABSENT)
    answer = ["task", "control", "annotation"]
    empty = ~either.any().over(answer) & (pl.col("unit") == pl.col("unit").min().over(answer))
    both = both.filter(either | empty)
    parts = [
        _measured(part, scales.get(str(control), UNDECLARED))
        for (control,), part in both.group_by("control", maintain_order=True)
    ]
    return pl.concat(parts) if parts else _measured(both, UNDECLARED)


def _measured(part: pl.DataFrame, scale: Scale) -> pl.DataFrame:
    """With `right`, from 0 to 1, and of shapes of both `alike` and `edges`."""
    kind = str(part["kind"][0]) if len(part) else ""
    right = (part["label"] == part["gold"]).cast(pl.Float64)
    said = pl.concat([part["label"], part["gold"]]).unique().sort()
    if level_of(kind, said.to_list(), scale) != "nominal":
        i, j = (part[name].cast(pl.Enum(said)).to_physical().to_numpy() for name in ("label", "gold"))
        right = pl.Series(comparer(kind, said.to_list(), scale)(i.astype(np.int64), j.astype(np.int64)))
    alike, edges = np.full((2, len(part)), np.nan)
    both = (part["shape"].is_not_null() & part["gold_shape"].is_not_null()).to_numpy()
    if kind in DRAWN and both.any():
        drawn = part.filter(both)
        mine, theirs = shapes_of(drawn), shapes_of(drawn.drop("shape").rename({"gold_shape": "shape"}))
        alike[both] = DRAWN[kind].similar(mine, theirs)
        boundary = DRAWN[kind].boundary
        if boundary is not None:
            edges[both] = boundary(mine, theirs)
    return part.with_columns(right=right, alike=alike, edges=edges).with_columns(
        pl.col("alike", "edges").fill_nan(None)
    )


def _score(part: pl.DataFrame, confidence: float) -> Estimate:
    right = part.group_by("task").agg(k=pl.col("right").sum(), n=pl.len()).sort("task")
    if not len(right):
        return unknown(0, "wilson", "no gold task was answered")
    whole = bool(part["right"].is_in([0.0, 1.0]).all())
    if whole and not part["kind"].is_in(list(DETECTED)).any() and len(right) == len(part):
        return wilson(int(right["k"].sum()), int(right["n"].sum()), confidence)
    interval = clustered if whole else mean_of
    return interval(right["k"].to_numpy(), right["n"].cast(pl.Float64).to_numpy(), confidence)


def _detection(part: pl.DataFrame, confidence: float) -> Detection:
    drawn, there = pl.col("label") != ABSENT, pl.col("gold") != ABSENT
    by_task = part.group_by("task").agg(
        drawn=drawn.sum(),
        there=there.sum(),
        found=(drawn & there).sum(),
        right=(drawn & there & (pl.col("label") == pl.col("gold"))).sum(),
        either=(drawn.sum() + there.sum()) / 2,
    )
    by_task = by_task.sort("task").cast(dict.fromkeys(("drawn", "there", "found", "right"), pl.Float64))

    def share(of: str, whole: str) -> Estimate:
        return clustered(by_task[of].to_numpy(), by_task[whole].to_numpy(), confidence)

    return Detection(
        share("found", "drawn"),
        share("found", "there"),
        share("found", "either"),
        share("right", "found"),
        _mean(part, "alike", confidence),
        _mean(part, "edges", confidence),
    )


def _mean(part: pl.DataFrame, column: str, confidence: float) -> Estimate:
    known = part.drop_nulls(column).group_by("task").agg(k=pl.col(column).sum(), n=pl.len()).sort("task")
    return mean_of(known["k"].to_numpy(), known["n"].cast(pl.Float64).to_numpy(), confidence)
