"""Buckets and projects as they are found in use: odd names, fields and tasks of the user's own."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from connector.adapters.base import Bucket
from connector.adapters.label_studio.client import Server
from connector.demo import server as demo_server
from connector.demo.pictures import scenes
from connector.demo.server import S3, label_studio
from connector.errors import UsageError
from connector.io.objects import Objects
from connector.model import Item
from tests.conftest import Line, new_line
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


def storages(line: Line, kind: str) -> list[dict[str, Any]]:
    owner = Server(line.server.url, line.server.owner.pat)
    found: list[dict[str, Any]] = owner.get(f"/api/storages/{kind}", {"project": line.project})
    return found


def test_the_storage_of_the_connector_shows_objects_and_imports_none(line: Line, s3: S3) -> None:
    put_pictures(line, 2)
    owner = Server(line.server.url, line.server.owner.pat)
    local = line.ask("push")
    line, raw = in_bucket(line, s3)
    raw.write("a.png", scenes(1, seed=3)[0].png)
    line.ask("push", "--on-delete", "keep")
    # As an older version made it, and as an edit in the tool would leave it.
    for kind in ("s3", "localfiles"):
        [storage] = storages(line, kind)
        where = {"path": storage["path"]} if kind == "localfiles" else {}
        for left in ({"synchronizable": True}, {"synchronizable": False, "regex_filter": ""}):
            owner.send("PATCH", f"/api/storages/{kind}/{storage['id']}", {**where, **left})
            if "regex_filter" in left:
                continue
            owner.post(f"/api/storages/{kind}/{storage['id']}/sync", {})
            assert line.tool.count_tasks() == 3
        owner.send("PATCH", f"/api/storages/{kind}/{storage['id']}", {**where, "synchronizable": True})
    line.tool.connect_bucket(Bucket(raw.url, raw.options))
    line.tool.connect_bucket(Bucket((line.server.files / f"project-{line.project}").as_uri()))
    for kind in ("s3", "localfiles"):
        [storage] = storages(line, kind)
        assert (storage["synchronizable"], storage["regex_filter"]) == (False, "(?!)")
        with pytest.raises(UsageError, match="not synchronizable"):
            owner.post(f"/api/storages/{kind}/{storage['id']}/sync", {})
    assert local["new"] == 2
    assert line.tool.count_tasks() == 3


def test_tasks_that_the_tools_own_sync_made_are_adopted_in_every_form(line: Line, s3: S3) -> None:
    line, raw = in_bucket(line, s3)
    names = ["ä #1.png", "b.png", "c.png", "d.png"]
    for name in [*names, "new.png"]:
        raw.write(name, scenes(1, seed=3)[0].png)
    owner = Server(line.server.url, line.server.owner.pat)
    own = {"bucket": s3.bucket, "prefix": f"p{line.project}", "s3_endpoint": s3.endpoint, "title": "mine"}
    keys = {"aws_access_key_id": s3.access_key, "aws_secret_access_key": s3.secret_key}
    body = {"project": line.project, "use_blob_urls": True, "regex_filter": ".*/(ä|b)", **own, **keys}
    made = owner.post("/api/storages/s3/", body)
    owner.post(f"/api/storages/s3/{made['id']}/sync", {})
    assert line.tool.count_tasks() == 2
    c = base64.urlsafe_b64encode(f"{raw.url}/c.png".encode()).decode()
    d = f"{s3.endpoint}/{s3.bucket}/p{line.project}/d.png?X-Amz-Signature=1&X-Amz-Expires=60"
    tasks = [{"image": f"/tasks/7/resolve/?fileuri={c}", "patient": "p-17"}, {"image": d}, {"image": "/x"}]
    body_of_tasks = [{"data": data} for data in tasks]
    owner.post(f"/api/projects/{line.project}/import", body_of_tasks)
    old = {task.id: task for page in line.tool.changed_tasks(None) for task in page.tasks}

    dry = line.ask("push", "--dry-run")
    assert line.tool.count_tasks() == 5
    done = line.ask("push")
    for answer in (dry, done):
        assert {n: answer[n] for n in ("found", "new", "adopted", "rejected")} == {
            "found": 5,
            "new": 1,
            "adopted": 4,
            "rejected": 0,
        }
    assert line.tool.count_tasks() == 6
    now = {task.id: task for page in line.tool.changed_tasks(None) for task in page.tasks}
    assert {now[id].key for id in old} >= {f"{raw.url}/{name}" for name in names}
    assert {id: now[id].data for id in old} == {id: old[id].data for id in old}
    assert line.ask("push")["known"] == 5
    # The user's own storage still imports; the connector reports what comes so.
    owner.send("PATCH", f"/api/storages/s3/{made['id']}", {"regex_filter": ".*/new"})
    owner.post(f"/api/storages/s3/{made['id']}/sync", {})
    line.ask("pull")
    found = line.ask("reconcile", code=3)
    assert found["differences"] == {"two tasks": 1, "no item": 1}


def test_local_files_that_the_tool_imported_are_adopted(line: Line) -> None:
    keys = put_pictures(line, 2)
    folder = line.server.files / f"project-{line.project}"
    (folder / "ü 1#.png").write_bytes(scenes(1, seed=3)[0].png)
    owner = Server(line.server.url, line.server.owner.pat)
    body = {"project": line.project, "path": str(folder), "use_blob_urls": True, "title": "mine"}
    made = owner.post("/api/storages/localfiles/", body)
    owner.post(f"/api/storages/localfiles/{made['id']}/sync", {})
    assert line.tool.count_tasks() == 3
    done = line.ask("push")
    assert (done["adopted"], done["new"]) == (3, 0)
    assert set(keys) < set(line.tool.known_keys())
    assert line.tool.count_tasks() == 3


def test_tasks_whose_data_names_no_object_are_adopted_by_what_the_tool_made_them_of(
    line: Line, s3: S3
) -> None:
    line, raw = in_bucket(line, s3)
    picture = scenes(1, seed=3)[0].png
    for name in ("ä #1.png", "b.png"):
        raw.write(name, picture)
    owner = Server(line.server.url, line.server.owner.pat)
    own = {"bucket": s3.bucket, "prefix": f"p{line.project}", "s3_endpoint": s3.endpoint, "title": "mine"}
    keys = {"aws_access_key_id": s3.access_key, "aws_secret_access_key": s3.secret_key}
    made = owner.post("/api/storages/s3/", {"project": line.project, "use_blob_urls": True, **own, **keys})
    owner.post(f"/api/storages/s3/{made['id']}/sync", {})
    old = [task for page in line.tool.changed_tasks(None) for task in page.tasks]
    for task in old:  # as a cache, or a script of the user's, leaves them
        data = {"image": f"https://cache.example.com/{task.id}.png", "patient": task.id}
        owner.send("PATCH", f"/api/tasks/{task.id}/", {"data": data})
    raw.write("new.png", picture)
    for words in (("--dry-run",), ()):
        done = line.ask("push", *words)
        assert (done["adopted"], done["new"], done["rejected"]) == (2, 1, 0)
    names = {"ä #1.png", "b.png", "new.png"}
    assert set(line.tool.known_keys()) == {f"{raw.url}/{name}" for name in names}
    for task in old:
        now = line.tool.read_task(task.id)
        cached = f"https://cache.example.com/{task.id}.png"
        assert now.data == {"image": cached, "patient": task.id}
    assert line.ask("push")["known"] == 3
    assert line.ask("reconcile")["agree"]


def test_tasks_that_the_tool_made_of_json_objects_are_adopted(line: Line) -> None:
    folder = line.server.files / f"project-{line.project}"
    for n in range(2):
        (folder / f"ü {n}.json").write_text(json.dumps({"image": f"https://example.com/{n}.png"}))
    many = [{"image": f"https://example.com/{n}.png"} for n in (3, 4)]
    (folder / "list.json").write_text(json.dumps(many))
    owner = Server(line.server.url, line.server.owner.pat)
    body = {"project": line.project, "path": str(folder), "use_blob_urls": False, "title": "mine"}
    made = owner.post("/api/storages/localfiles/", body)
    owner.post(f"/api/storages/localfiles/{made['id']}/sync", {})
    assert line.tool.count_tasks() == 4
    config = line.folder / "connector.toml"
    config.write_text(config.read_text().replace("[raw]", '[raw]\ncontent = "json"'))
    done = line.ask("push", code=4)
    assert (done["adopted"], done["new"], done["rejected"]) == (2, 0, 1)
    assert "all refer to it" in rejects(line)[(folder / "list.json").as_uri()]
    assert line.tool.count_tasks() == 4


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


def test_pictures_that_would_not_load_are_noticed_before_the_push_and_repaired_after_it(line: Line) -> None:
    key = put_pictures(line, 2)[0]
    config = line.folder / "connector.toml"
    right = config.read_text()
    config.write_text(right.replace(f'files_root = "{line.server.files}"', ""))
    found = {c["name"]: c for c in line.ask("doctor", code=2)["checks"]}
    reached = found["the server reaches the bucket"]
    assert not reached["ok"]
    assert f'files_root = "{line.server.files}"' in reached["next"]
    code, _, err = line.run("push")
    assert (code, line.tool.count_tasks()) == (2, 0)
    assert f"serves files below {line.server.files}" in err

    config.write_text(right)
    assert line.ask("push")["new"] == 2
    checks = {c["name"]: c for c in line.ask("doctor")["checks"]}
    assert checks["an object is shown through the tool"]["found"].startswith("file://")
    # As a version that did not check left them.
    owner = Server(line.server.url, line.server.owner.pat)
    task = line.tool.known_keys()[key]
    data = owner.get(f"/api/tasks/{task}/", {"resolve_uri": "false"})["data"]
    wrong = {**data, "image": f"/data/local-files/?d={key.removeprefix('file:///')}", "patient": "p-17"}
    owner.send("PATCH", f"/api/tasks/{task}/", {"data": wrong})
    assert line.ask("push")["updated"] == 0
    assert line.ask("push", "--on-change", "update")["updated"] == 1
    now = owner.get(f"/api/tasks/{task}/", {"resolve_uri": "false"})["data"]
    assert now == {**data, "patient": "p-17"}
    assert line.ask("push", "--on-change", "update")["updated"] == 0


@pytest.mark.parametrize("source", [(), ("--manifest", "m.csv")], ids=["bucket", "manifest"])
def test_local_files_that_the_server_does_not_serve_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: tuple[str, ...]
) -> None:
    environment = demo_server._environment
    with label_studio(tmp_path / "server") as running:
        (tmp_path / "work").mkdir()
        line = new_line(running, tmp_path / "work")
        put_pictures(line, 2)
        (line.folder / "m.csv").write_text("key,image\nweb,https://example.com/a.png\na,scene-001.png\n")
        # A storage of the folder exists: made while the server still served it.
        line.tool.connect_bucket(Bucket((running.files / f"project-{line.project}").as_uri()))
        running.stop()
        off = {"LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "false"}
        monkeypatch.setattr(demo_server, "_environment", lambda data: {**environment(data), **off})
        running.start()
        found = {c["name"]: c for c in line.ask("doctor", code=2)["checks"]}
        reached = found["the server reaches the bucket"]
        assert not reached["ok"]
        assert "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true" in reached["next"]
        code, _, err = line.run("push", *source)
        assert (code, line.tool.count_tasks()) == (2, 0)
        assert "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true" in err
        running.stop()
        monkeypatch.setattr(demo_server, "_environment", environment)
        running.start()
        assert line.ask("push", *source)["new"] == 2


def test_a_push_of_a_manifest_fetches_an_object_through_the_tool(line: Line) -> None:
    put_pictures(line, 2)
    config = line.folder / "connector.toml"
    right = config.read_text()
    config.write_text(right.replace(f'files_root = "{line.server.files}"', ""))
    (line.folder / "m.csv").write_text("key,image\nweb,https://example.com/a.png\na,scene-001.png\n")
    code, _, err = line.run("push", "--manifest", "m.csv")
    assert (code, line.tool.count_tasks()) == (2, 0)
    assert f"serves files below {line.server.files}" in err
    config.write_text(right)
    assert line.ask("push", "--manifest", "m.csv")["new"] == 2


def test_one_bad_row_of_a_manifest_is_one_reject(line: Line, s3: S3) -> None:
    line, raw = in_bucket(line, s3)
    picture = scenes(1, seed=3)[0].png
    raw.write("good.png", picture)
    elsewhere = Objects(f"{s3.url}/elsewhere-{line.project}", s3.options)
    elsewhere.write("other.png", picture)
    put_raw(s3, f"p{line.project}/quest?ion.png", picture)
    put_raw(s3, f"p{line.project}/a//b.png", picture)
    good = {"a": "good.png", "b": f"{elsewhere.url}/other.png", "c": "https://example.com/x.png"}
    bad = {
        "double": "a//b.png",
        "up": "../up.png",
        "control": "tab\there.png",
        "question": "quest?ion.png",
        "missing": "missing.png",
        "missing elsewhere": f"{elsewhere.url}/missing.png",
        "no bucket of that name": "s3://no-such-bucket-here/x.png",
        "names no bucket": "s3://",
        "empty": "",
    }
    rows = [{"key": key, "image": image} for key, image in (good | bad).items()]
    (line.folder / "m.json").write_text(json.dumps(rows))
    # Through the tool the first object of its bucket is fetched; b lies in none that it is connected to.
    pushed = line.ask("push", "--manifest", "m.json", code=4)
    assert (pushed["found"], pushed["new"], pushed["rejected"]) == (12, 3, 9)
    assert set(rejects(line)) == set(bad)
    assert set(line.tool.known_keys()) == set(good)


def test_a_file_that_the_server_does_not_show_is_one_reject_of_a_manifest(line: Line, tmp_path: Path) -> None:
    put_pictures(line, 1)
    outside = tmp_path / "outside.png"
    outside.write_bytes(scenes(1, seed=3)[0].png)
    (line.folder / "m.csv").write_text(f"key,image\na,{outside.as_uri()}\nb,scene-001.png\n")
    pushed = line.ask("push", "--manifest", "m.csv", code=4)
    assert (pushed["new"], pushed["rejected"]) == (1, 1)
    assert f"does not lie below {line.server.files}" in rejects(line)["a"]


def test_an_object_that_the_bucket_no_longer_gives_out_is_named_by_the_doctor(line: Line, s3: S3) -> None:
    line, raw = in_bucket(line, s3)
    raw.write("a.png", scenes(1, seed=3)[0].png)
    line.ask("push")
    item = line.tool.data_for(Item(key="a"), "image", f"{raw.url}/a.png")
    assert line.tool.fetch(item) == 1
    raw.delete("a.png")
    with pytest.raises(UsageError, match=r"answers 40[34]"):
        line.tool.fetch(item)
