"""Golden scores, annotators, samples and reviews: by brute force, by hand, and by simulation."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.quality.annotators import annotators
from connector.quality.consensus import consensus
from connector.quality.golden import decide, golden
from connector.quality.review import verdicts
from connector.quality.sampling import draw, error_rate
from connector.quality.table import ANSWERS
from connector.quality.units import units
from tests.unit.quality.tables import Drawn, Row, boxes, choices

GOLD = {"gold": "gold"}
CAR: Drawn = ("car", 10, 10, 20, 20)
TREE: Drawn = ("tree", 60, 10, 10, 30)


def test_golden_score_of_choices_is_the_share_of_right_ones_with_wilsons_interval() -> None:
    said = [(f"{n}", "gold", "cat") for n in range(50)]
    said += [(f"{n}", "ann", "cat" if n < 46 else "dog") for n in range(50)]
    found = golden(choices(said, GOLD), limit=0.8).annotators.row(0, named=True)
    # 46 of 50: the worked example of many textbooks, 0.812 to 0.968.
    assert (found["score"], found["n"]) == (0.92, 50)
    assert (found["low"], found["high"]) == (pytest.approx(0.812, abs=5e-4), pytest.approx(0.968, abs=5e-4))
    assert found["verdict"] == "pass"


@pytest.mark.parametrize(("right", "verdict"), [(48, "pass"), (40, "undecided"), (20, "fail")])
def test_the_verdict_waits_until_the_whole_interval_is_on_one_side(right: int, verdict: str) -> None:
    said = [(f"{n}", "gold", "cat") for n in range(50)]
    said += [(f"{n}", "ann", "cat" if n < right else "dog") for n in range(50)]
    assert golden(choices(said, GOLD), limit=0.8).annotators["verdict"].to_list() == [verdict]


def test_the_verdict_does_not_depend_on_the_confidence_of_the_intervals() -> None:
    said = [(f"{n}", "gold", "cat") for n in range(20)] + [(f"{n}", "ann", "cat") for n in range(20)]
    for confidence in (0.5, 0.999):
        assert golden(choices(said, GOLD), 0.8, confidence).annotators["verdict"].to_list() == ["pass"]


@pytest.mark.parametrize(
    ("right", "tasks", "verdict", "more"),
    [
        (0, 1, "undecided", 4),  # five gold tasks at least
        (0, 4, "undecided", 1),
        (0, 5, "fail", 0),  # 0.2 ** 5 < 0.05
        (3, 3, "undecided", 11),
        (13, 13, "undecided", 1),  # 0.8 ** 13 = 0.055
        (14, 14, "pass", 0),  # 0.8 ** 14 = 0.044
        (8, 10, "undecided", None),  # at the limit
    ],
)
def test_a_verdict_needs_evidence_and_says_how_much_more(
    right: int, tasks: int, verdict: str, more: int | None
) -> None:
    found = decide(np.array([1.0] * right + [0.0] * (tasks - right)), np.ones(tasks), 0.8)
    assert (found.verdict, found.more) == (verdict, more)
    assert found.why


def test_single_answers_are_judged_by_the_exact_binomial_test() -> None:
    from scipy.stats import binomtest

    for tasks in range(5, 40, 3):
        for right in range(tasks + 1):
            above = binomtest(right, tasks, 0.7, "greater").pvalue <= 0.05
            below = binomtest(right, tasks, 0.7, "less").pvalue <= 0.05
            found = decide(np.array([1.0] * right + [0.0] * (tasks - right)), np.ones(tasks), 0.7)
            assert found.verdict == ("pass" if above else "fail" if below else "undecided")


def test_hard_cases_for_a_verdict_are_rarely_judged_wrongly() -> None:
    """At the limit exactly, where errors are most frequent; docs/statistics.md has the whole table."""
    rng, limit, runs = np.random.default_rng(4), 0.8, 800

    def right_or_wrong(tasks: int) -> tuple[np.ndarray, np.ndarray]:
        return (rng.random(tasks) < limit).astype(float), np.ones(tasks)

    def whole_pictures_missed(tasks: int) -> tuple[np.ndarray, np.ndarray]:
        units = rng.integers(1, 9, tasks).astype(float)
        return np.where(rng.random(tasks) < 0.82, rng.binomial(units.astype(int), limit / 0.82), 0.0), units

    def alike_or_nothing(tasks: int) -> tuple[np.ndarray, np.ndarray]:
        return np.where(rng.random(tasks) < 0.95, limit / 0.95, 0.0), np.ones(tasks)

    for score in (right_or_wrong, whole_pictures_missed, alike_or_nothing):
        for tasks in (5, 8, 20, 60):
            found = [decide(*score(tasks), limit).verdict for _ in range(runs)]
            # A standard deviation of 0.008 at 0.05.
            assert max(found.count("pass"), found.count("fail")) / runs <= 0.05 + 3 * 0.008


def gold_and_people(gold: list[str], people: list[list[str]]) -> pl.DataFrame:
    said = [(f"{n:03}", "gold", label) for n, label in enumerate(gold)]
    for who, labels in enumerate(people):
        said += [(f"{n:03}", f"a{who}", label) for n, label in enumerate(labels)]
    return choices(said, GOLD)


def test_gold_that_most_people_contradict_is_to_be_checked_first() -> None:
    rng = np.random.default_rng(3)
    truth = rng.choice(["cat", "dog", "bird"], 25).tolist()
    people = [[t if rng.random() < 0.9 else "cat" for t in truth] for _ in range(3)]
    at_random = rng.choice(["cat", "dog", "bird"], 25).tolist()
    check = golden(gold_and_people(at_random, people), 0.8).checks["c"]
    assert check.surprising
    assert str(check).endswith("tasks: check the gold first")
    by_hand = [
        f"{n:03}"
        for n, gold in enumerate(at_random)
        if (votes := [one[n] for one in people])
        and max(map(votes.count, votes)) > 1
        and max(votes, key=votes.count) != gold
    ]
    assert list(check.differ) == by_hand
    assert not golden(gold_and_people(truth, people), 0.8).checks["c"].surprising


def test_a_few_hard_tasks_and_careless_people_are_not_the_golds_fault() -> None:
    rng = np.random.default_rng(5)
    truth = rng.choice(["cat", "dog"], 40).tolist()
    other = {"cat": "dog", "dog": "cat"}
    hard = [other[t] if n < 4 else t for n, t in enumerate(truth)]
    check = golden(gold_and_people(truth, [hard] * 3), 0.8).checks["c"]
    assert (len(check.differ), check.tasks, check.surprising) == (4, 40, False)
    careless = [[t if rng.random() < 0.65 else other[t] for t in truth] for _ in range(3)]
    check = golden(gold_and_people(truth, careless), 0.8).checks["c"]
    assert len(check.differ) > 8
    assert not check.surprising


def test_three_of_three_is_not_a_hundred_per_cent() -> None:
    said = [(f"{n}", who, "cat") for n in range(3) for who in ("gold", "ann")]
    found = golden(choices(said, GOLD), limit=0.8).annotators.row(0, named=True)
    assert (found["score"], found["verdict"]) == (1, "undecided")
    assert found["low"] < 0.5


def test_objects_score_right_over_right_wrong_missed_and_invented() -> None:
    def score(drawn: list[Drawn], other: list[Drawn]) -> tuple[float, int]:
        labels = boxes({("t", "gold"): [CAR, TREE], ("t", "ann"): drawn, ("t", "ben"): other}, GOLD)
        found = golden(units(labels), limit=0.8).annotators.filter(annotator="ann").row(0, named=True)
        return found["score"], found["n"]

    invented: Drawn = ("car", 80, 80, 10, 10)
    assert score([CAR, TREE], []) == (1, 2)
    assert score([CAR], []) == (0.5, 2)
    assert score([("van", 10, 10, 20, 20), TREE], []) == (0.5, 2)
    assert score([CAR, TREE, invented], []) == (pytest.approx(2 / 3), 3)
    assert score([], [CAR, TREE]) == (0, 2)
    # What another annotator invents is neither held against this one nor counted in favour.
    assert score([CAR], [invented]) == (0.5, 2)


def test_an_empty_picture_is_an_answer_too() -> None:
    labels = boxes({("t", "gold"): [], ("t", "ann"): [], ("t", "ben"): [CAR]}, GOLD)
    found = {
        r["annotator"]: (r["score"], r["n"])
        for r in golden(units(labels), 0.8).annotators.iter_rows(named=True)
    }
    assert found == {"ann": (1, 1), "ben": (0, 1)}


def test_gold_that_contradicts_itself_is_refused_with_the_task() -> None:
    said = [("t7", "gold", "cat"), ("t7", "g2", "dog"), ("t7", "ann", "cat")]
    with pytest.raises(ValueError, match="t7"):
        golden(choices(said, {"gold": "gold", "g2": "gold"}), limit=0.8)


rows = st.lists(
    st.tuples(st.sampled_from("pqrstu"), st.sampled_from("abcd"), st.sampled_from(["cat", "dog"])),
    min_size=1,
    max_size=24,
    unique_by=lambda row: row[:2],
)


@given(rows)
@settings(deadline=None)
def test_agreement_with_the_majority_counts_the_others_only_and_three_annotators_at_least(
    said: list[Row],
) -> None:
    table = choices(said)
    answers = table.select("task", "annotation", "annotator", "role", "gold").with_columns(
        seconds=pl.lit(None, pl.Float64), created_at=pl.lit(None, pl.Datetime("us", "UTC"))
    )
    for row in annotators(table, answers.cast(ANSWERS)).iter_rows(named=True):
        judged = []
        same = []
        for task, _, label in (r for r in said if r[1] == row["annotator"]):
            others = [other for t, who, other in said if t == task and who != row["annotator"]]
            same += [other == label for other in others]
            counts = sorted((others.count(x) for x in set(others)), reverse=True)
            if len(others) > 1 and (len(counts) == 1 or counts[0] > counts[1]):
                judged.append(label == max(set(others), key=others.count))
        assert row["agreement_with_majority"] == (pytest.approx(np.mean(judged)) if judged else None)
        assert row["agreement"] == (pytest.approx(np.mean(same)) if same else None)
        assert row["agreement_with_majority_n"] in ((len(judged),) if judged else (0, None))

        assert (row["why"] is None) == bool(judged)


def answered(said: list[Row]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The units, and the answers without times."""
    table = choices(said)
    answers = table.select("task", "annotation", "annotator", "role", "gold").with_columns(
        seconds=pl.lit(None, pl.Float64), created_at=pl.lit(None, pl.Datetime("us", "UTC"))
    )
    return table, answers.cast(ANSWERS)


