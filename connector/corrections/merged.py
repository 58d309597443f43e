"""The result that says what is right, made of what people drew and answered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from connector.errors import BadRecord
from connector.journal.renames import ENDS
from connector.model import Annotation, Task, dump_json
from connector.quality.answers import ABSENT, STEP, parted
from connector.quality.kinds import BOX, CHOICE, DRAWN, KEYPOINT, NUMBER, RANKING, RATING, RELATION, TAXONOMY
from connector.quality.table import UNDIRECTED
from connector.quality.units import ABOUT, UNIT
from connector.regions import Answer, Region, Relation, gather, parse_result
from connector.store.labels import RELATED, area_id, place_of

PLACES: Mapping[str, Sequence[str]] = {
    BOX: ("x", "y", "width", "height", "rotation"),
    KEYPOINT: ("x", "y"),
}
"""Where a merged shape stands in a value. Of other kinds the most typical person's shape is taken."""


Unit = tuple[str, str]
"""A control and the name of one of its units."""


def merged_result(
    task: Task,
    right: pl.DataFrame,
    units: pl.DataFrame,
    own: Mapping[str, str],
    rest: frozenset[str] = frozenset(),
) -> list[Mapping[str, Any]] | None:
    """The whole result that says what is right, each region made from one that an annotator gave.

    Args:
        right: `UNIT`, kind, then, shape: what shall stand in each unit of the task.
        units: schema `UNITS`, of the task.
        own: of annotations that we corrected, by id, the result that their annotators gave.
        rest: controls that are only there to make it whole: what cannot be made of them is left out.

    Returns:
        The regions; None where no annotator whose regions we have gave something that is right.
    """
    pieces = _Pieces(task, units, own)
    made: dict[Unit, list[dict[str, Any]]] = {}
    rows = list(_about(right, units).filter(pl.col("then") != ABSENT).iter_rows(named=True))
    for row in sorted(rows, key=lambda row: row["kind"] not in DRAWN):
        about = _thing(row)
        if row["kind"] == RELATION or (row["parent_control"] is not None and about not in made):
            continue  # about a thing that shall not be there
        found = pieces.of(row, row["control"] in rest)
        if found is None and row["control"] not in rest:
            return None
        if found:
            made.setdefault(about, []).extend(found)
    ids = {about: _id(task, about) for about in made}
    answers = [{**raw, "id": ids[about]} for about, raws in made.items() for raw in _together(raws)]
    return [*answers, *_links(rows, ids)]


def corrected_result(
    task: Task,
    annotation: Annotation,
    changed: Collection[Unit],
    right: pl.DataFrame,
    units: pl.DataFrame,
    own: Mapping[str, str],
) -> list[Mapping[str, Any]] | None:
    """An annotation's result with some units as they should be, and all else as it is.

    What was drawn keeps its id, so that what is said about it still is; that about a thing that shall not be
    there goes with it, and a thing that is new brings what is right about it.

    Args:
        changed: the units that the correction names.
        right, units, own: as of `merged_result`.

    Returns:
        The regions; None where no annotator whose regions we have gave something that is right.
    """
    rows = {(row["control"], row["unit"]): row for row in _about(right, units).iter_rows(named=True)}
    known = {(row["control"], row["unit"]): row for row in units.iter_rows(named=True)}
    todo = {unit: rows.get(unit) or {**known[unit], "then": ABSENT} for unit in changed}
    edited = _Edited(task, annotation, units, own)
    for unit, row in sorted(todo.items()):
        if row["kind"] in DRAWN and not edited.draw(unit, row):
            return None
    todo |= {unit: row for unit, row in rows.items() if edited.is_new(row)}
    for unit, row in sorted(todo.items()):
        if row["kind"] not in DRAWN and not edited.answer(unit, row):
            return None
    return edited.result


