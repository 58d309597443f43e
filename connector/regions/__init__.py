"""The regions of a result: one model for each kind of answer, and nothing lost on the way there and back.

The format is Label Studio's: a result is a list of regions, and each says which control it answers
(`from_name`), what object it is about (`to_name`), of what `type` it is, and its `value`. What each type
holds was read from the editor of Label Studio 1.23.2 and from label-studio-sdk 2.1.2. Fields that we do not
know are kept. This is the only place that reads a region.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from connector.errors import BadRecord
from connector.model import Ontology, dump_json
from connector.regions.answers import (
    Answer,
    Choices,
    Date,
    Numeric,
    Pairwise,
    Ranking,
    Rating,
    Taxonomy,
    TextAnswer,
)
from connector.regions.base import Other, Region, Relation
from connector.regions.check import check, check_size
from connector.regions.drawn import (
    AudioSegment,
    Bitmask,
    Box,
    Drawn,
    Ellipse,
    HtmlSpan,
    KeyPoint,
    Line,
    Mask,
    Naming,
    ParagraphSpan,
    Polygon,
    SeriesSegment,
    Span,
    Timeline,
    Track,
    drawn_as,
)
from connector.regions.kinds import KINDS, LABELS_ON, NOT_MEASURED, ORDERED, Kind, kind_of

__all__ = [
    "KINDS",
    "LABELS_ON",
    "NOT_MEASURED",
    "ORDERED",
    "Answer",
    "Area",
    "AudioSegment",
    "Bitmask",
    "Box",
    "Choices",
    "Date",
    "Drawn",
    "Ellipse",
    "Gathered",
    "HtmlSpan",
    "KeyPoint",
    "Kind",
    "Line",
    "Mask",
    "Naming",
    "Numeric",
    "Other",
    "Pairwise",
    "ParagraphSpan",
    "Polygon",
    "Ranking",
    "Rating",
    "Region",
    "Relation",
    "SeriesSegment",
    "Span",
    "Taxonomy",
    "TextAnswer",
    "Timeline",
    "Track",
    "check",
    "check_result",
    "dump_result",
    "gather",
    "in_its_labels",
    "kind_of",
    "parse_region",
    "parse_result",
]

_MODELS: Mapping[str, type[Region]] = {
    "choices": Choices,
    "taxonomy": Taxonomy,
    "rating": Rating,
    "number": Numeric,
    "datetime": Date,
    "textarea": TextAnswer,
    "pairwise": Pairwise,
    "ranker": Ranking,
    "rectangle": Box,
    "rectanglelabels": Box,
    "ocrlabels": Box,
    "ellipse": Ellipse,
    "ellipselabels": Ellipse,
    "polygon": Polygon,
    "polygonlabels": Polygon,
    "brush": Mask,
    "brushlabels": Mask,
    "magicwand": Mask,
    "bitmask": Bitmask,
    "bitmasklabels": Bitmask,
    "keypoint": KeyPoint,
    "keypointlabels": KeyPoint,
    "vector": Line,
    "vectorlabels": Line,
    "paragraphlabels": ParagraphSpan,
    "timeserieslabels": SeriesSegment,
    "timelinelabels": Timeline,
    "videorectangle": Track,
    "relation": Relation,
}
_BY_PLACE = ("labels", "hypertextlabels", "htmllabels")


def parse_result(raw: object) -> tuple[Region, ...]:
    """Read a result: all of its regions, or none.

    Args:
        raw: the list that the result's JSON holds.

    Raises:
        BadRecord: for the first region that cannot be read, naming the region, the field, what was found and
            what is expected; or if it is no list.
    """
    if not isinstance(raw, list):
        raise BadRecord(f"a result must be a list of regions, found {_shown(raw)}")
    return tuple([parse_region(one) for one in raw])


def parse_region(raw: object) -> Region:
    """Read one region.

    Raises:
        BadRecord: if it cannot be read, naming the region, the field, what was found and what is expected.
    """
    if not isinstance(raw, dict):
        raise BadRecord(f"a region must be a JSON object, found {_shown(raw)}")
    try:
        region = _model_of(raw).model_validate(raw)
    except ValidationError as error:
        raise _refused(raw, error) from None
    if isinstance(region, Mask):
        check_size(region)
    return region


def dump_result(regions: Iterable[Region]) -> str:
    """The JSON text of a result, with all that was read.

    Raises:
        BadRecord: if a region holds what JSON cannot.
    """
    return dump_json([region.dump() for region in regions])


def _model_of(raw: Mapping[str, Any]) -> type[Region]:
    type_, value = raw.get("type"), raw.get("value")
    if type_ in _BY_PLACE:
        return drawn_as(raw, value if isinstance(value, dict) else {})
    if isinstance(value, dict):
        choices = value.get("choices")
        if type_ == "choices" and isinstance(choices, list) and choices and isinstance(choices[0], list):
            return Taxonomy
    return _MODELS.get(type_, Other) if isinstance(type_, str) else Other


def _refused(raw: Mapping[str, Any], error: ValidationError) -> BadRecord:
    """Our own words for the first thing that is wrong."""
    first = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(step) for step in first["loc"])
    where = f"region {raw.get('id')!r}"
    if isinstance(raw.get("from_name"), str):
        where += f" of control {raw['from_name']!r}"
    value = raw.get("value")
    if first["type"] == "missing" and isinstance(value, dict) and "rle" in value:
        return BadRecord(
            f"{where}: it is called {raw.get('type')} and holds a mask (rle), which is a brush's"
        )
    if first["type"] == "missing":
        return BadRecord(f"{where}: {field} is missing")
    if first["type"] == "value_error":
        return BadRecord(f"{where}: {field} {first['msg'].removeprefix('Value error, ')}")
    expected = _PLAIN.get(first["type"], first["msg"].removeprefix("Input should be "))
    return BadRecord(f"{where}: {field} must be {expected}, found {_shown(first['input'])}")


_PLAIN = {
    "model_type": "a JSON object",
    "list_type": "a list",
    "bool_type": "true or false",
    "too_short": "a longer list",
    "literal_error": "one of the types of its kind",
}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


# What belongs together.


@dataclass(frozen=True, slots=True)
class Area:
    """One drawn thing with all that was said of it.

    Attributes:
        id: of its regions; empty where they have none.
        shape: the region that holds its place.
        regions: it, and those that name it.
        labels: its own, and those of a `Labels` control that names it.
        answers: those about this thing.
    """

    id: str
    shape: Drawn
    regions: tuple[Drawn, ...]
    labels: tuple[str, ...]
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Gathered:
    """A result, sorted.

    Attributes:
        areas: what was drawn.
        answers: those about the whole object.
        relations: between areas, by their ids.
        others: regions that are not read, and answers about them.
    """

    areas: tuple[Area, ...]
    answers: tuple[Answer, ...]
    relations: tuple[Relation, ...]
    others: tuple[Region, ...]


def gather(regions: Iterable[Region]) -> Gathered:
    """Put together what belongs together: regions that share an id are about the same drawn thing.

    Raises:
        BadRecord: if two regions of one control share an id, if labels or an answer are about a region that
            is not there, or a relation leads to one.
    """
    shared: dict[str, list[Drawn]] = {}
    loose: list[Drawn] = []
    answers: list[Answer] = []
    relations: list[Relation] = []
    others: list[Region] = []
    for region in regions:
        if isinstance(region, Drawn):
            (loose if region.id is None else shared.setdefault(str(region.id), [])).append(region)
        elif isinstance(region, Answer):
            answers.append(region)
        elif isinstance(region, Relation):
            relations.append(region)
        elif isinstance(region, Other):
            others.append(region)
    unread = {str(one.id) for one in others if one.id is not None}
    about: dict[str, list[Answer]] = {}
    whole: list[Answer] = []
    for answer in answers:
        if answer.id is not None:
            about.setdefault(str(answer.id), []).append(answer)
        if answer.parent is None or answer.parent in shared:
            if answer.id is None or str(answer.id) not in shared:
                whole.append(answer)
        elif answer.parent in unread:
            others.append(answer)
        else:
            raise answer.refuse("the region that it is about is not there")
    areas = [_area(id, drawn, about.get(id, [])) for id, drawn in shared.items()]
    areas += [_area("", [one], []) for one in loose]
    for relation in relations:
        for end in relation.ends:
            if end not in shared and end not in about and end not in unread:
                raise relation.refuse(f"the relation leads to region {end!r}, which is not there")
    return Gathered(tuple(areas), tuple(whole), tuple(relations), tuple(others))


def check_result(
    raw: object,
    ontology: Ontology | None = None,
    data: Callable[[], Mapping[str, Any]] | None = None,
    held: Sequence[Any] = (),
) -> Gathered:
    """Read a whole result, put together what belongs together, and refuse what may not be.

    Args:
        raw: the list that the result's JSON holds.
        ontology: what is allowed; None where nobody knows.
        data: gives the task's data; asked only where something was drawn.
        held: regions that the tool holds already, so they need not be allowed.

    Raises:
        BadRecord: as `parse_result`, `check` and `gather` do.
    """
    regions = parse_result(raw)
    if ontology is not None:
        of_task = data() if data and any(isinstance(region, Drawn) for region in regions) else None
        known = {dump_json(one) for one in held}
        for region in regions:
            if not known or dump_json(region.dump()) not in known:
                check(region, ontology, of_task)
        regions = tuple(in_its_labels(region, ontology) for region in regions)
    return gather(regions)


def in_its_labels(region: Region, ontology: Ontology) -> Region:
    """One path in a tree is one label, in whichever of its two forms it was written."""
    control = ontology.control(region.control) if isinstance(region, Taxonomy) else None
    return region.by_alias(control) if isinstance(region, Taxonomy) and control else region


def _area(id: str, drawn: list[Drawn], answers: list[Answer]) -> Area:
    """The region whose control draws comes before one that only names."""
    for number, one in enumerate(drawn):
        if any(one.control == other.control for other in drawn[:number]):
            raise one.refuse("two regions of this control have this id")
    placed = [one for one in drawn if one.kind is not Kind.NAMING]
    if not placed:
        raise drawn[0].refuse("the region that it names is not there")
    shape = next((one for one in placed if one.type != "labels"), placed[0])
    labels = dict.fromkeys(label for one in drawn for label in one.labels)
    others = [one for one in drawn if one is not shape]
    return Area(id, shape, (shape, *others), tuple(labels), tuple(answers))
