"""What the ontology does not allow is left out control by control, and reported beside the numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from connector.adapters.label_studio.ontology import parse_config
from connector.config import StoreSettings
from connector.formats.label_files import read_file
from connector.model import Annotation, Role, Task
from connector.store.label_store import Store
from connector.store.labels import read_store, with_gold
from connector.store.parts import align_store
from tests.conftest import run_command

CONFIG = (
    '<View><Text name="text" value="$text"/>'
    '<Choices name="mood" toName="text"><Choice value="pos"/><Choice value="meh"/></Choices>'
    '<Choices name="size" toName="text"><Choice value="big"/><Choice value="small"/></Choices></View>'
)
AT = datetime(2026, 3, 1, tzinfo=UTC)
PEOPLE = ("ann", "ben", "cleo")
MOODS = (("pos", "pos", "neg"), ("meh", "meh", "meh"), ("neg", "pos", "pos"))
"""What each of the three people said of three tasks; "neg" is not in the ontology."""


def result(mood: str, size: str) -> list[dict[str, Any]]:
    return [
        {"id": name, "from_name": name, "to_name": "text", "type": "choices", "value": {"choices": [label]}}
        for name, label in (("mood", mood), ("size", size))
    ]


def export(
    folder: Path, name: str, tasks: Iterable[tuple[str, Iterable[tuple[str, list[dict[str, Any]]]]]]
) -> None:
    """An export of Label Studio: of each task, who gave which result."""
    number = iter(range(1, 1000))
    at = AT.isoformat()
    found = [
        {
            "id": int(task),
            "data": {"text": "x"},
            "annotations": [
                {
                    "id": next(number),
                    "completed_by": {"id": 1, "email": who},
                    "result": said,
                    "was_cancelled": False,
                    "ground_truth": False,
                    "created_at": at,
                    "updated_at": at,
                }
                for who, said in answers
            ],
        }
        for task, answers in tasks
    ]
    (folder / name).write_text(json.dumps(found))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.xml").write_text(CONFIG)
    tasks = [
        (str(n), [(who, result(mood, "big")) for who, mood in zip(PEOPLE, moods, strict=True)])
        for n, moods in enumerate(MOODS, 1)
    ]
    export(tmp_path, "labels.json", tasks)
    golds = {"1": "pos", "2": "neg", "3": "pos", "99": "neg"}  # there is no task 99
    export(tmp_path, "gold.json", [(task, [("expert", result(mood, "big"))]) for task, mood in golds.items()])
    return tmp_path


WITHOUT_GOLD = "2 of 9 answers not counted: label 'neg' is not in the ontology"
WITH_GOLD = "3 of 12 answers not counted: label 'neg' is not in the ontology"
FILES = ("--labels", "labels.json", "--ontology", "config.xml")


def not_counted(count: int, of: int) -> list[dict[str, Any]]:
    return [{"control": "mood", "count": count, "of": of, "why": "label 'neg' is not in the ontology"}]


@pytest.mark.parametrize("command", ["consensus", "annotators"])
def test_commands_report_what_is_not_counted(folder: Path, command: str) -> None:
    code, out, _ = run_command(("quality", command, *FILES), folder, {})
    assert code == 4  # there are rejects
    assert f"mood: {WITHOUT_GOLD}" in out
    code, out, _ = run_command(("quality", command, *FILES, "--json"), folder, {})
    assert (code, json.loads(out)["not_counted"]) == (4, not_counted(2, 9))


@pytest.mark.parametrize("command", ["golden", "summary"])
def test_gold_answers_of_a_file_are_among_those_that_are_counted_or_not(folder: Path, command: str) -> None:
    """Nine answers of people and three of gold; a gold answer to an unknown task is none of them."""
    words = ("quality", command, *FILES, "--gold", "gold.json")
    _, out, _ = run_command(words, folder, {})
    assert f"mood: {WITH_GOLD}" in out
    _, out, _ = run_command((*words, "--json"), folder, {})
    assert json.loads(out)["not_counted"] == not_counted(3, 12)


def test_an_answer_that_was_left_empty_is_none_that_could_be_counted(folder: Path) -> None:
    tasks = [("1", [("ann", result("pos", "big")), ("ben", result("neg", "big")), ("cleo", [])])]
    export(folder, "labels.json", tasks)
    words = ("quality", "golden", *FILES, "--gold", "gold.json", "--json")
    _, out, _ = run_command(words, folder, {})
    assert json.loads(out)["not_counted"] == not_counted(1, 3)  # of ann, ben and the expert


def test_gold_in_a_table_counts_too(folder: Path) -> None:
    (folder / "gold.csv").write_text("task,control,label\n1,mood,pos\n2,mood,meh\n")
    words = ("quality", "golden", *FILES, "--gold", "gold.csv", "--json")
    _, out, _ = run_command(words, folder, {})
    assert json.loads(out)["not_counted"] == not_counted(2, 11)


def test_the_gold_of_the_labels_does_not_count_where_a_file_takes_its_place(
    tmp_path: Path, folder: Path
) -> None:
    keeper = Annotation(id="9", task_id="1", annotator="keeper", result=json.dumps(result("neg", "big")))
    ann = Annotation(id="1", task_id="1", annotator="ann", result=json.dumps(result("pos", "big")))
    store = Store(str(tmp_path / "store"))
    ontology = parse_config(CONFIG)
    store.append([Task(id="1", key="k", annotations=(ann, keeper))], "c", AT, ontology=ontology)
    people = read_store(store, {"keeper": Role.GOLD})
    assert [(one.count, one.of) for one in people.not_counted] == [(1, 2)]
    gold = read_file(folder / "gold.json", True, ontology)
    assert with_gold(people, gold).not_counted == []


@pytest.mark.parametrize("size", [1, 2, 100])
def test_the_denominator_does_not_depend_on_the_parts(folder: Path, size: int) -> None:
    ontology, store = parse_config(CONFIG), Store(str(folder / "store"))
    tasks = [
        Task(
            id=str(n),
            key=f"k{n}",
            annotations=tuple(
                Annotation(
                    id=f"{n}{who}", task_id=str(n), annotator=who, result=json.dumps(result(mood, "big"))
                )
                for who, mood in zip(PEOPLE, moods, strict=True)
            ),
        )
        for n, moods in enumerate(MOODS, 1)
    ]
    store.append(tasks, "c", AT, ontology=ontology)
    gold = read_file(folder / "gold.json", True, ontology)
    found = align_store(store, StoreSettings(url=store.url), {}, {}, gold=gold, tasks_in_part=size)
    assert [str(one) for one in found.loaded.not_counted] == [f"mood: {WITH_GOLD}"]


def test_the_report_shows_it_beside_the_numbers_of_its_control(folder: Path) -> None:
    run_command(("report", *FILES, "--gold", "gold.json", "--out", "report.html"), folder, {})
    html = (folder / "report.html").read_text()
    figures = [part.partition("</article>")[0] for part in html.split('<article class="figure">')[1:]]
    line = WITH_GOLD.replace("'", "&#39;")
    names = {figure.partition("<h3>")[2].partition("</h3>")[0]: line in figure for figure in figures}
    assert {name for name, told in names.items() if told} == {
        "Golden score, mood",
        "Agreement, mood",
        "Krippendorff&#39;s alpha, mood",
    }


def test_the_report_shows_it_also_where_no_answer_to_the_control_is_left(folder: Path) -> None:
    config = CONFIG.replace('<Choice value="pos"/><Choice value="meh"/>', '<Choice value="other"/>')
    (folder / "config.xml").write_text(config)
    run_command(("report", *FILES, "--out", "report.html"), folder, {})
    html = (folder / "report.html").read_text()
    assert "mood: 4 of 9 answers not counted: label &#39;pos&#39; is not in the ontology" in html
