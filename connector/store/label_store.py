"""The label store: every version of every annotation we have seen, in one Delta table.

Rows are only ever appended. A row says what the tool held of one task or one annotation when we looked; a
tombstone says that it is gone. The current view is the last row of each. Identity is (id, created at):
tools give the id of something deleted to something new. The pull's cursor is a row of the same commit, so
either both are there or neither is.

Commits with rows are numbered, and each row bears the number of its commit. So what the store held at a
version is all rows up to a number, wherever they lie by now: no merging and no deletion of files loses it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable, Transaction
from pydantic import ValidationError

from connector.errors import BadRecord, UsageError
from connector.io.objects import absolute_url
from connector.io.retry import LEASE_SECONDS
from connector.journal.journal import Journal, Mark, journal_of
from connector.journal.renames import Renames, renamed
from connector.model import UNKNOWN, Annotation, Ontology, Prediction, Task, digest, dump_json
from connector.store.delta import Commit, Compacted, Seen, Table, Vacuumed
from connector.store.index import IDENTITY, Index
from connector.store.lease import Lease

TASK, ANNOTATION, PREDICTION = "task", "annotation", "prediction"
ONTOLOGY, CURSOR, SNAPSHOT, RENAMING = "ontology", "cursor", "snapshot", "renaming"

THINGS = [TASK, ANNOTATION, PREDICTION]
"""The records of what the tool holds."""

Version = int | str
"""The number of a version, or the name of a snapshot."""

WAIT_SECONDS = 1.5 * LEASE_SECONDS
"""Long enough to see that a holder on another machine is dead."""

INDEXED_AT_ONCE = 1 << 18
"""So many rows are looked through at once for what is known: it takes several times their memory."""

LEAST_DAYS = 7.0
"""Who reads the store may be at work on old files for so long."""

_NUMBERED = ("pull", "snapshot")
"""The kinds of commits that have rows, and note how far the journal of corrections was read."""

_JOURNAL = "journal"

_TIME: pl.DataType = pl.Datetime("us", "UTC")

_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "record": pl.String,  # task, annotation, prediction, ontology, cursor, snapshot or renaming
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
    "content": pl.String,  # a result, the task's data, the ontology, the cursor, …: JSON
    "hash": pl.String,
    "deleted": pl.Boolean,
    "plan": pl.String,  # that wrote this version of an annotation; null where its annotator did
    "pull": pl.Int64,  # the number of the commit; later rows win
    "pulled_at": _TIME,
}
SCHEMA = pl.Schema(_COLUMNS)


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


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A version with a name.

    Attributes:
        pull: the number of its last commit with rows.
        at: when it was named.
    """

    name: str
    version: int
    pull: int
    at: datetime


@dataclass
class _Kept:
    """What a writer knows of the store: read once, and true as long as nobody else writes.

    Attributes:
        seen: the table that it was read from.
        pull: the number of the last commit with rows.
        cursor: how far the pull has come with it.
        ontology: the questions.
        journal: how far the journal of corrections was read for it; None if that was not noted.
        renamings: the runs whose renames hold; read when they are needed.
        index: the last version of everything; read when it is needed.
    """

    seen: Seen
    pull: int
    cursor: str | None
    ontology: Ontology | None
    journal: Mark | None
    renamings: set[str] | None = None
    index: Index | None = None


@dataclass(frozen=True, slots=True)
class _Renaming:
    """Labels that a run of corrections renamed.

    Attributes:
        pull: the number of the commit that it was first known in: answers of earlier ones were given before.
        limited: whether it renamed them only in what it wrote.
        holds: false if the run was undone.
    """

    run: str
    names: Renames
    pull: int
    limited: bool
    holds: bool


