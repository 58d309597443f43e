"""Broken regions: each is told with its region, its control and its field, and nothing else ever happens."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.converter.brush import encode_rle

from connector.adapters.label_studio.ontology import parse_config
from connector.errors import BadRecord
from connector.model import dump_json
from connector.regions import Answer, Drawn, Kind, check, dump_result, gather, parse_region, parse_result
from tests.configs import CONFIGS, MORE
from tests.results import annotate

Raw = dict[str, Any]

ONTOLOGIES = {name: parse_config(xml) for name, xml in {**CONFIGS, **MORE}.items()}
GONE = "taken out"

PLACE = {"x": 10, "y": 20.5, "width": 30, "height": 40}
RLE = encode_rle(np.array([0, 0, 0, 255, 0, 0, 0, 255], dtype=np.uint8))
XPATHS = {"start": "/p[1]/text()[1]", "end": "/p[1]/text()[1]", "startOffset": 1, "endOffset": 2}
KEYS = [{"frame": 1, **PLACE}, {"frame": 9, **PLACE, "enabled": False}]
GOOD: dict[str, tuple[str, Raw]] = {
    "box": ("rectanglelabels", {**PLACE, "rotation": 0, "rectanglelabels": ["cat"]}),
    "ellipse": ("ellipse", {"x": 1, "y": 2, "radiusX": 3, "radiusY": 4}),
    "polygon": ("polygon", {"points": [[1, 2], [3, 4], [5, 6]]}),
    "keypoint": ("keypoint", {"x": 1, "y": 2, "width": 0.5}),
    "line": ("vector", {"vertices": [{"x": 1, "y": 2, "id": "a"}], "closed": False}),
    "mask": ("brush", {"format": "rle", "rle": RLE}),
    "bitmask": ("bitmask", {"imageDataURL": "data:image/png;base64,"}),
    "span": ("labels", {"start": 3, "end": 5, "text": "is"}),
    "html-span": ("hypertextlabels", {**XPATHS, "globalOffsets": {"start": 5, "end": 6}}),
    "paragraph-span": ("paragraphlabels", {"start": "1", "end": "1", "startOffset": 2, "endOffset": 3}),
    "audio": ("labels", {"start": 0.5, "end": 2.5, "channel": 0}),
    "segment": ("timeserieslabels", {"start": 1, "end": 2, "instant": False}),
    "timeline": ("timelinelabels", {"ranges": [{"start": 3, "end": 4}]}),
    "track": ("videorectangle", {"sequence": KEYS, "framesCount": 20}),
    "choice": ("choices", {"choices": ["yes"]}),
    "nested choice": ("choices", {"choices": [["animal", "cat"]]}),
    "taxonomy": ("taxonomy", {"taxonomy": [["animal", "cat"]]}),
    "rating": ("rating", {"rating": 3}),
    "number": ("number", {"number": 4.5}),
    "date": ("datetime", {"datetime": "2024-02-29"}),
    "text": ("textarea", {"text": ["a line"]}),
    "pairwise": ("pairwise", {"selected": "left"}),
    "ranking": ("ranker", {"ranker": {"best": ["a"]}}),
}
"""A good one of each, by our names of kinds."""


def good(name: str) -> Raw:
    type, value = GOOD[name]
    head = {"id": "r", "from_name": "answer", "to_name": "shown", "type": type}
    return copy.deepcopy({**head, "original_width": 2, "original_height": 1, "value": value})


NUMBER, SIZE, COUNT = "a finite number", "a finite number from 0 on", "a whole number from 0 on"
LABELS = "a list of texts that are not empty"
PATHS = "a list of paths, each a list of texts"
POINTS = "a list of three or more pairs of numbers"
LINES = "text or a list of texts"

BROKEN: list[tuple[str, str, Any, str]] = [
    ("box", "value", GONE, "is missing"),
    ("box", "value", [], "must be a JSON object, found []"),
    ("box", "value.x", GONE, "is missing"),
    ("box", "value.x", math.nan, f"must be {NUMBER}, found nan"),
    ("box", "value.y", -math.inf, f"must be {NUMBER}, found -inf"),
    ("box", "value.x", "1", f"must be {NUMBER}, found '1'"),
    ("box", "value.x", True, f"must be {NUMBER}, found True"),
    ("box", "value.x", 10**20, f"must be {NUMBER}, found 1{'0' * 20}"),
    ("box", "value.rotation", [0], f"must be {NUMBER}, found [0]"),
    ("box", "value.width", -1, f"must be {SIZE}, found -1"),
    ("box", "value.height", -0.5, f"must be {SIZE}, found -0.5"),
    ("box", "value.rectanglelabels", "cat", f"must be {LABELS}, found 'cat'"),
    ("box", "value.rectanglelabels", ["cat", ""], f"must be {LABELS}, found ['cat', '']"),
    ("box", "original_width", 0, "must be a number over 0, found 0"),
    ("box", "item_index", 1.0, f"must be {COUNT}, found 1.0"),
    ("box", "id", 1.5, "must be text or a whole number, found 1.5"),
    ("box", "to_name", "", "must be text, found ''"),
    ("ellipse", "value.radiusX", GONE, "is missing"),
    ("ellipse", "value.radiusY", -1, f"must be {SIZE}, found -1"),
    ("polygon", "value.points", [[1, 2], [3, 4]], f"must be {POINTS}, found [[1, 2], [3, 4]]"),
    ("polygon", "value.points.1", [3], f"value.points must be {POINTS}, found [[1, 2], [3], [5, 6]]"),
    (
        "polygon",
        "value.points.2.0",
        math.inf,
        f"value.points must be {POINTS}, found [[1, 2], [3, 4], [inf, 6]]",
    ),
    ("keypoint", "value.y", None, f"must be {NUMBER}, found None"),
    ("keypoint", "value.width", -1, f"must be {SIZE}, found -1"),
    ("line", "value.vertices", [], "must be a longer list, found []"),
    ("line", "value.vertices", {}, "must be a list, found {}"),
    ("line", "value.vertices.0.x", GONE, "is missing"),
    ("line", "value.vertices.0.id", 0.5, "must be text or a whole number, found 0.5"),
    ("line", "value.closed", 1, "must be true or false, found 1"),
    ("mask", "value.rle", [1, 2], "must be a list of whole numbers from 0 to 255, found [1, 2]"),
    ("mask", "value.rle", [256] * 7, f"must be a list of whole numbers from 0 to 255, found {[256] * 7}"),
    ("mask", "value.format", "png", "must be rle, found 'png'"),
    ("bitmask", "value.imageDataURL", "cat.png", "must be a PNG as a data URL, found 'cat.png'"),
    ("span", "value", GONE, "is missing"),
    ("span", "value.end", GONE, "is missing"),
    ("span", "value.start", -1, f"must be {COUNT}, found -1"),
    ("span", "value.end", 10**400, f"must be {COUNT}, found 1{'0' * 76}…"),
    ("span", "value.text", 5, "must be text, found 5"),
    ("html-span", "value.startOffset", -1, f"must be {COUNT}, found -1"),
    ("html-span", "value.start", 3, "must be text, found 3"),
    ("paragraph-span", "value.start", "x", "must be the number of a paragraph, found 'x'"),
    ("paragraph-span", "value.end", "-1", "must be the number of a paragraph, found '-1'"),
    ("audio", "value.start", -0.5, f"must be {SIZE}, found -0.5"),
    ("audio", "value.channel", "left", f"must be {COUNT}, found 'left'"),
    ("segment", "value.start", None, f"must be {NUMBER} or text, found None"),
    ("segment", "value.instant", "no", "must be true or false, found 'no'"),
    ("timeline", "value.ranges", [], "must be a longer list, found []"),
    ("timeline", "value.ranges.0.start", 0.5, f"must be {COUNT}, found 0.5"),
    ("track", "value.sequence", [], "must be a longer list, found []"),
    ("track", "value.sequence.0.frame", -1, f"must be {COUNT}, found -1"),
    ("track", "value.sequence.1.width", -1, f"must be {SIZE}, found -1"),
    ("track", "value.sequence.1.enabled", 0, "must be true or false, found 0"),
    ("choice", "value.choices", [], f"must be {LABELS}, found []"),
    ("choice", "value.choices", [1], f"must be {LABELS}, found [1]"),
    ("nested choice", "value.choices", [["a"], "b"], f"must be {PATHS}, found [['a'], 'b']"),
    ("taxonomy", "value.taxonomy", [[]], f"must be {PATHS}, found [[]]"),
    ("rating", "value.rating", "3", f"must be {SIZE}, found '3'"),
    ("rating", "value.rating", GONE, "is missing"),
    ("number", "value.number", math.nan, f"must be {NUMBER}, found nan"),
    ("date", "value.datetime", 2024, "must be text, found 2024"),
    ("text", "value.text", [1], f"must be {LINES}, found [1]"),
    ("pairwise", "value.selected", "both", "must be left or right, found 'both'"),
    ("ranking", "value.ranker", {"best": "a"}, "must be lists of items, by bucket, found {'best': 'a'}"),
    # What is wrong about several fields is said of what holds them.
    ("span", "value.end", 2, "value ends at 2, before it starts at 3"),
    ("html-span", "value.globalOffsets.end", 4, "value.globalOffsets ends at 4, before it starts at 5"),
    ("paragraph-span", "value.end", "0", "value ends at 0:3, before 1:2"),
    ("paragraph-span", "value.endOffset", 1, "value ends at 1:1, before 1:2"),
    ("audio", "value.end", 0.25, "value ends at 0.25, before it starts at 0.5"),
    ("timeline", "value.ranges.0.end", 2, "value.ranges.0 ends at 2, before it starts at 3"),
    ("track", "value.sequence.1.frame", 1, "value.sequence frame 1 comes after frame 1"),
    ("mask", "original_width", 3, "bad RLE: it holds 8 values, and the picture of 3×1 pixels has 12"),
]


def test_every_kind_has_something_broken() -> None:
    kinds = {parse_region(good(name)).kind for name, *_ in BROKEN}
    assert kinds == {*Kind} - {Kind.RELATION, Kind.NAMING, Kind.UNMEASURED}


@pytest.mark.parametrize(("name", "path", "bad", "said"), BROKEN)
def test_a_broken_field_is_told_with_its_region_and_its_control(
    name: str, path: str, bad: Any, said: str
) -> None:
    region = good(name)
    holder: Any = region
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in steps:
        holder = holder[step]
    holder[last] = bad
    if bad == GONE:
        del holder[last]
    with pytest.raises(BadRecord) as caught:
        parse_result([good("choice"), region])
    said = said if said.startswith(("value", "bad RLE")) else f"{path} {said}"
    where = f"region {region.get('id')!r} of control 'answer'"
    assert caught.value.what == f"{where}: {said}"


LINK = {"type": "relation", "from_id": "a", "to_id": "b"}


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({}, "a result must be a list of regions, found {}"),
        (None, "a result must be a list of regions, found None"),
        (["x" * 100], f"a region must be a JSON object, found '{'x' * 76}…"),
        ([{"id": "a"}], "region 'a': type is missing"),
        ([{"id": "a", "type": ["labels"]}], "region 'a': type must be text, found ['labels']"),
        ([{"id": 3, "type": "rating"}], "region 3: from_name is missing"),
        ([{"type": "unheard of", "from_name": 5}], "region None: from_name must be text, found 5"),
        ([{"type": "relation", "from_id": "a"}], "region None: to_id is missing"),
        ([{**LINK, "from_id": None}], "region None: from_id must be text or a whole number, found None"),
        ([{**LINK, "direction": "up"}], "region None: direction must be left, right or bi, found 'up'"),
        ([{**LINK, "labels": "likes"}], f"region None: labels must be {LABELS}, found 'likes'"),
    ],
)
def test_what_is_no_region_is_told_as_far_as_it_has_names(result: object, said: str) -> None:
    with pytest.raises(BadRecord) as caught:
        parse_result(result)
    assert caught.value.what == said


# Whatever is done to a result, it is read or refused.


@cache
def example(name: str) -> tuple[Raw, list[Raw]]:
    data, (result,) = annotate(ONTOLOGIES[name], seed=1, annotators=1, things=2)
    return data, result


def places(found: Any) -> Iterator[tuple[Any, Any]]:
    """What can be replaced in a JSON value: what holds it, and its key."""
    keys = list(found) if isinstance(found, dict) else range(len(found)) if isinstance(found, list) else ()
    for key in keys[:8]:
        yield found, key
        yield from places(found[key])


BAD = [
    None,
    True,
    math.nan,
    math.inf,
    -1,
    0,
    0.5,
    10**20,
    10**400,
    "",
    "9" * 30,
    "é",
    "\ud800",
    [],
    {},
    [[1], {}],
]
KEYS = ["labels", "start", "x", "rectangle", "id", "type", "startOffset"]


@pytest.mark.parametrize("name", ONTOLOGIES)
@given(draw=st.data())
@settings(deadline=None, max_examples=50)
def test_whatever_is_changed_in_a_result_it_is_read_without_loss_or_refused(
    name: str, draw: st.DataObject
) -> None:
    shown, result = copy.deepcopy(example(name))
    whole = [result]
    for _ in range(draw.draw(st.integers(1, 3))):
        holder, key = draw.draw(st.sampled_from([*places(whole), *places(shown)]))
        action = draw.draw(st.sampled_from(["replace", "rename", "delete"]))
        if action == "replace":
            holder[key] = copy.deepcopy(draw.draw(st.sampled_from(BAD)))
        elif action == "rename" and isinstance(holder, dict):
            holder[draw.draw(st.sampled_from(KEYS))] = holder.pop(key)
        elif holder is not whole:
            del holder[key]
    try:
        regions = parse_result(whole[0])
        text = dump_result(regions)
    except BadRecord:
        return
    assert text == dump_json(whole[0])
    for region in regions:
        with contextlib.suppress(BadRecord):
            check(region, ONTOLOGIES[name], shown)
        with contextlib.suppress(BadRecord):
            if isinstance(region, Drawn):
                assert all(map(math.isfinite, region.geometry()))
        with contextlib.suppress(BadRecord):
            if isinstance(region, Answer):
                region.answer(ONTOLOGIES[name].control(region.control))
    with contextlib.suppress(BadRecord):
        gather(regions)
