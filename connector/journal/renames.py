"""Labels that are renamed or removed: in a result to be written, and in one that was given before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from connector.regions import Drawn, parse_region
from connector.regions.answers import SEPARATOR
from connector.regions.base import RELATIONS

Renames = Mapping[str, Mapping[str, str | None]]
"""By control, from each label to its new name, or to None where it is removed.

A path of a tree is one label, its steps joined by " / "; the control of relations is `RELATIONS`.
"""

ENDS = ("id", "parentID", "from_id", "to_id")
"""Where a region names itself, or another."""


def labels_of(raw: Mapping[str, Any]) -> Sequence[Any]:
    """The labels of a region as they stand in it: texts, and paths as lists."""
    kind, value = str(raw.get("type")), raw.get("value")
    if kind == "relation":
        labels = raw.get("labels")
    else:  # what is typed into a text area is no label
        labels = value.get(kind) if isinstance(value, Mapping) and kind != "textarea" else None
    return labels if isinstance(labels, list) else ()


def uses(regions: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Every control and label of a result, as `Renames` calls them."""
    for raw in regions:
        if isinstance(raw, Mapping):
            for label in labels_of(raw):
                if (text := _text(label)) is not None:
                    yield _control(raw), text


def renamed(regions: Sequence[Any], renames: Renames) -> list[Any]:
    """A result with its labels renamed.

    A region that is left without a label is removed, and with it what is about it.

    Raises:
        BadRecord: if a region is removed and another cannot be read, so it is unknown what is about what.
    """
    kept: list[Any] = []
    gone: set[str] = set()
    for raw in regions:
        names = renames.get(_control(raw), {}) if isinstance(raw, Mapping) else {}
        labels = labels_of(raw) if names else ()
        if not any(_text(label) in names for label in labels):
            kept.append(raw)
            continue
        if left := list(_renamed(labels, names)):
            kept.append(_with_labels(raw, left))
        elif raw.get("id") is not None:
            gone.add(str(raw["id"]))
    if gone:
        # A region that another control drew or named too is still there.
        gone -= {str(raw.get("id")) for raw in kept if isinstance(parse_region(raw), Drawn)}
    return [raw for raw in kept if not gone or not gone & {str(raw[end]) for end in ENDS if end in raw}]


def _renamed(labels: Sequence[Any], names: Mapping[str, str | None]) -> Iterator[Any]:
    """The new labels, each once."""
    given = set()
    for label in labels:
        old = _text(label)
        new = names.get(old, old) if old is not None else None
        if old is None:
            yield label
        elif new is not None and new not in given:
            given.add(new)
            yield label if new == old else new.split(SEPARATOR) if isinstance(label, list) else new


def _with_labels(raw: Mapping[str, Any], labels: list[Any]) -> Mapping[str, Any]:
    if raw.get("type") == "relation":
        return {**raw, "labels": labels}
    return {**raw, "value": {**raw["value"], raw["type"]: labels}}


def _control(raw: Mapping[str, Any]) -> str:
    return RELATIONS if raw.get("type") == "relation" else str(raw.get("from_name"))


def _text(label: object) -> str | None:
    if isinstance(label, list):
        return SEPARATOR.join(map(str, label))
    return label if isinstance(label, str) else None
