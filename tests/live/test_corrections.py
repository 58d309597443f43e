"""Corrections on a real Label Studio: every policy there and back, and what goes wrong in the middle."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from connector.adapters.label_studio.adapter import LabelStudio, create_project
from connector.adapters.label_studio.client import Server
from connector.corrections.apply import apply
from connector.corrections.plan import Plan
from connector.corrections.undo import undo
from connector.demo.pictures import LABEL_CONFIG, Box, result
from connector.demo.server import Running, s3_server
from connector.errors import Temporary
from connector.journal.correction import Action, Correction
from connector.journal.journal import Journal, State
from connector.model import Annotation, Item, Task, dump_json
from connector.store.label_store import Store
from connector.store.labels import read_store
from tests.conftest import JOURNAL_KEYS, Line
from tests.live.test_faults import kill_when
from tests.unit.test_forged_journals import forget_marks, relinked

pytestmark = pytest.mark.live

POLICIES = ["add", "replace", "predict", "delete", "return", "ask"]


def labeled(line: Line, n: int, split: bool = False) -> dict[str, str]:
    """Tasks that two or three people answered, one of them otherwise: the id of each by its key."""
    scenes = ("field", "street") if split else ("field", "field", "street")
    said = [
        {
            "result": result(scene, [Box("car", 10, 10, 20, 20)], f"a{who}"),
            "completed_by": line.server.annotators[who].id,
            "lead_time": 10 + who,
            "ground_truth": False,
        }
        for who, scene in enumerate(scenes)
    ]
    body = [
        {"data": {"image": f"s3://raw/{number}.png", "connector_key": f"k{number}"}, "annotations": said}
        for number in range(n)
    ]
    Server(line.server.url, line.server.owner.pat).post(f"/api/projects/{line.project}/import", body)
    line.ask("pull")
    return dict(line.tool.known_keys())


def held(line: Line) -> dict[str, Any]:
    """What the tool holds, apart from ids and times."""
    return {task.key: seen(task) for task in line.tool.read_tasks(line.tool.task_ids())}


def seen(task: Task) -> tuple[object, ...]:
    said = sorted(
        (a.annotator, a.result, a.ground_truth, a.cancelled, a.seconds or 0) for a in task.annotations
    )
    return said, sorted((p.model_version, p.result) for p in task.predictions), task.note, task.overlap


@pytest.mark.parametrize("policy", POLICIES)
def test_what_each_policy_does_is_done_once_and_taken_back(line: Line, policy: str) -> None:
    labeled(line, 2, split=policy == "ask")
    if policy == "ask":  # else they would still be waiting for the third
        line.tool.set_overlap(2)
        line.ask("pull")
    before = held(line)
    assert line.ask("correct", "plan", "--policy", policy)["corrections"] == 2
    assert line.ask("correct", "apply", "plan.jsonl", "--dry-run")["written"] == 2
    assert held(line) == before
    done = line.ask("correct", "apply", "plan.jsonl")
    assert (done["written"], done["conflicts"], done["failed"]) == (2, [], [])
    after = held(line)
    assert all(after[key] != before[key] for key in before)
    assert line.ask("correct", "apply", "plan.jsonl")["already"] == 2
    assert held(line) == after
    line.ask("pull")
    again = line.ask("correct", "plan", "--policy", policy, "--out", "again.jsonl")
    assert again["corrections"] == (2 if policy == "return" else 0)  # the annotator has not looked yet
    undone = line.ask("correct", "undo", done["run"])
    assert (undone["taken_back"], undone["conflicts"]) == (2, [])
    assert held(line) == before
    chain = line.ask("correct", "verify")
    assert line.ask("correct", "verify", "--head", chain["head"])["lines"] == chain["lines"]
    [run] = line.ask("correct", "log")["runs"]
    assert run["corrections"] == {"undone": 2}


def test_a_forged_journal_writes_nothing_into_peoples_annotations(line: Line) -> None:
    """The attacker can write to the whole bucket, label store included, and does not have the key."""
    labeled(line, 3)
    before = held(line)
    line.ask("correct", "plan", "--policy", "replace")
    done = line.ask("correct", "apply", "plan.jsonl")
    line.ask("pull")
    after = held(line)
    journal = line.folder / "labels-corrections"
    shutil.copytree(journal, line.folder / "copy")
    relinked(journal, lambda data: data.replace(b"street", b"forged"), seal=False)
    forget_marks(line.folder / "labels")
    for words in (
        ("undo", done["run"]),
        ("undo", done["run"], "--dry-run"),
        ("apply", "plan.jsonl"),
        ("verify",),
    ):
        code, _, err = line.run("correct", *words)
        assert code == 2, words
        assert "is not authenticated: 0000000" in err
    assert held(line) == after
    shutil.rmtree(journal)
    assert line.run("correct", "undo", done["run"])[0] == 2
    (line.folder / "copy").rename(journal)
    assert line.ask("correct", "undo", done["run"])["taken_back"] == 3
    assert held(line) == before


def test_a_task_that_is_given_back_stands_in_its_annotators_list_with_a_note(line: Line) -> None:
    tasks = labeled(line, 2)
    line.ask("correct", "plan", "--policy", "return")
    done = line.ask("correct", "apply", "plan.jsonl")
    owner = Server(line.server.url, line.server.owner.pat)

    def listed() -> list[str]:
        [view] = owner.get("/api/dm/views/", {"project": line.project})
        assert view["data"]["title"] == f"Back to {line.server.annotators[2].email} ({done['run']})"
        found = owner.get("/api/tasks/", {"project": line.project, "view": view["id"]})["tasks"]
        return sorted(str(task["id"]) for task in found)

    assert listed() == sorted(tasks.values())
    shown = owner.get(f"/api/tasks/{tasks['k0']}/")["data"]["connector_note"]
    assert shown.startswith(f"{line.server.annotators[2].email}, please look again: most others")
    columns = owner.get("/api/dm/columns", {"project": line.project})["columns"]
    assert "connector_note" in {column["id"] for column in columns}
    line.ask("correct", "undo", done["run"])
    assert listed() == []


def test_a_task_of_which_one_more_is_asked_is_served_to_one_more(line: Line) -> None:
    tasks = labeled(line, 1, split=True)
    line.tool.set_overlap(2)
    line.ask("pull")
    fourth = Server(line.server.url, line.server.annotators[3].pat)
    path = f"/api/projects/{line.project}/next"
    with pytest.raises(Exception, match="no such thing"):
        fourth.get(path)
    assert line.ask("correct", "plan", "--policy", "ask")["corrections"] == 1
    line.ask("correct", "apply", "plan.jsonl")
    assert str(fourth.get(path)["id"]) == tasks["k0"]


def test_a_ground_truth_is_not_taken_for_the_one_more_that_is_asked(line: Line) -> None:
    [task] = labeled(line, 1, split=True).values()
    line.tool.set_overlap(2)
    said = json.dumps(result("field", [], "t"))
    me = line.tool.whoami().name
    truth = Annotation(task_id=task, annotator=me, result=said, ground_truth=True)
    line.tool.write_annotation(truth, line.tool.read_task(task).revision)
    line.tool.set_task_overlap(task, 3)
    fourth = Server(line.server.url, line.server.annotators[3].pat)
    assert str(fourth.get(f"/api/projects/{line.project}/next")["id"]) == task


MANY = 100
"""More than the journal notes at once."""


def test_an_applier_that_is_killed_writes_each_once(line: Line) -> None:
    labeled(line, MANY)
    line.ask("correct", "plan")
    before = held(line)

    def truths() -> int:
        return sum(
            a.ground_truth for task in line.tool.read_tasks(line.tool.task_ids()) for a in task.annotations
        )

    for least in (3, 55):
        kill_when(line, lambda least=least: truths() >= least, "correct", "apply", "plan.jsonl")
        assert truths() < MANY
    line.ask("pull")
    done = line.ask("correct", "apply", "plan.jsonl")
    assert done["written"] + done["already"] == MANY
    assert (done["conflicts"], done["failed"]) == ([], [])
    assert [len(said) for said, *_ in held(line).values()] == [4] * MANY
    line.ask("pull")
    assert line.ask("correct", "plan")["corrections"] == 0

    kill_when(line, lambda: truths() < MANY - 10, "correct", "undo", done["run"])
    assert 0 < truths() < MANY
    line.ask("correct", "undo", done["run"])
    assert held(line) == before


def lose_storage(line: Line) -> None:
    """Let the project's annotations be exported to a server that dies: each is saved, and answered 500."""
    owner = Server(line.server.url, line.server.owner.pat)
    with s3_server() as dying:
        body = {
            "project": line.project,
            "bucket": "raw",
            "prefix": "out",
            "s3_endpoint": dying.options["endpoint"],
            "region_name": dying.options["region"],
            "aws_access_key_id": dying.options["access_key_id"],
            "aws_secret_access_key": dying.options["secret_access_key"],
        }
        owner.post("/api/storages/export/s3", body)


