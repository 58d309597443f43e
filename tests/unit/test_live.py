"""Rounds: what knocked is followed by a pull, whatever goes wrong on the way, and however often it knocks."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from connector.adapters.base import LabelingTool, WakeUp
from connector.adapters.memory import MemoryTool
from connector.config import ASK_SECRET, KNOCK_SECRET, LEAST_SECRET_BYTES, parse
from connector.errors import Temporary, UsageError
from connector.events.deliver import Sender
from connector.events.log import EventLog
from connector.events.rules import planned_by
from connector.io.files import only_one
from connector.project import Project
from connector.serve.ask import Asks, Question
from connector.serve.inbox import Inbox
from connector.serve.live import LOCK, Live, serve
from connector.serve.receiver import Metrics
from connector.serve.watch import Bell
from tests.unit.memory_line import MemoryLine

CONFIG = """
[serve]
settle_seconds = 0.05
[[rules]]
name = "one more"
when = "consensus.failed"
then = { do = "one-more", limit = 3 }
"""


@contextmanager
def live_on(tool: MemoryTool, folder: Path) -> Iterator[Live]:
    """A process that serves; leaving it is its end."""
    project, stop = Project(parse(CONFIG, folder / "connector.toml")), threading.Event()
    with (
        closing(Inbox(folder / "inbox.sqlite", project.name)) as inbox,
        closing(EventLog(folder / "log.sqlite", project.name)) as log,
    ):
        planned = planned_by(project.config.rules, log)
        yield Live(project, tool, inbox, log, Asks(log), Metrics(inbox), planned, stop, Bell(stop), [].append)


def knock(live: Live, *ids: str) -> None:
    async def all_of_them() -> None:
        for id in ids:
            await live.inbox.put(WakeUp(id, "ANNOTATION_CREATED"))
            live.bell.ring()

    asyncio.run(all_of_them())


def test_what_knocked_is_gone_after_the_pull_that_followed_it(tmp_path: Path) -> None:
    with live_on(MemoryLine(tmp_path).tool, tmp_path) as live:
        knock(live, "a", "b", "a")
        live.round()
        assert live.inbox.waiting() == 0
        assert live.metrics.trouble is None


def test_a_pull_that_fails_leaves_what_knocked_and_the_next_one_follows(tmp_path: Path) -> None:
    tool = MemoryLine(tmp_path).tool
    with live_on(tool, tmp_path) as live:
        live.round()
        knock(live, "a")
        tool.faults.fail("changed_tasks", tool.faults.calls["changed_tasks"] + 1)
        with pytest.raises(Temporary):
            live.round()
        assert (live.inbox.waiting(), live.metrics.trouble) == (1, "injected: changed_tasks fails")
        live.round()
        assert (live.inbox.waiting(), live.metrics.trouble) == (0, None)


def test_a_question_that_fails_keeps_no_pull_from_its_end(tmp_path: Path) -> None:
    people = MemoryLine(tmp_path)
    with live_on(people.tool, tmp_path) as live:
        live.round()
        live.asks.put(Question(key="k", data={"image": "x.png"}, annotators=3))
        [task] = people.add("a")
        for who in ("ann", "ben"):
            people.say(task, who, "cat")
        knock(live, "a")
        people.tool.faults.fail("set_task_overlap", 1)
        live.say = (told := list[str]()).append
        live.round()
        assert told == ["injected: set_task_overlap fails"]
        assert ("task.completed", f"task:{task}") in [(e.type, e.subject) for e in live.log.events()]
        assert (live.inbox.waiting(), live.metrics.trouble) == (0, None)
        live.round()
        assert [asked.state for asked in live.asks.unanswered("asked", "open")] == ["open"]
        begun = time.monotonic()
        live.pause(30)  # what was placed rings: it may be answered already
        assert time.monotonic() - begun < 20


@pytest.mark.parametrize("part", ["deliveries", "receiver"])
def test_a_part_that_breaks_ends_it_all_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    class InMemory(Project):
        def tool(self, dry_run: bool = False) -> LabelingTool:
            return tool

    def breaks(*_: object) -> int:
        raise ZeroDivisionError(part)

    tool, stop = MemoryLine(tmp_path).tool, threading.Event()
    monkeypatch.setenv(KNOCK_SECRET, "x" * LEAST_SECRET_BYTES)
    if part == "deliveries":
        monkeypatch.setattr(Sender, "send_due", breaks)
    else:
        monkeypatch.setattr("uvicorn.Server.run", breaks)
    giving_up = threading.Timer(20, stop.set)
    giving_up.start()
    project = InMemory(parse(CONFIG.replace("[serve]", "[serve]\nport = 0"), tmp_path / "connector.toml"))
    with pytest.raises(ZeroDivisionError, match=part):
        serve(project, stop, lambda _: None)
    giving_up.cancel()


def test_one_process_serves_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KNOCK_SECRET, "x" * LEAST_SECRET_BYTES)
    project = Project(parse(CONFIG, tmp_path / "connector.toml"))
    with (
        only_one(tmp_path / LOCK, "another"),
        pytest.raises(
            Temporary, match=f"`connector serve` already runs in .*: process {os.getpid()}"
        ) as caught,
    ):
        serve(project, threading.Event(), lambda _: None)
    assert "another folder" in caught.value.hint
    assert not list(tmp_path.glob("*.sqlite"))


def test_the_service_manager_is_told_when_it_listens_and_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InMemory(Project):
        def tool(self, dry_run: bool = False) -> LabelingTool:
            return tool

    tool, stop, said = MemoryLine(tmp_path).tool, threading.Event(), list[str]()
    monkeypatch.setenv(KNOCK_SECRET, "x" * LEAST_SECRET_BYTES)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    project = InMemory(parse(CONFIG.replace("[serve]", "[serve]\nport = 0"), tmp_path / "connector.toml"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        serving = threading.Thread(target=serve, args=(project, stop, said.append))
        serving.start()
        try:
            assert manager.recv(100) == b"READY=1"
            assert said[0].startswith("listening on")
        finally:
            stop.set()
            serving.join()
        assert manager.recv(100) == b"STOPPING=1"


def test_what_knocks_while_one_waits_is_one_round(tmp_path: Path) -> None:
    with live_on(MemoryLine(tmp_path).tool, tmp_path) as live:
        threading.Timer(0.2, knock, (live, "a", "b", "c")).start()
        begun = time.monotonic()
        live.pause(30)
        assert 0.2 < time.monotonic() - begun < 10
        begun = time.monotonic()
        live.pause(0.3)  # nobody knocks: the clock
        assert time.monotonic() - begun >= 0.3
        live.stop.set()
        live.pause(30)


@pytest.mark.parametrize("seed", range(2))
def test_with_all_kinds_of_trouble_the_same_happens_as_without(tmp_path: Path, seed: int) -> None:
    """Restarts, pulls that fail, events that are lost, come twice, or in another order."""
    found = []
    for name in ("calm", "trouble"):
        folder, chance = tmp_path / name, random.Random(seed)
        people = MemoryLine(folder / "people")
        tool, tasks = people.tool, people.add(*"abcd")
        answers = [(task, who) for task in tasks for who in ("ann", "ben")]
        random.Random(seed).shuffle(answers)
        lost: list[str] = []
        with live_on(tool, folder) as live:
            live.round()
        for n, (task, who) in enumerate(answers):
            people.say(task, who, random.Random(f"{seed} {task} {who}").choice(["cat", "dog"]))
            with live_on(tool, folder) as live:
                lost.append(f"event {n}")
                if name == "calm" or chance.random() < 0.5:
                    knock(live, *chance.sample(lost * 2, len(lost)))
                    if name == "trouble" and chance.random() < 0.3:
                        tool.faults.fail("changed_tasks", tool.faults.calls["changed_tasks"] + 1)
                        with pytest.raises(Temporary):
                            live.round()
                    else:
                        live.round()
        with live_on(tool, folder) as live:
            live.round()
            events = [(e.id, e.type, e.subject, e.data) for e in live.log.events()]
            store = live.project.store()
            held = store.current("annotation").select("task", "annotator", "content", "hash")
            assert live.inbox.waiting() == 0
        found.append(
            (sorted(e for e in events if e[2].startswith("task:")), {e[0] for e in events}, held.to_dicts())
        )
    assert found[0][0]
    assert found[0] == found[1]


@pytest.mark.parametrize("variable", [KNOCK_SECRET, ASK_SECRET])
def test_a_secret_that_is_short_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in (KNOCK_SECRET, ASK_SECRET):
        monkeypatch.setenv(name, "x" * LEAST_SECRET_BYTES)
    with live_on(MemoryLine(tmp_path / "people").tool, tmp_path) as live:
        assert live.app()
        monkeypatch.setenv(variable, "x" * (LEAST_SECRET_BYTES - 1))
        with pytest.raises(UsageError, match=f"{variable} must be at least 24 bytes") as caught:
            live.app()
        assert "openssl rand" in caught.value.hint
