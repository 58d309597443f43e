"""A million tasks with three annotations each through the pull, which is killed on the way and goes on.

No real Label Studio holds a million tasks within a benchmark's time. So the server here is a stand-in: it
answers the requests of a pull in the form that the real one was recorded with (see cassettes/), from tasks
that it makes up as it is asked for them.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from connector.demo.pictures import LABEL_CONFIG, Box, result
from connector.demo.server import free_port
from connector.store.label_store import ANNOTATION, TASK, Store

TASKS = 1_000_000
PEOPLE = 3
STARTED = datetime(2026, 1, 1, tzinfo=UTC)
KILLED_AFTER = 200
"""Pages."""


def main() -> None:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen([sys.executable, "-m", "benchmarks.million", "serve", str(port)])
        try:
            pull_all(f"http://127.0.0.1:{port}", Path(folder))
        finally:
            server.kill()
            server.wait()


def pull_all(url: str, folder: Path) -> None:
    store = Store(str(folder / "labels"))
    first = pull_until(url, folder, KILLED_AFTER)
    kept = store.current(TASK)["task"].n_unique()
    print(f"killed after {first:.0f} s and {KILLED_AFTER} pages: {kept} tasks are in the store", flush=True)
    begun = time.perf_counter()
    told = pull_until(url, folder, None)
    seconds = time.perf_counter() - begun
    rest, peak = TASKS - kept, json.loads(told)
    print(
        f"the rest: {rest} tasks in {seconds:.0f} s, {rest / seconds:.0f} tasks/s, each with {PEOPLE} answers"
    )
    print(f"read again after the kill: {peak['tasks'] - rest} tasks")
    print(f"memory of the process, MB: {peak['memory']}")
    assert len(store.current(TASK)) == TASKS
    assert len(store.current(ANNOTATION)) == TASKS * PEOPLE


def pull_until(url: str, folder: Path, pages: int | None) -> Any:
    """Pull in a process of its own; killed after so many pages. Gives the seconds, or what it told."""
    command = [sys.executable, "-m", "benchmarks.million", "pull", url, str(folder)]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if pages is None:
        return process.communicate()[0]
    log = folder / "labels" / "_delta_log"
    while len(list(log.glob("*.json"))) < pages:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return time.perf_counter() - begun


def pull(url: str, folder: str) -> None:
    """The pull itself; tells how many tasks it read, and its memory on the way."""
    from connector.adapters.label_studio.adapter import LabelStudio
    from connector.sync import rounds as sync

    page = resource.getpagesize()
    seen: dict[int, int] = {}
    read = 0

    def progress(n: int) -> None:
        nonlocal read
        read += n
        if read // 100_000 > len(seen):
            seen[read] = int(Path("/proc/self/statm").read_text().split()[1]) * page >> 20
            print(f"  {read} tasks, {seen[read]} MB", file=sys.stderr, flush=True)

    done = sync.pull(LabelStudio(url, "a" * 40, 1), Store(f"{folder}/labels"), progress)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps({"tasks": done.tasks, "memory": {**seen, "peak": peak}}))


# The stand-in.


def at(number: int) -> str:
    """When a task was changed: a millisecond after the one before."""
    return (STARTED + timedelta(milliseconds=number)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


RESULT = json.dumps(result("street", [Box("car", 10, 10, 20, 15), Box("tree", 50, 40, 10, 30)], "b"))
ANNOTATION_JSON = (
    '{"id": %d, "result": %s, "completed_by": %d, "was_cancelled": false, "ground_truth": false, '
    '"created_at": "%s", "updated_at": "%s", "lead_time": 7.5, "updated_by": %d}'
)
TASK_JSON = (
    '{"id": %d, "data": {"image": "s3://raw/%07d.png", "connector_key": "s3://raw/%07d.png"}, '
    '"created_at": "%s", "updated_at": "%s", "overlap": 3, "inner_id": %d, "is_labeled": true, '
    '"annotations": [%s], "predictions": []}'
)


def task_json(number: int) -> str:
    when = at(number)
    said = ", ".join(
        ANNOTATION_JSON % (PEOPLE * number + who, RESULT, who + 1, when, when, who + 1)
        for who in range(PEOPLE)
    )
    return TASK_JSON % (number, number, number, when, when, number, said)


class StandIn(BaseHTTPRequestHandler):
    """Answers the requests of a pull."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {name: value[0] for name, value in parse_qs(url.query).items()}
        if url.path == "/api/tasks/":
            body = self.tasks(asked)
        elif url.path.startswith("/api/projects/counts"):
            counts = {"id": 1, "task_number": TASKS, "total_predictions_number": 0}
            body = json.dumps({"count": 1, "next": None, "previous": None, "results": [counts]})
        elif url.path.startswith("/api/projects/1"):
            body = json.dumps({"id": 1, "title": "", "label_config": LABEL_CONFIG, "maximum_annotations": 3})
        elif url.path == "/api/users/":
            body = json.dumps(
                [{"id": n + 1, "email": f"p{n}@example.com", "username": ""} for n in range(PEOPLE)]
            )
        else:
            self.send_error(404, self.path)
            return
        content = body.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def tasks(self, asked: dict[str, str]) -> str:
        query = json.loads(asked["query"])
        first = 1
        for item in query["filters"]["items"]:
            assert item["filter"] == "filter:tasks:updated_at", item
            assert item["operator"] == "greater_or_equal", item
            since = datetime.fromisoformat(item["value"]) - STARTED
            first = max(1, -(-since // timedelta(milliseconds=1)))
        size = int(asked["page_size"])
        numbers = range(first, min(first + size, TASKS + 1))
        if query["ordering"] == ["-tasks:updated_at"]:
            numbers = range(TASKS, max(TASKS - size, first - 1), -1)
        total = max(0, TASKS + 1 - first)
        return f'{{"total": {total}, "tasks": [{", ".join(map(task_json, numbers))}]}}'

    def log_message(self, *args: object) -> None:
        """Nothing is logged."""


def serve(port: str) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), StandIn)
    # It ends by itself, should nobody end it.
    threading.Timer(3600, lambda: os._exit(0)).start()
    server.serve_forever()


if __name__ == "__main__":
    {"serve": serve, "pull": pull}[sys.argv[1]](*sys.argv[2:])
