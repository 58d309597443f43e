"""A plan: corrections that can be read and edited, one JSON line each, after one that tells their source."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from connector.errors import Reject, UsageError
from connector.io.files import write_atomic
from connector.journal.correction import OWN, WRITING, Action, Correction, Record
from connector.journal.renames import Renames
from connector.model import Annotation, Task, dump_json


class Plan(Record):
    """Corrections, and what they were made from.

    Attributes:
        renames: the labels that the plan renames; earlier answers are read with their new names.
        limited: whether it renames them in its own corrections only, since limits left annotations out.
    """

    project: str
    source: Mapping[str, Any]
    renames: Renames = Field(default_factory=dict)
    limited: bool = False
    corrections: tuple[Correction, ...] = ()

    @property
    def run(self) -> str:
        """The plan's name: the same content, the same name."""
        return hashlib.blake2b(self.to_lines().encode(), digest_size=5).hexdigest()

    def to_lines(self) -> str:
        # What is empty is left out, so that plans made before there was such a field keep their names.
        head: dict[str, Any] = {"project": self.project, "source": self.source}
        head |= {"renames": self.renames, "limited": self.limited} if self.renames else {}
        rows = (
            c.model_dump(mode="json", exclude=None if c.cancelled else {"cancelled"})
            for c in self.corrections
        )
        return "".join(dump_json(line) + "\n" for line in (head, *rows))

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
        # Not `splitlines`: a text may hold other signs that it takes for the end of a line.
        for number, text in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if not text.strip():
                continue
            try:
                lines.append(Correction.model_validate_json(text) if lines else cls.model_validate_json(text))
            except ValidationError as error:
                wrong = error.errors()[0]
                raise UsageError(
                    f"{path}:{number}: {'.'.join(map(str, wrong['loc']))} {wrong['msg']}",
                    "fix that line, or plan again",
                ) from error
        if not lines or not isinstance(lines[0], Plan):
            raise UsageError(f"{path} is empty", "make a plan with `connector correct plan`")
        return lines[0].model_copy(update={"corrections": tuple(lines[1:])})


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a source says of one task, or of one annotation.

    Attributes:
        annotation: the one that is not right; None where it is about the task.
        result: what is right, whole; None where it is unknown.
        cancelled: whether the annotation is a skipped one, and stays skipped.
    """

    task: Task
    why: str
    annotation: Annotation | None = None
    result: Sequence[Mapping[str, Any]] | None = None
    confidence: float | None = None
    changes: Sequence[Mapping[str, Any]] = ()
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Proposed:
    """All that a source says.

    Attributes:
        renames: the labels that all proposals together rename.
        undecided: tasks that people differ on, where nothing decides what is right.
        rejects: what cannot be used, and why.
    """

    proposals: list[Proposal]
    undecided: list[Proposal] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    renames: Renames = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """What of the proposals becomes a plan.

    Attributes:
        min_confidence: leave out what is less sure; what a person said is sure.
        max_changes: at most so many corrections, the surest.
        annotators: only their annotations; empty: those of all annotators.
        per_annotator: at most so many of each annotator's, the surest.
    """

    min_confidence: float = 0.0
    max_changes: int | None = None
    annotators: frozenset[str] = frozenset()
    per_annotator: int | None = None


def plan(
    project: str,
    source: Mapping[str, Any],
    proposed: Proposed,
    action: Action = Action.ADD,
    limits: Limits | None = None,
) -> Plan:
    """Make a plan of what a source says.

    `ask` is for tasks of which it is unknown what is right; everything else is for the others. What the tool
    shows already is not planned again: a task that has its ground truth, a prediction that says the same, a
    task that still waits for an annotator.

    Args:
        project: which project of which tool; a plan is of one.
        source: what the proposals were made from.
        proposed: of tasks, or of annotations, as the action is about one or the other.

    Raises:
        UsageError: for limits by annotator, where the action is about tasks; and where a source does not say
            what the action needs.
    """
    limits = limits or Limits()
    if action not in OWN and (limits.annotators or limits.per_annotator is not None):
        raise UsageError(
            f"{action} is about tasks, and not about one annotator's answers",
            f"leave --annotator and --per-annotator out, or use --policy {', '.join(sorted(OWN))}",
        )
    open_ones = [one for one in proposed.proposals if one.result is None and one.annotation is None]
    proposals = [*proposed.undecided, *open_ones] if action is Action.ASK else proposed.proposals
    for one in proposals:
        _refuse_unfit(one, action)
    made = _once(_correction(one, action) for one in proposals if _is_new(one, action))
    within = tuple(_within(made, limits))
    renames = proposed.renames if action is Action.REPLACE else {}
    limited = bool(renames) and len(within) < len(made)
    return Plan(project=project, source=source, renames=renames, limited=limited, corrections=within)


def _refuse_unfit(one: Proposal, action: Action) -> None:
    if action in WRITING and one.result is None:
        raise UsageError(
            f"to {action}, the right answer to task {one.task.id} must be known: {one.why}",
            f"give the right answer, or use --policy {Action.DELETE}, {Action.RETURN} or {Action.ASK}",
        )
    if action in OWN and one.annotation is None:
        raise UsageError(
            f"to {action}, an annotation of task {one.task.id} must be named: {one.why}",
            f"name it, or use --policy {Action.ADD}, {Action.PREDICT} or {Action.ASK}",
        )


def _is_new(one: Proposal, action: Action) -> bool:
    if action is Action.ADD:
        return not any(a.ground_truth for a in one.task.annotations)
    if action is Action.PREDICT:
        return dump_json(one.result) not in [p.result for p in one.task.predictions]
    if action is Action.ASK:
        return one.task.overlap <= len({a.annotator for a in one.task.annotations})
    return action is not Action.REPLACE or one.annotation is None or not _says(one.annotation, one)


def _says(annotation: Annotation, one: Proposal) -> bool:
    return annotation.cancelled == one.cancelled and annotation.result == dump_json(one.result)


def _correction(one: Proposal, action: Action) -> Correction:
    own = one.annotation if action in OWN else None
    note = f"{own.annotator}, please look again: {one.why}" if own else None
    return Correction.model_validate(
        {
            "task": one.task.id,
            "key": one.task.key,
            "action": action,
            "annotation": own and own.id,
            "annotator": own.annotator if own else "",
            "expect": own.revision if own else one.task.revision,
            "overlap": one.task.overlap if action is Action.ASK else None,
            "now": own and own.result,
            "then": dump_json(one.result) if action in WRITING else None,
            "cancelled": one.cancelled and action is Action.REPLACE,
            "note": note if action is Action.RETURN else None,
            "why": one.why,
            "confidence": one.confidence,
            "changes": one.changes,
        }
    )


def _once(corrections: Iterable[Correction]) -> list[Correction]:
    """One for each annotation, or for each task: a second would find the first in its way."""
    made: dict[tuple[str, str | None], Correction] = {}
    for one in corrections:
        made.setdefault((one.task, one.annotation), one)
    return list(made.values())


def _within(corrections: Sequence[Correction], limits: Limits) -> list[Correction]:
    order = {id(one): n for n, one in enumerate(corrections)}
    taken: list[Correction] = []
    of_annotator: Counter[str] = Counter()
    for one in sorted(corrections, key=lambda c: -_sure(c)):
        asked_for = not limits.annotators or one.annotator in limits.annotators
        full = limits.per_annotator is not None and of_annotator[one.annotator] >= limits.per_annotator
        if asked_for and not full and _sure(one) >= limits.min_confidence:
            taken.append(one)
            of_annotator[one.annotator] += 1
    return sorted(taken[: limits.max_changes], key=lambda c: order[id(c)])


def _sure(correction: Correction) -> float:
    return 1.0 if correction.confidence is None else correction.confidence
