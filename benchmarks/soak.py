"""`connector serve` beside a real Label Studio while everything goes wrong at once.

The bucket of the label store stalls and recovers; one callback target accepts and sends a byte now and then,
beside a healthy one; strangers hold more connections than there are places, idle or with half-sent headers,
and open them again; the process is killed (SIGKILL) at random moments and started again at once. Meanwhile
people save answers, and events arrive at a steady rate: one that is not acknowledged is sent again.

What counts as what:

- An event is lost if it was acknowledged and is not in the inbox after a kill or a stop, although no pull can
  have followed it, as the bucket had been stalled since before it was sent; or if it is about a saved answer
  and, once the bucket works again, the label store lacks that answer, the log of events lacks what follows
  from it, or the healthy target did not receive that.
- The time of a request is from before its connection is opened to the end of the head of its answer. All
  answered requests count, whatever the status. They begin at their times, whether or not earlier ones have
  been answered.
- A restart gap is from the kill until the new process reports that it listens. A request that no process
  answers does not count if it overlaps a gap; else it is one that failed, and there must be none.
- Memory is the sum of the resident sets of the process and its descendants, looked at every twentieth of a
  second.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import resource
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from benchmarks.webhooks import SECRET, event
from connector.adapters.label_studio.adapter import LabelStudio, create_project
from connector.adapters.label_studio.client import Server
from connector.adapters.signatures import SECRET_HEADER
from connector.demo.pictures import LABEL_CONFIG, result
from connector.demo.server import S3, Running, free_port, label_studio, s3_server
from connector.model import Item
from connector.serve.live import EVENTS, INBOX
from connector.serve.receiver import register
from connector.store.label_store import ANNOTATION, Store
from tests.stalling import Relay, relay
from tests.unit.receiver import Received, receiver

SECONDS = 300.0
KILLED_EVERY_SECONDS = 15.0
KILLED_AT_START = 0.2
"""The share of kills within two seconds from the start of the process. The others wait until it listens."""

PER_SECOND = 25.0
"""Events; each is sent until it is acknowledged."""

SAVED_PER_SECOND = 2.0
"""Answers that people save. The event of each is sent besides."""

STRANGERS = 600
"""Connections without a complete request: more than the receiver has places."""

FILES = 1024
"""How many files and sockets the process may open, a common default."""

PROVEN = 20
"""So many requests must be answered in each phase in which the bucket is stalled."""

PATIENT_SECONDS = 300.0
"""For what must come about, on any machine."""

MOST_BYTES = 300 * 2**20
P99_SECONDS = 0.5
STOP_SECONDS = 10.0

_HALF = b"POST /events HTTP/1.1\r\nHost: x\r\nX-Anything: "
_SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def main(seconds: float = SECONDS) -> None:
    seed = int(os.environ.get("CONNECTOR_CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"CONNECTOR_CHAOS_SEED={seed}", flush=True)
    with label_studio() as server, s3_server() as s3, tempfile.TemporaryDirectory() as folder:
        found = soak(server, s3, Path(folder), seconds, KILLED_EVERY_SECONDS, seed)
    print(found, flush=True)
    p99 = found.percentile(99)
    assert not found.lost, f"acknowledged events were lost: {sorted(found.lost)}"
    assert not found.failed, f"requests failed while the process was up: {found.failed}"
    assert p99 < P99_SECONDS, f"the 99th percentile is {p99:.3f} s"
    assert found.most_bytes < MOST_BYTES, f"{found.most_bytes / 2**20:.0f} MB of memory"
    assert found.stop_seconds < STOP_SECONDS, f"SIGTERM took {found.stop_seconds:.1f} s"


@dataclass
class Found:
    """What a soak found.

    Attributes:
        sent: how many events there were.
        acknowledged: when each of those that were acknowledged was sent at last, by its id.
        lost: ids of events that were acknowledged and lost.
        seconds: of each answered request.
        refused: how many requests were answered by another status than 202, and sent again.
        failed: the requests that no process answered although one was up, and why.
        stalls: how often the bucket stalled.
        looked_for: how many acknowledged events had to be in the inbox when it was looked at, all in all.
        commits: of the label store.
        waiting: how many events no pull has followed in the end.
        file_bytes: the size of the inbox in the end.
        strangers: how many connections they opened.
        saved: the answers that people saved, by task.
        most_bytes: the most memory at any time.
        stop_seconds, stop_status: how long SIGTERM took with everything stalled, and the exit code.
    """

    sent: int = 0
    acknowledged: dict[str, float] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    failed: list[str] = field(default_factory=list)
    kills: int = 0
    stalls: int = 0
    looked_for: int = 0
    commits: int = 0
    waiting: int = 0
    file_bytes: int = 0
    strangers: int = 0
    saved: dict[str, str] = field(default_factory=dict)
    most_bytes: int = 0
    stop_seconds: float = math.inf
    stop_status: int | None = None

    def percentile(self, percent: int) -> float:
        return statistics.quantiles(self.seconds, n=100)[percent - 1]

    def __str__(self) -> str:
        rows = {
            "events sent": self.sent,
            "acknowledged": len(self.acknowledged),
            "lost": len(self.lost),
            "requests answered": len(self.seconds),
            "of these refused": self.refused,
            "failed while up": len(self.failed),
            "p50": f"{self.percentile(50) * 1000:.1f} ms",
            "p99": f"{self.percentile(99) * 1000:.1f} ms",
            "longest": f"{max(self.seconds) * 1000:.1f} ms",
            "peak memory": f"{self.most_bytes / 2**20:.0f} MB",
            "SIGTERM": f"{self.stop_seconds:.1f} s, exit {self.stop_status}",
            "kills": self.kills,
            "stalls of the bucket": self.stalls,
            "looked for in the inbox": self.looked_for,
            "commits of the store": self.commits,
            "answers saved": len(self.saved),
            "strangers' connections": self.strangers,
        }
        return "\n".join(f"{name:24}{value:>20}" for name, value in rows.items())


def soak(server: Running, s3: S3, folder: Path, seconds: float, killed_every: float, seed: int) -> Found:
    """Let everything go wrong for so many seconds; then let the bucket work again, and check what is there.

    Args:
        folder: an empty one, for the project.
        killed_every: seconds that the process runs from when it listens to when it is killed, on average.
        seed: of all choices; the moments are not repeated exactly.
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))  # for the strangers' ends
    try:
        with relay(s3.endpoint) as way, receiver() as healthy:
            return asyncio.run(_Soak(server, s3, folder, way, healthy, seed).run(seconds, killed_every))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@dataclass
