"""From pulled labels, or a file of labels, to the two tables that the quality room reads.

A row that cannot be read is rejected with its reason, whole: an annotation of which a part was dropped would
look as if its annotator had overlooked something.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from connector.errors import BadRecord, Reject, UsageError
from connector.io.reading import DECIMAL_COMMA, Read, Written
from connector.io.tables import is_unicode
from connector.model import PLAN_MODEL, Control, Ontology, Role, dump_json
from connector.quality.answers import ABSENT, days, together
from connector.quality.interval import Ints
from connector.quality.kinds import CHOICE, DATE, DRAWN, NUMBER, ON_A_SCALE, RATING, TAXONOMY, values_of
from connector.quality.similarity import decode_brush, from_pixels
from connector.quality.table import ANSWERS, REGIONS, UNCOUNTED, UNDIRECTED, Labels, Scale
from connector.regions import (
    Answer,
    Area,
    Bitmask,
    Choices,
    Date,
    Drawn,
    Gathered,
    Kind,
    Mask,
    Region,
    Relation,
    Taxonomy,
    check,
    gather,
    in_its_labels,
    kind_of,
    parse_result,
)
from connector.regions.base import RELATIONS
from connector.regions.scales import scale_of
from connector.store.label_store import PREDICTION, TASK, Store, Version

GOLD = "gold"
"""The annotator of a gold file that names none."""

RELATED = "related"
"""What a relation without a label says."""


@dataclass(frozen=True, slots=True)
class NotCounted:
    """Answers to a control that no number counts: `count` of `of`, and why."""

    control: str
    count: int
    of: int
    why: str

    @property
    def share(self) -> str:
        """How many, and why, beside the numbers of the control."""
        return f"{self.count} of {self.of} answers not counted: {self.why}"

    def __str__(self) -> str:
        return f"{self.control}: {self.share}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Labels, where they came from, and what could not be read of them.

    Attributes:
        source: what was read: the file and its SHA-256, or the store and its version.
        tasks: task, key, data (JSON), overlap; empty for a file.
        unmeasured: the controls whose kind is not measured yet, with that kind.
        answered: of each control, how many annotations answer it, those that cannot be counted too.
        corrected: of each annotation that a plan has changed since, the result that its annotator gave.
        read: what was found in the file, if it was one.
        written: how labels were written there.
    """

    labels: Labels
    source: Mapping[str, Any]
    rejects: list[Reject]
    tasks: pl.DataFrame
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    corrected: Mapping[str, str] = field(default_factory=dict)
    read: Read | None = None
    written: Written = field(default_factory=Written)
    answered: Mapping[str, int] = field(default_factory=dict)

    @property
    def not_counted(self) -> list[NotCounted]:
        """The answers that no number counts, by control and reason."""
        rows = self.labels.uncounted.drop_nulls().group_by("control", "why").len().sort("control", "why")
        return [
            NotCounted(control, n, self.answered.get(control, n), why) for control, why, n in rows.iter_rows()
        ]


TASKS = pl.Schema({"task": pl.String, "key": pl.String, "data": pl.String, "overlap": pl.Int64})


def read_store(
    store: Store,
    roles: Mapping[str, Role],
    version: Version | None = None,
    between: tuple[str, str] | None = None,
) -> Loaded:
    """The store's current labels. Skipped tasks are no answers.

    A prediction is an answer of its model, in the role of one. What a plan of corrections wrote is nobody's
    answer: of an annotation that it changed, what the annotator had said is read; one that it made has the
    role of code. So a consensus that was written back never judges those it came from.

    Args:
        roles: of annotators who are no ordinary persons.
        version: as of that version of the store; the newest by default.
        between: only tasks from this one to that one, both included, in the order of text.

    Raises:
        UsageError: if nothing was pulled yet, or there is no such version.
    """
    number = newest(store) if version is None else store.number_of(version)
    version = number if version is None else version
    tasks = store.current(TASK, version, between).select("task", "key", data="content", overlap="overlap")
    data = dict(tasks.select("task", "data").iter_rows())
    tables = Tables(store.ontology(version))
    corrected = {}
    for row in store.answers(version, between).iter_rows(named=True):
        if row["own"] and row["plan"]:
            corrected[row["id"]] = row["content"]
        if row["cancelled"]:
            continue
        role, gold = standing_of(row, roles) if row["own"] else (Role.CODE, False)
        where = f"annotation {row['id']} of task {row['task']}"
        head = (row["task"], row["id"], row["annotator"], role.value, gold, row["seconds"], row["created_at"])
        tables.add(head, where, json.loads(row["content"]), partial(json.loads, data.get(row["task"], "{}")))
    for row in store.current(PREDICTION, version, between).iter_rows(named=True):
        where = f"prediction {row['id']} of task {row['task']}"
        role = Role.CODE if row["annotator"].startswith(PLAN_MODEL) else Role.MODEL
        id = f"prediction/{row['id']}"  # annotations have the same numbers
        head = (row["task"], id, row["annotator"], role.value, False, None, row["created_at"])
        tables.add(head, where, json.loads(row["content"]), partial(json.loads, data.get(row["task"], "{}")))
    loaded = tables.done({"store": store.url, "version": number}, tasks)
    return replace(loaded, corrected=corrected)


