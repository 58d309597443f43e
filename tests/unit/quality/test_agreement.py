"""Agreement against published figures, other libraries, and by its invariants."""

from __future__ import annotations

from collections.abc import Callable

import krippendorff
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import fleiss_kappa

from connector.quality.agreement import Agreement, agreement, agreement_of, by_label, pairs
from connector.quality.counts import counts, counts_of_codes
from connector.quality.interval import Floats
from connector.quality.kinds import CHOICE, NUMBER, RATING, TEXT
from connector.quality.table import Scale
from connector.quality.units import units
from tests.unit.quality.tables import Drawn, boxes, choices, of_kind, ratings

FOUR_OBSERVERS = {
    "A": "123321412...",
    "B": "123322412" + "5.3",
    "C": ".333234225" + "1.",
    "D": "123324412" + "51.",
}
"""Krippendorff 2011, section C; the table that irrCAC calls cac.raw4raters (Gwet 2014)."""


def alpha(columns: dict[str, str]) -> float | None:
    return agreement(ratings(columns), seed=0).krippendorff_alpha.value


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


def of(found: Floats, seed: int = 0, **more: object) -> Agreement:
    """The agreement of (U, K) counts, each unit a task of its own."""
    unit, label = np.nonzero(found)
    often = found[unit, label].astype(int)
    unit, label = np.repeat(unit, often), np.repeat(label, often)
    codes = counts_of_codes(unit, np.zeros_like(unit), label, [str(k) for k in range(found.shape[1])])
    return agreement_of(codes, CHOICE, seed, **more)


WIKIPEDIA = [
    *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
    *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
]


def test_kappa_gives_the_figure_of_the_worked_example_in_wikipedias_fleiss_kappa() -> None:
    found = of(np.array(WIKIPEDIA, dtype=float))
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
    found = agreement(choices(rows), seed=0)
    assert found.krippendorff_alpha.value == pytest.approx(expected)


@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=3, max_size=25))
@settings(deadline=None)
def test_kappa_of_complete_answers_is_statsmodels(units: list[list[int]]) -> None:
    found = np.array([[unit.count(k) for k in range(3)] for unit in units], dtype=float)
    assume((found.sum(axis=0) > 0).sum() > 1)
    ours = of(found[:, found.sum(axis=0) > 0])
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
        agreement(choices(rows), seed=1),
        agreement(choices(renamed), seed=1),
    )
    for name in ("observed", "krippendorff_alpha", "fleiss_kappa", "gwet_ac1"):
        a, b = getattr(here, name), getattr(there, name)
        assert (a.value is None) == (b.value is None)
        if a.value is not None:
            assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high))


def test_perfect_agreement_is_one() -> None:
    found = agreement(ratings({"a": "xyzxyz", "b": "xyzxyz", "c": "xyzxyz"}), seed=0)
    for one in (found.observed, found.krippendorff_alpha, found.fleiss_kappa, found.gwet_ac1):
        assert (one.value, one.high) == pytest.approx((1, 1))
        assert one.low is not None
        assert 0 < one.low < 0.9  # six tasks prove little


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


@pytest.mark.parametrize("analytic", [False, True])
def test_a_few_tasks_that_all_agree_prove_nothing(analytic: bool) -> None:
    found = agreement(ratings({"a": "xyxy", "b": "xyxy"}), seed=0, analytic=analytic)
    for one in (found.observed, found.krippendorff_alpha, found.fleiss_kappa, found.gwet_ac1):
        assert (one.value, one.low, one.high) == (pytest.approx(1), None, None)
        assert "fewer than 5 tasks" in str(one.why)
    many = agreement(ratings({"a": "xyxyxy", "b": "xyxyxy"}), seed=0, analytic=analytic).observed
    assert many.low is None if analytic else 0 < (many.low or 0) < 0.8


