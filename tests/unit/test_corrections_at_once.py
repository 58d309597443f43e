"""Annotators, appliers, undoers and crashes, in any order: nothing people did is lost, nothing is twice."""

from __future__ import annotations

import itertools
import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connector.adapters.contract import LabelingToolContract
from connector.adapters.memory import MemoryTool, ToolProject
from connector.corrections.apply import apply
from connector.corrections.plan import Plan
from connector.corrections.undo import undo
from connector.errors import Temporary
from connector.journal.actions import KINDS, Sender
from connector.journal.correction import Action, Correction
from connector.journal.journal import Journal, State
from connector.model import Annotation, dump_json
from tests.conftest import JOURNAL_KEYS

contract = LabelingToolContract()
PEOPLE = [f"{name}@example.com" for name in ("ann", "ben", "rita")]
START = datetime(2026, 3, 1, tzinfo=UTC)
PROJECT = "memory:#1"
TASKS = 2

WRITES = {
    Action.ADD: "write_annotation",
    Action.REPLACE: "write_annotation",
    Action.PREDICT: "write_predictions",
    Action.DELETE: "delete_annotation",
    Action.RETURN: "leave_note",
    Action.ASK: "set_task_overlap",
}
BREAKS = sorted({*WRITES.values(), "delete_predictions", "read_task", "read_tasks", "review_queue"})


class Crash(BaseException):
    """The process is gone, at once."""


