"""Buckets and projects as they are found in use: odd names, fields and tasks of the user's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from connector.adapters.label_studio_server import Server
from connector.adapters.objects import Objects
from connector.demo.pictures import scenes
from connector.demo.server import S3
from tests.conftest import Line
from tests.live.test_line import put_pictures
from tests.servers import put_raw

pytestmark = pytest.mark.live


def in_bucket(line: Line, s3: S3) -> tuple[Line, Objects]:
    """The line with its raw data in a place of its own in the bucket."""
    raw = Objects(f"{s3.url}/p{line.project}", s3.options)
    config = (line.folder / "connector.toml").read_text()
    folder = str(line.server.files / f"project-{line.project}")
    (line.folder / "connector.toml").write_text(config.replace(f'"{folder}"', f'"{raw.url}"'))
    return Line(line.server, line.project, line.folder, {**line.environment, **s3.environment}), raw


def rejects(line: Line, command: str = "push") -> dict[str, str]:
    rows = (line.folder / f"rejects-{command}.jsonl").read_text().splitlines()
    return {row["where"]: row["why"] for row in map(json.loads, rows)}


def test_a_name_that_cannot_be_used_or_shown_is_one_reject_in_a_bucket(line: Line, s3: S3) -> None:
    line, raw = in_bucket(line, s3)
    [picture] = scenes(1, seed=3)
    for n in range(23):
        raw.write(f"street/{n:02} #%ä&+;.png", picture.png)
    for key in ("street//double.png", "street/../up.png", "tab\there.png", "quest?ion.png", "space.png "):
        put_raw(s3, f"p{line.project}/{key}", picture.png)
    pushed = line.ask("push", code=4)
    assert (pushed["found"], pushed["new"], pushed["rejected"]) == (28, 23, 5)
    told = {where.removeprefix(f"{raw.url}/"): why for where, why in rejects(line).items()}
    assert {key: why.split(":")[0] for key, why in told.items() if "show" not in why} == dict.fromkeys(
        ("street//double.png", "street/../up.png", "tab\there.png"),
        "the name has an empty part (`//`), `.` or `..` as a part, or a control character",
    )
    assert {key for key, why in told.items() if "Label Studio cannot show" in why} == {
        "quest?ion.png",
        "space.png ",
    }


def test_a_name_that_cannot_be_used_is_one_reject_in_a_folder(line: Line) -> None:
    key = Path(put_pictures(line, 3)[0].removeprefix("file://"))
    key.with_name("tab\there.png").write_bytes(key.read_bytes())
    pushed = line.ask("push", code=4)
    assert (pushed["new"], pushed["rejected"]) == (3, 1)
    [where] = rejects(line)
    assert where.endswith("/tab\there.png")


def test_an_update_keeps_the_users_own_fields_and_the_note(line: Line) -> None:
    key = put_pictures(line, 1)[0]
    line.ask("push")
    task = line.tool.known_keys()[key]
    owner = Server(line.server.url, line.server.owner.pat)
    before = owner.get(f"/api/tasks/{task}/", {"resolve_uri": "false"})["data"]
    owner.send("PATCH", f"/api/tasks/{task}/", {"data": {**before, "patient": "p-17", "age": 7}})
    line.tool.leave_note(task, "look at the tail")
    Path(key.removeprefix("file://")).write_bytes(scenes(2, seed=9)[1].png)
    assert line.ask("push", "--on-change", "update")["updated"] == 1
    now = owner.get(f"/api/tasks/{task}/", {"resolve_uri": "false"})["data"]
    assert now["connector_version"] != before["connector_version"]
    mine = {"patient": "p-17", "age": 7, "connector_note": "look at the tail"}
    assert now == {**before, **mine, "connector_version": now["connector_version"]}
