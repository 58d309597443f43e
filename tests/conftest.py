"""What tests share: one real Label Studio and one real S3 server for the whole run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings

from connector import commands
from connector.adapters.label_studio.adapter import LabelStudio, create_project
from connector.adapters.label_studio.client import Server
from connector.config import JOURNAL_KEY
from connector.demo.pictures import LABEL_CONFIG
from connector.demo.server import S3, Running, label_studio, s3_server
from connector.journal.keys import Keys

JOURNAL_KEYS = Keys(("the-key-of-the-journals-that-tests-write",))
"""Never the one of whoever runs the tests."""

# On a busy machine an example may take any time. That code is quick is shown by the benchmarks.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session", name="label_studio")
def label_studio_server() -> Iterator[Running]:
    """A real Label Studio, for tests that leave it running."""
    with label_studio() as running:
        yield running


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """A real S3 server with the bucket `raw`."""
    with s3_server() as running:
        yield running


def run_command(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command, run in this process in that folder."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, {JOURNAL_KEY: JOURNAL_KEYS.secrets[0], **environment}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = commands.run(words)
    return code, out.getvalue(), err.getvalue()


@dataclass(frozen=True)
class Line:
    """A project of its own, a folder to work in, and the command line in it."""

    server: Running
    project: int
    folder: Path
    environment: Mapping[str, str]

    @property
    def tool(self) -> LabelStudio:
        return LabelStudio(self.server.url, self.server.owner.pat, self.project)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """The command line as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "connector", *words],
            cwd=self.folder,
            env={**os.environ, JOURNAL_KEY: JOURNAL_KEYS.secrets[0], **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        """The exit code, stdout and stderr of a command, run in this process."""
        return run_command(words, self.folder, self.environment)

    def ask(self, *words: str, code: int = 0) -> dict[str, Any]:
        """The JSON answer of a command that must end with this exit code."""
        found, out, err = self.run(*words, "--json")
        assert found == code, err
        answer: dict[str, Any] = json.loads(out)
        return answer

    def answer(self, who: int, task: str, result: list[dict[str, Any]], seconds: float = 10) -> int:
        """An annotator answers a task in an own name; returns the annotation's id."""
        server = Server(self.server.url, self.server.annotators[who].pat)
        body = {"result": result, "lead_time": seconds}
        return int(server.post(f"/api/tasks/{task}/annotations/", body)["id"])


@pytest.fixture
def line(label_studio: Running, tmp_path: Path) -> Line:
    """An empty project with overlap 3, a configuration for it, and a folder of raw data."""
    return new_line(label_studio, tmp_path)


def new_line(server: Running, folder: Path) -> Line:
    owner = Server(server.url, server.owner.pat)
    project = create_project(owner, "A line", LABEL_CONFIG, overlap=3)
    raw = server.files / f"project-{project}"
    raw.mkdir()
    (folder / "connector.toml").write_text(
        f"""
        [tool]
        url = "{server.url}"
        project = {project}
        overlap = 3
        [tool.options]
        files_root = "{server.files}"
        [raw]
        url = "{raw}"
        [roles]
        "{server.expert.email}" = "reviewer"
        """
    )
    return Line(server, project, folder, {"LABEL_STUDIO_API_KEY": server.owner.pat})
