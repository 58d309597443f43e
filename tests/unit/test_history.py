"""Looking back, against a recomputation that keeps every version in a dictionary."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.errors import UsageError
from connector.model import Annotation, Prediction, Task
from connector.store.history import contents, differences
from connector.store.label_store import Store

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def chosen(*labels: str, control: str = "animal", kind: str = "choices") -> dict[str, object]:
    return {"id": "a", "from_name": control, "to_name": "img", "type": kind, "value": {kind: list(labels)}}


def answer(id: str, *results: object, task: str = "1", who: str = "ann", **more: object) -> Annotation:
    given = {"created_at": NOW, "updated_at": NOW, **more}
    return Annotation(id=id, task_id=task, annotator=who, result=json.dumps(results), **given)


def guess(id: str, *results: object, model: str = "v1", score: float | None = None) -> Prediction:
    said = json.dumps(results)
    return Prediction(
        id=id, task_id="1", result=said, model_version=model, score=score, created_at=NOW, updated_at=NOW
    )


def task(id: str, *answers: Annotation, **more: object) -> Task:
    return Task(id=id, key=f"k{id}", created_at=NOW, annotations=answers, **more)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_what_is_held_is_counted_by_annotator_and_by_label(store: Store) -> None:
    page = [
        task(
            "1",
            answer("1", chosen("cat"), chosen("dog", "owl", kind="rectanglelabels", control="box")),
            answer("2", chosen("cat"), {"from_name": "note", "value": {"text": ["hm"]}}, who="ben"),
            answer("3", who="ben", cancelled=True),
            predictions=(guess("1", chosen("cat")), guess("2", chosen("dog"), model="v2")),
        ),
        task("2", answer("4", chosen("owl"), task="2")),
    ]
    store.append(page, "1", NOW)
    store.append([task("3")], "2", NOW, deleted_tasks=["2"])
    found = contents(store)
    assert (found.tasks, found.predictions, found.unread) == (2, 2, 0)
    assert found.annotators.rows() == [("ann", 1, 0), ("ben", 1, 1)]
    labels = [("animal", "cat", 2), ("box", "dog", 1), ("box", "owl", 1), ("note", None, 1)]
    assert found.labels.rows() == labels
    before = contents(store, 0)
    assert (before.tasks, before.annotators.rows()[0]) == (2, ("ann", 2, 0))
    assert ("animal", "owl", 1) in before.labels.rows()


def test_what_cannot_be_read_is_counted_and_the_rest_is_read(store: Store) -> None:
    broken = Annotation(id="9", task_id="1", annotator="x", result='{"no": "list"}', created_at=NOW)
    odd = answer("8", "no region", who="x")
    store.append([task("1", answer("1", chosen("cat")), broken, odd, answer("2", chosen("cat")))], "1", NOW)
    found = contents(store)
    assert found.labels.rows() == [("animal", "cat", 2)]
    assert found.unread == 2


def test_of_nothing_there_is_nothing(store: Store) -> None:
    found = contents(store)
    assert (found.tasks, found.predictions, len(found.annotators), len(found.labels)) == (0, 0, 0, 0)


def test_a_prediction_and_what_a_task_shows_differ_too(store: Store) -> None:
    store.append([task("1", version="e1", predictions=(guess("1", score=0.5), guess("2")))], "1", NOW)
    store.append([task("1", version="e2", predictions=(guess("1", score=0.7),))], "2", NOW)
    found = differences(store, 0, 1)
    assert found.select("change", "record", "key", "prediction", "score_before", "score_after").rows() == [
        ("changed", "prediction", "k1", "1", 0.5, 0.7),
        ("deleted", "prediction", "k1", "2", None, None),
        ("changed", "task", "k1", None, None, None),
    ]
    assert found.filter(record="task").select("version_before", "version_after").rows() == [("e1", "e2")]


def test_an_answer_that_was_only_saved_again_did_not_change(store: Store) -> None:
    store.append([task("1", answer("1", chosen("cat")))], "1", NOW)
    again = answer("1", chosen("cat"), updated_at=NOW + timedelta(hours=1), seconds=3.0)
    assert store.append([task("1", again)], "2", NOW).changed == 1
    assert differences(store, 0, 1).is_empty()


@pytest.mark.parametrize("version", [-1, 5, "unheard-of"])
def test_a_version_that_is_not_there_is_named(store: Store, version: int | str) -> None:
    store.append([task("1")], "1", NOW)
    for ask in (
        lambda: differences(store, version, 0),
        lambda: differences(store, 0, version),
        lambda: contents(store, version),
        lambda: list(store.tasks(version)),
    ):
        with pytest.raises(UsageError, match=f"no (version|snapshot) '?{version}") as caught:
            ask()
        assert caught.value.hint


IDS = st.sampled_from("12")
SAID = st.tuples(IDS, st.sampled_from(["cat", "dog"]), st.booleans(), st.integers(0, 1))
HELD = st.dictionaries(
    IDS, st.tuples(st.integers(1, 2), st.lists(SAID, max_size=2, unique_by=lambda a: a[0]))
)


def as_task(id: str, overlap: int, said: Sequence[tuple[str, str, bool, int]]) -> Task:
    answers = [
        answer(f"{id}{n}", chosen(label), task=id, cancelled=skip, created_at=NOW + timedelta(seconds=made))
        for n, label, skip, made in said
    ]
    return task(id, *sorted(answers, key=lambda a: str(a.id)), overlap=overlap)


def facts(tasks: Sequence[Task]) -> dict[tuple[object, ...], tuple[object, ...]]:
    """What is said by everything, by its identity."""
    of_tasks = {("task", t.id, t.id, t.created_at): (t.overlap,) for t in tasks}
    of_answers = {
        ("annotation", t.id, a.id, a.created_at): (a.result, a.cancelled)
        for t in tasks
        for a in t.annotations
    }
    return {**of_tasks, **of_answers}


@settings(max_examples=25, deadline=None)
@given(st.lists(HELD, min_size=2, max_size=4), st.booleans())
def test_what_changed_between_any_two_versions(
    states: Sequence[dict[str, tuple[int, list[tuple[str, str, bool, int]]]]], compacted: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, held, before = Store(folder), [], set[str]()
        for n, state in enumerate(states):
            tasks = [as_task(id, *rest) for id, rest in state.items()]
            store.append(tasks, str(n), NOW, sorted(before - set(state)))
            before = set(state)
            held.append(facts(tasks))
        if compacted:
            store.compact(NOW)
        for old, new in product(range(len(held)), repeat=2):
            a, b = held[old], held[new]
            expected = {
                *(("added", *one) for one in b.keys() - a.keys()),
                *(("deleted", *one) for one in a.keys() - b.keys()),
                *(("changed", *one) for one in a.keys() & b.keys() if a[one] != b[one]),
            }
            rows = differences(store, old, new)
            found = [
                (
                    row["change"],
                    row["record"],
                    row["task"],
                    row["annotation"] or row["task"],
                    row["created_at"],
                )
                for row in rows.iter_rows(named=True)
            ]
            assert set(found) == expected
            assert len(found) == len(expected)
            assert set(rows["key"]) == {f"k{one[2]}" for one in expected}
