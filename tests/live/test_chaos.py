"""Everything goes wrong at once, while people work; in the end bucket, tool and store agree, item by item.

Commands are killed, the server is killed and started, its answers are lost, and meanwhile objects come,
change and go, people answer, change and take back their answers, and others import tasks. Nothing may be
lost, and nothing there twice. The seed is printed; with it the same choices are made again, though not at the
same moments.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from connector.adapters.label_studio.adapter import LabelStudio
from connector.adapters.label_studio.client import Server
from connector.demo.pictures import result, scenes
from connector.demo.server import S3, Running, label_studio
from connector.errors import ConnectorError
from connector.io.objects import Objects
from connector.store.label_store import ANNOTATION, TASK
from tests.conftest import Line, new_line
from tests.live.test_line import store_of
from tests.proxy import Proxy, proxy

pytestmark = pytest.mark.live

RUNS, LONGEST_SECONDS = 10, 20
"""So many commands are started, and one that goes on so long is killed."""

STABLE, LOOSE = 1300, 400
"""Objects that are there at first: those that stay, and those that may go. Some hundred come later."""

PROPER_ENDS = {0, 4, 6, 7, -signal.SIGKILL, -signal.SIGTERM}
"""Done, done in part, the tool was unavailable, another writer, killed by us; no internal error."""

EFFECTS = ("--on-change", "update", "--on-delete", "remove-unlabeled", "--most-removed", "1")
COMMANDS: list[Sequence[str]] = [
    ("push", *EFFECTS),
    ("pull",),
    ("sync", *EFFECTS),
    ("sync", "--watch", "--interval", "0.5", *EFFECTS),
]


@dataclass
class Annotator:
    """Somebody who works, at the server itself; nothing is tried twice.

    Attributes:
        said: the marks of the answers that the server acknowledged, by the annotation's id.
        doubtful: the marks of answers of which it did not.
    """

    server: Server
    name: str
    rng: random.Random
    said: dict[str, str] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)
    number: int = 0

    def work(self, tasks: Sequence[str]) -> None:
        """Answer something, or change or take back what was said before."""
        act, mine = self.rng.random(), sorted(self.said)
        if act < 0.8 or not mine:
            self.answer(self.rng.choice(tasks))
            return
        id, mark = self.rng.choice(mine), self._mark()
        self.doubtful |= {self.said[id], mark}
        before = self.said.pop(id)
        with suppress(ConnectorError):
            if act < 0.95:
                self.server.send("PATCH", f"/api/annotations/{id}/", {"result": self._result(mark)})
                self.said[id] = mark
                self.doubtful -= {before, mark}
            else:
                self.server.send("DELETE", f"/api/annotations/{id}/")
                self.doubtful -= {before, mark}

    def answer(self, task: str) -> bool:
        """Answer a task; returns whether the server acknowledged it."""
        mark = self._mark()
        self.doubtful.add(mark)
        body = {"result": self._result(mark), "lead_time": 3}
        try:
            made = self.server.post(f"/api/tasks/{task}/annotations/", body)
        except ConnectorError:
            return False
        self.said[str(made["id"])] = mark
        self.doubtful.discard(mark)
        return True

    def _mark(self) -> str:
        self.number += 1
        return f"{self.name}-{self.number}"

    def _result(self, mark: str) -> list[dict[str, Any]]:
        return result(self.rng.choice(["field", "street"]), [], mark)


@dataclass
class World:
    """All that goes on around the line: a bucket, people, and others who import tasks.

    Attributes:
        there: the paths of the objects.
        left: the keys of tasks that people had answered when their object was deleted.
    """

    line: Line
    tool: LabelStudio
    bucket: Objects
    people: Sequence[Annotator]
    rng: random.Random
    there: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)
    tasks: Mapping[str, str] = field(default_factory=dict)
    number: int = 0
    png: bytes = field(default_factory=lambda: scenes(1, seed=1)[0].png)

    def put(self, path: str) -> None:
        """Write an object whose content nobody else has."""
        self.number += 1
        self.bucket.write(path, self.png + str(self.number).encode())
        self.there.add(path)

    def change_the_bucket(self) -> None:
        """An object comes, and another is changed, moved or deleted."""
        self.put(f"stable/{self.number:06}.png")
        act, path = self.rng.random(), self.rng.choice(sorted(self.there))
        if act < 0.4 or not path.startswith("loose/"):
            self.put(path)
        elif act < 0.6:
            elsewhere = path.replace("loose/", "moved/")
            self.bucket.write(elsewhere, self.bucket.read(path))
            self.there.add(elsewhere)
            self._delete(path)
        elif act < 0.8:
            self._delete(path)
        elif (task := self.tasks.get(self.key(path))) and self.people[0].answer(task):
            self._delete(path)
            self.left.add(self.key(path))

    def _delete(self, path: str) -> None:
        self.bucket.delete(path)
        self.there.discard(path)

    def key(self, path: str) -> str:
        return f"{self.bucket.url}/{path}"

    def label(self, who: Annotator) -> None:
        stable = [task for key, task in sorted(self.tasks.items()) if "/stable/" in key]
        if stable:
            who.work(stable)

    def look(self) -> None:
        with suppress(ConnectorError):
            self.tasks = self.tool.known_keys()

    def import_tasks(self) -> None:
        """Somebody else imports tasks, some of them answered."""
        self.number += 1
        answered = {
            "result": result("field", [], f"imported-{self.number}"),
            "completed_by": self.line.server.expert.id,
            "ground_truth": False,
        }
        tasks = [{"data": {"image": f"/data/{n}.png"}, "annotations": [answered][:n]} for n in range(2)]
        with suppress(ConnectorError):
            self.people[0].server.post(f"/api/projects/{self.line.project}/import", tasks)


@contextmanager
def going_on(*deeds: tuple[Callable[[], None], float]) -> Iterator[None]:
    """Each is done again and again, with pauses of about so many seconds, until this is left."""
    stop, failures = threading.Event(), list[BaseException]()

    def go_on(deed: Callable[[], None], pause: float) -> None:
        try:
            while not stop.wait(random.uniform(0, 2 * pause)):
                deed()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=go_on, args=deed) for deed in deeds]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


def chaos(line: Line, server: Running, rng: random.Random) -> Counter[str]:
    """Start commands and kill them, kill the server and start it; returns how the commands ended."""
    ends: Counter[str] = Counter()
    crashes = rng.sample(range(2, RUNS), 2)
    running: list[tuple[subprocess.Popen[str], Sequence[str], float]] = []
    while sum(ends.values()) < RUNS:
        if len(running) < 2:
            words = rng.choice(COMMANDS)
            lasts = rng.choice([rng.uniform(1.5, 4), rng.uniform(4, 12), LONGEST_SECONDS])
            running.append((line.start(*words, "--debug"), words, time.monotonic() + lasts))
        if sum(ends.values()) in crashes:
            crashes.remove(sum(ends.values()))
            server.kill()
            server.start()
        for one in list(running):
            process, words, until = one
            if process.poll() is None and time.monotonic() > until:
                process.send_signal(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
                try:
                    process.wait(LONGEST_SECONDS)
                except subprocess.TimeoutExpired:
                    # After SIGTERM a round is completed first, which takes long where much has changed.
                    process.kill()
                    process.wait()
            if process.poll() is not None:
                running.remove(one)
                _, err = process.communicate()
                assert process.returncode in PROPER_ENDS, f"{words} ended with {process.returncode}: {err}"
                ends[f"{words[0]} {process.returncode}"] += 1
        time.sleep(0.05)
    for process, *_ in running:
        process.kill()
        process.communicate()
    return ends


def test_whatever_goes_wrong_nothing_is_lost_and_nothing_is_there_twice(s3: S3, tmp_path: Path) -> None:
    seed = int(os.environ.get("CONNECTOR_CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    sys.stdout.write(f"CONNECTOR_CHAOS_SEED={seed}\n")
    rng = random.Random(seed)
    with (
        label_studio() as server,
        proxy(server.url, random.Random(rng.random()), share=0.04, hang_seconds=9) as way,
    ):
        line, world = set_up(server, way, s3, tmp_path, rng)
        deeds: list[tuple[Callable[[], None], float]] = [
            (world.change_the_bucket, 0.25),
            (world.look, 2),
            (world.import_tasks, 2),
            *((partial(world.label, who), 0.15) for who in world.people[1:]),
        ]
        with going_on(*deeds):
            ends = chaos(line, server, rng)
        answers = sum(len(who.said) for who in world.people)
        sys.stdout.write(f"{dict(ends)}; on the way {dict(way.done)}; {answers} answers\n")
        way.share = 0
        line.ask("sync", "--debug", *EFFECTS)
        # The server died twice, and may have kept answers without calling their tasks changed.
        line.ask("pull", "--all")
        check(world)


def set_up(server: Running, way: Proxy, s3: S3, folder: Path, rng: random.Random) -> tuple[Line, World]:
    """A line whose way to the server is bad, and a bucket full of objects."""
    line = new_line(server, folder)
    place = f"{s3.url}/chaos-{line.project}"
    config = (folder / "connector.toml").read_text().replace(f'url = "{server.url}"', f'url = "{way.url}"')
    raw = config[config.index("[raw]") : config.index("[roles]")]
    config = config.replace(raw, f'[raw]\nurl = "{place}"\n')
    config = config.replace("[tool.options]", '[tool.options]\ntimeout = "6"')
    (folder / "connector.toml").write_text(config)
    line = dataclasses.replace(line, environment={**line.environment, **s3.environment})
    people = [
        Annotator(Server(server.url, user.pat), user.email.partition("@")[0], random.Random(rng.random()))
        for user in server.annotators[:4]
    ]
    world = World(line, line.tool, Objects(place, s3.options), people, random.Random(rng.random()))
    for number in range(STABLE):
        world.put(f"stable/{number:06}.png")
    for number in range(LOOSE):
        world.put(f"loose/{number:06}.png")
    return line, world


def check(world: World) -> None:
    """That bucket, tool and store agree, told by `reconcile` and by looking at each of them."""
    line = world.line
    code, out, err = line.run("reconcile", "--json")
    assert code in (0, 3), err
    differences = json.loads(out)["differences"]

    owner = Server(line.server.url, line.server.owner.pat)
    asked = {"project": line.project, "fields": "all", "page_size": 10_000, "resolve_uri": "false"}
    tasks = owner.get("/api/tasks/", asked)["tasks"]
    keys = Counter(task["data"].get("connector_key") for task in tasks)
    imported = keys.pop(None, 0)
    expected = {"raw data gone": len(world.left), "no item": imported}
    assert differences == {what: count for what, count in expected.items() if count}, out
    assert keys == Counter({world.key(path): 1 for path in world.there} | dict.fromkeys(world.left, 1))
    assert imported % 2 == 0

    store = store_of(line)
    answers = {str(a["id"]): a["result"] for task in tasks for a in task["annotations"]}
    mark_of = {id: regions[0]["id"].removesuffix("-scene") for id, regions in answers.items()}
    kept = store.current(ANNOTATION)
    assert {id: json.loads(content) for id, content in kept.select("id", "content").iter_rows()} == answers
    assert sorted(store.current(TASK)["task"]) == sorted(str(task["id"]) for task in tasks)

    marks = Counter(mark_of.values())
    assert max(marks.values()) == 1
    for who in world.people:
        assert who.said.items() <= mark_of.items()
        theirs = {mark for mark in marks if mark.startswith(f"{who.name}-")}
        assert theirs <= set(who.said.values()) | who.doubtful