@pytest.mark.parametrize(
    ("annotators", "labels", "prevalence", "right"), [(2, 2, 0.9, 0.9), (3, 2, 0.9, 0.9), (5, 5, 0.9, 0.8)]
)
def test_intervals_of_twenty_tasks_cover_the_truth(
    annotators: int, labels: int, prevalence: float, right: float
) -> None:
    rng = np.random.default_rng(11)

    def drawn(tasks: int) -> Floats:
        share = [prevalence, *[(1 - prevalence) / (labels - 1)] * (labels - 1)]
        truth = rng.choice(labels, size=(tasks, 1), p=share)
        other = (truth + rng.integers(1, labels, (tasks, annotators))) % labels
        said = np.where(rng.random((tasks, annotators)) < right, truth, other)
        return np.stack([(said == k).sum(axis=1) for k in range(labels)], axis=1).astype(float)

    names = ("observed", "krippendorff_alpha", "fleiss_kappa", "gwet_ac1")
    true = of(drawn(200_000))
    inside: dict[str, list[bool]] = {name: [] for name in names}
    for run in range(400):
        found = of(drawn(20), run)
        for name in names:
            one, value = getattr(found, name), getattr(true, name).value
            if one.value is not None:
                inside[name].append(one.low <= value <= one.high)
    for name in names:
        assert np.mean(inside[name]) >= 0.93, name


def test_intervals_cover_the_true_agreement_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for run in range(200):
        right = rng.random((80, 3)) < 0.8
        said = np.where(right, 0, rng.integers(1, 3, (80, 3)))
        found = np.stack([(said == k).sum(axis=1) for k in range(3)], axis=1).astype(float)
        interval = of(found, run).observed
        assert interval.low is not None
        assert interval.high is not None
        inside += interval.low <= 0.8**2 + 2 * 0.1**2 <= interval.high
    assert 0.90 <= inside / 200 <= 0.99


# answers that are more or less alike


