"""Answers against NLTK, jiwer and scipy, by brute force, and by hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, permutations

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.metrics import jaccard_distance, masi_distance
from numpy.typing import NDArray
from scipy.stats import kendalltau

from connector.quality.similarity import (
    Ragged,
    character_error_rate,
    edit_similarity,
    interval_similarity,
    jaccard,
    kendall_tau_b,
    masi,
    normalized,
    path_similarity,
    ragged,
    ranking_similarity,
    same,
    same_set,
    taxonomy_similarity,
    word_error_rate,
    word_similarity,
)

Path = tuple[int, ...]
Compare = Callable[[list[str], list[str]], NDArray[np.float64]]

labels = st.sets(st.integers(-2, 4), max_size=5)
path = st.lists(st.integers(0, 2), max_size=4).map(tuple)
text = st.text("ab c", max_size=8).map(str.strip)
words = st.lists(st.sampled_from(["a", "b", "cc", "dd"]), max_size=6).map(" ".join)
# Both sides rank the same items.
rankings = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), max_size=7)


def sets(*rows: set[int]) -> Ragged:
    return ragged([sorted(row) for row in rows], np.int64)


def test_single_answers_are_the_same_or_not() -> None:
    assert same(np.array(["a", "b"]), np.array(["a", "c"])).tolist() == [1, 0]
    assert same(np.array([3, 4]), np.array([3, 5])).tolist() == [1, 0]


@given(st.lists(st.tuples(labels, labels), min_size=1, max_size=6))
def test_sets_are_as_alike_as_nltk_says(pairs: list[tuple[set[int], set[int]]]) -> None:
    a, b = (sets(*(pair[side] for pair in pairs)) for side in (0, 1))
    found = jaccard(a, b), masi(a, b)
    for i, pair in enumerate(pairs):
        # NLTK would divide by 0 for two empty sets.
        expected = [1 - distance(*pair) if any(pair) else 1 for distance in (jaccard_distance, masi_distance)]
        assert [found[0][i], found[1][i]] == pytest.approx(expected, abs=1e-9)
    assert same_set(a, b).tolist() == [one == other for one, other in pairs]


def test_sets_are_as_alike_as_the_papers_say() -> None:
    a = sets({1}, {1, 2}, {1, 2}, {1}, set(), set())
    b = sets({1}, {1, 2, 3}, {2, 3}, {2}, set(), {1})
    assert jaccard(a, b) == pytest.approx([1, 2 / 3, 1 / 3, 0, 1, 0])
    assert masi(a, b) == pytest.approx([1, 4 / 9, 1 / 9, 0, 1, 0])


def steps_in_common(a: Path, b: Path) -> float:
    shared = max(n for n in range(len(a) + 1) if a[:n] == b[:n])
    return shared / max(len(a), len(b)) if a or b else 1


@given(st.lists(st.tuples(path, path), min_size=1, max_size=6))
def test_paths_are_as_alike_as_their_common_beginning_is_long(pairs: list[tuple[Path, Path]]) -> None:
    a, b = (ragged([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    expected = [steps_in_common(*pair) for pair in pairs]
    assert path_similarity(a, b) == pytest.approx(expected, abs=1e-9)
    assert path_similarity(b, a) == pytest.approx(expected, abs=1e-9)


def best_matching(a: list[Path], b: list[Path]) -> float:
    short, long = sorted((a, b), key=len)
    total = max(sum(map(steps_in_common, short, some)) for some in permutations(long, len(short)))
    return total / (len(a) + len(b) - total) if a or b else 1


@given(st.lists(path, min_size=1, max_size=8, unique=True), st.data())
@settings(deadline=None)  # the first call imports the solver
def test_sets_of_paths_are_matched_as_well_as_any_matching(paths: list[Path], data: st.DataObject) -> None:
    some = st.sets(st.sampled_from(range(len(paths))), max_size=4)
    pairs = data.draw(st.lists(st.tuples(some, some), min_size=1, max_size=4))
    a, b = (sets(*(pair[side] for pair in pairs)) for side in (0, 1))
    expected = [best_matching([paths[i] for i in one], [paths[i] for i in other]) for one, other in pairs]
    tree = ragged(paths, np.int64)
    assert taxonomy_similarity(a, b, tree) == pytest.approx(expected, abs=1e-9)
    assert taxonomy_similarity(b, a, tree) == pytest.approx(expected, abs=1e-9)


def test_numbers_are_as_alike_as_they_are_near() -> None:
    a, b = np.array([1.0, 1, 5, 1, 2]), np.array([1.0, 2, 1, 9, 1.5])
    assert interval_similarity(a, b, 4) == pytest.approx([1, 0.75, 0, 0, 0.875])
    assert interval_similarity(b, a, [1, 2, 8, 80, 0]) == pytest.approx([1, 0.5, 0.5, 0.9, 0])
    assert interval_similarity(a, b, 0).tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("written", "heard"),
    [
        (" A  b\t\nC ", "a b c"),
        ("Straße", "strasse"),
        ("ＡＢＣ①", "abc1"),
        ("ﬁn", "fin"),
        ("e\u0301", "é"),
        ("J\u030c", "\u01f0"),
        ("x\u00a0y\u3000z", "x y z"),
        ("ΣΑΣ", "σασ"),
        ("It's 5, not 6.", "it's 5, not 6."),
        (" \n ", ""),
    ],
)
def test_what_nobody_hears_is_taken_away(written: str, heard: str) -> None:
    assert normalized([written, "x"]) == [heard, "x"]


def test_case_may_stay() -> None:
    assert normalized([" Straße  ﬁN "], fold_case=False) == ["Straße fiN"]


@given(st.lists(st.text(), max_size=5))
def test_normalized_texts_stay_as_they_are(texts: list[str]) -> None:
    once = normalized(texts)
    assert normalized(once) == once
    assert normalized([text.casefold() for text in texts]) == once


# Without spaces at the ends, which jiwer takes away.
@given(st.lists(st.tuples(text.filter(bool), text), min_size=1, max_size=4))
def test_characters_are_edited_as_in_jiwer(pairs: list[tuple[str, str]]) -> None:
    a, b = ([pair[side] for pair in pairs] for side in (0, 1))
    expected = [jiwer.cer(*pair) for pair in pairs]
    assert character_error_rate(a, b) == pytest.approx(expected, abs=1e-9)
    alike = [
        1 - rate * len(one) / max(map(len, (one, other)))
        for rate, (one, other) in zip(expected, pairs, strict=True)
    ]
    assert edit_similarity(a, b) == pytest.approx(alike, abs=1e-9)
    assert edit_similarity(b, a) == pytest.approx(alike, abs=1e-9)


@given(st.lists(st.tuples(words.filter(bool), words), min_size=1, max_size=4))
def test_words_are_edited_as_in_jiwer(pairs: list[tuple[str, str]]) -> None:
    a, b = ([pair[side] for pair in pairs] for side in (0, 1))
    expected = [jiwer.wer(*pair) for pair in pairs]
    assert word_error_rate(a, b) == pytest.approx(expected, abs=1e-9)
    counts = [[len(one.split()) for one in pair] for pair in pairs]
    alike = [1 - rate * count[0] / max(count) for rate, count in zip(expected, counts, strict=True)]
    assert word_similarity(a, b) == pytest.approx(alike, abs=1e-9)
    assert word_similarity(b, a) == pytest.approx(alike, abs=1e-9)


def test_edits_by_hand() -> None:
    assert character_error_rate(["kitten", "abc"], ["sitting", ""]) == pytest.approx([3 / 6, 1])
    assert edit_similarity(["kitten", "abc"], ["sitting", ""]) == pytest.approx([4 / 7, 0])
    assert word_error_rate(["the cat sat", "a"], ["the  dog\nsat", "b c d"]) == pytest.approx([1 / 3, 3])
    assert word_similarity(["the cat sat", "a"], ["the  dog\nsat", "b c d"]) == pytest.approx([2 / 3, 0])
    # Texts are compared as they are: upper case and spaces count.
    assert edit_similarity(["A", " a"], ["a", "a"]) == pytest.approx([0, 1 / 2])


@pytest.mark.parametrize("rate", [character_error_rate, word_error_rate])
def test_an_empty_reference_is_wholly_wrong_or_wholly_right(rate: Compare) -> None:
    assert rate(["", "", ""], ["", "a", "a b c"]).tolist() == [0, 1, 1]
    assert rate([], []).shape == (0,)


@pytest.mark.parametrize("alike", [edit_similarity, word_similarity])
def test_empty_texts_are_alike_and_like_no_other(alike: Compare) -> None:
    assert alike(["", "", "a"], ["", "a", ""]).tolist() == [1, 0, 0]
    assert alike([], []).shape == (0,)


def sides(pairs: list[list[tuple[int, int]]]) -> tuple[Ragged, Ragged]:
    a, b = (ragged([[ranks[side] for ranks in pair] for pair in pairs]) for side in (0, 1))
    return a, b


@given(st.lists(rankings, min_size=1, max_size=4))
def test_tau_b_is_scipys(pairs: list[list[tuple[int, int]]]) -> None:
    found = kendall_tau_b(*sides(pairs))
    for tau, pair in zip(found, pairs, strict=True):
        in_order = [len({ranks[side] for ranks in pair}) > 1 for side in (0, 1)]
        expected = kendalltau(*np.transpose(pair)).statistic if all(in_order) else float(not any(in_order))
        assert tau == pytest.approx(expected, abs=1e-9)


@given(st.lists(rankings, min_size=1, max_size=4))
def test_rankings_are_as_alike_as_pairs_in_the_same_order(pairs: list[list[tuple[int, int]]]) -> None:
    a, b = sides(pairs)
    expected = []
    for pair in pairs:
        # Half a step apart where one side ties what the other puts in order, a whole one if reversed.
        apart = [abs(np.sign(i[0] - j[0]) - np.sign(i[1] - j[1])) / 2 for i, j in combinations(pair, 2)]
        expected.append(1 - np.mean(apart) if apart else 1)
    assert ranking_similarity(a, b) == pytest.approx(expected, abs=1e-9)
    assert ranking_similarity(b, a) == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.permutations(range(5)), min_size=1, max_size=4))
def test_without_ties_a_ranking_is_as_alike_as_half_of_1_and_tau(orders: list[list[int]]) -> None:
    a, b = ragged([range(5)] * len(orders)), ragged(orders)
    assert ranking_similarity(a, b) == pytest.approx((1 + kendall_tau_b(a, b)) / 2, abs=1e-9)


def test_more_rows_than_are_worked_on_at_once_are_compared_alike() -> None:
    chance = np.random.default_rng(0)
    a, b = (chance.permuted(np.tile(np.arange(10), (30_000, 1)), axis=1) for _ in range(2))
    halves = [np.sort(side[:, :5], axis=1) for side in (a, b)]
    expected = [len({*one} & {*other}) / len({*one, *other}) for one, other in zip(*halves, strict=True)]
    assert jaccard(*map(ragged, halves)) == pytest.approx(expected, abs=1e-9)
    roots, few = ragged([[root] for root in range(10)]), [ragged(half[:3000], np.int64) for half in halves]
    assert taxonomy_similarity(*few, roots) == pytest.approx(expected[:3000], abs=1e-9)
    taus = kendall_tau_b(ragged(a[:3000]), ragged(b[:3000]))
    for i in range(0, 3000, 100):
        assert taus[i] == pytest.approx(kendalltau(a[i], b[i]).statistic, abs=1e-9)