@pytest.mark.parametrize("policy", ["add", "replace"])
def test_a_server_that_fails_after_it_has_saved_keeps_exactly_one(line: Line, policy: str) -> None:
    [task] = labeled(line, 1).values()
    line.ask("correct", "plan", "--policy", policy)
    [(before, *_)] = held(line).values()
    lose_storage(line)
    done = line.ask("correct", "apply", "plan.jsonl")
    assert (done["written"], done["failed"], done["conflicts"]) == (1, [], [])
    now = line.tool.read_task(task).annotations
    assert len(now) == len(before) + (policy == "add")
    assert line.ask("correct", "apply", "plan.jsonl")["already"] == 1
    assert line.tool.read_task(task).annotations == now
    with pytest.raises(Temporary, match="500"):  # it was dead indeed
        line.answer(3, task, result("field", [], "z"))


def test_of_several_that_were_imported_as_ground_truth_each_is_corrected(line: Line) -> None:
    said = [
        {"result": result("field", [], f"a{who}"), "completed_by": line.server.annotators[who].id}
        for who in range(2)
    ]
    body = [{"data": {"image": "s3://raw/0.png", "connector_key": "k"}, "annotations": said}]
    Server(line.server.url, line.server.owner.pat).post(f"/api/projects/{line.project}/import", body)
    line.ask("pull")
    before = held(line)
    assert [truth for _, _, truth, *_ in before["k"][0]] == [True, True]
    (line.folder / "new.json").write_text(json.dumps({"scene": {"field": "street"}}))
    line.ask("correct", "plan", "--from", "ontology", "--mapping", "new.json")
    done = line.ask("correct", "apply", "plan.jsonl")
    assert (done["written"], done["conflicts"]) == (2, [])
    assert [truth for _, _, truth, *_ in held(line)["k"][0]] == [True, True]
    assert line.ask("correct", "undo", done["run"])["taken_back"] == 2
    assert held(line) == before


