"""Corrections on one real server: none lost, none twice, and what the care costs over the bare requests.

Bare is one request a correction, by a loop that looks at nothing: it would overwrite what somebody edited. A
careful loop reads before and after, as ours must, and keeps no journal. Who begins changes from round to
round; the median ratio of the rounds counts. At the end `CORRECTIONS` are applied, interrupted once, and
counted in the tool.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import requests

from benchmarks.sync import headers, in_turn, new_project, timed, tool_of
from connector.adapters.base import batches
from connector.corrections.apply import Applied, apply
from connector.corrections.plan import Plan
from connector.corrections.undo import undo
from connector.demo.pictures import Box, result
from connector.demo.server import Running, label_studio
from connector.journal.correction import Action, Correction
from connector.journal.journal import Journal
from connector.model import Task, dump_json

CORRECTIONS = 10_000
SOME = 300
ROUNDS = 5

WRONG = result("street", [Box("car", 10, 10, 20, 15)], "b")
RIGHT = result("field", [Box("car", 10, 10, 20, 15)], "b")


def main() -> None:
    with label_studio() as server, tempfile.TemporaryDirectory() as folder:
        for action in (Action.ADD, Action.REPLACE):
            rounds = [one_round(server, Path(folder), action, n) for n in range(ROUNDS)]
            for peer in ("bare", "careful"):
                ratios = [r["connector"] / r[peer] for r in rounds]
                each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
                print(f"{action}: {statistics.median(ratios):.2f} times the {peer} loop (rounds: {each})")
            ours = statistics.median(r["connector"] for r in rounds)
            print(f"{action}: {SOME / ours:.1f} corrections/s", flush=True)
        many(server, Path(folder))


def labeled(server: Running, tasks: int) -> int:
    """A project whose tasks have one wrong answer each."""
    project = new_project(server)
    said = {"result": WRONG, "completed_by": server.annotators[0].id, "ground_truth": False}
    for batch in batches(range(tasks), 1000):
        body = [
            {"data": {"image": f"{n}.png", "connector_key": str(n)}, "annotations": [said]} for n in batch
        ]
        url = f"{server.url}/api/projects/{project}/import"
        requests.post(url, json=body, headers=headers(server), timeout=600).raise_for_status()
    return project


def all_tasks(server: Running, project: int) -> Sequence[Task]:
    return [task for page in tool_of(server, project).changed_tasks(None) for task in page.tasks]


def plan(project: int, tasks: Sequence[Task], action: Action) -> Plan:
    corrections = []
    for task in tasks:
        [held] = task.annotations
        own = action is Action.REPLACE
        corrections.append(
            Correction(
                task=task.id,
                key=task.key,
                action=action,
                annotation=held.id if own else None,
                annotator=held.annotator if own else "",
                expect=held.revision if own else task.revision,
                then=dump_json(RIGHT),
                why="the benchmark says so",
            )
        )
    return Plan(project=str(project), source={}, corrections=tuple(corrections))


def now() -> datetime:
    return datetime.now(UTC)


def ours(server: Running, journal: Path, made: Plan) -> Applied:
    return apply(tool_of(server, int(made.project)), made, made.project, Journal(str(journal)), now)


def one_round(server: Running, folder: Path, action: Action, nth: int) -> dict[str, float]:
    plans = []
    for _ in range(3):
        project = labeled(server, SOME)
        plans.append(plan(project, all_tasks(server, project), action))
    return in_turn(
        {
            "connector": lambda: ours(server, folder / f"{action}-{nth}", plans[0]),
            "bare": lambda: [write(server, c) for c in plans[1].corrections],
            "careful": lambda: [carefully(server, c) for c in plans[2].corrections],
        },
        nth,
    )


def write(server: Running, correction: Correction) -> None:
    """The one request without which nothing is corrected."""
    body = {"result": RIGHT, "ground_truth": correction.action is Action.ADD}
    if correction.annotation:
        url, send = f"{server.url}/api/annotations/{correction.annotation}/", requests.patch
    else:
        url, send = f"{server.url}/api/tasks/{correction.task}/annotations/", requests.post
    send(url, json=body, headers=headers(server), timeout=60).raise_for_status()


def carefully(server: Running, correction: Correction) -> None:
    """Read, write, read."""
    for step in (None, write, None):
        if step:
            step(server, correction)
        elif correction.annotation:
            url = f"{server.url}/api/annotations/{correction.annotation}/"
            requests.get(url, headers=headers(server), timeout=60).raise_for_status()
        else:
            url = f"{server.url}/api/tasks/{correction.task}/"
            requests.get(url, headers=headers(server), timeout=60).raise_for_status()


class Interrupted(BaseException):
    """As by kill -9: nothing is tidied up."""


def many(server: Running, folder: Path) -> None:
    """Apply, be interrupted in the middle, apply again, look; take back, look."""
    project = labeled(server, CORRECTIONS)
    before = held(server, project)
    made, journal = plan(project, all_tasks(server, project), Action.ADD), folder / "many"
    tool, steps = tool_of(server, project), itertools.count(1)

    def half(_: int) -> None:
        if next(steps) > CORRECTIONS // 2:
            raise Interrupted

    def twice() -> None:
        with suppress(Interrupted):
            apply(tool, made, made.project, Journal(str(journal)), now, half)
        done = ours(server, journal, made)
        assert (done.conflicts, done.failed, done.stopped) == ([], [], None)
        assert done.written + done.already == CORRECTIONS

    seconds = timed(twice)
    found = held(server, project)
    lost = sum(n < 2 for n in map(len, found.values()))
    double = sum(n > 2 for n in map(len, found.values()))
    right = dump_json(RIGHT)
    wrong = sum(sorted(said) != sorted([*before[task], (right, True)]) for task, said in found.items())
    print(
        f"{CORRECTIONS} corrections, interrupted once: {lost} lost, {double} twice, {wrong} not as planned; "
        f"{CORRECTIONS / seconds:.1f} a second",
        flush=True,
    )
    seconds = timed(lambda: undo(tool, made.run, made.project, Journal(str(journal)), now))
    left = sum(found != before[task] for task, found in held(server, project).items())
    size = sum(file.stat().st_size for file in journal.iterdir())
    print(f"undone: {left} not as before; {CORRECTIONS / seconds:.1f} a second; the journal has {size} bytes")
    seconds = timed(lambda: Journal(str(journal)).chain())
    print(f"the journal is proved untouched in {seconds:.1f} s")


def held(server: Running, project: int) -> dict[str, list[tuple[str, bool]]]:
    return {
        task.id: [(json_of(a.result), a.ground_truth) for a in task.annotations]
        for task in all_tasks(server, project)
    }


def json_of(text: str) -> str:
    return dump_json(json.loads(text))
