"""Which regions are one object: against every way there is to join them, and by its invariants."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from connector.quality import alignment
from connector.quality.alignment import LABEL_BONUS, align, worth
from connector.quality.interval import Floats, Ints

THRESHOLD = 0.5


def intervals(seed: int, annotators: int, things: int) -> tuple[Floats, Ints]:
    """Stretches of a line that annotators drew for the same things, crowded, and not exactly."""
    rng = np.random.default_rng(seed)
    true = np.sort(rng.uniform(0, 6, things))
    drawn = [
        (who, start + rng.normal(0, 0.25), rng.uniform(0.8, 1.6))
        for who in range(annotators)
        for start in true
        if rng.random() < 0.85
    ]
    places = np.array([(start, start + length) for _, start, length in drawn]).reshape(-1, 2)
    order = np.lexsort(places.T[::-1])
    return places[order], np.array([who for who, _, _ in drawn], dtype=np.int64)[order]


def iou(places: Floats, i: Ints, j: Ints) -> Floats:
    low, high = np.maximum(places[i, 0], places[j, 0]), np.minimum(places[i, 1], places[j, 1])
    shared = np.clip(high - low, 0, None)
    return shared / (np.ptp(places[i], axis=-1) + np.ptp(places[j], axis=-1) - shared)


def joined(places: Floats, owner: Ints, group: Ints | None = None, **more: object) -> tuple[Ints, Floats]:
    group = np.zeros(len(owner), dtype=np.int64) if group is None else group
    return align(group, owner, lambda i, j: iou(places, i, j), THRESHOLD, **more)  # type: ignore[arg-type]


def total(places: Floats, owner: Ints, unit: Ints) -> float:
    """What the regions of the objects have in common."""
    every = np.arange(len(owner))
    alike = iou(places, *np.meshgrid(every, every)) if len(owner) else np.zeros((0, 0))
    same = np.triu(unit[:, None] == unit[None, :], 1)
    return float(worth(alike, owner, np.arange(len(owner)), THRESHOLD)[same].sum())


def partitions(owner: list[int]) -> Iterator[list[int]]:
    """Every way to join regions into objects, none with two of one annotation."""

    def extend(done: list[int]) -> Iterator[list[int]]:
        if len(done) == len(owner):
            yield done
            return
        for unit in range(max(done, default=-1) + 2):
            if all(owner[n] != owner[len(done)] for n, one in enumerate(done) if one == unit):
                yield from extend([*done, unit])

    return extend([])


@pytest.mark.parametrize("seed", range(40))
def test_of_two_annotators_it_is_the_assignment_of_most_in_common(seed: int) -> None:
    places, owner = intervals(seed, 2, 6)
    a, b = (np.flatnonzero(owner == who) for who in (0, 1))
    alike = iou(places, *(m.ravel() for m in np.meshgrid(a, b, indexing="ij"))).reshape(len(a), len(b))
    alike[alike < THRESHOLD] = 0
    best = alike[linear_sum_assignment(alike, maximize=True)].sum()
    assert total(places, owner, joined(places, owner)[0]) == pytest.approx(best)


@pytest.mark.parametrize(("annotators", "things"), [(3, 2), (4, 2), (7, 1)])
def test_of_up_to_eight_regions_it_is_the_best_of_all_ways(annotators: int, things: int) -> None:
    for seed in range(30):
        places, owner = intervals(seed, annotators, things)
        best = max(total(places, owner, np.array(way)) for way in partitions(owner.tolist()))
        assert total(places, owner, joined(places, owner)[0]) == pytest.approx(best)


def test_of_more_it_is_almost_always_the_best_and_never_far_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "_SMALL", 1)
    shares = []
    for seed in range(40):
        places, owner = intervals(seed, 3, 3)
        best = max(total(places, owner, np.array(way)) for way in partitions(owner.tolist()))
        shares.append(total(places, owner, joined(places, owner)[0]) / best if best else 1.0)
    assert np.mean(np.isclose(shares, 1)) >= 0.95
    assert min(shares) > 0.9


@pytest.mark.parametrize("seed", range(20))
def test_no_annotation_has_two_regions_in_an_object_and_the_first_region_names_it(seed: int) -> None:
    places, owner = intervals(seed, 6, 5)
    unit, alike = joined(places, owner)
    assert len({*zip(unit.tolist(), owner.tolist(), strict=True)}) == len(owner)
    assert all(unit[n] == np.flatnonzero(unit == unit[n])[0] for n in range(len(unit)))
    for n in range(len(unit)):
        others = np.flatnonzero((unit == unit[n]) & (np.arange(len(unit)) != n))
        mean = iou(places, np.full(len(others), n), others).mean() if len(others) else np.nan
        assert alike[n] == pytest.approx(mean, nan_ok=True)


@given(st.integers(0, 10_000), st.permutations(range(4)))
@settings(deadline=None, max_examples=60)
def test_it_does_not_matter_who_is_who(seed: int, names: list[int]) -> None:
    places, owner = intervals(seed, 4, 4)
    assert np.array_equal(joined(places, owner)[0], joined(places, np.array(names)[owner])[0])


def test_groups_are_joined_as_if_each_were_alone_whatever_is_held_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = [intervals(seed, 3, 4) for seed in range(10)]
    places, owner = (np.concatenate(side) for side in zip(*parts, strict=True))
    group = np.repeat(np.arange(10), [len(one) for one, _ in parts])
    start = np.concatenate([[0], np.cumsum([len(one) for one, _ in parts])])
    alone = np.concatenate([joined(*part)[0] + first for part, first in zip(parts, start, strict=False)])
    assert np.array_equal(joined(places, owner, group)[0], alone)
    monkeypatch.setattr(alignment, "PAIRS", 50)
    assert np.array_equal(joined(places, owner, group)[0], alone)


@pytest.mark.parametrize("seed", range(10))
def test_bounds_only_save_work(seed: int) -> None:
    places, owner = intervals(seed, 4, 5)
    with_bounds = joined(places, owner, bounds=places)
    assert np.array_equal(with_bounds[0], joined(places, owner)[0])


NESTED = np.array([[0.0, 10], [0, 9], [0, 9], [0, 9]])
"""`name` and `name.first` of one annotator, and of another, who trims the longer one by a character."""


@pytest.mark.parametrize("small", [alignment._SMALL, 1], ids=["all ways", "in turns"])
@pytest.mark.parametrize(
    ("places", "label", "expected"),
    [
        (NESTED, [0, 1, 0, 1], [0, 1, 0, 1]),
        (NESTED, [1, 0, 1, 0], [0, 1, 0, 1]),
        (NESTED, [0, 1, 1, 0], [0, 1, 1, 0]),
        # Both trimmed by one: crossed they have 0.01 more in common, which labels outweigh.
        (np.array([[0.0, 10], [0, 9], [0, 9], [0, 8]]), [0, 1, 0, 1], [0, 1, 0, 1]),
        # Crossed they have 0.2 more in common, which labels do not outweigh: each is confused with the other.
        (np.array([[0.0, 10], [0, 9], [0, 9], [0, 10]]), [0, 1, 0, 1], [0, 1, 1, 0]),
    ],
)
def test_labels_decide_where_shapes_do_equally_well_or_nearly(
    monkeypatch: pytest.MonkeyPatch, small: int, places: Floats, label: list[int], expected: list[int]
) -> None:
    monkeypatch.setattr(alignment, "_SMALL", small)
    unit, _ = joined(places, np.array([0, 0, 1, 1]), label=np.array(label))
    assert unit.tolist() == expected


def test_labels_join_nothing_that_the_shapes_do_not() -> None:
    apart = np.array([[0.0, 10], [0, 4.9]])
    assert joined(apart, np.array([0, 1]), label=np.array([0, 0]))[0].tolist() == [0, 1]


@pytest.mark.parametrize(("annotators", "things"), [(3, 2), (4, 2), (2, 4)])
def test_a_matching_label_counts_as_much_as_stated_and_the_sum_is_the_greatest(
    annotators: int, things: int
) -> None:
    for seed in range(20):
        places, owner = intervals(seed, annotators, things)
        label = np.random.default_rng(seed).integers(0, 2, len(owner))
        every = np.arange(len(owner))
        alike = iou(places, *np.meshgrid(every, every))
        gain = np.where(
            alike >= THRESHOLD, alike + LABEL_BONUS * np.equal.outer(label, label), alike - THRESHOLD
        )

        def total(unit: Ints, gain: Floats = gain) -> float:
            return float(gain[np.triu(unit[:, None] == unit[None, :], 1)].sum())

        best = max(total(np.array(way)) for way in partitions(owner.tolist()))
        assert total(joined(places, owner, label=label)[0]) == pytest.approx(best, abs=1e-6)


def test_only_regions_of_one_label_are_joined_where_that_is_asked_for() -> None:
    places, owner = np.array([[0.0, 1], [0, 1], [0.05, 1.05], [0.05, 1.05]]), np.array([0, 1, 0, 1])
    assert joined(places, owner)[0].tolist() in ([0, 0, 2, 2], [0, 1, 1, 0])
    label = np.array([7, 8, 8, 7])
    assert joined(places, owner, label=label, same_label=True)[0].tolist() == [0, 1, 1, 0]


def test_nothing_and_one_alone_are_joined_with_nothing() -> None:
    nothing = joined(np.zeros((0, 2)), np.zeros(0, dtype=np.int64))
    assert [len(side) for side in nothing] == [0, 0]
    unit, alike = joined(np.array([[0.0, 1]]), np.array([3]))
    assert unit.tolist() == [0]
    assert np.isnan(alike).all()