def standing_of(row: Mapping[str, Any], roles: Mapping[str, Role]) -> tuple[Role, bool]:
    """The role in which an annotation of the store was given, and whether it is gold.

    Marking an answer as ground truth makes it gold, and changes nothing else about it: it stays the answer of
    its annotator, and a vote.
    """
    role = roles.get(row["annotator"], Role.PERSON)
    return role, role is Role.GOLD or bool(row["ground_truth"])


def read_answers(
    answers: Sequence[Mapping[str, Any]],
    data: Mapping[str, str],
    roles: Mapping[str, Role],
    ontology: Ontology | None,
) -> Loaded:
    """Some annotations, which may be older versions than the store's current ones.

    Args:
        answers: rows of the store. One of a task and an id is one annotation.
        data: of the tasks, by their names in `answers`: JSON.
        roles: of annotators who are no ordinary persons.
        ontology: what it does not allow is rejected.
    """
    tables = Tables(ontology)
    for row in answers:
        role, gold = standing_of(row, roles)
        where, id = f"annotation {row['id']} of task {row['task']}", f"{row['task']}/{row['id']}"
        head = (row["task"], id, row["annotator"], role.value, gold, row["seconds"], row["created_at"])
        tables.add(head, where, json.loads(row["content"]), partial(json.loads, data.get(row["task"], "{}")))
    return tables.done({}, pl.DataFrame(schema=TASKS))


class EmptyStore(UsageError):
    """Nothing was pulled yet."""


def newest(store: Store) -> int:
    """The store's version.

    Raises:
        EmptyStore: if nothing was pulled yet.
    """
    version = store.version
    if version is None:
        raise EmptyStore(f"the label store {store.url} is empty", "run `connector pull`")
    return version


