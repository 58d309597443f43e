"""Corrections: planned, compared with what the tool holds now, journaled before they are sent, undone.

A plan can be read and edited: one JSON line a correction, after one that says what it was made from. Applying
it twice changes nothing the second time; applying it after an interruption first looks what had arrived.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from connector.adapters.base import LabelingTool
from connector.errors import Conflict, Reject, UsageError
from connector.files import write_atomic
from connector.journal import Entry, Journal, State
from connector.labels import RELATED, RELATIONS, Loaded, area_id
from connector.model import Annotation, Role, Task, dump_json
from connector.quality.answers import ABSENT, parted
from connector.quality.kinds import ANSWERED, BOX, CHOICE, DRAWN, KEYPOINT, RELATION
from connector.quality.units import SHAPE, UNIT
from connector.regions import gather, parse_result

ADD, REPLACE = "add", "replace"
POLICIES = (ADD, REPLACE)

CONFIDENT = 0.6
"""A consensus is written back from this confidence on: two of three agree, one of two does not."""

Progress = Callable[[int], None]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Change(_Line):
    """What people said of one unit, and what shall stand there."""

    control: str
    unit: str
    now: str
    then: str


class Correction(_Line):
    """One annotation to be written.

    Attributes:
        action: `add` a new annotation, marked ground truth, in the name of whoever applies the plan; or
            `replace` an annotator's own, in that name.
        annotation: the one to be replaced.
        expect: the revision that the tool must still hold: of the annotation to be replaced, or of all
            annotations of the task.
        result: the whole result to be written.
        confidence: of the consensus; none when an expert said so.
    """

    task: str
    key: str
    action: Literal["add", "replace"]
    annotator: str = ""
    annotation: str | None = None
    expect: str
    result: str
    why: str
    confidence: float | None = None
    changes: tuple[Change, ...] = ()


class Plan(_Line):
    """Corrections, and what they were made from."""

    project: str
    source: Mapping[str, Any]
    corrections: tuple[Correction, ...] = ()

    @property
    def run(self) -> str:
        """The plan's name: the same content, the same name."""
        return hashlib.blake2b(self.to_lines().encode(), digest_size=5).hexdigest()

    def to_lines(self) -> str:
        head = {"project": self.project, "source": self.source}
        return "".join(dump_json(line) + "\n" for line in (head, *(c.model_dump() for c in self.corrections)))

    def save(self, path: Path) -> None:
        """Write the plan, whole or not at all."""
        write_atomic(path, self.to_lines().encode())

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan.

        Raises:
            UsageError: naming the line that is no correction: a plan is applied whole or not at all.
        """
        if not path.is_file():
            raise UsageError(f"there is no plan {path}", "make one with `connector correct plan`")
        lines: list[Plan | Correction] = []
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                lines.append(Correction.model_validate_json(text) if lines else cls.model_validate_json(text))
            except ValidationError as error:
                wrong = error.errors()[0]
                raise UsageError(
                    f"{path}:{number}: {'.'.join(map(str, wrong['loc']))} {wrong['msg']}",
                    "mend that line, or plan again",
                ) from error
        if not lines or not isinstance(lines[0], Plan):
            raise UsageError(f"{path} is empty", "make a plan with `connector correct plan`")
        return lines[0].model_copy(update={"corrections": tuple(lines[1:])})


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and the tasks that people differ on but that nobody can decide yet."""

    plan: Plan
    undecided: list[Reject]


