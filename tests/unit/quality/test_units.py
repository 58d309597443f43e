"""Alignment: by its invariants, and by small scenes whose answer is plain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.quality import kinds
from connector.quality.agreement import agreement
from connector.quality.answers import ABSENT
from connector.quality.golden import golden
from connector.quality.kinds import BOX, CHOICE
from connector.quality.table import ANSWERS, REGIONS, Labels
from connector.quality.units import UNIT, keep_roles, units
from tests.unit.quality.tables import Drawn, boxes, spans

CAR: Drawn = ("car", 10, 10, 20, 20)
TREE: Drawn = ("tree", 60, 10, 10, 30)


def near(drawn: Drawn, by: float, label: str | None = None) -> Drawn:
    return (label or drawn[0], drawn[1] + by, drawn[2] + by, drawn[3], drawn[4])


def told(table: pl.DataFrame, task: str = "t") -> list[dict[str, str]]:
    """What each annotator said of each unit, by the unit's place."""
    rows = table.filter(pl.col("task") == task).partition_by("unit", maintain_order=True)
    return [dict(part.select("annotator", "label").iter_rows()) for part in rows]


def test_equal_boxes_are_one_unit_each_and_all_agree() -> None:
    table = units(boxes({("t", who): [CAR, TREE] for who in "abc"}))
    assert told(table) == [dict.fromkeys("abc", "car"), dict.fromkeys("abc", "tree")]
    assert table["similarity"].to_list() == [1.0] * 6


def test_a_missed_and_an_invented_object_are_disagreements_with_absent() -> None:
    table = units(
        boxes({("t", "a"): [CAR, TREE], ("t", "b"): [near(CAR, 1)], ("t", "c"): [near(CAR, -1), TREE]})
    )
    assert told(table) == [
        {"a": "car", "b": "car", "c": "car"},
        {"a": "tree", "b": ABSENT, "c": "tree"},
    ]


def test_a_wrong_label_is_a_confusion_and_not_a_miss_and_an_invention() -> None:
    table = units(boxes({("t", "a"): [CAR], ("t", "b"): [near(CAR, 1, "van")]}))
    assert told(table) == [{"a": "car", "b": "van"}]


def test_boxes_below_the_threshold_are_different_objects() -> None:
    apart = boxes({("t", "a"): [CAR], ("t", "b"): [near(CAR, 8)]})
    assert told(units(apart)) == [{"a": "car", "b": ABSENT}, {"a": ABSENT, "b": "car"}]
    assert told(units(apart, {BOX: 0.2})) == [{"a": "car", "b": "car"}]


# Percent of a picture of 640 x 480, one thing; the same, moved or cut a little; and what is another thing.
ONE_OR_TWO: dict[str, tuple[list[float], list[float], list[float]]] = {
    kinds.BOX: ([10, 10, 20, 20, 0], [12, 12, 20, 20, 0], [20, 20, 20, 20, 0]),
    kinds.ELLIPSE: ([50, 50, 10, 20, 0], [51, 51, 10, 20, 30], [62, 50, 10, 20, 0]),
    kinds.POLYGON: ([10, 10, 30, 10, 10, 30], [11, 11, 31, 11, 11, 31], [10, 30, 30, 10, 30, 30]),
    kinds.MASK: ([100, 140], [105, 145], [130, 170]),
    kinds.KEYPOINT: ([50, 50], [53, 52], [54, 54]),  # 21.5 pixels, and 32
    kinds.LINE: ([10, 10, 90, 90], [90.5, 90, 10.5, 10], [13, 10, 93, 90]),
    kinds.SPAN: ([10, 20], [11, 22], [15, 28]),
    kinds.HTML_SPAN: ([10, 20], [11, 22], [15, 28]),
    kinds.PARAGRAPH_SPAN: ([2, 10, 2, 20], [2, 11, 2, 22], [3, 10, 3, 20]),
    kinds.SEGMENT: ([1, 5], [1.5, 5.5], [3, 8]),
    kinds.TRACK: (
        [1, 1, 10, 10, 20, 20, 0, 9, 0, 10, 10, 20, 20, 0],
        [1, 1, 11, 11, 20, 20, 0, 8, 0, 11, 11, 20, 20, 0],
        [1, 1, 10, 10, 20, 20, 0, 3, 0, 10, 10, 20, 20, 0],
    ),
}


