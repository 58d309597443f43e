"""What an ontology or a task does not allow is refused, and all that they allow is let through."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from label_studio_sdk.converter.brush import encode_rle

from connector.adapters.label_studio.ontology import parse_config
from connector.errors import BadRecord
from connector.model import Ontology
from connector.regions import check, check_result, parse_region
from tests.configs import CONFIGS, MORE
from tests.results import DATA, PARAGRAPHS, TEXT

Raw = dict[str, Any]

ONTOLOGIES = {name: parse_config(xml) for name, xml in {**CONFIGS, **MORE}.items()}
BOX = {"x": 1, "y": 2, "width": 3, "height": 4}


def asked(ontology: Ontology, value: Raw, **more: Any) -> Raw:
    """A region as an answer to the control `answer`."""
    control = ontology.control("answer")
    assert control
    head = {"id": "r", "from_name": "answer", "to_name": control.target, "type": control.kind}
    return {**head, "value": value, **more}


def said(ontology: Ontology, region: Raw, data: Raw | None = None) -> str:
    """Why a region is refused; nothing if it is not."""
    try:
        check(parse_region(region), ontology, data)
    except BadRecord as error:
        return error.what
    return ""


@pytest.mark.parametrize(
    ("name", "value", "more", "why"),
    [
        ("Choices", {"choices": ["yes"]}, {"from_name": "nobody"}, "the ontology has no such control"),
        ("Choices", {"choices": ["maybe"]}, {}, "label 'maybe' is not in the ontology"),
        ("Choices", {"choices": ["no"]}, {}, "label 'no' is not in the ontology"),  # its alias is n
        ("Choices", {"choices": ["yes", "n"]}, {}, "the control takes one label, found yes, n"),
        ("Choices", {"rating": 1}, {"type": "rating"}, "the control answers with choices, found rating"),
        (
            "Choices",
            {"choices": ["n"]},
            {"to_name": "video"},
            "the control is about text, and the region about video",
        ),
        (
            "Pairwise",
            {"selected": "left"},
            {"to_name": "text"},
            "the control is about left, right, and the region about text",
        ),
        ("several choices", {"choices": ["a", "c"]}, {}, "label 'c' is not in the ontology"),
        ("Taxonomy", {"taxonomy": [["plant", "cat"]]}, {}, "label 'plant / cat' is not in the ontology"),
        ("Taxonomy", {"taxonomy": [["plant"], ["tree"]]}, {}, "label 'tree' is not in the ontology"),
        (
            "nested choices",
            {"choices": [["animal", "wolf"]]},
            {},
            "label 'animal / wolf' is not in the ontology",
        ),
        (
            "nested choices",
            {"choices": [["animal"], ["plant"]]},
            {},
            "the control takes one label, found animal, plant",
        ),
        ("Rating", {"rating": 8}, {}, "the answer must be at least 0 and at most 7, found 8"),
        ("Number", {"number": -1}, {}, "the answer must be at least 0 and at most 20, found -1"),
        ("Number", {"number": 20.5}, {}, "the answer must be at least 0 and at most 20, found 20.5"),
        (
            "DateTime",
            {"datetime": "2024-02-29"},
            {},
            "the date '2024-02-29' is not of the form '%d.%m.%Y'",
        ),
        ("DateTime", {"datetime": "30.02.2024"}, {}, "the date '30.02.2024' is not of the form '%d.%m.%Y'"),
        ("Ranker", {"ranker": {"best": [], "worst": ["loom"]}}, {}, "there is no bucket 'worst'"),
        ("Ranker", {"ranker": ["loom"]}, {}, "there is no bucket 'answer'"),
        ("plain ranking", {"ranker": {"_": ["loom"]}}, {}, "there is no bucket '_'"),
        ("RectangleLabels", {**BOX, "rectanglelabels": ["bird"]}, {}, "label 'bird' is not in the ontology"),
        (
            "RectangleLabels",
            {**BOX, "rectanglelabels": ["cat", "dog"]},
            {},
            "the control takes one label, found cat, dog",
        ),
        (
            "VideoRectangle",
            {"sequence": [{**BOX, "frame": 1}], "labels": ["bird"]},
            {},
            "label 'bird' is not in the ontology",
        ),
        ("Labels", {"start": 240, "end": 1000, "labels": ["cat"]}, {}, "it ends at 1000, and the text at"),
        (
            "ParagraphLabels",
            {"start": "1", "end": "3", "startOffset": 0, "endOffset": 0},
            {},
            "there is no paragraph 3, only 3 from 0 on",
        ),
        (
            "ParagraphLabels",
            {"start": "0", "end": "1", "startOffset": 53, "endOffset": 1},
            {},
            "it reaches 53 in paragraph 0, which ends at 52",
        ),
    ],
)
def test_what_is_not_allowed_is_told_with_its_region_and_its_control(
    name: str, value: Raw, more: Raw, why: str
) -> None:
    shown = {"text": TEXT, "dialogue": PARAGRAPHS}
    found = said(ONTOLOGIES[name], asked(ONTOLOGIES[name], value, **more), shown)
    assert found.startswith(f"region 'r' of control {more.get('from_name', 'answer')!r}: ")
    assert why in found


@pytest.mark.parametrize(
    ("name", "value", "more"),
    [
        ("Pairwise", {"selected": "left"}, {"to_name": "right"}),
        ("Pairwise", {"selected": "left"}, {"to_name": "answer"}),
        ("several choices", {"choices": ["b", "a"]}, {}),
        ("nested choices", {"choices": ["felis"]}, {}),
        ("Taxonomy", {"taxonomy": [["animal"], ["plant", "tree"]]}, {}),
        ("Rating", {"rating": 0}, {}),
        ("Rating", {"rating": 7}, {}),
        ("Number", {"number": 0.0}, {}),
        ("Number", {"number": 20}, {}),
        ("DateTime", {"datetime": "1.2.2024"}, {}),
        ("Ranker", {"ranker": {"_": ["loom"]}}, {}),
        ("plain ranking", {"ranker": ["loom"]}, {}),
        ("HyperTextLabels", {"start": 1, "end": 2, "htmllabels": ["cat"]}, {"type": "htmllabels"}),
        ("RectangleLabels", BOX, {}),
        ("Labels", {"start": 1, "end": 10**9, "labels": ["cat"]}, {"item_index": 2}),
    ],
)
def test_what_is_on_the_edge_is_allowed_and_without_the_data_so_is_any_end(
    name: str, value: Raw, more: Raw
) -> None:
    assert said(ONTOLOGIES[name], asked(ONTOLOGIES[name], value, **more)) == ""


def asking(tag: str, attributes: str, shown: str = '<Text name="t" value="$text"/>') -> Ontology:
    return parse_config(f'<View>{shown}<{tag} name="answer" toName="t" {attributes}/></View>')


@pytest.mark.parametrize(
    ("tag", "attributes", "value", "allowed"),
    [
        ("Rating", "", {"rating": 5}, True),
        ("Rating", "", {"rating": 6}, False),
        ("Rating", 'maxRating="many"', {"rating": 6}, True),
        ("Number", 'min="few" max=""', {"number": -1e9}, True),
        ("Number", 'min="-1.5"', {"number": -1.5}, True),
        ("Number", 'min="-1.5"', {"number": -2}, False),
        ("DateTime", "", {"datetime": "2024-02-29T10:30"}, True),
        ("DateTime", "", {"datetime": "whenever"}, True),
        ("DateTime", 'min="2020" max="2021-06"', {"datetime": "2020-01-01T00:00"}, True),
        ("DateTime", 'min="2020" max="2021-06"', {"datetime": "2021-06-30"}, True),
        ("DateTime", 'min="2020" max="2021-06"', {"datetime": "2021-07-01"}, False),
        ("DateTime", 'min="2020" max="current"', {"datetime": "2019-12-31"}, False),
        ("DateTime", 'max="current"', {"datetime": "2999-12-31"}, True),
        ("DateTime", 'only="date" max="2024" format="%d/%m/%y"', {"datetime": "31/12/24"}, True),
        ("DateTime", 'only="date" max="2024" format="%d/%m/%y"', {"datetime": "01/01/25"}, False),
        ("DateTime", 'only="time" format="%I %p"', {"datetime": "08:30"}, True),  # the editor ignores it
        ("DateTime", 'format="%e %B %Y, %-H:%M"', {"datetime": " 5 March 2024, 8:30"}, True),
        ("DateTime", 'format="%Y %Y"', {"datetime": "2024 2024"}, False),
        ("Choices", 'value="$options"', {"choices": ["anything"]}, True),
        ("Taxonomy", 'apiUrl="https://tree.example"', {"taxonomy": [["any", "path"]]}, True),
        ("Taxonomy", 'legacy="true"', {"taxonomy": [["a", "new", "path"]]}, True),
        ("Taxonomy", "", {"taxonomy": [["a", "new", "path"]]}, False),
    ],
)
def test_bounds_and_labels_from_elsewhere(tag: str, attributes: str, value: Raw, allowed: bool) -> None:
    ontology = asking(tag, attributes)
    assert (said(ontology, asked(ontology, value)) == "") is allowed


@pytest.mark.parametrize(
    ("only", "form", "written", "iso"),
    [
        ("date", "%d.%m.%Y", "29.02.2024", "2024-02-29"),
        ("date,time", "%d.%m.%Y %H:%M", "29.02.2024 08:30", "2024-02-29T08:30:00"),
        ("date", "", "2024-02-29", "2024-02-29"),
        ("date,time", "", "2024-02-29T08:30", "2024-02-29T08:30:00"),
        ("time", "%I %p", "08:30", "08:30"),
    ],
)
def test_a_date_is_told_in_one_form_however_it_was_written(
    only: str, form: str, written: str, iso: str
) -> None:
    ontology = asking("DateTime", f'only="{only}" format="{form}"')
    region: Any = parse_region(asked(ontology, {"datetime": written}))
    assert region.answer(ontology.control("answer")) == iso


@pytest.mark.parametrize(
    ("text", "end", "allowed"),
    [("cat", 3, True), ("cat", 4, False), ("🎈", 2, True), ("🎈", 3, False), ("ä", 2, False), ("", 1, False)],
)
def test_ends_are_counted_as_browsers_count(text: str, end: int, allowed: bool) -> None:
    span = {"start": 0, "end": end, "labels": ["cat"]}
    ontology = ONTOLOGIES["Labels"]
    assert (said(ontology, asked(ontology, span), {"text": text}) == "") is allowed
    said_in = {"start": "1", "end": "1", "startOffset": 0, "endOffset": end, "paragraphlabels": ["cat"]}
    ontology = ONTOLOGIES["ParagraphLabels"]
    dialogue = [{"text": "hi"}, {"text": text}]
    assert (said(ontology, asked(ontology, said_in), {"dialogue": dialogue}) == "") is allowed


def test_a_text_at_an_address_has_no_end_that_we_know() -> None:
    ontology = asking("Labels", 'value="$labels"', '<Text name="t" value="$text" valueType="url"/>')
    span = {"start": 0, "end": 1000, "labels": ["cat"]}
    assert said(ontology, asked(ontology, span), {"text": "https://text.example"}) == ""


@pytest.mark.parametrize("paragraph", ["only text", None, 7, {"said": "under another key"}])
def test_a_paragraph_that_shows_no_text_ends_where_it_starts(paragraph: object) -> None:
    ontology = ONTOLOGIES["ParagraphLabels"]
    span = asked(ontology, {"start": "0", "end": "0", "startOffset": 0, "endOffset": 1})
    assert "reaches 1 in paragraph 0, which ends at 0" in said(ontology, span, {"dialogue": [paragraph]})


def test_only_the_labels_next_to_what_only_draws_are_its_labels() -> None:
    ontology = ONTOLOGIES["Rectangle"]
    named = {"from_name": "label", "type": "labels"}
    assert said(ontology, asked(ontology, {**BOX, "labels": ["cat"]}, **named)) == ""
    assert said(ontology, asked(ontology, {**BOX, "labels": ["cat"]})) == ""
    assert "label 'bird' is not in the ontology" in said(
        ontology, asked(ontology, {**BOX, "labels": ["bird"]})
    )
    # A field that happens to be called as the type holds no labels.
    assert said(ontology, asked(ontology, {**BOX, "rectangle": [["bird"]]})) == ""


def test_a_relation_has_a_name_that_the_ontology_has_or_none() -> None:
    link = {"type": "relation", "from_id": "a", "to_id": "b", "labels": ["likes", "fears"]}
    assert said(ONTOLOGIES["Relations"], link) == ""
    assert said(ONTOLOGIES["Labels"], {**link, "labels": []}) == ""
    why = "region None: no relation is called 'hates'"
    assert said(ONTOLOGIES["Relations"], {**link, "labels": ["likes", "hates"]}) == why


# Masks.


def brush(rle: list[int], width: int, height: int) -> Raw:
    size = {"original_width": width, "original_height": height}
    return asked(ONTOLOGIES["Brush"], {"format": "rle", "rle": rle}, **size)


@given(pixels=arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40)), cut=st.integers(2, 10**4))
@settings(deadline=None, max_examples=50)
def test_a_mask_of_the_sdk_is_good_until_it_is_cut_off_or_of_another_picture(pixels: Any, cut: int) -> None:
    height, width = pixels.shape
    rle = encode_rle(np.repeat(pixels.ravel(), 4))
    assert said(ONTOLOGIES["Brush"], brush(rle, width, height)) == ""
    # The SDK may fill up with a whole byte, so the last one may be missed by nobody.
    short = brush(rle[: max(7, len(rle) - cut)], width, height)
    assert "region 'r' of control 'answer': bad RLE: " in said(ONTOLOGIES["Brush"], short)
    with pytest.raises(BadRecord, match=r"bad RLE: it holds \d+ values, and the picture of "):
        parse_region(brush(rle, width, height + 1))


def test_a_mask_whose_runs_hold_too_much_is_refused() -> None:
    rle = encode_rle(np.full(16, 255, dtype=np.uint8))
    rle[3] = 12
    assert "its runs hold 16 values instead of 12" in said(ONTOLOGIES["Brush"], brush(rle, 3, 1))


PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\0\0\0\x02" + b"\0\0\0\x01"


@pytest.mark.parametrize(
    ("picture", "why"),
    [
        (base64.b64encode(PNG).decode(), ""),
        (base64.b64encode(PNG[:-1]).decode(), "the picture is not a PNG"),
        (base64.b64encode(b"GIF89a" + PNG).decode(), "the picture is not a PNG"),
        ("", "the picture is not a PNG"),
        ("a", "the picture is not base64"),
        ("%%%%", "the picture is not base64"),
        ("é", "the picture is not base64"),
        (base64.b64encode(PNG[:-1] + b"\x03").decode(), "the mask has 2×3 pixels, its picture 2×1"),
    ],
)
def test_a_mask_that_is_no_picture_of_its_picture_is_refused(picture: str, why: str) -> None:
    value = {"imageDataURL": f"data:image/png;base64,{picture}"}
    region = asked(ONTOLOGIES["Bitmask"], value, original_width=2, original_height=1)
    found = said(ONTOLOGIES["Bitmask"], region)
    assert found.startswith(why and f"region 'r' of control 'answer': {why}")
    assert bool(found) == bool(why)


def test_a_repeated_control_checks_each_of_its_repetitions() -> None:
    ontology = parse_config(
        '<View><Repeater on="$texts"><Text name="t{{idx}}" value="$texts[{{idx}}]"/>'
        '<Labels name="answer{{idx}}" toName="t{{idx}}"><Label value="cat"/></Labels></Repeater></View>'
    )
    region = {"id": "r", "from_name": "answer3", "to_name": "t3", "type": "labels"}
    span = {**region, "value": {"start": 0, "end": 1, "labels": ["cat"]}}
    assert said(ontology, span, dict(DATA)) == ""
    assert "is about t3, and the region about t4" in said(ontology, {**span, "to_name": "t4"})
    assert "no such control" in said(ontology, {**span, "from_name": "answer"})


ALIASED = parse_config(
    """<View><Text name="t" value="$text"/><Taxonomy name="answer" toName="t">
    <Choice value="Tier" alias="animal">
    <Choice value="Katze" alias="cat"/><Choice value="Hund" alias="dog"/><Choice value="cat" alias="lion"/>
    <Choice value="twin" alias="a"/><Choice value="twin" alias="b"/></Choice></Taxonomy></View>"""
)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["animal", "cat"], ["animal", "cat"]),  # an alias comes before another option's value
        (["Tier", "Katze"], ["animal", "cat"]),
        (["Tier", "dog"], ["animal", "dog"]),
        (["Tier"], ["animal"]),
    ],
)
def test_an_answer_in_a_tree_may_be_given_by_value_or_by_alias(given: list[str], read: list[str]) -> None:
    region = asked(ALIASED, {"taxonomy": [given]})
    [found] = check_result([region], ALIASED).answers
    assert found.answer() == [read]
    assert found.labels == (" / ".join(read),)


@pytest.mark.parametrize("given", [["Katze"], ["Tier", "Wolf"], ["animal", "twin"], ["Tier", "animal"]])
def test_a_path_that_is_neither_by_value_nor_by_alias_is_refused(given: list[str]) -> None:
    assert "is not in the ontology" in said(ALIASED, asked(ALIASED, {"taxonomy": [given]}))