@dataclass
class Store:
    """A label store in a folder or a bucket.

    The journal of corrections lies beside it (see `journal_of`), under the same options. Whatever is stored
    is looked up there, so a correction is never taken for its annotator's own answer, whoever pulls.

    Args:
        url: a folder, or `s3://bucket/prefix`.
        source: which project of which tool the labels come from; it names the cursor.
        options: `endpoint`, `region`, `access_key_id`, … for a bucket.
        say: told who is waited for.
    """

    url: str
    source: str = "default"
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    say: Callable[[str], None] = field(default=lambda _: None, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.url = absolute_url(self.url)
        if self.url.startswith("file:") and re.search(r"[][^|\\]|%[0-9A-Fa-f]{2}", unquote(self.url)):
            raise UsageError(
                f"no label store can be kept in {unquote(self.url)}: its path has one of [ ] ^ | \\ or %20",
                "set store.url in connector.toml to another folder",
            )
        self._table = Table(self.url, SCHEMA, "pull", self.options, self.say)
        self._kept: _Kept | None = None
        self._journal = Journal(journal_of(self.url), self.options)

    # Reading.

    @property
    def version(self) -> int | None:
        """The number that names the store's present content, or None before anything was stored."""
        table = self._table.open()
        return table.version() if table else None

    def rows(self, version: Version | None = None) -> pl.LazyFrame:
        """Everything ever stored, lazily, in the schema `SCHEMA`.

        Args:
            version: as of that version; the newest by default.

        Raises:
            UsageError: if there is no such version or snapshot.
        """
        rows = self._table.scan(self._table.open())
        return rows if version is None else rows.filter(pl.col("pull") <= self.pull_of(version))

    def pull_of(self, version: Version) -> int:
        """The number of a version's last commit with rows."""
        if isinstance(version, str):
            return self.snapshot(version).pull
        table = self._table.open(version)
        if table is None:
            raise UsageError(f"the label store {self.url} is empty", "run `connector pull`")
        # The log tells what numbers are in each file.
        highest = pl.DataFrame(table.get_add_actions(flatten=True)).select(pl.col("^max.pull$").max())
        return int(highest.item() or 0) if highest.width else 0

    def number_of(self, version: Version) -> int:
        """The number of a version that may be given by the name of its snapshot."""
        return version if isinstance(version, int) else self.snapshot(version).version

    def current(
        self,
        record: str,
        version: Version | None = None,
        between: tuple[str, str] | None = None,
        columns: Sequence[str] = (),
    ) -> pl.DataFrame:
        """What the tool holds as far as we know: the last version of each task or annotation not deleted.

        Args:
            record: `TASK` or `ANNOTATION`.
            version: as of that version of the store.
            between: only of tasks from this one to that one, both included, in the order of text.
            columns: only these.

        Returns:
            Rows in the schema `SCHEMA`, by task, id and time.
        """
        rows = self._rows_of(record, version, between)
        held = latest(rows).filter(~pl.col("deleted"))
        return self._table.collect(held.select(columns) if columns else held)

    def _rows_of(self, record: str, version: Version | None, between: tuple[str, str] | None) -> pl.LazyFrame:
        rows = self.rows(version).filter(pl.col("record") == record)
        if between is None:
            return rows
        first, last = map(pl.lit, between)
        return rows.filter(pl.col("task").is_between(first, last))

    def answers(self, version: Version | None = None, between: tuple[str, str] | None = None) -> pl.DataFrame:
        """The current annotations, each as its annotator left it: the last version that no plan wrote.

        Labels that a plan has renamed since have their new names.

        Args: as of `current`.

        Returns:
            Rows in the schema `SCHEMA`, by task, id and time; `plan` is that of the version that the tool
            holds, where it says something else. In `own`, false for an annotation that only plans wrote.
        """
        rows = self._rows_of(ANNOTATION, version, between)
        held = self._table.collect(latest(rows).filter(~pl.col("deleted")))
        if held["plan"].is_null().all():
            return held.with_columns(own=pl.lit(True))
        left = self._table.collect(latest(rows.filter(pl.col("plan").is_null(), ~pl.col("deleted"))))
        said = held.select(*IDENTITY, "plan", "cancelled", "content")
        own = left.drop("plan").join(said, on=IDENTITY, nulls_equal=True, suffix="_held")
        if renamings := self._renamings(version):
            plans = pl.col("record").eq(ANNOTATION) & pl.col("plan").is_in(list(renamings))
            written = self._table.collect(rows.filter(plans).select(*IDENTITY, "plan", "pull"))
            own = _with_renames(own, written, renamings)
            # What was only renamed is still what its annotator said.
            same = pl.all_horizontal(
                pl.col(n).eq_missing(pl.col(f"{n}_held")) for n in ("content", "cancelled")
            )
            own = own.with_columns(plan=pl.when(~same).then("plan"))
        own = own.drop("content_held", "cancelled_held")
        ours = held.join(left, on=IDENTITY, how="anti", nulls_equal=True)
        both = [own.with_columns(own=pl.lit(True)), ours.with_columns(own=pl.lit(False))]
        return pl.concat(both, how="diagonal").select(*held.columns, "own").sort(IDENTITY)

    def collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """Read what `rows` gave.

        Raises:
            UsageError: if a file of the store is damaged.
            AuthError: if the bucket does not let us in.
            Temporary: if it does not answer.
        """
        return self._table.collect(rows)

    def tasks(self, version: Version | None = None) -> Iterator[Task]:
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
            after: the number of a pull; 0 for everything. It may be higher than the last one, where the
                store was restored from a copy.
        """
        table = self._table.open()
        last = (table.transaction_version(self.source) or 0) if table else 0
        if last <= after:
            return [], last
        new = self._table.scan(table).filter(pl.col("pull") > after, pl.col("record").is_in(THINGS))
        return self.collect(new.select("task").unique())["task"].sort().to_list(), last

    def history(self, tasks: Sequence[str]) -> pl.DataFrame:
        """Everything ever stored of these tasks: `SCHEMA`, pull after pull.

        In annotators' answers that the tool does not hold any more, labels that a plan has renamed since have
        their new names.
        """
        rows = self.collect(self.rows().filter(pl.col("task").is_in(list(tasks))).sort("pull"))
        renamings = self._renamings(None)
        if not renamings:
            return rows
        rows = rows.with_row_index("row")
        held = pl.col("plan").last().over(IDENTITY, order_by="pull")
        last = pl.col("pull").max().over(IDENTITY)
        past = (pl.col("record") == ANNOTATION) & pl.col("plan").is_null() & (pl.col("pull") < last)
        own = rows.with_columns(held=held, past=past).filter("past").with_columns(plan="held")
        read = _with_renames(own, rows.filter(pl.col("plan").is_in(list(renamings))), renamings)
        return rows.update(read.select("row", "content"), on="row").drop("row")

    def _renamings(self, version: Version | None) -> dict[str, _Renaming]:
        """The labels that corrections had renamed at a version, by their runs, the first one first."""
        rows = self.rows(version).filter(pl.col("record") == RENAMING).sort("pull")
        found: dict[str, _Renaming] = {}
        for row in self._table.collect(rows).iter_rows(named=True):
            known, told = found.get(row["id"]), json.loads(row["content"])
            pull = known.pull if known and row["deleted"] else row["pull"]
            found[row["id"]] = _Renaming(row["id"], told["names"], pull, told["limited"], not row["deleted"])
        return found

    def cursor(self) -> str | None:
        """How far the pull of our source has come."""
        return self._cursor_in(self.rows())

    def _cursor_in(self, rows: pl.LazyFrame) -> str | None:
        found = self._last(rows.filter(pl.col("id") == self.source), CURSOR)
        return str(json.loads(found["content"][0])) if len(found) else None

    def _last(self, rows: pl.LazyFrame, record: str) -> pl.DataFrame:
        """The newest row of a kind, if there is one."""
        return self._table.collect(rows.filter(pl.col("record") == record).sort("pull").last())

    def last_pull(self) -> datetime | None:
        """When the last pull was kept."""
        found = self._last(self.rows(), CURSOR)  # not the latest time: clocks are set back
        at: datetime | None = found["pulled_at"][0] if len(found) else None
        return at

    def ontology(self, version: Version | None = None) -> Ontology | None:
        """The questions as of the last pull; None before one that told them."""
        return self._ontology_in(self.rows(version))

    def _ontology_in(self, rows: pl.LazyFrame) -> Ontology | None:
        found = self._last(rows, ONTOLOGY)
        return Ontology.model_validate_json(found["content"][0]) if len(found) else None

    def commits(self) -> list[Commit]:
        """What the store's log tells of every version, the newest first."""
        table = self._table.open()
        return self._table.commits(table) if table else []

    def confirm(self, journal: Journal) -> None:
        """Compare the journal of corrections with what this store noted of it, up to the last pull.

        Args:
            journal: the one beside this store.

        Raises:
            UsageError: if it is missing or shorter than it was, or was rewritten.
        """
        table = self._table.open()
        rows, read = self._table.scan(table), self._journal_read(table)
        of_runs = pl.when(pl.col("record") == RENAMING).then("id").otherwise("plan")
        runs = self._table.collect(rows.select(run=of_runs).drop_nulls().unique())
        journal.confirm(read, runs["run"])

    def _journal_read(self, table: DeltaTable | None) -> Mark | None:
        """How far the journal was read for the newest commit with rows."""
        newest = table and self._table.newest(table, lambda commit: commit.kind in _NUMBERED)
        try:
            return Mark.model_validate(newest.told[_JOURNAL]) if newest and _JOURNAL in newest.told else None
        except ValidationError as error:
            raise self._table.damaged(
                f"the log of the label store {self.url} is damaged: version {newest and newest.version} does "
                "not say how far the journal of corrections was read"
            ) from error

    # Writing.

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
            Conflict: if somebody else wrote since this writer looked; `Overtaken` if it has not yet written.
            Temporary: if somebody else has the lease.
        """
        seen = self._with_names(rows_of(tasks))
        touched = [t.id for t in tasks] + list(deleted_tasks)
        known = self._index().of(touched).cast({"record": pl.String})
        joined = seen.join(known.rename({"hash": "old"}), on=IDENTITY, how="left", nulls_equal=True)
        fresh = joined.filter(pl.col("old").is_null())
        changed = joined.filter(pl.col("old") != _short(pl.col("hash")))
        gone = known.join(seen, on=IDENTITY, how="anti", nulls_equal=True)
        rows = pl.concat(
            [
                self._with_plans(pl.concat([fresh, changed]).drop("old")),
                gone.drop("hash").with_columns(deleted=pl.lit(True)),
                self._asked_anew(ontology),
                anew := self._renamed_anew(any(ANNOTATION in part["record"] for part in (fresh, changed))),
            ],
            how="diagonal",
        )
        counts = {
            record: Counts(*(len(part.filter(pl.col("record") == record)) for part in (fresh, changed, gone)))
            for record in THINGS
        }
        if len(rows) or cursor != self.cursor_kept:
            told = {f"{record}s": asdict(n) for record, n in counts.items()}
            mark = {"record": CURSOR, "id": self.source, "content": dump_json(cursor)}
            self._commit(pl.concat([rows, pl.DataFrame([mark])], how="diagonal"), "pull", at, told)
        kept = self._known_state()
        kept.cursor, kept.ontology = cursor, ontology or kept.ontology
        if kept.renamings is not None:
            for run, gone in anew.select("id", "deleted").iter_rows():
                (kept.renamings.discard if gone else kept.renamings.add)(run)
        self._index().put(touched, _indexed(seen))
        return counts[ANNOTATION]

    def _with_names(self, seen: pl.DataFrame) -> pl.DataFrame:
        """The rows, with the names that the tool lost when accounts were deleted, as far as we knew them.

        The hash stays that of what the tool holds.
        """
        lost = seen.filter(pl.col("record") == ANNOTATION, pl.col("annotator") == UNKNOWN)
        if lost.is_empty():
            return seen
        before = self.rows().filter(
            pl.col("record") == ANNOTATION,
            pl.col("id").is_in(lost["id"].to_list()),
            pl.col("annotator") != UNKNOWN,
        )
        names = self.collect(before.sort("pull").select(*IDENTITY, known="annotator"))
        names = names.unique(IDENTITY, keep="last", maintain_order=True)
        joined = seen.join(names, on=IDENTITY, how="left", nulls_equal=True, maintain_order="left")
        known = pl.when(pl.col("annotator") == UNKNOWN).then("known")
        return joined.with_columns(pl.coalesce(known, "annotator").alias("annotator")).drop("known")

    def _with_plans(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows, and which plan wrote them."""
        is_answer = rows["record"] == ANNOTATION
        if not is_answer.any():
            return rows
        plan_of = self._journal.plans().of
        plans = [
            plan_of(task, id, revision) if one else None
            for one, task, id, revision in zip(is_answer, *rows["task", "id", "hash"], strict=True)
        ]
        return rows.with_columns(plan=pl.Series(plans, dtype=pl.String))

    def _asked_anew(self, ontology: Ontology | None) -> pl.DataFrame:
        """The row of an ontology that is not the one we have."""
        if ontology is None or ontology == self._known_state().ontology:
            return pl.DataFrame(schema={"record": pl.String})
        row = {"record": ONTOLOGY, "id": "ontology", "hash": ontology.version}
        return pl.DataFrame([{**row, "content": ontology.model_dump_json()}])

    def _renamed_anew(self, answers: bool) -> pl.DataFrame:
        """The rows of the runs whose renames hold now and did not before, or the other way round.

        Args:
            answers: whether annotations changed. Without them nothing can have been renamed since we looked.
        """
        kept, rows = self._known_state(), []
        if answers or kept.renamings is None:
            if kept.renamings is None:
                kept.renamings = {run for run, one in self._renamings(None).items() if one.holds}
            for one in self._journal.renamings():
                if one.holds != (one.run in kept.renamings):
                    content = dump_json({"names": one.names, "limited": one.limited})
                    head = {"record": RENAMING, "id": one.run, "content": content, "deleted": not one.holds}
                    rows.append({**head, "hash": digest(content)})
        schema = {name: SCHEMA[name] for name in ("record", "id", "content", "deleted", "hash")}
        return pl.DataFrame(rows, schema=schema)

    def count(self, record: str) -> int:
        """How many tasks, annotations or predictions the tool holds as far as we know."""
        return self._index().count(record)

    @property
    def cursor_kept(self) -> str | None:
        """The cursor as this process last read or wrote it."""
        return self._known_state().cursor

    def _known_state(self) -> _Kept:
        seen = self._table.seen()
        if self._kept is None or self._kept.seen is not seen:
            rows = self._table.scan(seen.table)
            pull = (seen.table.transaction_version(self.source) or 0) if seen.table else 0
            self._check(rows, pull)
            read = self._journal_read(seen.table)
            self._kept = _Kept(seen, pull, self._cursor_in(rows), self._ontology_in(rows), read)
        return self._kept

    def _check(self, rows: pl.LazyFrame, pull: int) -> None:
        """That the store is our source's, and all its numbered commits are there."""
        marks = rows.filter(pl.col("record").is_in([CURSOR, SNAPSHOT])).select("record", "id", "pull")
        found = self._table.collect(marks)
        others = sorted(set(found.filter(pl.col("record") == CURSOR)["id"]) - {self.source})
        if others:
            raise UsageError(
                f"the label store {self.url} holds the labels of {others[0]}, and this is {self.source}",
                "give each project a store of its own: set store.url in connector.toml",
            )
        # A log file that became empty reads as a commit of nothing, and the pull would go on behind it.
        if len(found) != pull:
            raise self._table.damaged(f"the label store {self.url} holds {len(found)} of {pull} commits")

    def _index(self) -> Index:
        kept = self._known_state()
        if kept.index is None:
            kept.index = Index(self._known_things(kept.seen))
        return kept.index

    def _known_things(self, seen: Seen) -> Iterator[pl.DataFrame]:
        """What the index keeps, some tasks at a time."""
        things = self._table.scan(seen.table).filter(pl.col("record").is_in(THINGS))
        last = pl.col("deleted", "hash").sort_by("pull").last()
        slices = self._table.count(seen.table) // INDEXED_AT_ONCE + 1
        for number in range(slices):
            some = things.filter(pl.col("task").hash() % slices == number)
            short = some.select(*IDENTITY, "pull", "deleted", _short(pl.col("hash")))
            yield _indexed(self._table.collect(short.group_by(IDENTITY).agg(last).filter(~pl.col("deleted"))))

    def _commit(self, rows: pl.DataFrame, kind: str, at: datetime, told: Mapping[str, object]) -> None:
        """Append rows under the next number. Exactly one of them is a cursor or a snapshot."""
        kept = self._known_state()
        pull = kept.pull + 1
        filled = (
            pl.concat([pl.DataFrame(schema=SCHEMA), rows], how="diagonal")
            .with_columns(
                pull=pl.lit(pull, pl.Int64),
                pulled_at=pl.lit(at, _TIME),
                deleted=pl.col("deleted").fill_null(False),
            )
            .cast(SCHEMA)
        )
        # Else the mark of a forged journal would take the place of the mark of the true one.
        self._journal.confirm(kept.journal)
        read = self._journal.mark()
        told = {**told, _JOURNAL: read.model_dump()}
        self._table.append(filled, kind, told, [Transaction(self.source, pull)])
        kept.pull, kept.journal = pull, read

    # One writer at a time.

    @contextmanager
    def lease(self, wait: float = WAIT_SECONDS, seconds: float = LEASE_SECONDS) -> Iterator[None]:
        """Be the only one who writes.

        It costs nothing as long as nothing is written: the first commit in here takes the lease, each shows
        that its holder lives, and one more at the end gives it back. Who entered knows all that others wrote.

        Args:
            wait: how long to wait for somebody else who is writing.
            seconds: without a commit for so long, others may take over; ours are then refused. At most
                `connector.lease.LONGEST_SECONDS`.

        Raises:
            Temporary: if somebody else is still writing, and who that is.
        """
        with self._table.lease(wait, seconds):
            yield

    @property
    def leased(self) -> bool:
        """Whether we are within `lease`."""
        return self._table.leased

    def take(self) -> None:
        """Within `lease`: take it now, before anything is written elsewhere that only one may write.

        Raises:
            Conflict: if somebody else wrote since this writer looked; `Overtaken` if it has not yet written.
            Temporary: if somebody else has the lease.
        """
        self._table.take()

    def renew(self) -> None:
        """Within `lease`, where much is done and nothing stored: show that we live, if we have it."""
        self._table.renew()

    def holder(self) -> Lease | None:
        """Who alone may write now; None if everybody may, or that process is known to be dead."""
        return self._table.holder()

    # Care.

    def compact(
        self, at: datetime, dry_run: bool = False, progress: Callable[[int], None] = lambda _: None
    ) -> Compacted:
        """Merge the many small files of pulls into few. All rows and all versions stay.

        Args:
            at: now.
            dry_run: only tell what would be merged.
            progress: told of how many files are done.
        """
        if dry_run:
            return self._table.compact(at, True, progress)
        with self.lease():
            return self._table.compact(at, False, progress)

    def vacuum(self, at: datetime, days: float = 30, force: bool = False, dry_run: bool = False) -> Vacuumed:
        """Delete files that were merged into others long enough ago, save for those of snapshots.

        Every version can still be read here, since all rows are kept. Other programs read an old version
        from the files it had then, and find those of snapshots only.

        Args:
            at: now.
            days: how long ago.
            force: also less than a week, though somebody may still be reading those files.
            dry_run: only tell what would be deleted.

        Raises:
            UsageError: if `days` is too few.
        """
        if days < LEAST_DAYS and not force:
            raise UsageError(
                f"files merged less than {LEAST_DAYS:g} days ago may still be read by somebody",
                f"keep {LEAST_DAYS:g} days, or say --force if nobody reads the store now",
            )
        if dry_run:
            return self._vacuum(at, days, True)
        with self.lease():
            self.take()  # so that nobody names a snapshot meanwhile
            return self._vacuum(at, days, False)

    def _vacuum(self, at: datetime, days: float, dry_run: bool) -> Vacuumed:
        return self._table.vacuum(at, days, {named.version for named in self.snapshots()}, dry_run)

    def snapshots(self) -> list[Snapshot]:
        """The versions that have names, in the order in which they were named."""
        named = self.rows().filter(pl.col("record") == SNAPSHOT)
        found = self._table.collect(latest(named).filter(~pl.col("deleted")).sort("pull"))
        return [
            Snapshot(row["id"], **json.loads(row["content"]), at=row["pulled_at"])
            for row in found.iter_rows(named=True)
        ]

    def snapshot(self, name: str) -> Snapshot:
        """The snapshot of that name.

        Raises:
            UsageError: if there is none.
        """
        named = {one.name: one for one in self.snapshots()}
        if name not in named:
            raise UsageError(
                f"the label store {self.url} has no snapshot {name!r}; it has {', '.join(named) or 'none'}",
                "name one of these, or the number of a version",
            )
        return named[name]

    def name(self, name: str, at: datetime, version: int | None = None, dry_run: bool = False) -> Snapshot:
        """Give a version a name: it can be read by it, and its files are never deleted.

        Args:
            at: now.
            version: the newest by default.
            dry_run: only tell what would be named.

        Raises:
            UsageError: if the name is taken, or can be none, or there is no such version.
        """
        if not re.fullmatch(r"[^\W\d][\w.-]*", name):
            raise UsageError(
                f"{name!r} cannot name a snapshot",
                "begin with a letter; letters, digits and . _ - may follow",
            )
        with self.lease():
            if any(name == one.name for one in self.snapshots()):
                raise UsageError(f"there is a snapshot {name!r} already", "take another name, or remove it")
            number = self.version if version is None else version
            if number is None:
                raise UsageError(f"the label store {self.url} is empty", "run `connector pull`")
            made = Snapshot(name, number, self.pull_of(number), at)
            content = dump_json({"version": made.version, "pull": made.pull})
            row = {"record": SNAPSHOT, "id": name, "content": content}
            if not dry_run:
                self._commit(pl.DataFrame([row]), "snapshot", at, {"name": name, "of": number})
        return made

    def forget(self, name: str, at: datetime, dry_run: bool = False) -> None:
        """Take a snapshot's name away. Its version can be read as any other.

        Args:
            at: now.
            dry_run: only look whether it can be.

        Raises:
            UsageError: if there is no such snapshot.
        """
        with self.lease():
            row = {"record": SNAPSHOT, "id": self.snapshot(name).name, "deleted": True}
            if not dry_run:
                self._commit(pl.DataFrame([row]), "snapshot", at, {"name": name, "of": None})


def latest(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The last row of each identity, also of what is deleted; in the order of the identities."""
    last = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(-1)) for name in IDENTITY)
    return rows.sort(*IDENTITY, "pull").filter(last)


def _with_renames(
    own: pl.DataFrame, written: pl.DataFrame, renamings: Mapping[str, _Renaming]
) -> pl.DataFrame:
    """Annotators' answers that the tool does not hold any more, with the labels that were renamed since.

    Args:
        own: the answers; `plan` is the plan whose version of the annotation the tool holds.
        written: `IDENTITY`, plan and pull of what these runs wrote.
        renamings: by run, the first one first.
    """
    later: dict[tuple[object, ...], dict[str, int]] = {}
    for *identity, plan, pull in written.select(*IDENTITY, "plan", "pull").sort("pull").iter_rows():
        later.setdefault(tuple(identity), {})[plan] = pull
    contents = []
    for *identity, plan, pull, content in own.select(*IDENTITY, "plan", "pull", "content").iter_rows():
        touched = later.get(tuple(identity), {})
        for run, one in renamings.items():
            if plan == run or (one.holds and pull < max(touched.get(run, 0), 0 if one.limited else one.pull)):
                content = _renamed(content, one.names)
        contents.append(content)
    return own.with_columns(content=pl.Series(contents, dtype=pl.String))


def _renamed(result: str, names: Renames) -> str:
    regions = json.loads(result)
    try:
        return dump_json(renamed(regions, names)) if isinstance(regions, list) else result
    except BadRecord:
        return result  # whoever reads it reports what is wrong with it


def _short(text: pl.Expr) -> pl.Expr:
    """A hash in eight bytes. It differs between versions of polars, so it is never stored."""
    return text.hash()


def _indexed(rows: pl.DataFrame) -> pl.DataFrame:
    """What the index keeps of rows."""
    short = _short(pl.col("hash")) if rows.schema["hash"] == pl.String else "hash"
    return rows.select(pl.col("record").cast(pl.Enum(THINGS)), *IDENTITY[1:], short)


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
    found = Annotation.model_validate(
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
    # The name of a deleted account is ours; the tool's own revision is without it.
    lost = found.model_copy(update={"account": UNKNOWN})
    return lost if row["hash"] == lost.revision != found.revision else found