class _Edited:
    """The result of an annotation while its units are replaced, each in its place.

    Attributes:
        ids: of the drawn things that are there, the ids of their regions.
        new: the drawn things that this annotation did not have.
    """

    def __init__(
        self, task: Task, annotation: Annotation, units: pl.DataFrame, own: Mapping[str, str]
    ) -> None:
        raws: list[dict[str, Any]] = json.loads(annotation.result)
        self.task = task
        self.regions = parse_result(raws)
        self.held = gather(self.regions)
        self.pieces = _Pieces(task, units, own)
        self._place = {id(region): number for number, region in enumerate(self.regions)}
        self._slots: list[list[Mapping[str, Any]]] = [[raw] for raw in raws]
        areas = {area_id(area, number): area for number, area in enumerate(self.held.areas)}
        mine = units.filter(pl.col("annotation") == annotation.id, pl.col("region").is_not_null())
        self.drawn = {
            (row["control"], row["unit"]): areas[row["region"]] for row in mine.iter_rows(named=True)
        }
        self.ids = {unit: area.id for unit, area in self.drawn.items()}
        self.new: set[Unit] = set()

    @property
    def result(self) -> list[Mapping[str, Any]]:
        return [raw for slot in self._slots for raw in slot]

    def is_new(self, row: Mapping[str, Any]) -> bool:
        """Whether a row says what is right about a thing that is new."""
        ends = {_thing(row), (row["end_control"], row["end_unit"])}
        return row["parent_control"] is not None and bool(ends & self.new) and row["then"] != ABSENT

    def draw(self, unit: Unit, row: Mapping[str, Any]) -> bool:
        """Replace, add or remove a drawn thing; false where no annotator drew what is right."""
        area = self.drawn.get(unit)
        if row["then"] == ABSENT:
            if area is not None:
                gone = [r for r in self.regions if area.id and _names(r, area.id)]
                self._put([*area.regions, *area.answers, *gone], [])
                del self.ids[unit]
            return True
        found = self.pieces.of(row)
        if found is None:
            return False
        self.ids[unit] = (area.id if area else "") or _id(self.task, unit)
        if area is None:
            self.new.add(unit)
        new = [{**raw, "id": self.ids[unit]} for raw in found]
        self._put(area.regions if area else (), new)
        place = {name: value for name, value in new[0].get("value", {}).items() if name != new[0]["type"]}
        for answer in area.answers if area else ():
            self._slots[self._place[id(answer)]] = [_moved(answer.dump(), place)]
        return True

    def answer(self, unit: Unit, row: Mapping[str, Any]) -> bool:
        """Replace, add or remove an answer or a relation; false where no annotator gave what is right.

        That about a thing which is not there is left out.
        """
        about = _thing(row)
        if row["parent_control"] is not None and about not in self.ids:
            return True
        if row["kind"] == RELATION:
            end = (row["end_control"], row["end_unit"])
            if end in self.ids:
                ends = self.ids[about], self.ids[end]
                links = [r for r in self.held.relations if _joins(r, row, *ends)]
                self._put(links, [*_links([row], self.ids)] if row["then"] != ABSENT else [])
            return True
        found = self.pieces.of(row) if row["then"] != ABSENT else []
        if found is None:
            return False
        old: Sequence[Answer]
        if row["parent_control"] is not None:
            area = self.drawn.get(about)
            old = [a for a in area.answers if a.control == unit[0]] if area else []
            shape = next((raw for raw in self.result if raw.get("id") == self.ids[about]), {})
            new = [{**_moved(raw, shape.get("value", {})), "id": self.ids[about]} for raw in found]
        else:
            answers = (a for a in self.held.answers if a.control == unit[0])
            old = [a for a in answers if row["place"] in (None, place_of(a))]
            name = old[0].id if old and old[0].id is not None else _id(self.task, unit)
            new = [{**raw, "id": name} for raw in found]
        self._put(old, new)
        return True

    def _put(self, old: Iterable[Region], new: Sequence[Mapping[str, Any]]) -> None:
        """Put regions in the place of others; at the end, where there were none."""
        places = sorted(self._place[id(region)] for region in old)
        for place in places:
            self._slots[place] = []
        if places:
            self._slots[places[0]] = list(new)
        elif new:
            self._slots.append(list(new))


def _names(region: Region, id: str) -> bool:
    raw = region.dump()
    return any(str(raw.get(end)) == id for end in ENDS)


def _about(right: pl.DataFrame, units: pl.DataFrame) -> pl.DataFrame:
    """What shall stand there, with what each unit is about."""
    about = units.select(*UNIT, *ABOUT).unique(UNIT)
    return right.join(about, on=UNIT, how="left", maintain_order="left")


def _joins(relation: Relation, row: Mapping[str, Any], start: str, end: str) -> bool:
    """Whether a relation of a result is the one of a row, between these two."""
    undirected = relation.direction == UNDIRECTED
    if undirected != (row["place"] == UNDIRECTED):
        return False
    return relation.ends == (start, end) or (undirected and relation.ends == (end, start))


def _thing(row: Mapping[str, Any]) -> Unit:
    """The unit that a row is about: of an answer about a drawn thing, that thing."""
    if row["parent_control"] is None:
        return row["control"], row["unit"]
    return row["parent_control"], row["parent_unit"]


class _Pieces:
    """The regions that say what is right in one unit, made from an annotator's."""

    def __init__(self, task: Task, units: pl.DataFrame, own: Mapping[str, str]) -> None:
        self.given = _given(task, own)
        ids = [str(a.id) for a in task.annotations]
        self.units = units.filter(pl.col("annotation").is_in(ids))
        drawn = units.filter(pl.col("region").is_not_null()).iter_rows(named=True)
        self.drawn = {(row["annotation"], row["control"], row["unit"]): row["region"] for row in drawn}

    def of(self, row: Mapping[str, Any], nearly: bool = False) -> list[dict[str, Any]] | None:
        """The regions of a unit, with the ids that their authors gave; None where no annotator gave any.

        Args:
            nearly: whether an answer that is not quite what is right will do.
        """
        here = self.units.filter(
            *(pl.col(name) == row[name] for name in UNIT), pl.col("label") != ABSENT
        ).sort("similarity", "annotation", descending=[True, False], nulls_last=True)
        here = here.filter(
            pl.Series([self._key(one) in self.given for one in here.iter_rows(named=True)], dtype=pl.Boolean)
        )
        same = here.filter(pl.col("label") == row["then"])
        voted: Mapping[str, Any] = {}
        if not len(same):  # the merged answer, which no annotator gave exactly so
            every = [raw for one in here.iter_rows(named=True) for raw in self.given[self._key(one)]]
            made = _VOTED[row["kind"]](row["then"], every) if row["kind"] in _VOTED else None
            if not len(here) or (made is None and not nearly):
                return None
            same, voted = here, made or {}
        raws = self.given[self._key(same.row(0, named=True))]
        if voted:
            raws = raws[:1]
        names = PLACES.get(row["kind"], ()) if row["kind"] in DRAWN else ()
        shape = dict(zip(names, row["shape"] or (), strict=False)) if names else {}
        return [_with(raw, {**voted, **shape}) for raw in raws]

    def _key(self, like: Mapping[str, Any]) -> tuple[str, str, str | None, str | None]:
        """What `_given` calls the regions behind a row of the unit table."""
        region = like["region"]
        if region is None and like["parent_control"] is not None:
            region = self.drawn.get((like["annotation"], like["parent_control"], like["parent_unit"]))
        return like["annotation"], like["control"], region, like["place"]


