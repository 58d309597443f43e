"""The line on a real Label Studio, with several annotators as themselves, through the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import requests

from connector.adapters.label_studio.adapter import LabelStudio
from connector.adapters.label_studio.client import Server
from connector.demo.pictures import Box, result, scenes, truth_result
from connector.demo.server import S3
from connector.errors import BadRecord
from connector.io.objects import Objects
from connector.model import Item, Prediction
from connector.store.label_store import ANNOTATION, Store
from tests.conftest import Line

pytestmark = pytest.mark.live


def put_pictures(line: Line, n: int) -> list[str]:
    raw = line.server.files / f"project-{line.project}"
    for scene in scenes(n, seed=1):
        (raw / scene.key).write_bytes(scene.png)
    return [f"{raw.as_uri()}/scene-{number:03}.png" for number in range(1, n + 1)]


def store_of(line: Line) -> Store:
    return Store(str(line.folder / "labels"))


def test_thin_slice_from_pictures_to_a_correction_and_back(line: Line) -> None:
    keys = put_pictures(line, 20)
    assert line.ask("push")["new"] == 20
    tasks = dict(line.tool.known_keys())
    assert set(tasks) == set(keys)

    for number, key in enumerate(keys):
        for who in range(3):
            scene = "street" if number == 0 and who == 2 else "field"
            box = Box("car", 10 + who / 10, 10, 20, 20)
            line.answer(who, tasks[key], result(scene, [box], f"a{who}"))

    assert line.ask("pull")["annotations"] == {"new": 60, "changed": 0, "deleted": 0}
    controls = {c["control"]: c for c in line.ask("quality", "consensus")["controls"]}
    # 19 tasks agree wholly; in one a third of the pairs does.
    assert controls["scene"]["agreement"]["observed"]["value"] == pytest.approx((19 + 1 / 3) / 20)
    assert controls["objects"]["agreement"]["observed"]["value"] == 1

    assert line.ask("correct", "plan")["corrections"] == 1
    before = line.tool.read_task(tasks[keys[0]])
    assert line.ask("correct", "apply", "plan.jsonl", "--dry-run")["written"] == 1
    assert line.tool.read_task(tasks[keys[0]]) == before
    done = line.ask("correct", "apply", "plan.jsonl")
    assert (done["written"], done["already"], done["conflicts"]) == (1, 0, [])
    added = [a for a in line.tool.read_task(tasks[keys[0]]).annotations if a.ground_truth]
    assert [json.loads(a.result)[1]["value"]["choices"] for a in added] == [["field"]]
    assert line.ask("correct", "apply", "plan.jsonl")["already"] == 1

    assert line.ask("correct", "undo", done["run"])["taken_back"] == 1
    assert line.tool.read_task(tasks[keys[0]]).revision == before.revision


def test_pushing_and_pulling_twice_doubles_nothing(line: Line) -> None:
    keys = put_pictures(line, 5)
    assert line.ask("push")["new"] == 5
    again = line.ask("push")
    assert (again["new"], again["known"]) == (0, 5)
    assert line.tool.count_tasks() == 5
    line.answer(0, line.tool.known_keys()[keys[0]], result("field", [], "a"))
    line.ask("pull")
    version, rows = store_of(line).version, len(store_of(line).rows().collect())
    second = line.ask("pull")
    assert second["annotations"] == {"new": 0, "changed": 0, "deleted": 0}
    assert len(store_of(line).current(ANNOTATION)) == 1
    assert version is not None
    assert len(store_of(line).rows().filter(pl.col("record") != "cursor").collect()) == len(
        store_of(line).rows(version).filter(pl.col("record") != "cursor").collect()
    )
    assert rows >= 6


def test_a_push_looks_once_for_what_is_there(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str | None] = []
    real = LabelStudio._learn_keys
    monkeypatch.setattr(
        LabelStudio, "_learn_keys", lambda tool, since: (looks.append(since), real(tool, since))[1]
    )
    for number, pushes in enumerate(((0, 3500), (3500, 6000))):
        rows = "".join(f"key-{n:06},s3://raw/{n}.png\n" for n in range(*pushes))
        (line.folder / "manifest.csv").write_text("key,image\n" + rows)
        assert line.ask("push", "--manifest", "manifest.csv")["new"] == pushes[1] - pushes[0]
        assert len(looks) == number + 1
        line.ask("pull")
    assert looks[1] is not None  # only what came since the pull


def test_edits_and_deletions_are_found(line: Line) -> None:
    keys = put_pictures(line, 3)
    line.ask("push")
    tasks = line.tool.known_keys()
    first = line.answer(0, tasks[keys[0]], result("field", [], "a"))
    second = line.answer(1, tasks[keys[0]], result("street", [], "b"))
    line.answer(0, tasks[keys[1]], result("street", [], "a"))
    line.ask("pull")

    owner = Server(line.server.url, line.server.owner.pat)
    for scene in ("harbour", "field"):
        owner.send("PATCH", f"/api/annotations/{first}/", {"result": result(scene, [], "a")})
        line.ask("pull")
    owner.send("DELETE", f"/api/annotations/{second}/")
    owner.send("DELETE", f"/api/tasks/{tasks[keys[1]]}/")
    found = line.ask("pull")
    assert (found["annotations"]["deleted"], found["deleted_tasks"]) == (2, 1)

    versions = store_of(line).rows().filter(pl.col("id") == str(first), pl.col("record") == ANNOTATION)
    told = [json.loads(text)[0]["value"]["choices"][0] for text in versions.sort("pull").collect()["content"]]
    assert told == ["field", "harbour", "field"]
    assert store_of(line).current(ANNOTATION)["id"].to_list() == [str(first)]


def test_somebody_elses_edit_is_a_conflict_and_stays(line: Line) -> None:
    keys = put_pictures(line, 2)
    line.ask("push")
    tasks = line.tool.known_keys()
    made = [
        [
            line.answer(who, tasks[key], result("street" if who == 2 else "field", [], f"a{who}"))
            for who in range(3)
        ]
        for key in keys
    ]
    line.ask("pull")
    assert line.ask("correct", "plan", "--policy", "replace")["corrections"] == 2
    mine = result("harbour", [], "mine")
    Server(line.server.url, line.server.annotators[2].pat).send(
        "PATCH", f"/api/annotations/{made[0][2]}/", {"result": mine}
    )
    done = line.ask("correct", "apply", "plan.jsonl", code=7)
    assert done["written"] == 1
    assert [conflict["task"] for conflict in done["conflicts"]] == [tasks[keys[0]]]
    assert json.loads(line.tool.read_annotation(str(made[0][2])).result) == mine
    replaced = line.tool.read_annotation(str(made[1][2]))
    assert json.loads(replaced.result)[0]["value"] == {"choices": ["field"]}
    assert replaced.annotator == line.server.annotators[2].email
    line.ask("correct", "undo", done["run"])
    assert json.loads(line.tool.read_annotation(str(made[1][2])).result)[0]["value"] == {
        "choices": ["street"]
    }


def test_undo_gives_the_ground_truth_back_to_whom_it_was_taken_from(line: Line) -> None:
    keys = put_pictures(line, 1)
    line.ask("push")
    task = line.tool.known_keys()[keys[0]]
    starred = line.answer(0, task, result("field", [], "a"))
    for who in (1, 2):
        line.answer(who, task, result("street", [], "b"))
    line.ask("pull")
    assert line.ask("correct", "plan")["corrections"] == 1
    plan = (line.folder / "plan.jsonl").read_text().splitlines()
    owner = Server(line.server.url, line.server.owner.pat)
    owner.send("PATCH", f"/api/annotations/{starred}/", {"ground_truth": True})
    # A plan that was made with the star in place, as one of an earlier review could have been.
    line.ask("pull")
    correction = json.loads(plan[1]) | {"expect": line.tool.read_task(task).revision}
    (line.folder / "plan.jsonl").write_text(plan[0] + "\n" + json.dumps(correction) + "\n")
    done = line.ask("correct", "apply", "plan.jsonl")
    assert not line.tool.read_annotation(str(starred)).ground_truth
    line.ask("correct", "undo", done["run"])
    assert line.tool.read_annotation(str(starred)).ground_truth
    assert len(line.tool.read_task(task).annotations) == 3


def test_golden_and_review_of_five_annotators(line: Line) -> None:
    keys = put_pictures(line, 12)
    pictures = dict(zip(keys, scenes(12, seed=1), strict=True))
    line.ask("push")
    tasks = dict(line.tool.known_keys())
    for key, scene in pictures.items():
        for who in range(5):
            wrong = "street" if scene.scene != "street" else "field"
            said = wrong if who == 4 else scene.scene
            line.answer(who, tasks[key], result(said, list(scene.boxes), f"a{who}"), seconds=10 + who)
    gold = [{"id": key, "annotations": [{"result": truth_result(s)}]} for key, s in pictures.items()]
    (line.folder / "gold.json").write_text(json.dumps(gold))
    line.ask("pull")

    scores = line.ask("quality", "golden", "--gold", "gold.json")["annotators"]
    by = {(row["annotator"], row["control"]): row for row in scores}
    last = line.server.annotators[4].email
    assert by[last, "scene"]["score"]["value"] == 0
    assert by[last, "scene"]["verdict"] == "fail"
    assert {row["score"]["value"] for key, row in by.items() if key != (last, "scene")} == {1}
    people = {row["annotator"]: row for row in line.ask("quality", "annotators")["annotators"]}
    assert people[last]["seconds_median"] == 14

    drawn = line.ask("review", "draw", "--size", "6", "--seed", "3", "--out", "sample.csv")
    assert (drawn["drawn"], drawn["population"]) == (6, 12)
    url = line.ask("review", "queue", "--sample", "sample.csv", "--name", "week 1")["url"]
    view = url.split("tab=")[1]
    owner = Server(line.server.url, line.server.owner.pat)
    listed = owner.get("/api/tasks/", {"project": line.project, "view": view})["tasks"]
    sample = [row["task"] for row in csv.DictReader((line.folder / "sample.csv").open())]
    assert sorted(str(task["id"]) for task in listed) == sorted(sample)

    of_task = {task: key for key, task in tasks.items()}
    expert = Server(line.server.url, line.server.expert.pat)
    for number, task in enumerate(sample):
        scene = pictures[of_task[task]]
        truth = result("harbour" if scene.scene != "harbour" else "field", list(scene.boxes), "r")
        answer = truth if number == 0 else truth_result(scene)
        expert.post(f"/api/tasks/{task}/annotations/", {"result": answer})
    line.ask("pull")
    collected = line.ask("review", "collect", "--sample", "sample.csv", "--out", "verdicts.csv")
    assert (collected["reviewed"], collected["wrong"]) == (6, 1)
    rate = line.ask("review", "estimate", "--sample", "sample.csv", "--verdicts", "verdicts.csv")[
        "error_rate"
    ]
    assert rate["value"] == pytest.approx(1 / 6)
    assert rate["low"] >= 1 / 12  # one of twelve is known to be wrong


def test_labels_go_to_a_store_in_a_bucket_and_pictures_come_from_one(line: Line, s3: S3) -> None:
    raw = Objects(f"{s3.url}/p{line.project}", s3.options)
    for scene in scenes(3, seed=2):
        raw.write(f"deep/ä #1/{scene.key}", scene.png)
    raw.write("notes.txt", b"no picture")
    config = (line.folder / "connector.toml").read_text()
    folder = str(line.server.files / f"project-{line.project}")
    config = config.replace(f'"{folder}"', f'"{raw.url}"').replace(
        "[roles]", f'[store]\n        url = "{s3.url}/store-{line.project}"\n        [roles]'
    )
    (line.folder / "connector.toml").write_text(config)
    line = Line(line.server, line.project, line.folder, {**line.environment, **s3.environment})

    pushed = line.ask("push", code=4)
    assert (pushed["new"], pushed["rejected"]) == (3, 1)
    rejects = (line.folder / "rejects-push.jsonl").read_text()
    assert "notes.txt" in rejects
    key, task = min(line.tool.known_keys().items())
    # What a person's browser gets: the server's own address of the object, which leads to the picture.
    owner = Server(line.server.url, line.server.owner.pat)
    shown = owner.get(f"/api/tasks/{task}/")["data"]["image"]
    picture = requests.get(
        line.server.url + shown, headers={"Authorization": f"Token {line.server.owner.token}"}, timeout=30
    )
    assert picture.content == raw.read(raw.path_of(key))

    line.answer(0, task, result("field", [], "a"))
    assert line.ask("pull")["annotations"]["new"] == 1
    assert line.ask("status")["answers"] == 1
    stored = Store(f"{s3.url}/store-{line.project}", options=s3.options)
    assert stored.current(ANNOTATION)["task"].to_list() == [task]
    assert all(check["ok"] for check in line.ask("doctor")["checks"])

    lists = Objects(f"{s3.url}/lists-{line.project}", s3.options)
    manifest = lists.write("more.csv", f"key,image\nagain,{raw.path_of(key)}\n".encode())
    assert line.ask("push", "--manifest", manifest)["new"] == 1
    again = line.tool.known_keys()["again"]
    assert line.tool.read_task(again).data == {"image": key}


def test_pictures_of_a_folder_are_shown(line: Line) -> None:
    key = put_pictures(line, 1)[0]
    line.ask("push")
    owner = Server(line.server.url, line.server.owner.pat)
    shown = owner.get(f"/api/tasks/{line.tool.known_keys()[key]}/")["data"]["image"]
    headers = {"Authorization": f"Token {line.server.owner.token}"}
    picture = requests.get(line.server.url + shown, headers=headers, timeout=30)
    assert picture.content == Path(key.removeprefix("file://")).read_bytes()


def test_ontology_is_shown_pushed_and_guarded(line: Line) -> None:
    key = put_pictures(line, 1)[0]
    line.ask("push")
    line.answer(0, line.tool.known_keys()[key], result("harbour", [Box("boat", 1, 1, 5, 5)], "a"))
    line.ask("pull")
    shown: dict[str, Any] = line.ask("ontology", "show")
    assert [c["name"] for c in shown["controls"]] == ["scene", "objects"]
    smaller = shown["config"].replace('<Label value="boat"/>', "")
    (line.folder / "smaller.xml").write_text(smaller)
    code, _, err = line.run("ontology", "push", "smaller.xml")
    assert code == 2
    assert "objects: boat (1)" in err
    assert line.tool.read_ontology().version == shown["version"]
    larger = shown["config"].replace('<Label value="boat"/>', '<Label value="boat"/><Label value="ship"/>')
    (line.folder / "larger.xml").write_text(larger)
    line.ask("ontology", "push", "larger.xml")
    objects = line.tool.read_ontology().control("objects")
    assert objects is not None
    assert "ship" in objects.labels


def test_a_label_that_was_removed_costs_its_control_and_is_reported(line: Line) -> None:
    """The boxes of an annotation count also where its scene is not in the ontology any more."""
    keys = put_pictures(line, 2)
    line.ask("push")
    tasks = line.tool.known_keys()
    for key in keys:
        for who, scene in enumerate(("harbour", "field", "field")):
            line.answer(who, tasks[key], result(scene, [Box("car", 10, 10, 20, 20)], f"a{who}"))
    config = line.ask("ontology", "show")["config"].replace('<Choice value="harbour"/>', "")
    (line.folder / "smaller.xml").write_text(config)
    line.ask("ontology", "push", "smaller.xml", "--force")
    line.ask("pull")
    found = line.ask("quality", "consensus", code=4)
    why = "label 'harbour' is not in the ontology"
    assert found["not_counted"] == [{"control": "scene", "count": 2, "of": 6, "why": why}]
    counted = {c["control"]: (c["annotations"], c["annotators"]) for c in found["controls"]}
    assert counted == {"scene": (4, 2), "objects": (6, 3)}
    code, out, err = line.run("quality", "consensus")
    assert code == 4
    assert f"scene: 2 of 6 answers not counted: {why}" in out
    assert "2 rejected" in err
    line.ask("report", "--out", "report.html", code=4)
    html = (line.folder / "report.html").read_text()
    assert html.count("2 of 6 answers not counted: label &#39;harbour&#39; is not in the ontology") == 2


def test_predictions_that_the_server_leaves_out_are_named_and_the_old_ones_stay(line: Line) -> None:
    """It answers 201 and how many it stored. What it took replaces what was there."""
    tasks = [
        task.id for task in line.tool.add_items(Item(key=k, data={"image": "s3://raw/x"}) for k in "abc")
    ]

    def guess(task: str, scene: str) -> Prediction:
        return Prediction(task_id=task, model_version="m", result=json.dumps(result(scene, [], "p")))

    def shown() -> list[list[str]]:
        held = (line.tool.read_task(task).predictions for task in tasks)
        return [[json.loads(one.result)[0]["value"]["choices"][0] for one in some] for some in held]

    line.tool.write_predictions([guess(task, "field") for task in tasks[:2]])
    new = [guess(task, scene) for task, scene in zip(tasks, ("street", "sea", "sea"), strict=True)]
    with pytest.raises(BadRecord, match=f"prediction of m for task {tasks[1]}, and 1 more"):
        line.tool.write_predictions(new)
    assert shown() == [["street"], ["field"], []]