def plan(
    project: str,
    loaded: Loaded,
    units: pl.DataFrame,
    consensus: pl.DataFrame,
    tasks: Sequence[Task],
    policy: str = ADD,
    confident: float = CONFIDENT,
) -> Planned:
    """What should be corrected: where people differ from what an expert, or else the consensus, says.

    Tasks with gold answers are left alone. A consensus with a tie, or with less confidence than asked for in
    any of its units, decides nothing: it is listed for review. Answers that are more or less alike, such as
    numbers and texts, only an expert corrects: there most differ a little from the one in the middle.

    Args:
        units: schema `UNITS`, of `loaded`.
        consensus: `Consensus.units` of the same.
        tasks: as the store holds them, with their annotations.
        policy: `add` or `replace`; see `Correction`.
        confident: the least confidence of a consensus that is written back.
    """
    if policy not in POLICIES:
        raise UsageError(f"there is no policy {policy!r}", f"use one of {', '.join(POLICIES)}")
    truth = _truth(units, consensus, confident)
    people = units.filter(pl.col("role") == Role.PERSON)
    differing = people.join(truth, on=UNIT, how="left").filter(
        pl.col("label") != pl.col("then").fill_null(ABSENT)
    )
    gold = units.filter(pl.col("role") == Role.GOLD)
    wrong = differing.join(gold, on="task", how="anti").select("task").unique()
    undecided = set(truth.filter(~pl.col("decided")).join(wrong, on="task", how="semi")["task"])
    of_task = [_by_task(frame, wrong) for frame in (truth, people, units)]
    made: list[Correction] = []
    for task in sorted(tasks, key=lambda t: t.id):
        if task.id in of_task[0] and task.id not in undecided:
            right, said, everything = (frames[task.id] for frames in of_task)
            result = _regions(task, right, everything)
            made += _corrections(task, right, said, result, policy)
    why = "the answers do not decide it: send it to review"
    return Planned(
        Plan(project=project, source=loaded.source, corrections=tuple(made)),
        [Reject(f"task {task}", why) for task in sorted(undecided)],
    )


def _by_task(frame: pl.DataFrame, tasks: pl.DataFrame) -> dict[str, pl.DataFrame]:
    parts = frame.join(tasks, on="task", how="semi").partition_by("task", as_dict=True, maintain_order=True)
    return {str(task): part for (task,), part in parts.items()}


def _truth(units: pl.DataFrame, consensus: pl.DataFrame, confident: float) -> pl.DataFrame:
    """What shall stand in each unit: an expert's answer where there is one in the task, else the consensus.

    Returns:
        `UNIT`, kind, then (label), confidence (null of an expert), decided, and the shape.
    """
    expert = units.filter(pl.col("role") == Role.REVIEWER)
    said = (
        expert.sort([*UNIT, "annotator", "annotation"])
        .group_by(UNIT, maintain_order=True)
        .agg(
            pl.col("label").first().alias("then"),
            (pl.col("label").n_unique() == 1).alias("decided"),
            *(pl.col(name).first() for name in SHAPE),
        )
        .with_columns(confidence=pl.lit(None, pl.Float64))
    )
    merged = consensus.join(expert.select("task", "control").unique(), on=["task", "control"], how="anti")
    agreed = merged.select(
        *UNIT,
        pl.col("label").alias("then"),
        "confidence",
        *SHAPE,
        decided=~pl.col("tie") & (pl.col("confidence") >= confident),
    )
    kinds = units.select("control", "kind").unique()
    both = pl.concat([said.select(agreed.columns), agreed]).join(kinds, on="control")
    return both.filter(pl.col("confidence").is_null() | ~pl.col("kind").is_in(_MORE_OR_LESS)).sort(UNIT)


_MORE_OR_LESS = [kind for kind, how in ANSWERED.items() if how.level != "nominal"]


def _corrections(
    task: Task,
    right: pl.DataFrame,
    people: pl.DataFrame,
    regions: list[Mapping[str, Any]],
    policy: str,
) -> Iterator[Correction]:
    confidence = right["confidence"].min()
    common = {
        "task": task.id,
        "key": task.key,
        "why": "an expert answered otherwise" if confidence is None else "most others answered otherwise",
        "confidence": confidence,
    }
    if policy == ADD:
        yield Correction.model_validate(
            {
                **common,
                "action": ADD,
                "expect": task.revision,
                "result": dump_json(regions),
                "changes": _changes(people, right),
            }
        )
        return
    measured = set(right["control"])
    for annotation in sorted(task.annotations, key=lambda a: str(a.id)):
        mine = people.filter(pl.col("annotation") == annotation.id)
        changes = _changes(mine, right) if len(mine) else []
        if changes:
            kept = [raw for raw in json.loads(annotation.result) if _control(raw) not in measured]
            yield Correction.model_validate(
                {
                    **common,
                    "action": REPLACE,
                    "annotator": annotation.annotator,
                    "annotation": annotation.id,
                    "expect": annotation.revision,
                    "result": dump_json([*kept, *regions]),
                    "changes": changes,
                }
            )


