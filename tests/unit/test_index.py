"""The writer's memory against a plain dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.store.index import Index

SCHEMA = {
    "record": pl.Enum(["task", "annotation"]),
    "task": pl.String,
    "id": pl.String,
    "created_at": pl.Datetime("us", "UTC"),
    "hash": pl.UInt64,
}
AT = datetime(2026, 3, 1, tzinfo=UTC)

Row = tuple[str, str, str, datetime | None, int]


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def rows_of(task: str, hashes: Sequence[int]) -> list[Row]:
    return [("annotation" if n else "task", task, str(n), AT if n else None, h) for n, h in enumerate(hashes)]


TASKS = st.dictionaries(st.sampled_from("abcdefghij"), st.lists(st.integers(0, 9), max_size=4), max_size=4)


@settings(deadline=None)
@given(TASKS, st.lists(TASKS, max_size=12), st.sets(st.sampled_from("abcdefghijk")))
def test_it_knows_the_last_that_was_put(
    first: Mapping[str, Sequence[int]], puts: Sequence[Mapping[str, Sequence[int]]], asked: set[str]
) -> None:
    model = {task: rows_of(task, hashes) for task, hashes in first.items()}
    index = Index([frame(rows) for rows in model.values()] or [frame([])])
    for put in puts:
        new = {task: rows_of(task, hashes) for task, hashes in put.items()}
        model |= new
        index.put(list(new), frame([row for rows in new.values() for row in rows]))
    held = [row for task in sorted(asked) for row in model.get(task, [])]
    assert sorted(index.of([*asked, *asked]).rows(), key=str) == sorted(held, key=str)
    everything = [row for rows in model.values() for row in rows]
    for record in ("task", "annotation"):
        assert index.count(record) == sum(row[0] == record for row in everything)


def test_its_parts_stay_few() -> None:
    index = Index([frame([])])
    for n in range(500):
        index.put([str(n)], frame(rows_of(str(n), [1])))
    assert len(index._parts) < 12
    assert index.count("task") == 500
