"""What decides what is right, and what of it becomes a plan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from connector.adapters.contract import LabelingToolContract
from connector.adapters.memory import MemoryTool, ToolProject
from connector.corrections import sources
from connector.corrections.plan import Limits, Plan, Proposal, Proposed, plan
from connector.errors import UsageError
from connector.journal.correction import OWN, Action, Correction
from connector.model import Annotation, Role, Task
from connector.quality.answers import ABSENT
from connector.quality.consensus import consensus
from connector.quality.units import units
from connector.regions import check_result
from connector.store.label_store import Store
from connector.store.labels import Loaded, read_store
from connector.sync import rounds as sync

contract = LabelingToolContract()
PEOPLE = [f"{name}@example.com" for name in ("ann", "ben", "cleo", "rita")]


class Line:
    """A tool with the contract's ontology, and its store."""

    def __init__(self, folder: Path) -> None:
        self.tool = MemoryTool(ToolProject(people=PEOPLE), me=PEOPLE[3])
        self.tool.write_ontology(self.tool.parse_ontology(contract.source))
        self.store = Store(str(folder / "labels"))
        self.ontology = self.tool.read_ontology()

    def task(self, key: str, *answers: Sequence[dict[str, Any]]) -> Task:
        [task] = contract.add(self.tool, key)
        for who, regions in zip(PEOPLE, answers, strict=False):
            contract.write(self.tool, task, who, *regions)
        return self.tool.read_task(task.id)

    def loaded(self) -> Loaded:
        sync.pull(self.tool, self.store)
        return read_store(self.store, {PEOPLE[3]: Role.REVIEWER})

    def tasks(self) -> list[Task]:
        sync.pull(self.tool, self.store)
        return list(self.store.tasks())

    def consensus(self, own: bool = False) -> Proposed:
        loaded = self.loaded()
        table = units(loaded.labels)
        merged = consensus(table, seed=0).units
        return sources.from_consensus(loaded, table, merged, self.store.tasks(), own)

    def role(self, role: Role, own: bool = True) -> Proposed:
        loaded = self.loaded()
        return sources.from_role(loaded, units(loaded.labels), role, self.store.tasks(), own)


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def says(label: str) -> list[dict[str, Any]]:
    return [contract.choice(label)]


def labels(result: Sequence[Any] | str | None) -> list[str]:
    regions = json.loads(result) if isinstance(result, str) else result or []
    return [label for raw in regions for label in raw["value"][raw["type"]]]


def made(proposed: Proposed, action: str, **limits: Any) -> Sequence[Correction]:
    return plan("p", {}, proposed, Action(action), Limits(**limits)).corrections


def test_a_consensus_says_its_numbers(line: Line) -> None:
    task = line.task("a", says("cat"), says("cat"), says("dog"))
    [own] = made(line.consensus(own=True), "replace")
    assert own.why == "most others answered otherwise: animal is cat to 2 of 3, confidence 0.67"
    assert (own.annotation, own.annotator) == (task.annotations[2].id, PEOPLE[2])
    assert (labels(own.now), labels(own.then)) == (["dog"], ["cat"])
    assert own.expect == task.annotations[2].revision
    [change] = own.changes
    assert (change.now, change.then, change.votes, change.annotators) == ("dog", "cat", 2, 3)


def test_a_review_speaks_only_of_what_a_reviewer_looked_at(line: Line) -> None:
    line.task("a", says("cat"), says("cat"), says("dog"))
    looked_at = line.task("b", says("cat"), says("dog"), says("dog"), says("cat"))
    found = line.role(Role.REVIEWER)
    assert [one.task.id for one in found.proposals] == [looked_at.id] * 2
    assert {one.why for one in found.proposals} == {"a reviewer answered otherwise"}


def test_gold_decides_where_there_is_gold(line: Line) -> None:
    line.task("b", says("cat"), says("dog"))
    task = line.task("a", [*says("cat"), contract.box("head", 5)], says("dog"))
    gold = contract.write(line.tool, task, PEOPLE[2], contract.choice("dog"))
    line.tool.write_annotation(gold.model_copy(update={"ground_truth": True}), gold.revision)
    [wrong] = line.role(Role.GOLD).proposals
    assert wrong.annotation is not None
    assert wrong.annotation.annotator == PEOPLE[0]
    assert labels(wrong.result) == ["dog"]
    assert wrong.why == "the gold answer is another"
    assert [(change["now"], change["then"]) for change in wrong.changes] == [("cat", "dog"), ("head", ABSENT)]


