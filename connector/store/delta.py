"""One Delta table in a folder or a bucket, and one writer at a time.

A commit is the very next one after what its writer has seen, or it is refused: nobody writes on top of what
he does not know. So the lease only decides who tries, and a holder that was taken for dead and lives can do
no harm. Each commit says in the table's log, under `connector`, what it is and who may write from then on.
"""

from __future__ import annotations

import io
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction
from obstore.exceptions import NotFoundError
from polars.exceptions import PolarsError

from connector.errors import AuthError, Conflict, ConnectorError, Overtaken, Temporary, UsageError
from connector.io.failures import SET_CLOCK, clock_differs
from connector.io.files import MAKE_ROOM, REMOUNT, exhausted, make_folder, read_only, sync
from connector.io.objects import Objects, delta_options
from connector.io.retry import ATTEMPTS, CONNECT_SECONDS, STORE_ANSWER_SECONDS, STORE_GIVE_UP_SECONDS
from connector.store.lease import LONGEST_SECONDS, Lease

POLL_SECONDS = 1.0

SIGNS = 3
"""So many signs of life a holder gives in the time after which one that gives none is taken for dead."""

REOPENED_AFTER = 20
"""A table that stays open goes through its log since it was opened with every commit."""

SMALL_BYTES = 32 * 2**20
MERGED_BYTES = 4 * SMALL_BYTES
"""Files smaller than the one are merged into files of at most the other."""

AT_ONCE = 16
"""So many entries of the log are asked for at once."""

FIRST_COMMIT_SECONDS = 4.0
"""So long the data files of a first commit may be there before its log is."""

_TOLD = "connector"

_FOR_GOOD = "interval 36500 days"
_HOOKS = PostCommitHookProperties(cleanup_expired_logs=False)


@dataclass(frozen=True, slots=True)
class Commit:
    """One version of the table, as its log tells it.

    Attributes:
        at: when, by the clock of whoever made it.
        kind: what it did; in the words of Delta's log where another program made it.
        by: who made it; None for another program.
        lease: who may write from then on; None when everybody may.
        told: what else it says of itself.
    """

    version: int
    at: datetime
    kind: str
    by: str | None
    lease: Lease | None
    told: Mapping[str, Any]