@pytest.mark.parametrize("kind", kinds.DRAWN)
def test_what_is_one_thing_and_what_is_two(kind: str) -> None:
    thing, almost, other = ONE_OR_TWO[kind]
    for shape, many in ((thing, 1), (almost, 1), (other, 2)):
        drawn = boxes({("t", "a"): [CAR], ("t", "b"): [CAR]})
        shapes = pl.Series([thing, shape], dtype=pl.List(pl.Float64))
        size = {"picture_width": pl.lit(640.0), "picture_height": pl.lit(480.0)}
        regions = drawn.regions.with_columns(shape=shapes, **size)
        table = units(replace(drawn, regions=regions, controls=dict.fromkeys(drawn.controls, kind)))
        assert len(told(table)) == many
        assert (table["similarity"] == 1).sum() == (2 if shape == thing else 0)


def test_matching_takes_the_best_whole_and_not_the_best_first() -> None:
    # Greedy by the highest IoU would pair a1 with b1 and leave a2 and b2 alone.
    a1, a2 = ("x", 0.0, 0.0, 10.0, 10.0), ("x", 3.0, 0.0, 10.0, 10.0)
    b1, b2 = ("x", 0.5, 0.0, 10.0, 10.0), ("x", 3.5, 0.0, 10.0, 10.0)
    table = units(boxes({("t", "a"): [a1, a2], ("t", "b"): [b1, b2]}))
    assert told(table) == [{"a": "x", "b": "x"}] * 2


def test_nothing_drawn_by_anybody_is_one_unit_that_all_agree_on() -> None:
    table = units(boxes({("t", "a"): [], ("t", "b"): [], ("u", "a"): [CAR]}))
    assert told(table, "t") == [{"a": ABSENT, "b": ABSENT}]
    assert told(table, "u") == [{"a": "car"}]


def test_what_only_other_roles_drew_is_no_unit_of_these() -> None:
    roles = {"g": "gold"}
    table = units(
        boxes(
            {
                ("t", "a"): [CAR],
                ("t", "b"): [CAR],
                ("t", "g"): [CAR, TREE],
                ("u", "a"): [],
                ("u", "g"): [CAR],
            },
            roles,
        )
    )
    people = keep_roles(table, ["person"])
    assert told(people, "t") == [{"a": "car", "b": "car"}]
    assert told(people, "u") == [{"a": ABSENT}]


@pytest.mark.parametrize("labels", [["cat"], ["dog", "cat"]])
def test_a_choice_is_one_unit_and_whoever_gave_none_is_missing(labels: list[str]) -> None:
    answers = pl.DataFrame(
        [("t", "1", "a", "person", False, None, None), ("t", "2", "b", "person", False, None, None)],
        schema=ANSWERS,
        orient="row",
    )
    regions = pl.DataFrame(
        [("t", "1", "c", str(n), None, None, label, None, None, None) for n, label in enumerate(labels)],
        schema=REGIONS,
        orient="row",
    )
    table = units(Labels(answers, regions, {"c": CHOICE}))
    assert told(table) == [{"a": " + ".join(sorted(labels))}]


place = st.tuples(
    st.sampled_from("xy"), *[st.integers(0, 12).map(float)] * 2, *[st.integers(4, 9).map(float)] * 2
)
drawings = st.fixed_dictionaries({who: st.lists(place, max_size=4) for who in "abcd"})


@given(drawings, st.permutations("abcd"), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=150)
def test_neither_names_nor_order_decide(drawn: dict[str, list[Drawn]], names: list[str], random) -> None:
    plain = boxes({("t", who): mine for who, mine in drawn.items()})
    rename = dict(zip("abcd", names, strict=True))
    shuffled = [(("t", rename[who]), random.sample(mine, len(mine))) for who, mine in drawn.items()]
    random.shuffle(shuffled)
    other = boxes(dict(shuffled))

    def grouped(table: pl.DataFrame, back: dict[str, str]) -> list[object]:
        columns = ("annotator", "label", "shape")
        return sorted(
            (
                sorted((back[who], *map(str, rest)) for who, *rest in part.select(columns).iter_rows())
                for part in table.partition_by("unit")
            ),
            key=str,
        )

    identity = {who: who for who in "abcd"}
    assert grouped(units(plain), identity) == grouped(units(other), {v: k for k, v in rename.items()})