def leave_draft(line: Line, who: int, task: str, annotation: str | None = None) -> None:
    """Annotator `who` edits an annotation, or begins a new one, in an own account, and does not save it."""
    place = f"/api/tasks/{task}" + (f"/annotations/{annotation}" if annotation else "")
    body = {"result": result("street", [], "better"), "lead_time": 3}
    Server(line.server.url, line.server.annotators[who].pat).post(f"{place}/drafts", body)


def drafts(line: Line, task: str) -> list[tuple[str, int | None]]:
    found = Server(line.server.url, line.server.owner.pat).get(f"/api/tasks/{task}/drafts")
    return sorted((one["user"], one["annotation"]) for one in found)


@pytest.mark.parametrize("policy", ["replace", "delete"])
def test_an_unsaved_draft_on_an_annotation_keeps_it_from_being_written(line: Line, policy: str) -> None:
    tasks = labeled(line, 3)
    first, second = (line.tool.read_task(tasks[key]).annotations[2] for key in ("k0", "k1"))
    leave_draft(line, 2, tasks["k0"], first.id)
    leave_draft(line, 1, tasks["k1"], second.id)
    # These two are not lost: one edits another annotation, one begins a new one.
    leave_draft(line, 1, tasks["k2"], line.tool.read_task(tasks["k2"]).annotations[1].id)
    leave_draft(line, 3, tasks["k2"])
    left = {key: drafts(line, task) for key, task in tasks.items()}
    line.ask("correct", "plan", "--policy", policy)
    for dry in (["--dry-run"], []):
        done = line.ask("correct", "apply", "plan.jsonl", *dry, code=7)
        assert done["written"] == 1
        assert done["conflicts"] == [
            {"task": tasks[key], "why": f"annotation {held.id} has an unsaved draft by {owner}"}
            for key, held, owner in (
                ("k0", first, line.server.annotators[2].email),
                ("k1", second, line.server.annotators[1].email),
            )
        ]
    assert line.tool.read_task(tasks["k0"]).annotations[2] == first
    assert {key: drafts(line, task) for key, task in tasks.items()} == left