def _with(raw: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """A region with other values. What is equal stays as it was written: 0 is not made 0.0."""
    value = raw.get("value", {})
    return {**raw, "value": {**value, **{k: v for k, v in new.items() if k not in value or value[k] != v}}}


def _number(text: str) -> int | float:
    found = float(text)
    return int(found) if found.is_integer() else found


def _paths(then: str, raws: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The paths of a merged tree, as an annotator gave them or one below them."""
    name = "taxonomy" if any("taxonomy" in raw.get("value", {}) for raw in raws) else "choices"
    given = (path for raw in raws for path in raw.get("value", {}).get(name) or ())
    known = {STEP.join(path[:depth]): path[:depth] for path in given for depth in range(1, len(path) + 1)}
    wanted = parted(then)
    return {name: [known[one] for one in wanted]} if all(one in known for one in wanted) else None


_VOTED: Mapping[str, Callable[[str, Sequence[Mapping[str, Any]]], Mapping[str, Any] | None]] = {
    CHOICE: lambda then, _: {"choices": parted(then)},
    TAXONOMY: _paths,
    NUMBER: lambda then, _: {"number": _number(then)},
    RATING: lambda then, _: {"rating": _number(then)},
    RANKING: lambda then, _: {"ranker": json.loads(then)},
}
"""How a merged answer that no annotator gave exactly so stands in a value."""


def _moved(raw: Mapping[str, Any], place: Mapping[str, Any]) -> Mapping[str, Any]:
    """An answer at the place of what it is about, if it carries one."""
    value = raw.get("value")
    if not isinstance(value, Mapping):
        return raw
    return {**raw, "value": {**value, **{name: place[name] for name in place.keys() & value.keys()}}}


def _id(task: Task, about: Unit) -> str:
    return hashlib.blake2b(dump_json([task.id, *about]).encode(), digest_size=5).hexdigest()


def _given(
    task: Task, own: Mapping[str, str]
) -> dict[tuple[str, str, str | None, str | None], list[Mapping[str, Any]]]:
    """The regions of all annotations, by annotation, control, drawn thing, and place of several.

    An answer about the whole task is there both without a place, and with its own.
    """
    given: dict[tuple[str, str, str | None, str | None], list[Mapping[str, Any]]] = {}
    for annotation in task.annotations:
        id = str(annotation.id)
        try:
            result = gather(parse_result(json.loads(own.get(id, annotation.result))))
        except BadRecord:
            continue  # what cannot be read was not measured either
        for number, area in enumerate(result.areas):
            name = area_id(area, number)
            given[id, area.shape.control, name, None] = [region.dump() for region in area.regions]
            for answer in area.answers:
                given.setdefault((id, answer.control, name, None), []).append(answer.dump())
        for answer in result.answers:
            for place in (None, place_of(answer)):
                given.setdefault((id, answer.control, None, place), []).append(answer.dump())
    return given


def _together(raws: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The regions of one thing, all at the place of the first: an answer carries the place it is about."""
    place = {name: value for name, value in raws[0].get("value", {}).items() if name != raws[0]["type"]}
    for raw in raws:
        theirs = raw["value"]
        about = place if len(raws) > 1 and place.keys() & theirs.keys() else {}
        yield {**raw, "value": {**theirs, **about}}


def _links(rows: Iterable[Mapping[str, Any]], ids: Mapping[Unit, str]) -> Iterator[dict[str, Any]]:
    """The relations between what is there."""
    for row in rows:
        start, end = _thing(row), (row["end_control"], row["end_unit"])
        if row["kind"] == RELATION and start in ids and end in ids:
            # The labels of one relation are one text, and the relations of two units one more.
            each = [] if row["then"] == RELATED else parted(row["then"])
            labels = [label for one in each for label in parted(one)]
            ends = {"from_id": ids[start], "to_id": ids[end]}
            direction = UNDIRECTED if row["place"] == UNDIRECTED else "right"
            yield {"type": "relation", "direction": direction, **ends, "labels": labels}