class _Soak:
    """What goes on during a soak. All of it runs in one event loop.

    Attributes:
        way: to the bucket.
        healthy: the target that answers.
        events: of each task with a saved answer, the id of the event about it.
        sending: the events that are on their way.
        gaps: the restart gaps: from when to when. The last one may have no end yet.
        stalled_at: since when the bucket is stalled; None while it works.
        at_target: connections that the stalled target holds.
    """

    server: Running
    s3: S3
    folder: Path
    way: Relay
    healthy: Received
    seed: int
    found: Found = field(default_factory=Found)
    port: int = field(default_factory=free_port)
    events: dict[str, str] = field(default_factory=dict)
    sending: set[asyncio.Task[None]] = field(default_factory=set)
    gaps: list[tuple[float, float]] = field(default_factory=list)
    stalled_at: float | None = None
    at_target: int = 0
    starts: int = 0
    stopping: bool = False

    async def run(self, seconds: float, killed_every: float) -> Found:
        target = await asyncio.start_server(self._trickle, "127.0.0.1", 0)
        self._set_up(target.sockets[0].getsockname()[1], round(seconds * SAVED_PER_SECOND * 1.5) + 50)
        self._start()
        try:
            async with asyncio.TaskGroup() as group:
                begin = group.create_task
                always = [begin(self._watch()), *(begin(self._stranger(n)) for n in range(STRANGERS))]
                await self._until(self._followed)  # on what was there before, no rule acts
                traffic = [begin(self._send(group)), begin(self._save(group))]
                trouble = [begin(self._stall_now_and_then()), begin(self._kill_now_and_then(killed_every))]
                await asyncio.sleep(seconds)
                _end(trouble)
                await self._stop_with_everything_stalled()
                _end(traffic)
                await self._recover()
                _end(always)
        finally:
            self.process.kill()
            self.process.wait()
            target.close()
        return self.found

    def _set_up(self, stalled_port: int, tasks: int) -> None:
        """A configuration with two rules, a project with tasks, and a first pull."""
        owner = Server(self.server.url, self.server.owner.pat)
        self.project = create_project(owner, "A soak", LABEL_CONFIG, overlap=1)
        self.tool = LabelStudio(self.server.url, self.server.owner.pat, self.project)
        items = (Item(key=f"k{n}", data={"image": "s3://raw/x.png"}) for n in range(tasks))
        self.tasks = [task.id for task in self.tool.add_items(items)]
        self.labels = f"{self.s3.url}/soak-{self.project}"
        (self.folder / "connector.toml").write_text(
            f"""
            [tool]
            url = "{self.server.url}"
            project = {self.project}
            overlap = 1
            [raw]
            url = "{self.folder}"
            [store]
            url = "{self.labels}"
            endpoint = "{self.way.url}"
            [serve]
            port = {self.port}
            settle_seconds = 0.1
            pull_seconds = 5
            [callbacks]
            allow = ["127.0.0.1"]
            [[rules]]
            name = "stalled"
            when = "task.completed"
            then = {{ do = "call", url = "http://127.0.0.1:{stalled_port}/" }}
            [[rules]]
            name = "healthy"
            when = "task.completed"
            then = {{ do = "call", url = "{self.healthy.url}" }}
            """
        )
        self.environment = {
            **os.environ,
            **self.s3.environment,
            "LABEL_STUDIO_API_KEY": self.server.owner.pat,
            "LABELING_WEBHOOK_SECRET": SECRET,
            "LABELING_SIGNING_SECRET": _SIGNING,
        }
        # A kill in the very first commit leaves files that a person has to move away.
        subprocess.run(
            [*_CONNECTOR, "pull"],
            cwd=self.folder,
            env=self.environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        register(self.tool, f"http://127.0.0.1:{self.port}", SECRET)

    # The process.

    @property
    def _log(self) -> Path:
        return self.folder / f"serve-{self.starts}.log"

    def _start(self) -> None:
        self.starts += 1
        if not self.gaps or self.gaps[-1][1] < math.inf:
            self.gaps.append((time.monotonic(), math.inf))
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*_CONNECTOR, "serve"], cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (FILES, FILES))

    def _followed(self) -> bool:
        """Whether a first round has ended."""
        with suppress(sqlite3.OperationalError):  # there is no such file or table yet
            return bool(_read(self.folder / EVENTS, "SELECT 1 FROM followed"))
        return False

    def _up(self) -> bool:
        return self.gaps[-1][1] < math.inf

    async def _watch(self) -> None:
        """Note when the process listens and how much memory it holds. It may end only when it is asked to."""
        while True:
            if not self.stopping and self.process.poll() is not None:
                raise AssertionError(f"it ended with {self.process.returncode}: {self._log.read_text()}")
            if not self.stopping and not self._up() and "listening on" in self._log.read_text():
                self.gaps[-1] = (self.gaps[-1][0], time.monotonic())
            self.found.most_bytes = max(self.found.most_bytes, memory_of(self.process.pid))
            await asyncio.sleep(0.05)

    def _kill(self) -> None:
        if self._up():
            self.gaps.append((time.monotonic(), math.inf))
        self.process.kill()
        self.process.wait()
        self.found.kills += 1
        self._check_inbox()

    def _check_inbox(self) -> None:
        """No pull has ended since the bucket stalled, so all that was sent since is there."""
        if self.stalled_at is None:
            return
        with tempfile.TemporaryDirectory() as copy:  # opening it would do what the next start has to do
            for file in self.folder.glob(f"{INBOX}*"):
                shutil.copy(file, copy)
            kept = {id for (id,) in _read(Path(copy) / INBOX, "SELECT id FROM knock")}
        sent = {id for id, at in self.found.acknowledged.items() if at > self.stalled_at}
        self.found.looked_for += len(sent)
        self.found.lost |= sent - kept

    # Events.

    async def _send(self, group: asyncio.TaskGroup) -> None:
        """Events about nothing new, each at its time."""
        number, due = 10**9, time.monotonic()
        while True:
            self._begin(group, event(number))
            number, due = number + 1, due + 1 / PER_SECOND
            await asyncio.sleep(due - time.monotonic())

    async def _save(self, group: asyncio.TaskGroup) -> None:
        """People save answers; the tool sends an event of each, once, and so do we, until it is taken."""
        people = [Server(self.server.url, user.pat) for user in self.server.annotators]
        due = time.monotonic()
        for n, task in enumerate(self.tasks):
            body = {"result": result("field", [], f"r{n}"), "lead_time": 3}
            save = people[n % len(people)].post
            made = await asyncio.to_thread(save, f"/api/tasks/{task}/annotations/", body)
            told = {"action": "ANNOTATION_CREATED", "task": {"id": int(task)}, "annotation": made}
            self.found.saved[task] = str(made["id"])
            self.events[task] = self._begin(group, json.dumps(told).encode())
            due += 1 / SAVED_PER_SECOND
            await asyncio.sleep(due - time.monotonic())

    def _begin(self, group: asyncio.TaskGroup, body: bytes) -> str:
        woken = self.tool.parse_event({SECRET_HEADER: SECRET}, body, SECRET)
        assert woken
        self.found.sent += 1
        sending = group.create_task(self._deliver(woken.id, body))
        self.sending.add(sending)
        sending.add_done_callback(self.sending.discard)
        return woken.id

    async def _deliver(self, id: str, body: bytes) -> None:
        while True:
            begun = time.monotonic()
            try:
                async with asyncio.timeout(PATIENT_SECONDS):
                    status = await self._request(body)
            except (OSError, EOFError) as error:
                now = time.monotonic()
                if not any(gone <= now and begun <= back for gone, back in self.gaps):
                    self.found.failed.append(f"{error!r} after {now - begun:.3f} s")
            else:
                self.found.seconds.append(time.monotonic() - begun)
                if status == 202:
                    self.found.acknowledged[id] = begun
                    return
                self.found.refused += 1
            await asyncio.sleep(random.uniform(0.5, 1.5))

    async def _request(self, body: bytes) -> int:
        head = f"POST /events HTTP/1.1\r\nHost: x\r\n{SECRET_HEADER}: {SECRET}\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            return int((await reader.readuntil(b"\r\n\r\n")).split()[1])
        finally:
            writer.close()

    # Trouble.

    async def _stranger(self, number: int) -> None:
        """Holds a connection, and opens another one when it is closed."""
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                self.found.strangers += 1
                try:
                    if number % 2:
                        writer.write(_HALF)
                    await reader.read()
                finally:
                    writer.close()
            await asyncio.sleep(random.uniform(1, 3))

    async def _trickle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The stalled target: a byte a second, and no end."""
        self.at_target += 1
        try:
            with suppress(OSError):
                for byte in chain(b"HTTP/1.1 200 OK\r\nX-Slow: ", repeat(ord("x"))):
                    writer.write(bytes([byte]))
                    with suppress(TimeoutError):
                        if not await asyncio.wait_for(reader.read(1 << 16), 1):
                            break
        finally:
            self.at_target -= 1
            writer.close()

    async def _stall_now_and_then(self) -> None:
        rng = random.Random(f"{self.seed} stalls")
        while True:
            await asyncio.sleep(rng.uniform(4, 10))
            answered = len(self.found.seconds)
            self._stall()
            await asyncio.sleep(rng.uniform(4, 12))
            await self._until(lambda before=answered: len(self.found.seconds) >= before + PROVEN)
            self._resume()

    def _stall(self) -> None:
        self.way.stalled.set()
        self.stalled_at = time.monotonic()
        self.found.stalls += 1

    def _resume(self) -> None:
        self.stalled_at = None
        self.way.resume()

    async def _kill_now_and_then(self, every: float) -> None:
        rng = random.Random(f"{self.seed} kills")
        while True:
            if rng.random() < KILLED_AT_START:
                await asyncio.sleep(rng.uniform(0, 2))
            else:
                await self._until(self._up)
                await asyncio.sleep(rng.uniform(0, 2 * every))
            self._kill()
            self._start()

    # The end.

    async def _stop_with_everything_stalled(self) -> None:
        self._resume()
        await self._until(lambda: self._up() and self.at_target)
        before = self.way.waiting
        self._stall()
        await self._until(lambda: self.way.waiting > before and self.at_target)
        self.stopping, begun = True, time.monotonic()
        self.gaps.append((begun, math.inf))
        self.process.send_signal(signal.SIGTERM)
        self.found.stop_status = await asyncio.to_thread(self.process.wait, PATIENT_SECONDS)
        self.found.stop_seconds = time.monotonic() - begun
        self._check_inbox()

    async def _recover(self) -> None:
        """The bucket works again, the rest does not; check that everything arrives."""
        self._resume()
        self._start()
        self.stopping = False
        await self._until(lambda: self._up() and not self.sending)
        with suppress(TimeoutError):  # what is missing then is lost
            await self._until(self._settled)
        self.stopping = True
        self.process.terminate()
        await asyncio.to_thread(self.process.wait, PATIENT_SECONDS)
        store = Store(self.labels, self._source, self.s3.options)
        kept = set(store.current(ANNOTATION)["id"])
        delivered = self._delivered()
        for task, annotation in self.found.saved.items():
            if annotation not in kept or task not in delivered:
                self.found.lost.add(self.events[task])
        self.found.commits = store.version or 0
        self.found.file_bytes = sum(file.stat().st_size for file in self.folder.glob(f"{INBOX}*"))

    @property
    def _source(self) -> str:
        return f"label-studio:{self.server.url}#{self.project}"

    def _settled(self) -> bool:
        [(self.found.waiting,)] = _read(self.folder / INBOX, "SELECT count(*) FROM knock")
        return not self.found.waiting and set(self.found.saved) <= self._delivered()

    def _delivered(self) -> set[str]:
        """The tasks whose completion is in the log of events, and came to the healthy target."""
        came = {body["id"] for body in self.healthy.json}
        ask = "SELECT id, subject FROM event WHERE type = 'task.completed'"
        found = _read(self.folder / EVENTS, ask)
        return {subject.removeprefix("task:") for id, subject in found if id in came}

    async def _until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENT_SECONDS):
            while not true():
                await asyncio.sleep(0.05)


def _read(file: Path, ask: str) -> list[Any]:
    """Read from a file that another process may be writing."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as db:
        return db.execute(ask).fetchall()


_CONNECTOR = (sys.executable, "-m", "connector")


def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()


def memory_of(pid: int) -> int:
    """The resident memory of a process and its descendants, in bytes."""
    found, place = 0, Path(f"/proc/{pid}")
    with suppress(OSError):  # it has ended
        for line in (place / "status").read_text().splitlines():
            if line.startswith("VmRSS"):
                found += 1024 * int(line.split()[1])
        for children in place.glob("task/*/children"):
            found += sum(memory_of(int(child)) for child in children.read_text().split())
    return found


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else SECONDS)
