"""How far annotators agree with each other: observed, and corrected for chance.

Everything is computed from one table of counts: how often each label was given in each unit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from statistics import NormalDist

import numpy as np
import polars as pl

from connector.quality.answers import ABSENT, UNDECLARED
from connector.quality.counts import Counts, by_group, counts
from connector.quality.graded import DISTINCT, graded, graded_imagined, graded_sums, scale_of
from connector.quality.interval import CONFIDENCE, Estimate, Floats, Ints, clustered, unknown
from connector.quality.kinds import DETECTED, RELATION, kind_of, level_of
from connector.quality.resampling import FEW, FEWEST, ONE_LABEL, TWO, groups, jackknife
from connector.quality.table import Scale
from connector.quality.units import UNIT, comparable, latest

__all__ = ["LEVELS", "Agreement", "agreement", "agreement_of", "by_label", "level_of", "pairs"]

LEVELS = ("nominal", "ordinal", "interval", "ratio", "similarity")
"""What differences mean: nothing but another answer, an order, a distance, a quotient, or how alike answers
are."""

SAME_OR_OTHER = "answers are the same or others, and AC1 says all"
NOTHING_VARIES = "no task differs from another, so linearization gives no interval"
MORE_OR_LESS = "answers of this kind are more or less alike, and not only the same or others"
NOT_DRAWN = "answers of this kind are not drawn, so none can be missed"
NOT_RELATED = "answers of this kind are no relations"
NOTHING_DRAWN = "no annotator of two or more drew anything"
MISSES = "negative values are possible: objects that no annotator drew cannot be counted"
"""What is to be known of alpha where objects are drawn."""
TOO_MANY = f"more than {DISTINCT} different answers"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Answers to one question, over units with at least two of them.

    Attributes:
        level: of `LEVELS`, by which `observed`, `krippendorff_alpha` and `gwet_ac2` are computed.
        observed: the share of pairs of answers that are the same; or how alike they are. Pairs neither of
            which drew the object are left out.
        gwet_ac2: AC1 weighted by how alike answers are; unknown where they are the same or not.
        detection_f1: of what is drawn, the pairwise F1: of all objects of two annotators, the share that both
            drew, whatever the labels. The headline of drawn kinds.
        relations_f1: the same of relations.
    """

    level: str
    observed: Estimate
    krippendorff_alpha: Estimate
    fleiss_kappa: Estimate
    gwet_ac1: Estimate
    gwet_ac2: Estimate
    detection_f1: Estimate
    relations_f1: Estimate

    @property
    def headline(self) -> tuple[str, Estimate]:
        """The one number to show as the agreement, and its name: of what is drawn or related, the F1; of
        answers that are more or less alike, their mean similarity; else the observed agreement.

        Where no annotator drew anything it is the observed agreement: that nothing is there.
        Objects that no annotator drew cannot be counted, so there is no rate of all decisions that agree, and
        none by chance; of kappa the F1 is the limit (Hripcsak & Rothschild 2005).
        """
        for name, one in (("detection F1", self.detection_f1), ("relations F1", self.relations_f1)):
            if one.why not in (NOT_DRAWN, NOT_RELATED, NOTHING_DRAWN):
                return name, one
        return "observed" if self.level == "nominal" else "mean similarity", self.observed


