"""What the line carries: items, tasks, annotations, regions, ontology, annotators.

An annotation keeps its result as the JSON text the tool gave, so nothing is lost on the way there and
back; the room `regions` reads it. Its format is Label Studio's: a list of regions, each with `from_name`,
`to_name`, `type` and `value`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from connector.errors import BadRecord


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs a zone; this project keeps UTC everywhere")
    return value


Instant = Annotated[datetime, AfterValidator(_utc)]


class Role(StrEnum):
    """In what role somebody answered."""

    PERSON = "person"
    GOLD = "gold"
    REVIEWER = "reviewer"
    MODEL = "model"
    CODE = "code"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Item(_Record):
    """A piece of raw data in the bucket.

    `key` names it for good (the object's URI, or the user's own id); `data` is what the tool shows;
    `version` changes when the content does, and is empty where nobody can tell.
    """

    key: str = Field(min_length=1)
    data: dict[str, Any] = {}
    version: str = ""


def dump_json(value: Any) -> str:
    """JSON text, the same for the same content.

    The standard library and ASCII on purpose: integers of any size and half surrogates survive, which
    faster encoders change or refuse.

    Raises:
        BadRecord: if the value holds what JSON cannot (NaN, an infinity).
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise BadRecord(f"this cannot be written as JSON: {error}") from error


def digest(value: Any) -> str:
    """A short name for a JSON value: equal values, equal names."""
    return hashlib.blake2b(dump_json(value).encode(), digest_size=8).hexdigest()


UNKNOWN = "unknown"
"""The annotator of an annotation whose account the tool has deleted."""


class Annotation(_Record):
    """One annotator's whole answer for one task, at one `updated_at`.

    `id` is None before the tool has given one. Tools reuse ids, so identity is (`id`, `created_at`).
    `seconds` is the time the annotator took, as the tool measured it. `account` is the annotator as the
    tool names it, where the label store knows a name that the tool has lost (a deleted account).
    """

    id: str | None = None
    task_id: str
    annotator: str
    result: str = "[]"
    cancelled: bool = False
    ground_truth: bool = False
    seconds: float | None = None
    created_at: Instant | None = None
    updated_at: Instant | None = None
    account: str | None = None

    @property
    def content(self) -> str:
        """A hash of what the annotator said: equal content, equal hash. Who said it counts; when does not."""
        said = (self.account or self.annotator, self.result, self.cancelled, self.ground_truth)
        return digest(said)

    @property
    def revision(self) -> str:
        """What the tool holds, in one word. A write names the revision it expects to replace.

        The time alone is not enough: Label Studio clears the ground truth flag of a sibling without
        moving that sibling's `updated_at`.
        """
        at = self.updated_at.isoformat() if self.updated_at else "-"
        return f"{at}/{self.content}"


PLAN_MODEL = "plan "
"""How the model's version begins of a prediction that a plan of corrections wrote."""


class Prediction(_Record):
    """A model's answer for one task, to be shown to a person. `id` is None before the tool has given one."""

    id: str | None = None
    task_id: str
    result: str
    model_version: str = Field(min_length=1)
    score: float | None = None
    created_at: Instant | None = None
    updated_at: Instant | None = None


class Draft(_Record):
    """Work on a task that its author has not saved yet.

    `annotation` is the id of the annotation that is being edited, and None where it will be a new one;
    `annotator` is empty where the tool does not name the author.
    """

    annotator: str = ""
    annotation: str | None = None


class Task(_Record):
    """An item inside the labeling tool, with all its current annotations and predictions.

    `note` is what somebody left there for whoever opens it; it is no part of the data. `drafts` is
    the unsaved work on it, as far as the tool knows; it is filled where single tasks are read.
    """

    id: str
    key: str
    data: dict[str, Any] = {}
    version: str = ""
    overlap: int = 1
    note: str | None = None
    drafts: tuple[Draft, ...] = ()
    created_at: Instant | None = None
    updated_at: Instant | None = None
    annotations: tuple[Annotation, ...] = ()
    predictions: tuple[Prediction, ...] = ()

    @property
    def revision(self) -> str:
        """What the tool holds of all its annotations, in one word; it does not depend on their order."""
        return digest(sorted([str(a.id), a.revision] for a in self.annotations))

    def unsaved(self, annotation: str | None) -> str:
        """Why a write to this annotation would lose unsaved work; the empty text if it would not.

        Tools delete drafts together with the version that they edit. A draft of another annotation, or of a
        new one, stays.
        """
        drafts = [draft for draft in self.drafts if draft.annotation == annotation]
        return _unsaved(f"annotation {annotation}", drafts) if annotation is not None else ""

    @property
    def unsaved_anywhere(self) -> str:
        """Why deleting this task would lose unsaved work; the empty text if it would not."""
        return _unsaved(f"task {self.id}", self.drafts)


def _unsaved(what: str, drafts: Sequence[Draft]) -> str:
    owners = ", ".join(sorted({draft.annotator or "an unnamed author" for draft in drafts}))
    return f"{what} has an unsaved draft by {owners}" if drafts else ""


