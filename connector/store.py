"""The label store: every version of every annotation we have seen, in one Delta table.

Rows are only ever appended. A row says what the tool held of one task or one annotation when we looked; a
tombstone says that it is gone. The current view is the last row of each. Identity is (id, created at):
tools give the id of something deleted to something new. The pull's cursor is a row of the same commit, so
either both are there or neither is; an application transaction numbers the commits, and a commit is refused
if anybody made another since its writer looked: of two with the same idea of where they are one fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction, write_deltalake
from deltalake.exceptions import DeltaError
from polars.exceptions import PanicException, PolarsError

from connector.adapters.objects import absolute_url
from connector.errors import AuthError, Conflict, ConnectorError, Temporary, UsageError
from connector.model import Annotation, Ontology, Prediction, Task, digest, dump_json

TASK, ANNOTATION, PREDICTION = "task", "annotation", "prediction"
ONTOLOGY, CURSOR = "ontology", "cursor"

THINGS = [TASK, ANNOTATION, PREDICTION]
"""The records of what the tool holds."""

_TIME: pl.DataType = pl.Datetime("us", "UTC")

_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "record": pl.String,  # task, annotation, prediction, ontology or cursor
    "task": pl.String,
    "id": pl.String,  # the annotation's, or the task's
    "created_at": _TIME,
    "updated_at": _TIME,
    "key": pl.String,  # the item's, of a task
    "version": pl.String,  # of what the task shows
    "annotator": pl.String,  # of a prediction, the version of the model
    "score": pl.Float64,  # of a prediction
    "seconds": pl.Float64,
    "cancelled": pl.Boolean,
    "ground_truth": pl.Boolean,
    "overlap": pl.Int64,
    "content": pl.String,  # a result, the task's data, the ontology, the cursor: JSON
    "hash": pl.String,
    "deleted": pl.Boolean,
    "pull": pl.Int64,  # the number of the commit; later rows win
    "pulled_at": _TIME,
}
SCHEMA = pl.Schema(_COLUMNS)

IDENTITY = ["record", "task", "id", "created_at"]


@dataclass(frozen=True, slots=True)
class Counts:
    """What a batch changed in the store."""

    new: int = 0
    changed: int = 0
    deleted: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.new + other.new, self.changed + other.changed, self.deleted + other.deleted)

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.deleted)


@dataclass
class _Kept:
    """What a writer knows of the store: read once, and true as long as nobody else writes for its source.

    Attributes:
        version: the table's; None before there is one.
        pull: the number of the source's last commit.
        cursor: how far the pull has come with it.
        index: identity and hash of the last version of everything not deleted, in parts.
        ontology: the questions.
    """

    version: int | None
    pull: int
    cursor: str | None
    index: list[pl.DataFrame]
    ontology: Ontology | None


@dataclass
class Store:
    """A label store in a folder or a bucket.

    Args:
        url: a folder, or `s3://bucket/prefix`.
        source: which project of which tool the labels come from; it names the cursor.
        options: `endpoint`, `region`, `access_key_id`, … for a bucket.
    """

    url: str
    source: str = "default"
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.url = absolute_url(self.url)
        if self.url.startswith("file:") and re.search(r"[][^|\\]|%[0-9A-Fa-f]{2}", unquote(self.url)):
            raise UsageError(
                f"no label store can be kept in {unquote(self.url)}: its path has one of [ ] ^ | \\ or %20",
                "set store.url in connector.toml to another folder",
            )
        self._kept: _Kept | None = None

    @property
    def _storage_options(self) -> dict[str, str]:
        if not self.url.startswith("s3://"):
            return {}
        options = {f"aws_{name}": value for name, value in self.options.items()}
        # Delta's commits need "write only if absent", which S3 servers offer by ETag.
        options["aws_conditional_put"] = "etag"
        if options.get("aws_endpoint", "").startswith("http://"):
            options["aws_allow_http"] = "true"
        return options

    def _table(self, version: int | None = None) -> DeltaTable | None:
        try:
            if not DeltaTable.is_deltatable(self.url, self._storage_options):
                return None
            return DeltaTable(self.url, version=version, storage_options=self._storage_options)
        except (DeltaError, OSError) as error:
            raise self._trouble("read", error) from error

    def _trouble(self, doing: str, error: Exception) -> ConnectorError:
        # The libraries draw a chain of causes as a coloured tree; what matters stands at its end.
        said = " ".join(re.sub(r"\x1b\[\d+m|↳", "", str(error)).split())
        what = f"the label store {self.url} cannot be {doing}: {said[:400]}"
        if self.url.startswith("file:"):
            return UsageError(what, "check that folder; if a file in it is damaged, restore it from a copy")
        if isinstance(error, PermissionError) or "403 Forbidden" in said or "401 Unauthorized" in said:
            return AuthError(what, "check the storage's keys, and what they permit")
        return Temporary(what)

    @property
    def version(self) -> int | None:
        """The number that names the store's present content, or None before anything was stored."""
        table = self._table()
        return table.version() if table else None

    def rows(self, version: int | None = None) -> pl.LazyFrame:
        """Everything ever stored, lazily, in the schema `SCHEMA`.

        Args:
            version: as of that version; the newest by default.
        """
        return self._scan(self._table(version))

    def _scan(self, table: DeltaTable | None) -> pl.LazyFrame:
        # Not scan_delta: it looks for a folder `a b` under the name that it has in a URL, `a%20b`.
        files = [unquote(file) for file in table.file_uris()] if table else []
        if not files:
            return pl.LazyFrame(schema=SCHEMA)
        return pl.scan_parquet(files, glob=False, storage_options=self._storage_options or None)

    def _collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        try:
            return rows.collect()
        # A file that was cut off makes the reader panic, which is no Exception of Python's.
        except (PolarsError, PanicException, FileNotFoundError) as error:
            raise self._damaged(
                f"a file of the label store {self.url} is damaged: {str(error)[:200]}"
            ) from error
        except OSError as error:
            raise self._trouble("read", error) from error

    def _damaged(self, what: str) -> UsageError:
        return UsageError(what, "restore it from a copy, or move the store away and pull everything again")

    def current(
        self, record: str, version: int | None = None, between: tuple[str, str] | None = None
    ) -> pl.DataFrame:
        """What the tool holds as far as we know: the last version of each task or annotation not deleted.

        Args:
            record: `TASK` or `ANNOTATION`.
            version: as of that version of the store.
            between: only of tasks from this one to that one, both included, in the order of text.
        """
        rows = self.rows(version).filter(pl.col("record") == record)
        if between:
            first, last = map(pl.lit, between)
            rows = rows.filter(pl.col("task").is_between(first, last))
        return self._collect(_latest(rows).filter(~pl.col("deleted")).sort("task", "id", "created_at"))

    def tasks(self, version: int | None = None) -> Iterator[Task]:
        """The current tasks with all that is current on them, in the order of their ids."""
        answers, predictions = (
            self.current(record, version).partition_by("task", as_dict=True, maintain_order=True)
            for record in (ANNOTATION, PREDICTION)
        )
        nothing = pl.DataFrame()
        for row in self.current(TASK, version).iter_rows(named=True):
            said, guessed = (found.get((row["task"],), nothing) for found in (answers, predictions))
            yield Task(
                id=row["task"],
                key=row["key"],
                version=row["version"] or "",
                data=json.loads(row["content"]),
                overlap=row["overlap"],
                created_at=row["created_at"],
                updated_at=row["updated_at"],
                annotations=tuple(map(annotation_of, said.iter_rows(named=True))),
                predictions=tuple(map(prediction_of, guessed.iter_rows(named=True))),
            )

    def changed(self, after: int) -> tuple[list[str], int]:
        """The tasks of which something was stored after a pull, and the number of the last pull.

        Args:
            after: the number of a pull; 0 for everything.
        """
        rows = self.rows().filter(pl.col("pull") > after).select("record", "task", "pull")
        found = self._collect(rows)
        tasks = found.filter(pl.col("record").is_in(THINGS))["task"].unique().sort()
        last: int = found["pull"].max() or after  # type: ignore[assignment]
        return tasks.to_list(), last

    def history(self, tasks: Sequence[str]) -> pl.DataFrame:
        """Everything ever stored of these tasks: `SCHEMA`, pull after pull."""
        return self._collect(self.rows().filter(pl.col("task").is_in(list(tasks))).sort("pull"))

    def cursor(self) -> str | None:
        """How far the pull of our source has come."""
        return self._cursor_in(self.rows())

    def _cursor_in(self, rows: pl.LazyFrame) -> str | None:
        mine = (pl.col("record") == CURSOR) & (pl.col("id") == self.source)
        found = self._collect(rows.filter(mine).sort("pull").last())
        return str(json.loads(found["content"][0])) if len(found) else None

    def last_pull(self) -> datetime | None:
        """When the last pull was kept."""
        last = pl.col("pulled_at").sort_by("pull").last()  # not the latest time: clocks are set back
        at: datetime | None = self._collect(self.rows().select(last)).item()
        return at

    def append(
        self,
        tasks: Sequence[Task],
        cursor: str,
        at: datetime,
        deleted_tasks: Sequence[str] = (),
        ontology: Ontology | None = None,
    ) -> Counts:
        """Store what changed among these tasks, and the cursor, in one commit.

        Each task carries all its annotations: what we had of it and is not among them is deleted.

        Args:
            tasks: as pulled.
            cursor: how far the pull has come with them.
            at: when they were pulled.
            deleted_tasks: ids of tasks that are gone, with everything that was on them.
            ontology: the questions as they are now; stored where they are others than before.

        Returns:
            How many annotations are new, changed and deleted.

        Raises:
            Conflict: if somebody else pulled the same source at the same time.
        """
        seen = rows_of(tasks)
        touched = [t.id for t in tasks] + list(deleted_tasks)
        known = self._known(touched)
        joined = seen.join(known.select(*IDENTITY, old="hash"), on=IDENTITY, how="left", nulls_equal=True)
        fresh = joined.filter(pl.col("old").is_null())
        changed = joined.filter(pl.col("old") != pl.col("hash"))
        gone = known.join(seen, on=IDENTITY, how="anti", nulls_equal=True)
        rows = pl.concat(
            [
                pl.concat([fresh, changed]).drop("old"),
                gone.drop("hash").with_columns(deleted=pl.lit(True)),
                self._asked_anew(ontology),
            ],
            how="diagonal",
        )
        if len(rows) or cursor != self.cursor_kept:
            self._commit(rows, cursor, at)
        self._remember(touched, seen, ontology)
        one = pl.col("record") == ANNOTATION
        return Counts(len(fresh.filter(one)), len(changed.filter(one)), len(gone.filter(one)))

    def _asked_anew(self, ontology: Ontology | None) -> pl.DataFrame:
        """The row of an ontology that is not the one we have."""
        if ontology is None or ontology == self._known_state().ontology:
            return pl.DataFrame(schema={"record": pl.String})
        row = {"record": ONTOLOGY, "id": "ontology", "hash": ontology.version, "deleted": False}
        return pl.DataFrame([{**row, "content": ontology.model_dump_json()}])

    def ontology(self, version: int | None = None) -> Ontology | None:
        """The questions as of the last pull; None before one that told them."""
        return self._ontology_in(self.rows(version))

    def _ontology_in(self, rows: pl.LazyFrame) -> Ontology | None:
        found = self._collect(rows.filter(pl.col("record") == ONTOLOGY).sort("pull").last())
        return Ontology.model_validate_json(found["content"][0]) if len(found) else None

    def count(self, record: str) -> int:
        """How many tasks, annotations or predictions the tool holds as far as we know."""
        return sum(int((part["record"] == record).sum()) for part in self._known_state().index)

    @property
    def cursor_kept(self) -> str | None:
        """The cursor as this process last read or wrote it."""
        return self._known_state().cursor

    def _known_state(self) -> _Kept:
        if self._kept is None:
            table = self._table()
            rows = self._scan(table)
            pull = self._last_pull_number(table)
            self._check(rows, pull)
            things = rows.filter(pl.col("record").is_in(THINGS))
            index = self._collect(_latest(things).filter(~pl.col("deleted")).select(*IDENTITY, "hash"))
            version = table.version() if table else None
            self._kept = _Kept(version, pull, self._cursor_in(rows), [index], self._ontology_in(rows))
        return self._kept

    def _check(self, rows: pl.LazyFrame, pull: int) -> None:
        """That the store is our source's, and all its commits are there."""
        cursors = self._collect(rows.filter(pl.col("record") == CURSOR).select("id"))["id"]
        others = sorted(set(cursors) - {self.source})
        if others:
            raise UsageError(
                f"the label store {self.url} holds the labels of {others[0]}, and this is {self.source}",
                "give each project a store of its own: set store.url in connector.toml",
            )
        # A log file that became empty reads as a commit of nothing, and the pull would go on behind it.
        if len(cursors) != pull:
            raise self._damaged(f"the label store {self.url} holds {len(cursors)} of {pull} commits")

    def _last_pull_number(self, table: DeltaTable | None) -> int:
        return (table.transaction_version(self.source) or 0) if table else 0

    def _commit(self, rows: pl.DataFrame, cursor: str, at: datetime) -> None:
        kept, table = self._known_state(), self._table()
        conflict = Conflict(
            f"another process wrote to the label store {self.url} at the same time",
            "run one pull at a time; run this one again",
        )
        if (table.version() if table else None) != kept.version:
            raise conflict
        pull = kept.pull + 1
        mark = pl.DataFrame(
            [{"record": CURSOR, "id": self.source, "content": dump_json(cursor), "deleted": False}]
        )
        filled = (
            pl.concat([pl.DataFrame(schema=SCHEMA), rows, mark], how="diagonal")
            .with_columns(
                pull=pl.lit(pull, pl.Int64),
                pulled_at=pl.lit(at, _TIME),
                deleted=pl.col("deleted").fill_null(False),
            )
            .select(SCHEMA.names())
            .cast(SCHEMA)
        )
        # No retries: of two that make the table at once, the later would be added to it as a second commit.
        properties = CommitProperties(app_transactions=[Transaction(self.source, pull)], max_commit_retries=0)
        try:
            write_deltalake(
                table or self.url,
                filled,
                mode="append" if table else "error",
                commit_properties=properties,
                # Old logs are what old versions are read from; by default they go after a month.
                post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
                storage_options=self._storage_options or None,
            )
        except (DeltaError, OSError) as error:
            if self.version != kept.version:
                raise conflict from error
            raise self._trouble("written", error) from error
        kept.version = 0 if kept.version is None else kept.version + 1
        kept.pull, kept.cursor = pull, cursor

    def _known(self, tasks: Sequence[str]) -> pl.DataFrame:
        """The last version of what we have of these tasks: identity and hash."""
        wanted = pl.DataFrame({"task": list(tasks)}, schema={"task": pl.String}).unique()
        return pl.concat(part.join(wanted, on="task", how="semi") for part in self._known_state().index)

    def _remember(self, tasks: Sequence[str], seen: pl.DataFrame, ontology: Ontology | None) -> None:
        kept = self._known_state()
        kept.ontology = ontology or kept.ontology
        again = pl.DataFrame({"task": list(tasks)}, schema={"task": pl.String}).unique()
        others = [part.join(again, on="task", how="anti") for part in kept.index]
        kept.index = [*(part for part in others if len(part)), seen.select(*IDENTITY, "hash")]
        if len(kept.index) > 64:
            kept.index = [pl.concat(kept.index)]