def agreement(
    table: pl.DataFrame,
    seed: int,
    confidence: float = CONFIDENCE,
    level: str | None = None,
    analytic: bool = False,
    scale: Scale = UNDECLARED,
) -> Agreement:
    """Agreement among the last answers of all annotators in a unit table of one control.

    Observed is the mean over units of the share of pairs that agree. Units with one answer say nothing
    about agreement; kappa, AC1 and AC2 count them when they judge what chance would do, as Gwet (2014) does.
    `ABSENT` is a label like any other, but two annotators who both say it of what a third drew do not agree
    on anything: such pairs are left out of observed, kappa and AC1, unless no annotator drew anything in the
    task. Alpha knows no pairs that are left out. It is negative where all disagreements are misses, since
    objects that no annotator drew cannot be counted; `detection_f1` does not need them.

    Args:
        table: columns of `UNITS`, of one control; `consensus` takes several.
        seed: of what is sampled where there is too much of it: groups of more than 2,000 tasks, and pairs of
            more than 1,000 different answers.
        confidence: of the intervals (`resampling.jackknife`), which need five tasks with two answers.
        level: of `LEVELS`; by default what suits the kind.
        analytic: intervals by linearization instead, for the nominal level: what irrCAC computes, for many
            tasks.
        scale: what is declared about the answers.

    Raises:
        ValueError: if the level is unknown, or asks for numbers and the answers are none; or if there are
            several controls.

    References:
        Observed and kappa: Fleiss, J. L. (1971). Measuring nominal scale agreement among many raters.
        Psychological Bulletin 76, 378-382; for missing answers Gwet, K. L. (2014). Handbook of Inter-Rater
        Reliability, 4th ed., chapter 2. AC1: Gwet (2008). Br J Math Stat Psychol 61, 29-48; AC2: Gwet (2014),
        chapter 3. Alpha: Krippendorff, K. (2011). Computing Krippendorff's Alpha-Reliability. Analytic
        intervals: Gwet (2014), chapters 5 and 6. Detection: Hripcsak, G. & Rothschild, A. S. (2005).
        Agreement, the F-measure, and reliability in information retrieval. JAMIA 12, 296-298.
    """
    return agreement_of(counts(table), kind_of(table), seed, confidence, level, analytic, scale)


def agreement_of(
    found: Counts,
    kind: str,
    seed: int,
    confidence: float = CONFIDENCE,
    level: str | None = None,
    analytic: bool = False,
    scale: Scale = UNDECLARED,
) -> Agreement:
    """The same from counts.

    Args:
        kind: of the answers, as `kinds` has them.
    """
    level = level or level_of(kind, found.labels, scale)
    if level not in LEVELS:
        raise ValueError(f"unknown level {level!r}; one of {', '.join(LEVELS)}")
    detected = _detected(found, kind, confidence)
    if level in ("ordinal", "interval", "ratio"):
        found = found.without(ABSENT)  # nobody's number
    paired = found.paired()
    n = len(paired.answers)
    if level != "nominal":
        near = scale_of(paired, kind, replace(scale, level=level), seed)
        names = (f"mean similarity ({near.measure})", f"krippendorff, {level}", "gwet ac2")
        group = groups(found.task, 5 + near.features.shape[1] + len(found.labels), seed)
        sums = graded_sums(found, paired, near, group)
        statistic = partial(graded, scale=near)
        imagined, lowest = graded_imagined(paired, near), (0.0, -1.0, -1.0)
        made = jackknife(sums, imagined, statistic, names, n, paired.tasks, confidence, lowest)
        if n and near.weight is None:
            made[2] = unknown(n, names[2], TOO_MANY)
        fleiss, ac1 = (unknown(n, name, MORE_OR_LESS) for name in _OTHERS)
        return Agreement(level, made[0], made[1], fleiss, ac1, made[2], *detected)
    if analytic:
        made = _linearized(found, paired, confidence)
    else:
        group = groups(found.task, 4 + 2 * len(found.labels), seed)
        sums = _nominal_sums(found, paired, group)
        statistic = partial(_nominal, labels=len(found.labels), absent=_absent(found))
        imagined = _nominal_imagined(paired)
        made = jackknife(
            sums, imagined, statistic, _NOMINAL, n, paired.tasks, confidence, (0.0, -1.0, -1.0, -1.0)
        )
    observed, alpha, fleiss, ac1 = made
    return Agreement(level, observed, alpha, fleiss, ac1, unknown(n, "gwet ac2", SAME_OR_OTHER), *detected)


