"""Label Studio's labeling configuration, read as an ontology.

By hand and not by the SDK, which takes a second to import and would be needed at every pull. What a tag
means was read from the editor of Label Studio 1.23.2 (its source map) and from label-studio-sdk 2.1.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from xml.etree import ElementTree

from connector.errors import UsageError
from connector.model import Condition, Control, Label, Ontology

MAX_CHARACTERS = 10_000_000
MAX_DEPTH = 100

_LABEL_TAGS = {"label", "choice", "relation", "bucket"}
_NOT_CONTROLS = _LABEL_TAGS | {"filter", "shortcut"}
_OBJECT_TAGS = {
    *("audio", "audioplus", "chat", "hypertext", "image", "list", "paragraphs", "pdf"),
    *("reactcode", "table", "text", "timeseries", "video"),
}

_SELF = {"chat": "chatmessage", "reactcode": "reactcode"}
"""Objects that are a question too, with the type of their answers."""

RELATIONS = "relations"
"""The name of a `Relations` tag that has none. Its answers name no control."""

_ONE = {"taxonomy": "maxusages", "textarea": "maxsubmissions"}
"""Tags that take several answers unless this attribute says 1."""

_LIMITS = {
    *("min", "max", "step", "maxrating", "only", "format", "leafsonly", "allownested", "legacy", "maxusages"),
    *("maxsubmissions", "allowempty", "labeling", "minpoints", "maxpoints", "closable", "skeleton"),
    *("canrotate", "outputs", "granularity"),
}
"""Attributes that bound an answer. The others are looks."""


@dataclass(frozen=True)
class _Place:
    """What the tags around a tag say about it."""

    control: str = ""
    path: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    repeats: str = ""
    depth: int = 0


@dataclass
class _Found:
    controls: dict[str, Control] = field(default_factory=dict)
    options: dict[str, list[Label]] = field(default_factory=dict)
    objects: dict[str, tuple[str, str]] = field(default_factory=dict)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)


def parse_config(source: str) -> Ontology:
    """Read a labeling configuration.

    Args:
        source: Label Studio's XML.

    Raises:
        UsageError: if it is not XML, or declares a document type, or is larger or deeper than any sense.
    """
    found = _Found()
    _walk(_xml(source), _Place(), found)
    controls = tuple(
        control.model_copy(update={"options": tuple(options), "labels": _labels(control, options)})
        for control in found.controls.values()
        for options in [found.options.get(control.name, [])]
    )
    return Ontology(
        controls=controls, objects=found.objects, object_attributes=found.attributes, source=source
    )


class _NoDoctype(ElementTree.TreeBuilder):
    """Entities, which can grow without bound or read files, are declared in a document type only."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:  # noqa: ARG002
        raise UsageError("the labeling configuration declares a document type", "take the DOCTYPE out")


def _xml(source: str) -> ElementTree.Element:
    if len(source) > MAX_CHARACTERS:
        raise UsageError(
            f"the labeling configuration has {len(source)} characters, more than {MAX_CHARACTERS}",
            "load the labels from the tasks' data",
        )
    try:
        return ElementTree.fromstring(source, ElementTree.XMLParser(target=_NoDoctype()))
    except (ElementTree.ParseError, UnicodeEncodeError) as error:
        raise UsageError(
            f"the labeling configuration is not XML: {error}", "fix it in the file or the tool"
        ) from error


