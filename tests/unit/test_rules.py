"""Rules: what they make of events, and what of them cannot be followed."""

from __future__ import annotations

import re
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from connector.adapters.memory import CAPABILITIES
from connector.config import SIGNING_SECRET, parse
from connector.corrections.apply import apply
from connector.corrections.plan import Plan
from connector.errors import AuthError, Unsupported, UsageError
from connector.events.deliver import Sender
from connector.events.detect import NAMES
from connector.events.log import DEAD, DONE, WAITING, EventLog
from connector.events.rules import check, planned_by, rehearse
from connector.journal.correction import Action, Correction
from connector.journal.journal import Journal, journal_of
from connector.model import Prediction, dump_json
from tests.conftest import JOURNAL_KEYS
from tests.unit.memory_line import MemoryLine, contract

DOCS = Path(__file__).parents[2] / "docs" / "events.md"

ONE_MORE = """
[[rules]]
name = "one more"
when = "consensus.failed"
then = { do = "one-more", limit = 3 }
"""
SURE = """
[[rules]]
name = "look"
when = "prediction.uncertain"
then = { do = "queue", queue = "unsure" }
[[rules]]
name = "answer"
when = "task.completed"
after = "prediction.uncertain"
then = { do = "run", command = ["true"] }
"""


def obeyed(line: MemoryLine) -> list[tuple[str, str, str]]:
    """Follow, and carry out what is due, until nothing is."""
    sender = Sender(line.log, line.tool, lambda target: None)
    planned = planned_by(line.config.rules, line.log)
    while line.follow(planned) or sender.send_due(threading.Event()):
        pass
    return [(d.rule, d.event.subject, d.state) for d in reversed(line.log.deliveries())]


def test_where_people_differ_one_more_is_asked_and_then_an_expert(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path, ONE_MORE)
    first, second = line.add("a", "b")
    for task in (first, second):
        line.say(task, "ann", "cat")
        line.say(task, "ben", "dog")
    assert [rule for rule, _, _ in obeyed(line)] == ["one more"] * 2
    assert [line.tool.read_task(task).overlap for task in (first, second)] == [3, 3]
    assert line.tool.project.queues == {}
    line.say(first, "cem", "cat")
    line.say(second, "cem")  # nothing: three opinions
    assert {state for _, _, state in obeyed(line)} == {DONE}
    assert line.tool.project.queues == {"expert review": [second]}
    assert line.tool.read_task(second).overlap == 3


def test_a_task_that_is_gone_needs_nobody_more(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path, ONE_MORE)
    [task] = line.add("a")
    line.say(task, "ann", "cat")
    line.say(task, "ben", "dog")
    line.follow(planned_by(line.config.rules, line.log))
    line.tool.project.delete_task(task)
    assert [state for _, _, state in obeyed(line)] == [DONE]


def test_an_overlap_that_was_raised_by_hand_is_not_lowered(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path, ONE_MORE)
    [task] = line.add("a")
    line.say(task, "ann", "cat")
    line.say(task, "ben", "dog")
    line.follow(planned_by(line.config.rules, line.log))
    line.tool.set_task_overlap(task, 6)
    obeyed(line)
    assert line.tool.read_task(task).overlap == 6


def test_more_who_answered_meanwhile_are_counted(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path, ONE_MORE.replace("limit = 3", "limit = 5"))
    first, second = line.add("a", "b")
    for task in (first, second):
        line.say(task, "ann", "cat")
        line.say(task, "ben", "dog")
    line.follow(planned_by(line.config.rules, line.log))
    line.say(first, "cem", "bird")
    for who in ("cem", "dee", "eve"):
        line.say(second, who, "cat")
    line.say(first, "dee", cancelled=True)
    obeyed(line)
    assert line.tool.read_task(first).overlap == 4
    assert line.tool.project.queues == {"expert review": [second]}


