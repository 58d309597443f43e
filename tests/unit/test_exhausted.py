"""A full disk, no file handle left, a locked inbox: it is reported, waited for, and over when it is over."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from benchmarks.webhooks import SECRET, event, port_of, start
from connector.adapters.base import LabelingTool
from connector.adapters.signatures import SECRET_HEADER
from connector.config import KNOCK_SECRET, SIGNING_SECRET, Call, parse
from connector.demo.server import free_port
from connector.errors import Temporary
from connector.events.log import Changes, Event
from connector.project import Project
from connector.serve.live import event_log, serve
from connector.store.label_store import Store
from tests.unit.memory_line import MemoryLine
from tests.unit.receiver import receiver as receiving
from tests.unit.test_live import live_on
from tests.unit.test_operations import service as unit
from tests.waiting import until

SQLITE_WAITS_SECONDS = 9.0
"""Below the time for which a command waits for a locked database, whoever else uses this machine."""


def send(url: str, number: int) -> int:
    headers = {SECRET_HEADER: SECRET}
    return requests.post(f"{url}/events", data=event(number), headers=headers, timeout=60).status_code


def why(url: str) -> str:
    """What readiness reports; nothing when it is ready."""
    answer = requests.get(f"{url}/readyz", timeout=60)
    assert answer.status_code == (503 if answer.json()["why"] else 200)
    return answer.json()["why"] or ""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of eight megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("this user may not mount a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    file = disk / "filler"
    with suppress(OSError), file.open("wb", buffering=0) as out:
        while True:
            out.write(b"x" * 4096)
    return file


@dataclass
class Service:
    """`connector serve` in a thread, on a tool in memory."""

    project: Project
    url: str
    messages: list[str] = field(default_factory=list)
    ended: list[object] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        try:
            self.ended.append(serve(self.project, self.stop, self.messages.append))
        except Exception as error:
            self.ended.append(error)


def line_of(people: MemoryLine, folder: Path, port: int, more: str = "") -> Project:
    class InMemory(Project):
        def tool(self, dry_run: bool = False) -> LabelingTool:
            return people.tool

    config = f"[serve]\nport = {port}\nsettle_seconds = 0.05\npull_seconds = 0.2\n{more}"
    return InMemory(parse(config, folder / "connector.toml"))


@contextmanager
def service(people: MemoryLine, folder: Path, more: str = "") -> Iterator[Service]:
    """A service that is ready; it has to be still running when it is left."""

    port = free_port()
    made = Service(line_of(people, folder, port, more), f"http://127.0.0.1:{port}")
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        until(lambda: made.messages or made.ended)
        until(lambda: not why(made.url))
        yield made
        assert not made.ended
    finally:
        made.stop.set()
        thread.join(60)
    assert [type(found) for found in made.ended] == [int], made.ended


def test_a_full_disk_is_reported_and_waited_for(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KNOCK_SECRET, SECRET)
    people = MemoryLine(disk / "people")
    with service(people, disk) as served:
        url, numbers = served.url, iter(range(100_000))
        filler = fill(disk)
        [task] = people.add("a", text="x" * 100_000)
        people.say(task, "ann", "cat")

        def reported() -> bool:
            return "space" in why(url) or "full" in why(url)

        until(lambda: send(url, next(numbers)) == 503 or reported())
        until(reported)
        time.sleep(2)
        assert not served.ended
        assert requests.get(f"{url}/healthz", timeout=60).status_code == 200
        assert len(served.messages) < 12
        filler.unlink()
        until(lambda: not why(url))
        assert send(url, 1_000_000) == 202
        store = Store(str(disk / "labels"), served.project.name)
        until(lambda: store.current("annotation").height == 1)


def test_a_delivery_is_not_repeated_over_and_over_because_its_outcome_cannot_be_written(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KNOCK_SECRET, SECRET)
    monkeypatch.setenv(SIGNING_SECRET, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    people = MemoryLine(disk / "people")
    with receiving() as hook, service(people, disk, "[callbacks]\nallow = ['127.0.0.1']") as served:
        happened = Event("evt_1", "task.completed", "task:1", datetime.now(UTC))
        action = Call(do="call", url=hook.url).model_dump()
        with closing(event_log(served.project)) as log:
            log.keep(Changes(events=[happened]), lambda _: [("a rule", action)])
            with log.file.write() as db:
                db.execute("UPDATE delivery SET due = due + 3")
        filler = fill(disk)
        until(lambda: hook.bodies)
        time.sleep(8)
        assert len(hook.bodies) <= 4
        filler.unlink()

        def delivered() -> int:
            with closing(event_log(served.project)) as log:
                return log.count("done")

        until(delivered)


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True, timeout=60)


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_service_that_cannot_start_for_its_disk_is_restarted_until_it_can(
    disk: Path, monkeypatch: pytest.MonkeyPatch, used: bool, how: str
) -> None:
    monkeypatch.setenv(KNOCK_SECRET, SECRET)
    people = MemoryLine(disk.with_name("people"))
    if used:
        with service(people, disk):
            """It has made its files."""
    if how == "full":
        filler = fill(disk)
    else:
        remount(disk, "ro")
    with pytest.raises(Temporary) as caught:
        serve(line_of(people, disk, 0), threading.Event(), lambda _: None)
    assert str(caught.value.exit_code) not in unit()["RestartPreventExitStatus"].split()
    assert ("mount" if how == "read-only" else "disk") in caught.value.hint
    if how == "full":
        filler.unlink()
    else:
        remount(disk, "rw")
    with service(people, disk) as served:
        assert send(served.url, 1) == 202


def test_a_store_that_becomes_read_only_is_waited_for(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KNOCK_SECRET, SECRET)
    people, folder = MemoryLine(tmp_path / "people"), tmp_path / "folder"
    folder.mkdir()
    with service(people, folder, f"[store]\nurl = '{disk / 'labels'}'\n") as served:
        remount(disk, "ro")
        [task] = people.add("a", text="x")
        people.say(task, "ann", "cat")
        until(lambda: "Read-only" in why(served.url))
        assert send(served.url, 1) == 202
        remount(disk, "rw")
        until(lambda: not why(served.url))
        store = Store(str(disk / "labels"), served.project.name)
        until(lambda: store.current("annotation").height == 1)


@contextmanager
def handles_left(count: int) -> Iterator[None]:
    """So many more files may be opened by this process."""
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_round_without_file_handles_can_be_tried_again(tmp_path: Path) -> None:
    people = MemoryLine(tmp_path / "people")
    failed = 0
    with live_on(people.tool, tmp_path) as live:
        live.round()
        for left in range(12):
            [task] = people.add(f"{left}")
            people.say(task, "ann", "cat")
            live._store = None if left % 2 else live._store
            with handles_left(left):
                try:
                    live.round()
                except Temporary:
                    failed += 1
            live.round()
        assert failed > 2
        assert live.project.store().current("annotation").height == 12


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A receiver in a process of its own."""
    with start(tmp_path) as process:
        yield process
        assert process.poll() is None
        process.kill()