def test_what_is_right_and_drawn_by_nobody_whose_region_we_have_is_undecided(line: Line) -> None:
    task = line.task("a", says("cat"))
    loaded = line.loaded()
    table = units(loaded.labels).filter(control="animal")
    stranger = table.with_columns(
        role=pl.lit("reviewer"), annotation=pl.lit("gold/1"), label=pl.lit("dog"), annotator=pl.lit("x")
    )
    both = pl.concat([table.filter(pl.lit(False)), table, stranger])
    # A choice is made of somebody's region, with the label that is right.
    [one] = sources.from_role(loaded, both, Role.REVIEWER, line.store.tasks(), False).proposals
    assert labels(one.result) == ["dog"]
    none = task.model_copy(update={"annotations": ()})
    found = sources.from_role(loaded, both, Role.REVIEWER, [none], False)
    assert (found.proposals, [u.why for u in found.undecided]) == (
        [],
        ["no annotator drew what is right there"],
    )


def test_an_annotation_that_cannot_be_read_does_not_hinder_the_others(line: Line) -> None:
    broken = {**contract.choice("cat"), "value": {"choices": "cat"}}
    line.task("a", says("cat"), says("cat"), says("dog"), [broken])
    assert len(line.consensus().proposals) == 1


def test_labels_are_renamed_and_taken_away_in_every_annotation(line: Line) -> None:
    line.task("a", [*says("cat"), contract.box("head", 5)], says("dog"))
    mapping = {"animal": {"cat": "dog"}, "parts": {"head": None}}
    found = sources.from_ontology(line.tasks(), mapping, line.ontology)
    [one] = made(found, "replace")
    assert (one.annotator, labels(one.now), labels(one.then)) == (PEOPLE[0], ["cat", "head"], ["dog"])
    assert [(c.control, c.now, c.then) for c in one.changes] == [
        ("animal", "cat", "dog"),
        ("parts", "head", ABSENT),
    ]


def test_what_is_about_a_region_that_goes_goes_with_it(line: Line) -> None:
    head = contract.box("head", 5)
    about = {**contract.choice("cat"), "id": head["id"]}
    tail = {**contract.box("tail", 50), "id": "b2"}
    link = {"type": "relation", "from_id": head["id"], "to_id": "b2", "direction": "right", "labels": []}
    line.task("a", [head, about, tail, link])
    [one] = sources.from_ontology(line.tasks(), {"parts": {"head": None}}, line.ontology).proposals
    assert one.result == [tail]


def test_a_name_that_the_ontology_does_not_have_is_rejected(line: Line) -> None:
    line.task("a", says("cat"))
    found = sources.from_ontology(line.tasks(), {"animal": {"cat": "lion"}}, line.ontology)
    assert found.proposals == []
    assert "lion" in found.rejects[0].why


def test_rows_of_a_file_say_what_is_right(line: Line, tmp_path: Path) -> None:
    a = line.task("a", [*says("cat"), contract.box("head", 5)], says("dog"))
    b = line.task("b", says("cat"))
    boxes = json.dumps([contract.box("tail", 9)])
    rows = [
        {
            "task": a.id,
            "annotation": a.annotations[0].id,
            "control": "animal",
            "label": "dog",
            "why": "so",
        },
        {"task": "b", "annotation": b.annotations[0].id, "result": boxes},
        {"task": "z", "control": "animal", "label": "dog"},
        {"task": a.id, "annotation": "99", "control": "animal", "label": "dog"},
        {"task": a.id, "annotation": a.annotations[1].id, "control": "parts", "label": "tail"},
    ]
    path = tmp_path / "right.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = sources.from_file(path, line.tasks(), True, line.ontology)
    one, two = made(found, "replace")
    assert (one.why, sorted(labels(one.then))) == ("so", ["dog", "head"])
    assert (two.task, two.why, labels(two.then)) == (b.id, "right.jsonl says so", ["tail"])
    assert {reject.where: reject.why for reject in found.rejects} == {
        f"{path}:3": "no task of the store has the id or key z",
        f"{path}:4": f"task {a.id} has no annotation 99",
        f"{path}:5": "a label does not say what is drawn for parts; give the whole `result`",
    }


