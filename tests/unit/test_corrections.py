"""Corrections against the in-memory tool: what is planned, what is applied once, what is taken back."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from connector.adapters.base import LabelingTool
from connector.adapters.contract import LabelingToolContract
from connector.adapters.dry_run import DryRun
from connector.adapters.memory import CAPABILITIES, MemoryTool, ToolProject
from connector.commands.session import Session
from connector.corrections.apply import Applied, apply
from connector.corrections.plan import Limits, Plan, Proposed, plan
from connector.corrections.sources import from_consensus
from connector.corrections.undo import undo
from connector.errors import BadRecord, Conflict, Reject, Temporary, Unsupported, UsageError
from connector.journal.correction import OWN, Action, Correction
from connector.journal.journal import Begun, Journal, State, journal_of
from connector.model import Annotation, Role, Task
from connector.quality.consensus import consensus
from connector.quality.units import units
from connector.store.label_store import Store
from connector.store.labels import read_store
from connector.sync import rounds as sync
from tests.conftest import JOURNAL_KEYS, run_command

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

    def journal(self, scratch: bool = False) -> Journal:
        return Journal(journal_of(str(self.folder / "labels")), scratch=scratch, keys=JOURNAL_KEYS)

    def now(self) -> datetime:
        return next(self.clock)

    def answer(self, task: Task, said: Sequence[str]) -> list[Annotation]:
        """Ann, ben and cleo (and rita, the expert) answer; a dot skips one."""
        return [
            contract.write(self.tool, task, who, contract.choice(label))
            for who, label in zip(PEOPLE, said, strict=False)
            if label != "."
        ]

    def proposed(self, policy: str = "add", confident: float = 0.6) -> Proposed:
        sync.pull(self.tool, self.store)
        loaded = read_store(self.store, {PEOPLE[3]: Role.REVIEWER})
        table = units(loaded.labels)
        merged = consensus(table, seed=0).units
        return from_consensus(loaded, table, merged, self.store.tasks(), Action(policy) in OWN, confident)

    def plan(self, policy: str = "add", confident: float = 0.6, limits: Limits | None = None) -> Plan:
        return plan(PROJECT, {}, self.proposed(policy, confident), Action(policy), limits)

    def apply(self, made: Plan, tool: LabelingTool | None = None, **more: Any) -> Applied:
        return apply(tool or self.tool, made, PROJECT, self.journal(), self.now, **more)

    def undo(self, run: str, tool: LabelingTool | None = None) -> Applied:
        return undo(tool or self.tool, run, PROJECT, self.journal(), self.now)

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
    tool = MemoryTool(ToolProject(people=PEOPLE, clock=lambda: next(clock)), me=PEOPLE[3])
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
    assert [(c.key, c.action, c.confidence) for c in made.corrections] == [("a", "add", pytest.approx(2 / 3))]
    [change] = made.corrections[0].changes
    assert (change.now, change.then) == ("cat, cat, dog", "cat")
    assert desk.apply(made).written == 1
    assert desk.said() == {
        "a": [("ann", "cat", False), ("ben", "cat", False), ("cleo", "dog", False), ("rita", "cat", True)],
        "b": [("ann", "dog", False), ("ben", "dog", False), ("cleo", "dog", False)],
    }


def test_replace_changes_only_who_answered_otherwise_and_in_that_name(desk: Desk) -> None:
    [task] = contract.add(desk.tool, "a")
    desk.answer(task, ("cat", "cat", "dog"))
    made = desk.plan("replace")
    assert [c.annotator for c in made.corrections] == [PEOPLE[2]]
    desk.apply(made)
    assert desk.said()["a"] == [("ann", "cat", False), ("ben", "cat", False), ("cleo", "cat", False)]


def test_what_replace_does_not_measure_stays_as_it_was(desk: Desk) -> None:
    source = contract.source.replace("</View>", '<VideoVector name="moving" toName="image"/></View>')
    desk.tool.write_ontology(desk.tool.parse_ontology(source))
    [task] = contract.add(desk.tool, "a")
    head = {"id": "n", "from_name": "moving", "to_name": "image", "type": "videovector"}
    stranger = {**head, "value": {"sequence": []}}
    for who, label in zip(PEOPLE, ("cat", "cat", "dog"), strict=False):
        contract.write(desk.tool, task, who, contract.choice(label), stranger)
    desk.apply(desk.plan("replace"))
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
    made = desk.proposed()
    assert (len(made.proposals), len(made.undecided)) == (corrected, undecided)


def test_a_consensus_below_the_demanded_confidence_is_left_to_review(desk: Desk) -> None:
    [task] = contract.add(desk.tool, "a")
    desk.answer(task, ("cat", "cat", "dog"))
    made = desk.proposed(confident=0.7)
    assert made.proposals == []
    assert [one.task.id for one in made.undecided] == [task.id]


def test_tasks_with_gold_answers_are_left_alone(desk: Desk) -> None:
    [task] = contract.add(desk.tool, "a")
    first, *_ = desk.answer(task, ("cat", "cat", "dog"))
    desk.tool.write_annotation(first.model_copy(update={"ground_truth": True}), expect=first.revision)
    assert desk.plan().corrections == ()


def test_a_plan_is_the_same_file_for_the_same_labels_and_can_be_read_back(desk: Desk) -> None:
    for task in contract.add(desk.tool, "a", "b"):
        desk.answer(task, ("cat", "cat", "dog"))
    one, two = desk.plan(), desk.plan()
    assert one == two
    one.save(desk.folder / "plan.jsonl")
    assert Plan.load(desk.folder / "plan.jsonl") == one
    lines = (desk.folder / "plan.jsonl").read_text().splitlines()
    (desk.folder / "plan.jsonl").write_text("\n".join(lines[:2]))
    assert len(Plan.load(desk.folder / "plan.jsonl").corrections) == 1


@pytest.mark.parametrize(
    ("text", "said"), [("", "is empty"), ("{}\n", "project"), ('{"project": "p", "source": {}}\n{', ":2:")]
)
def test_a_plan_that_is_broken_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "plan.jsonl").write_text(text)
    with pytest.raises(UsageError, match=said):
        Plan.load(tmp_path / "plan.jsonl")


def test_a_plan_of_another_project_is_refused(desk: Desk) -> None:
    made = Plan(project="memory:#2", source={})
    with pytest.raises(UsageError, match="made for memory:#2"):
        desk.apply(made)


@pytest.mark.parametrize("policy", ["add", "replace"])
def test_an_edit_since_the_plan_is_a_conflict_and_stays(desk: Desk, policy: str) -> None:
    tasks = contract.add(desk.tool, "a", "b")
    made = [desk.answer(task, ("cat", "cat", "dog")) for task in tasks]
    planned = desk.plan(policy)
    contract.edit(desk.tool, made[0][2], contract.choice("cat"))
    before = desk.tool.read_task(tasks[0].id)
    done = desk.apply(planned)
    assert (done.written, [c.where for c in done.conflicts]) == (1, [f"task {tasks[0].id}"])
    assert desk.tool.read_task(tasks[0].id) == before


def test_a_deleted_annotation_or_task_is_a_conflict(desk: Desk) -> None:
    tasks = contract.add(desk.tool, "a", "b", "c")
    made = [desk.answer(task, ("cat", "cat", "dog")) for task in tasks]
    planned = desk.plan("replace")
    desk.tool.delete_annotation(str(made[0][2].id), made[0][2].revision)
    desk.tool.project.delete_task(tasks[1].id)
    done = desk.apply(planned)
    assert (done.written, len(done.conflicts)) == (1, 2)


class Crash(BaseException):
    """The process is gone, at once."""


def break_off(desk: Desk, method: str, call: int, arrives: bool) -> None:
    """The process dies in one of the next calls of a method, before or after its work."""
    faults = desk.tool.faults
    (faults.lose_answer if arrives else faults.fail)(method, faults.calls[method] + call, Crash())


WRITES = {
    "add": "write_annotation",
    "replace": "write_annotation",
    "predict": "write_predictions",
    "delete": "delete_annotation",
    "return": "leave_note",
    "ask": "set_task_overlap",
}
TAKES_BACK = WRITES | {"add": "delete_annotation", "predict": "delete_predictions"}
TAKES_BACK |= {"delete": "write_annotation"}


def held(desk: Desk) -> dict[str, Any]:
    """What the tool holds, apart from ids and times."""
    return {
        task.key: (
            sorted((a.annotator, a.result, a.ground_truth, a.seconds) for a in task.annotations),
            [(p.model_version, p.result) for p in task.predictions],
            task.note,
            task.overlap,
        )
        for task in desk.tool.project.tasks.values()
    }


def three_to_correct(desk: Desk, policy: str) -> Plan:
    """A plan of three corrections."""
    for task in contract.add(desk.tool, "a", "b", "c"):
        desk.answer(task, ("cat", "dog") if policy == "ask" else ("cat", "cat", "dog"))
    made = desk.plan(policy)
    assert len(made.corrections) == 3
    return made


@pytest.mark.parametrize("policy", WRITES)
def test_what_each_policy_does_is_done_once_and_taken_back(desk: Desk, policy: str) -> None:
    planned = three_to_correct(desk, policy)
    before = held(desk)
    dry = desk.apply(planned, DryRun(desk.tool))
    assert (dry.written, held(desk)) == (3, before)
    shutil.rmtree(desk.folder / "labels-corrections")
    done = desk.apply(planned)
    assert (done.written, done.already, done.conflicts, done.failed) == (3, 0, [], [])
    after = held(desk)
    assert all(after[key] != before[key] for key in before)
    assert desk.apply(planned).already == 3
    assert held(desk) == after
    undone = desk.undo(planned.run)
    assert (undone.written, undone.conflicts, undone.failed) == (3, [], [])
    assert held(desk) == before
    assert [one.why for one in undone.notes] == (
        [f"annotation {c.annotation} was made again as {n}" for c, n in made_again(desk, planned)]
        if policy == "delete"
        else []
    )
    assert desk.undo(planned.run).already == 3


def made_again(desk: Desk, planned: Plan) -> list[tuple[Correction, str]]:
    """The last correction first: its annotation's new id."""
    return [(c, str(desk.tool.read_task(c.task).annotations[-1].id)) for c in reversed(planned.corrections)]


