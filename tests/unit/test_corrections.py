"""Corrections against the in-memory tool: what is planned, what is applied once, what is taken back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from connector import sync
from connector.adapters.contract import LabelingToolContract
from connector.adapters.memory import MemoryTool, Project
from connector.corrections import Plan as PlanFile
from connector.corrections import Planned, apply, plan, undo
from connector.errors import Temporary, UsageError
from connector.journal import Journal, State
from connector.labels import read_store
from connector.model import Annotation, Role, Task
from connector.quality.consensus import consensus
from connector.quality.units import units
from connector.store import Store

contract = LabelingToolContract()
PEOPLE = [f"{name}@example.com" for name in ("ann", "ben", "cleo", "rita")]
START = datetime(2026, 3, 1, tzinfo=UTC)
PROJECT = "memory:#1"


@dataclass
class Desk:
    """A tool, a store and a journal, and what one does with them."""

    tool: MemoryTool
    folder: Path
    clock: Iterator[datetime]

    @property
    def store(self) -> Store:
        return Store(str(self.folder / "labels"))

    def now(self) -> datetime:
        return next(self.clock)

    def answer(self, task: Task, said: Sequence[str]) -> list[Annotation]:
        """Ann, ben and cleo (and rita, the expert) answer; a dot skips one."""
        return [
            contract.write(self.tool, task, who, contract.choice(label))
            for who, label in zip(PEOPLE, said, strict=False)
            if label != "."
        ]

    def plan(self, policy: str = "add", confident: float = 0.6) -> Planned:
        sync.pull(self.tool, self.store)
        loaded = read_store(self.store, {PEOPLE[3]: Role.REVIEWER})
        table = units(loaded.labels)
        merged = consensus(table, seed=0)
        return plan(PROJECT, loaded, table, merged.units, list(self.store.tasks()), policy, confident)

    def apply(self, made: PlanFile, tool: MemoryTool | None = None):
        with_journal = Journal(self.folder / "corrections.db")
        try:
            return apply(tool or self.tool, made, PROJECT, with_journal, self.now)
        finally:
            with_journal.close()

    def undo(self, run: str):
        journal = Journal(self.folder / "corrections.db")
        try:
            return undo(self.tool, run, PROJECT, journal, self.now)
        finally:
            journal.close()

    def said(self) -> dict[str, list[tuple[str, str, bool]]]:
        """By key: who says what, and whether it is the ground truth."""
        return {
            task.key: [
                (a.annotator.split("@")[0], json.loads(a.result)[0]["value"]["choices"][0], a.ground_truth)
                for a in task.annotations
            ]
            for task in self.tool.project.tasks.values()
        }


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    clock = (START + timedelta(seconds=n) for n in itertools.count())
    tool = MemoryTool(Project(people=PEOPLE, clock=lambda: next(clock)), me=PEOPLE[3])
    tool.write_ontology(tool.parse_ontology(contract.source))
    return Desk(tool, tmp_path, clock)


def test_where_people_differ_the_consensus_is_added_as_ground_truth_and_nothing_is_overwritten(
    desk: Desk,
) -> None:
    for task, said in zip(
        contract.add(desk.tool, "a", "b"), [("cat", "cat", "dog"), ("dog",) * 3], strict=True
    ):
        desk.answer(task, said)
    made = desk.plan()
    assert [(c.key, c.action, c.confidence) for c in made.plan.corrections] == [
        ("a", "add", pytest.approx(2 / 3))
    ]
    [change] = made.plan.corrections[0].changes
    assert (change.now, change.then) == ("cat, cat, dog", "cat")
    assert desk.apply(made.plan).written == 1
    assert desk.said() == {
        "a": [("ann", "cat", False), ("ben", "cat", False), ("cleo", "dog", False), ("rita", "cat", True)],
        "b": [("ann", "dog", False), ("ben", "dog", False), ("cleo", "dog", False)],
    }


def test_replace_changes_only_who_answered_otherwise_and_in_that_name(desk: Desk) -> None:
    [task] = contract.add(desk.tool, "a")
    desk.answer(task, ("cat", "cat", "dog"))
    made = desk.plan("replace")
    assert [c.annotator for c in made.plan.corrections] == [PEOPLE[2]]
    desk.apply(made.plan)
    assert desk.said()["a"] == [("ann", "cat", False), ("ben", "cat", False), ("cleo", "cat", False)]


def test_what_replace_does_not_measure_stays_as_it_was(desk: Desk) -> None:
    source = contract.source.replace("</View>", '<VideoVector name="moving" toName="image"/></View>')
    desk.tool.write_ontology(desk.tool.parse_ontology(source))
    [task] = contract.add(desk.tool, "a")
    head = {"id": "n", "from_name": "moving", "to_name": "image", "type": "videovector"}
    stranger = {**head, "value": {"sequence": []}}
    for who, label in zip(PEOPLE, ("cat", "cat", "dog"), strict=False):
        contract.write(desk.tool, task, who, contract.choice(label), stranger)
    desk.apply(desk.plan("replace").plan)
    corrected = json.loads(desk.tool.read_task(task.id).annotations[2].result)
    assert stranger in corrected
    assert [r["value"]["choices"] for r in corrected if r["type"] == "choices"] == [["cat"]]


@pytest.mark.parametrize(
    ("said", "corrected", "undecided"),
    [
        (("cat", "dog"), 0, 1),  # a tie
        (("cat", "cat", "dog"), 1, 0),
        (("cat", "cat", "cat"), 0, 0),
        (("cat",), 0, 0),
        (("cat", "dog", ".", "dog"), 1, 0),  # the expert decides
        (("cat", "cat", "cat", "dog"), 1, 0),  # also against everybody
        (("dog", "dog", "dog", "dog"), 0, 0),
    ],
)
def test_who_decides(desk: Desk, said: Sequence[str], corrected: int, undecided: int) -> None:
    [task] = contract.add(desk.tool, "a")
    desk.answer(task, said)
    made = desk.plan()
    assert (len(made.plan.corrections), len(made.undecided)) == (corrected, undecided)


def test_a_consensus_below_the_demanded_confidence_is_left_to_review(desk: Desk) -> None:
    [task] = contract.add(desk.tool, "a")
    desk.answer(task, ("cat", "cat", "dog"))
    made = desk.plan(confident=0.7)
    assert made.plan.corrections == ()
    assert [reject.where for reject in made.undecided] == [f"task {task.id}"]


def test_tasks_with_gold_answers_are_left_alone(desk: Desk) -> None:
    [task] = contract.add(desk.tool, "a")
    first, *_ = desk.answer(task, ("cat", "cat", "dog"))
    desk.tool.write_annotation(first.model_copy(update={"ground_truth": True}), expect=first.revision)
    assert desk.plan().plan.corrections == ()


def test_a_plan_is_the_same_file_for_the_same_labels_and_can_be_read_back(desk: Desk) -> None:
    for task in contract.add(desk.tool, "a", "b"):
        desk.answer(task, ("cat", "cat", "dog"))
    one, two = desk.plan().plan, desk.plan().plan
    assert one == two
    one.save(desk.folder / "plan.jsonl")
    assert PlanFile.load(desk.folder / "plan.jsonl") == one
    lines = (desk.folder / "plan.jsonl").read_text().splitlines()
    (desk.folder / "plan.jsonl").write_text("\n".join(lines[:2]))
    assert len(PlanFile.load(desk.folder / "plan.jsonl").corrections) == 1


@pytest.mark.parametrize(
    ("text", "said"), [("", "is empty"), ("{}\n", "project"), ('{"project": "p", "source": {}}\n{', ":2:")]
)
def test_a_plan_that_is_broken_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "plan.jsonl").write_text(text)
    with pytest.raises(UsageError, match=said):
        PlanFile.load(tmp_path / "plan.jsonl")


def test_a_plan_of_another_project_is_refused(desk: Desk) -> None:
    made = PlanFile(project="memory:#2", source={})
    with pytest.raises(UsageError, match="made for memory:#2"):
        desk.apply(made)


@pytest.mark.parametrize("policy", ["add", "replace"])
def test_an_edit_since_the_plan_is_a_conflict_and_stays(desk: Desk, policy: str) -> None:
    tasks = contract.add(desk.tool, "a", "b")
    made = [desk.answer(task, ("cat", "cat", "dog")) for task in tasks]
    planned = desk.plan(policy).plan
    contract.edit(desk.tool, made[0][2], contract.choice("cat"))
    before = desk.tool.read_task(tasks[0].id)
    done = desk.apply(planned)
    assert (done.written, [c.where for c in done.conflicts]) == (1, [f"task {tasks[0].id}"])
    assert desk.tool.read_task(tasks[0].id) == before


def test_a_deleted_annotation_or_task_is_a_conflict(desk: Desk) -> None:
    tasks = contract.add(desk.tool, "a", "b", "c")
    made = [desk.answer(task, ("cat", "cat", "dog")) for task in tasks]
    planned = desk.plan("replace").plan
    desk.tool.delete_annotation(str(made[0][2].id), made[0][2].revision)
    desk.tool.project.delete_task(tasks[1].id)
    done = desk.apply(planned)
    assert (done.written, len(done.conflicts)) == (1, 2)


@pytest.mark.parametrize("policy", ["add", "replace"])
@pytest.mark.parametrize("lost", [False, True], ids=["before the work", "after the work"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_an_apply_that_breaks_off_is_finished_by_the_next_and_writes_each_once(
    desk: Desk, policy: str, lost: bool, call: int
) -> None:
    for task in contract.add(desk.tool, "a", "b", "c"):
        desk.answer(task, ("cat", "cat", "dog"))
    planned = desk.plan(policy).plan
    before = desk.said()
    call += desk.tool.faults.calls["write_annotation"]
    (desk.tool.faults.lose_answer if lost else desk.tool.faults.fail)("write_annotation", call)
    with pytest.raises(Temporary):
        desk.apply(planned)
    done = desk.apply(planned)
    assert done.written + done.already == 3
    assert not done.conflicts
    answers = desk.said()
    assert {len(said) for said in answers.values()} == {4 if policy == "add" else 3}
    assert {label for said in answers.values() for _, label, _ in said[-1:]} == {"cat"}
    assert desk.undo(planned.run).written == 3
    assert desk.said() == before


@pytest.mark.parametrize("lost", [False, True], ids=["before the work", "after the work"])
@pytest.mark.parametrize(
    ("policy", "method"), [("add", "delete_annotation"), ("replace", "write_annotation")]
)
def test_an_undo_that_breaks_off_is_finished_by_the_next(
    desk: Desk, policy: str, method: str, lost: bool
) -> None:
    for task in contract.add(desk.tool, "a", "b", "c"):
        desk.answer(task, ("cat", "cat", "dog"))
    before = desk.said()
    planned = desk.plan(policy).plan
    desk.apply(planned)
    call = desk.tool.faults.calls[method] + 2
    (desk.tool.faults.lose_answer if lost else desk.tool.faults.fail)(method, call)
    with pytest.raises(Temporary):
        desk.undo(planned.run)
    again = desk.undo(planned.run)
    assert again.written + again.already == 3
    assert not again.conflicts
    assert desk.said() == before


def test_what_somebody_edited_after_us_is_not_taken_back(desk: Desk) -> None:
    tasks = contract.add(desk.tool, "a", "b")
    for task in tasks:
        desk.answer(task, ("cat", "cat", "dog"))
    planned = desk.plan().plan
    desk.apply(planned)
    ours = desk.tool.read_task(tasks[0].id).annotations[-1]
    contract.edit(desk.tool, ours, contract.choice("dog"))
    done = desk.undo(planned.run)
    assert (done.written, [c.where for c in done.conflicts]) == (1, [f"task {tasks[0].id}"])
    assert [len(said) for said in desk.said().values()] == [4, 3]


def test_an_unknown_run_is_not_undone(desk: Desk) -> None:
    with pytest.raises(UsageError, match="knows no run abc"):
        desk.undo("abc")


def test_the_journal_knows_what_was_sent_before_it_was_sent(desk: Desk) -> None:
    [task] = contract.add(desk.tool, "a")
    desk.answer(task, ("cat", "cat", "dog"))
    planned = desk.plan().plan
    desk.tool.faults.lose_answer("write_annotation", desk.tool.faults.calls["write_annotation"] + 1)
    with pytest.raises(Temporary):
        desk.apply(planned)
    journal = Journal(desk.folder / "corrections.db")
    assert [entry.state for entry in journal.entries(planned.run)] == [State.SENT]
    journal.open_run(planned.run, PROJECT, START)
    with pytest.raises(Temporary, match="in use"):
        desk.apply(planned)
    journal.close()


def test_a_dry_run_of_the_journal_leaves_no_trace(desk: Desk) -> None:
    [task] = contract.add(desk.tool, "a")
    desk.answer(task, ("cat", "cat", "dog"))
    planned = desk.plan().plan
    desk.apply(planned)
    before = (desk.folder / "corrections.db").read_bytes()
    scratch = Journal(desk.folder / "corrections.db", scratch=True)
    scratch.open_run("other", PROJECT, START)
    assert [run for run, *_ in scratch.runs()] == ["other", planned.run]
    scratch.close()
    assert (desk.folder / "corrections.db").read_bytes() == before


def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "corrections.db").write_text("this is no database, and long enough to be looked at" * 20)
    with pytest.raises(UsageError, match="is damaged"):
        Journal(tmp_path / "corrections.db")


def test_time_that_jumps_back_does_not_matter(desk: Desk) -> None:
    [task] = contract.add(desk.tool, "a")
    desk.answer(task, ("cat", "cat", "dog"))
    before = desk.said()
    planned = desk.plan().plan
    desk.clock = iter([START - timedelta(days=n) for n in range(100)])
    desk.apply(planned)
    desk.undo(planned.run)
    assert desk.said() == before
