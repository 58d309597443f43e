"""Whatever a correction does not name survives it: for every kind, and whatever things are called."""

from __future__ import annotations

import itertools
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import hypothesis.strategies as st
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings

from connector.adapters.memory import MemoryTool, ToolProject
from connector.corrections.apply import apply
from connector.corrections.plan import plan
from connector.corrections.sources import Answers, from_consensus, from_file, from_role
from connector.journal.correction import Action
from connector.journal.journal import Journal
from connector.model import Annotation, Item, Ontology, Role
from connector.quality.consensus import consensus
from connector.quality.units import units
from connector.regions import NOT_MEASURED, Drawn, parse_region
from connector.store.label_store import Store
from connector.store.labels import Loaded, read_store
from connector.sync import rounds as sync
from tests.configs import CONFIGS, MORE
from tests.conftest import JOURNAL_KEYS
from tests.results import annotate

PEOPLE = ("ann", "ben", "rita")
ASKED = {name: source for name, source in (CONFIGS | MORE).items() if name.lower() not in NOT_MEASURED}

NAMES = st.lists(st.sampled_from("ab/,\"'<>& →+"), min_size=1, max_size=4).map(
    lambda parts: "/,\"'<b>& → + " + "".join(parts)
)
"""Parts of names that could be taken apart, or for something else."""


def named(source: str, odd: str) -> str:
    """The configuration with odd names of everything, and further questions beside the one.

    Only a comma is not part of an object's name: the tool itself parts `toName` there.
    """
    view = ElementTree.fromstring(source)
    of_object = f"{odd.replace(',', ';')}x"
    for tag in view.iter():
        if tag.tag not in ("Chat", "ReactCode"):  # these are both the object and the question
            if tag.get("toName"):
                tag.set("toName", ",".join(f"{name}{of_object}" for name in tag.get("toName", "").split(",")))
            elif tag.get("name") and any(name in tag.attrib for name in ("value", "valueList")):
                tag.set("name", f"{tag.get('name')}{of_object}")
        if tag.tag in ("Choice", "Label", "Relation") and "alias" not in tag.attrib:
            tag.set("value", f"{tag.get('value')}{odd}x")
        if tag.get("whenLabelValue"):
            del tag.attrib["whenLabelValue"]  # the tool itself parts it at commas
        if tag.get("toName") and tag.tag != "ReactCode":
            tag.set("name", f"{tag.get('name')}{odd}x")
    pictures = f"pics/{of_object}"
    ElementTree.SubElement(view, "Image", name=pictures, valueList="$pics")
    each = ElementTree.SubElement(
        view, "Choices", name=f"each/{odd}x", toName=pictures, perItem="true", choice="multiple"
    )
    for value in ("sun", f"rain/{odd}x", "snow"):
        ElementTree.SubElement(each, "Choice", value=value)
    ElementTree.SubElement(view, "TextArea", name=f"words/{odd}x", toName=pictures)
    return ElementTree.tostring(view, encoding="unicode")