def test_what_is_starred_counts_and_what_a_plan_wrote_does_not(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path, ONE_MORE.replace("limit = 3", "limit = 5"), overlap=3)
    starred, planned = line.add("a", "b")
    line.say(starred, "ann", "cat", ground_truth=True)  # by whom the plan is applied
    held, cat = line.tool.read_task(planned), dump_json([contract.choice("cat")])
    add = Correction(task=planned, key="b", action=Action.ADD, expect=held.revision, then=cat, why="so")
    journal = Journal(journal_of(line.store.url), keys=JOURNAL_KEYS)
    plan = Plan(project="memory", source={}, corrections=(add,))
    assert apply(line.tool, plan, "memory", journal, lambda: datetime.now(UTC)).written == 1
    for task, who, label in (
        (starred, "ben", "bird"),
        (starred, "cem", "dog"),
        (planned, "ben", "cat"),
        (planned, "cem", "dog"),
        (planned, "dee", "bird"),
    ):
        line.say(task, who, label)
    assert [state for _, _, state in obeyed(line)] == [DONE, DONE]
    assert [line.tool.read_task(task).overlap for task in (starred, planned)] == [4, 4]
    assert [event.type for event in line.log.events(subject=f"task:{starred}")][-1] == "task.reopened"


def test_a_rule_may_ask_what_happened_before(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path, SURE, overlap=1)
    sure, unsure = line.add("a", "b")
    guesses = [
        Prediction(task_id=task, result="[]", model_version="m", score=score)
        for task, score in ((sure, 0.9), (unsure, 0.1))
    ]
    line.tool.write_predictions(guesses)
    for task in (sure, unsure):
        line.say(task, "ann", "cat")
    assert obeyed(line) == [("look", f"task:{unsure}", DONE), ("answer", f"task:{unsure}", DONE)]
    assert line.tool.project.queues == {"unsure": [unsure]}


def test_a_rehearsal_says_what_would_be_done_and_does_nothing(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path, ONE_MORE)
    [task] = line.add("a")
    line.say(task, "ann", "cat")
    line.say(task, "ben", "dog")
    line.follow()
    [would] = rehearse(line.store, line.config, "memory")
    assert (would.rule, would.event.subject, would.state) == ("one more", f"task:{task}", WAITING)
    assert line.log.deliveries() == []
    assert line.tool.read_task(task).overlap == 2


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('when = "task.done"\nthen = { do = "queue", queue = "x" }', "task.completed"),
        ('when = "task.completed"\nthen = { do = "dance" }', "dance"),
        ('when = "task.completed"\nthen = { do = "one-more", limit = 1 }', "limit"),
        ('when = "task.completed"\nthen = { do = "call", url = "ftp://x" }', "url"),
        ('when = "task.completed"\nthen = { do = "call", url = "https://me:word@x" }', "secret"),
        ('when = "task.completed"\nthen = { do = "slack", url_from = "https://hooks" }', "url_from"),
    ],
)
def test_a_rule_that_cannot_be_read_is_named(tmp_path: Path, rule: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse(f'[[rules]]\nname = "r"\n{rule}', tmp_path / "connector.toml")
    assert "rules" in caught.value.what


def test_two_rules_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two rules are named 'one more'"):
        parse(ONE_MORE * 2, tmp_path / "connector.toml")


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ('when = "task.completed"\nthen = { do = "one-more" }', UsageError),
        ('when = "consensus.failed"\nthen = { do = "one-more" }', Unsupported),
        ('when = "task.completed"\nthen = { do = "queue", queue = "x" }', Unsupported),
        (
            'when = "batch.completed"\nafter = "task.completed"\nthen = { do = "run", command = ["x"] }',
            UsageError,
        ),
        ('when = "task.completed"\nthen = { do = "call", url = "https://x" }', AuthError),
        ('when = "task.completed"\nthen = { do = "slack", url_from = "NO_SUCH_ADDRESS" }', AuthError),
    ],
)
def test_a_rule_that_cannot_be_followed_is_named_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, error: type[Exception]
) -> None:
    monkeypatch.delenv(SIGNING_SECRET, raising=False)
    config = parse(f'[[rules]]\nname = "the rule"\n{rule}', tmp_path / "connector.toml")
    poor = replace(CAPABILITIES, task_overlap=False, review_queue=False)
    with pytest.raises(error, match="'the rule'"):
        check(config.rules, poor)