def _control(raw: Mapping[str, Any]) -> str:
    return RELATIONS if raw.get("type") == "relation" else str(raw.get("from_name"))


def _changes(answers: pl.DataFrame, right: pl.DataFrame) -> list[dict[str, str]]:
    """Every unit in which one of these answers is not what shall stand there."""
    told = answers.group_by(UNIT).agg(now=pl.col("label").sort().str.join(", "), all=pl.col("label").unique())
    both = told.join(right, on=UNIT, how="left").with_columns(pl.col("then").fill_null(ABSENT)).sort(UNIT)
    differ = both.filter((pl.col("all").list.len() > 1) | (pl.col("all").list.first() != pl.col("then")))
    return differ.select("control", "unit", "now", "then").to_dicts()


PLACES: Mapping[str, Sequence[str]] = {
    BOX: ("x", "y", "width", "height", "rotation"),
    KEYPOINT: ("x", "y"),
}
"""Where a merged shape stands in a value. Of other kinds the most typical person's shape is taken."""


def _regions(task: Task, right: pl.DataFrame, units: pl.DataFrame) -> list[Mapping[str, Any]]:
    """The result that says what is right, each region made from one that somebody gave."""
    given = _given(task)
    made: dict[str, list[dict[str, Any]]] = {}
    there = right.filter(pl.col("then") != ABSENT).iter_rows(named=True)
    for row in sorted(there, key=lambda row: row["kind"] not in DRAWN):
        if "/" in row["unit"] and row["unit"] not in made:
            continue  # about a thing that shall not be there
        here = units.filter(*(pl.col(name) == row[name] for name in UNIT), pl.col("label") != ABSENT)
        same = here.filter(pl.col("label") == row["then"])
        voted = {}
        if not len(same) and row["kind"] == CHOICE:  # labels that most gave, and nobody just these
            same, voted = here, {"choices": parted(row["then"])}
        if not len(same):
            continue
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
    ids = {path: hashlib.blake2b(f"{task.id}/{path}".encode(), digest_size=5).hexdigest() for path in made}
    answers = [{**raw, "id": ids[path]} for path, raws in made.items() for raw in _together(raws)]
    return [*answers, *_links(right, ids)]


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


def _given(task: Task) -> dict[tuple[str, str, str], list[Mapping[str, Any]]]:
    """The regions of all annotations, by annotation, control and drawn thing; none for the whole task."""
    given: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for annotation in task.annotations:
        id = str(annotation.id)
        result = gather(parse_result(json.loads(annotation.result)))
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


@dataclass
class Applied:
    """What became of a plan's corrections, or of their undoing."""

    run: str
    written: int = 0
    already: int = 0
    conflicts: list[Reject] = field(default_factory=list)


def apply(
    tool: LabelingTool,
    plan: Plan,
    project: str,
    journal: Journal,
    now: Callable[[], datetime],
    progress: Progress = lambda _: None,
) -> Applied:
    """Write a plan's corrections, each only if the tool still holds what the plan expects.

    Somebody's edit since is a conflict: that correction is left out and reported. Every other failure stops
    the run; the same command goes on from there.

    Raises:
        UsageError: if the plan is of another project.
    """
    if plan.project != project:
        raise UsageError(
            f"the plan was made for {plan.project}, and this is {project}",
            "plan again with this configuration",
        )
    done = Applied(plan.run)
    me = tool.whoami().name
    journal.open_run(plan.run, plan.project, now())
    known = {entry.number: entry for entry in journal.entries(plan.run)}
    for number, correction in enumerate(plan.corrections):
        wanted = _wanted(correction, me)
        entry = known.get(number)
        try:
            if entry and entry.state is State.WRITTEN:
                done.already += 1
            elif entry and entry.state is State.SENT and (found := _landed(tool, wanted)):
                journal.settle(plan.run, number, State.WRITTEN, found, now())
                done.already += 1
            else:
                before = _expected(tool, correction)
                journal.intend(plan.run, number, correction.action, before, wanted, now())
                stored = tool.write_annotation(wanted, None if wanted.id is None else correction.expect)
                journal.settle(plan.run, number, State.WRITTEN, stored, now())
                done.written += 1
        except Conflict as error:
            journal.conflict(plan.run, number, correction.action, wanted, error.what, now())
            done.conflicts.append(Reject(f"task {correction.task}", error.what))
        progress(1)
    return done