class Annotator(_Record):
    """Who answers. `id` is the tool's own; `name` is what people read."""

    id: str
    name: str
    role: Role = Role.PERSON


class Label(_Record):
    """One allowed answer of a control.

    `value` is what a result says: the alias, where the tool has one. `path` leads to it from the root of a
    tree, itself included. `attributes` are the tool's own, by their names in lower case (`hotkey`,
    `background`, …).
    """

    value: str
    path: tuple[str, ...]
    attributes: dict[str, str] = {}


class Condition(_Record):
    """When a control is shown. What is empty is not asked for; of what is listed, one suffices.

    `when` is `region-selected`, `no-region-selected`, `choice-selected` or `choice-unselected`; `control` is
    the control that must have been used; `labels` are those of the region, `choices` the choices made,
    `roles` those of a chat message.
    """

    when: str
    control: str = ""
    labels: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()


class Control(_Record):
    """One question of the ontology.

    `kind` is the tool's type of answer in a result (`choices`, `rectanglelabels`, …); `target` is the
    name of the object the question is about, `labels` the allowed answers in their order.

    `targets` are all objects of a question about several; `options` are the labels with their attributes and
    places in a tree; `multiple` says that several answers may be given at once; `per_region` that the
    question is asked of every drawn region, `per_item` of every item of a list; all `conditions` must hold
    for it to be shown; `dynamic` names the field of the task's data, or the address, that further labels
    come from; `limits` are the tool's own attributes that bound an answer (`min`, `maxrating`, `format`, …);
    `repeats` is the part of the names that stands for a number, where the question is asked repeatedly.
    """

    name: str
    kind: str
    target: str
    labels: tuple[str, ...] = ()
    required: bool = False
    targets: tuple[str, ...] = ()
    options: tuple[Label, ...] = ()
    multiple: bool = False
    per_region: bool = False
    per_item: bool = False
    conditions: tuple[Condition, ...] = ()
    dynamic: str = ""
    limits: dict[str, str] = {}
    repeats: str = ""

    def path_to(self, steps: Sequence[str]) -> tuple[str, ...] | None:
        """The path of an option in a tree, each step given by its alias or its value; None if there is none.

        A tool may write either. Where a step is the alias of one option and the value of another, it is the
        alias.
        """
        found: tuple[str, ...] = ()
        for step in steps:
            if (found, step) not in self.tree:
                return None
            found = self.tree[found, step]
        return found

    @cached_property
    def tree(self) -> dict[tuple[tuple[str, ...], str], tuple[str, ...]]:
        """The path of each option, from the path above it and its name there."""
        values: dict[tuple[tuple[str, ...], str], set[tuple[str, ...]]] = {}
        for option in self.options:
            if value := option.attributes.get("value"):
                values.setdefault((option.path[:-1], value), set()).add(option.path)
        # Of two options with the same value only their aliases say which one is meant.
        by_value = {name: next(iter(paths)) for name, paths in values.items() if len(paths) == 1}
        return by_value | {(option.path[:-1], option.path[-1]): option.path for option in self.options}

    def repeated(self, name: str) -> Control | None:
        """This control as it is called in a result, if `name` is one of its repetitions."""
        number = _number(self.name, self.repeats, name)
        if number is None:
            return None
        targets = tuple(target.replace(self.repeats, number) for target in self.targets)
        return self.model_copy(update={"name": name, "target": targets[0], "targets": targets})


def _number(pattern: str, flag: str, name: str) -> str | None:
    """The number that `name` has where `pattern` has the flag."""
    before, found, after = pattern.partition(flag) if flag else (pattern, "", "")
    number = name.removeprefix(before).removesuffix(after)
    return number if found and name == before + number + after and number.isdecimal() else None


class Ontology(_Record):
    """All questions and their labels. `source` is the tool's own configuration, word for word.

    `objects` maps the name of each object to (its type, the field of the task's data it shows);
    `object_attributes` to the tool's own attributes of it, by their names in lower case.
    """

    controls: tuple[Control, ...]
    objects: dict[str, tuple[str, str]] = {}
    object_attributes: dict[str, dict[str, str]] = {}
    source: str = ""

    @property
    def version(self) -> str:
        """A hash of what can be answered: equal ontologies, equal version, whatever the layout and looks."""
        looks = {"options": {"__all__": {"attributes"}}}
        controls = sorted(self.controls, key=lambda c: c.name)
        return digest([[control.model_dump(exclude=looks) for control in controls], self.objects])

    def control(self, name: str) -> Control | None:
        """The control of that name, if there is one; of one that is repeated, the repetition."""
        exact = next((c for c in self.controls if c.name == name), None)
        return exact or next((one for c in self.controls if (one := c.repeated(name))), None)

    def object(self, name: str) -> tuple[str, str] | None:
        """The type of the object of that name, and the field of the data it shows; also of one repeated."""
        flags = {c.repeats for c in self.controls}
        patterns = (p for p in self.objects for flag in flags if _number(p, flag, name))
        return self.objects.get(name) or next((self.objects[p] for p in patterns), None)
