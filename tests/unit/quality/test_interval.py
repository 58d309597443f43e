"""Intervals against published figures, other libraries, and by enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from connector.quality.interval import clustered, hypergeometric, wilson

counted = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_figures_of_newcombe_1998_table_1_method_3(
    k: int, n: int, low: float, high: float
) -> None:
    found = wilson(k, n)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(counted, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_is_statsmodels_wilson(kn: tuple[int, int], confidence: float) -> None:
    found = wilson(*kn, confidence)
    low, high = proportion_confint(*kn, alpha=1 - confidence, method="wilson")
    assert found.low == pytest.approx(low, abs=1e-9)
    assert found.high == pytest.approx(high, abs=1e-9)
    assert found.value == kn[0] / kn[1]


@given(counted)
def test_wilson_turns_over_when_success_and_failure_do(kn: tuple[int, int]) -> None:
    k, n = kn
    here, there = wilson(k, n), wilson(n - k, n)
    assert here.low == pytest.approx(1 - there.high)
    assert here.high == pytest.approx(1 - there.low)


def test_nothing_observed_is_unknown_and_not_zero() -> None:
    for found in (wilson(0, 0), hypergeometric(0, 0, 10), clustered(np.zeros(0), np.zeros(0))):
        assert (found.value, found.low, found.high) == (None, None, None)
        assert found.to_json()["why"]


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="k=5, n=4"):
        wilson(5, 4)
    with pytest.raises(ValueError, match="population=3"):
        hypergeometric(1, 4, 3)


@given(
    st.integers(2, 40).flatmap(
        lambda m: st.integers(1, m).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n), st.just(m)))
    )
)
@example((1, 1, 40))
@settings(deadline=None)
def test_hypergeometric_holds_every_population_that_a_two_sided_test_accepts(
    knm: tuple[int, int, int],
) -> None:
    k, n, population = knm
    found = hypergeometric(k, n, population)
    # A test at a level rejects a chance that is exactly the level: 1 of 40 is 0.025.
    accepted = [
        wrong
        for wrong in range(population + 1)
        if stats.hypergeom(population, wrong, n).sf(k - 1) > 0.025 + 1e-9
        and stats.hypergeom(population, wrong, n).cdf(k) > 0.025 + 1e-9
    ]
    assert found.low == pytest.approx(accepted[0] / population)
    assert found.high == pytest.approx(accepted[-1] / population)


def test_hypergeometric_covers_at_least_as_often_as_it_says() -> None:
    population, n = 60, 18
    intervals = [hypergeometric(k, n, population) for k in range(n + 1)]
    for wrong in range(population + 1):
        chance = stats.hypergeom(population, wrong, n).pmf(np.arange(n + 1))
        share = wrong / population
        inside = [i.low is not None and i.high is not None and i.low <= share <= i.high for i in intervals]
        assert chance[inside].sum() >= 0.95 - 1e-12


def test_a_whole_population_reviewed_leaves_no_doubt() -> None:
    found = hypergeometric(3, 12, 12)
    assert (found.value, found.low, found.high) == (0.25, 0.25, 0.25)


@given(st.lists(st.booleans(), min_size=2, max_size=60).filter(lambda seen: 0 < sum(seen) < len(seen)))
def test_one_unit_a_cluster_is_never_tighter_than_plain_wilson(seen: list[bool]) -> None:
    k = np.array(seen, dtype=float)
    found, plain = clustered(k, np.ones(len(k))), wilson(int(k.sum()), len(k))
    # The variance between clusters is estimated with m - 1, so few clusters give a little more.
    assert found.value == plain.value
    assert found.low == pytest.approx(plain.low, abs=0.4 / len(k))
    assert found.low <= plain.low + 1e-12
    assert found.high >= plain.high - 1e-12


def test_units_that_err_together_count_as_little_as_their_clusters() -> None:
    alike = clustered(np.array([10.0, 0.0] * 10), np.full(20, 10.0))
    apart = clustered(np.array([5.0, 5.0] * 10), np.full(20, 10.0))
    of_clusters, of_units = wilson(10, 20), wilson(100, 200)
    assert alike.value == apart.value == 0.5
    assert alike.low == pytest.approx(of_clusters.low, abs=0.01)
    assert apart.low == pytest.approx(of_units.low)


def test_clustered_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(600):
        ability = rng.beta(6, 2, size=40)
        n = rng.integers(1, 6, size=40).astype(float)
        found = clustered(rng.binomial(n.astype(int), ability).astype(float), n)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.75 <= found.high
    assert 0.92 <= inside / 600 <= 0.985