class AtOnce(RuleBasedStateMachine):
    """What anybody may do, and what must hold whatever they do.

    `people` is what each annotator last said, by annotation id; where a plan replaced or deleted it since,
    the person's answer is out of date, and until then it must stand in the tool.
    """

    def __init__(self) -> None:
        super().__init__()
        clock = (START + timedelta(seconds=n) for n in itertools.count())
        self.now = lambda: next(clock)
        self.tool = MemoryTool(ToolProject(people=PEOPLE, clock=self.now), me=PEOPLE[2])
        self.tool.write_ontology(self.tool.parse_ontology(contract.source))
        self.folder = tempfile.TemporaryDirectory()
        self.plans: list[Plan] = []
        self.people: dict[str, Annotation] = {}
        self.gone: set[str] = set()
        self.said = itertools.count()
        self.quiet: dict[str, object] | None = None

    def teardown(self) -> None:
        self.folder.cleanup()

    def journal(self) -> Journal:
        return Journal(str(Path(self.folder.name) / "corrections"), keys=JOURNAL_KEYS)

    def region(self, label: str) -> str:
        """An answer that nobody else gives."""
        return json.dumps([contract.choice(label, meta={"text": [str(next(self.said))]})])

    @initialize()
    def labeled(self) -> None:
        for task in contract.add(self.tool, *(f"k{n}" for n in range(TASKS))):
            for who in PEOPLE[:2]:
                self.keep(self.tool.write_annotation(self.new(task.id, who), None))

    def new(self, task: str, who: str) -> Annotation:
        return Annotation(task_id=task, annotator=who, result=self.region("cat"))

    def keep(self, said: Annotation) -> None:
        self.people[str(said.id)] = said
        self.quiet = None

    def task(self, number: int):
        return self.tool.read_task(sorted(self.tool.project.tasks)[number % TASKS])

    # annotators

    @rule(task=st.integers(0, TASKS - 1), which=st.integers(0, 3), label=st.sampled_from(["cat", "dog"]))
    def somebody_edits(self, task: int, which: int, label: str) -> None:
        if held := self.task(task).annotations:
            one = held[which % len(held)]
            new = one.model_copy(update={"result": self.region(label)})
            self.keep(self.tool.write_annotation(new, one.revision))

    @rule(task=st.integers(0, TASKS - 1), truth=st.booleans())
    def somebody_edits_what_is_newest(self, task: int, truth: bool) -> None:
        """Most often that is what a plan wrote."""
        if held := self.task(task).annotations:
            one = max(held, key=lambda a: a.updated_at or START)
            new = {"result": self.region("cat"), "ground_truth": truth}
            self.keep(self.tool.write_annotation(one.model_copy(update=new), one.revision))

    @rule(task=st.integers(0, TASKS - 1), who=st.sampled_from(PEOPLE[:2]))
    def somebody_answers(self, task: int, who: str) -> None:
        self.keep(self.tool.write_annotation(self.new(self.task(task).id, who), None))

    @rule(task=st.integers(0, TASKS - 1), which=st.integers(0, 3))
    def somebody_deletes(self, task: int, which: int) -> None:
        if held := self.task(task).annotations:
            one = held[which % len(held)]
            self.tool.delete_annotation(str(one.id), one.revision)
            self.people.pop(str(one.id), None)
            self.gone.add(str(one.id))
            self.quiet = None

    @rule(task=st.integers(0, TASKS - 1), which=st.integers(0, 3))
    def somebody_sets_the_ground_truth(self, task: int, which: int) -> None:
        if held := self.task(task).annotations:
            one = held[which % len(held)]
            self.keep(self.tool.write_annotation(one.model_copy(update={"ground_truth": True}), one.revision))
            for other in self.task(task).annotations:
                if str(other.id) in self.people:
                    self.people[str(other.id)] = other

    @rule(task=st.integers(0, TASKS - 1), more=st.integers(1, 3))
    def somebody_sets_the_overlap(self, task: int, more: int) -> None:
        self.tool.set_task_overlap(self.task(task).id, more)
        self.quiet = None

    # planners, appliers, undoers

    @rule(
        action=st.sampled_from(sorted(Action)),
        which=st.integers(0, 3),
        tasks=st.sets(st.integers(0, TASKS - 1), min_size=1),
        at_once=st.booleans(),
        dies=st.booleans(),
        edited=st.booleans(),
        undone=st.booleans(),
    )
    def plan(
        self, action: str, which: int, tasks: set[int], at_once: bool, dies: bool, edited: bool, undone: bool
    ) -> None:
        made = []
        for number in sorted(tasks):
            task = self.task(number)
            own = task.annotations[which % len(task.annotations)] if task.annotations else None
            about = action in (Action.REPLACE, Action.DELETE, Action.RETURN)
            if about and own is None:
                continue
            made.append(
                Correction(
                    task=task.id,
                    key=task.key,
                    action=Action(action),
                    annotation=own.id if about and own else None,
                    annotator=own.annotator if about and own else "",
                    expect=own.revision if about and own else task.revision,
                    overlap=task.overlap,
                    then=dump_json([contract.choice("dog", meta={"text": [f"ours {next(self.said)}"]})]),
                    note=f"look again {next(self.said)}",
                    why="so",
                )
            )
        if made:
            self.plans.insert(0, Plan(project=PROJECT, source={}, corrections=tuple(made)))
            if at_once and dies:
                self.may_break(WRITES[action], 1, True, True, self.apply_newest)
            if at_once:
                self.apply_newest()
                self.look()
                if edited:
                    self.somebody_edits_what_is_newest(min(tasks), truth=which == 0)
                    self.what_people_last_said_stands_in_the_tool()
                if undone:
                    undo(self.tool, self.plans[0].run, PROJECT, self.journal(), self.now)
                    self.look()

    @precondition(lambda self: self.plans)
    @rule(
        which=st.integers(0, 2),
        method=st.sampled_from(BREAKS),
        call=st.sampled_from([0, 0, 0, 1, 2, 3]),
        arrives=st.booleans(),
        dies=st.booleans(),
    )
    def somebody_applies(self, which: int, method: str, call: int, arrives: bool, dies: bool) -> None:
        made = self.plans[which % len(self.plans)]
        self.may_break(
            method, call, arrives, dies, lambda: apply(self.tool, made, PROJECT, self.journal(), self.now)
        )

    @precondition(lambda self: self.plans)
    @rule(
        which=st.integers(0, 2),
        method=st.sampled_from(BREAKS),
        call=st.sampled_from([0, 0, 0, 1, 2, 3]),
        arrives=st.booleans(),
        dies=st.booleans(),
    )
    def somebody_undoes(self, which: int, method: str, call: int, arrives: bool, dies: bool) -> None:
        made = self.plans[which % len(self.plans)]
        if made.run in {run.run for run in self.journal().runs()}:
            self.may_break(
                method,
                call,
                arrives,
                dies,
                lambda: undo(self.tool, made.run, PROJECT, self.journal(), self.now),
            )

    def apply_newest(self) -> object:
        return apply(self.tool, self.plans[0], PROJECT, self.journal(), self.now)

    def may_break(self, method: str, call: int, arrives: bool, dies: bool, work) -> None:
        faults = self.tool.faults
        error = Crash() if dies else Temporary("injected")
        if call:
            (faults.lose_answer if arrives else faults.fail)(method, faults.calls[method] + call, error)
        try:
            work()
        except Crash:
            self.quiet = None
        finally:
            faults._before.clear()
            faults._after.clear()
        self.look()

    @precondition(lambda self: self.plans)
    @rule(which=st.integers(0, 2))
    def apply_and_undo_at_rest_give_back_what_was_there(self, which: int) -> None:
        made = self.plans[which % len(self.plans)]
        states = {e.state for e in self.journal().entries(made.run).values()}
        if states - {State.UNDONE, State.CONFLICT}:
            return
        before = self.results()
        apply(self.tool, made, PROJECT, self.journal(), self.now)
        after = undo(self.tool, made.run, PROJECT, self.journal(), self.now)
        self.look()
        assert after.stopped is None
        assert not after.failed
        assert self.results() == before

    def results(self) -> dict[str, object]:
        """What the tool holds, apart from ids and times."""
        return {
            task.id: (
                sorted((a.annotator, a.result, a.ground_truth, a.cancelled) for a in task.annotations),
                sorted((p.model_version, p.result) for p in task.predictions),
                task.note,
                task.overlap,
            )
            for task in self.tool.project.tasks.values()
        }

    def look(self) -> None:
        """Forget of people's answers those that a plan changed as the journal tells."""
        ours = set()
        for made in self.plans:
            for entry in self.journal().entries(made.run).values():
                if entry.before and entry.correction.action in (Action.REPLACE, Action.DELETE):
                    was = entry.before.annotations[0]
                    ours.add((was.id, was.updated_at))  # its ground truth may have gone without its time
        for id, said in list(self.people.items()):
            if (id, said.updated_at) in ours:
                held = self.held().get(id)
                if held is None or held.content != said.content:
                    del self.people[id]
        # An undo that gives a ground truth back changes the time of an answer, and nothing that was said.
        for id, said in list(self.people.items()):
            held = self.held().get(id)
            if held and (held.result, held.annotator) == (said.result, said.annotator):
                self.people[id] = held

    def held(self) -> dict[str, Annotation]:
        return {str(a.id): a for task in self.tool.project.tasks.values() for a in task.annotations}

    # what must hold

    @invariant()
    def what_people_last_said_stands_in_the_tool(self) -> None:
        held = self.held()
        for id, said in self.people.items():
            assert id in held, f"{said} was lost"
            assert (held[id].result, held[id].annotator) == (said.result, said.annotator)

    @invariant()
    def what_people_deleted_stays_deleted(self) -> None:
        assert not self.gone & self.held().keys()

    @invariant()
    def nothing_of_ours_is_twice(self) -> None:
        for task in self.tool.project.tasks.values():
            results = [a.result for a in task.annotations]
            assert len(set(results)) == len(results)
            assert len({p.model_version for p in task.predictions}) == len(task.predictions)
            lines = (task.note or "").splitlines()
            assert len(set(lines)) == len(lines)

    @invariant()
    def journal_and_tool_agree(self) -> None:
        """What is ours the journal meant to write; what it calls undone is not there."""
        journal, held = self.journal(), self.held()
        journal.chain()
        for made in self.plans:
            for entry in journal.entries(made.run).values():
                if entry.state is State.CONFLICT and entry.before and not entry.after:
                    by = Sender(entry.by, made.run)
                    wanted = KINDS[entry.correction.action].wanted(entry.correction, entry.before, by)
                    assert not {one.content for one in wanted} & {one.content for one in held.values()}
        known = {
            e.correction.then
            for made in self.plans
            for e in journal.entries(made.run).values()
            if e.before is not None
        }
        for annotation in held.values():
            if "ours" in annotation.result:
                assert annotation.result in {dump_json(json.loads(then)) for then in known if then}
        for made in self.plans:
            for entry in journal.entries(made.run).values():
                if entry.state is State.UNDONE and entry.correction.action is Action.ADD and entry.after:
                    assert str(entry.after.annotations[0].id) not in held or (
                        held[str(entry.after.annotations[0].id)].created_at
                        != entry.after.annotations[0].created_at
                    )


TestAtOnce = AtOnce.TestCase
TestAtOnce.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
