"""The first commands on a real Label Studio: a configuration, and what it sets in the tool."""

from __future__ import annotations

import pytest

from connector.adapters.label_studio.adapter import create_project
from connector.adapters.label_studio.client import Server
from connector.demo.pictures import LABEL_CONFIG
from tests.conftest import Line

pytestmark = pytest.mark.live


def overlap_of(line: Line, project: int) -> int:
    found = Server(line.server.url, line.server.owner.pat).get(f"/api/projects/{project}/")
    return int(found["maximum_annotations"])


def test_init_sets_the_overlap_in_the_tool_and_doctor_finds_it(line: Line) -> None:
    owner = Server(line.server.url, line.server.owner.pat)
    project = create_project(owner, "To be set up", LABEL_CONFIG)
    assert overlap_of(line, project) == 1
    (line.folder / "connector.toml").unlink()
    (line.folder / "raw").mkdir()
    words = ["init", "--url", line.server.url, "--project", str(project), "--overlap", "4"]

    dry = line.ask(*words, "--dry-run")
    assert (dry["overlap"]["set"], overlap_of(line, project)) == (False, 1)
    assert not (line.folder / "connector.toml").exists()

    without_token = Line(line.server, project, line.folder, {"LABEL_STUDIO_API_KEY": ""})
    first = without_token.ask(*words)["overlap"]
    assert (first["set"], overlap_of(line, project)) == (False, 1)
    assert "run `connector ontology push`" in first["next"]

    # The same command again, now that there is a token.
    assert line.ask(*words)["overlap"] == {"annotators": 4, "set": True, "why": None, "next": None}
    assert overlap_of(line, project) == 4
    checks = {c["name"]: c for c in line.ask("doctor", code=2)["checks"]}
    assert checks["several people label each task"]["found"] == "4 annotators per task"

    # What the first answer named as the next step does the same.
    owner.send("PATCH", f"/api/projects/{project}/", {"maximum_annotations": 1})
    line.ask("ontology", "push")
    assert overlap_of(line, project) == 4


def test_init_reports_what_the_tool_refuses(line: Line) -> None:
    code, _, err = line.run(
        "init", "--url", line.server.url, "--project", "999999", "--overlap", "2", "--force"
    )
    assert code == 0
    assert "the overlap is not set in the tool: Label Studio at" in err
    assert "has no project 999999" in err
    stranger = Line(line.server, 1, line.folder, {"LABEL_STUDIO_API_KEY": "0" * 40})
    found = stranger.ask("init", "--url", line.server.url, "--overlap", "2", "--force")["overlap"]
    assert (found["set"], "token" in found["why"] + found["next"]) == (False, True)
