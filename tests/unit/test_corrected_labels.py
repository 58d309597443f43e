"""What plans wrote is known in the store, judges nobody, and can be told from what people did."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest
from deltalake import CommitProperties, Transaction, write_deltalake

from connector.corrections.plan import Plan
from connector.corrections.timeline import history
from connector.formats.export import export
from connector.io.objects import Objects
from connector.journal.correction import Action, Correction
from connector.model import Role, dump_json
from connector.quality.units import units
from connector.store.label_store import ANNOTATION, SCHEMA, Store
from connector.store.labels import read_store
from connector.sync import rounds as sync
from tests.unit.test_corrections import (
    PEOPLE,
    PROJECT,
    Crash,
    Desk,
    break_off,
    contract,
    desk,
    three_to_correct,
)

__all__ = ["desk"]


def roles(desk: Desk) -> list[tuple[str, str, str]]:
    """Of the first task: who, in which role, says what."""
    sync.pull(desk.tool, desk.store)
    table = units(read_store(desk.store, {}).labels).filter(task="1", control="animal")
    return sorted(table.select("annotator", "role", "label").iter_rows())


def starred(desk: Desk) -> list[str]:
    """Of the first task: whose answers are gold."""
    sync.pull(desk.tool, desk.store)
    table = units(read_store(desk.store, {}).labels).filter("gold", task="1")
    return table["annotator"].unique().sort().to_list()


def plans(desk: Desk) -> list[tuple[str, str | None]]:
    """Of the first task: what each annotation says now, and which plan wrote it."""
    sync.pull(desk.tool, desk.store)
    rows = desk.store.current(ANNOTATION).filter(pl.col("task") == "1").sort(pl.col("id").cast(pl.Int64))
    return [
        (json.loads(text)[0]["value"]["choices"][0], plan)
        for text, plan in rows.select("content", "plan").iter_rows()
    ]


ANN_BEN = [(PEOPLE[0], "person", "cat"), (PEOPLE[1], "person", "cat")]


def test_a_consensus_that_was_added_is_neither_gold_nor_a_person(desk: Desk) -> None:
    planned = three_to_correct(desk, "add")
    before = roles(desk)
    desk.apply(planned)
    assert plans(desk) == [("cat", None), ("cat", None), ("dog", None), ("cat", planned.run)]
    assert roles(desk) == [*before, (PEOPLE[3], "code", "cat")]
    assert desk.plan("add").corrections == ()


def test_an_answer_that_was_replaced_is_measured_as_its_annotator_gave_it(desk: Desk) -> None:
    planned = three_to_correct(desk, "replace")
    before = roles(desk)
    desk.apply(planned)
    assert plans(desk) == [("cat", None), ("cat", None), ("cat", planned.run)]
    assert roles(desk) == before
    assert desk.plan("replace").corrections == ()
    # Whoever edits what we wrote says something new.
    ours = desk.tool.read_annotation(str(planned.corrections[0].annotation))
    contract.edit(desk.tool, ours, contract.choice("dog", meta={"text": ["sure"]}))
    assert plans(desk)[2] == ("dog", None)
    assert roles(desk) == [*ANN_BEN, (PEOPLE[2], "person", "dog")]


def test_what_was_taken_back_is_its_annotators_own_again(desk: Desk) -> None:
    for policy in ("replace", "delete"):
        before = roles(desk) if policy == "delete" else None
        planned = three_to_correct(desk, policy) if policy == "replace" else desk.plan(policy)
        before = before or roles(desk)
        desk.apply(planned)
        roles(desk)
        desk.undo(planned.run)
        assert roles(desk) == before


def test_a_run_that_broke_off_is_known_to_a_pull_before_it_goes_on(desk: Desk) -> None:
    planned = three_to_correct(desk, "add")
    break_off(desk, "write_annotation", 1, True)
    with pytest.raises(Crash):
        desk.apply(planned)
    assert plans(desk)[-1] == ("cat", planned.run)
    assert desk.apply(planned).already == 1
    assert plans(desk)[-1] == ("cat", planned.run)


def test_the_gold_that_ours_took_the_flag_from_stays_gold(desk: Desk) -> None:
    [task] = contract.add(desk.tool, "a")
    mine, *_ = desk.answer(task, ("cat", "dog"))
    desk.tool.write_annotation(mine.model_copy(update={"ground_truth": True}), mine.revision)
    assert (PEOPLE[0], "person", "cat") in roles(desk)
    assert starred(desk) == [PEOPLE[0]]
    now = desk.tool.read_task(task.id)
    one = Correction(task="1", key="a", action=Action.ADD, expect=now.revision, then=mine.result, why="so")
    desk.apply(Plan(project=PROJECT, source={}, corrections=(one,)))
    assert starred(desk) == [PEOPLE[0]]
    assert (PEOPLE[3], "code", "cat") in roles(desk)


def test_whoever_pulls_knows_what_a_plan_wrote(desk: Desk) -> None:
    """A notebook names a store by its URL and nothing more."""
    planned = three_to_correct(desk, "add")
    desk.apply(planned)
    store = Store(str(desk.folder / "notebook"))
    shutil.copytree(desk.folder / "labels-corrections", desk.folder / "notebook-corrections")
    sync.pull(desk.tool, store)
    written = store.current(ANNOTATION).filter(pl.col("ground_truth"))
    assert written["plan"].to_list() == [planned.run] * 3
    answers = read_store(store, {}).labels.answers
    assert Role.GOLD not in answers["role"].to_list()
    assert answers.filter(role=Role.CODE)["annotation"].to_list() == written["id"].to_list()


def test_a_prediction_of_a_plan_is_code_and_not_a_model(desk: Desk) -> None:
    desk.apply(three_to_correct(desk, "predict"))
    assert [role for _, role, _ in roles(desk)].count("code") == 1
    assert not [role for _, role, _ in roles(desk) if role == Role.MODEL]


def test_a_store_without_the_column_is_read_and_goes_on(desk: Desk) -> None:
    planned = three_to_correct(desk, "add")
    table = desk.store.rows().collect()
    old = desk.folder / "old"
    first = [table.filter(pl.col("pull") == 1), table.filter(pl.col("pull") > 1)]
    assert SCHEMA["plan"] == pl.String
    for number, part in enumerate(first, 1):
        if len(part):
            properties = CommitProperties(app_transactions=[Transaction("default", number)])
            write_deltalake(str(old), part.drop("plan"), mode="append", commit_properties=properties)
    desk.apply(planned)
    shutil.copytree(desk.folder / "labels-corrections", desk.folder / "old-corrections")
    store = Store(str(old))
    assert read_store(store, {}).corrected == {}
    sync.pull(desk.tool, store)
    written = store.current(ANNOTATION).filter(pl.col("plan").is_not_null())
    assert written["plan"].to_list() == [planned.run] * 3


def test_an_export_names_the_plan(desk: Desk) -> None:
    planned = three_to_correct(desk, "add")
    desk.apply(planned)
    sync.pull(desk.tool, desk.store)
    for name in ("labels.parquet", "labels.json"):
        export(desk.store, Objects(str(desk.folder / name)))
    rows = pl.read_parquet(desk.folder / "labels.parquet").filter(pl.col("ground_truth"))
    assert rows["plan"].to_list() == [planned.run] * 3
    said = [a for task in json.loads((desk.folder / "labels.json").read_text()) for a in task["annotations"]]
    assert [a["plan"] for a in said if a["ground_truth"]] == [planned.run] * 3
    assert {a["plan"] for a in said if not a["ground_truth"]} == {None}


def test_the_history_of_a_task_tells_what_people_and_plans_did(desk: Desk) -> None:
    planned = three_to_correct(desk, "replace")
    desk.apply(planned)
    sync.pull(desk.tool, desk.store)
    ours = desk.tool.read_annotation(str(planned.corrections[0].annotation))
    contract.edit(desk.tool, ours, contract.choice("dog", meta={"text": ["sure"]}))
    desk.undo(planned.run)
    sync.pull(desk.tool, desk.store)
    told = history(desk.store, desk.journal(), "1")
    assert [(e.who.split("@")[0], e.what, e.before, e.after, e.plan) for e in told] == [
        ("ann", "answered", "", "cat", None),
        ("ben", "answered", "", "cat", None),
        ("cleo", "answered", "", "dog", None),
        ("rita", "replaced by a correction", "dog", "cat", planned.run),
        ("cleo", "edited", "cat", "dog", None),
        ("rita", "replace not undone", "dog", "cat", planned.run),
    ]
    assert told[3].why.startswith("most others answered otherwise")
    assert "was changed" in told[5].why


def test_what_an_undoing_gives_back_to_an_earlier_plan_is_that_plans(desk: Desk) -> None:
    added = three_to_correct(desk, "add")
    desk.apply(added)
    sync.pull(desk.tool, desk.store)
    ours = desk.tool.read_task("1").annotations[-1]
    one = Correction(
        task="1",
        key="a",
        action=Action.REPLACE,
        annotation=ours.id,
        annotator=ours.annotator,
        expect=ours.revision,
        then=dump_json([contract.choice("dog")]),
        why="so",
    )
    replaced = Plan(project=PROJECT, source={}, corrections=(one,))
    assert desk.apply(replaced).written == 1
    assert plans(desk)[-1] == ("dog", replaced.run)
    assert desk.undo(replaced.run).written == 1
    assert plans(desk)[-1] == ("cat", added.run)
    assert (PEOPLE[3], "code", "cat") in roles(desk)
    done = desk.undo(added.run)
    assert (done.written, done.conflicts) == (3, [])


@pytest.mark.parametrize(
    ("policy", "written"),
    [
        ("delete", "deleted by a correction"),
        ("replace", "replaced by a correction"),
        ("add", "added by a correction"),
    ],
)
def test_the_history_accuses_nobody_of_what_a_plan_did(desk: Desk, policy: str, written: str) -> None:
    planned = three_to_correct(desk, policy)
    desk.apply(planned)
    sync.pull(desk.tool, desk.store)
    desk.undo(planned.run)
    sync.pull(desk.tool, desk.store)
    told = history(desk.store, desk.journal(), "1")
    assert [(e.who.split("@")[0], e.what) for e in told] == [
        ("ann", "answered"),
        ("ben", "answered"),
        ("cleo", "answered"),
        ("rita", written),
        ("rita", f"{policy} undone"),
    ]
