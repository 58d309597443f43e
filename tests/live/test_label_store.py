"""The label store beside a real Label Studio: deleted accounts, and labels that are renamed or removed."""

from __future__ import annotations

from typing import Any

import pytest

from connector.adapters.label_studio.client import Server
from connector.demo.pictures import Box, result
from connector.model import Item
from connector.store.label_store import ANNOTATION, Store
from tests.conftest import Line

pytestmark = pytest.mark.live


def owner_of(line: Line) -> Server:
    return Server(line.server.url, line.server.owner.pat)


def task_of(line: Line, key: str) -> str:
    [task] = line.tool.add_items([Item(key=key, data={"image": f"s3://raw/{key}.png"})])
    return task.id


def test_annotators_whose_accounts_are_deleted_keep_their_names(line: Line) -> None:
    owner, names = owner_of(line), [f"{who}-{line.project}@example.com" for who in ("dan", "eve")]
    users = [owner.post("/api/users/", {"email": name, "username": name})["id"] for name in names]
    said = [
        {"result": result("field", [], f"a{who}"), "completed_by": who, "ground_truth": False}
        for who in users
    ]
    body = [{"data": {"image": "s3://raw/0.png", "connector_key": "k"}, "annotations": said}]
    owner.post(f"/api/projects/{line.project}/import", body)
    line.ask("pull")
    for user in users:
        owner.send("DELETE", f"/api/users/{user}/")
    line.ask("pull", "--all")
    store = Store(str(line.folder / "labels"))
    assert sorted(store.current(ANNOTATION)["annotator"]) == names
    [task] = line.tool.read_tasks(line.tool.task_ids())
    assert {one.annotator for one in task.annotations} == {"unknown"}
    [stored] = store.tasks()
    assert stored.revision == task.revision  # so a correction still finds what it expects
    assert line.ask("reconcile")["agree"]


def test_a_label_used_since_the_last_pull_is_not_removed(line: Line) -> None:
    task = task_of(line, "k")
    line.ask("pull")
    line.answer(0, task, result("harbour", [Box("boat", 1, 1, 5, 5)], "a"))
    shown: dict[str, Any] = line.ask("ontology", "show")
    (line.folder / "smaller.xml").write_text(shown["config"].replace('<Label value="boat"/>', ""))
    code, _, err = line.run("ontology", "push", "smaller.xml")
    assert code == 2
    assert "objects: boat (1)" in err
    assert line.tool.read_ontology().version == shown["version"]
    line.ask("ontology", "push", "smaller.xml", "--force")
    assert line.tool.read_ontology().version != shown["version"]
