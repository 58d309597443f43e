"""Whether bucket, tool and store agree, item by item."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import polars as pl

from connector.adapters.base import LabelingTool, batches
from connector.errors import Reject
from connector.store.index import IDENTITY
from connector.store.label_store import THINGS, Store, rows_of
from connector.sync.items import Listed, Source
from connector.sync.ledger import KnownReject, Ledger

AT_ONCE = 10_000


class Difference(StrEnum):
    """What can be amiss with an item."""

    NO_TASK = "no task"
    DOUBLE = "two tasks"
    UNEXPLAINED = "no item"
    CHANGED = "raw data changed"
    GONE = "raw data gone"
    NOT_IN_STORE = "not in store"
    NOT_IN_TOOL = "not in tool"
    STALE = "store is stale"


_OF_REJECTS = [
    str(what) for what in (Difference.NO_TASK, Difference.DOUBLE, Difference.CHANGED, Difference.GONE)
]
"""The differences that a reject explains."""

ROWS = pl.Schema({"key": pl.String, "task": pl.String, "what": pl.String, "detail": pl.String})


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What each holds, and where they differ.

    Attributes:
        items, tasks, annotations: of the bucket, of the tool.
        differences: schema `ROWS`, sorted; without those that a reject explains.
        rejects: what is no item, or has no task because the last push rejected it.
    """

    items: int
    tasks: int
    annotations: int
    differences: pl.DataFrame
    rejects: list[KnownReject]

    @property
    def counted(self) -> list[Reject]:
        """The rejects that no user has accepted."""
        return [one.reject for one in self.rejects if not one.accepted]

    @property
    def agree(self) -> bool:
        """Whether nothing differs and nothing is rejected, apart from what users have accepted."""
        return self.differences.is_empty() and not self.counted


def reconcile(
    tool: LabelingTool,
    store: Store,
    source: Source,
    progress: Callable[[int], None] = lambda _: None,
    rejects: Sequence[Reject] = (),
    ledger: Ledger | None = None,
) -> Reconciled:
    """Compare what is listed, what the tool holds and what the store holds.

    Everything in the tool is read; people who label meanwhile show as stale.

    Args:
        progress: called with the number of items of every page and batch.
        rejects: where `source` reports what is no item.
        ledger: what the last push rejected, and users accepted; without it nothing is known.
    """
    ours = pl.concat([store.current(record).select(*IDENTITY, "key", "version", "hash") for record in THINGS])
    theirs = _held(tool, progress)
    tasks = theirs.filter(pl.col("record") == "task").select("key", "task", "version")
    listed = _listed(source, progress)
    found = [
        *_of_store(ours, theirs),
        _rows(listed.join(tasks, on="key", how="anti"), Difference.NO_TASK),
        _rows(tasks.filter(pl.col("key").is_duplicated()), Difference.DOUBLE),
        *_keyless(tool, theirs),
        _rows(_changed(listed, tasks), Difference.CHANGED),
        _rows(_gone(listed, tasks, source), Difference.GONE),
    ]
    differences = pl.concat([pl.DataFrame(schema=ROWS), *found]).sort(pl.all())
    of_listing = set(rejects)
    known = _known(of_listing, source, ledger, listed)
    explains = pl.col("what").is_in(_OF_REJECTS) & pl.col("key").is_in([one.key for one in known])
    explained = set(differences.filter(explains)["key"])
    differences = differences.filter(~explains)
    known = [one for one in known if one.key in explained or one.reject in of_listing]
    answers = int((theirs["record"] == "annotation").sum())
    return Reconciled(len(listed), len(tasks), answers, differences, known)


def _known(
    rejects: Collection[Reject], source: Source, ledger: Ledger | None, listed: pl.DataFrame
) -> list[KnownReject]:
    """The rejects of the listing, and those of the last push that may still apply."""
    if ledger is None:
        return [KnownReject(one.where, one.why, one.version, source.manifest) for one in rejects]
    keys = [one.key for one in ledger.rejects()]
    versions = dict(listed.filter(pl.col("key").is_in(keys)).iter_rows())
    return ledger.present(list(rejects), source.manifest, versions)


