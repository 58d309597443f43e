"""The whole pipeline once, small but real: the commands a user would type, against a real server."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from connector.adapters.label_studio.adapter import LabelStudio, create_project
from connector.adapters.label_studio.client import Server
from connector.config import JOURNAL_KEY, TOKEN
from connector.demo.people import PEOPLE, assign, label, true_skill
from connector.demo.pictures import LABEL_CONFIG, Scene, scenes, truth_result
from connector.demo.server import Running, label_studio, s3_server
from connector.errors import ConnectorError
from connector.io.files import write_atomic
from connector.io.objects import Objects

OVERLAP = 3
GOLD_SHARE = 0.25

Say = Callable[[str], None]

Call = Callable[[Sequence[str]], int]
"""Runs a command, given the words after `connector`; returns its exit code."""


@dataclass(frozen=True, slots=True)
class Skill:
    """What the pipeline measured of a simulated annotator, beside what is true.

    Attributes:
        control: the question.
        score: the golden score and its interval, as `quality golden` answered it.
    """

    annotator: str
    habit: str
    control: str
    score: Mapping[str, Any]
    verdict: str
    true: float


@dataclass(frozen=True, slots=True)
class Shown:
    """What the demo leaves."""

    skills: list[Skill]
    report: Path
    url: str
    seconds: float


@dataclass
class _Terminal:
    """Runs commands in a folder of their own, prints their output, and stops at the first that fails."""

    folder: Path
    environment: Mapping[str, str]
    call: Call
    say: Say

    def run(self, command: str) -> None:
        """Run a command as a user would, and print what it prints."""
        self.say(f"\n$ connector {command}")
        code, out, err = self._called(shlex.split(command))
        self.say((out + err).rstrip())
        if code:
            raise ConnectorError(f"`connector {command}` ended with exit code {code}")

    def ask(self, command: str) -> dict[str, Any]:
        """The JSON answer of a command."""
        code, out, err = self._called([*shlex.split(command), "--json"])
        if code:
            raise ConnectorError(f"`connector {command}` ended with exit code {code}:\n{err}")
        answer: dict[str, Any] = json.loads(out)
        return answer

    def _called(self, words: Sequence[str]) -> tuple[int, str, str]:
        """The exit code, stdout and stderr of a command.

        In this process: to start an interpreter for each takes longer than the commands themselves.
        """
        out, err = io.StringIO(), io.StringIO()
        before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        try:
            with chdir(self.folder), redirect_stdout(out), redirect_stderr(err):
                code = self.call(words)
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        return code, out.getvalue(), err.getvalue()


def run(
    folder: Path, items: int, seed: int, call: Call, say: Say, wait: Callable[[str], None] = lambda _: None
) -> Shown:
    """Run the demo.

    Args:
        folder: what it leaves: configuration, labels, plan, report. What an earlier demo left there goes.
        items: how many pictures.
        call: runs each command.
        say: called with everything a user would see.
        wait: called with the server's address while it still runs.
    """
    began = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        say("Starting a Label Studio and an S3 server …")
        server = stack.enter_context(label_studio())
        s3 = stack.enter_context(s3_server())
        pictures = {f"{s3.url}/scenes/{scene.key}": scene for scene in scenes(items, seed)}
        bucket = Objects(f"{s3.url}/scenes", s3.options)
        for scene in pictures.values():
            bucket.write(scene.key, scene.png)
        say(f"{server.url} and {s3.endpoint} answer; {items} pictures lie in {bucket.url}.")
        project = create_project(Server(server.url, server.owner.pat), "Demo: scenes", LABEL_CONFIG)
        secrets = {TOKEN: server.owner.pat, JOURNAL_KEY: token_hex(32)}
        terminal = _Terminal(folder, {**s3.environment, **secrets}, call, say)
        gold = _write_gold(folder / "gold.json", pictures)
        (folder / "ontology.xml").write_text(LABEL_CONFIG)
        turns = assign(list(pictures), gold, OVERLAP, seed)

        _set_up(terminal, server, project, bucket.url)
        _label(server, project, pictures, turns, seed, say)
        _measure(terminal)
        _review(terminal, server, project, pictures, say)
        _correct(terminal)
        terminal.run(
            "report --gold gold.json --sample sample.csv --verdicts verdicts.csv --plan plan.jsonl "
            "--title 'Demo: scenes'"
        )
        skills = _skills(terminal.ask("quality golden --gold gold.json"), pictures, turns, seed)
        wait(server.url)
        return Shown(skills, folder / "report.html", server.url, time.monotonic() - began)


def _write_gold(path: Path, pictures: Mapping[str, Scene]) -> set[str]:
    """The right answers to some tasks, which the tool does not show to anybody."""
    gold = list(pictures)[:: round(1 / GOLD_SHARE)]
    answers = [
        {"id": key, "annotations": [{"result": truth_result(pictures[key]), "ground_truth": True}]}
        for key in gold
    ]
    write_atomic(path, json.dumps(answers, indent=1).encode())
    return set(gold)


def _set_up(terminal: _Terminal, server: Running, project: int, raw: str) -> None:
    terminal.run(
        f"init --url {server.url} --project {project} --raw {raw} --overlap {OVERLAP} "
        f"--reviewer {server.expert.email}"
    )
    terminal.run("ontology push ontology.xml")
    terminal.run("doctor")
    terminal.run("push --dry-run")
    terminal.run("push")


def _label(
    server: Running,
    project: int,
    pictures: Mapping[str, Scene],
    turns: Mapping[str, Sequence[str]],
    seed: int,
    say: Say,
) -> None:
    names = ", ".join(f"{person.name} ({person.habit})" for person in PEOPLE)
    say(f"\nFive simulated annotators label in their own names: {names} …")
    tasks = LabelStudio(server.url, server.owner.pat, project).known_keys()
    users = {user.email.split("@")[0]: user for user in server.annotators}
    say(f"{label(server.url, users, tasks, pictures, turns, seed)} answers.")


def _measure(terminal: _Terminal) -> None:
    terminal.run("pull")
    terminal.run("status")
    terminal.run("quality consensus")
    terminal.run("quality golden --gold gold.json --out scores.csv")
    terminal.run("quality annotators")


def _review(
    terminal: _Terminal, server: Running, project: int, pictures: Mapping[str, Scene], say: Say
) -> None:
    terminal.run("review draw --fraction 0.25 --by stratified --out sample.csv")
    terminal.run("review queue --sample sample.csv --name 'review, week 1'")
    drawn = [line.split(",")[0] for line in (terminal.folder / "sample.csv").read_text().splitlines()[1:]]
    keys = {
        task: key for key, task in LabelStudio(server.url, server.owner.pat, project).known_keys().items()
    }
    expert = Server(server.url, server.expert.pat)
    for task in drawn:
        body = {"result": truth_result(pictures[keys[task]]), "lead_time": 25.0}
        expert.post(f"/api/tasks/{task}/annotations/", body)
    say(f"\n{server.expert.email}, a simulated expert, answers the {len(drawn)} drawn tasks.")
    terminal.run("pull")
    terminal.run("review collect --sample sample.csv --out verdicts.csv")
    terminal.run("review estimate --sample sample.csv --verdicts verdicts.csv")


def _correct(terminal: _Terminal) -> None:
    terminal.run("correct plan --out plan.jsonl")
    terminal.run("correct apply plan.jsonl --dry-run")
    terminal.run("correct apply plan.jsonl")
    terminal.run("correct log")
    terminal.run("pull")


def _skills(
    golden: Mapping[str, Any], pictures: Mapping[str, Scene], turns: Mapping[str, Sequence[str]], seed: int
) -> list[Skill]:
    people = {f"{person.name}@example.com": person for person in PEOPLE}
    found = []
    for row in golden["annotators"]:
        person = people[row["annotator"]]
        scene, objects = true_skill(person, pictures, turns[person.name], seed)
        true = scene if row["control"] == "scene" else objects
        found.append(Skill(person.name, person.habit, row["control"], row["score"], row["verdict"], true))
    return found
