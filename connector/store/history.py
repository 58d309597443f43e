"""Looking back: what the label store held at a version, and what changed between two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
from polars.exceptions import PolarsError

from connector.regions import KINDS
from connector.regions.answers import SEPARATOR
from connector.store.index import IDENTITY
from connector.store.label_store import ANNOTATION, PREDICTION, TASK, THINGS, Store, Version, latest

_PART = 100_000
"""So many results are read at once."""

_ANSWERS = ["choices", "taxonomy", "rating", "selected", "labels"]
_ANSWERS += [name for name in KINDS if name.endswith("labels")]
_VALUE = pl.Struct({name: pl.List(pl.List(pl.String)) for name in _ANSWERS})
_RESULT = pl.List(pl.Struct({"from_name": pl.String, "value": _VALUE}))
"""A result, as far as labels stand in it. What is no list becomes a list of one."""

_SAID = ["key", "version", "overlap", "annotator", "score", "cancelled", "ground_truth", "content"]
"""What makes two versions of a row say something else. Saving an answer again changes its time only."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What the store held.

    Attributes:
        tasks: how many.
        predictions: how many.
        annotators: annotator, annotations, skipped.
        labels: control, label, count; the label is null for what was drawn or answered without one.
        unread: annotations whose result is not in Label Studio's form.
    """

    tasks: int
    predictions: int
    annotators: pl.DataFrame
    labels: pl.DataFrame
    unread: int


def contents(store: Store, version: Version | None = None) -> Contents:
    """What the store held at a version; by default what it holds now.

    Raises:
        UsageError: if there is no such version or snapshot.
    """
    rows = store.rows(version)

    def current(record: str) -> pl.LazyFrame:
        return latest(rows.filter(pl.col("record") == record)).filter(~pl.col("deleted"))

    tasks, predictions = (
        store.collect(current(record).select(pl.len())).item() for record in (TASK, PREDICTION)
    )
    answers = store.collect(current(ANNOTATION).select("annotator", "cancelled", "content"))
    annotators = answers.group_by("annotator").agg(
        annotations=(~pl.col("cancelled")).sum(), skipped=pl.col("cancelled").sum()
    )
    given = answers.filter(~pl.col("cancelled"))["content"]
    read = [part for start in range(0, len(given), _PART) for part in _read(given[start : start + _PART])]
    labels = pl.concat([pl.DataFrame(schema=_LABELS), *map(_labels, read)])
    return Contents(
        tasks,
        predictions,
        annotators.sort("annotator"),
        labels.group_by("control", "label").agg(pl.col("count").sum()).sort("control", "label"),
        len(given) - sum(map(len, read)),
    )


_LABELS = {"control": pl.String, "label": pl.String, "count": pl.Int64}


def _read(results: pl.Series) -> Iterator[pl.Series]:
    """The results that can be read. One that cannot fails all, so the culprit is found by halving."""
    try:
        yield results.str.json_decode(_RESULT)
    except PolarsError:
        if len(results) > 1:
            middle = len(results) // 2
            yield from _read(results[:middle])
            yield from _read(results[middle:])


def _labels(results: pl.Series) -> pl.DataFrame:
    """How often each label was given."""
    regions = results.explode(empty_as_null=False).drop_nulls().struct.unnest()
    given = pl.coalesce(pl.col("value").struct.field(name) for name in _ANSWERS)
    return (
        regions.select(control="from_name", label=given)
        .drop_nulls("control")
        .explode("label")
        .with_columns(pl.col("label").list.join(SEPARATOR))
        .group_by("control", "label")
        .agg(count=pl.len().cast(pl.Int64))
    )


def differences(store: Store, old: Version, new: Version) -> pl.DataFrame:
    """What has to change to come from one version of the store to another, earlier or later.

    Returns:
        change (`added`, `changed`, `deleted`), record (`task`, `annotation`, `prediction`), task, key,
        annotation, prediction, annotator (of a prediction, the model), created_at, and the values before and
        after: content (as `before`, `after`), cancelled, ground_truth, overlap, version, score.

    Raises:
        UsageError: if there is no such version or snapshot.
    """
    low, high = store.pull_of(old), store.pull_of(new)
    things = store.rows().filter(pl.col("record").is_in(THINGS))
    between = (pl.col("pull") > min(low, high)) & (pl.col("pull") <= max(low, high))
    touched = things.filter(between).select(IDENTITY).unique()
    rows = things.join(touched, on=IDENTITY, how="semi", nulls_equal=True)

    def as_of(pull: int) -> pl.LazyFrame:
        held = latest(rows.filter(pl.col("pull") <= pull)).filter(~pl.col("deleted"))
        return held.select(*IDENTITY, *_SAID, there=True)

    both = as_of(low).join(
        as_of(high), on=IDENTITY, how="full", coalesce=True, nulls_equal=True, suffix="_after"
    )
    changed = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_after")) for name in _SAID)
    change = (
        pl.when(pl.col("there").is_null())
        .then(pl.lit("added"))
        .when(pl.col("there_after").is_null())
        .then(pl.lit("deleted"))
        .when(changed)
        .then(pl.lit("changed"))
    )
    tasks = things.filter(pl.col("record") == TASK, pl.col("pull") <= max(low, high))
    # A tombstone has no key.
    keys = tasks.drop_nulls("key").group_by("task").agg(key_of_task=pl.col("key").sort_by("pull").last())
    found = (
        both.with_columns(change=change)
        .drop_nulls("change")
        .join(keys, on="task", how="left")
        .select(
            "change",
            "record",
            "task",
            key=pl.coalesce("key_after", "key", "key_of_task"),
            annotation=pl.when(pl.col("record") == ANNOTATION).then("id"),
            prediction=pl.when(pl.col("record") == PREDICTION).then("id"),
            annotator=pl.coalesce("annotator_after", "annotator"),
            created_at="created_at",
            before="content",
            after="content_after",
            **{
                f"{name}_{when}": f"{name}{suffix}"
                for name in ("cancelled", "ground_truth", "overlap", "version", "score")
                for when, suffix in (("before", ""), ("after", "_after"))
            },
        )
    )
    return store.collect(found.sort("record", "task", "annotation", "prediction", "created_at"))
