"""After labels are renamed, earlier answers are read with the new names, and nothing else is."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from connector.adapters.contract import LabelingToolContract
from connector.adapters.memory import MemoryTool, ToolProject
from connector.config import parse
from connector.corrections.apply import Applied, apply
from connector.corrections.plan import Limits, Plan, Proposal, Proposed, plan
from connector.corrections.sources import from_ontology
from connector.corrections.undo import undo
from connector.errors import UsageError
from connector.events.detect import note_events
from connector.events.log import EventLog
from connector.journal.correction import Action
from connector.journal.journal import Journal, journal_of
from connector.model import Annotation, Task
from connector.quality.agreement import agreement
from connector.quality.units import units
from connector.store.label_store import Store
from connector.store.labels import Loaded, read_store
from connector.sync import ontology as ontology_room
from connector.sync import rounds as sync
from tests.conftest import JOURNAL_KEYS

contract = LabelingToolContract()
PEOPLE = ("ann", "ben", "cleo")
PROJECT = "memory:#1"
Regions = list[dict[str, Any]]


def config(*labels: str) -> str:
    """Questions of every kind that has labels, each with these."""
    said = "".join(f'<Label value="{label}"/>' for label in labels)
    chosen = said.replace("Label", "Choice")
    return f"""
        <View>
          <Image name="image" value="$image"/>
          <Text name="text" value="$text"/>
          <Choices name="whole" toName="image">{chosen}</Choices>
          <Choices name="several" toName="image" choice="multiple">{chosen}</Choices>
          <RectangleLabels name="box" toName="image">{said}</RectangleLabels>
          <Rectangle name="bare" toName="image"/>
          <Labels name="naming" toName="image">{said}</Labels>
          <Choices name="each" toName="image" perRegion="true">{chosen}</Choices>
          <Labels name="span" toName="text">{said}</Labels>
          <Taxonomy name="tree" toName="image"><Choice value="top">{chosen}</Choice></Taxonomy>
          <Relations>{said.replace("Label", "Relation")}</Relations>
        </View>"""


OLD = config("old", "new", "other", "more")
NEW = config("new", "other", "more")


def region(
    name: str, kind: str, value: Mapping[str, Any], id: str = "a", to: str = "image"
) -> dict[str, Any]:
    about = {} if to == "text" else {"original_width": 100, "original_height": 100, "image_rotation": 0}
    return {"id": id, "from_name": name, "to_name": to, "type": kind, "value": dict(value), **about}


PLACE = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0}


def box(label: str, id: str = "a", x: int = 10) -> dict[str, Any]:
    return region("box", "rectanglelabels", {**PLACE, "x": x, "rectanglelabels": [label]}, id)


def said(kind: str, label: str) -> Regions:
    """An answer to one question."""
    bare = region("bare", "rectangle", PLACE)
    span = {"start": 0, "end": 4, "text": "some", "labels": [label]}
    answers: dict[str, Regions] = {
        "whole": [contract.choice(label, from_name="whole")],
        "several": [region("several", "choices", {"choices": [label, "more"]}, "s")],
        "box": [box(label)],
        "naming": [bare, region("naming", "labels", {**PLACE, "labels": [label]})],
        "each": [bare, region("each", "choices", {**PLACE, "choices": [label]})],
        "span": [{"id": "a", "from_name": "span", "to_name": "text", "type": "labels", "value": span}],
        "tree": [region("tree", "taxonomy", {"taxonomy": [["top", label]]}, "t")],
        "relations": [
            box("other"),
            box("other", "b", 60),
            {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right", "labels": [label]},
        ],
    }
    return answers[kind]


KINDS = ["whole", "several", "box", "naming", "each", "span", "tree", "relations"]


def mapping(kind: str = "whole", new: str | None = "new") -> dict[str, dict[str, str | None]]:
    if kind == "tree":
        return {"tree": {"top / old": new and f"top / {new}"}}
    return {kind: {"old": new}}


@dataclass
class Desk:
    """A tool, a store, and what one does with them."""

    tool: MemoryTool
    folder: Path
    clock: Iterator[datetime]

    @property
    def store(self) -> Store:
        return Store(str(self.folder / "labels"))

    @property
    def journal(self) -> Journal:
        return Journal(journal_of(self.store.url), keys=JOURNAL_KEYS)

    def ask(self, source: str) -> None:
        ontology_room.push(self.tool, source, 3)

    def task(self, key: str, *answers: Regions | None, cancelled: bool = False) -> Task:
        [task] = self.tool.add_items(
            [contract.item(key).model_copy(update={"data": {"image": "a.png", "text": "some"}})]
        )
        for who, answer in zip(PEOPLE, answers, strict=False):
            if answer is not None:
                contract.write(self.tool, task, who, *answer, cancelled=cancelled)
        return self.tool.read_task(task.id)

    def edit(self, task: Task, who: str, *regions: dict[str, Any]) -> Annotation:
        [mine] = [a for a in self.tool.read_task(task.id).annotations if a.annotator == who]
        return contract.edit(self.tool, mine, *regions)

    def loaded(self, version: int | None = None) -> Loaded:
        sync.pull(self.tool, self.store)
        return read_store(self.store, {}, version)

    def units(self) -> pl.DataFrame:
        return units(self.loaded().labels).select("task", "control", "unit", "annotator", "role", "label")

    def labels(self, control: str = "whole") -> list[str]:
        """Who said what, by the order of people."""
        return self.units().filter(control=control).sort("task", "annotator")["label"].to_list()

    def observed(self, control: str = "whole") -> float | None:
        return agreement(units(self.loaded().labels).filter(control=control), seed=0).observed.value

    def plan(self, names: Mapping[str, Mapping[str, str | None]], limits: Limits | None = None) -> Plan:
        sync.pull(self.tool, self.store)
        found = from_ontology(self.store.tasks(), names, self.tool.read_ontology())
        assert found.rejects == []
        return plan(PROJECT, {"from": "ontology"}, found, Action.REPLACE, limits)

    def rename(self, *names: Mapping[str, Mapping[str, str | None]], limits: Limits | None = None) -> Applied:
        [one] = names or (mapping(),)
        done = self.apply(self.plan(one, limits))
        assert (done.conflicts, done.failed) == ([], [])
        return done

    def apply(self, made: Plan) -> Applied:
        return apply(self.tool, made, PROJECT, self.journal, lambda: next(self.clock))

    def replace(self, task: Task, who: str, *regions: dict[str, Any]) -> Applied:
        """A correction of one annotation, of another source."""
        sync.pull(self.tool, self.store)
        [mine] = [a for a in self.tool.read_task(task.id).annotations if a.annotator == who]
        one = Proposal(self.tool.read_task(task.id), "so", mine, list(regions))
        return self.apply(plan(PROJECT, {}, Proposed([one]), Action.REPLACE))

    def undo(self, done: Applied) -> None:
        back = undo(self.tool, done.run, PROJECT, self.journal, lambda: next(self.clock))
        assert (back.conflicts, back.failed) == ([], [])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    clock = (datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=n) for n in itertools.count())
    tool = MemoryTool(ToolProject(people=[*PEOPLE, "owner"], clock=lambda: next(clock)), me="owner")
    tool.write_ontology(tool.parse_ontology(OLD))
    return Desk(tool, tmp_path, clock)


def renamed(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(pl.col("label").str.replace_all("old", "new"))


@pytest.mark.parametrize("kind", KINDS)
def test_old_answers_are_read_with_the_new_names_and_dissent_stays(desk: Desk, kind: str) -> None:
    desk.task("a", said(kind, "old"), said(kind, "old"), said(kind, "other"))
    desk.task("b", said(kind, "other"), said(kind, "old"), said(kind, "old"))
    before = desk.units()
    done = desk.rename(mapping(kind))
    assert done.written == 4
    desk.ask(NEW)
    assert desk.loaded().rejects == []
    assert desk.units().equals(renamed(before))
    desk.tool.write_ontology(desk.tool.parse_ontology(OLD))
    desk.undo(done)
    assert desk.units().equals(before)


def test_agreement_is_the_same_before_and_after_a_rename(desk: Desk) -> None:
    """One of three pairs agrees, whatever the labels are called."""
    desk.task("a", said("whole", "old"), said("whole", "old"), said("whole", "other"))
    assert desk.observed() == pytest.approx(1 / 3)
    desk.rename()
    desk.ask(NEW)
    assert desk.observed() == pytest.approx(1 / 3)


def test_a_removed_label_is_removed_from_old_answers_with_what_is_about_it(desk: Desk) -> None:
    about = region("each", "choices", {**PLACE, "choices": ["other"]})
    desk.task("a", [box("old"), about, box("other", "b", 60)], [box("other", "b", 60)])
    desk.rename({"box": {"old": None}})
    desk.ask(OLD.replace('"box" toName="image"><Label value="old"/>', '"box" toName="image">'))
    assert desk.loaded().rejects == []
    assert desk.labels("box") == ["other", "other"]
    assert desk.labels("each") == []


def test_an_answer_given_later_with_the_old_label_is_left_as_it_is(desk: Desk) -> None:
    task = desk.task("a", said("whole", "old"), said("whole", "old"), said("whole", "other"))
    desk.rename()
    assert desk.labels() == ["new", "new", "other"]
    desk.edit(task, "ben", *said("whole", "old"))
    other = desk.task("b", said("whole", "old"))
    assert desk.labels() == ["new", "old", "other", "old"]
    # Also where a plan of another source corrects it afterwards.
    desk.replace(task, "ben", *said("whole", "other"))
    desk.replace(other, "ann", *said("whole", "other"))
    assert desk.labels() == ["new", "old", "other", "old"]


def test_a_label_is_renamed_also_beside_an_answer_that_the_ontology_no_longer_allows(desk: Desk) -> None:
    """The tool holds such answers; else the old label of the other question could never be removed."""
    task = desk.task("a", [*said("whole", "old"), *said("several", "other")])
    gone = OLD.replace('<Choice value="other"/>', "")
    ontology_room.push(desk.tool, gone, 3, force=True)
    assert desk.rename().written == 1
    [answer] = desk.tool.read_task(task.id).annotations
    assert json.loads(answer.result) == [*said("whole", "new"), *said("several", "other")]
    assert desk.labels() == ["new"]


def test_the_guard_refuses_a_label_that_is_used_since_the_rename(desk: Desk) -> None:
    task = desk.task("a", said("whole", "old"), said("whole", "other"))
    desk.rename()
    desk.edit(task, "ben", *said("whole", "old"))
    with pytest.raises(UsageError, match=r"whole: old \(1\)"):
        desk.ask(NEW)


def test_a_skipped_answer_is_renamed_too_and_stays_skipped(desk: Desk) -> None:
    task = desk.task("a", said("whole", "old"), cancelled=True)
    done = desk.rename()
    [skipped] = desk.tool.read_task(task.id).annotations
    assert (skipped.cancelled, json.loads(skipped.result)) == (True, said("whole", "new"))
    desk.ask(NEW)
    assert desk.units().is_empty()
    desk.undo(done)
    [skipped] = desk.tool.read_task(task.id).annotations
    assert (skipped.cancelled, json.loads(skipped.result)) == (True, said("whole", "old"))


def test_an_answer_that_was_corrected_before_is_read_with_the_new_name(desk: Desk) -> None:
    """The tool does not hold the old label any more, so the rename has nothing to write there."""
    task = desk.task("a", said("whole", "other"), said("whole", "old"))
    desk.replace(task, "ben", *said("whole", "other"))
    desk.task("b", said("whole", "old"))
    done = desk.rename()
    assert done.written == 1
    desk.ask(NEW)
    assert desk.labels() == ["other", "new", "new"]
    desk.tool.write_ontology(desk.tool.parse_ontology(OLD))
    desk.undo(done)
    assert desk.labels() == ["other", "old", "old"]


def test_an_answer_that_was_corrected_afterwards_is_read_with_the_new_name(desk: Desk) -> None:
    task = desk.task("a", said("whole", "other"), said("whole", "old"))
    desk.rename()
    desk.replace(task, "ben", *said("whole", "other"))
    desk.ask(NEW)
    assert desk.labels() == ["other", "new"]


def test_a_plan_with_limits_renames_nothing_but_what_is_in_it(desk: Desk) -> None:
    first = desk.task("a", said("whole", "old"), said("whole", "old"))
    second = desk.task("b", said("whole", "other"), said("whole", "old"))
    desk.rename(limits=Limits(annotators=frozenset({"ann"})))
    assert desk.labels() == ["new", "old", "other", "old"]
    for task, who in [(first, "ann"), (second, "ben")]:
        desk.replace(task, who, *said("whole", "other"))
    assert desk.labels() == ["new", "old", "other", "old"]


def test_labels_renamed_twice_have_their_last_name(desk: Desk) -> None:
    desk.task("a", said("whole", "old"), said("whole", "other"))
    desk.rename()
    done = desk.rename({"whole": {"new": "other", "other": "new"}})
    assert desk.labels() == ["other", "new"]
    desk.undo(done)
    assert desk.labels() == ["new", "other"]


def test_an_earlier_version_of_the_store_is_read_as_it_was(desk: Desk) -> None:
    desk.task("a", said("whole", "old"), said("whole", "other"))
    desk.loaded()
    first = desk.store.version
    done = desk.rename()
    desk.loaded()
    second = desk.store.version
    desk.undo(done)
    desk.loaded()
    versions = [desk.loaded(version).labels.regions for version in (first, second, None)]
    read = [regions.filter(control="whole")["label"].to_list() for regions in versions]
    assert read == [["old", "other"], ["new", "other"], ["old", "other"]]


def test_what_was_only_renamed_is_still_its_annotators_and_can_be_corrected(desk: Desk) -> None:
    task = desk.task("a", said("whole", "old"), said("whole", "other"))
    assert desk.loaded().corrected == {}
    desk.rename()
    assert desk.loaded().corrected == {}
    desk.replace(task, "ann", *said("whole", "other"))
    [(_, result)] = desk.loaded().corrected.items()
    assert json.loads(result) == said("whole", "new")


def test_a_run_whose_journal_names_no_renames_is_read_by_its_changes(desk: Desk) -> None:
    """As runs of earlier versions of this program."""
    desk.task("a", said("whole", "old"), said("whole", "other"))
    desk.apply(desk.plan(mapping()).model_copy(update={"renames": {}}))
    desk.ask(NEW)
    assert desk.labels() == ["new", "other"]


def test_a_store_that_was_pulled_before_renames_were_noted_learns_of_them(desk: Desk) -> None:
    desk.task("a", said("whole", "old"), said("whole", "other"))
    made = desk.plan(mapping())
    desk.apply(made)
    journal, aside = desk.folder / "labels-corrections", desk.folder / "aside"
    journal.rename(aside)
    sync.pull(desk.tool, desk.store)
    aside.rename(journal)
    sync.pull(desk.tool, desk.store)  # brings nothing new
    assert desk.store.rows().filter(pl.col("record") == "renaming").collect()["id"].to_list() == [made.run]


def test_what_happened_is_the_same_before_and_after_a_rename(desk: Desk) -> None:
    desk.task("a", said("whole", "old"), said("whole", "old"), said("whole", "other"))
    desk.task("b", said("whole", "old"), said("whole", "old"), said("whole", "old"))
    edited = desk.task("c", said("whole", "old"), said("whole", "other"), said("whole", "other"))
    desk.edit(edited, "ann", *said("whole", "other"))
    settings = parse("[events]\nconfidence = 0.9", desk.folder / "connector.toml")

    def follow(name: str) -> list[tuple[str, str]]:
        sync.pull(desk.tool, desk.store)
        log = EventLog(desk.folder / name, PROJECT)
        return [(event.type, event.id) for event in note_events(desk.store, log, settings, lambda _: ())]

    before = follow("one")
    assert {"consensus.failed", "consensus.reached"} <= {type for type, _ in before}
    desk.rename()
    desk.ask(NEW)
    assert [one for one in follow("one") if one[0].startswith("consensus")] == []
    assert follow("two") == before