def _latest(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.sort("pull").unique(IDENTITY, keep="last", maintain_order=True)


def rows_of(tasks: Sequence[Task]) -> pl.DataFrame:
    # The same task may come twice on a page; the later reading counts.
    latest = {task.id: task for task in tasks}
    rows = [
        row
        for task in latest.values()
        for row in (
            _task_row(task),
            *map(_annotation_row, task.annotations),
            *map(_prediction_row, task.predictions),
        )
    ]
    return pl.DataFrame(
        rows, schema={name: SCHEMA[name] for name in SCHEMA if name not in ("pull", "pulled_at")}
    )


def _task_row(task: Task) -> dict[str, object]:
    content = dump_json(task.data)
    return {
        "record": TASK,
        "task": task.id,
        "id": task.id,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        "key": task.key,
        "version": task.version,
        "overlap": task.overlap,
        "content": content,
        "hash": digest([task.overlap, task.key, task.version, content]),
        "deleted": False,
    }


def _annotation_row(annotation: Annotation) -> dict[str, object]:
    return {
        "record": ANNOTATION,
        "task": annotation.task_id,
        "id": annotation.id,
        "created_at": annotation.created_at,
        "updated_at": annotation.updated_at,
        "annotator": annotation.annotator,
        "seconds": annotation.seconds,
        "cancelled": annotation.cancelled,
        "ground_truth": annotation.ground_truth,
        "content": annotation.result,
        "hash": annotation.revision,
        "deleted": False,
    }


def _prediction_row(prediction: Prediction) -> dict[str, object]:
    return {
        "record": PREDICTION,
        "task": prediction.task_id,
        "id": prediction.id,
        "created_at": prediction.created_at,
        "updated_at": prediction.updated_at,
        "annotator": prediction.model_version,
        "score": prediction.score,
        "content": prediction.result,
        "hash": digest([prediction.model_version, prediction.score, prediction.result]),
        "deleted": False,
    }


def prediction_of(row: Mapping[str, object]) -> Prediction:
    """The prediction of a row of the store."""
    return Prediction.model_validate(
        {
            "id": row["id"],
            "task_id": row["task"],
            "result": row["content"],
            "model_version": row["annotator"],
            "score": row["score"],
            "created_at": row["created_at"],
            "updated_at": row["updated_at"],
        }
    )


def annotation_of(row: Mapping[str, object]) -> Annotation:
    """The annotation of a row of the store."""
    return Annotation.model_validate(
        {
            "id": row["id"],
            "task_id": row["task"],
            "annotator": row["annotator"],
            "result": row["content"],
            "cancelled": row["cancelled"],
            "ground_truth": row["ground_truth"],
            "seconds": row["seconds"],
            "created_at": row["created_at"],
            "updated_at": row["updated_at"],
        }
    )
