"""Push and pull against a bare HTTP loop of the same requests and the SDK's own loop, on one real server.

Every contender runs once a round, in turn, and who begins changes from round to round; the median ratio of
the rounds counts.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import requests

from connector.adapters.base import LabelingTool, batches
from connector.adapters.label_studio.adapter import LabelStudio, create_project
from connector.adapters.label_studio.client import Server
from connector.demo.pictures import LABEL_CONFIG, Box, result
from connector.demo.server import Running, label_studio
from connector.model import Item
from connector.store.label_store import Store
from connector.sync import rounds as sync
from connector.sync.items import Listed
from connector.sync.ledger import Ledger

ANNOTATIONS = 3


TASKS, MANY = 10_000, 100_000
ROUNDS = 5


def main() -> None:
    with label_studio() as server, tempfile.TemporaryDirectory() as folder:
        push = [push_round(server, n) for n in range(ROUNDS)]
        show("push", push, "bare HTTP loop")
        project = labeled_project(server)
        pull = [pull_round(server, project, Path(folder) / str(n), n) for n in range(ROUNDS)]
        show("pull", pull, "bare HTTP loop")
        show("pull", pull, "SDK's default listing")
        again = timed(lambda: sync.pull(tool_of(server, project), Store(f"{folder}/0")))
        print(f"a second pull of {TASKS} unchanged tasks: {again:.3f} s", flush=True)
        unchanged(server, Path(folder))


def unchanged(server: Running, folder: Path) -> None:
    """Nothing is new, on either side: what a watch does most of the time."""
    tool, store = tool_of(server, new_project(server)), Store(str(folder / "unchanged"))
    with closing(Ledger(folder / "ledger", "unchanged")) as ledger:

        def both() -> tuple[int, int]:
            pulled, pushed = sync.sync(tool, store, Pictures(MANY), [], ledger)
            return pulled.tasks, pushed.new

        first = timed(both)
        both()
        assert both() == (0, 0)
        print(f"a sync of {MANY} items: {first:.0f} s, and again without a change: {timed(both):.2f} s")


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def show(what: str, rounds: list[dict[str, float]], peer: str) -> None:
    ratios = [r[peer] / r["connector"] for r in rounds]
    ours = statistics.median(r["connector"] for r in rounds)
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(
        f"{what}: {TASKS / ours:.0f} tasks/s; {statistics.median(ratios):.2f} times {peer} (rounds: {each})",
        flush=True,
    )


def in_turn(contenders: dict[str, Callable[[], object]], nth: int) -> dict[str, float]:
    """The seconds of each; who begins depends on the round."""
    names = list(contenders)
    return {name: timed(contenders[name]) for name in names[nth % len(names) :] + names[: nth % len(names)]}


def tool_of(server: Running, project: int) -> LabelStudio:
    return LabelStudio(server.url, server.owner.token, project)


def new_project(server: Running) -> int:
    return create_project(Server(server.url, server.owner.token), "Benchmark", LABEL_CONFIG, ANNOTATIONS)


def items(number: int = TASKS) -> list[Item]:
    names = (f"s3://raw/{n:07}.png" for n in range(number))
    return [Item(key=name, data={"image": name, "n": n}) for n, name in enumerate(names)]


class Pictures:
    """The same items as a source."""

    def __init__(self, number: int = TASKS) -> None:
        self._items = items(number)

    def __iter__(self) -> Iterator[Listed]:
        return (Listed(item.key, "", tells_content=False, parts=item.data) for item in self._items)

    def holds(self, key: str) -> bool:  # noqa: ARG002
        return False

    def items(self, listed: Sequence[Listed], tool: LabelingTool) -> Iterator[Item]:  # noqa: ARG002
        return (Item(key=one.key, data=dict(one.parts)) for one in listed)


def push_round(server: Running, nth: int) -> dict[str, float]:
    ours, bare = new_project(server), new_project(server)
    with tempfile.TemporaryDirectory() as folder, closing(Ledger(Path(folder) / "ledger", "push")) as ledger:
        store = Store(f"{folder}/labels")
        return in_turn(
            {
                "connector": lambda: sync.push(tool_of(server, ours), store, Pictures(), [], ledger),
                "bare HTTP loop": lambda: bare_push(server, bare),
            },
            nth,
        )


def bare_push(server: Running, project: int) -> None:
    for batch in batches(items(), LabelStudio.capabilities.import_batch):
        requests.post(
            f"{server.url}/api/projects/{project}/import?return_task_ids=true",
            json=[{"data": {**item.data, "connector_key": item.key}} for item in batch],
            headers=headers(server),
            timeout=120,
        ).raise_for_status()


def labeled_project(server: Running) -> int:
    project = new_project(server)
    answer = result("street", [Box("car", 10, 10, 20, 15), Box("tree", 50, 40, 10, 30)], "b")
    annotations = [
        {"result": answer, "completed_by": user.id, "ground_truth": False}
        for user in server.annotators[:ANNOTATIONS]
    ]
    for batch in batches(items(), 1000):
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


def pull_round(server: Running, project: int, store: Path, nth: int) -> dict[str, float]:
    return in_turn(
        {
            "connector": lambda: sync.pull(tool_of(server, project), Store(str(store))),
            "bare HTTP loop": lambda: bare_pull(server, project),
            "SDK's default listing": lambda: sdk_pull(server, project),
        },
        nth,
    )


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
                "annotations,result,completed_by,was_cancelled,ground_truth,lead_time,"
                "predictions,model_version,score",
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