def answers(ontology: Ontology, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A task's data and one result; the question of each picture is answered of two of them."""
    data, [result] = annotate(ontology, seed, 1, noise=0)
    pictures = [raw for raw in result if raw.get("from_name", "").startswith("each/")]
    rest = [raw for raw in result if raw not in pictures]
    return data, [*rest, *({**pictures[0], "id": f"p{n}", "item_index": n} for n in range(2))]


def subject(result: list[dict[str, Any]]) -> dict[str, Any]:
    return next(raw for raw in result if raw.get("from_name", "").startswith("answer"))


def differing(
    ontology: Ontology, result: list[dict[str, Any]], seed: int
) -> tuple[list[dict[str, Any]], list[int]]:
    """The result with one unit otherwise, and the numbers of the regions that this is about."""
    one = subject(result)
    if isinstance(parse_region(one), Drawn):
        about = [
            n
            for n, raw in enumerate(result)
            if one["id"] in (raw.get("id"), raw.get("from_id"), raw.get("to_id"))
        ]
        return [raw for n, raw in enumerate(result) if n not in about], about
    others = (subject(answers(ontology, seed + n)[1])["value"] for n in itertools.count(1))
    other = next(value for value in others if value != one["value"])
    return [{**raw, "value": other} if raw is one else raw for raw in result], [result.index(one)]


@pytest.mark.parametrize("tag", sorted(ASKED))
@given(odd=NAMES, seed=st.integers(0, 1000))
@settings(
    max_examples=3,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
def test_what_a_correction_does_not_name_survives_it(tag: str, odd: str, seed: int) -> None:
    clock = (
        datetime(2026, 3, 1 + n // 86400, n // 3600 % 24, n // 60 % 60, n % 60, tzinfo=UTC)
        for n in itertools.count()
    )
    tool = MemoryTool(ToolProject(people=PEOPLE, clock=lambda: next(clock)), me=PEOPLE[2])
    ontology = tool.write_ontology(tool.parse_ontology(named(ASKED[tag], odd)))
    data, result = answers(ontology, seed)
    drawn = [one.dump() | {"id": ""} for raw in result if isinstance(one := parse_region(raw), Drawn)]
    assume(len({json.dumps(one) for one in drawn}) == len(drawn))  # else no one knows which is gone
    right, about = differing(ontology, result, seed)
    [task] = tool.add_items([Item(key="k", data={**data, "pics": ["1.png", "2.png"]})])
    for who, said in zip(PEOPLE, (result, result, right), strict=True):
        tool.write_annotation(Annotation(task_id=task.id, annotator=who, result=json.dumps(said)), None)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(str(Path(folder) / "labels"))
        sync.pull(tool, store)
        loaded = read_store(store, {PEOPLE[2]: Role.REVIEWER})
        assert loaded.rejects == []
        table = units(loaded.labels)
        for action in (Action.ADD, Action.REPLACE):
            own = action is Action.REPLACE
            proposed = from_role(loaded, table, Role.REVIEWER, store.tasks(), own)
            made = plan("p", {}, proposed, action)
            assert len(made.corrections) == (2 if own else 1), (proposed.undecided, proposed.rejects)
            if own:
                truth = tool.read_task(task.id).annotations[-1]
                tool.delete_annotation(str(truth.id), truth.revision)
            journal = Journal(str(Path(folder) / "corrections"), keys=JOURNAL_KEYS)
            done = apply(tool, made, "p", journal, lambda: next(clock))
            assert (done.conflicts, done.failed) == ([], [])
            added = tool.read_task(task.id).annotations[-1]
            if not own:
                assert content(json.loads(added.result)) == content(right)
    ann, ben, rita = tool.read_task(task.id).annotations
    assert json.loads(rita.result) == json.loads(json.dumps(right))
    for one in (ann, ben):
        now, kept = json.loads(one.result), [raw for n, raw in enumerate(result) if n not in about]
        assert [raw for raw in now if raw in kept] == json.loads(json.dumps(kept))
        assert content(now) == content(right)


def content(result: list[dict[str, Any]]) -> list[str]:
    """What a result says, without the ids of its regions."""
    free = ({k: v for k, v in raw.items() if k not in ("id", "from_id", "to_id")} for raw in result)
    return sorted(json.dumps(raw, sort_keys=True) for raw in free)


SOURCE = """<View><Image name="image" value="$image"/>
<Choices name="animal" toName="image"><Choice value="cat"/><Choice value="dog"/></Choices>
<Taxonomy name="tree" toName="image"><Choice value="a"><Choice value="b"/></Choice></Taxonomy>
<TextArea name="words" toName="image"/><Number name="age" toName="image"/></View>"""


def answered(folder: Path, expert: Role) -> tuple[Store, Loaded]:
    """A task that three people answer, and of one question an expert."""
    tool = MemoryTool(ToolProject(people=[*PEOPLE, "eve"]), me=PEOPLE[2])
    tool.write_ontology(tool.parse_ontology(SOURCE))
    [task] = tool.add_items([Item(key="k", data={"image": "1.png"})])
    for who, animal, age in zip(PEOPLE, ("cat", "cat", "dog"), (3, 3, 4), strict=True):
        said = [
            ("animal", "choices", {"choices": [animal]}),
            ("tree", "taxonomy", {"taxonomy": [["a", "b"]]}),
            ("words", "textarea", {"text": ["a tail"]}),
            ("age", "number", {"number": age}),
        ]
        raws = [
            {"id": name, "from_name": name, "to_name": "image", "type": type, "value": value}
            for name, type, value in said
        ]
        tool.write_annotation(Annotation(task_id=task.id, annotator=who, result=json.dumps(raws)), None)
    if expert is not Role.PERSON:
        [animal, *_] = raws
        only = json.dumps([{**animal, "value": {"choices": ["dog"]}}])
        tool.write_annotation(Annotation(task_id=task.id, annotator="eve", result=only), None)
    store = Store(str(folder / "labels"))
    sync.pull(tool, store)
    return store, read_store(store, {"eve": expert})


@pytest.mark.parametrize("source", ["consensus", "review", "gold", "file"])
def test_a_ground_truth_answers_every_question(tmp_path: Path, source: str) -> None:
    experts = {"review": Role.REVIEWER, "gold": Role.GOLD}
    store, loaded = answered(tmp_path, experts.get(source, Role.PERSON))
    table = units(loaded.labels)
    merged = consensus(table, seed=0).units
    if source == "consensus":
        found = from_consensus(loaded, table, merged, store.tasks(), False)
    elif source == "file":
        (tmp_path / "fixes.csv").write_text("task,control,label\nk,animal,dog\n")
        ontology = store.ontology()
        assert ontology is not None
        known = Answers(loaded, table, merged)
        found = from_file(tmp_path / "fixes.csv", store.tasks(), False, ontology, answers=known)
    else:
        found = from_role(loaded, table, experts[source], store.tasks(), False, merged)
    [one] = found.proposals
    assert {str(raw["from_name"]): raw["value"] for raw in one.result or ()} == {
        "animal": {"choices": ["cat" if source == "consensus" else "dog"]},
        "tree": {"taxonomy": [["a", "b"]]},
        "words": {"text": ["a tail"]},
        "age": {"number": 3},
    }
    # Where people differ on what nothing decides, the plan says what was taken.
    assert one.why.endswith("; not decided, the merged answer is taken: age")
    assert [(change["control"], change["now"]) for change in one.changes] == [
        ("animal", "ABSENT" if source == "file" else "cat, cat, dog"),
        ("age", "3, 3, 4"),
    ]
    assert one.confidence == (pytest.approx(2 / 3) if source == "consensus" else None)


@pytest.mark.parametrize("source", ["gold", "file"])
def test_what_a_source_leaves_open_a_reviewer_decides_before_most_people(tmp_path: Path, source: str) -> None:
    store, loaded = answered(tmp_path, Role.REVIEWER)  # of the animal, a dog
    table = units(loaded.labels)
    merged = consensus(table, seed=0).units
    if source == "gold":
        gold = table.filter(control="tree", annotator="ann").with_columns(
            label=pl.lit("a"),
            role=pl.lit("gold"),
            gold=pl.lit(value=True),
            annotator=pl.lit("file"),
            annotation=pl.lit("gold/1"),
        )
        found = from_role(loaded, pl.concat([table, gold]), Role.GOLD, store.tasks(), False, merged)
    else:
        (tmp_path / "fixes.csv").write_text("task,control,label\nk,tree,a\n")
        ontology = store.ontology()
        assert ontology is not None
        known = Answers(loaded, table, merged)
        found = from_file(tmp_path / "fixes.csv", store.tasks(), False, ontology, answers=known)
    assert found.rejects == []
    [one] = found.proposals
    said = {str(raw["from_name"]): raw["value"] for raw in one.result or ()}
    assert said["tree"] == {"taxonomy": [["a"]]}
    assert said["animal"] == {"choices": ["dog"]}