def test_every_bad_row_is_reported_with_its_line_and_the_good_ones_make_a_plan(
    line: Line, tmp_path: Path
) -> None:
    line.task("a", says("cat"))
    line.task("b", says("cat"))
    path = tmp_path / "fixes.csv"
    rows = [
        "task,control,label,result",
        "a,animal,dog,",
        "b,animal,dgo,",  # unknown label
        "b,anmal,dog,",  # unknown control
        "b,animal,dog,",  # good, but the correction of b is not whole
        "b",  # a torn line
        ",animal,dog,",  # no task
        "z,animal,dog,",  # unknown task
        "y,animal,dog,",  # another
        "b,,,[",  # a result that is not JSON, beside labels
    ]
    path.write_text("\n".join(rows) + "\n")
    found = sources.from_file(path, line.tasks(), False, line.ontology)
    [one] = made(found, "predict")
    assert (one.key, labels(one.then)) == ("a", ["dog"])
    assert sorted({reject.where for reject in found.rejects}) == sorted(f"{path}:{n}" for n in range(3, 11))

    path.write_text("\n".join(rows[:5]) + "\n")
    found = sources.from_file(path, line.tasks(), False, line.ontology)
    assert [reject.where for reject in found.rejects] == [f"{path}:{n}" for n in (3, 4, 5)]
    unknown, control, beside = (reject.why for reject in found.rejects)
    assert "'dgo'" in unknown
    assert "'anmal'" in control
    assert beside == f"it belongs to one correction with {path}:3, which is rejected"


def test_labels_that_only_together_are_too_many_are_rejected_with_their_lines(
    line: Line, tmp_path: Path
) -> None:
    line.task("a", says("cat"))
    path = tmp_path / "fixes.tsv"
    path.write_text("task\tcontrol\tlabel\na\tanimal\tdog\na\tanimal\tcat\n")
    [reject] = sources.from_file(path, line.tasks(), False, line.ontology).rejects
    assert reject.where == f"{path}:2, {path}:3"


def test_a_row_without_an_annotation_is_about_the_task_or_all_on_it(line: Line, tmp_path: Path) -> None:
    task = line.task("a", says("cat"), says("dog"))
    path = tmp_path / "right.csv"
    path.write_text(f"task,control,label\n{task.id},animal,dog\n")
    [whole] = made(sources.from_file(path, line.tasks(), False, line.ontology), "predict")
    assert (whole.annotation, labels(whole.then)) == (None, ["dog"])
    found = sources.from_file(path, line.tasks(), True, line.ontology)
    assert [one.annotator for one in made(found, "replace")] == [PEOPLE[0]]  # ben says so already


def test_rows_that_name_only_what_is_wrong_delete_and_return(line: Line, tmp_path: Path) -> None:
    task = line.task("a", says("cat"))
    path = tmp_path / "wrong.csv"
    path.write_text(f"task,annotation,why\n{task.id},{task.annotations[0].id},blurred\n")
    found = sources.from_file(path, line.tasks(), True, line.ontology)
    [gone] = made(found, "delete")
    assert (gone.why, labels(gone.now), gone.then) == ("blurred", ["cat"], None)
    [back] = made(found, "return")
    assert back.note == f"{PEOPLE[0]}, please look again: blurred"
    with pytest.raises(UsageError, match=r"the right answer to task .* must be known"):
        made(found, "replace")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.xyz", "", "not a kind of file"),
        ("a.csv", "id\n1\n", "no column task"),
        ("a.jsonl", '{"id": 1}', "no column task"),
        ("none.csv", None, "file not found"),
        ("a.json", "{", "is not JSON"),
    ],
)
def test_a_file_that_says_nothing_is_named(
    line: Line, tmp_path: Path, name: str, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=said):
        sources.from_file(tmp_path / name, [], True, line.ontology)


def no_cats(task: Task) -> list[Proposal]:
    """A team's own rule."""
    wrong = [a for a in task.annotations if "cat" in labels(a.result)]
    return [Proposal(task, "we have no cats", a, says("dog"), 0.9) for a in wrong]


def lions(task: Task) -> list[Proposal]:
    return [Proposal(task, "", None, says("lion"))]


def broken(task: Task) -> list[Proposal]:
    raise KeyError(task.key)


def test_a_function_of_ones_own_decides(line: Line) -> None:
    line.task("a", says("cat"), says("dog"))
    found = sources.from_function(f"{__name__}:no_cats", line.tasks(), line.ontology)
    [one] = made(found, "replace")
    assert (one.annotator, one.why, one.confidence) == (PEOPLE[0], "we have no cats", 0.9)
    found = sources.from_function(f"{__name__}:lions", line.tasks(), line.ontology)
    assert "lion" in found.rejects[0].why
    for name, said in [("broken", "broken failed for task"), ("nothing", "no function"), ("", "no function")]:
        with pytest.raises(UsageError, match=said):
            sources.from_function(f"{__name__}:{name}", line.tasks(), line.ontology)