def test_two_annotators_have_no_majority_to_agree_with() -> None:
    said = [(f"{n}", who, "cat" if n % 3 else who) for n in range(30) for who in ("ann", "ben")]
    found = annotators(*answered(said))
    assert found["agreement_with_majority"].to_list() == [None, None]
    assert set(found["why"]) == {"no agreement with the majority: fewer than 3 annotators per task"}
    assert found["agreement"].to_list() == [pytest.approx(2 / 3)] * 2


def test_annotators_stand_in_the_order_of_their_work_and_names_in_natural_order() -> None:
    said = [(f"{n}", who, "cat") for n in range(5) for who in ("w10", "w9", "W2")] + [("0", "a-once", "cat")]
    assert annotators(*answered(said))["annotator"].to_list() == ["W2", "w9", "w10", "a-once"]


def test_what_others_drew_and_this_one_and_most_did_not_is_no_agreement() -> None:
    labels = boxes({("t", f"a{n}"): [("car", 10 * n, 0, 8, 8)] for n in range(10)})
    found = annotators(units(labels), labels.answers)
    assert found["agreement"].to_list() == [0] * 10
    both = boxes({("t", "a"): [CAR, TREE], ("t", "b"): [CAR], ("t", "c"): [CAR]})
    agreed = dict(annotators(units(both), both.answers).select("annotator", "agreement").iter_rows())
    assert agreed == {"a": pytest.approx(4 / 6), "b": pytest.approx(4 / 5), "c": pytest.approx(4 / 5)}