def first_free(pid: int) -> int:
    """The next file handle that a process would get, once connections that were closed are gone."""
    time.sleep(0.5)
    held = {int(file.name) for file in Path(f"/proc/{pid}/fd").iterdir()}
    return next(number for number in range(len(held) + 1) if number not in held)


def test_a_receiver_without_file_handles_answers_and_says_so(receiver: subprocess.Popen[str]) -> None:
    url = f"http://127.0.0.1:{port_of(receiver)}"
    assert why(url) == ""
    before = resource.prlimit(receiver.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(receiver.pid, resource.RLIMIT_NOFILE, (first_free(receiver.pid), before[1]))
    until(lambda: "no file handle" in why(url))
    for number in range(5):
        assert send(url, number) == 202
    assert "no file handle" in why(url)
    resource.prlimit(receiver.pid, resource.RLIMIT_NOFILE, before)
    until(lambda: not why(url))


def test_a_locked_inbox_is_reported_and_nobody_waits_for_it(
    receiver: subprocess.Popen[str], tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{port_of(receiver)}"
    assert send(url, 0) == 202
    took = []
    with closing(sqlite3.connect(tmp_path / "inbox.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for number in range(1, 6):
            for ask, status in ((lambda n=number: send(url, n), 503), (lambda: healthy(url), 200)):
                begun = time.monotonic()
                assert ask() == status
                took.append(time.monotonic() - begun)
        assert "in use by another process" in why(url)
        other.execute("COMMIT")
    assert max(took) < SQLITE_WAITS_SECONDS
    assert send(url, 9) == 202
    until(lambda: not why(url))


def healthy(url: str) -> int:
    return requests.get(f"{url}/healthz", timeout=60).status_code
