"""Push and pull against a bare HTTP loop of the same requests and the SDK's own loop, on one real server.

    python -m benchmarks [--tasks 10000] [--rounds 3]

Only ratios mean anything: client and server share this machine. Every contender runs once a round, in turn;
the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import requests

from connector import sync
from connector.adapters.base import batches
from connector.adapters.label_studio import LabelStudio, create_project
from connector.adapters.label_studio_server import Server
from connector.demo.pictures import LABEL_CONFIG, Box, result
from connector.demo.server import Running, label_studio
from connector.model import Item
from connector.store import Store

ANNOTATIONS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with label_studio() as server, tempfile.TemporaryDirectory() as folder:
        push = [push_round(server, asked.tasks) for _ in range(asked.rounds)]
        show("push", push, "bare HTTP loop", asked.tasks)
        project = labeled_project(server, asked.tasks)
        pull = [pull_round(server, project, Path(folder) / str(n)) for n in range(asked.rounds)]
        show("pull", pull, "bare HTTP loop", asked.tasks)
        show("pull", pull, "SDK's default listing", asked.tasks)
        again = timed(lambda: sync.pull(tool_of(server, project), Store(f"{folder}/0")))
        print(f"a second pull of {asked.tasks} unchanged tasks: {again:.3f} s")


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def show(what: str, rounds: list[dict[str, float]], peer: str, tasks: int) -> None:
    ours = statistics.median(r["connector"] for r in rounds)
    theirs = statistics.median(r[peer] for r in rounds)
    each = ", ".join(f"{r[peer] / r['connector']:.2f}" for r in rounds)
    print(
        f"{what}: {tasks / ours:.0f} tasks/s; {peer}: {tasks / theirs:.0f} tasks/s; "
        f"ratio {theirs / ours:.2f} (rounds: {each})"
    )


def tool_of(server: Running, project: int) -> LabelStudio:
    return LabelStudio(server.url, server.owner.token, project)


def new_project(server: Running) -> int:
    return create_project(Server(server.url, server.owner.token), "Benchmark", LABEL_CONFIG, ANNOTATIONS)


def items(tasks: int) -> list[Item]:
    return [
        Item(key=f"s3://raw/{n:07}.png", data={"image": f"s3://raw/{n:07}.png", "n": n}) for n in range(tasks)
    ]


def push_round(server: Running, tasks: int) -> dict[str, float]:
    ours, bare = new_project(server), new_project(server)
    rejects: list[sync.Reject] = []
    return {
        "connector": timed(lambda: sync.push(tool_of(server, ours), iter(items(tasks)), rejects)),
        "bare HTTP loop": timed(lambda: bare_push(server, bare, tasks)),
    }


def bare_push(server: Running, project: int, tasks: int) -> None:
    for batch in batches(items(tasks), LabelStudio.capabilities.import_batch):
        requests.post(
            f"{server.url}/api/projects/{project}/import?return_task_ids=true",
            json=[{"data": {**item.data, "connector_key": item.key}} for item in batch],
            headers=headers(server),
            timeout=120,
        ).raise_for_status()


def labeled_project(server: Running, tasks: int) -> int:
    project = new_project(server)
    answer = result("street", [Box("car", 10, 10, 20, 15), Box("tree", 50, 40, 10, 30)], "b")
    annotations = [
        {"result": answer, "completed_by": user.id, "ground_truth": False}
        for user in server.annotators[:ANNOTATIONS]
    ]
    for batch in batches(items(tasks), 1000):
        requests.post(
            f"{server.url}/api/projects/{project}/import",
            json=[
                {"data": {**item.data, "connector_key": item.key}, "annotations": annotations}
                for item in batch
            ],
            headers=headers(server),
            timeout=600,
        ).raise_for_status()
    return project


def pull_round(server: Running, project: int, store: Path) -> dict[str, float]:
    return {
        "connector": timed(lambda: sync.pull(tool_of(server, project), Store(str(store)))),
        "bare HTTP loop": timed(lambda: bare_pull(server, project)),
        "SDK's default listing": timed(lambda: sdk_pull(server, project)),
    }


def bare_pull(server: Running, project: int) -> None:
    """The same pages with the same fields, thrown away."""
    at = None
    while True:
        item = {
            "filter": "filter:tasks:updated_at",
            "operator": "greater_or_equal",
            "type": "Datetime",
            "value": at,
        }
        query = {
            "filters": {"conjunction": "and", "items": [item] if at else []},
            "ordering": ["tasks:updated_at"],
        }
        page = requests.get(
            f"{server.url}/api/tasks/",
            params={
                "project": project,
                "page_size": 1000,
                "fields": "all",
                "include": "id,data,overlap,created_at,updated_at,"
                "annotations,result,completed_by,was_cancelled,ground_truth,lead_time",
                "resolve_uri": "false",
                "query": json.dumps(query),
            },
            headers=headers(server),
            timeout=120,
        ).json()["tasks"]
        if len(page) < 1000 or page[-1]["updated_at"] == at:
            return
        at = page[-1]["updated_at"]


def sdk_pull(server: Running, project: int) -> None:
    from label_studio_sdk.client import LabelStudio as Client

    for _ in Client(base_url=server.url, api_key=server.owner.token).tasks.list(
        project=project, fields="all"
    ):
        pass


def headers(server: Running) -> dict[str, str]:
    return {"Authorization": f"Token {server.owner.token}"}


if __name__ == "__main__":
    main()