@pytest.mark.parametrize(
    ("when", "then", "said"),
    [
        ("batch.accepted", 'do = "export", to = "out/{batch}.xml"', "unsupported file type"),
        (
            "batch.accepted",
            'do = "export", to = "out/labels-{batch}"',
            "unsupported file type",
        ),
        ("annotator.failing", 'do = "export", to = "out/{batch}.json"', "{batch}, which annotator.failing"),
        ("task.completed", 'do = "run", command = ["no-such-command", "x"]', "no command no-such-command"),
        ("task.completed", 'do = "run", command = ["./connector.toml"]', "no command ./connector.toml"),
        ("task.completed", 'do = "slack", url_from = "S", text = "{confidence:.2f}"', "{confidence}, which"),
        ("ask.answered", 'do = "slack", url_from = "S", text = "{why}"', "{why}, which ask.answered"),
        ("task.completed", 'do = "slack", url_from = "S", text = "{}"', "{}, which task.completed"),
        ("task.completed", 'do = "slack", url_from = "S", text = "{task"', "cannot be filled"),
        ("task.completed", 'do = "call", url = "http://169.254.169.254/x"', "not a public address"),
        ("task.completed", 'do = "call", url = "http://[::1]:8080/x"', "not a public address"),
        ("task.completed", 'do = "slack", url_from = "INSIDE"', "not a public address"),
    ],
)
def test_what_could_never_work_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, then: str, said: str
) -> None:
    monkeypatch.setenv("S", "https://hooks.example.com")
    monkeypatch.setenv("INSIDE", "http://10.0.0.1/hidden")
    monkeypatch.setenv(SIGNING_SECRET, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    text = f'[[rules]]\nname = "the rule"\nwhen = "{when}"\nthen = {{ {then} }}'
    with pytest.raises(UsageError, match="'the rule'") as caught:
        check(parse(text, tmp_path / "connector.toml").rules, CAPABILITIES)
    assert said in caught.value.what


def test_the_rules_that_the_documentation_shows_can_be_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_WEBHOOK_URL", "https://hooks.example.com")
    monkeypatch.setenv(SIGNING_SECRET, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    monkeypatch.setattr("shutil.which", lambda command: command)
    shown = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    rules = [rule for text in shown for rule in parse(text, tmp_path / "connector.toml").rules]
    assert {rule.then.do for rule in rules} >= {"slack", "export", "run", "call"}
    check(rules, CAPABILITIES)


def test_the_documentation_lists_what_each_event_has() -> None:
    rows = [row for row in DOCS.read_text().splitlines() if row.startswith("| `")]
    for type, names in NAMES.items():
        [row] = [row for row in rows if f"`{type}`" in row.split("|")[1]]
        assert {f"`{name}`" for name in names} <= {"`task`", "`batch`", *re.findall("`[^`]*`", row)}


def test_what_was_given_up_is_listed_and_tried_again(tmp_path: Path) -> None:
    line = MemoryLine(tmp_path, ONE_MORE)
    [task] = line.add("a")
    line.say(task, "ann", "cat")
    line.say(task, "ben", "dog")
    line.follow(planned_by(line.config.rules, line.log))
    line.tool.faults.fail("set_task_overlap", 1, AuthError("not allowed"))
    assert [state for _, _, state in obeyed(line)] == [DEAD]
    [dead] = line.log.deliveries(DEAD)
    assert dead.error == "not allowed"
    with closing(EventLog(tmp_path / "events.sqlite", "memory")) as elsewhere:
        assert elsewhere.resend([dead.number + 1]) == 0
        assert elsewhere.resend() == 1
    assert [state for _, _, state in obeyed(line)] == [DONE]
    assert line.tool.read_task(task).overlap == 3