tasks = st.lists(
    st.tuples(st.integers(0, 999), st.sampled_from(["x", "y", "z"])),
    min_size=3,
    max_size=60,
    unique_by=lambda t: t[0],
)


@given(tasks, st.integers(0, 5), st.randoms(use_true_random=False), st.sampled_from(["random", "stratified"]))
@settings(deadline=None)
def test_a_draw_depends_on_tasks_and_seed_alone_and_knows_its_probabilities(rows, seed, random, by) -> None:
    frame = pl.DataFrame([(str(t), s) for t, s in rows], schema=["task", "stratum"], orient="row")
    size = max(1, len(rows) // 3)
    sample = draw(frame, size, by, seed)
    assert sample.equals(
        draw(frame.sample(fraction=1, shuffle=True, seed=random.randrange(99)), size, by, seed)
    )
    assert len(sample) == size == sample["task"].n_unique()
    assert sample["population"].unique().to_list() == [len(rows)]
    # Horvitz-Thompson: the inverse probabilities of what was drawn add up to every stratum drawn from, or to
    # the whole where there are more strata than tasks to draw.
    if size < frame["stratum"].n_unique() and by == "stratified":
        assert (1 / sample["probability"]).sum() == pytest.approx(len(rows))
        return
    sizes = dict(frame.group_by("stratum").len().iter_rows()) if by == "stratified" else {"all": len(rows)}
    for stratum, total in sample.group_by("stratum").agg((1 / pl.col("probability")).sum()).iter_rows():
        assert total == pytest.approx(sizes[stratum])


def test_every_task_is_drawn_equally_often() -> None:
    frame = pl.DataFrame({"task": [str(n) for n in range(20)]})
    counts = np.zeros(20)
    for seed in range(2000):
        counts[draw(frame, 5, "random", seed)["task"].cast(pl.Int64).to_numpy()] += 1
    # 2000 draws at 1/4: a standard deviation of 19.4.
    assert np.abs(counts - 500).max() < 5 * 19.4


def test_more_than_there_is_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="cannot draw 3 of 2"):
        draw(pl.DataFrame({"task": ["a", "b"]}), 3, "random", 0)