@pytest.mark.parametrize("policy", WRITES)
@pytest.mark.parametrize("arrives", [False, True], ids=["before the work", "after the work"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_an_apply_that_breaks_off_is_finished_by_the_next_and_writes_each_once(
    desk: Desk, policy: str, arrives: bool, call: int
) -> None:
    planned = three_to_correct(desk, policy)
    before = held(desk)
    break_off(desk, WRITES[policy], call, arrives)
    with pytest.raises(Crash):
        desk.apply(planned)
    done = desk.apply(planned)
    assert done.written + done.already == 3
    assert not done.conflicts
    numbers = [len(said) for said, *_ in held(desk).values()]
    assert numbers == [{"add": 4, "delete": 2, "ask": 2}.get(policy, 3)] * 3
    assert {entry.state for entry in desk.journal().entries(planned.run).values()} == {State.WRITTEN}
    assert desk.undo(planned.run).written == 3
    assert held(desk) == before


@pytest.mark.parametrize("policy", WRITES)
@pytest.mark.parametrize("arrives", [False, True], ids=["before the work", "after the work"])
@pytest.mark.parametrize("call", [1, 2])
def test_an_undo_that_breaks_off_is_finished_by_the_next(
    desk: Desk, policy: str, arrives: bool, call: int
) -> None:
    planned = three_to_correct(desk, policy)
    before = held(desk)
    desk.apply(planned)
    break_off(desk, TAKES_BACK[policy], call, arrives)
    with pytest.raises(Crash):
        desk.undo(planned.run)
    again = desk.undo(planned.run)
    assert again.written + again.already == 3
    assert not again.conflicts
    assert held(desk) == before


@pytest.mark.parametrize("policy", WRITES)
def test_a_run_that_broke_off_is_taken_back_also_where_nobody_knows_what_arrived(
    desk: Desk, policy: str
) -> None:
    planned = three_to_correct(desk, policy)
    before = held(desk)
    break_off(desk, WRITES[policy], 2, True)
    with pytest.raises(Crash):
        desk.apply(planned)
    assert held(desk) != before
    assert desk.undo(planned.run).written == 2
    assert held(desk) == before


@pytest.mark.parametrize("policy", ["add", "replace", "delete"])
def test_an_answer_that_is_lost_is_looked_for_and_not_sent_again(desk: Desk, policy: str) -> None:
    planned = three_to_correct(desk, policy)
    faults, method = desk.tool.faults, WRITES[policy]
    calls = faults.calls[method]
    faults.lose_answer(method, calls + 1)
    faults.fail(method, calls + 2)
    done = desk.apply(planned)
    assert (done.written, len(done.failed), done.stopped) == (2, 1, None)
    assert faults.calls[method] == calls + 3
    assert desk.apply(planned).written == 1
    assert desk.undo(planned.run).written == 3


def test_what_the_tool_refuses_is_a_row_and_the_others_go_on(desk: Desk) -> None:
    planned = three_to_correct(desk, "add")
    desk.tool.faults.fail("write_annotation", desk.tool.faults.calls["write_annotation"] + 2, BadRecord("no"))
    done = desk.apply(planned)
    task = planned.corrections[1].task
    assert (done.written, done.failed, done.conflicts) == (2, [Reject(f"task {task}", "no")], [])


def test_a_tool_that_is_away_stops_the_run_and_the_next_goes_on(desk: Desk) -> None:
    planned = three_to_correct(desk, "add")
    faults = desk.tool.faults
    faults.lose_answer("write_annotation", faults.calls["write_annotation"] + 2)
    faults.fail("read_task", faults.calls["read_task"] + 1)
    done = desk.apply(planned)
    assert done.written == 1
    assert isinstance(done.stopped, Temporary)
    again = desk.apply(planned)
    assert (again.written, again.already, again.stopped) == (1, 2, None)


def test_too_many_conflicts_stop_the_run(desk: Desk) -> None:
    planned = three_to_correct(desk, "replace")
    for correction in planned.corrections[:2]:
        answer = desk.tool.read_annotation(str(correction.annotation))
        contract.edit(desk.tool, answer, contract.choice("cat", meta={"text": ["mine"]}))
    done = desk.apply(planned, max_conflicts=1)
    assert (done.written, len(done.conflicts)) == (0, 2)
    assert isinstance(done.stopped, Conflict)
    assert desk.apply(planned, max_conflicts=2).written == 1


def test_a_rate_is_kept(desk: Desk) -> None:
    planned = three_to_correct(desk, "add")
    start = time.monotonic()
    assert desk.apply(planned, rate=20).written == 3
    assert time.monotonic() - start >= 0.1


def test_the_ground_truth_that_ours_took_is_given_back(desk: Desk) -> None:
    [task] = contract.add(desk.tool, "a")
    mine, *_ = desk.answer(task, ("cat", "dog"))
    truth = mine.model_copy(update={"ground_truth": True})
    desk.tool.write_annotation(truth, expect=mine.revision)
    now = desk.tool.read_task(task.id)
    one = Correction(
        task=task.id, key=task.key, action=Action.ADD, expect=now.revision, then="[]", why="no animal"
    )
    planned = Plan(project=PROJECT, source={}, corrections=(one,))
    assert desk.apply(planned).written == 1
    assert [a.ground_truth for a in desk.tool.read_task(task.id).annotations] == [False, False, True]
    desk.undo(planned.run)
    assert [a.ground_truth for a in desk.tool.read_task(task.id).annotations] == [True, False]
    assert desk.apply(planned).conflicts  # its time has moved: it must be planned again


def test_a_ground_truth_that_somebody_set_since_is_left(desk: Desk) -> None:
    [task] = contract.add(desk.tool, "a")
    mine, other = desk.answer(task, ("cat", "dog"))
    truth = desk.tool.write_annotation(mine.model_copy(update={"ground_truth": True}), mine.revision)
    one = Correction(
        task=task.id,
        key=task.key,
        action=Action.ADD,
        expect=desk.tool.read_task(task.id).revision,
        then="[]",
        why="no animal",
    )
    planned = Plan(project=PROJECT, source={}, corrections=(one,))
    desk.apply(planned)
    ours = desk.tool.read_task(task.id).annotations[-1]
    desk.tool.delete_annotation(str(ours.id), ours.revision)
    desk.tool.write_annotation(other.model_copy(update={"ground_truth": True}), other.revision)
    done = desk.undo(planned.run)
    assert [a.ground_truth for a in desk.tool.read_task(task.id).annotations] == [False, True]
    assert [n.why for n in done.notes] == [
        f"annotation {truth.id} stays without its ground truth: the task has another"
    ]


def test_what_was_deleted_and_answered_again_is_not_made_again(desk: Desk) -> None:
    planned = three_to_correct(desk, "delete")
    desk.apply(planned)
    first = planned.corrections[0]
    again = contract.write(desk.tool, desk.tool.read_task(first.task), PEOPLE[2], contract.choice("cat"))
    done = desk.undo(planned.run)
    assert (done.written, [c.where for c in done.conflicts]) == (2, [f"task {first.task}"])
    assert again in desk.tool.read_task(first.task).annotations


def test_what_somebody_deleted_after_it_was_made_again_stays_deleted(desk: Desk) -> None:
    planned = three_to_correct(desk, "delete")
    desk.apply(planned)
    desk.undo(planned.run)
    for task in desk.tool.project.tasks.values():
        again = task.annotations[-1]
        desk.tool.delete_annotation(str(again.id), again.revision)
    before = held(desk)
    assert len(desk.apply(planned).conflicts) == 3
    assert desk.undo(planned.run).written == 0
    assert held(desk) == before


def test_a_task_that_is_given_back_has_a_note_and_stands_in_its_annotators_queue(desk: Desk) -> None:
    planned = three_to_correct(desk, "return")
    desk.tool.leave_note(planned.corrections[0].task, "a note of mine")
    desk.apply(planned)
    tasks = [c.task for c in planned.corrections]
    assert desk.tool.project.queues == {f"Back to {PEOPLE[2]} ({planned.run})": tasks}
    note = desk.tool.read_task(tasks[0]).note or ""
    first, second = note.splitlines()
    assert first == "a note of mine"
    assert second.startswith(
        f"{PEOPLE[2]}, please look again: most others answered otherwise: animal is cat to"
    )
    desk.undo(planned.run)
    assert desk.tool.project.queues == {f"Back to {PEOPLE[2]} ({planned.run})": []}
    assert [desk.tool.read_task(task).note for task in tasks] == ["a note of mine", None, None]


def test_a_policy_that_the_tool_cannot_do_is_refused_before_anything_is_sent(desk: Desk) -> None:
    planned = three_to_correct(desk, "return")
    poor = replace(CAPABILITIES, notes=False)
    with pytest.raises(Unsupported):
        desk.apply(planned, MemoryTool(desk.tool.project, capabilities=poor))
    assert not (desk.folder / "labels-corrections").exists()


@pytest.mark.parametrize("policy", ["add", "replace"])
def test_what_somebody_edited_after_us_is_not_taken_back(desk: Desk, policy: str) -> None:
    planned = three_to_correct(desk, policy)
    before = held(desk)
    desk.apply(planned)
    task = planned.corrections[0].task
    ours = desk.tool.read_task(task).annotations[-1]
    edited = contract.edit(desk.tool, ours, contract.choice("dog", meta={"text": ["mine"]}))
    for _ in range(2):
        done = desk.undo(planned.run)
        assert [c.where for c in done.conflicts] == [f"task {task}"]
        assert desk.tool.read_task(task).annotations[-1] == edited
    assert done.already == 2
    assert [key for key, now in held(desk).items() if now != before[key]] == ["a"]


def test_an_unknown_run_is_not_undone(desk: Desk) -> None:
    with pytest.raises(UsageError, match="knows no run abc"):
        desk.undo("abc")


def test_the_journal_knows_what_was_sent_before_it_was_sent(desk: Desk) -> None:
    planned = three_to_correct(desk, "add")
    break_off(desk, "write_annotation", 1, True)
    with pytest.raises(Crash):
        desk.apply(planned)
    assert [e.state for e in desk.journal().entries(planned.run).values()] == [State.SENT] * 3


def test_two_runs_at_once_are_fenced_by_the_journal(desk: Desk) -> None:
    planned = three_to_correct(desk, "add")
    slow = desk.journal()
    slow.runs()
    assert desk.apply(planned).written == 3
    with pytest.raises(Conflict, match="another run"):
        slow.append([Begun(run="x", at=START, project=PROJECT, by="me")])
    assert desk.journal().chain().lines == 9


def test_a_dry_run_of_the_journal_leaves_no_trace(desk: Desk) -> None:
    planned = three_to_correct(desk, "add")
    desk.apply(planned)
    before = {path: path.read_bytes() for path in (desk.folder / "labels-corrections").iterdir()}
    scratch = desk.journal(scratch=True)
    assert len(scratch.runs()) == 1
    for name in ("one", "two"):
        scratch.append([Begun(run=name, at=START, project=PROJECT, by="me")])
    assert [run.run for run in scratch.runs()] == [planned.run, "one", "two"]
    assert {path: path.read_bytes() for path in (desk.folder / "labels-corrections").iterdir()} == before


def test_time_that_jumps_back_does_not_matter(desk: Desk) -> None:
    [task] = contract.add(desk.tool, "a")
    desk.answer(task, ("cat", "cat", "dog"))
    before = desk.said()
    planned = desk.plan()
    desk.clock = iter([START - timedelta(days=n) for n in range(100)])
    desk.apply(planned)
    desk.undo(planned.run)
    assert desk.said() == before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"then": '[{"from_name": "animal"'}, "then Value error, is no JSON"),
        ({"then": "[NaN]"}, "is no JSON"),
        ({"then": '{"from_name": "animal"}'}, "is no list of regions"),
        ({"then": "[1]"}, "is no list of regions"),
        ({"action": "return", "annotation": "3", "note": " \n "}, "return needs note"),
    ],
)
def test_a_plan_that_was_edited_into_nonsense_is_refused_with_its_line(
    desk: Desk, wrong: dict[str, str], said: str
) -> None:
    path = desk.folder / "plan.jsonl"
    three_to_correct(desk, "add").save(path)
    head, one, *rest = path.read_text().splitlines()
    path.write_text("\n".join([head, json.dumps({**json.loads(one), **wrong}), *rest]))
    with pytest.raises(UsageError, match=r"plan\.jsonl:2: ") as refused:
        Plan.load(path)
    assert said in str(refused.value)