def _walk(tag: ElementTree.Element, place: _Place, found: _Found) -> None:
    if place.depth >= MAX_DEPTH:
        raise UsageError(f"the labeling configuration is deeper than {MAX_DEPTH} tags", "make it flatter")
    kind = tag.tag.lower()
    # The editor does not mind the case of attributes.
    attributes = {name.lower(): value for name, value in tag.attrib.items()}
    inside = replace(place, depth=place.depth + 1)
    if kind == "repeater":
        inside = replace(inside, repeats=attributes.get("indexflag", "{{idx}}"))
    if kind in _LABEL_TAGS:
        label = attributes.get("alias") or attributes.get("name" if kind == "bucket" else "value")
        if label is not None and place.control:
            inside = replace(inside, path=(*place.path, label))
            option = Label(value=label, path=inside.path, attributes=attributes)
            found.options.setdefault(place.control, []).append(option)
    else:
        inside = replace(inside, conditions=place.conditions + _conditions(attributes))
        control = _control_name(kind, attributes)
        if control:
            found.controls[control] = _control(kind, control, attributes, inside)
            inside = replace(inside, control=control, path=())
        name = attributes.get("name")
        shown = attributes.get("valuelist") or attributes.get("value") or ""
        if name and (kind in _OBJECT_TAGS or (shown and not control)):
            found.objects[name] = (kind, shown.lstrip("$"))
            found.attributes[name] = attributes
    for child in tag:
        _walk(child, inside, found)


def _control_name(kind: str, attributes: Mapping[str, str]) -> str:
    """The name of a tag that is a question; nothing for one that is none."""
    if kind == "relations":
        return attributes.get("name") or RELATIONS
    if kind in _NOT_CONTROLS or not (kind in _SELF or attributes.get("toname")):
        return ""
    return attributes.get("name", "")


def _control(kind: str, name: str, attributes: Mapping[str, str], place: _Place) -> Control:
    targets = tuple(attributes.get("toname", name if kind in _SELF else "").split(","))
    # Only a tag that has labels takes them from the data; elsewhere `value` is a text to start with.
    source = attributes.get("value", "") if kind.endswith(("labels", "choices", "taxonomy")) else ""
    return Control(
        name=name,
        kind=_SELF.get(kind, kind),
        target=targets[0],
        targets=targets,
        required=_true(attributes, "required"),
        multiple=_multiple(kind, attributes),
        per_region=_true(attributes, "perregion"),
        per_item=_true(attributes, "peritem"),
        conditions=place.conditions,
        dynamic=attributes.get("apiurl") or (source[1:] if source.startswith("$") else ""),
        limits={name: value for name, value in attributes.items() if name in _LIMITS},
        repeats=place.repeats,
    )


def _multiple(kind: str, attributes: Mapping[str, str]) -> bool:
    if kind in _ONE:
        return attributes.get(_ONE[kind]) != "1"
    if kind == "choices" or kind.endswith("labels"):
        return attributes.get("choice") == "multiple"
    return kind == "relations" and attributes.get("choice", "multiple") == "multiple"


def _conditions(attributes: Mapping[str, str]) -> tuple[Condition, ...]:
    """What a tag asks for before it is shown.

    A question of regions asks for a region even without `visibleWhen`, and `whenChoiceValue` for a choice.
    """
    choices = _list(attributes, "whenchoicevalue")
    when = attributes.get("visiblewhen", "")
    if not when:
        per_region = _true(attributes, "perregion")
        when = "region-selected" if per_region and not choices else "choice-selected" if choices else ""
        if not choices and not attributes.get("whenlabelvalue") and not attributes.get("whentagname"):
            return ()
    if not when:
        return ()
    condition = Condition(
        when=when,
        control=attributes.get("whentagname", ""),
        labels=_list(attributes, "whenlabelvalue"),
        choices=choices,
        roles=_list(attributes, "whenrole"),
    )
    return (condition,)


def _labels(control: Control, options: list[Label]) -> tuple[str, ...]:
    """Every label once, in their order. A ranker's buckets are places to put items into, not labels."""
    return () if control.kind == "ranker" else tuple(dict.fromkeys(one.value for one in options))


def _true(attributes: Mapping[str, str], name: str) -> bool:
    return attributes.get(name, "").lower() == "true"


def _list(attributes: Mapping[str, str], name: str) -> tuple[str, ...]:
    text = attributes.get(name, "")
    return tuple(text.split(",")) if text else ()