def test_verdicts_return_delete_and_ask_but_know_nothing_right(line: Line) -> None:
    task, _ = line.task("a", says("cat"), says("dog")), line.task("b", says("cat"))
    verdicts = pl.DataFrame(
        {"task": [task.id, "99"], "control": ["animal", None], "correct": [0, 0]},
        schema_overrides={"control": pl.String},
    )
    found = sources.from_verdicts(verdicts, line.tasks())
    assert [c.annotator for c in made(found, "return")] == PEOPLE[:2]
    assert found.proposals[0].why == "a reviewer found it wrong: animal"
    assert [reject.where for reject in found.rejects] == ["task 99"]
    with pytest.raises(UsageError, match="must be known"):
        made(found, "add")


def proposals(*confidences: float | None) -> Proposed:
    """One of each of ann's and ben's annotations in turn."""
    found = []
    for n, confidence in enumerate(confidences):
        task = Task(id=str(n), key=f"k{n}")
        whose = Annotation(id=f"a{n}", task_id=task.id, annotator=PEOPLE[n % 2])
        found.append(Proposal(task, "so", whose, says("cat"), confidence))
    return Proposed(found)


@pytest.mark.parametrize(
    ("limits", "taken"),
    [
        ({}, "0123"),
        ({"min_confidence": 0.7}, "12"),
        ({"max_changes": 2}, "12"),
        ({"max_changes": 0}, ""),
        ({"per_annotator": 1}, "12"),
        ({"annotators": frozenset(PEOPLE[:1])}, "02"),
        ({"annotators": frozenset(PEOPLE[1:2]), "max_changes": 1}, "1"),
    ],
)
def test_limits_take_the_surest_and_keep_the_order(limits: dict[str, Any], taken: str) -> None:
    found = made(proposals(0.6, 0.8, None, 0.65), "replace", **limits)
    assert "".join(one.task for one in found) == taken


@pytest.mark.parametrize("limits", [{"per_annotator": 1}, {"annotators": frozenset(PEOPLE)}])
@pytest.mark.parametrize("action", sorted(set(Action) - OWN))
def test_limits_by_annotator_are_of_annotations_only(action: str, limits: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="is about tasks"):
        made(Proposed([]), action, **limits)


def test_an_annotation_is_corrected_once_in_a_plan() -> None:
    [one] = proposals(0.9).proposals
    assert len(made(Proposed([one, one]), "replace")) == 1


def test_what_the_tool_shows_already_is_not_planned_again(line: Line) -> None:
    task = line.task("a", says("cat"))
    truth = task.annotations[0].model_copy(update={"ground_truth": True})
    with_truth = task.model_copy(update={"annotations": (truth,)})
    waiting = task.model_copy(update={"overlap": 2})
    assert made(Proposed([Proposal(with_truth, "", None, says("dog"))]), "add") == ()
    assert made(Proposed([Proposal(task, "", task.annotations[0], says("cat"))]), "replace") == ()
    assert len(made(Proposed([], [Proposal(task, "")]), "ask")) == 1
    assert made(Proposed([], [Proposal(waiting, "")]), "ask") == ()


@pytest.mark.parametrize(
    ("line_of", "said"),
    [
        ('{"task": "1", "key": "k", "action": "add", "expect": "e", "why": ""}', "add needs then"),
        ('{"task": "1", "key": "k", "action": "burn", "expect": "e", "why": ""}', ":2: action"),
        (
            '{"task": "1", "key": "k", "action": "return", "expect": "e", "why": ""}',
            "return needs annotation",
        ),
    ],
)
def test_an_edited_line_that_lacks_something_is_named(tmp_path: Path, line_of: str, said: str) -> None:
    (tmp_path / "plan.jsonl").write_text('{"project": "p", "source": {}}\n' + line_of + "\n")
    with pytest.raises(UsageError, match=said):
        Plan.load(tmp_path / "plan.jsonl")


OCR = """<View><Image name="image" value="$image"/>
<RectangleLabels name="box" toName="image"><Label value="word"/><Label value="logo"/></RectangleLabels>
<TextArea name="text" toName="image" perRegion="true"/></View>"""


def written(label: str, id: str, text: str, x: float = 10) -> list[dict[str, Any]]:
    """A box with a label and what is written in it, as the tool keeps it."""
    head = {"id": id, "to_name": "image", "original_width": 100, "original_height": 100, "image_rotation": 0}
    place = {"x": x, "y": 10, "width": 20, "height": 20, "rotation": 0}
    box = {"from_name": "box", "type": "rectanglelabels", "value": {**place, "rectanglelabels": [label]}}
    return [
        {**head, **box},
        {**head, "from_name": "text", "type": "textarea", "value": {**place, "text": [text]}},
    ]