def test_a_label_that_is_mistyped_in_a_plan_fails_by_itself(desk: Desk) -> None:
    path = desk.folder / "plan.jsonl"
    three_to_correct(desk, "add").save(path)
    head, one, *rest = path.read_text().splitlines()
    path.write_text("\n".join([head, one.replace('\\"cat\\"', '\\"cot\\"'), *rest]))
    made = Plan.load(path)
    done = desk.apply(made)
    assert (done.written, [reject.where for reject in done.failed]) == (2, ["task 1"])
    assert "label 'cot' is not in the ontology" in done.failed[0].why
    assert desk.apply(made).written == 0
    assert desk.undo(made.run).written == 2


def test_an_undoing_whose_answers_are_lost_goes_on(desk: Desk) -> None:
    planned = three_to_correct(desk, "replace")
    before = desk.said()
    desk.apply(planned)
    calls = desk.tool.faults.calls["write_annotation"]
    for n in range(1, 4):
        desk.tool.faults.lose_answer("write_annotation", calls + n)
    done = desk.undo(planned.run)
    assert (done.written, done.failed, done.stopped) == (3, [], None)
    assert desk.said() == before


def test_what_cannot_be_undone_now_keeps_nothing_else_from_it(desk: Desk) -> None:
    planned = three_to_correct(desk, "replace")
    before = desk.said()
    desk.apply(planned)
    calls = desk.tool.faults.calls["write_annotation"]
    for n in (1, 2):
        desk.tool.faults.fail("write_annotation", calls + n)
    done = desk.undo(planned.run)
    assert (done.written, [reject.where for reject in done.failed]) == (2, ["task 3"])
    assert desk.undo(planned.run).written == 1
    assert desk.said() == before