def _detected(found: Counts, kind: str, confidence: float) -> tuple[Estimate, Estimate]:
    """The pairwise F1 of what is drawn, and of relations.

    Of annotators a and b it is 2 * both / (n_a + n_b). Summed over all pairs of a task, with m of its N
    annotators at an object, that is the sum of m (m - 1) over the sum of m (N - 1).
    """
    method = "pairwise F1; wilson, tasks as clusters (Rao and Scott 1992)"
    drawn, related = unknown(0, method, NOT_DRAWN), unknown(0, method, NOT_RELATED)
    if kind not in DETECTED:
        return drawn, related
    at, tasks = found.answers - found.given(ABSENT), int(found.task.max(initial=-1)) + 1
    both: Floats = np.bincount(found.task, at * (at - 1), tasks).astype(np.float64)
    either: Floats = np.bincount(found.task, at * (found.answers - 1.0), tasks).astype(np.float64)
    f1 = clustered(both, either, confidence)
    f1 = replace(f1, method=method) if f1.n else unknown(0, method, NOTHING_DRAWN)
    return (f1, related) if kind != RELATION else (drawn, f1)


_OTHERS = ("fleiss", "gwet ac1")
_NOMINAL = ("observed", "krippendorff, nominal", *_OTHERS)


def _nominal_sums(found: Counts, paired: Counts, group: Ints) -> Floats:
    """(G, 4 + 2K) the additive parts of all four statistics.

    Of units with two answers: how many, agreement, coincidences, labels given. Of all: how many, and the
    share of each label, from which kappa and AC1 take chance.
    """
    size = int(group.max(initial=-1)) + 1
    mine = group[found.answers >= 2]
    same, others = paired.per_unit(paired.n * (paired.n - 1.0)), paired.answers - 1.0
    sums = [
        np.bincount(mine, minlength=size),
        np.bincount(mine, _share_that_agrees(paired), size),
        np.bincount(mine, same / others, size),
        np.bincount(group, minlength=size),
    ]
    shares = found.n / found.answers[found.unit]
    given = by_group(mine[paired.unit], paired.label, paired.n, size, len(found.labels))
    return np.column_stack(
        [*sums, given, by_group(group[found.unit], found.label, shares, size, len(found.labels))]
    )


def _nominal_imagined(paired: Counts) -> Floats:
    """(2, 4 + 2K) the same of a task on which all agree, and of one on which nobody does; either with each
    label as likely as the others."""
    labels, answers = len(paired.labels), float(paired.answers.mean()) if len(paired.answers) else 0.0
    rest = [1.0, *[answers / max(labels, 1)] * labels, *[1 / max(labels, 1)] * labels]
    return np.array([[1.0, 1.0, answers, *rest], [1.0, 0.0, 0.0, *rest]])


def _share_that_agrees(paired: Counts) -> Floats:
    """(U,) of the pairs of answers to each unit."""
    shared = paired.both_absent()
    same = paired.per_unit(paired.n * (paired.n - 1.0)) - shared
    share: Floats = same / (paired.answers * (paired.answers - 1.0) - shared)
    return share


def _absent(found: Counts) -> int | None:
    """The number of `ABSENT`, if it was given and two who say it do not agree by that."""
    return list(found.labels).index(ABSENT) if found.of_things and ABSENT in found.labels else None


def _nominal(sums: Floats, labels: int, absent: int | None = None) -> Floats:
    """(R, 4) observed, alpha, kappa, AC1 from (R, S) sums."""
    units, agreed, coincide = sums[:, 0], sums[:, 1], sums[:, 2]
    given, shares = sums[:, 4 : 4 + labels], sums[:, 4 + labels :] / sums[:, 3, None]
    observed = agreed / units
    n = given.sum(axis=1)
    alpha = 1 - (n - 1) * (n - coincide) / (n**2 - (given**2).sum(axis=1))
    by_chance = (shares**2).sum(axis=1)
    # Chance is that of pairs which are not both absent, as observed is.
    left_out = 0 if absent is None else shares[:, absent] ** 2
    kappa = (observed * (1 - left_out) - by_chance + left_out) / (1 - by_chance)
    gwet = (shares * (1 - shares)).sum(axis=1) / (labels - 1) if labels > 1 else np.full(len(sums), np.nan)
    ac1 = (observed - gwet) / (1 - gwet)
    # A sample of one label only has nothing to disagree on; rounding must not make a number of it.
    settled = np.isclose(by_chance, 1)
    alpha[settled], kappa[settled] = np.nan, np.nan
    return np.column_stack([observed, alpha, kappa, ac1])


