"""Merging answers: the tie policy by brute force, and the properties that make an EM an EM."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.quality.answers import ABSENT
from connector.quality.consensus import consensus
from connector.quality.truth import dawid_skene, majority
from connector.quality.units import units
from tests.unit.quality.tables import Row, boxes, choices, last_of

rows = st.lists(
    st.tuples(st.sampled_from("pqrs"), st.sampled_from("abcde"), st.sampled_from(["cat", "dog", "owl"])),
    min_size=1,
    max_size=30,
)


@given(rows)
@settings(deadline=None)
def test_majority_is_the_most_frequent_and_a_tie_goes_to_the_usual_label(said: list[Row]) -> None:
    found, said = majority(choices(said)), last_of(said)
    usual = Counter(label for _, _, label in said)
    for row in found.iter_rows(named=True):
        votes = Counter(label for task, _, label in said if task == row["task"])
        most = max(votes.values())
        best = [label for label, n in votes.items() if n == most]
        assert row["label"] == min(best, key=lambda label: (-usual[label], label))
        assert row["tie"] == (len(best) > 1)
        assert (row["votes"], row["annotators"]) == (most, sum(votes.values()))
        assert row["confidence"] == most / sum(votes.values())


def simulated(seed: int, tasks: int = 400) -> tuple[list[Row], list[str], dict[str, np.ndarray]]:
    """Answers of four annotators with known confusions, and the truth."""
    rng = np.random.default_rng(seed)
    names = ["cat", "dog", "owl"]
    confusion = {
        "good": np.full((3, 3), 0.025) + np.eye(3) * 0.925,
        "fair": np.full((3, 3), 0.1) + np.eye(3) * 0.7,
        "poor": np.full((3, 3), 0.25) + np.eye(3) * 0.25,
        "swaps": np.array([[0.1, 0.85, 0.05], [0.85, 0.1, 0.05], [0.05, 0.05, 0.9]]),
    }
    truth = rng.choice(3, size=tasks, p=[0.5, 0.3, 0.2])
    said = [
        (f"{n:04}", who, names[int(rng.choice(3, p=matrix[true]))])
        for n, true in enumerate(truth)
        for who, matrix in confusion.items()
    ]
    return said, [names[int(true)] for true in truth], confusion


def test_dawid_skene_finds_out_who_confuses_what() -> None:
    said, truth, confusion = simulated(1, tasks=3000)
    model = dawid_skene(choices(said))
    assert model.annotators == sorted(confusion)
    for name, found in zip(model.annotators, model.confusion, strict=True):
        assert found == pytest.approx(confusion[name], abs=0.06)
    assert model.prior == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    right = np.mean(model.truth["label"].to_numpy() == np.array(truth))
    assert right > np.mean(majority(choices(said))["label"].to_numpy() == np.array(truth)) + 0.05


ANAESTHETISTS = """
1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223
2322223 4444444 2223343 1111111 2223212 1211111 1112111 1111111 1111111
2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111 2322222
1111111 1111111 1121121 1111111 3333233 1111111 2222222 2223232 4334343
2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111 2222222
"""
"""Dawid & Skene (1979), table 1: of each patient three assessments by the first anaesthetist, then one by
each other one."""


def test_the_published_example_is_reproduced() -> None:
    said = [
        (f"{patient:02}", f"{max(n - 2, 0) + 1}", label)
        for patient, labels in enumerate(ANAESTHETISTS.split(), 1)
        for n, label in enumerate(labels)
    ]
    model = dawid_skene(choices(said), iterations=2000, tolerance=1e-12, smoothing=0)
    assert model.converged
    # The paper gives two digits. It prints the error rates of all five; these are their diagonals.
    assert model.prior == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.005)
    right = np.diagonal(model.confusion, axis1=1, axis2=2)
    assert right[0] == pytest.approx([0.89, 0.88, 0.66, 0.44], abs=0.006)
    assert right[4] == pytest.approx([1.0, 0.73, 0.79, 0.67], abs=0.006)
    # Three patients are uncertain there, the others as good as certain.
    unsure = model.truth.filter(pl.col("confidence") < 0.99)
    assert unsure["task"].to_list() == ["07", "35", "38"]
    assert unsure["confidence"].to_list() == pytest.approx([0.98, 0.95, 0.98], abs=0.005)


@given(rows, st.sampled_from([0.0, 0.01, 1.0]))
@settings(deadline=None)
def test_the_likelihood_never_falls(said: list[Row], smoothing: float) -> None:
    history = dawid_skene(choices(said), smoothing=smoothing).log_likelihood
    assert all(later >= before - 1e-9 * max(1, abs(before)) for before, later in pairwise(history))


@given(rows, st.permutations("abcde"), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_who_is_called_what_and_comes_when_changes_nothing(said: list[Row], names: list[str], random) -> None:
    rename = dict(zip("abcde", names, strict=True))
    said = last_of(said)
    other = [(task, rename[who], label) for task, who, label in said]
    random.shuffle(other)
    here, there = dawid_skene(choices(said), iterations=20), dawid_skene(choices(other), iterations=20)
    assert here.truth["confidence"].to_numpy() == pytest.approx(there.truth["confidence"].to_numpy())
    assert majority(choices(said)).equals(majority(choices(other)))


@pytest.mark.parametrize("each", [1, 3])
def test_a_crowd_of_few_answers_each_does_not_collapse(each: int) -> None:
    rng = np.random.default_rng(5)
    truth, who = rng.integers(0, 4, 300), rng.permutation(900) // each
    right = rng.random(900) < rng.beta(6, 2, 900)[who]
    unit = np.repeat(np.arange(300), 3)
    said = np.where(right, truth[unit], (truth[unit] + rng.integers(1, 4, 900)) % 4)
    rows = [(f"{t:03}", f"w{w}", str(x)) for t, w, x in zip(unit, who, said, strict=True)]
    model, plain = dawid_skene(choices(rows)), majority(choices(rows))
    expected = truth.astype(str)
    assert (model.truth["label"].to_numpy() == expected).mean() >= (
        plain["label"].to_numpy() == expected
    ).mean() - 0.03
    unanimous = model.truth.filter(pl.lit(plain["confidence"]) == 1)
    assert unanimous["votes"].to_list() == unanimous["annotators"].to_list()


def test_a_split_of_two_is_a_tie_of_the_model() -> None:
    rows = [("t", "a", "cat"), ("t", "b", "dog")]
    assert dawid_skene(choices(rows)).truth["tie"].to_list() == [True]


def test_confidences_are_probabilities_and_calibrated_on_simulated_answers() -> None:
    said, truth, _ = simulated(2, tasks=2000)
    found = dawid_skene(choices(said)).truth
    right = found["label"].to_numpy() == np.array(truth)
    assert found["confidence"].is_between(0, 1).all()
    assert found["confidence"].mean() == pytest.approx(right.mean(), abs=0.03)


def test_consensus_of_boxes_takes_the_median_of_those_who_saw_the_object() -> None:
    table = units(
        boxes(
            {
                ("t", "a"): [("car", 10.0, 10.0, 20.0, 20.0)],
                ("t", "b"): [("car", 12.0, 10.0, 20.0, 20.0)],
                ("t", "c"): [("van", 11.0, 10.0, 26.0, 20.0), ("car", 70.0, 70.0, 9.0, 9.0)],
            }
        )
    )
    found = consensus(table, seed=0).units.rows(named=True)
    assert [(r["label"], r["votes"], r["annotators"]) for r in found] == [("car", 2, 3), (ABSENT, 2, 3)]
    # Each edge by itself: the left ones are at 10, 12 and 11, the right ones at 30, 32 and 37.
    assert found[0]["shape"] == [11.0, 10.0, 21.0, 20.0, 0.0]
    # Of the second object, which only c drew, nothing says that a and b agree.
    assert [r["agreement"] for r in found] == pytest.approx([1 / 3, 0])


@given(rows)
@settings(deadline=None)
def test_agreement_of_a_unit_is_the_share_of_pairs_that_agree(said: list[Row]) -> None:
    for row in consensus(choices(said), seed=0).units.iter_rows(named=True):
        labels = [label for task, _, label in last_of(said) if task == row["task"]]
        pairs = [(i, j) for i in range(len(labels)) for j in range(i)]
        same = sum(labels[i] == labels[j] for i, j in pairs)
        assert row["agreement"] == (pytest.approx(same / len(pairs)) if pairs else None)


def test_gold_and_reviewers_have_no_vote() -> None:
    said = [("t", "a", "cat"), ("t", "g", "dog"), ("t", "r", "dog")]
    found = consensus(choices(said, {"g": "gold", "r": "reviewer"}), seed=0).units
    assert found.select("label", "annotators").row(0) == ("cat", 1)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="dawid-skene"):
        consensus(choices([("t", "a", "cat")]), seed=0, method="oracle")


def test_no_answers_give_an_empty_consensus() -> None:
    assert len(consensus(choices([]), seed=0).units) == 0
    assert consensus(choices([]), seed=0).units.schema["confidence"] == pl.Float64