@pytest.mark.parametrize("second", ["cat", "dog"])
def test_two_of_one_annotator_that_were_deleted_are_both_made_again(desk: Desk, second: str) -> None:
    [task] = contract.add(desk.tool, "a")
    for label in ("dog", second):
        contract.write(desk.tool, task, PEOPLE[0], contract.choice(label))
    before = desk.said()
    desk.apply(of_own(desk, task.id, Action.DELETE))
    assert desk.said() == {"a": []}
    done = desk.undo(desk.journal().runs()[0].run)
    assert (done.written, done.conflicts) == (2, [])
    assert sorted(desk.said()["a"]) == sorted(before["a"])


def of_own(desk: Desk, task: str, action: Action, then: str | None = None) -> Plan:
    """A plan about every annotation of a task."""
    held = desk.tool.read_task(task)
    corrections = (
        Correction(
            task=task,
            key=held.key,
            action=action,
            annotation=one.id,
            annotator=one.annotator,
            expect=one.revision,
            now=one.result,
            then=then,
            why="so",
        )
        for one in held.annotations
    )
    return Plan(project=PROJECT, source={}, corrections=tuple(corrections))


@pytest.mark.parametrize("action", [Action.REPLACE, Action.DELETE])
def test_of_several_that_are_ground_truth_each_is_corrected(desk: Desk, action: Action) -> None:
    [task] = contract.add(desk.tool, "a")
    desk.answer(task, ("cat", "cat"))
    held = desk.tool.project.tasks[task.id]  # as an import leaves them
    truths = tuple(a.model_copy(update={"ground_truth": True}) for a in held.annotations)
    desk.tool.project.tasks[task.id] = held.model_copy(update={"annotations": truths})
    before = desk.said()
    planned = of_own(desk, task.id, action, json.dumps([contract.choice("dog")]))
    done = desk.apply(planned)
    assert (done.written, done.conflicts) == (2, [])
    undone = desk.undo(planned.run)
    assert (undone.written, undone.conflicts) == (2, [])
    if action is Action.REPLACE:
        assert desk.said() == before
    else:  # one can have it: the tool takes it from the others
        assert sorted(truth for *_, truth in desk.said()["a"]) == [False, True]
        assert sum("stays without its ground truth" in note.why for note in undone.notes) == 1