def _held(tool: LabelingTool, progress: Callable[[int], None]) -> pl.DataFrame:
    """What the tool holds, each thing once, as rows of the store."""

    task_data = pl.when(pl.col("record") == "task").then("content").alias("content")

    def pages() -> Iterator[pl.DataFrame]:
        columns: list[str | pl.Expr] = [*IDENTITY, "key", "version", "hash", task_data]
        yield rows_of([]).select(*columns).with_columns(page=pl.lit(0))
        for number, page in enumerate(tool.changed_tasks(None)):
            progress(len(page.tasks))
            yield rows_of(page.tasks).select(*columns).with_columns(page=pl.lit(number))

    # A task that changed while we read comes twice: the later reading counts, with all that is on it.
    last = pl.col("page") == pl.col("page").max().over("task")
    return pl.concat(pages()).filter(last).drop("page")


def _listed(source: Source, progress: Callable[[int], None]) -> pl.DataFrame:
    schema = {"key": pl.String, "version": pl.String}

    def frames() -> Iterator[pl.DataFrame]:
        batch: list[Listed]
        for batch in batches(source, AT_ONCE):
            progress(len(batch))
            yield pl.DataFrame([(one.key, one.version) for one in batch], schema=schema, orient="row")

    return pl.concat([pl.DataFrame(schema=schema), *frames()])


def _of_store(ours: pl.DataFrame, theirs: pl.DataFrame) -> Iterator[pl.DataFrame]:
    missing = theirs.join(ours, on=IDENTITY, how="anti", nulls_equal=True)
    left = ours.join(theirs, on=IDENTITY, how="anti", nulls_equal=True)
    both = theirs.join(ours.select(*IDENTITY, old="hash"), on=IDENTITY, nulls_equal=True)
    stale = both.filter(pl.col("old") != pl.col("hash"))
    parts = ((missing, Difference.NOT_IN_STORE), (left, Difference.NOT_IN_TOOL), (stale, Difference.STALE))
    for rows, what in parts:
        detail = pl.format("{} {}", "record", "id")
        yield _rows(rows.with_columns(detail=detail), what)


def _keyless(tool: LabelingTool, theirs: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Tasks that no push made: those that refer to the object of another task, and the rest."""
    tasks = theirs.filter(pl.col("record") == "task")
    keyless = tasks.filter(pl.col("key") == pl.format("task:{}", "task"))
    if keyless.is_empty():
        return
    objects = {
        task: tool.objects_in(json.loads(content))
        for task, content in tasks.select("task", "content").iter_rows()
    }
    tasks_of: dict[str, set[str]] = {}
    for task, urls in objects.items():
        for url in urls:
            tasks_of.setdefault(url, set()).add(task)
    imported, task_of_key = tool.imported_from(), dict(tasks.select("key", "task").iter_rows())
    for row in keyless.select("key", "task").iter_rows(named=True):
        task = row["task"]
        others = {other for url in objects[task] for other in tasks_of[url]} - {task}
        if imported.get(task) in task_of_key:
            others.add(task_of_key[imported[task]])
        what = Difference.DOUBLE if others else Difference.UNEXPLAINED
        detail = f"its object is that of task {', '.join(sorted(others))}" if others else ""
        yield _rows(pl.DataFrame([{**row, "detail": detail}]), what)


def _changed(listed: pl.DataFrame, tasks: pl.DataFrame) -> pl.DataFrame:
    both = listed.join(tasks, on="key", suffix="_task")
    told = (pl.col("version") != "") & (pl.col("version_task") != "")
    changed = both.filter(told & (pl.col("version") != pl.col("version_task")))
    return changed.with_columns(detail=pl.format("{} instead of {}", "version", "version_task"))


def _gone(listed: pl.DataFrame, tasks: pl.DataFrame, source: Source) -> pl.DataFrame:
    unseen = tasks.join(listed, on="key", how="anti")
    return unseen.filter(pl.Series([source.holds(key) for key in unseen["key"]], dtype=pl.Boolean))


def _rows(rows: pl.DataFrame, what: Difference) -> pl.DataFrame:
    absent = [pl.lit("").alias(name) for name in ("task", "detail") if name not in rows.columns]
    return rows.with_columns(pl.lit(str(what)).alias("what"), *absent).select(ROWS.names()).cast(ROWS)
