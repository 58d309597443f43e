"""Agreement against published figures, other libraries, and by its invariants."""

from __future__ import annotations

import krippendorff
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import fleiss_kappa

from connector.quality.agreement import agreement, agreement_of_counts, pairs
from tests.unit.quality.tables import choices, ratings

FOUR_OBSERVERS = {
    "A": "123321412...",
    "B": "123322412" + "5.3",
    "C": ".333234225" + "1.",
    "D": "123324412" + "51.",
}
"""Krippendorff 2011, section C; the table that irrCAC calls cac.raw4raters (Gwet 2014)."""


def alpha(columns: dict[str, str]) -> float | None:
    return agreement(ratings(columns), seed=0, resamples=10).krippendorff_alpha.value


def test_alpha_gives_the_figures_of_krippendorff_2011() -> None:
    assert alpha({"Meg": "0100000010", "Owen": "1110010000"}) == pytest.approx(0.095, abs=5e-4)
    assert alpha({"Ben": "aabbdcccedda", "Gerry": "babbbcccedd" + "d"}) == pytest.approx(0.692, abs=5e-4)
    assert alpha(FOUR_OBSERVERS) == pytest.approx(0.743, abs=5e-4)


def test_all_four_give_the_figures_of_gwets_raw4raters() -> None:
    found = agreement(ratings(FOUR_OBSERVERS), seed=0)
    assert found.observed.value == pytest.approx(0.81818, abs=5e-6)
    assert found.krippendorff_alpha.value == pytest.approx(0.74342, abs=5e-6)
    assert found.fleiss_kappa.value == pytest.approx(0.76117, abs=5e-6)
    assert found.gwet_ac1.value == pytest.approx(0.77544, abs=5e-6)


WIKIPEDIA = [
    *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
    *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
]


def test_kappa_gives_the_figure_of_the_worked_example_in_wikipedias_fleiss_kappa() -> None:
    found = agreement_of_counts(np.array(WIKIPEDIA, dtype=float), np.arange(10), seed=0)
    assert found.fleiss_kappa.value == pytest.approx(0.210, abs=5e-4)
    assert found.observed.value == pytest.approx(0.378, abs=5e-4)


answers = st.integers(2, 5).flatmap(
    lambda raters: st.lists(
        st.lists(st.sampled_from([None, 0, 1, 2]), min_size=raters, max_size=raters), min_size=3, max_size=25
    )
)


@given(answers)
@settings(deadline=None)
def test_alpha_is_the_krippendorff_packages(units: list[list[int | None]]) -> None:
    paired = [unit for unit in units if sum(one is not None for one in unit) >= 2]
    assume(len({one for unit in paired for one in unit if one is not None}) > 1)
    rows = [
        (f"{n:02}", f"r{w}", str(one))
        for n, unit in enumerate(units)
        for w, one in enumerate(unit)
        if one is not None
    ]
    table = np.array([[np.nan if one is None else one for one in unit] for unit in units], dtype=float).T
    expected = krippendorff.alpha(reliability_data=table, level_of_measurement="nominal")
    found = agreement(choices(rows), seed=0, resamples=5)
    assert found.krippendorff_alpha.value == pytest.approx(expected)


@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=3, max_size=25))
@settings(deadline=None)
def test_kappa_of_complete_answers_is_statsmodels(units: list[list[int]]) -> None:
    found = np.array([[unit.count(k) for k in range(3)] for unit in units], dtype=float)
    assume((found.sum(axis=0) > 0).sum() > 1)
    ours = agreement_of_counts(found, np.arange(len(found)), seed=0, resamples=5)
    assert ours.fleiss_kappa.value == pytest.approx(fleiss_kappa(found[:, found.sum(axis=0) > 0]))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=40))
@settings(deadline=None)
def test_kappa_of_two_is_sklearns(units: list[tuple[str, str]]) -> None:
    one, other = zip(*units, strict=True)
    assume(len({*one, *other}) > 1)
    rows = [
        (f"{n:02}", who, said) for n, pair in enumerate(units) for who, said in zip("xy", pair, strict=True)
    ]
    found = pairs(choices(rows)).row(0, named=True)
    assert (found["annotator_a"], found["annotator_b"], found["units"]) == ("x", "y", len(units))
    assert found["agreement"] == pytest.approx(np.mean([p == q for p, q in units]))
    expected = cohen_kappa_score(one, other)
    if np.isnan(expected):
        assert found["kappa"] is None
    else:
        assert found["kappa"] == pytest.approx(expected)


@given(answers, st.permutations([0, 1, 2]), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_neither_names_of_people_nor_of_labels_nor_order_matter(units, names, random) -> None:
    rows = [
        (f"{n:02}", f"r{w}", str(one))
        for n, unit in enumerate(units)
        for w, one in enumerate(unit)
        if one is not None
    ]
    assume(rows)
    renamed = [(task, who[::-1], f"label {names[int(one)]}") for task, who, one in rows]
    random.shuffle(renamed)
    here, there = (
        agreement(choices(rows), seed=1, resamples=20),
        agreement(choices(renamed), seed=1, resamples=20),
    )
    for name in ("observed", "krippendorff_alpha", "fleiss_kappa", "gwet_ac1"):
        a, b = getattr(here, name), getattr(there, name)
        assert (a.value is None) == (b.value is None)
        if a.value is not None:
            assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high))


def test_perfect_agreement_is_one() -> None:
    found = agreement(ratings({"a": "xyzxyz", "b": "xyzxyz", "c": "xyzxyz"}), seed=0)
    for one in (found.observed, found.krippendorff_alpha, found.fleiss_kappa, found.gwet_ac1):
        assert (one.value, one.low, one.high) == pytest.approx((1, 1, 1))


def test_one_label_only_is_unknown_beyond_chance_and_says_why() -> None:
    found = agreement(ratings({"a": "xxxx", "b": "xxxx"}), seed=0)
    assert found.observed.value == 1
    assert found.krippendorff_alpha.value is None
    assert "only one label" in str(found.krippendorff_alpha.why)


def test_single_answers_say_nothing() -> None:
    found = agreement(ratings({"a": "xy..", "b": "..xy"}), seed=0)
    assert found.observed.value is None
    assert "two answers" in str(found.observed.why)


def test_the_same_seed_gives_the_same_interval_and_another_one_hardly_another() -> None:
    rng = np.random.default_rng(0)
    columns = {who: "".join(rng.choice(list("xxy"), 200)) for who in "abc"}
    table = ratings(columns)
    assert agreement(table, seed=1) == agreement(table, seed=1)
    one, other = agreement(table, seed=1).observed, agreement(table, seed=2).observed
    assert one.low == pytest.approx(other.low, abs=0.02)


def test_intervals_cover_the_true_agreement_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for run in range(200):
        right = rng.random((80, 3)) < 0.8
        said = np.where(right, 0, rng.integers(1, 3, (80, 3)))
        found = np.stack([(said == k).sum(axis=1) for k in range(3)], axis=1).astype(float)
        interval = agreement_of_counts(found, np.arange(80), seed=run, resamples=300).observed
        assert interval.low is not None
        assert interval.high is not None
        inside += interval.low <= 0.8**2 + 2 * 0.1**2 <= interval.high
    assert 0.90 <= inside / 200 <= 0.99