def test_a_note_of_several_lines_is_one_line_and_can_be_taken_back(desk: Desk) -> None:
    planned = three_to_correct(desk, "return")
    first = Correction.model_validate(
        {**planned.corrections[0].model_dump(), "note": "Please look again.\nSee page 3."}
    )
    made = planned.model_copy(update={"corrections": (first,)})
    assert desk.apply(made).written == 1
    assert desk.tool.read_task("1").note == "Please look again. See page 3."
    assert desk.apply(made).already == 1
    assert desk.undo(made.run).written == 1
    assert desk.tool.read_task("1").note is None


def test_a_plan_that_was_edited_and_applied_again_predicts_nothing_twice(desk: Desk) -> None:
    planned = three_to_correct(desk, "predict")
    desk.apply(planned)
    first, *rest = planned.corrections
    edited = planned.model_copy(update={"corrections": (first.model_copy(update={"why": "sure"}), *rest)})
    done = desk.apply(edited)
    assert (done.written, len(done.conflicts)) == (0, 3)
    assert [len(desk.tool.read_task(str(n)).predictions) for n in (1, 2, 3)] == [1, 1, 1]


def test_a_plan_that_is_applied_after_its_undo_says_so_and_how_to_apply_it_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = three_to_correct(desk, "replace")
    planned.save(desk.folder / "plan.jsonl")
    desk.apply(planned)
    desk.undo(planned.run)
    given_to_commands(desk, monkeypatch)
    for _ in range(2):  # it is not forgotten after the first try
        code, out, err = run_command(["correct", "apply", "plan.jsonl"], desk.folder, {})
        assert code == Conflict.exit_code
        assert f"3 of the corrections of run {planned.run} had been undone before" in out
        assert "it was undone; annotation" in err
        assert "make a new plan" in err
    code, out, _ = run_command(["correct", "apply", "plan.jsonl", "--json"], desk.folder, {})
    answer = json.loads(out)
    assert (code, answer["undone_before"]) == (Conflict.exit_code, 3)
    assert {one["why"].split(";")[0] for one in answer["conflicts"]} == {"it was undone"}
    assert desk.journal().runs()[0].states == {"undone": 3}
    again = desk.plan("replace")
    assert again.run != planned.run
    assert desk.apply(again).written == 3


