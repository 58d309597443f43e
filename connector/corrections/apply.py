"""Apply a plan: look, note in the journal, send once, look again; batch by batch, and each in its turn."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from connector.adapters.base import LabelingTool, batches
from connector.corrections.plan import Plan
from connector.errors import (
    AuthError,
    BadRecord,
    Conflict,
    ConnectorError,
    Reject,
    Temporary,
    Unsupported,
    UsageError,
)
from connector.io.retry import paced
from connector.journal.actions import KINDS, PULL, Held, Kind, Sender
from connector.journal.correction import Action, Correction
from connector.journal.journal import Begun, Entered, Entry, Intent, Journal, Outcome, State
from connector.model import Ontology, Task
from connector.regions import check_result

BATCH = 50
"""So many corrections are noted in the journal at once, before the first of them is sent."""

Progress = Callable[[int], None]


@dataclass
class Applied:
    """What became of a plan's corrections, or of their undoing.

    Attributes:
        written: what was done now; `already` what had been done before.
        conflicts: what was left out, since the tool holds something else than expected.
        failed: what the tool refused.
        notes: what is not quite as one would think.
        undone: how many of the plan's corrections had been undone before this call.
        stopped: why it ended before its end; None if it did not.
    """

    run: str
    written: int = 0
    already: int = 0
    conflicts: list[Reject] = field(default_factory=list)
    failed: list[Reject] = field(default_factory=list)
    notes: list[Reject] = field(default_factory=list)
    undone: int = 0
    stopped: ConnectorError | None = None


def apply(
    tool: LabelingTool,
    plan: Plan,
    project: str,
    journal: Journal,
    now: Callable[[], datetime],
    progress: Progress = lambda _: None,
    rate: float | None = None,
    max_conflicts: int | None = None,
) -> Applied:
    """Write a plan's corrections, each only if the tool still holds what the plan expects.

    What was edited since is a conflict: that correction is left out and reported. What the tool refuses is
    reported too, and the others go on. Whatever stops it, the same call goes on from there and writes nothing
    twice: it checks first what had arrived. What was undone is written again where the tool holds what the
    plan expects; where the undo left a newer revision, it is a conflict; `undone` counts both.

    Args:
        project: which one `tool` works on.
        rate: at most so many corrections a second.
        max_conflicts: stop after more than so many.

    Raises:
        UsageError: if the plan is of another project, or the tool cannot do what it asks for; or the journal
            is broken.
        Conflict: if another run is writing to the journal.
    """
    if plan.project != project:
        raise UsageError(
            f"the plan was made for {plan.project}, and this is {project}",
            "plan again with this configuration",
        )
    for action in {c.action for c in plan.corrections}:
        if not KINDS[action].able(tool.capabilities):
            raise Unsupported(
                f"{tool.capabilities.name} cannot do {action}", "plan again with another --policy"
            )
    known = journal.entries(plan.run)
    by = Sender(tool.whoami().name, plan.run)
    todo = [(n, c) for n, c in enumerate(plan.corrections) if _state(known, n) is not State.WRITTEN]
    work = _Apply(tool, journal, now, by, known, rate, max_conflicts, progress)
    work.done.already = len(plan.corrections) - len(todo)
    work.done.undone = sum(_state(known, n) is State.UNDONE for n, _ in todo)
    progress(work.done.already)
    if todo:
        work.pending.append(
            Begun(
                run=plan.run,
                at=now(),
                project=project,
                by=by.name,
                source=dict(plan.source),
                renames=plan.renames,
                limited=plan.limited,
            )
        )
        work.run(todo)
    if not work.done.stopped:
        work.done.stopped = make_queues(tool, journal.entries(plan.run), by.run)
    return work.done


def _state(known: dict[int, Entry], number: int) -> State | None:
    return known[number].state if number in known else None


@dataclass
class _Apply:
    """One call of `apply`.

    Attributes:
        known: what the journal says of this run.
        pending: what became of things, until the next segment is written.
    """

    tool: LabelingTool
    journal: Journal
    now: Callable[[], datetime]
    by: Sender
    known: dict[int, Entry]
    rate: float | None
    max_conflicts: int | None
    progress: Progress
    pending: list[Entered] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.done = Applied(self.by.run)

    def run(self, todo: Sequence[tuple[int, Correction]]) -> None:
        try:
            for number, correction, before in paced(self._ready(todo), self.rate):
                self._send(number, correction, before)
                self.progress(1)
        except (Temporary, AuthError, Conflict) as error:
            self.done.stopped = error
        self.journal.append(self.pending)

    def _ready(self, todo: Sequence[tuple[int, Correction]]) -> Iterator[tuple[int, Correction, Held]]:
        """What can be sent, each noted in the journal before it is given out."""
        for batch in batches(todo, BATCH):
            tasks = {t.id: t for t in self.tool.read_tasks(list({c.task for _, c in batch}))}
            ready = []
            for number, correction in batch:
                if before := self._look(number, correction, tasks.get(correction.task)):
                    ready.append((number, correction, before))
                else:
                    self.progress(1)
            intents = [
                Intent(run=self.by.run, at=self.now(), number=n, correction=c, before=before)
                for n, c, before in ready
            ]
            self.journal.append([*self.pending, *intents])
            self.pending.clear()
            yield from ready

    def _look(self, number: int, correction: Correction, task: Task | None) -> Held | None:
        """What stands there before; None where there is nothing to send."""
        if task is None:
            self._left_out(State.CONFLICT, number, correction, f"task {correction.task} is gone", False)
            return None
        kind, entry = KINDS[correction.action], self.known.get(number)
        if entry and (after := self._arrived_before(entry, task)):
            self.pending.append(self._outcome(number, State.WRITTEN, after=after))
            self.done.already += 1
            return None
        if found := kind.unexpected(task, correction):
            if entry and entry.state is State.UNDONE:
                found = f"it was undone; {found}"
            self._left_out(State.CONFLICT, number, correction, found, False)
            return None
        if correction.then is not None and (
            wrong := self._not_allowed(correction.then, task, correction.annotation)
        ):
            self._left_out(State.FAILED, number, correction, wrong, False)
            return None
        return kind.before(task, correction)

    def _not_allowed(self, then: str, task: Task, annotation: str | None) -> str:
        """What the tool's questions do not allow of a result, and is new: a plan may have been edited."""
        held: list[object] = next((json.loads(a.result) for a in task.annotations if a.id == annotation), [])
        try:
            check_result(json.loads(then), self._ontology, lambda: task.data, held)
        except BadRecord as error:
            return error.what
        return ""

    @cached_property
    def _ontology(self) -> Ontology:
        return self.tool.read_ontology()

    def _arrived_before(self, entry: Entry, task: Task) -> Held | None:
        """What we sent before we were interrupted, if it is there."""
        if entry.before is None or entry.state is State.UNDONE:
            return None
        by = Sender(entry.by, self.by.run)
        return KINDS[entry.correction.action].arrived(task, entry.correction, entry.before, by)

    def _send(self, number: int, correction: Correction, before: Held) -> None:
        kind = KINDS[correction.action]
        try:
            after = self._sent(kind, correction, before)
        except Conflict as error:
            self._left_out(State.CONFLICT, number, correction, error.what, True)
        except (BadRecord, UsageError, Lost) as error:
            self._left_out(State.FAILED, number, correction, error.what, True)
        else:
            self.pending.append(self._outcome(number, State.WRITTEN, after=after))
            self.done.written += 1

    def _sent(self, kind: Kind, correction: Correction, before: Held) -> Held:
        try:
            return kind.send(self.tool, correction, before, self.by)
        except Temporary as error:
            # It is unknown whether it arrived: check, and do not send it again.
            after = kind.arrived(self.tool.read_task(correction.task), correction, before, self.by)
            if after is None:
                raise Lost(error.what) from error
            return after

    def _left_out(self, state: State, number: int, correction: Correction, why: str, sent: bool) -> None:
        """Note what was not done.

        Args:
            sent: whether the journal tells of it already.

        Raises:
            Conflict: if there are too many conflicts.
        """
        told = None if sent or number in self.known else correction
        # What was undone stays undone in the journal if nothing was sent since.
        if sent or _state(self.known, number) is not State.UNDONE:
            self.pending.append(self._outcome(number, state, correction=told, why=why))
        rejects = self.done.conflicts if state is State.CONFLICT else self.done.failed
        rejects.append(Reject(f"task {correction.task}", why))
        limit = self.max_conflicts
        if limit is not None and len(self.done.conflicts) > limit:
            raise Conflict(f"there are more than {limit} conflicts; the rest was left alone", PULL)

    def _outcome(self, number: int, state: State, **more: Any) -> Outcome:
        return Outcome(run=self.by.run, at=self.now(), number=number, state=state, **more)


class Lost(ConnectorError):
    """It was sent, the answer was lost, and it did not arrive."""


def make_queues(tool: LabelingTool, entries: Mapping[int, Entry], run: str) -> Temporary | None:
    """Make the lists of what a run gives back, one for each annotator; returns what kept us from it."""
    lists: dict[str, list[str]] = {}
    for entry in entries.values():
        if entry.correction.action is Action.RETURN:
            tasks = lists.setdefault(entry.correction.annotator, [])
            tasks += [entry.correction.task] if entry.state is State.WRITTEN else []
    try:
        for annotator, tasks in lists.items():
            tool.review_queue(f"Back to {annotator} ({run})", list(dict.fromkeys(tasks)))
    except Temporary as error:
        return error
    return None