@pytest.mark.parametrize(("level", "expected"), [("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)])
def test_alpha_of_numbers_gives_the_figures_of_krippendorff_2011(level: str, expected: float) -> None:
    found = agreement(ratings(FOUR_OBSERVERS), seed=0, level=level)
    assert found.krippendorff_alpha.value == pytest.approx(expected, abs=5e-4)
    assert found.level == level


def test_ac2_with_linear_weights_gives_the_figure_of_gwets_raw4raters() -> None:
    found = agreement(ratings(FOUR_OBSERVERS), seed=0, level="interval", scale=Scale(low=1, high=5))
    assert found.gwet_ac2.value == pytest.approx(0.85874, abs=5e-6)


numbers = st.lists(
    st.lists(st.sampled_from([None, 1, 2, 2.5, 7, 11]), min_size=3, max_size=3), min_size=3, max_size=25
)


@given(numbers, st.sampled_from(["ordinal", "interval", "ratio"]))
@settings(deadline=None)
def test_alpha_of_numbers_is_the_krippendorff_packages(units: list[list[float | None]], level: str) -> None:
    paired = [unit for unit in units if sum(one is not None for one in unit) >= 2]
    assume(len({one for unit in paired for one in unit if one is not None}) > 1)
    table = np.array([[np.nan if one is None else one for one in unit] for unit in units], dtype=float).T
    expected = krippendorff.alpha(reliability_data=table, level_of_measurement=level)
    found = agreement(of_kind(NUMBER, units), seed=0, level=level)
    assert found.krippendorff_alpha.value == pytest.approx(expected)


def test_ratings_are_ordered_and_numbers_have_distances_unless_asked_otherwise() -> None:
    units = [[1, 2], [3, 3], [5, 4], [2, 2]]
    for kind, level in ((RATING, "ordinal"), (NUMBER, "interval"), (TEXT, "similarity")):
        assert agreement(of_kind(kind, units), seed=0).level == level
        assert agreement(of_kind(kind, units), seed=0, level="nominal").observed.value == 0.5


def test_texts_that_are_nearly_the_same_nearly_agree() -> None:
    found = agreement(of_kind(TEXT, [["a cat", "A  cat"], ["a dog", "a dot"], ["an owl", "an owl"]]), seed=0)
    assert found.observed.value == pytest.approx((1 + 4 / 5 + 1) / 3)
    assert found.krippendorff_alpha.value is not None
    assert 0.5 < found.krippendorff_alpha.value < 1
    assert "more or less alike" in str(found.gwet_ac1.why)


def test_sets_that_share_labels_agree_in_part() -> None:
    found = agreement(choices([("1", "ann", "cat + dog"), ("1", "ben", "cat"), ("2", "ann", "owl")]), seed=0)
    assert (found.level, found.observed.value) == ("similarity", 0.5)


def test_alpha_of_many_different_answers_takes_chance_from_a_sample_of_pairs() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 3, size=700)
    said = np.array([[round(one + rng.normal(0, 0.2), 9) for _ in range(2)] for one in truth])

    def by_hand(apart: Callable[[Floats, Floats], Floats]) -> float:
        every = said.ravel()
        chance = apart(every[:, None], every[None, :]).sum() / (len(every) * (len(every) - 1))
        return float(1 - apart(said[:, 0], said[:, 1]).mean() / chance)

    def alpha(level: str) -> float | None:
        return agreement(of_kind(NUMBER, said.tolist()), seed=0, level=level).krippendorff_alpha.value

    assert alpha("interval") == pytest.approx(by_hand(lambda x, y: (x - y) ** 2))
    assert alpha("ratio") == pytest.approx(by_hand(lambda x, y: ((x - y) / (x + y)) ** 2), abs=0.01)


def test_what_is_no_number_has_no_distance() -> None:
    with pytest.raises(ValueError, match="'x' is no number"):
        agreement(ratings({"a": "xy", "b": "xx"}), seed=0, level="interval")
    with pytest.raises(ValueError, match="unknown level 'near'"):
        agreement(ratings({"a": "xy", "b": "xx"}), seed=0, level="near")


# intervals and single labels

COMPLETE = ["1111", "2223", "3333", "3333", "2222", "1234", "4444", "1121", "2222", "5555"]


def test_analytic_intervals_of_complete_answers_are_irrcacs() -> None:
    # irrCAC 0.4.4: CAC(frame).fleiss()["est"]["se"] and .gwet()["est"]["se"]
    columns = {f"r{k}": "".join(row[k] for row in COMPLETE) for k in range(4)}
    found = agreement(ratings(columns), seed=0, analytic=True)
    for number, error in ((found.fleiss_kappa, 0.147), (found.gwet_ac1, 0.1364)):
        assert number.value is not None
        assert number.low is not None
        assert (number.value - number.low) / 1.959964 == pytest.approx(error, abs=5e-5)


def test_analytic_and_drawn_intervals_of_many_tasks_are_nearly_the_same() -> None:
    rng = np.random.default_rng(5)
    truth = rng.integers(3, size=(3000, 1))
    said = np.where(rng.random((3000, 3)) < 0.8, truth, rng.integers(3, size=(3000, 3)))
    table = choices(
        [(f"{n:04}", f"r{w}", str(one)) for n, row in enumerate(said) for w, one in enumerate(row)]
    )
    drawn, analytic = agreement(table, seed=0), agreement(table, seed=0, analytic=True)
    for name in ("observed", "krippendorff_alpha", "fleiss_kappa", "gwet_ac1"):
        a, b = getattr(drawn, name), getattr(analytic, name)
        assert a.value == pytest.approx(b.value)
        assert (a.low, a.high) == pytest.approx((b.low, b.high), abs=0.003)
        assert a.high - a.low == pytest.approx(b.high - b.low, rel=0.12)


@given(answers)
@settings(deadline=None, max_examples=50)
def test_a_label_against_the_rest_is_the_krippendorff_packages(units: list[list[int | None]]) -> None:
    rows = [
        (f"{n:02}", f"r{w}", str(one))
        for n, unit in enumerate(units)
        for w, one in enumerate(unit)
        if one is not None
    ]
    assume(rows)
    for label, positive, alpha in by_label(counts(choices(rows)), seed=0):
        mine = [[None if one is None else float(str(one) == label) for one in unit] for unit in units]
        paired = [[one for one in unit if one is not None] for unit in mine]
        paired = [unit for unit in paired if len(unit) >= 2]
        given = sum(sum(unit) for unit in paired)
        same = sum(sum(unit) * (sum(unit) - 1) / (len(unit) - 1) for unit in paired)
        assert positive.value == (pytest.approx(same / given) if given else None)
        if alpha.value is not None:
            table = np.array(mine, dtype=float).T
            expected = krippendorff.alpha(reliability_data=table, level_of_measurement="nominal")
            assert alpha.value == pytest.approx(expected)


# what is drawn

CAR: Drawn = ("car", 10, 10, 20, 20)
TREE: Drawn = ("tree", 60, 10, 10, 30)


def own(n: int) -> Drawn:
    """A box where no other annotator draws one."""
    return ("car", 10 * n, 0, 8, 8)


def test_annotators_who_each_draw_a_box_of_their_own_agree_on_nothing() -> None:
    table = units(boxes({(f"{t}", f"a{n}"): [own(n)] for t in range(20) for n in range(10)}))
    found = agreement(table, seed=0)
    assert (found.observed.value, found.detection_f1.value) == (0, 0)
    for one in (found.gwet_ac1, found.fleiss_kappa):
        assert one.value is not None
        assert -1 <= one.value < 0
    both = pairs(table)
    assert set(both["agreement"]) == set(both["detection_f1"]) == {0}
    assert set(both["units"]) == {40}, "the box of either in each of 20 tasks"


def test_a_task_that_two_left_empty_is_one_agreement_of_theirs() -> None:
    drawn = {
        ("t", "a"): [],
        ("t", "b"): [],
        ("t", "c"): [CAR, TREE],
        ("u", "a"): [],
        ("u", "b"): [],
        ("u", "c"): [],
    }
    rows = pairs(units(boxes(drawn))).select(
        "annotator_a", "annotator_b", "units", "agreement", "detection_f1"
    )
    assert rows.rows() == [("a", "b", 2, 1, None), ("a", "c", 3, 1 / 3, 0), ("b", "c", 3, 1 / 3, 0)]


drawings = st.lists(
    st.lists(
        st.lists(st.sampled_from([CAR, TREE, own(0), own(4), own(9)]), max_size=4, unique=True),
        min_size=3,
        max_size=3,
    ),
    min_size=1,
    max_size=5,
)


@given(drawings)
@settings(deadline=None, max_examples=60)
def test_detection_agreement_is_the_f1_of_the_objects_of_every_two_annotators(
    tasks: list[list[list[Drawn]]],
) -> None:
    table = units(
        boxes({(f"{t}", f"{a}"): mine for t, said in enumerate(tasks) for a, mine in enumerate(said)})
    )
    both = either = same = of_pairs = 0
    for said in tasks:
        for a, b in ((0, 1), (0, 2), (1, 2)):
            both += 2 * len({*said[a]} & {*said[b]})
            either += len(said[a]) + len(said[b])
        for thing in {thing for mine in said for thing in mine}:
            n = sum(thing in mine for mine in said)
            same += {1: 0, 2: 1 / 3, 3: 1}[n]
            of_pairs += 1
        if not any(said):
            same, of_pairs = same + 1, of_pairs + 1
    found = agreement(table, seed=0)
    assert found.detection_f1.value == (pytest.approx(both / either) if either else None)
    if not either:
        assert "drew anything" in str(found.detection_f1.why)
    # The boxes lie apart, so labels never differ: observed is the share of pairs that saw what either saw.
    assert found.observed.value == pytest.approx(same / of_pairs)
    assert found.headline == (
        ("detection F1", found.detection_f1) if either else ("observed", found.observed)
    )


def test_labels_of_objects_that_both_drew_do_not_lower_detection() -> None:
    said = [({"car": "van"}.get(label, label), *place) for label, *place in (CAR, TREE)]
    found = agreement(units(boxes({("t", "a"): [CAR, TREE], ("t", "b"): said})), seed=0)
    assert (found.detection_f1.value, found.observed.value) == (1, 0.5)
    choice = agreement(ratings({"a": "xy", "b": "xy"}), seed=0)
    assert choice.headline[0] == "observed"
    numbers = agreement(of_kind("number", [["1", "2"], ["3", "3"]]), seed=0)
    assert numbers.headline == ("mean similarity", numbers.observed)
    assert "not drawn" in str(choice.detection_f1.why)


def test_analytic_intervals_of_what_is_drawn_are_those_of_drawing_tasks_anew() -> None:
    rng = np.random.default_rng(2)
    things = [CAR, TREE, own(0), own(4)]
    drawn = {
        (f"{t}", f"{a}"): [one for one in things if rng.random() < 0.7] for t in range(1500) for a in range(4)
    }
    table = units(boxes(drawn))
    resampled, analytic = agreement(table, seed=0), agreement(table, seed=0, analytic=True)
    for name in ("observed", "krippendorff_alpha", "fleiss_kappa"):
        a, b = getattr(resampled, name), getattr(analytic, name)
        assert a.value == pytest.approx(b.value)
        assert (a.low, a.high) == pytest.approx((b.low, b.high), abs=0.005)