@pytest.mark.parametrize("policy", ["add", "replace"])
def test_an_undo_leaves_alone_what_has_a_draft_since(line: Line, policy: str) -> None:
    tasks = labeled(line, 2)
    before = held(line)
    line.ask("correct", "plan", "--policy", policy)
    run = line.ask("correct", "apply", "plan.jsonl")["run"]
    written = line.tool.read_task(tasks["k0"]).annotations[3 if policy == "add" else 2]
    leave_draft(line, 0, tasks["k0"], written.id)
    undone = line.ask("correct", "undo", run, code=7)
    why = f"annotation {written.id} has an unsaved draft by {line.server.annotators[0].email}"
    assert (undone["taken_back"], undone["conflicts"]) == (1, [{"task": tasks["k0"], "why": why}])
    assert written in line.tool.read_task(tasks["k0"]).annotations
    assert len(drafts(line, tasks["k0"])) == 1
    [draft] = Server(line.server.url, line.server.owner.pat).get(f"/api/tasks/{tasks['k0']}/drafts")
    Server(line.server.url, line.server.owner.pat).send("DELETE", f"/api/drafts/{draft['id']}/")
    assert line.ask("correct", "undo", run)["taken_back"] == 1
    assert held(line) == before


def test_an_undo_of_a_ground_truth_keeps_the_draft_on_the_one_before(line: Line) -> None:
    [task] = labeled(line, 1).values()
    line.ask("correct", "plan")
    first = line.tool.read_task(task).annotations[0]
    made = Plan.load(line.folder / "plan.jsonl")
    truth = line.tool.write_annotation(first.model_copy(update={"ground_truth": True}), first.revision)
    [one] = made.corrections
    new = one.model_copy(update={"expect": line.tool.read_task(task).revision})
    made.model_copy(update={"corrections": (new,)}).save(line.folder / "plan.jsonl")
    run = line.ask("correct", "apply", "plan.jsonl")["run"]
    leave_draft(line, 1, task, truth.id)
    assert len(line.ask("correct", "undo", run, code=7)["conflicts"]) == 1
    assert len(line.tool.read_task(task).annotations) == 4
    assert len(drafts(line, task)) == 1


def test_the_history_of_a_task_names_people_and_plans(line: Line) -> None:
    labeled(line, 1)
    line.ask("correct", "plan", "--policy", "replace")
    run = line.ask("correct", "apply", "plan.jsonl")["run"]
    line.ask("pull")
    line.ask("correct", "undo", run)
    events = line.ask("correct", "log", "--task", "k0")["events"]
    assert [(one["what"], one["plan"]) for one in events] == [
        ("answered", None),
        ("answered", None),
        ("answered", None),
        ("replaced by a correction", run),
        ("replace undone", run),
    ]
    assert (events[3]["before"], events[3]["after"]) == ("street; car", "field; car")


