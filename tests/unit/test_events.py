"""What the store's changes tell, each once, in order, whenever somebody looks."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from connector.config import parse
from connector.corrections.apply import apply
from connector.corrections.plan import Plan
from connector.errors import UsageError
from connector.events.detect import NAMES, gold_answers, note_events
from connector.events.log import Event, EventLog
from connector.journal.correction import Action, Correction
from connector.journal.journal import Journal, journal_of
from connector.model import Prediction, dump_json
from connector.store.label_store import Store
from tests.conftest import JOURNAL_KEYS
from tests.unit.memory_line import PEOPLE, MemoryLine, contract, told


@pytest.fixture
def line(tmp_path: Path) -> MemoryLine:
    return MemoryLine(tmp_path)


def of(events: list[Event], type: str) -> list[Event]:
    return [event for event in events if event.type == type]


def test_a_task_is_completed_when_as_many_as_asked_for_have_answered(line: MemoryLine) -> None:
    [task] = line.add("a")
    assert line.follow() == []
    line.say(task, "ann", "cat")
    assert line.follow() == []
    line.say(task, "ann", "cat")  # the same person again is no second one
    assert line.follow() == []
    line.say(task, "ben", "cat")
    events = line.follow()
    assert told(events) == [
        ("task.completed", f"task:{task}"),
        ("consensus.reached", f"task:{task}"),
        ("batch.completed", "batch:all"),
        ("batch.accepted", "batch:all"),
    ]
    [unit] = events[1].data["answer"]
    assert (unit["label"], unit["confidence"], events[1].data["annotators"]) == ("cat", 1.0, 2)
    assert line.follow() == []


def test_a_skipped_task_is_no_answer(line: MemoryLine) -> None:
    [task] = line.add("a")
    line.say(task, "ann", "cat")
    line.say(task, "ben", cancelled=True)
    assert line.follow() == []


def test_who_is_no_ordinary_person_completes_a_task_and_does_not_agree(tmp_path: Path) -> None:
    """The tool counts them, and shows the task to nobody else then."""
    line = MemoryLine(tmp_path, '[roles]\ncem = "reviewer"\ndee = "gold"', overlap=3)
    [task] = line.add("a")
    line.say(task, "ann", "cat")
    line.say(task, "cem", "cat")
    assert line.follow() == []
    line.say(task, "dee", "cat")
    events = line.follow()
    assert [event.type for event in events] == ["task.completed", "batch.completed", "batch.accepted"]
    assert (events[0].data["annotators"], events[0].data["answered"]) == (1, 3)


@pytest.mark.parametrize("starred", [True, False])
def test_an_answer_that_is_starred_stays_a_vote(tmp_path: Path, starred: bool) -> None:
    line = MemoryLine(tmp_path, '[events]\nbatch = "week"\nagreement = 0.3')
    [task] = line.add("a")
    star = line.say(task, "ann", "cat")
    line.say(task, "ben", "dog")
    assert told(of(line.follow(), "consensus.failed"))
    if starred:
        line.tool.write_annotation(star.model_copy(update={"ground_truth": True}), star.revision)
    assert line.follow() == []
    line.say(task, "cem", "cat")
    [reached, accepted] = line.follow()
    assert (reached.type, reached.data["annotators"], reached.data["answered"]) == ("consensus.reached", 3, 3)
    assert [unit["label"] for unit in reached.data["answer"]] == ["cat"]
    assert accepted.type == "batch.accepted"


def test_what_a_plan_wrote_completes_no_task(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path)
    [task] = line.add("a")
    line.say(task, "ann", "cat")
    held = line.tool.read_task(task)
    result = dump_json([contract.choice("cat")])
    correction = Correction(
        task=task, key="a", action=Action.ADD, expect=held.revision, then=result, why="it is a cat"
    )
    made = Plan(project="memory", source={}, corrections=(correction,))
    journal = Journal(journal_of(line.store.url), keys=JOURNAL_KEYS)
    assert apply(line.tool, made, "memory", journal, lambda: datetime.now(UTC)).written == 1
    assert line.follow() == []
    line.say(task, "ben", "cat")
    completed, *_ = line.follow()
    assert (completed.type, completed.data["answered"]) == ("task.completed", 2)


def test_people_who_differ_do_not_agree_and_may_later(line: MemoryLine) -> None:
    [task] = line.add("a")
    line.say(task, "ann", "cat")
    held = line.say(task, "ben", "dog")
    failed = of(line.follow(), "consensus.failed")
    assert [(e.data["confidence"], e.data["agreement"]) for e in failed] == [(0.5, 0.0)]
    assert of(line.log.events(), "batch.accepted") == []
    held = line.change(held, "cat")
    assert told(of(line.follow(), "consensus.reached")) == [("consensus.reached", f"task:{task}")]
    line.change(held, "dog")
    events = line.follow()
    assert told(of(events, "consensus.failed")) == [("consensus.failed", f"task:{task}")]
    assert events[0].id != failed[0].id


def test_asking_for_more_reopens_a_task_and_its_next_completion_is_another(line: MemoryLine) -> None:
    [task] = line.add("a")
    line.say(task, "ann", "cat")
    line.say(task, "ben", "dog")
    first = line.follow()
    line.tool.set_task_overlap(task, 3)
    assert told(line.follow()) == [("task.reopened", f"task:{task}")]
    line.say(task, "cem", "dog")
    second = line.follow()
    assert told(second)[:2] == [("task.completed", f"task:{task}"), ("consensus.reached", f"task:{task}")]
    assert len({event.id for event in first + second}) == len(first + second)


def test_an_answer_that_is_gone_reopens_the_task(line: MemoryLine) -> None:
    [task] = line.add("a")
    line.say(task, "ann", "cat")
    held = line.say(task, "ben", "cat")
    line.follow()
    line.tool.delete_annotation(str(held.id), held.revision)
    assert told(line.follow()) == [("task.reopened", f"task:{task}")]


def test_where_nobody_can_differ_nobody_agrees(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path, overlap=1)
    [task] = line.add("a")
    line.say(task, "ann", "cat")
    assert [event.type for event in line.follow()] == ["task.completed", "batch.completed", "batch.accepted"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("confidence = 0.6", "consensus.reached"),
        ("confidence = 0.7", "consensus.failed"),
        ("agreement = 0.3", "consensus.reached"),
        ("agreement = 0.4", "consensus.failed"),
    ],
)
def test_what_counts_as_agreement_can_be_set(tmp_path: Path, config: str, expected: str) -> None:
    line = MemoryLine(tmp_path, f"[events]\n{config}", overlap=3)
    [task] = line.add("a")
    for who, label in (("ann", "cat"), ("ben", "cat"), ("cem", "dog")):
        line.say(task, who, label)
    [event] = [event for event in line.follow() if event.type.startswith("consensus")]
    assert event.type == expected


def test_a_task_with_the_id_of_one_that_is_gone_is_another(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path)
    line.tool.project.reuse_ids = True
    seen = []
    for key in ("a", "b"):
        [task] = line.add(key)
        line.say(task, "ann", "cat")
        line.say(task, "ben", "cat")
        seen += of(line.follow(), "task.completed")
        line.tool.project.delete_task(task)
    assert [event.subject for event in seen] == ["task:1", "task:1"]
    assert seen[0].id != seen[1].id


def test_a_model_that_is_not_sure_is_told_of_once(line: MemoryLine) -> None:
    tasks = line.add("a", "b")
    guesses = [
        Prediction(task_id=task, result="[]", model_version="m", score=score)
        for task, score in zip(tasks, (0.2, 0.9), strict=True)
    ]
    line.tool.write_predictions(guesses)
    assert told(line.follow()) == [("prediction.uncertain", f"task:{tasks[0]}")]
    line.say(tasks[0], "ann", "cat")
    assert line.follow() == []


def test_batches_are_complete_by_themselves(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path, '[events]\nbatch = "week"', overlap=1)
    first, second = line.add("a", week="1") + line.add("b", week="2")
    other = line.add("c", week="2")[0]
    line.say(first, "ann", "cat")
    assert told(of(line.follow(), "batch.completed")) == [("batch.completed", "batch:1")]
    line.say(second, "ann", "cat")
    assert of(line.follow(), "batch.completed") == []
    line.tool.project.delete_task(other)  # what is gone is not waited for
    assert told(of(line.follow(), "batch.completed")) == [("batch.completed", "batch:2")]
    more = line.add("d", week="1")[0]
    assert line.follow() == []
    line.say(more, "ben", "dog")
    [again] = of(line.follow(), "batch.completed")
    assert (again.subject, again.data["size"]) == ("batch:1", 2)


def fail_gold(line: MemoryLine, rights: int, wrongs: int, who: str = "ann") -> list[Event]:
    for n, label in enumerate(["cat"] * rights + ["dog"] * wrongs):
        [task] = line.add(f"{who}-{len(line.tool.project.tasks)}-{n}")
        line.say(task, "dee", "cat", ground_truth=True)
        line.say(task, who, label)
    return of(line.follow(), "annotator.failing")


def test_an_annotator_fails_when_the_whole_interval_lies_below_the_limit(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path, '[roles]\ndee = "gold"', overlap=3)
    assert fail_gold(line, rights=1, wrongs=1) == []  # 50 %, but of two nobody can tell
    [event] = fail_gold(line, rights=0, wrongs=8)
    assert (event.subject, event.data["n"]) == ("annotator:ann/animal", 10)
    assert event.data["high"] < 0.8
    assert len(event.data["tasks"]) == 10
    assert fail_gold(line, rights=0, wrongs=3) == []  # told already
    assert [e.subject for e in fail_gold(line, rights=0, wrongs=8, who="ben")] == ["annotator:ben/animal"]


def test_gold_may_lie_in_a_file(tmp_path: Path) -> None:
    right = [{"result": [contract.choice("cat")]}]
    (tmp_path / "gold.json").write_text(
        json.dumps([{"id": f"k{n}", "annotations": right} for n in range(10)])
    )
    line = MemoryLine(tmp_path, '[events]\ngold = "gold.json"')
    for task in line.add(*(f"k{n}" for n in range(10))):
        line.say(task, "ann", "dog")
    assert [e.subject for e in of(line.follow(), "annotator.failing")] == ["annotator:ann/animal"]


def test_who_answered_few_gold_tasks_is_not_failing_yet(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path, '[roles]\ndee = "gold"\n[events]\ngold_least = 3')
    assert fail_gold(line, rights=0, wrongs=2) == []  # the interval lies below the limit after one already
    [event] = fail_gold(line, rights=0, wrongs=1)
    assert (event.data["n"], len(event.data["tasks"])) == (3, 3)


def test_gold_answers_that_contradict_judge_nobody_and_stop_nothing(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path, '[roles]\ndee = "gold"\neve = "gold"', overlap=3)
    [disputed] = line.add("disputed")
    for who, label in (("dee", "cat"), ("eve", "dog"), ("ann", "horse")):
        line.say(disputed, who, label)
    assert "task.completed" in [event.type for event in line.follow()]
    [event] = fail_gold(line, rights=0, wrongs=6)
    assert (event.data["n"], disputed in event.data["tasks"]) == (6, False)


def test_a_gold_answer_of_another_kind_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "gold.csv").write_text("task,control,label\nk,age,old\n")
    line = MemoryLine(tmp_path, '[events]\ngold = "gold.csv"', overlap=1)
    line.tool.write_ontology(
        line.tool.parse_ontology(
            '<View><Image name="image" value="$image"/><Number name="age" toName="image"/></View>'
        )
    )
    [task] = line.add("k")
    said = [{"from_name": "age", "to_name": "image", "type": "number", "value": {"number": 7}}]
    contract.write(line.tool, line.tool.read_task(task), "ann", *said)
    assert [event.type for event in line.follow()] == ["task.completed", "batch.completed", "batch.accepted"]


def test_only_tasks_with_a_known_answer_are_read_for_the_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = MemoryLine(tmp_path, '[roles]\ndee = "gold"')
    fail_gold(line, rights=3, wrongs=0)
    others = line.add("x", "y")
    line.follow()
    read: set[str] = set()
    history = line.store.history

    def watched(tasks: Sequence[str]) -> pl.DataFrame:
        read.update(tasks)
        return history(tasks)

    monkeypatch.setattr(line.store, "history", watched)
    fail_gold(line, rights=0, wrongs=3)
    assert len(read) == 6
    assert not read & set(others)


def test_the_data_of_an_event_has_the_names_that_are_told(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path, '[roles]\ndee = "gold"')
    fail_gold(line, rights=0, wrongs=8)
    first, second = line.add("a", "b")
    for task, label in ((first, "cat"), (second, "dog")):
        line.say(task, "ann", "cat")
        line.say(task, "ben", label)
    line.tool.write_predictions([Prediction(task_id=first, result="[]", model_version="m", score=0.1)])
    line.follow()
    line.tool.set_task_overlap(first, 3)
    line.follow()
    seen = {event.type: set(event.data) for event in line.log.events()}
    assert seen == {type: set(NAMES[type]) for type in NAMES if not type.startswith("ask.")}  # type: ignore[index]


@pytest.mark.parametrize("name", ["missing.csv", "folder", "no-tasks.csv", "broken.json", "forbidden.csv"])
def test_a_gold_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "no-tasks.csv").write_text("label\ncat\n")
    (tmp_path / "broken.json").write_text("[1")
    if name == "forbidden.csv":  # to the administrator nothing is forbidden
        monkeypatch.setattr("connector.events.detect.read_file", lambda *_: (tmp_path / "folder").open())
    config = parse(f'[events]\ngold = "{name}"', tmp_path / "connector.toml")
    with pytest.raises(UsageError, match=str(tmp_path / name)):
        gold_answers(config)


def test_what_happened_before_the_first_time_is_noted_and_nothing_is_done(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path)
    [task] = line.add("a")
    line.say(task, "ann", "cat")
    line.say(task, "ben", "cat")
    line.follow()
    asked: list[Event] = []

    def planned(event: Event) -> tuple[()]:
        asked.append(event)
        return ()

    late = EventLog(tmp_path / "late.sqlite", "memory")
    assert len(note_events(line.store, late, line.config, planned)) == 4
    assert asked == []
    line.say(task, "cem", "dog")
    line.say(task, "dee", "dog")
    line.follow()
    assert told(note_events(line.store, late, line.config, planned)) == [("consensus.failed", f"task:{task}")]
    assert len(asked) == 1


def asked_about(line: MemoryLine) -> tuple[list[Event], list[Event]]:
    """What is new, and of which of it somebody asked what is to be done."""
    asked: list[Event] = []

    def planned(event: Event) -> tuple[()]:
        asked.append(event)
        return ()

    return line.follow(planned), asked


def test_what_other_settings_make_of_the_past_is_noted_and_nothing_is_done(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path, overlap=3)
    [task] = line.add("a")
    for who, label in (("ann", "cat"), ("ben", "cat"), ("cem", "dog")):
        line.say(task, who, label)
    assert told(of(line.follow(), "consensus.reached"))
    line.config = parse("[events]\nconfidence = 0.7", tmp_path / "connector.toml")
    line.say(task, "dee", "cat")
    new, asked = asked_about(line)
    assert [event.type for event in new] == ["consensus.failed", "consensus.reached"]
    assert [event.type for event in asked] == ["consensus.reached"]


def test_a_store_that_went_back_is_followed_from_its_beginning(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path)
    task, gone = line.add("a", "b")
    for who in ("ann", "ben"):
        line.say(task, who, "cat")
        line.follow()
    line.say(gone, "ann", "cat")
    line.follow()
    known = len(line.log.events())
    line.tool.project.delete_task(gone)
    line.store = Store(str(tmp_path / "anew"), "memory")
    # What is known is not told again, and a task that was lost meanwhile keeps no batch waiting.
    new, asked = asked_about(line)
    assert [event.type for event in new] == [event.type for event in asked]
    assert [event.type for event in new] == ["batch.completed", "batch.accepted"]
    assert len(line.log.events()) == known + 2
    [task] = line.add("c")
    line.say(task, "ann", "cat")
    line.say(task, "ben", "dog")
    assert told(of(asked_about(line)[1], "consensus.failed")) == [("consensus.failed", f"task:{task}")]


def test_many_batches_at_once_are_each_complete(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path, '[events]\nbatch = "week"', overlap=1)
    for n in range(30):
        [task] = line.add(f"k{n}", week=str(n // 2))
        if n:
            line.say(task, "ann", "cat")
    done = of(line.follow(), "batch.completed")
    assert sorted(event.subject for event in done) == sorted(f"batch:{n}" for n in range(1, 15))
    assert {event.data["size"] for event in done} == {2}


def test_a_crash_before_the_commit_repeats_and_loses_nothing(line: MemoryLine) -> None:
    [task] = line.add("a")
    line.say(task, "ann", "cat")
    line.say(task, "ben", "cat")

    def dies(event: Event) -> list[tuple[str, dict[str, str]]]:
        if event.type == "consensus.reached":
            raise KeyboardInterrupt
        return [("rule", {"do": "queue", "queue": "x"})]

    with pytest.raises(KeyboardInterrupt):
        line.follow(dies)
    assert line.log.events() == []
    assert line.log.deliveries() == []
    assert len(line.follow(lambda _: [("rule", {"do": "queue", "queue": "x"})])) == 4
    assert len(line.log.deliveries()) == 4


@dataclass(frozen=True)
class Step:
    """Somebody does something. Asking for more people comes after a look, as a rule's doing does."""

    do: Callable[[MemoryLine], object]
    after_a_look: bool = False


