"""The result that says what is right, made of what people drew and answered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from connector.errors import BadRecord
from connector.labels import RELATED, area_id
from connector.model import Task
from connector.quality.answers import ABSENT, parted
from connector.quality.kinds import BOX, CHOICE, DRAWN, KEYPOINT, RELATION
from connector.quality.units import UNIT
from connector.regions import gather, parse_result

ENDS = ("id", "parentID", "from_id", "to_id")
"""Where a region names itself, or another."""

PLACES: Mapping[str, Sequence[str]] = {
    BOX: ("x", "y", "width", "height", "rotation"),
    KEYPOINT: ("x", "y"),
}
"""Where a merged shape stands in a value. Of other kinds the most typical person's shape is taken."""


def merged_result(
    task: Task, right: pl.DataFrame, units: pl.DataFrame, own: Mapping[str, str]
) -> list[Mapping[str, Any]] | None:
    """The result that says what is right, each region made from one that somebody gave.

    Args:
        right: `UNIT`, kind, then, shape: what shall stand in each unit of the task.
        units: schema `UNITS`, of the task.
        own: of annotations that we corrected, by id, the result that their annotators gave.

    Returns:
        The regions; None where something that is right was given by nobody whose regions we have.
    """
    given = _given(task, own)
    known = pl.col("annotation").is_in([id for id, _, _ in given])
    made: dict[str, list[dict[str, Any]]] = {}
    there = right.filter(pl.col("then") != ABSENT).iter_rows(named=True)
    for row in sorted(there, key=lambda row: row["kind"] not in DRAWN):
        if "/" in row["unit"] and row["unit"] not in made:
            continue  # about a thing that shall not be there
        here = units.filter(*(pl.col(name) == row[name] for name in UNIT), pl.col("label") != ABSENT, known)
        same = here.filter(pl.col("label") == row["then"])
        voted = {}
        if not len(same) and row["kind"] == CHOICE:  # labels that most gave, and nobody just these
            same, voted = here, {"choices": parted(row["then"])}
        if not len(same):
            return None
        like = same.sort("similarity", "annotation", descending=[True, False], nulls_last=True).row(
            0, named=True
        )
        raws = [
            {**raw, "value": {**raw.get("value", {}), **voted}} for raw in given.get(_key(like, units), [])
        ]
        if row["kind"] in DRAWN:
            made[_path(row)] = raws
            for raw in raws:
                names = PLACES.get(row["kind"], ())
                raw["value"] = {**raw["value"], **dict(zip(names, row["shape"], strict=False))}
        elif row["kind"] != RELATION:
            made.setdefault(_path(row), []).extend(raws)
    ids = {path: _id(task, path) for path in made}
    answers = [{**raw, "id": ids[path]} for path, raws in made.items() for raw in _together(raws)]
    return [*answers, *_links(right, ids)]


def beside(
    task: Task, result: Sequence[Mapping[str, Any]], mine: pl.DataFrame, kept: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """A merged result, and beside it what else an annotator said.

    What they drew keeps its id, so that their other answers are about it still. Those about a thing that
    shall not be there go with it.

    Args:
        mine: schema `UNITS`, of the annotation.
        kept: its regions of other controls.
    """
    drawn = mine.filter(pl.col("kind").is_in(list(DRAWN)), pl.col("region").is_not_null())
    own = {_id(task, _path(row)): row["region"] for row in drawn.iter_rows(named=True)}
    named = [{**raw, **{end: own[raw[end]] for end in ENDS if raw.get(end) in own}} for raw in result]
    places: dict[str, dict[str, Any]] = {}
    for raw in named:
        place = {name: value for name, value in raw.get("value", {}).items() if name != raw["type"]}
        places.setdefault(str(raw.get("id")), place)
    gone = set(own.values()) - places.keys()
    stay = [raw for raw in kept if not gone & {str(raw.get(end)) for end in ENDS}]
    return [*named, *(_moved(raw, places.get(str(raw.get("id")), {})) for raw in stay)]


def _moved(raw: Mapping[str, Any], place: Mapping[str, Any]) -> Mapping[str, Any]:
    """An answer at the place of what it is about, if it carries one."""
    value = raw.get("value")
    if not isinstance(value, Mapping):
        return raw
    return {**raw, "value": {**value, **{name: place[name] for name in place.keys() & value.keys()}}}


def _id(task: Task, path: str) -> str:
    return hashlib.blake2b(f"{task.id}/{path}".encode(), digest_size=5).hexdigest()


def _path(row: Mapping[str, Any]) -> str:
    """The name of what a unit is about: an answer about a drawn thing is about that."""
    return row["unit"] if "/" in row["unit"] else f"{row['control']}/{row['unit']}"


def _key(like: Mapping[str, Any], units: pl.DataFrame) -> tuple[str, str, str]:
    """What `_given` calls the regions behind a row of the unit table."""
    region = like["region"]
    if region is None and "/" in like["unit"]:
        control, unit = like["unit"].split("/", 1)
        thing = (pl.col("control") == control) & (pl.col("unit") == unit)
        region = units.filter(thing, pl.col("annotation") == like["annotation"])["region"][0]
    return like["annotation"], like["control"], region or ""


def _given(task: Task, own: Mapping[str, str]) -> dict[tuple[str, str, str], list[Mapping[str, Any]]]:
    """The regions of all annotations, by annotation, control and drawn thing; none for the whole task."""
    given: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for annotation in task.annotations:
        id = str(annotation.id)
        try:
            result = gather(parse_result(json.loads(own.get(id, annotation.result))))
        except BadRecord:
            continue  # what cannot be read was not measured either
        for number, area in enumerate(result.areas):
            name = area_id(area, number)
            given[id, area.shape.control, name] = [region.dump() for region in area.regions]
            for answer in area.answers:
                given.setdefault((id, answer.control, name), []).append(answer.dump())
        for answer in result.answers:
            given.setdefault((id, answer.control, ""), []).append(answer.dump())
    return given


def _together(raws: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The regions of one thing, all at the place of the first: an answer carries the place it is about."""
    place = {name: value for name, value in raws[0].get("value", {}).items() if name != raws[0]["type"]}
    for raw in raws:
        theirs = raw["value"]
        about = place if len(raws) > 1 and place.keys() & theirs.keys() else {}
        yield {**raw, "value": {**theirs, **about}}


def _links(right: pl.DataFrame, ids: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The relations between what is there."""
    for row in right.filter(pl.col("kind") == RELATION, pl.col("then") != ABSENT).iter_rows(named=True):
        start, end = row["unit"].split(" → ")
        if start in ids and end in ids:
            labels = [] if row["then"] == RELATED else parted(row["then"])
            ends = {"from_id": ids[start], "to_id": ids[end]}
            yield {"type": "relation", "direction": "right", **ends, "labels": labels}