class AtOnce(RuleBasedStateMachine):
    """Annotators, appliers and undoers on one task of a real server."""

    server: Running

    def __init__(self) -> None:
        super().__init__()
        self.owner = Server(self.server.url, self.server.owner.pat)
        project = create_project(self.owner, "At once", LABEL_CONFIG, 3)
        self.tool = LabelStudio(self.server.url, self.server.owner.token, project)
        self.project = str(project)
        self.folder = tempfile.TemporaryDirectory()
        self.journal = lambda: Journal(str(Path(self.folder.name) / "corrections"), keys=JOURNAL_KEYS)
        self.plans: list[Plan] = []
        self.said = itertools.count()
        self.people: dict[str, str] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    def answer(self) -> list[dict[str, Any]]:
        return result("field", [Box("car", 10 + next(self.said) / 10, 10, 20, 20)], "a")

    def now(self) -> datetime:
        return datetime.now(UTC)

    @property
    def task(self) -> Task:
        return self.tool.read_task(self.id)

    @initialize()
    def labeled(self) -> None:
        [task] = self.tool.add_items([Item(key="k", data={"image": "s3://raw/1.png"})])
        self.id = task.id
        for who in self.server.annotators[:2]:
            one = Annotation(task_id=task.id, annotator=who.email, result=json.dumps(self.answer()))
            stored = self.tool.write_annotation(one, None)
            self.people[str(stored.id)] = stored.result

    @rule(which=st.integers(0, 2))
    def somebody_edits(self, which: int) -> None:
        if held := self.task.annotations:
            id, new = str(held[which % len(held)].id), self.answer()
            self.owner.send("PATCH", f"/api/annotations/{id}/", {"result": new})
            self.people[id] = dump_json(new)

    @rule(action=st.sampled_from(sorted(Action)), which=st.integers(0, 2), at_once=st.booleans())
    def plan(self, action: Action, which: int, at_once: bool) -> None:
        task = self.task
        own = task.annotations[which % len(task.annotations)] if task.annotations else None
        about = action in (Action.REPLACE, Action.DELETE, Action.RETURN)
        if about and own is None:
            return
        one = Correction(
            task=task.id,
            key=task.key,
            action=action,
            annotation=own.id if about and own else None,
            annotator=own.annotator if about and own else "",
            expect=own.revision if about and own else task.revision,
            overlap=task.overlap,
            now=own.result if about and own else None,
            then=dump_json(self.answer()),
            note=f"look again {next(self.said)}",
            why="so",
        )
        self.plans.insert(0, Plan(project=self.project, source={}, corrections=(one,)))
        if at_once:
            before = seen(self.task)
            self.apply(0)
            assert seen(self.task) != before
            if next(self.said) % 2:
                self.undo(0)
                assert seen(self.task) == before

    @precondition(lambda self: self.plans)
    @rule(which=st.integers(0, 1))
    def somebody_applies(self, which: int) -> None:
        self.apply(which)

    @precondition(lambda self: self.plans)
    @rule(which=st.integers(0, 1))
    def somebody_undoes(self, which: int) -> None:
        self.undo(which)

    def apply(self, which: int) -> None:
        made = self.plans[which % len(self.plans)]
        done = apply(self.tool, made, self.project, self.journal(), self.now)
        [one] = made.corrections
        if done.written and one.action in (Action.REPLACE, Action.DELETE):
            # What a person said last of it is what the plan knew: nobody's later edit was overwritten. One
            # that an undo made again is nobody's in this list.
            assert self.people.get(str(one.annotation), one.now) == one.now
            self.people.pop(str(one.annotation), None)

    def undo(self, which: int) -> None:
        made = self.plans[which % len(self.plans)]
        if made.run in {run.run for run in self.journal().runs()}:
            undo(self.tool, made.run, self.project, self.journal(), self.now)

    @invariant()
    def what_people_last_said_stands_in_the_tool(self) -> None:
        held = {str(a.id): a.result for a in self.task.annotations}
        assert self.people.items() <= held.items()

    @invariant()
    def nothing_is_twice_and_the_journal_agrees(self) -> None:
        results = [a.result for a in self.task.annotations]
        assert len(set(results)) == len(results)
        for made in self.plans:
            for entry in self.journal().entries(made.run).values():
                assert entry.state not in (State.SENT, State.UNDOING, State.FAILED)


def test_annotators_and_corrections_at_once(label_studio: Running) -> None:
    machine = type("OnThisServer", (AtOnce,), {"server": label_studio})
    quiet = settings(
        max_examples=8,
        stateful_step_count=12,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # each step is a request: looking for a shorter way to a failure takes hours
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=quiet)


PER_ITEM = """<View><Image name="pics/a" valueList="$pics"/>
<Choices name="each/one" toName="pics/a" perItem="true"><Choice value="sun"/><Choice value="rain"/></Choices>
<Choices name="all" toName="pics/a"><Choice value="good"/><Choice value="bad"/></Choices></View>"""


@pytest.mark.parametrize("policy", ["add", "predict", "replace"])
def test_the_answers_about_each_picture_survive_a_correction(line: Line, policy: str) -> None:
    owner = Server(line.server.url, line.server.owner.pat)
    line.tool.write_ontology(line.tool.parse_ontology(PER_ITEM))

    def region(name: str, label: str, **more: Any) -> dict[str, Any]:
        head = {"id": f"r{more.get('item_index', 'w')}", "from_name": name, "to_name": "pics/a"}
        return {**head, "type": "choices", "value": {"choices": [label]}, **more}

    each = [region("each/one", label, item_index=n) for n, label in enumerate(("sun", "rain", "sun"))]
    body = [{"data": {"pics": [f"s3://raw/{n}.png" for n in range(3)], "connector_key": "k"}}]
    owner.post(f"/api/projects/{line.project}/import", body)
    [task] = line.tool.task_ids()
    for who, label in enumerate(("good", "good", "bad")):
        line.answer(who, task, [*each, region("all", label)])
    line.ask("pull")
    assert line.ask("correct", "plan", "--policy", policy)["corrections"] == 1
    assert line.ask("correct", "apply", "plan.jsonl")["written"] == 1
    found = line.tool.read_task(task)
    written = {
        "add": lambda: found.annotations[3].result,
        "replace": lambda: found.annotations[2].result,
        "predict": lambda: found.predictions[0].result,
    }[policy]()
    said = {(r["from_name"], r.get("item_index")): r["value"]["choices"] for r in json.loads(written)}
    assert said == {
        ("each/one", 0): ["sun"],
        ("each/one", 1): ["rain"],
        ("each/one", 2): ["sun"],
        ("all", None): ["good"],
    }
    if policy == "replace":
        assert [r for r in json.loads(written) if r["from_name"] == "each/one"] == each