def lively(seed: int) -> list[Step]:
    """A story: people answer, and now and then more of them are asked for."""
    chance, steps = random.Random(seed), list[Step]()
    answers = [(task, who) for task in "1234" for who in PEOPLE[:4]]
    chance.shuffle(answers)
    for task, who in answers:
        label = chance.choice(["cat", "cat", "dog"])
        steps.append(Step(lambda line, task=task, who=who, label=label: line.say(task, who, label)))
        if chance.random() < 0.2:
            steps.append(Step(lambda line, task=task: line.tool.set_task_overlap(task, 3), True))
    return steps


@pytest.mark.parametrize("seed", range(2))
def test_whoever_looks_seldom_or_twice_finds_the_same_events(tmp_path: Path, seed: int) -> None:
    """As with a receiver that was down for a while, or is told the same thing again and again."""
    found, chance = [], random.Random(seed)
    for name, looks in (("always", 1), ("seldom", 0.15), ("when asked", 0), ("twice", 2)):
        line = MemoryLine(tmp_path / name)
        line.add(*"abcd")
        line.follow()
        for step in lively(seed):
            if step.after_a_look:
                line.follow()
            step.do(line)
            if step.after_a_look:
                line.follow()
            for _ in range(int(looks) or chance.random() < looks):
                line.follow()
        line.follow()
        events = [event for event in line.log.events() if of_task(event)]
        for subject in {event.subject for event in events}:
            assert_in_order([event for event in events if event.subject == subject])
        found.append(sorted((e.id, e.type, e.subject, known_time(e), e.data) for e in events))
    assert found[0]
    assert found[1:] == found[:1] * 3


def of_task(event: Event) -> bool:
    return event.subject.startswith("task:")


def assert_in_order(events: list[Event]) -> None:
    complete = False
    for event in events:
        if event.type in ("task.completed", "task.reopened"):
            assert complete is (event.type == "task.reopened")
            complete = not complete
        else:
            assert complete
    times = [known_time(event) for event in events if known_time(event)]
    assert times == sorted(times)


def known_time(event: Event) -> str:
    """When it happened. Nobody knows when more people were asked for: only that it was seen."""
    return "" if event.type == "task.reopened" else event.at.isoformat()


def test_another_place_with_a_copy_of_the_store_finds_the_same_events(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path / "one")
    line.add(*"abcd")
    for step in lively(7):
        step.do(line)
        line.follow()
    shutil.copytree(tmp_path / "one" / "labels", tmp_path / "copy")
    log = EventLog(tmp_path / "again.sqlite", "memory")
    note_events(Store(str(tmp_path / "copy"), "memory"), log, line.config, lambda _: ())
    again = {event.id for event in log.events() if of_task(event)}
    assert again == {event.id for event in line.log.events() if of_task(event)}