@dataclass
class Seen:
    """What a writer has seen of the table, his own commits among it.

    Attributes:
        table: None before there is one.
        version: the last that he knows.
        lease: who may write, as that version tells.
    """

    table: DeltaTable | None
    version: int | None
    lease: Lease | None


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was merged, or would be: so many files of so many bytes, into so many."""

    files: int = 0
    bytes: int = 0
    into: int = 0


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """What was deleted, or would be: so many files of so many bytes.

    Attributes:
        before: other programs read no version before this one any more, save for those that were kept.
    """

    files: int = 0
    bytes: int = 0
    before: int | None = None


class Table:
    """A table that grows by commits.

    Args:
        url: of a folder or a bucket.
        schema: of what is read and written. Columns that the table has besides are left alone.
        order: the column that numbers the commits with rows.
        options: `endpoint`, `region`, `access_key_id`, … for a bucket.
        say: told who is waited for.
    """

    def __init__(
        self,
        url: str,
        schema: pl.Schema,
        order: str,
        options: Mapping[str, str],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.url, self.schema, self.order, self.options, self._say = url, schema, order, options, say
        self._seen: Seen | None = None
        self._lease: Lease | None = None
        self._silent: Lease | None = None
        self._shown = 0.0

    # Reading.

    def open(self, version: int | None = None) -> DeltaTable | None:
        """The table as of a version, by default the newest; None before there is one.

        Raises:
            UsageError: if it has no such version, or is damaged, or has data files and no log.
            AuthError: if the bucket does not let us in.
            Temporary: if it does not answer.
        """
        with self._ours("read"):
            # Not `is_deltatable`, nor `history`: in 1.6.6 both hold the lock of the interpreter while they
            # wait, and a receiver in the same process stops answering.
            try:
                table = DeltaTable(self.url, storage_options=self._delta_options)
            except TableNotFoundError:
                found = self._without_log()
                if found is None:
                    return None
                table = found
            if version is None or version == table.version():
                return table
            if not 0 <= version < table.version():
                raise UsageError(
                    f"the label store {self.url} has no version {version}; its last is {table.version()}",
                    "`connector store log` lists them",
                )
            return DeltaTable(self.url, version=version, storage_options=self._delta_options)

    def _without_log(self) -> DeltaTable | None:
        """None where nothing was stored yet. A new table would hide what the files of a lost one hold.

        Whoever makes the first commit writes data first, and the log right after it.
        """
        since = monotonic()
        while files := [n for n in Objects(self.url, self.options).names() if n.endswith(".parquet")]:
            with suppress(TableNotFoundError):
                return DeltaTable(self.url, storage_options=self._delta_options)
            if monotonic() - since >= FIRST_COMMIT_SECONDS:
                raise UsageError(
                    f"the label store {self.url} has lost its log: {len(files)} data files are there, such "
                    f"as {files[0]}, and the folder _delta_log is missing or empty",
                    "restore _delta_log from a copy; where there is none, or the very first pull was "
                    "interrupted, move these files away and pull everything again",
                )
            sleep(FIRST_COMMIT_SECONDS / 20)
        return None

    def scan(self, table: DeltaTable | None) -> pl.LazyFrame:
        """All its rows, lazily, in our schema: null where it lacks a column.

        Raises:
            UsageError: if it has a column of ours with values of another type, or commits or files of it are
                missing or have been cut off.
        """
        if table is None:
            return pl.LazyFrame(schema=self.schema)
        for name, found in _schema(table).items():
            if found != self.schema.get(name, found):
                raise UsageError(
                    f"the label store {self.url} has {found} in the column {name}, not {self.schema[name]}",
                    "use the version of this program that wrote it, or move the store away and pull again",
                )
        logged = pl.DataFrame(table.get_add_actions(flatten=True))
        self._refuse_gaps(logged)
        if self._folder:
            self._refuse_cut_off(table, logged)
        return self._scan_files(_files(table).values(), self.schema)

    def _refuse_gaps(self, logged: pl.DataFrame) -> None:
        """A log entry that became empty reads as a commit of nothing; the numbers of the others show it."""
        low, high = f"min.{self.order}", f"max.{self.order}"
        if not {low, high} <= set(logged.columns):
            return
        spans = logged.select(low, high).drop_nulls().sort(low)
        before = spans[high].cum_max().shift(1, fill_value=0)
        gaps = spans.filter(spans[low] > before + 1)
        if len(gaps):
            raise self.damaged(
                f"the label store {self.url} lacks commits before number {gaps[low][0]}: an entry of its log "
                "is missing or empty"
            )

    def _refuse_cut_off(self, table: DeltaTable, logged: pl.DataFrame) -> None:
        """A file that has another length than the log says is named before anything is read of it."""
        sizes = {_name_of(path): size for path, size in logged.select("path", "size_bytes").iter_rows()}
        for name, place in _files(table).items():
            try:
                size = Path(place).stat().st_size
            except FileNotFoundError:
                raise self.damaged(f"a file of the label store {self.url} is missing: {name}") from None
            except OSError:
                continue  # reading it reports the cause
            if size != sizes[name]:
                raise self.damaged(
                    f"a file of the label store {self.url} is damaged: {name} has {size} bytes, and its log "
                    f"says {sizes[name]}"
                )

    def count(self, table: DeltaTable | None) -> int:
        """How many rows it has, as its log tells."""
        return int(pl.DataFrame(table.get_add_actions())["num_records"].sum()) if table else 0

    def _scan_files(self, files: Iterable[str], schema: pl.Schema) -> pl.LazyFrame:
        if not (places := list(files)):
            return pl.LazyFrame(schema=schema)
        # Not scan_delta: it looks for a folder `a b` under the name that it has in a URL, `a%20b`.
        return pl.scan_parquet(
            places,
            schema=schema,
            glob=False,
            missing_columns="insert",
            extra_columns="ignore",
            storage_options=self._polars_options,
        )

    def collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """Read rows.

        Raises:
            UsageError: if a file is damaged.
            AuthError, Temporary: as `open`.
        """
        try:
            with self._ours("read"):
                return rows.collect()
        except UsageError as error:
            name = self._unreadable()
            if name is None or name in error.what:
                raise
            raise UsageError(f"{error.what} (the file {name})", error.hint) from error

    def _unreadable(self) -> str | None:
        """The first file of the table that cannot be read."""
        table = self.open()
        for name, place in _files(table).items() if table else ():
            try:
                with self._ours("read"):
                    self._scan_files([place], self.schema).collect()
            except UsageError:
                return name
        return None

    @property
    def _bucket_options(self) -> dict[str, str]:
        return {**delta_options(self.url, self.options), "connect_timeout": f"{CONNECT_SECONDS:.0f}s"}

    @property
    def _delta_options(self) -> dict[str, str] | None:
        if self.url.startswith("file:"):
            return None
        waits = {"retry_timeout": STORE_GIVE_UP_SECONDS, "timeout": STORE_ANSWER_SECONDS}
        patience = {name: f"{seconds:.0f}s" for name, seconds in waits.items()}
        return {**self._bucket_options, **patience, "max_retries": str(ATTEMPTS - 1)}

    @property
    def _polars_options(self) -> dict[str, Any] | None:
        if self.url.startswith("file:"):
            return None
        # The time-out is for the whole of a file; the library's own of half a minute cuts off slow lines.
        patience = {"max_retries": ATTEMPTS - 1, "retry_timeout_ms": int(1000 * STORE_GIVE_UP_SECONDS)}
        return {**self._bucket_options, **patience, "timeout": "86400s"}

    @contextmanager
    def _ours(self, doing: str) -> Iterator[None]:
        """Turns the libraries' failures into ours."""
        try:
            yield
        except (PolarsError, FileNotFoundError) as error:
            raise self._damage(doing, error) from error
        except (DeltaError, OSError) as error:
            raise self._trouble(doing, error) from error
        except BaseException as error:
            # A file that was cut off makes the reader panic.
            if not _panicked(error):
                raise
            raise self._damage(doing, error) from error

    def _damage(self, doing: str, error: BaseException) -> ConnectorError:
        if exhausted(error):
            return self._trouble(doing, error)
        return self.damaged(f"a file of the label store {self.url} is damaged: {str(error)[:200]}")

    def damaged(self, what: str) -> UsageError:
        """The error for a table that lacks a part."""
        return UsageError(what, "restore it from a copy, or move the store away and pull everything again")

    def _trouble(self, doing: str, error: BaseException) -> ConnectorError:
        # The libraries draw a chain of causes as a coloured tree; what matters stands at its end.
        said = " ".join(re.sub(r"\x1b\[\d+m|↳", "", str(error)).split())
        what = f"the label store {self.url} cannot be {doing}: {said[:400]}"
        if exhausted(error):
            return Temporary(what, MAKE_ROOM)
        if self._folder and doing == "written" and read_only(self._folder):
            return Temporary(what, REMOUNT)
        if clock_differs(said):
            return Temporary(what, SET_CLOCK)
        if self.url.startswith("file:"):
            return UsageError(what, "check that folder; if a file in it is damaged, restore it from a copy")
        if isinstance(error, PermissionError) or "403 Forbidden" in said or "401 Unauthorized" in said:
            return AuthError(what, "check the storage's keys, and what they permit")
        return Temporary(what)

    # The log.

    def commits(self, table: DeltaTable) -> list[Commit]:
        """What the log tells of every version that is still in it, the newest first."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = pool.map(self._commit_at, range(table.version(), -1, -1))
            return [commit for commit in found if commit]

    def _commit_at(self, version: int) -> Commit | None:
        """What the log tells of a version; None where another program deleted that part of it."""
        # Not by the library's own history: in a folder with # or ? in its name, that is empty in 1.6.6.
        try:
            lines = Objects(f"{self.url}/_delta_log", self.options).read(f"{version:020}.json")
        except UsageError as error:
            if isinstance(error.__cause__, (FileNotFoundError, NotFoundError)):
                return None
            raise
        actions = [json.loads(line) for line in lines.splitlines()]
        return _commit_of(version, next((a["commitInfo"] for a in actions if "commitInfo" in a), {}))

    def _lease_in(self, table: DeltaTable) -> Lease | None:
        """Who may write, as the newest commit of this program tells; others tell nothing."""
        newest = self.newest(table, lambda _: True)
        return newest.lease if newest else None

    def newest(self, table: DeltaTable, wanted: Callable[[Commit], bool]) -> Commit | None:
        """The newest commit of this program that is wanted."""
        newest_first = map(self._commit_at, range(table.version(), -1, -1))
        return next((commit for commit in newest_first if commit and commit.by and wanted(commit)), None)

    def holder(self) -> Lease | None:
        """Who alone may write now; None if everybody may, or the holder is known to be dead."""
        table = self.open()
        lease = self._lease_in(table) if table else None
        return None if lease is None or lease.dead else lease

    # Writing.

    def seen(self) -> Seen:
        """What this writer knows: the table when it first looked, and its own commits.

        It looks anew when it waits for its turn, and only then.
        """
        if self._seen is None:
            table = self.open()
            lease = self._lease_in(table) if table else None
            self._seen = Seen(table, table.version() if table else None, lease)
        return self._seen

    @contextmanager
    def lease(self, wait: float, seconds: float) -> Iterator[None]:
        """Be the only one who writes, from the first commit in here to the end."""
        if self._lease:
            yield
            return
        if not 0 < seconds <= LONGEST_SECONDS:
            raise UsageError(
                f"a lease of {seconds:g} s was asked for",
                f"ask for more than 0 and at most {LONGEST_SECONDS:g} s",
            )
        self._wait_for_turn(wait)
        self._lease = Lease.of_this_process(seconds)
        try:
            yield
        finally:
            if self.taken:
                self._give_back()
            self._lease = self._silent = None

    @property
    def leased(self) -> bool:
        """Whether we are within `lease`."""
        return self._lease is not None

    @property
    def taken(self) -> bool:
        """Whether the lease is ours, as far as we know: whether we committed within it."""
        last = self._seen.lease if self._seen else None
        return self._lease is not None and last is not None and last.id == self._lease.id

    def take(self) -> None:
        """Within `lease`: take it now, by a commit that holds nothing; `renew` where it is ours."""
        if self.taken:
            self.renew()
        else:
            self._say_nothing()

    def renew(self) -> None:
        """Where the lease is ours and we were silent for a while, show that we live."""
        if self._lease and self.taken and monotonic() - self._shown >= self._lease.seconds / SIGNS:
            self._say_nothing()

    def _say_nothing(self, keep: bool = True) -> None:
        self.append(pl.DataFrame(schema=self.schema), "lease", {}, keep=keep)

    def _wait_for_turn(self, wait: float) -> None:
        begun = since = monotonic()
        last: Lease | None = None
        while holder := self.holder():
            # Clocks of two machines differ, and jump: only our own time without a sign of life counts.
            if holder != last:
                if last is None:
                    self._say(f"the label store {self.url} is in use by {holder}: waiting")
                last, since = holder, monotonic()
            if monotonic() - since >= holder.seconds:
                break
            if monotonic() - begun >= wait:
                raise self._busy(holder)
            sleep(min(POLL_SECONDS, holder.seconds))
        self._silent = holder
        table = self.open()
        if self._seen and self._seen.version != (table.version() if table else None):
            self._seen = None

    def _give_back(self) -> None:
        try:
            self._say_nothing(keep=False)
        except ConnectorError:
            # What had to be written is written. Who waits will see that we are dead or silent.
            self._seen = None

    def _busy(self, holder: Lease) -> Temporary:
        return Temporary(
            f"the label store {self.url} is in use by {holder}",
            "wait until that has ended, then run the same command again",
        )

    def _overtaken(self, table: DeltaTable | None) -> Conflict:
        last = self._commit_at(table.version()) if table else None
        who = last.by if last and last.by else "another program"
        what = f"another process wrote to the label store {self.url} at the same time: {who}"
        kind = Conflict if self.taken else Overtaken
        return kind(what, "run one at a time; run this one again")

    def append(
        self,
        rows: pl.DataFrame,
        kind: str,
        told: Mapping[str, Any],
        transactions: Sequence[Transaction] = (),
        keep: bool = True,
    ) -> None:
        """Add rows in one commit.

        Args:
            rows: in our schema. Without any, the commit only tells something.
            kind: what the commit does.
            told: what else it says of itself in the log.
            transactions: numbers that the table keeps with it.
            keep: the lease, if we are within one; else everybody may write from then on.

        Raises:
            Conflict: if anybody committed since this writer looked.
            Temporary: if somebody else has the lease.
        """

        def write(table: DeltaTable | None, properties: CommitProperties) -> None:
            write_deltalake(
                table or self.url,
                rows,
                mode="append" if table else "error",
                schema_mode="merge",
                configuration=None if table else self._settings,
                commit_properties=properties,
                post_commithook_properties=_HOOKS,
                storage_options=self._delta_options,
            )

        self._commit(write, kind, told, transactions, keep)

    @property
    def _settings(self) -> dict[str, str | None]:
        """What a new table is told of itself, for other programs too."""
        return {
            # By default the log goes after a month, and old versions are read by it.
            "delta.enableExpiredLogCleanup": "false",
            "delta.logRetentionDuration": _FOR_GOOD,
            # By default the log forgets merged files after a week, and nobody could delete them then.
            "delta.deletedFileRetentionDuration": _FOR_GOOD,
            # By default it tells the least and the greatest value of every column of every file.
            "delta.dataSkippingStatsColumns": self.order,
        }

    def _commit(
        self,
        write: Callable[[DeltaTable | None, CommitProperties], None],
        kind: str,
        told: Mapping[str, Any],
        transactions: Sequence[Transaction] = (),
        keep: bool = True,
    ) -> None:
        seen = self.seen()
        with self._ours("read"):
            table = seen.table or self.open()
            if table:
                table.update_incremental()
        if (table.version() if table else None) != seen.version:
            raise self._overtaken(table)
        if seen.lease and not self._may_follow(seen.lease):
            # Within a lease, somebody took it after we had waited and before we looked: wait again.
            raise self._overtaken(table) if self._lease else self._busy(seen.lease)
        try:
            if table is None and self._folder:
                make_folder(self._folder)
            write(table, self._properties(kind, told, transactions, keep))
        except BaseException as error:
            if not isinstance(error, (DeltaError, OSError)) and not _panicked(error):
                raise
            latest = self.open()
            if (latest.version() if latest else None) != seen.version:
                raise self._overtaken(latest) from error
            raise self._trouble("written", error) from error
        seen.version = 0 if seen.version is None else seen.version + 1
        self._make_durable(seen.version)
        seen.lease, self._shown = self._lease if keep else None, monotonic()
        seen.table = self.open() if table is None or seen.version % REOPENED_AFTER == 0 else table

    def _make_durable(self, since: int) -> None:
        """Return when what was committed from a version on would survive a power failure.

        The library (1.6.6) writes data files, log entries and checkpoints without a single fsync. The log
        comes last: an entry of it that is on the disk must never name data that is not.
        """
        if self._folder is None:
            return
        log = self._folder / "_delta_log"
        try:
            entries = [path for path in log.iterdir() if _version_of(path) >= since]
            for entry in sorted(path for path in entries if path.suffix == ".json"):
                for line in entry.read_bytes().splitlines():
                    if added := json.loads(line).get("add"):
                        sync(self._folder / unquote(added["path"]))
            sync(self._folder)
            for path in (*entries, *log.glob("_last_checkpoint"), log):
                sync(path)
        except OSError as error:
            self._seen = None  # whether the commit counts is known by who looks anew
            raise self._trouble("written", error) from error

    @property
    def _folder(self) -> Path | None:
        return Path(unquote(self.url.removeprefix("file://"))) if self.url.startswith("file:") else None

    def _may_follow(self, holder: Lease) -> bool:
        """Whether we may write after a commit that told of a holder."""
        ours = self._lease is not None and holder.id == self._lease.id
        return ours or holder == self._silent or holder.dead

    def _properties(
        self,
        kind: str,
        told: Mapping[str, Any],
        transactions: Sequence[Transaction] = (),
        keep: bool = True,
    ) -> CommitProperties:
        by = self._lease or Lease.of_this_process(0)
        said = {"kind": kind, "by": by.tell(), "holds": keep and self._lease is not None, **told}
        # No retries: they would put the commit on top of what its writer has not seen.
        return CommitProperties({_TOLD: said}, max_commit_retries=0, app_transactions=list(transactions))

    # Care.

    def compact(self, at: datetime, dry_run: bool, progress: Callable[[int], None]) -> Compacted:
        """Merge small files. The rows stay the same, and so do old versions. To be called under the lease.

        Not by the library's own: in 1.6.6 it commits over whatever others did meanwhile, and two at once
        double every row.

        Args:
            at: the time, from which the vacuum counts.
            progress: told of every group of files.
        """
        table = self.seen().table
        groups = self._small_files(table) if table else []
        for group in groups if not dry_run else []:
            self._merge(group, at)
            progress(len(group))
        return Compacted(
            sum(map(len, groups)), sum(int(group["size_bytes"].sum()) for group in groups), len(groups)
        )

    def _small_files(self, table: DeltaTable) -> list[pl.DataFrame]:
        """The files to be merged, in groups, in the order of their rows."""
        files = pl.DataFrame(table.get_add_actions(flatten=True))
        small = (
            files.filter(pl.col("size_bytes") < SMALL_BYTES)
            .sort(f"min.{self.order}", "path")
            .with_columns(group=pl.col("size_bytes").cum_sum() // MERGED_BYTES)
        )
        groups = small.select("path", "size_bytes", "num_records", "group").partition_by(
            "group", maintain_order=True, include_key=False
        )
        return [group for group in groups if len(group) > 1]

    def _merge(self, group: pl.DataFrame, at: datetime) -> None:
        table = self.seen().table
        assert table
        places, merged = _files(table), io.BytesIO()
        with self._ours("read"):
            # Columns that only a later version of this program knows are kept as well.
            rows = self._scan_files([places[path] for path in group["path"]], _schema(table))
            rows.sink_parquet(merged)
            merged.seek(0)
            found = (
                pl.scan_parquet(merged).select(pl.len(), *_bounds(self.order)).collect().row(0, named=True)
            )
        if found["len"] != group["num_records"].sum():
            raise self.damaged(f"the files of the label store {self.url} do not hold what its log says")
        name, now = f"part-00000-{uuid.uuid4()}-c000.zstd.parquet", int(at.timestamp() * 1000)
        Objects(self.url, self.options).write(name, merged.getvalue())
        stats = {
            "numRecords": found["len"],
            "minValues": {self.order: found["min"]},
            "maxValues": {self.order: found["max"]},
            "nullCount": {self.order: found["null"]},
        }
        added = AddAction(name, merged.getbuffer().nbytes, {}, now, False, json.dumps(stats))
        removed = [
            RemoveAction(path, False, now, size)
            for path, size in group.select("path", "size_bytes").iter_rows()
        ]

        def write(table: DeltaTable | None, properties: CommitProperties) -> None:
            assert table
            table.create_write_transaction(
                [added, *removed],
                "append",
                table.schema(),
                commit_properties=properties,
                post_commithook_properties=_HOOKS,
            )

        self._commit(write, "compact", {"files": len(group)})
        with self._ours("read"):
            table.update_incremental()

    def vacuum(self, at: datetime, days: float, keep: Iterable[int], dry_run: bool) -> Vacuumed:
        """Delete files that were merged into others. To be called under the lease.

        What a killed writer left behind is in nobody's log, and stays.

        Args:
            at: now.
            days: only files that were merged so long ago.
            keep: versions whose files stay.
        """
        table = self.seen().table
        if table is None:
            return Vacuumed()
        sizes = {found.path: found.size for found in Objects(self.url, self.options).list()}
        delete = partial(
            table.vacuum,
            int(24 * days),
            enforce_retention_duration=False,
            keep_versions=sorted(keep) or None,
            commit_properties=self._properties("vacuum", {}),
            post_commithook_properties=_HOOKS,
        )
        with self._ours("written"):
            # The log never forgets a file; most that it names may be deleted already.
            files = [path for path in delete(dry_run=True) if path in sizes]
            if files and not dry_run:
                delete(dry_run=False)
        old = at - timedelta(days=days)
        merged = [c.version for c in self.commits(table) if c.kind in ("compact", "optimize") and c.at <= old]
        if files and not dry_run:
            self._make_durable((self.seen().version or 0) + 1)
            self._seen = None
            self.seen()
        before = merged[0] if files and merged else None
        return Vacuumed(len(files), sum(sizes[path] for path in files), before)


def _panicked(error: BaseException) -> bool:
    """Whether a library gave up in the middle, as where there is no file handle for a runtime of its own.

    Each has a class of its own for it, which is no `Exception`, and not all export it.
    """
    return type(error).__name__ == "PanicException"


def _schema(table: DeltaTable) -> pl.Schema:
    return pl.Schema(table.schema().to_arrow())


def _files(table: DeltaTable) -> dict[str, str]:
    """The places of its files, by their names in the log."""
    return {_name_of(place): unquote(place) for place in table.file_uris()}


def _name_of(path: str) -> str:
    return unquote(path).rpartition("/")[2]


def _version_of(log_file: Path) -> int:
    """The version that a file of the log is of; -1 where it is of none."""
    number = log_file.name.partition(".")[0]
    return int(number) if number.isdecimal() else -1


def _bounds(column: str) -> Iterator[pl.Expr]:
    of = pl.col(column)
    yield from (of.min().alias("min"), of.max().alias("max"), of.null_count().alias("null"))


def _commit_of(version: int, info: Mapping[str, Any]) -> Commit:
    at, told = _time(info.get("timestamp", 0)), info.get(_TOLD)
    try:
        more = dict(told or {})
        kind, holds = str(more.pop("kind")), more.pop("holds") is True
        writer = Lease.told(dict(more.pop("by")), version, at)
    except (KeyError, TypeError, ValueError):
        # Another program wrote this, or a malformed imitation of ours: it does not name a writer.
        kind = str(info.get("operation", "unknown")).lower()
        return Commit(version, at, kind, None, None, told if isinstance(told, dict) else {})
    return Commit(version, at, kind, str(writer), writer if holds else None, more)


def _time(milliseconds: Any) -> datetime:
    """The time that a commit tells; what no clock can show is the end of time, after which nothing is old."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return datetime.max.replace(tzinfo=UTC)