def test_what_was_undone_and_is_as_planned_is_written_again_and_counted(desk: Desk) -> None:
    planned = three_to_correct(desk, "ask")
    assert desk.apply(planned).undone == 0
    desk.undo(planned.run)
    done = desk.apply(planned)
    assert (done.written, done.undone, done.conflicts) == (3, 3, [])


def test_a_conflict_of_undo_does_not_advise_to_pull(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = three_to_correct(desk, "replace")
    desk.apply(planned)
    ours = desk.tool.read_task(planned.corrections[0].task).annotations[-1]
    contract.edit(desk.tool, ours, contract.choice("dog", meta={"text": ["mine"]}))
    given_to_commands(desk, monkeypatch)
    code, _, err = run_command(["correct", "undo", planned.run], desk.folder, {})
    assert code == Conflict.exit_code
    assert "next: what was edited since stays as it is" in err
    assert "pull" not in err.partition("next:")[2]


def given_to_commands(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands work on this tool and this journal."""

    class Line:
        name = PROJECT

        def tool(self, dry_run: bool = False) -> LabelingTool:
            return desk.tool

        def journal(self, dry_run: bool = False, accept: bool = False) -> Journal:
            assert not accept
            return desk.journal(dry_run)

        authenticated_journal = journal

    monkeypatch.setattr(Session, "project", Line())


def test_a_log_without_runs_is_one_sentence_and_an_empty_list(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_to_commands(desk, monkeypatch)
    code, out, _ = run_command(["correct", "log"], desk.folder, {})
    sentence = "No corrections have been applied yet; `connector correct plan` makes a plan.\n"
    assert (code, out) == (0, sentence)
    assert json.loads(run_command(["correct", "log", "--json"], desk.folder, {})[1])["runs"] == []