def _linearized(found: Counts, paired: Counts, confidence: float) -> list[Estimate]:
    """Each number with a normal interval, from how much each task moves it."""
    method = "; linearized over tasks (Gwet 2014)"
    n, tasks = len(paired.answers), int(found.task.max(initial=-1)) + 1
    if not n:
        return [unknown(0, name + method, TWO) for name in _NOMINAL]
    labels = len(found.labels)
    sums = _nominal_sums(found, paired, np.zeros(len(found.task), dtype=np.int64))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = _nominal(sums, labels, _absent(found))[0]
        moved = _influence(found, paired, sums[0], value)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    made = []
    for name, point, by_unit in zip(_NOMINAL, value, moved, strict=True):
        if not np.isfinite(point):
            made.append(unknown(n, name + method, ONE_LABEL))
        elif paired.tasks < FEWEST:
            made.append(Estimate(float(point), None, None, n, name, FEW))
        elif np.all(by_unit == 0):
            made.append(Estimate(float(point), None, None, n, name, NOTHING_VARIES))
        else:
            error = z * float(np.std(np.bincount(found.task, by_unit), ddof=1) * np.sqrt(tasks))
            made.append(
                Estimate(
                    float(point),
                    max(-1.0, float(point) - error),
                    min(1.0, float(point) + error),
                    n,
                    name + method,
                )
            )
    return made


def _influence(found: Counts, paired: Counts, sums: Floats, value: Floats) -> list[Floats]:
    """By how much each unit (U,) moves observed, alpha, kappa and AC1: their derivatives, times its parts."""
    labels, two = len(found.labels), found.answers >= 2
    units, _, coincide, everything = sums[:4]
    given, shares = sums[4 : 4 + labels], sums[4 + labels :] / everything
    observed, alpha, kappa, ac1 = value
    same, others = paired.per_unit(paired.n * (paired.n - 1.0)), paired.answers - 1.0

    def spread(of_paired: Floats) -> Floats:
        whole = np.zeros(len(two))
        whole[two] = of_paired
        return whole

    own = spread((_share_that_agrees(paired) - observed) / units)
    n = given.sum()
    chance = n**2 - (given**2).sum()
    per_label = -(2 * n - 1 - coincide) + (1 - alpha) * 2 * (n - given)
    for_alpha = ((n - 1) * same / others + paired.per_unit(per_label[paired.label] * paired.n)) / chance
    share = found.n / found.answers[found.unit]
    by_chance, gwet = (shares**2).sum(), (shares * (1 - shares)).sum() / (labels - 1)
    # With the chance of two that are both absent left out of kappa, by the quotient rule.
    missing = 0.0 if (absent := _absent(found)) is None else float(shares[absent])
    left_out = np.zeros(len(two))
    if missing:
        left_out = 2 * missing * (found.given(ABSENT) / found.answers - missing) / everything
    for_kappa = 2 * found.per_unit(share * (shares[found.label] - by_chance)) / everything
    slope = (1 - 2 * shares - (1 - 2 * shares) @ shares) / (labels - 1)
    for_ac1 = found.per_unit(share * slope[found.label]) / everything
    return [
        own,
        spread(for_alpha),
        ((1 - missing**2) * own + (1 - observed) * left_out - (1 - kappa) * for_kappa) / (1 - by_chance),
        (own - (1 - ac1) * for_ac1) / (1 - gwet),
    ]


# Of single labels, and of every two annotators.