def test_what_an_annotator_wrote_in_a_box_stays_with_the_box(line: Line) -> None:
    line.ontology = line.tool.write_ontology(line.tool.parse_ontology(OCR))
    alone = written("logo", "far", "nobody else saw it", x=70)
    line.task("a", written("word", "x", "hello"), written("word", "y", "hello"))
    line.task(
        "b", *(written("word", id, "hello") for id in "xy"), [*written("logo", "z", "helo", 11), *alone]
    )
    [one] = line.consensus(own=True).proposals
    result = one.result or []
    assert [(raw["type"], raw["id"]) for raw in result] == [("rectanglelabels", "z"), ("textarea", "z")]
    assert result[0]["value"]["rectanglelabels"] == ["word"]
    assert result[1]["value"]["text"] == ["helo"]  # only a person corrects a text
    assert result[0]["value"]["x"] == result[1]["value"]["x"] == 10
    check_result(result, line.ontology, {})


def test_a_label_is_renamed_in_a_skipped_annotation_too_which_stays_skipped(line: Line) -> None:
    task = line.task("a", says("cat"), says("cat"))
    skipped = task.annotations[0].model_copy(update={"cancelled": True})
    line.tool.write_annotation(skipped, task.annotations[0].revision)
    found = sources.from_ontology(line.tasks(), {"animal": {"cat": "dog"}}, line.ontology)
    assert [one.annotation and one.annotation.annotator for one in found.proposals] == PEOPLE[:2]
    assert [one.cancelled for one in made(found, "replace")] == [True, False]


def test_a_row_that_names_no_annotation_is_not_about_gold_or_what_was_skipped(
    line: Line, tmp_path: Path
) -> None:
    task = line.task("a", says("cat"), says("cat"), says("dog"))
    for one, new in zip(task.annotations, ({"ground_truth": True}, {"cancelled": True}), strict=False):
        line.tool.write_annotation(one.model_copy(update=new), one.revision)
    (tmp_path / "fixes.csv").write_text("task,why\na,redo\n")
    found = sources.from_file(tmp_path / "fixes.csv", line.tasks(), True, line.ontology)
    assert [one.annotation and one.annotation.annotator for one in found.proposals] == [PEOPLE[2]]


def test_a_result_may_stand_in_a_file_as_it_is(line: Line, tmp_path: Path) -> None:
    line.task("a", says("cat"))
    (tmp_path / "fixes.jsonl").write_text(json.dumps({"task": "a", "result": says("dog")}) + "\n")
    [one] = sources.from_file(tmp_path / "fixes.jsonl", line.tasks(), False, line.ontology).proposals
    assert labels(one.result) == ["dog"]
    path = tmp_path / "fixes.jsonl"
    path.write_text('[1]\n{"task": \n\n' + json.dumps({"task": "a", "result": says("dog")}) + "\n")
    found = sources.from_file(path, line.tasks(), False, line.ontology)
    assert len(found.proposals) == 1
    assert [reject.where for reject in found.rejects] == [f"{path}:1", f"{path}:2"]


def test_a_function_that_answers_with_other_numbers_than_json_has_is_told(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = line.task("a", says("cat"))
    odd = [{"from_name": "animal", "type": "choices", "value": np.float32(0.5)}]
    monkeypatch.setattr(sources, "_function", lambda _: lambda task: [Proposal(task, "so", None, odd)])
    found = sources.from_function("team:fix", line.tasks(), line.ontology)
    assert [reject.where for reject in found.rejects] == [f"task {task.id}"]
    assert "float32" in found.rejects[0].why


def test_a_tree_with_aliases_is_corrected_by_value_and_by_alias(line: Line, tmp_path: Path) -> None:
    line.ontology = line.tool.write_ontology(
        line.tool.parse_ontology(
            """<View><Text name="text" value="$weather"/><Taxonomy name="animal" toName="text">
            <Choice value="Tier" alias="pet"><Choice value="Katze" alias="cat"/></Choice></Taxonomy></View>"""
        )
    )
    for key in "abc":
        line.task(key)
    path = tmp_path / "fixes.csv"
    path.write_text("task,control,label\na,animal,pet / cat\nb,animal,Tier / Katze\nc,animal,Tier / Hund\n")
    found = sources.from_file(path, line.tasks(), False, line.ontology)
    assert [(one.task.key, (one.result or [])[0]["value"]) for one in found.proposals] == [
        ("a", {"taxonomy": [["pet", "cat"]]}),
        ("b", {"taxonomy": [["Tier", "Katze"]]}),
    ]
    assert [reject.where for reject in found.rejects] == [f"{path}:4"]