def reviewed(strata: dict[str, tuple[int, int]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A sample and its verdicts: how many were reviewed and how many were wrong, by stratum."""
    rows = [(f"{s}{n}", s, int(n >= wrong)) for s, (size, wrong) in strata.items() for n in range(size)]
    frame = pl.DataFrame(rows, schema=["task", "stratum", "correct"], orient="row")
    return frame.select("task", "stratum"), frame.select("task", "correct")


def test_stratified_error_rate_is_cochrans_weighted_sum() -> None:
    # Cochran 1977, section 5.3: p_st = sum W_h p_h.
    sample, said = reviewed({"x": (50, 10), "y": (50, 5)})
    found = error_rate(sample, said, {"x": 300, "y": 700})
    assert found.value == pytest.approx(0.3 * 0.2 + 0.7 * 0.1)
    assert found.low < found.value < found.high  # type: ignore[operator]


def test_a_stratum_that_nobody_reviewed_leaves_the_rate_unknown_and_bounds_it() -> None:
    sample, said = reviewed({"x": (5, 1), "y": (5, 1)})
    found = error_rate(sample, said.filter(pl.col("task").str.starts_with("x")), {"x": 30, "y": 70})
    alone = error_rate(*reviewed({"x": (5, 1)}), {"x": 30})
    assert found.value is None
    assert "stratum y (70 of 100 tasks)" in str(found.why)
    assert found.low <= 0.3 * alone.low + 1e-9  # type: ignore[operator]
    assert found.high >= 0.3 * alone.high + 0.7 - 0.02  # type: ignore[operator]


def test_fewer_tasks_than_strata_are_drawn_by_chance_and_stand_for_all() -> None:
    frame = pl.DataFrame(
        [(f"{n:04}", f"s{n // 100:02}") for n in range(2000)], ["task", "stratum"], orient="row"
    )
    drawn = [draw(frame, 12, "stratified", seed) for seed in range(300)]
    assert all(len(one) == 12 == one["stratum"].n_unique() for one in drawn)
    counts = pl.concat(drawn).group_by("stratum").len()
    assert len(counts) == 20  # not always the first strata
    # 300 samples at 12/20: a standard deviation of 8.5.
    assert (counts["len"].cast(pl.Int64) - 180).abs().max() < 5 * 8.5  # type: ignore[operator]
    said = drawn[0].select("task", correct=pl.lit(1))
    sizes = dict.fromkeys(drawn[0]["stratum"], 100)
    found = error_rate(drawn[0], said, sizes, everything=2000)
    one_stratum = error_rate(drawn[0].with_columns(stratum=pl.lit("all")), said, {"all": 2000})
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(one_stratum.high, abs=0.01)


def test_strata_without_errors_are_about_as_precise_as_a_simple_random_sample() -> None:
    sample, said = reviewed({f"s{n:02}": (2, 0) for n in range(50)})
    strata = error_rate(sample, said, {f"s{n:02}": 40 for n in range(50)})
    simple = error_rate(sample.with_columns(stratum=pl.lit("all")), said, {"all": 2000})
    assert strata.high == pytest.approx(simple.high, rel=0.05)


def test_verdicts_that_do_not_belong_to_the_sample_are_refused() -> None:
    sample, said = reviewed({"x": (5, 1)})
    strange = pl.concat([said, pl.DataFrame({"task": ["z9"], "correct": [1]})])
    with pytest.raises(ValueError, match="z9"):
        error_rate(sample, strange, {"x": 10})
    with pytest.raises(ValueError, match="x0"):
        error_rate(sample, pl.concat([said, said.head(1)]), {"x": 10})


@pytest.mark.parametrize(
    ("sizes", "rates", "reviewed_of"),
    [
        ((200, 600), (0.25, 0.08), (25, 75)),
        # One large and two small strata, with the errors in either.
        ((900, 50, 50), (0.02, 0.3, 0.3), (36, 2, 2)),
        ((5000, 50, 50), (0.05, 0.5, 0.5), (98, 1, 1)),
        ((900, 50, 50), (0.2, 0.0, 0.0), (20, 10, 10)),
        ((900, 50, 50), (0.5, 0.5, 0.5), (20, 2, 2)),
        ((40,) * 50, (0.02,) * 50, (2,) * 50),
    ],
)
def test_stratified_intervals_cover_the_truth_as_often_as_they_say(
    sizes: tuple[int, ...], rates: tuple[float, ...], reviewed_of: tuple[int, ...]
) -> None:
    rng, runs = np.random.default_rng(8), 3000
    wrong = [round(size * rate) for size, rate in zip(sizes, rates, strict=True)]
    truth = sum(wrong) / sum(sizes)
    population = {f"s{h:02}": size for h, size in enumerate(sizes)}
    drawn = np.stack(
        [
            rng.hypergeometric(bad, size - bad, n, runs)
            for bad, size, n in zip(wrong, sizes, reviewed_of, strict=True)
        ],
        axis=1,
    )
    if len(set(sizes)) == 1:  # alike strata may change places, which leaves fewer cases to compute
        drawn = np.sort(drawn, axis=1)
    cases, times = np.unique(drawn, axis=0, return_counts=True)
    inside = 0
    for case, count in zip(cases, times, strict=True):
        seen = {name: (n, int(k)) for name, n, k in zip(population, reviewed_of, case, strict=True)}
        found = error_rate(*reviewed(seen), population)
        inside += count * (found.low <= truth <= found.high)  # type: ignore[operator]
    # 3000 runs at 0.95: a standard deviation of 0.004. A study of more cases stands in docs/statistics.md.
    assert inside / runs >= 0.94


def test_a_reviewer_who_sees_what_most_saw_finds_it_correct() -> None:
    roles = {"r": "reviewer"}
    labels = boxes(
        {
            **{("t", who): [CAR, TREE] for who in "abc"},
            ("t", "r"): [("car", 11, 10, 20, 20), TREE],
            **{("u", who): [CAR] for who in "abc"},
            ("u", "r"): [CAR, TREE],
            **{("v", who): [CAR] for who in "abc"},
            ("v", "r"): [],
            **{("w", who): [CAR] for who in "abc"},
        },
        roles,
    )
    table = units(labels)
    found = verdicts(table, consensus(table, seed=0).units)
    assert found.select("task", "correct", "wrong").rows() == [("t", 1, 0), ("u", 0, 1), ("v", 0, 1)]


def test_reviewers_who_do_not_agree_are_told_to() -> None:
    said = [("t", "a", "cat"), ("t", "r", "cat"), ("t", "s", "dog")]
    table = choices(said, {"r": "reviewer", "s": "reviewer"})
    with pytest.raises(ValueError, match="task t"):
        verdicts(table, consensus(table, seed=0).units)
