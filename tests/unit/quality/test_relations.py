"""Relations: missed and invented ones count, whichever end they were drawn from; from files to figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from connector.formats.label_files import read_file
from connector.quality.answers import ABSENT
from connector.quality.consensus import Consensus, consensus
from connector.quality.golden import EVERYBODY, golden
from connector.quality.units import units

FILES = Path(__file__).parent / "files"

PLACES = {"person": (0, 4), "firm": (14, 26), "city": (30, 34)}

Link = tuple[str, str, str, str]
"""The label of the region it leaves, of the one it comes to, its direction, and its own label."""


def annotation(who: str, links: list[Link], left_out: str = "", gold: bool = False) -> dict[str, Any]:
    drawn = [
        {
            "id": f"{who}-{label}",
            "from_name": "ner",
            "to_name": "text",
            "type": "labels",
            "value": {"start": start, "end": end, "labels": [label]},
        }
        for label, (start, end) in PLACES.items()
        if label != left_out
    ]
    related = [
        {
            "type": "relation",
            "from_id": f"{who}-{a}",
            "to_id": f"{who}-{b}",
            "direction": way,
            "labels": [label],
        }
        for a, b, way, label in links
    ]
    return {"completed_by": {"email": who}, "result": drawn + related, "ground_truth": gold}


def merged(folder: Path, *annotations: dict[str, Any]) -> Consensus:
    path = folder / "export.json"
    path.write_text(json.dumps([{"id": 1, "data": {"text": "…"}, "annotations": annotations}]))
    return consensus(units(read_file(path).labels), seed=0)


EMPLOYS: Link = ("person", "firm", "right", "employs")
BASED: Link = ("firm", "city", "right", "based in")


def f1(found: Consensus) -> float | None:
    (control,) = (one for one in found.controls if one.control == "relations")
    assert control.agreement.headline == ("relations F1", control.agreement.relations_f1)
    assert control.agreement.detection_f1.value is None
    return control.agreement.relations_f1.value


def test_gold_relations_that_were_missed_lower_recall_and_not_precision() -> None:
    table = units(read_file(FILES / "83_relation_missed.json").labels)
    found = golden(table, 0.8).detection[EVERYBODY, "relations"]
    assert (found.precision.value, found.recall.value) == (1, 0.5)
    assert found.f1.value == pytest.approx(2 / 3)


def test_nested_spans_agree_whatever_their_labels_are_called(tmp_path: Path) -> None:
    path = FILES / "80_nested_spans.json"
    for old, new in (("name", "name"), ('"name"', '"z"'), ('"name.first"', '"a"')):
        renamed = tmp_path / "renamed.json"
        renamed.write_text(path.read_text().replace(old, new))
        (control,) = consensus(units(read_file(renamed).labels), seed=0).controls
        assert control.agreement.observed.value == 1


def test_a_relation_is_missed_also_where_one_of_its_ends_is(tmp_path: Path) -> None:
    assert f1(merged(tmp_path, annotation("a", [EMPLOYS, BASED]), annotation("b", [EMPLOYS, BASED]))) == 1
    found = merged(tmp_path, annotation("a", [EMPLOYS, BASED]), annotation("b", [EMPLOYS], left_out="city"))
    assert f1(found) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("link", "other", "expected"),
    [
        (("person", "firm", "bi", "knows"), ("firm", "person", "bi", "knows"), 1),
        (("person", "firm", "right", "knows"), ("firm", "person", "left", "knows"), 1),
        (("person", "firm", "right", "knows"), ("firm", "person", "right", "knows"), 0),
        (("person", "firm", "bi", "knows"), ("person", "firm", "right", "knows"), 0),
    ],
)
def test_a_relation_without_direction_is_the_same_from_either_end(
    tmp_path: Path, link: Link, other: Link, expected: float
) -> None:
    found = merged(tmp_path, annotation("a", [link]), annotation("b", [other]))
    assert f1(found) == expected


def test_a_relation_that_one_of_three_made_is_not_in_the_consensus(tmp_path: Path) -> None:
    found = merged(tmp_path, annotation("a", [EMPLOYS]), annotation("b", [EMPLOYS]), annotation("c", [BASED]))
    said = found.units.filter(control="relations").select("label", "votes", "annotators").rows()
    assert sorted(said) == [(ABSENT, 2, 3), ("employs", 2, 3)]
