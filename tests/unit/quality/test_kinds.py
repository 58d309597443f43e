"""Every kind of answer, from results as annotators write them to units, consensus and golden scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from connector.adapters.label_studio.ontology import parse_config
from connector.model import Annotation, Role, Task
from connector.quality.answers import ABSENT
from connector.quality.consensus import consensus
from connector.quality.golden import EVERYBODY, golden
from connector.quality.kinds import ANSWERED, DRAWN, MEASURED, RELATION
from connector.quality.units import UNIT, keep_roles, units
from connector.regions import kind_of
from connector.store.label_store import Store
from connector.store.labels import Loaded, read_store
from tests.configs import CONFIGS, MORE
from tests.results import annotate

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EVERY = {**CONFIGS, **MORE}
MEASURED_CONFIGS = [
    name
    for name, source in EVERY.items()
    if any(str(kind_of(c, parse_config(source))) in MEASURED for c in parse_config(source).controls)
]


def load(
    folder: Path, source: str, tasks: Sequence[tuple[Mapping[str, Any], Mapping[str, list[dict[str, Any]]]]]
) -> Loaded:
    """What the store gives back of tasks: the data of each, and what everybody said."""
    store = Store(str(folder / "labels"))
    made = [
        Task(
            id=str(n),
            key=f"k{n}",
            data=dict(data),
            annotations=tuple(
                Annotation(id=f"{n}-{who}", task_id=str(n), annotator=who, result=json.dumps(result))
                for who, result in said.items()
            ),
        )
        for n, (data, said) in enumerate(tasks)
    ]
    store.append(made, "cursor", NOW, ontology=parse_config(source))
    return read_store(store, {"gold": Role.GOLD})


def labeled(folder: Path, name: str, noise: float, tasks: int = 4) -> Loaded:
    """Tasks that a gold annotator labels rightly, and three people with some noise."""
    made = []
    for n in range(tasks):
        ontology = parse_config(EVERY[name])
        data, (gold, *_) = annotate(ontology, n, 1, noise=0)
        _, people = annotate(ontology, n, 3, noise=noise)
        made.append((data, {"gold": gold, **dict(zip(("ann", "ben", "cleo"), people, strict=True))}))
    return load(folder, EVERY[name], made)


def test_every_kind_that_is_measured_has_a_configuration_here() -> None:
    found = {
        str(kind_of(control, parse_config(source)))
        for source in EVERY.values()
        for control in parse_config(source).controls
    }
    assert found >= MEASURED


@pytest.mark.parametrize("name", MEASURED_CONFIGS)
def test_who_says_the_same_agrees_wholly_and_is_right(tmp_path: Path, name: str) -> None:
    loaded = labeled(tmp_path, name, noise=0)
    assert loaded.rejects == []
    table = units(loaded.labels)
    assert set(table["kind"]) <= MEASURED
    for control in consensus(keep_roles(table, ["person"]), seed=0).controls:
        assert control.agreement.observed.value == pytest.approx(1)
    found = golden(table, limit=0.5)
    assert found.controls
    for score in found.controls.values():
        assert score.value == pytest.approx(1)
    for parts in found.detection.values():
        for part in (parts.precision, parts.recall, parts.f1, parts.label_accuracy):
            assert part.value == pytest.approx(1)
        for part in (parts.similarity, parts.boundary):  # of relations there is neither
            assert part.value in (None, pytest.approx(1))


@pytest.mark.parametrize("name", MEASURED_CONFIGS)
def test_who_errs_agrees_less_and_the_consensus_is_nearer_to_the_truth_than_most(
    tmp_path: Path, name: str
) -> None:
    loaded = labeled(tmp_path, name, noise=2, tasks=12)
    assert loaded.rejects == []
    table = units(loaded.labels)
    merged = consensus(table, seed=0)
    assert min(one.agreement.observed.value or 0 for one in merged.controls) < 1
    scores = golden(table, limit=0.5)
    assert min(score.value or 0 for score in scores.controls.values()) < 1
    gold = table.filter(role="gold").select(*UNIT, gold="label")
    for one in merged.controls:
        # Most annotators miss most relations here, since their ends are wrong; so does their majority.
        if one.truth == "majority" and one.kind != RELATION:
            units_of_all = merged.units.filter(control=one.control, annotators=3)
            people = keep_roles(table, ["person"]).join(units_of_all, on=UNIT, how="semi")
            both = (
                part.join(gold, on=UNIT, how="left").select(
                    (pl.col("label") == pl.col("gold").fill_null(ABSENT)).mean()
                )
                for part in (units_of_all, people)
            )
            together, alone = (part.item() or 0 for part in both)
            assert together >= alone


@pytest.mark.parametrize("name", MEASURED_CONFIGS)
def test_neither_names_nor_the_order_of_people_matter(tmp_path: Path, name: str) -> None:
    ontology = parse_config(EVERY[name])
    tasks, turned = [], []
    for n in range(3):
        data, people = annotate(ontology, n, 3, noise=2)
        tasks.append((data, dict(zip(("ann", "ben", "cleo"), people, strict=True))))
        turned.append((data, dict(zip(("ben", "cleo", "ann"), people[::-1], strict=True))))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    here, there = (
        consensus(units(load(tmp_path / folder, EVERY[name], made).labels), seed=0)
        for folder, made in (("a", tasks), ("b", turned))
    )
    assert here.units.drop("confidence", "agreement").equals(there.units.drop("confidence", "agreement"))
    for one, other in zip(here.controls, there.controls, strict=True):
        assert one.agreement.observed.value == pytest.approx(other.agreement.observed.value)
        assert one.agreement.krippendorff_alpha.value == pytest.approx(
            other.agreement.krippendorff_alpha.value
        )


# what belongs to what was drawn


def box(id: str, x: float, label: str = "cat", y: float = 10) -> dict[str, Any]:
    place = {"x": x, "y": y, "width": 20, "height": 20, "rotation": 0}
    return {
        "id": id,
        "from_name": "answer",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": 100,
        "original_height": 100,
        "value": {**place, "rectanglelabels": [label]},
    }


def about(region: dict[str, Any], control: str, type: str, value: dict[str, Any]) -> dict[str, Any]:
    place = {k: v for k, v in region["value"].items() if k != "rectanglelabels"}
    return {**region, "from_name": control, "type": type, "value": {**place, **value}}


def told(table: pl.DataFrame, control: str) -> list[dict[str, str]]:
    parts = table.filter(control=control).partition_by("unit", maintain_order=True)
    return [dict(part.select("annotator", "label").iter_rows()) for part in parts]


def test_an_answer_about_a_box_is_a_unit_under_the_boxs(tmp_path: Path) -> None:
    def said(x: float, occluded: str | None, legs: float | None = None) -> list[dict[str, Any]]:
        one = box("b", x)
        more = [about(one, "occluded", "choices", {"choices": [occluded]})] if occluded else []
        more += [about(one, "legs", "number", {"number": legs})] if legs is not None else []
        return [one, *more]

    people = {"ann": said(10, "yes", 4), "ben": said(11, "no", 3), "cleo": said(10.5, None), "dan": []}
    data = {"image": "i", "text": ""}
    loaded = load(tmp_path, MORE["questions of regions"], [(data, people)])
    table = units(loaded.labels)
    assert told(table, "answer") == [{"ann": "cat", "ben": "cat", "cleo": "cat", "dan": ABSENT}]
    # Dan drew nothing that could be asked about; Cleo was asked and did not answer.
    assert told(table, "occluded") == [{"ann": "yes", "ben": "no", "cleo": ABSENT}]
    assert told(table, "legs") == [{"ann": "4", "ben": "3", "cleo": ABSENT}]
    found = {one.control: one for one in consensus(table, seed=0).controls}
    assert found["legs"].agreement.level == "interval"
    assert found["legs"].agreement.observed.value == pytest.approx(3 / 4), "nothing declares a range"


def test_a_question_of_other_labels_is_not_asked_of_who_labeled_otherwise(tmp_path: Path) -> None:
    cat, dog = box("b", 10), box("b", 10, "dog")
    people = {"ann": [cat, about(cat, "occluded", "choices", {"choices": ["yes"]})], "ben": [dog]}
    table = units(load(tmp_path, MORE["questions of regions"], [({"image": "i"}, people)]).labels)
    assert told(table, "occluded") == [{"ann": "yes"}]


def test_a_relation_is_a_unit_between_two_units(tmp_path: Path) -> None:
    def span(id: str, start: int, end: int) -> dict[str, Any]:
        value = {"start": start, "end": end, "text": "x", "labels": ["cat"]}
        return {"id": id, "from_name": "answer", "to_name": "text", "type": "labels", "value": value}

    def link(a: str, b: str, label: str, direction: str = "right") -> dict[str, Any]:
        ends = {"from_id": a, "to_id": b}
        return {"type": "relation", "direction": direction, "labels": [label], **ends}

    both = [span("a", 0, 5), span("b", 10, 15)]
    people = {
        "ann": [*both, link("a", "b", "likes")],
        "ben": [*both, link("b", "a", "likes", "left")],
        "cleo": [*both, link("a", "b", "fears")],
        "dan": both,
        "eve": both[:1],
    }
    table = units(load(tmp_path, CONFIGS["Relations"], [({"text": "x" * 20}, people)]).labels)
    assert told(table, "relations") == [
        {"ann": "likes", "ben": "likes", "cleo": "fears", "dan": ABSENT, "eve": ABSENT}
    ]


def test_what_stands_on_different_pages_is_never_the_same_thing(tmp_path: Path) -> None:
    source = CONFIGS["RectangleLabels"].replace('value="$image"', 'valueList="$images"')
    here, there = {**box("b", 10), "item_index": 0}, {**box("b", 10), "item_index": 1}
    table = units(load(tmp_path, source, [({"images": ["i", "j"]}, {"ann": [here], "ben": [there]})]).labels)
    assert told(table, "answer") == [{"ann": "cat", "ben": ABSENT}, {"ann": ABSENT, "ben": "cat"}]


# how answers are merged, and scored


def answers(kind: str, *people: object) -> pl.DataFrame:
    from tests.unit.quality.tables import of_kind

    return of_kind(kind, [people])


@pytest.mark.parametrize(
    ("kind", "people", "label", "confidence", "tie"),
    [
        ("number", (1, 2, 9), "2", (1 / 2 + 1 + 2 / 9) / 3, False),
        ("number", (4, 4), "4", 1.0, False),
        ("number", (1, 3), "2", (1 / 2 + 2 / 3) / 2, False),
        ("rating", (5, 3, 4, 4), "4", (4 / 5 + 3 / 4 + 2) / 4, False),
        ("rating", (3, 4), "3", (1 + 3 / 4) / 2, True),
        ("date", ("2024-01-01", "2024-01-03", "2024-01-05"), "2024-01-03", (1 + 2 * 28 / 30) / 3, False),
        ("text", ("a cat", "a cat!", "A  cat"), "A  cat", 1 - 1 / 18, False),
        ("text", ("yes", "no"), "no", 0.5, True),
        ("choice", ("a + b", "a", "b + c"), "a + b", (1 + 1 / 2 + 1 / 3) / 3, False),
        ("choice", ("a + b", "a"), "a", 0.75, True),
        ("taxonomy", ("x / y / z", "x / y / w", "x / q"), "x / y", (1 / 2 + 1 / 2 + 1 / 3) / 3, False),
        ("taxonomy", ("x", "y"), "x", 0.5, True),
        ("pairwise", ("left", "left", "right"), "left", 2 / 3, False),
    ],
)
def test_answers_are_merged_as_suits_their_kind(
    kind: str, people: tuple[object, ...], label: str, confidence: float, tie: bool
) -> None:
    (row,) = consensus(answers(kind, *people), seed=0).units.rows(named=True)
    assert (row["label"], row["tie"], row["annotators"]) == (label, tie, len(people))
    assert row["confidence"] == pytest.approx(confidence)


def test_rankings_are_merged_by_mean_rank_and_items_by_the_bucket_most_put_them_into() -> None:
    plain = [json.dumps({"r": list(order)}) for order in ("abc", "acb", "bac")]
    assert consensus(answers("ranking", *plain), seed=0).units["label"].to_list() == ['{"r":["a","b","c"]}']
    buckets = [
        {"best": ["a"], "_": ["b", "c"]},
        {"best": ["a", "b"], "_": ["c"]},
        {"best": ["b"], "_": ["a", "c"]},
    ]
    (found,) = consensus(answers("ranking", *map(json.dumps, buckets)), seed=0).units["label"]
    assert json.loads(found) == {"best": ["b", "a"], "_": ["c"]} or json.loads(found) == {
        "best": ["a", "b"],
        "_": ["c"],
    }


def test_golden_scores_of_numbers_are_how_near_they_are_and_their_interval_is_students() -> None:
    from scipy import stats

    rows = [[10, 10], [20, 19], [30, 26], [0, 0]]
    from tests.unit.quality.tables import of_kind

    table = of_kind("number", rows).with_columns(
        role=pl.when(pl.col("annotator") == "r0").then(pl.lit("gold")).otherwise(pl.lit("person")),
        gold=pl.col("annotator") == "r0",
    )
    found = golden(table, limit=0.5)
    near = [1, 1 - 1 / 20, 1 - 4 / 30, 1]
    score = found.controls["c"]
    mean = sum(near) / 4
    assert score.value == pytest.approx(mean)
    half = stats.t.ppf(0.975, 3) * stats.sem(near)
    assert (score.low, score.high) == pytest.approx((mean - half, 1))
    assert found.detection == {}


def test_detection_tells_misses_inventions_confusions_and_carelessness_apart(tmp_path: Path) -> None:
    gold = [box("1", 0), box("2", 40), box("3", 70, "dog")]
    ann = [box("1", 2), box("2", 40, "dog"), box("4", 10, "cat", 70)]
    loaded = load(tmp_path, CONFIGS["RectangleLabels"], [({"image": "i"}, {"gold": gold, "ann": ann})])
    parts = golden(units(loaded.labels), limit=0.5).detection["ann", "answer"]
    assert parts.precision.value == pytest.approx(2 / 3)
    assert parts.recall.value == pytest.approx(2 / 3)
    assert parts.f1.value == pytest.approx(2 / 3)
    assert parts.label_accuracy.value == pytest.approx(1 / 2)
    assert parts.similarity.value == pytest.approx((18 / 22 + 1) / 2)
    assert parts.boundary.value is None
    found = golden(units(loaded.labels), limit=0.5)
    assert found.controls["answer"].value == pytest.approx(1 / 4)
    confused = {(r["gold"], r["label"]): r["count"] for r in found.confusion.iter_rows(named=True)}
    assert confused == {("cat", "cat"): 1, ("cat", "dog"): 1, ("dog", ABSENT): 1, (ABSENT, "cat"): 1}
    assert found.detection[EVERYBODY, "answer"] == parts


def test_kinds_are_drawn_or_answered() -> None:
    assert not set(DRAWN) & set(ANSWERED)
