"""The receiver under load, against the same receiver that keeps nothing and one that waits for the disk for
each event by itself. 64 connections on loopback; servers and senders share this machine.

The contenders take turns, and who begins changes from round to round; the median ratio of the rounds counts.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from connector.adapters.base import WakeUp
from connector.adapters.label_studio.adapter import LabelStudio
from connector.adapters.signatures import SECRET_HEADER
from connector.config import Serve
from connector.serve.inbox import Inbox
from connector.serve.receiver import Metrics, Receiver, application, serving

CONNECTIONS = 64
EVENTS = 100_000
SLICES = 10
"""The events come in so many slices; the contenders take turns after each."""

SECRET = "the secret of this benchmark"
FOLLOWED = "followed"
"""A receiver behind which pulls follow, as fast as may be."""

CONTENDERS = ("connector", "keeps nothing", "a commit for each")


def main(events: int = EVENTS) -> None:
    found: dict[str, list[Load]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        for n in range(SLICES):
            for name in (*CONTENDERS[n % 3 :], *CONTENDERS[: n % 3]):
                with server(Path(folder) / name / str(n), name) as port:
                    found[name].append(asyncio.run(knock(port, events // SLICES, first=n * events)))
    for name, loads in found.items():
        rate = statistics.median(load.per_second for load in loads)
        p50, p99 = (statistics.median(load.percentile(p) for load in loads) * 1000 for p in (50, 99))
        print(f"{name}: {rate:.0f} events/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    for name in CONTENDERS[1:]:
        pairs = list(zip(found["connector"], found[name], strict=True))
        rates = [ours.per_second / theirs.per_second for ours, theirs in pairs]
        p99 = statistics.median(ours.percentile(99) / theirs.percentile(99) for ours, theirs in pairs)
        spread = f"rounds: {min(rates):.2f} to {max(rates):.2f}"
        print(
            f"connector / {name}: throughput {statistics.median(rates):.2f} ({spread}), p99 {p99:.2f}",
            flush=True,
        )
    whole = events / statistics.median(load.per_second for load in found["connector"])
    for share in (0.3, 0.95):
        with tempfile.TemporaryDirectory() as folder:
            killed(Path(folder), events, random.uniform(0, 0.05) + share, whole)


def killed(folder: Path, events: int, share: float, whole: float) -> None:
    """Kill the receiver on the way, and look whether all that it acknowledged is there.

    Args:
        share: of the time that all events need, after which it is killed.
        whole: that time, in seconds.
    """
    process = start(folder)
    port = port_of(process)
    threading.Timer(share * whole, process.kill).start()
    load = asyncio.run(knock(port, events))
    process.kill()
    process.communicate()
    with closing(sqlite3.connect(folder / "inbox.sqlite")) as db:
        kept = {id for (id,) in db.execute("SELECT id FROM knock")}
    lost = len(set(load.acknowledged) - kept)
    print(f"killed after {len(load.acknowledged)} acknowledged events of {events}: {lost} lost", flush=True)


@dataclass
class Load:
    """What came of a load.

    Attributes:
        acknowledged: the ids of the events that were answered 202.
        seconds: from each request to its answer.
    """

    acknowledged: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    whole: float = 0

    @property
    def per_second(self) -> float:
        return len(self.acknowledged) / self.whole

    def percentile(self, percent: int) -> float:
        return statistics.quantiles(self.seconds, n=100)[percent - 1]


def event(number: int) -> bytes:
    """An event as long as Label Studio's."""
    annotation = {"id": number, "updated_at": datetime.now(UTC).isoformat(), "result": [{"value": "x" * 500}]}
    project = {"id": 1, "label_config": "x" * 2000}
    return json.dumps(
        {"action": "ANNOTATION_CREATED", "task": {"id": number}, "annotation": annotation, "project": project}
    ).encode()


async def knock(port: int, events: int, first: int = 0) -> Load:
    """Send events over `CONNECTIONS` connections; ends early where the server goes away."""
    load, numbers = Load(), iter(range(first, first + events))
    tool = LabelStudio("http://localhost", "a" * 40, 1)

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for number in numbers:
                body = event(number)
                head = f"POST /events HTTP/1.1\r\nHost: x\r\n{SECRET_HEADER}: {SECRET}\r\n"
                begun = time.perf_counter()
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                assert answer.startswith(b"HTTP/1.1 202"), answer
                load.seconds.append(time.perf_counter() - begun)
                woken = tool.parse_event({SECRET_HEADER: SECRET}, body, SECRET)
                assert woken
                load.acknowledged.append(woken.id)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    load.whole = time.perf_counter() - begun
    return load


@contextmanager
def server(folder: Path, contender: str) -> Iterator[int]:
    """A receiver in a process of its own; gives its port."""
    process = start(folder, contender)
    try:
        yield port_of(process)
    finally:
        process.kill()
        process.communicate()


def start(folder: Path, contender: str = "connector") -> subprocess.Popen[str]:
    """A receiver in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "benchmarks.webhooks", str(folder / "inbox.sqlite"), contender]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def port_of(process: subprocess.Popen[str]) -> int:
    """The port it tells on its output."""
    assert process.stdout
    return int(process.stdout.readline())


class KeepsNothing(Inbox):
    """Says that an event is kept, and forgets it."""

    async def put(self, event: WakeUp) -> None:
        """Nothing is kept."""


def serve(path: Path, contender: str) -> None:
    kind = KeepsNothing if contender == "keeps nothing" else Inbox
    inbox = kind(path, "one", at_once=1 if contender == "a commit for each" else 1000)
    tool = LabelStudio("http://localhost", "a" * 40, 1)
    settings = Serve(per_second=1_000_000)
    metrics = Metrics(inbox)
    metrics.pulled(None)
    receiver = Receiver(tool.parse_event, SECRET, inbox, lambda: None, metrics, settings)
    with serving(application(receiver), "127.0.0.1", 0) as url:
        print(url.rsplit(":", 1)[1], flush=True)
        while True:
            time.sleep(0.2)
            if contender == FOLLOWED:
                inbox.followed(inbox.last())


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2])