def test_after_a_rename_old_answers_are_read_with_the_new_name(line: Line) -> None:
    """Agreement is what it was, each dissenter is still there, and the old label can be removed."""
    [task] = labeled(line, 1).values()  # field, field, street
    skip = Server(line.server.url, line.server.annotators[3].pat).post(
        f"/api/tasks/{task}/annotations/",
        {"result": result("field", [], "s"), "was_cancelled": True, "lead_time": 2},
    )
    line.ask("pull")

    def observed() -> float:
        controls = line.ask("quality", "consensus")["controls"]
        [found] = [one for one in controls if one["control"] == "scene"]
        return float(found["agreement"]["observed"]["value"])

    def answers() -> dict[str, str]:
        rows = read_store(Store(str(line.folder / "labels")), {}).labels
        joined = rows.regions.filter(control="scene").join(rows.answers, on="annotation")
        return dict(joined.select("annotator", "label").iter_rows())

    people = [one.email for one in line.server.annotators]
    assert observed() == pytest.approx(1 / 3)
    both = LABEL_CONFIG.replace('<Choice value="field"/>', '<Choice value="field"/><Choice value="meadow"/>')
    (line.folder / "both.xml").write_text(both)
    (line.folder / "new.xml").write_text(LABEL_CONFIG.replace('"field"', '"meadow"'))
    line.ask("ontology", "push", "both.xml")
    line.ask("pull")
    (line.folder / "map.json").write_text(json.dumps({"scene": {"field": "meadow"}}))
    assert line.ask("correct", "plan", "--from", "ontology", "--mapping", "map.json")["corrections"] == 3
    done = line.ask("correct", "apply", "plan.jsonl")
    assert (done["written"], done["conflicts"]) == (3, [])
    assert next(a for a in line.tool.read_task(task).annotations if a.id == str(skip["id"])).cancelled

    # Who uses the old label since, in the tool alone, keeps it.
    held = line.tool.read_task(task).annotations[0]
    owner = Server(line.server.url, line.server.owner.pat)
    owner.send("PATCH", f"/api/annotations/{held.id}/", {"result": result("field", [], "a0")})
    code, _, err = line.run("ontology", "push", "new.xml")
    assert (code, "scene: field (1)" in err) == (2, True)
    owner.send("PATCH", f"/api/annotations/{held.id}/", {"result": json.loads(held.result)})

    line.ask("pull")
    assert observed() == pytest.approx(1 / 3)
    line.ask("ontology", "push", "new.xml")
    line.ask("pull")
    assert observed() == pytest.approx(1 / 3)
    assert answers() == dict(zip(people, ["meadow", "meadow", "street"], strict=False))

    line.ask("ontology", "push", "both.xml")
    assert line.ask("correct", "undo", done["run"], code=7)["taken_back"] == 2  # the first was edited since
    line.ask("pull")
    assert answers() == dict(zip(people, ["meadow", "field", "street"], strict=False))


def test_a_ground_truth_of_a_table_that_names_one_question_answers_the_others_too(line: Line) -> None:
    [task] = labeled(line, 1).values()
    (line.folder / "fixes.csv").write_text("task,control,label\nk0,scene,street\n")
    assert line.ask("correct", "plan", "--from", "fixes.csv")["corrections"] == 1
    assert line.ask("correct", "apply", "plan.jsonl")["written"] == 1
    [truth] = [a for a in line.tool.read_task(task).annotations if a.ground_truth]
    said = {raw["from_name"]: raw["value"] for raw in json.loads(truth.result)}
    assert said["scene"] == {"choices": ["street"]}
    assert said["objects"]["rectanglelabels"] == ["car"]
    assert (said["objects"]["x"], said["objects"]["width"]) == (10, 20)