def source_of(path: Path) -> dict[str, str]:
    """How an answer names a file that was read: its name, and the SHA-256 of its bytes."""
    with path.open("rb") as file:
        return {"file": str(path), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def with_gold(people: Loaded, gold: Loaded) -> Loaded:
    """Labels whose gold answers are those of another source, and no others.

    A gold answer names its task by the item's key or by the tool's id; where both fit, by the key.
    """
    answered = people.labels.answers.select("task").unique()
    known = pl.concat([people.tasks.select("task", "key"), answered], how="diagonal")
    return add_gold(people, named(gold, known))


def named(gold: Loaded, tasks: pl.DataFrame) -> Loaded:
    """Gold answers by the tool's ids of their tasks; those of no task are rejected.

    Args:
        tasks: task, and key where there is one.
    """
    keyed = tasks.drop_nulls("key")
    ids = {task: task for task in tasks["task"]} | dict(zip(keyed["key"], keyed["task"], strict=True))
    strangers = [task for task in gold.labels.answers["task"].unique().sort() if task not in ids]
    why = "no task of the labels has this id or key"
    answers, regions = (
        frame.filter(~pl.col("task").is_in(strangers)).with_columns(
            task=pl.col("task").replace_strict(ids, default=None, return_dtype=pl.String),
            annotation=pl.format("gold/{}", "annotation"),
        )
        for frame in (gold.labels.answers, gold.labels.regions)
    )
    uncounted = gold.labels.uncounted.with_columns(annotation=pl.format("gold/{}", "annotation"))
    uncounted = uncounted.join(answers, on="annotation", how="semi")
    labels = replace(gold.labels, answers=answers, regions=regions, uncounted=uncounted)
    rejects = [*gold.rejects, *(Reject(f"gold task {task}", why) for task in strangers)]
    return replace(gold, labels=labels, rejects=rejects)


def add_gold(people: Loaded, gold: Loaded) -> Loaded:
    """Labels with the gold answers that `named` gave, in the place of their own.

    Answers that an annotator gave and that are marked as ground truth stay answers.
    """
    others = people.labels.answers.filter(pl.col("role") != Role.GOLD).with_columns(gold=pl.lit(value=False))
    regions, uncounted = (
        pl.concat([mine.join(others, on="annotation", how="semi"), theirs])
        for mine, theirs in (
            (people.labels.regions, gold.labels.regions),
            (people.labels.uncounted, gold.labels.uncounted),
        )
    )
    labels = Labels(
        pl.concat([others, gold.labels.answers]),
        regions,
        {**gold.labels.controls, **people.labels.controls},
        uncounted,
        {**gold.labels.scales, **people.labels.scales},
    )
    return replace(
        people,
        labels=labels,
        answered={**people.answered, **count_answers(labels)},
        rejects=[*people.rejects, *gold.rejects],
        source={**people.source, "gold": gold.source},
        unmeasured={**gold.unmeasured, **people.unmeasured},
    )


def count_answers(labels: Labels) -> dict[str, int]:
    """Of each control that is measured, how many annotations answer it, those that cannot be counted too."""
    given = labels.regions.filter(pl.col("label").ne_missing(ABSENT))  # else it was left empty
    answers = (rows.select("annotation", "control").drop_nulls() for rows in (given, labels.uncounted))
    found = pl.concat(answers).unique().group_by("control").len()
    return {control: n for control, n in found.iter_rows() if control in labels.controls}


def declared(
    labels: Labels,
    tolerances: Mapping[str, float],
    levels: Mapping[str, str],
    orders: Mapping[str, Sequence[str]],
) -> Labels:
    """Labels with what is declared about them besides their ontology.

    Args:
        tolerances, levels, orders: by control; see `Scale`. "" is every control that such a level, or such
            an order, can be of: choices, ratings, numbers and dates, or choices alone. An order without a
            level is an ordinal one.

    Raises:
        UsageError: if a name is no control, or a word has no place in an order at a level that needs one.
    """
    for name in {*tolerances, *levels, *orders} - {"", *labels.controls}:
        known = ", ".join(map(repr, sorted(labels.controls)))
        raise UsageError(
            f"there is no control {name!r}", f"name one of {known or 'those that were answered'}"
        )
    scales = dict(labels.scales)
    for name, kind in labels.controls.items():
        every = "" if kind in (CHOICE, RATING, NUMBER, DATE) else name
        order = orders.get(name, orders.get("" if kind == CHOICE else name))
        level = levels.get(name, levels.get(every, "ordinal" if order else None))
        scale = scales.get(name, Scale())
        scale = replace(scale, level=level or scale.level, tolerance=tolerances.get(name, scale.tolerance))
        scale = replace(scale, order=tuple(order)) if order else scale
        _check_scale(labels, name, kind, scale)
        scales[name] = scale
    return replace(labels, scales=scales)


def _check_scale(labels: Labels, name: str, kind: str, scale: Scale) -> None:
    if scale.level not in ON_A_SCALE:
        return
    if kind not in (CHOICE, RATING, NUMBER, DATE):
        raise UsageError(
            f"the answers to {name!r} ({kind}) are not {scale.level}",
            f"leave --level {name}={scale.level} out",
        )
    if scale.order and scale.level == "ratio":
        raise UsageError("an order has no zero point", f"give --level {name}=ordinal or {name}=interval")
    given = labels.regions.filter(pl.col("control") == name, pl.col("label") != ABSENT)
    said = given["label"].unique().sort().to_list()
    try:
        values_of(kind, said, scale)
    except ValueError as error:
        if any(re.match(DECIMAL_COMMA, text) for text in said):
            hint = "give --decimal , if the file has decimal commas"
        else:
            hint = (
                f"give the whole order, lowest first, as in --order {name}=low,medium,high; or a level for "
                "other controls only, as in --level CONTROL=LEVEL"
            )
        raise UsageError(f"control {name!r} has no {scale.level} level: {error}", hint) from error


def may_be_empty(ontology: Ontology) -> dict[str, Kind]:
    """The controls whose empty answer says something, and their kinds.

    They are shown with every task, about all of it, and the tool lets them be left empty: controls that draw,
    and choices and trees that are not required. An empty answer says that nothing is there, or that no label
    fits. Nothing is known of a control that is shown only under some condition, or for each region or each
    item of a list; nor of a number, rating, date, text, comparison or ranking that was not given.
    """
    kinds = ((control, kind_of(control, ontology)) for control in ontology.controls)
    return {
        control.name: kind
        for control, kind in kinds
        if not (control.required or control.conditions or control.per_region or control.per_item)
        and not control.repeats
        and (kind in DRAWN or (kind in (CHOICE, TAXONOMY) and len(control.targets) <= 1))
    }


_Head = tuple[str, str, str, str, bool, float | None, datetime | None]


class Tables:
    """Collects annotations with results in Label Studio's form."""

    def __init__(self, ontology: Ontology | None) -> None:
        self.ontology = ontology
        self.answers: list[_Head] = []
        self.regions: list[tuple[Any, ...]] = []
        self.controls: dict[str, str] = {}
        self.unmeasured: dict[str, str] = {}
        self.rejects: list[Reject] = []
        self.uncounted: list[tuple[str, str, str]] = []
        self.answered: Counter[str] = Counter()
        self.may_be_empty = may_be_empty(ontology) if ontology else {}

    def add(self, head: _Head, where: str, result: object, data: Callable[[], Mapping[str, Any]]) -> None:
        """Take in one annotation. What the ontology does not allow is rejected control by control.

        An annotation that cannot be read is rejected whole.

        Args:
            data: gives the task's.
        """
        task, annotation, _, role = head[:4]
        controls = dict(self.controls)
        try:
            given = parse_result(result)
            refused = self._refused(given, data)
            counted = (one for one in given if _control(one) not in refused)
            if self.ontology is not None:
                counted = (in_its_labels(one, self.ontology) for one in counted)
            gathered = gather(counted)
            rows = [(task, annotation, *row) for row in self._rows(gathered, controls)]
            # An expert may answer one question of many, or find nothing at all; a model predicts a part.
            if role == Role.PERSON or (role in (Role.GOLD, Role.REVIEWER) and not given):
                rows += [(task, annotation, *row) for row in self._empty(given)]
        except BadRecord as error:
            self.rejects.append(Reject(where, error.what))
            return
        self.controls = controls
        self.answers.append(head)
        self.regions += rows
        self.answered.update({_control(one) for one in given})
        for control, fault in refused.items():
            self.rejects.append(Reject(where, fault.what))
            self.uncounted.append((annotation, control, fault.why))

    def _refused(
        self, given: Sequence[Region], data: Callable[[], Mapping[str, Any]]
    ) -> dict[str, BadRecord]:
        """The controls whose answers cannot be counted, and why.

        What the ontology does not allow, and whatever is about a region that is not counted for that reason.
        """
        if self.ontology is None:
            return {}
        of_task = data() if any(isinstance(one, Drawn) for one in given) else None
        refused: dict[str, BadRecord] = {}
        for one in given:
            try:
                check(one, self.ontology, of_task)
            except BadRecord as error:
                refused.setdefault(_control(one), error)
        while refused:
            drawn = [one for one in given if isinstance(one, Drawn)]
            kept = {str(one.id) for one in drawn if _control(one) not in refused}
            gone = {str(one.id): one for one in drawn if _control(one) in refused and one.id is not None}
            ends = (
                (one, end)
                for one in given
                for end in (one.ends if isinstance(one, Relation) else (str(one.id),))
            )
            more = {
                _control(one): one.refuse(
                    f"it is about a region of control {gone[end].control!r}, which is not counted"
                )
                for one, end in ends
                if end in gone and end not in kept and _control(one) not in refused
            }
            if not more:
                break
            refused |= more
        return refused

    def _rows(self, result: Gathered, controls: dict[str, str]) -> Iterator[tuple[Any, ...]]:
        """The rows of one result, in the columns of `REGIONS` after the annotation."""
        for number, area in enumerate(result.areas):
            id, shape = area_id(area, number), area.shape
            width, height = shape.picture or (None, None)
            label = together(map(_label, area.labels))
            _same_kind(controls, shape)
            yield shape.control, id, None, place_of(shape), label, _shape(shape), width, height
            for answer in area.answers:
                yield from self._answered(answer, id, controls)
        for answer in result.answers:
            yield from self._answered(answer, None, controls)
        for relation in result.relations:
            start, end = relation.ends
            controls[RELATIONS] = Kind.RELATION
            label = together(map(_label, relation.labels))
            place = UNDIRECTED if relation.direction == "bi" else None
            yield RELATIONS, end, start, place, label or RELATED, None, None, None
        for other in result.others:
            self.unmeasured[other.control or other.type] = other.type

    def _empty(self, given: Sequence[Region]) -> Iterator[tuple[Any, ...]]:
        """The rows of questions that were left empty. Of what is drawn, the unit table says so by itself."""
        said = set(map(_control, given))
        for name, kind in self.may_be_empty.items():
            if kind not in DRAWN and name not in said:
                yield name, name, None, None, ABSENT, None, None, None

    def _answered(
        self, answer: Answer, parent: str | None, controls: dict[str, str]
    ) -> Iterator[tuple[Any, ...]]:
        _same_kind(controls, answer)
        id, place = str(answer.control if answer.id is None else answer.id), place_of(answer)
        control = self.ontology.control(answer.control) if self.ontology else None
        for label in answers_as_text(answer, control):
            yield answer.control, id, parent, place, _label(label), None, None, None

    def done(self, source: Mapping[str, Any], tasks: pl.DataFrame) -> Loaded:
        if self.answers:
            self.controls = {**self.may_be_empty, **self.controls}
        answers = pl.DataFrame(self.answers, schema=ANSWERS, orient="row")
        regions = pl.DataFrame(self.regions, schema=REGIONS, orient="row")
        uncounted = pl.DataFrame(self.uncounted, schema=UNCOUNTED, orient="row")
        labels = Labels(answers, regions, self.controls, uncounted, self._scales())
        return Loaded(labels, source, self.rejects, tasks, self.unmeasured, answered=dict(self.answered))

    def _scales(self) -> dict[str, Scale]:
        """What the ontology declares about the answers to each control."""
        if self.ontology is None:
            return {}
        named = ((name, self.ontology.control(name)) for name in self.controls)
        return {
            name: scale_of(control, kind_of(control, self.ontology)) for name, control in named if control
        }


def _control(region: Region) -> str:
    return RELATIONS if isinstance(region, Relation) else region.control


def area_id(area: Area, number: int) -> str:
    """The name of a drawn thing in its result; its place where it has no id."""
    return area.id or f"#{number}"


def answers_as_text(answer: Answer, control: Control | None = None) -> list[str]:
    """What was answered, as the labels of its rows: of a choice or a tree each one, of all else one.

    Raises:
        BadRecord: if a date is written in a form that nobody told us.
    """
    if isinstance(answer, Choices | Taxonomy):
        return list(answer.labels)
    said = answer.answer(control)
    if isinstance(answer, Date):
        try:
            days([str(said)])
        except ValueError:
            raise answer.refuse(f"the date {said!r} is not ISO 8601; the ontology tells its form") from None
    if isinstance(said, float):
        return [f"{said:.15g}"]
    return [said if isinstance(said, str) else dump_json(said)]


def _same_kind(controls: dict[str, str], region: Drawn | Answer) -> None:
    known = controls.setdefault(region.control, region.kind)
    if known != region.kind:
        raise region.refuse(f"the control is a {known} elsewhere, and here a {region.kind}")


def place_of(region: Drawn | Answer) -> str | None:
    """What it is about, as far as one task may show several things."""
    return region.target if region.item is None else f"{region.target}/{region.item}"


def _shape(region: Drawn) -> list[float]:
    """Where it is, as `quality.kinds` tells."""
    if isinstance(region, Mask):
        width, height = map(int, region.picture or (0, 0))
        return _runs_of(region, lambda: decode_brush(region.rle, width, height))
    if isinstance(region, Bitmask):
        return _runs_of(region, lambda: from_pixels(_alpha(region.png)))
    return region.geometry()


def _runs_of(region: Drawn, decode: Callable[[], Ints]) -> list[float]:
    try:
        runs: list[float] = decode().ravel().astype(float).tolist()
    except (ValueError, OSError) as error:
        raise region.refuse(f"its mask cannot be read: {error}") from error
    return runs


def _alpha(png: str) -> npt.NDArray[np.uint8]:
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        return np.asarray(picture.convert("RGBA"))[:, :, 3]


def _label(text: str) -> str:
    if text == ABSENT:
        raise BadRecord(f"the label {ABSENT} is kept for what nobody drew; rename it")
    if not is_unicode(text):
        raise BadRecord(f"the label {text!r} is no Unicode text")
    return text