def _wanted(correction: Correction, me: str) -> Annotation:
    add = correction.action == ADD
    return Annotation(
        id=correction.annotation,
        task_id=correction.task,
        annotator=me if add else correction.annotator,
        result=dump_json(json.loads(correction.result)),
        ground_truth=add,
    )


def _expected(tool: LabelingTool, correction: Correction) -> list[Annotation]:
    """What the correction changes, as the tool holds it: the annotation, or siblings that lose ground truth.

    Raises:
        Conflict: if the tool holds something else than was planned with.
    """
    if correction.annotation is None:
        task = tool.read_task(correction.task)
        if task.revision != correction.expect:
            raise Conflict(f"the answers to task {task.id} were changed since they were pulled", PULL)
        return [a for a in task.annotations if a.ground_truth]
    found = tool.read_annotation(correction.annotation)
    if found.revision != correction.expect:
        raise Conflict(f"annotation {found.id} was changed since it was pulled", PULL)
    return [found]


PULL = "run `connector pull`, then plan again"


def _landed(tool: LabelingTool, wanted: Annotation) -> Annotation | None:
    """What we had sent before we were interrupted, if it arrived."""
    for found in tool.read_task(wanted.task_id).annotations:
        if found.content == wanted.content and wanted.id in (None, found.id):
            return found
    return None


def undo(
    tool: LabelingTool,
    run: str,
    project: str,
    journal: Journal,
    now: Callable[[], datetime],
    progress: Progress = lambda _: None,
) -> Applied:
    """Take back a run, the last correction first, each only if it is still as we left it.

    Raises:
        UsageError: if the journal knows no such run, or it was of another project.
    """
    if journal.project(run) != project:
        raise UsageError(f"the journal knows no run {run} of {project}", "see `connector correct log`")
    done = Applied(run)
    for entry in sorted(journal.entries(run), key=lambda e: -e.number):
        try:
            if entry.state is State.UNDONE:
                done.already += 1
            elif after := _ours(tool, entry):
                journal.settle(run, entry.number, State.UNDOING, after, now())
                _take_back(tool, entry, after)
                journal.settle(run, entry.number, State.UNDONE, after, now())
                done.written += 1
        except Conflict as error:
            done.conflicts.append(Reject(f"task {entry.after.task_id}", error.what))
        progress(1)
    return done


def _ours(tool: LabelingTool, entry: Entry) -> Annotation | None:
    """What we wrote, also where we were interrupted before we knew; None where nothing was written."""
    if entry.state in (State.WRITTEN, State.UNDOING):
        return entry.after
    return _landed(tool, entry.after) if entry.state is State.SENT else None


def _take_back(tool: LabelingTool, entry: Entry, after: Annotation) -> None:
    now = {a.id: a for a in tool.read_task(after.task_id).annotations}
    if entry.action == REPLACE:
        before = entry.before[0]
        if (found := now.get(before.id)) is None or found.content != before.content:
            tool.write_annotation(before, expect=after.revision)
        return
    if after.id in now:
        tool.delete_annotation(str(after.id), expect=after.revision)
    for sibling in entry.before:
        # The tool took the ground truth from this one when ours came; its own time did not move.
        found = now.get(sibling.id)
        if found and found.revision == sibling.model_copy(update={"ground_truth": False}).revision:
            tool.write_annotation(sibling, expect=found.revision)
