"""Regions of every kind: nothing is lost, where they are, and what belongs together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface

from connector.adapters.label_studio.ontology import parse_config
from connector.errors import BadRecord
from connector.model import dump_json
from connector.regions import (
    Answer,
    Drawn,
    Kind,
    Relation,
    check,
    dump_result,
    gather,
    kind_of,
    parse_region,
    parse_result,
)
from tests.configs import CONFIGS, MORE
from tests.results import HEIGHT, WIDTH, annotate, encode_rle

Raw = dict[str, Any]

ONTOLOGIES = {name: parse_config(xml) for name, xml in {**CONFIGS, **MORE}.items()}
every_way_to_ask = pytest.mark.parametrize("name", ONTOLOGIES)
seeds = st.integers(0, 2**32)
few = settings(deadline=None, max_examples=5)


def raw(type: str, value: object, **more: Any) -> Raw:
    """A region as Label Studio writes it."""
    return {"id": "r", "from_name": "answer", "to_name": "shown", "type": type, "value": value, **more}


# Nothing is lost.


@every_way_to_ask
@given(seed=seeds)
@few
def test_a_result_comes_back_to_the_letter(name: str, seed: int) -> None:
    for result in annotate(ONTOLOGIES[name], seed, annotators=2, things=2)[1]:
        text = dump_json(result)  # tells 1 from 1.0
        assert dump_result(parse_result(result)) == text
        assert dump_result(parse_result(json.loads(text))) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def objects(found: Any) -> Iterator[Raw]:
    """All JSON objects of a result; the buckets of a ranking are no fields."""
    if isinstance(found, dict):
        yield found
        for key, inner in found.items():
            if key != "ranker":
                yield from objects(inner)
    elif isinstance(found, list):
        for inner in found:
            yield from objects(inner)


@every_way_to_ask
@given(seed=seeds, unknown=JSON)
@few
def test_fields_that_nobody_knows_are_kept_wherever_they_are(name: str, seed: int, unknown: Any) -> None:
    (result,) = annotate(ONTOLOGIES[name], seed, annotators=1, things=1)[1]
    for one in list(objects(result)):
        # Some are what our own attributes are called.
        one |= {"a field of tomorrow": unknown, "control": unknown, "target": 1, "item": 1.0, "kind": "x"}
    assert dump_result(parse_result(result)) == dump_json(result)


@pytest.mark.parametrize("left_out", ["id", "origin", "item_index", "original_width"])
def test_what_is_left_out_stays_out_and_what_is_null_stays_null(left_out: str) -> None:
    box = raw("rectangle", {"x": 1, "y": 2.0, "width": 3, "height": 4, "rotation": None}, origin="manual")
    full = {**box, "item_index": None, "original_width": None, "original_height": 80}
    del full[left_out]
    assert parse_region(full).dump() == full


# What is generated is valid, and what is asked for.

WRONGLY_REFUSED_BY_THE_SDK = {
    "Pairwise",  # the editor names the comparison itself as its object, and the SDK knows no such object
    "MagicWand",  # next to Labels, where the SDK takes the place of the wand's labels for a span of text
    "nested choices",  # paths, which the SDK tries to put into a set
}
"""By label-studio-sdk 2.1.2."""


@every_way_to_ask
@given(seed=seeds)
@few
def test_a_generated_result_is_valid_for_us_and_for_the_sdk(name: str, seed: int) -> None:
    ontology = ONTOLOGIES[name]
    sdk = LabelInterface(ontology.source)
    data, results = annotate(ontology, seed, annotators=2, things=2)
    for result in results:
        for region in parse_result(result):
            check(region, ontology, data)
        gather(parse_result(result))
        refused = bool(result) and name in WRONGLY_REFUSED_BY_THE_SDK
        assert sdk.validate_annotation({"result": result}) is not refused


@every_way_to_ask
@given(seed=seeds)
@few
def test_a_region_is_of_the_kind_that_its_control_asks_for(name: str, seed: int) -> None:
    ontology = ONTOLOGIES[name]
    (result,) = annotate(ontology, seed, annotators=1)[1]
    drawn = {region["id"]: region for region in result if region["type"] not in ("relation", "labels")}
    for one in result:
        region, asked = parse_region(one), ontology.control(one.get("from_name", "relations"))
        assert asked
        kind = kind_of(asked, ontology)
        # What only names carries the place of what it names.
        expected = parse_region(drawn[one["id"]]).kind if kind is Kind.NAMING else kind
        assert region.kind is expected


@given(middle=st.tuples(*[st.floats(20, 80)] * 2), radius=st.tuples(*[st.floats(2, 30)] * 2))
@settings(deadline=None, max_examples=20)
def test_the_sdk_decodes_the_masks_that_are_generated(middle: Any, radius: Any) -> None:
    y, x = (np.indices((HEIGHT, WIDTH)) + 0.5) * 100 / np.array([HEIGHT, WIDTH])[:, None, None]
    inside = ((x - middle[0]) / radius[0]) ** 2 + ((y - middle[1]) / radius[1]) ** 2 <= 1
    decoded = decode_rle(encode_rle(inside.ravel().tolist())).reshape(HEIGHT, WIDTH, 4)
    assert (decoded == 255 * inside[:, :, None]).all()


# Geometry, worked out by hand.

VERTICES = [{"x": 1, "y": 2, "id": "a", "prevPointId": None}, {"x": 3, "y": 4, "prevPointId": "a"}]
KEYS = [
    {"frame": 1, "x": 1, "y": 2, "width": 3, "height": 4, "rotation": 5, "enabled": True},
    {"frame": 9, "x": 6, "y": 7, "width": 8, "height": 9.5, "enabled": False},
]
XPATH = {"start": "/p[1]/text()[1]", "end": "/p[2]/text()[1]", "startOffset": 1, "endOffset": 2}
BOX = {"x": 10, "y": 20.5, "width": 30, "height": 40}
BRUSH = {"format": "rle", "rle": encode_rle([False, True])}
PNG = {"imageDataURL": "data:image/png;base64,iVBORw0KGgo="}


@pytest.mark.parametrize(
    ("type", "value", "kind", "geometry"),
    [
        ("rectangle", BOX, "box", [10, 20.5, 30, 40, 0]),
        ("rectanglelabels", {**BOX, "rotation": 12}, "box", [10, 20.5, 30, 40, 12]),
        ("labels", BOX, "box", [10, 20.5, 30, 40, 0]),
        ("ocrlabels", BOX, "box", [10, 20.5, 30, 40, 0]),
        ("ellipse", {"x": 1, "y": 2, "radiusX": 3, "radiusY": 4, "rotation": 5}, "ellipse", [1, 2, 3, 4, 5]),
        ("polygon", {"points": [[1, 2], [3.5, 4], [5, 6]]}, "polygon", [1, 2, 3.5, 4, 5, 6]),
        ("keypoint", {"x": 1, "y": 2.5, "width": 0.5}, "keypoint", [1, 2.5]),
        ("labels", {"x": 1, "y": 2.5, "width": 0.5}, "keypoint", [1, 2.5]),
        ("vector", {"vertices": VERTICES}, "line", [1, 2, 3, 4]),
        ("vectorlabels", {"vertices": VERTICES, "closed": True}, "line", [1, 2, 3, 4, 1, 2]),
        ("brush", BRUSH, "mask", []),
        ("bitmask", PNG, "mask", []),
        ("labels", {"start": 3, "end": 7}, "span", [3, 7]),
        ("hypertextlabels", {**XPATH, "globalOffsets": {"start": 5, "end": 9}}, "html-span", [5, 9]),
        (
            "paragraphlabels",
            {"start": "1", "end": "2", "startOffset": 7, "endOffset": 3},
            "paragraph-span",
            [1, 7, 2, 3],
        ),
        (
            "labels",
            {"start": "1", "end": 1, "startOffset": 3, "endOffset": 7},
            "paragraph-span",
            [1, 3, 1, 7],
        ),
        ("labels", {"start": 0, "end": 2, "channel": 0}, "segment", [0, 2]),
        ("labels", {"start": 0.5, "end": 2}, "segment", [0.5, 2]),
        ("timeserieslabels", {"start": 4, "end": 4, "instant": True}, "segment", [4, 4]),
        ("timeserieslabels", {"start": "1970-01-02", "end": "1970-01-02T01:00+02:00"}, "segment", None),
        (
            "timeserieslabels",
            {"start": "1970-01-02", "end": "1970-01-02T02:01+01:00"},
            "segment",
            [86400, 86400 + 3660],
        ),
        (
            "timelinelabels",
            {"ranges": [{"start": 3, "end": 3}, {"start": 7, "end": 9}]},
            "segment",
            [3, 4, 7, 10],
        ),
        ("videorectangle", {"sequence": KEYS}, "track", [1, 1, 1, 2, 3, 4, 5, 9, 0, 6, 7, 8, 9.5, 0]),
        ("labels", {"labels": ["cat"]}, "naming", []),
        ("vector", {"vertices": [*VERTICES, {"x": 5, "y": 6, "prevPointId": "a"}]}, "line", None),
        ("hypertextlabels", XPATH, "html-span", None),
        ("timeserieslabels", {"start": "soon", "end": 4}, "segment", None),
    ],
)
def test_the_geometry_of_each_kind(type: str, value: Raw, kind: str, geometry: list[float] | None) -> None:
    region = parse_region(raw(type, value))
    assert isinstance(region, Drawn)
    assert region.kind == kind
    if geometry is None:
        with pytest.raises(BadRecord, match=r"^region 'r' of control 'answer': "):
            region.geometry()
    else:
        found = region.geometry()
        assert found == geometry
        assert {float} >= {number.__class__ for number in found}


def test_whole_numbers_of_a_recording_are_seconds() -> None:
    assert parse_region(raw("labels", {"start": 0, "end": 2}, original_length=8.0)).kind is Kind.SEGMENT


@pytest.mark.parametrize(
    ("type", "value", "answer"),
    [
        ("choices", {"choices": ["b", "a"]}, ["b", "a"]),
        ("choices", {"choices": [["animal", "cat"]]}, [["animal", "cat"]]),
        ("taxonomy", {"taxonomy": [["animal"], ["animal", "cat"]]}, [["animal"], ["animal", "cat"]]),
        ("rating", {"rating": 3}, 3),
        ("number", {"number": -4.5}, -4.5),
        ("textarea", {"text": "one"}, "one"),
        ("textarea", {"text": ["one", "two"]}, "one\ntwo"),
        ("pairwise", {"selected": "right"}, "right"),
        ("ranker", {"ranker": {"_": ["b"], "best": ["a"]}}, {"_": ["b"], "best": ["a"]}),
        ("ranker", {"ranker": ["b", "a"]}, {"answer": ["b", "a"]}),
    ],
)
def test_the_answer_of_each_kind(type: str, value: Raw, answer: object) -> None:
    region = parse_region(raw(type, value))
    assert isinstance(region, Answer)
    assert region.answer() == answer


# What belongs together.

BOXED = raw("rectangle", BOX)
NAMED = raw("labels", {**BOX, "labels": ["cat"]}, from_name="label")
OCCLUDED = raw("choices", {**BOX, "choices": ["yes"]}, from_name="occluded")
BARE = raw("number", {"number": 4}, from_name="legs")
WHOLE = raw("rating", {"rating": 3}, from_name="stars", id="s")
OTHER = raw("rectangle", BOX, id="o")
LINK = {"type": "relation", "from_id": "r", "to_id": "o", "direction": "right", "labels": ["likes"]}
UNREAD = raw("videovector", {"sequence": []}, id="v")


@given(st.permutations([BOXED, NAMED, OCCLUDED, BARE, WHOLE, OTHER, LINK]))
def test_regions_of_one_id_are_one_thing_in_whatever_order_they_come(result: list[Raw]) -> None:
    found = gather(parse_result(result))
    areas = {area.id: area for area in found.areas}
    assert sorted(areas) == ["o", "r"]
    assert [region.control for region in areas["r"].regions] == ["answer", "label"]
    assert (areas["r"].shape.control, areas["r"].labels) == ("answer", ("cat",))
    assert {answer.control: answer.answer() for answer in areas["r"].answers} == {
        "occluded": ["yes"],
        "legs": 4,
    }
    assert (areas["o"].labels, areas["o"].answers) == ((), ())
    assert [answer.control for answer in found.answers] == ["stars"]
    assert [(relation.ends, relation.labels) for relation in found.relations] == [(("r", "o"), ("likes",))]
    assert found.others == ()


@every_way_to_ask
@given(seed=seeds)
@few
def test_every_region_is_gathered_exactly_once(name: str, seed: int) -> None:
    regions = parse_result(annotate(ONTOLOGIES[name], seed, annotators=1)[1][0])
    found = gather(regions)
    parts = [one for area in found.areas for one in (*area.regions, *area.answers)]
    gathered = [*parts, *found.answers, *found.relations, *found.others]
    assert sorted(map(id, gathered)) == sorted(map(id, regions))


def test_things_without_an_id_are_things_of_their_own_and_their_answers_are_about_the_whole() -> None:
    nameless = [{**one, "id": None} for one in (BOXED, BOXED, WHOLE)]
    odd = [{**BOXED, "id": "None"}, {**OTHER, "id": 7}, {**BARE, "id": "7"}]
    found = gather(parse_result([*nameless, *odd]))
    assert sorted(area.id for area in found.areas) == ["", "", "7", "None"]
    assert [(area.id, len(area.answers)) for area in found.areas if area.answers] == [("7", 1)]
    assert [answer.control for answer in found.answers] == ["stars"]


@pytest.mark.parametrize(
    ("direction", "ends"), [("right", ("r", "o")), ("left", ("o", "r")), ("bi", ("r", "o"))]
)
def test_a_relation_to_the_left_is_turned_round(direction: str, ends: tuple[str, str]) -> None:
    (relation,) = parse_result([{**LINK, "direction": direction}])
    assert isinstance(relation, Relation)
    assert relation.ends == ends


def test_what_is_about_a_region_that_is_not_read_is_not_read_either() -> None:
    seen = raw("choices", {"sequence": [], "choices": ["yes"]}, id="v", from_name="seen")
    link = {**LINK, "to_id": "v"}
    found = gather(parse_result([seen, UNREAD, BOXED, link]))
    assert sorted(one.control for one in found.others) == ["answer", "seen"]
    assert [relation.ends for relation in found.relations] == [("r", "v")]
    assert found.answers == ()


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ([BOXED, BOXED], "region 'r' of control 'answer': two regions of this control have this id"),
        (
            [NAMED | {"value": {"labels": ["cat"]}}],
            "of control 'label': the region that it names is not there",
        ),
        ([OTHER, OCCLUDED], "of control 'occluded': the region that it is about is not there"),
        ([BOXED, LINK], "the relation leads to region 'o', which is not there"),
        ([OTHER, LINK], "the relation leads to region 'r', which is not there"),
        ([OTHER, {**WHOLE, "id": None}, {**LINK, "from_id": "None"}], "leads to region 'None'"),
    ],
)
def test_what_has_lost_its_other_half_is_refused(result: list[Raw], said: str) -> None:
    with pytest.raises(BadRecord) as caught:
        gather(parse_result(result))
    assert said in caught.value.what