@given(drawings)
@settings(deadline=None, max_examples=150)
def test_every_box_is_in_one_unit_and_every_annotation_once_in_each(drawn: dict[str, list[Drawn]]) -> None:
    table = units(boxes({("t", who): mine for who, mine in drawn.items()}))
    assert len(table.filter(pl.col("label") != ABSENT)) == sum(map(len, drawn.values()))
    seen = table.group_by(UNIT).agg(pl.col("annotation").n_unique().alias("n"), pl.len())
    assert seen["n"].to_list() == seen["len"].to_list() == [4] * len(seen)
    empty = table.group_by(UNIT).agg((pl.col("label") == ABSENT).all())["label"].sum()
    assert empty == (0 if any(drawn.values()) else 1)


# Names of labels, the order of regions and the names of annotators change no figure.

outer = st.tuples(st.sampled_from("xyz"), st.integers(0, 2), st.integers(7, 10))
"""Spans nested in one another and crowded: many ways to pair them are equally good."""

crowded = st.tuples(
    st.sampled_from("xyz"), *[st.integers(0, 1).map(float)] * 2, *[st.integers(4, 6).map(float)] * 2
)


def figures(labels: Labels) -> list[float | None]:
    """What is said of some labels in the end: agreement; of two, also the score of one if the other is gold.

    Of more than two annotators only figures of all together: where x and y are everybody's at the same place,
    what is one annotator's loss is another's gain, and only names could decide between them.
    """
    table = units(labels)
    found = agreement(table, seed=0)
    made = [getattr(found, name).value for name in ("observed", "krippendorff_alpha", "gwet_ac1")]
    if table["annotator"].n_unique() == 2:
        role = pl.when(pl.col("annotator") == "a").then(pl.lit("gold")).otherwise(pl.lit("person"))
        gold = table.with_columns(role=role, gold=pl.col("annotator") == "a")
        made += golden(gold, 0.8).annotators["score"].to_list()
    return made


@pytest.mark.parametrize(("made", "region"), [(spans, outer), (boxes, crowded)], ids=["spans", "boxes"])
@pytest.mark.parametrize("people", ["ab", "abcd"])
@given(data=st.data(), random=st.randoms(use_true_random=False))
@settings(max_examples=40, derandomize=True)
def test_no_figure_depends_on_names_of_labels_or_annotators_or_on_the_order(
    made: Callable[..., Labels], region: st.SearchStrategy[Drawn], people: str, data, random
) -> None:
    # Of more than two, one annotator's regions at the very same place can be told apart by their names only.
    different = {"unique_by": lambda drawn: drawn[1:]} if len(people) > 2 else {}
    drawn = {one: data.draw(st.lists(region, max_size=3, **different), label=one) for one in people}
    renamed = dict(zip("xyz", data.draw(st.permutations("pqr")), strict=True))
    names = dict(zip(people, data.draw(st.permutations(people)), strict=True))
    other = [
        (("t", names[one]), [(renamed[label], *place) for label, *place in random.sample(mine, len(mine))])
        for one, mine in drawn.items()
    ]
    random.shuffle(other)
    here, there = (figures(made(one)) for one in ({("t", k): v for k, v in drawn.items()}, dict(other)))
    assert here == [one if one is None else pytest.approx(one) for one in there]


def test_nested_spans_and_boxes_agree_whatever_their_labels_are_called() -> None:
    for first, second in (("name", "name.first"), ("name.first", "name"), ("b", "a")):
        ann, ben = [(first, 0, 10), (second, 0, 9)], [(second, 0, 9), (first, 0, 9)]
        table = units(spans({("t", "ann"): ann, ("t", "ben"): ben}))
        agreed = [{"ann": label, "ben": label} for label in (first, second)]
        assert sorted(told(table), key=str) == sorted(agreed, key=str)
        crate, lid = (first, 10, 10, 20, 20), (second, 10, 10, 20, 18)
        drawn = {("t", "ann"): [crate, lid], ("t", "ben"): [(first, 10, 10, 20, 18), lid]}
        table = units(boxes({**drawn, ("t", "gold"): [crate, lid]}, {"gold": "gold"}))
        assert golden(table, 0.8).annotators["score"].to_list() == [1, 1]