def by_label(
    found: Counts, seed: int, confidence: float = CONFIDENCE
) -> list[tuple[str, Estimate, Estimate]]:
    """Each label against all others together.

    Returns:
        The label, by number of answers; positive agreement: if one of two answers to a unit gives the label,
        how often so does the other; and alpha.

    References:
        Positive agreement: Cicchetti, D. V. & Feinstein, A. R. (1990). High agreement but low kappa: II.
        Journal of Clinical Epidemiology 43, 551-558; for many raters Uebersax, J. S. (1982). A
        design-independent method for measuring the reliability of psychiatric diagnosis. J Psychiatric
        Research 17, 335-342.
    """
    paired, labels = found.paired(), len(found.labels)
    group = groups(found.task, 3 * labels + 1, seed)[found.answers >= 2]
    size = int(group.max(initial=-1)) + 1
    entry, others = group[paired.unit], (paired.answers - 1.0)[paired.unit]
    given = by_group(entry, paired.label, paired.n, size, labels)
    same = by_group(entry, paired.label, paired.n * (paired.n - 1) / others, size, labels)
    # Two answers differ in a label if one gives it and the other does not, in either order.
    differ: Floats = 2.0 * by_group(
        entry, paired.label, paired.n * (paired.answers[paired.unit] - paired.n) / others, size, labels
    )
    sums: Floats = np.column_stack([same, given, differ, np.bincount(group, paired.answers, size)])
    answers = float(paired.answers.mean()) if len(paired.answers) else 0.0
    half, full, none = (np.full(labels, share * answers) for share in (0.5, 1.0, 0.0))
    imagined = np.array([[*half, *half, *none, answers], [*none, *half, *full, answers]])
    n = given.sum(axis=0).astype(int).tolist()
    names = ["positive agreement"] * labels + ["krippendorff, nominal"] * labels
    lowest = [0.0] * labels + [-1.0] * labels
    made = jackknife(sums, imagined, _each_label, names, n + n, paired.tasks, confidence, lowest)
    order = np.argsort(-given.sum(axis=0), kind="stable")
    return [(found.labels[label], made[label], made[labels + label]) for label in order]


def _each_label(sums: Floats) -> Floats:
    """(R, 2K) positive agreement and alpha of each label from (R, 3K + 1) sums."""
    same, given, differ = np.split(sums[:, :-1], 3, axis=1)
    answers = sums[:, -1:]
    chance = 2 * given * (answers - given) / (answers * (answers - 1))
    alpha = np.where(chance > 0, 1 - differ / answers / chance, np.nan)
    return np.column_stack([same / given, alpha])


def pairs(table: pl.DataFrame) -> pl.DataFrame:
    """Agreement of every two annotators in each control, over the units both answered.

    Objects that neither drew are left out; a task that both left empty counts as one unit, and agreed.

    Args:
        table: columns of `UNITS`; of several controls each is judged by itself.

    Returns:
        control, annotator_a < annotator_b, units, agreement, kappa (Cohen, J. (1960). Educational and
        Psychological Measurement 20, 37-46; null where chance agreement is certain), detection_f1 (of what is
        drawn or related: the share of the objects of both that both drew; else null), sorted.
    """
    said = latest(table).select(*UNIT, "kind", "annotator", "label")
    both = said.join(said.drop("kind"), on=UNIT, suffix="_b").filter(
        pl.col("annotator") < pl.col("annotator_b")
    )
    both = both.rename({"annotator": "annotator_a"})
    two = ["control", "annotator_a", "annotator_b"]
    both = comparable(both, "label_b", ["task", *two])
    drew = [(pl.col(name) != ABSENT).sum() for name in ("label", "label_b")]
    found = ((pl.col("label") != ABSENT) & (pl.col("label_b") != ABSENT)).sum()
    any_drawn = pl.col("kind").is_in(list(DETECTED)).any() & (drew[0] + drew[1] > 0)
    seen = both.group_by(two).agg(
        units=pl.len(),
        agreement=(pl.col("label") == pl.col("label_b")).mean(),
        detection_f1=pl.when(any_drawn).then(2 * found / (drew[0] + drew[1])),
    )
    a = both.group_by(*two, "label").agg(a=pl.len())
    b = both.group_by(*two, pl.col("label_b").alias("label")).agg(b=pl.len())
    chance = a.join(b, on=[*two, "label"]).group_by(two).agg(both=(pl.col("a") * pl.col("b")).sum())
    by_chance = pl.col("both").fill_null(0) / pl.col("units").cast(pl.Float64) ** 2
    kappa = pl.when(by_chance < 1).then((pl.col("agreement") - by_chance) / (1 - by_chance))
    columns = [*two, "units", "agreement", "kappa", "detection_f1"]
    return seen.join(chance, on=two, how="left").with_columns(kappa=kappa).select(columns).sort(two)
