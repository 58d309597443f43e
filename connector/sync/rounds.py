"""Push, pull, sync: the only code that moves items, tasks and annotations between bucket, tool and store."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeVar

import polars as pl
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

from connector.adapters.base import Bucket, Known, LabelingTool, batches
from connector.errors import BadRecord, Conflict, Overtaken, Reject
from connector.io.retry import LONGEST_WAIT_SECONDS
from connector.model import Item, Task
from connector.store.label_store import ANNOTATION, PREDICTION, TASK, Counts, Store
from connector.sync.items import Listed, Source
from connector.sync.ledger import Ledger

T = TypeVar("T")

Progress = Callable[[int], None]
"""Called with how many more are done."""

COMPARED_AT_ONCE = 10_000
"""So many items of a listing are compared with the store at once."""

CHANGED_QUEUE, GONE_QUEUE = "raw data changed", "raw data gone"
"""The lists of tasks in the tool for a person to look at."""


class OnChange(StrEnum):
    """What becomes of a task whose raw data has other content than when it was made."""

    NEW_TASK = "new-task"
    """Another task for the new content; the old one stays, with its labels."""

    UPDATE = "update"
    """The task shows the new content; its labels stay, whatever they were about."""

    FLAG = "flag"
    """Nothing but that people find it in a list in the tool."""


class OnDelete(StrEnum):
    """What becomes of a task whose raw data is gone."""

    KEEP = "keep"
    FLAG = "flag"
    REMOVE_UNLABELED = "remove-unlabeled"
    """Deleted if nobody has answered it; else listed."""


@dataclass(frozen=True, slots=True)
class Effects:
    """What changes of the raw data do to tasks.

    Attributes:
        most_removed: if more than this share of the tasks would be deleted, nothing is: then it is the
            listing that is more likely wrong.
    """

    on_change: OnChange = OnChange.FLAG
    on_delete: OnDelete = OnDelete.FLAG
    most_removed: float = 0.1


@dataclass
class Pushed:
    """What a push did. `found` = `new` + `known` + `changed` + `moved` + `adopted` + all rejects.

    Attributes:
        adopted: items that a task without a key refers to already; it has their key now.
        changed: items with other content than their task was made for.
        moved: items whose content was known under a key that is gone; their task follows.
        gone: tasks whose item is not there any more.
        updated, removed: tasks that show the new content, that were deleted.
        doubles: tasks that two pushes at once had made of one item, deleted again.
        queues: where people find the tasks to look at.
        rejects, accepted: what was not taken; users have accepted some of it, which does not count.
    """

    found: int = 0
    new: int = 0
    known: int = 0
    changed: int = 0
    moved: int = 0
    adopted: int = 0
    gone: int = 0
    updated: int = 0
    removed: int = 0
    doubles: int = 0
    queues: dict[str, str] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    accepted: list[Reject] = field(default_factory=list)

    def remembered(self, ledger: Ledger, manifest: str | None) -> Pushed:
        """The same, with all rejects recorded and the accepted ones apart.

        Args:
            manifest: what was pushed; None is the bucket.
        """
        known = ledger.keep_rejects(self.rejects, manifest, datetime.now(UTC))
        counted = [one.reject for one in known if not one.accepted]
        return replace(self, rejects=counted, accepted=[one.reject for one in known if one.accepted])


@dataclass
class Pulled:
    """What a pull brought: tasks that were read again, and what changed in their annotations."""

    tasks: int = 0
    deleted_tasks: int = 0
    annotations: Counts = field(default_factory=Counts)
    version: int | None = None

    def __add__(self, other: Pulled) -> Pulled:
        return Pulled(
            self.tasks + other.tasks,
            self.deleted_tasks + other.deleted_tasks,
            self.annotations + other.annotations,
            other.version,
        )


@dataclass(frozen=True, slots=True)
class Keyless:
    """A task that no push made, and the objects it refers to."""

    id: str
    objects: frozenset[str]


def _alone(store: Store, work: Callable[[], T]) -> T:
    """Do it as the only one who writes; from the start where somebody else was the quicker one to begin."""
    while True:
        try:
            with store.lease():
                return work()
        except Overtaken:
            if store.leased:
                raise


# Push.


def push(
    tool: LabelingTool,
    store: Store,
    source: Source,
    rejects: list[Reject],
    ledger: Ledger,
    effects: Effects | None = None,
    progress: Progress = lambda _: None,
    dry_run: bool = False,
) -> Pushed:
    """Make every item a task, each exactly once by its key, however often this runs or breaks off.

    Pull first, and pull again afterwards: the store tells what the tool holds. Nobody else writes to the
    store from the first task that is made to the end.

    Args:
        source: what should be in the tool.
        rejects: what `source` did not take; refused items are added.
        ledger: where a batch stands before it is sent, and what is known of rejects; a copy for a dry run.
        effects: what changes of the raw data do.
        progress: told of every batch.
        dry_run: the tool is only looked at. Nobody has pulled before, so it is asked for its keys.
    """

    before = len(rejects)

    def work() -> Pushed:
        del rejects[before:]
        pushed = _push(tool, store, source, rejects, ledger, effects or Effects(), progress, dry_run)
        return pushed.remembered(ledger, source.manifest)

    return work() if dry_run else _alone(store, work)


def _push(
    tool: LabelingTool,
    store: Store,
    source: Source,
    rejects: list[Reject],
    ledger: Ledger,
    effects: Effects,
    progress: Progress,
    dry_run: bool = False,
) -> Pushed:
    tasks = store.current(TASK, columns=("key", "task", "version")).unique("key", keep="first")
    if dry_run:
        keys = pl.DataFrame(
            list(tool.known_keys().items()), schema={"key": pl.String, "task": pl.String}, orient="row"
        )
        tasks = keys.join(tasks, on=["key", "task"], how="left")
    known = Known(dict(tasks.select("key", "task").iter_rows()), store.cursor_kept)
    return _Push(tool, store, tasks, known, source, rejects, ledger, effects, progress, dry_run).run()


@dataclass
class _Push:
    """One push.

    Attributes:
        tasks: key, task, version of what the tool holds.
        waiting: new items, until there are enough for a batch.
        flagged: by the list in the tool, the tasks for a person to look at.
    """

    tool: LabelingTool
    store: Store
    tasks: pl.DataFrame
    known: Known
    source: Source
    rejects: list[Reject]
    ledger: Ledger
    effects: Effects
    progress: Progress
    dry_run: bool

    def __post_init__(self) -> None:
        self.done = Pushed(rejects=self.rejects)
        self.waiting: list[Listed] = []
        self.flagged: dict[str, list[str]] = {CHANGED_QUEUE: [], GONE_QUEUE: []}

    def run(self) -> Pushed:
        done, seen, elsewhere = self.done, [pl.DataFrame(schema={"key": pl.String})], list[Listed]()
        versions = set(self.tasks["version"]) - {None, ""}
        for batch in batches(self.source, COMPARED_AT_ONCE):
            compared = _compared(batch, self.tasks)
            seen.append(compared.select("key"))
            for listed, task, version in zip(batch, compared["task"], compared["version"], strict=True):
                if task is None and self._adopted(listed):
                    continue
                if task is None:
                    # Its content may be known under a key that turns out to be gone.
                    held = listed.tells_content and listed.version in versions
                    (elsewhere if held else self.waiting).append(listed)
                elif version and listed.version and version != listed.version:
                    seen.append(self._changed(task, listed))
                else:
                    done.known += 1
                    done.updated += self._repaired(task, listed)
            self._send(all_of_it=False)
            self.progress(len(batch))
            self.store.renew()
        unseen = self.tasks.join(pl.concat(seen), on="key", how="anti").sort("key")
        gone = unseen.filter(pl.Series([self.source.holds(key) for key in unseen["key"]], dtype=pl.Boolean))
        gone = self._moved(elsewhere, gone)
        self._send(all_of_it=True)
        self._gone(gone)
        self._flag()
        done.found = done.new + done.known + done.changed + done.moved + done.adopted + len(self.rejects)
        return done

    def _alone(self) -> None:
        """To be called before anything is written to the tool."""
        if not self.dry_run:
            self.store.take()

    # items of which the tool has a task already

    @cached_property
    def _unpushed(self) -> pl.Series:
        """The ids of the tasks without a key, made by other means than a push."""
        return self.tasks.filter(pl.col("key") == pl.format("task:{}", "task"))["task"]

    @cached_property
    def _keyless(self) -> dict[str, list[Keyless]]:
        """These tasks, by the objects they refer to."""
        found: dict[str, list[Keyless]] = {}
        for task in self._data_of(self._unpushed):
            for url in task.objects:
                found.setdefault(url, []).append(task)
        return found

    @cached_property
    def _imported(self) -> dict[str, list[Keyless]]:
        """Those of them that the tool's own storage made, by the object it made each of."""
        found: dict[str, list[Keyless]] = {}
        unpushed = set(self._unpushed)
        for id, url in self.tool.imported_from().items():
            if id in unpushed:
                found.setdefault(url, []).append(Keyless(id, frozenset({url})))
        return found

    def _data_of(self, ids: pl.Series) -> Iterator[Keyless]:
        if self.dry_run:  # the store may not have been brought up to date
            for task in self.tool.read_tasks(ids.to_list()):
                yield Keyless(task.id, self.tool.objects_in(task.data))
        elif len(ids):
            rows = self.store.current(TASK, columns=("task", "content")).filter(
                pl.col("task").is_in(ids.implode())
            )
            for id, content in rows.select("task", "content").iter_rows():
                yield Keyless(id, self.tool.objects_in(json.loads(content)))

    def _adopted(self, listed: Listed) -> bool:
        """Give a task without a key that of the item it refers to; whether the item is dealt with.

        Where no task's data refers to the item's object, that may have been put in its place: then a task
        counts which the tool itself made of that object. What is ambiguous is neither adopted nor pushed, but
        a reject.
        """
        if self._unpushed.is_empty():
            return False
        try:
            ours = self.tool.objects_in(self.source.links(listed, self.tool).data)
        except BadRecord:
            return False  # making it ready says so
        tasks = {task.id: task for url in ours for task in self._keyless.get(url, [])}
        if not tasks:
            ours = self.source.objects_of(listed)
            tasks = {task.id: task for url in ours for task in self._imported.get(url, [])}
        if not tasks:
            return False
        [first, *others] = tasks.values()
        if others:
            named = ", ".join(tasks)
            why = f"tasks {named} all refer to it, and have no key: delete all but one of them"
        elif first.objects != ours:
            why = (
                f"task {first.id}, which has no key, refers to {len(first.objects)} objects, and the item to "
                f"{len(ours)}: delete that task, or let [raw.fields] make one item of these objects"
            )
        else:
            self._alone()
            self.tool.update_item(first.id, Item(key=listed.key, version=listed.version))
            self.done.adopted += 1
            return True
        self.rejects.append(Reject(listed.key, why, listed.version))
        return True

    # new items

    def _send(self, all_of_it: bool) -> None:
        size = self.tool.capabilities.import_batch
        whole = len(self.waiting) if all_of_it else len(self.waiting) // size * size
        for batch in batches(self.waiting[:whole], size):
            self._send_batch(list(self.source.items(batch, self.tool)))
        del self.waiting[:whole]

    def _send_batch(self, batch: list[Item]) -> None:
        """Send a batch. The tool takes all of it or none: a refused one is halved to find the culprit."""
        if not batch:
            return
        self._check_shown(batch)
        self._alone()
        number = self.ledger.begin([item.key for item in batch], datetime.now(UTC))
        try:
            for _ in self.tool.add_items(batch, self.known):
                self.done.new += 1
        except BadRecord as error:
            self.ledger.end(number)
            if len(batch) == 1:
                self.rejects.append(Reject(batch[0].key, error.what, batch[0].version))
                return
            middle = len(batch) // 2
            self._send_batch(batch[:middle])
            self._send_batch(batch[middle:])
        else:
            self.ledger.end(number)

    def _check_shown(self, batch: Sequence[Item]) -> None:
        """Before the first tasks are made: whether annotators will see what one of them shows.

        Raises:
            UsageError: if they will not; nothing was sent then.
        """
        if self.done.new or self.dry_run or len(self.tasks) or not self.tool.capabilities.connect_bucket:
            return
        for item in batch:
            if any(self.source.in_bucket(url) for url in self.tool.objects_in(item.data)):
                self.tool.fetch(item)
                return

    # items that are not what they were

    def _changed(self, task: str, listed: Listed) -> pl.DataFrame:
        """Do what is asked for where an item's content changed; returns the key of another task for it."""
        key = f"{listed.key}#{listed.version}"
        if self.effects.on_change is OnChange.NEW_TASK:
            if key in self.known.keys:
                self.done.known += 1
            else:
                self.done.changed += 1
                self.waiting.append(replace(listed, key=key))
            return pl.DataFrame({"key": [key]})
        if self.effects.on_change is OnChange.FLAG:
            self.flagged[CHANGED_QUEUE].append(task)
            self.done.changed += 1
        elif self._update(task, listed):
            self.done.updated += 1
            self.done.changed += 1
        return pl.DataFrame(schema={"key": pl.String})

    def _update(self, task: str, listed: Listed) -> bool:
        """Let a task show what the item is now; returns whether that can be shown."""
        ready = list(self.source.items([listed], self.tool))
        for item in ready:
            self._alone()
            self.tool.update_item(task, item)
        return bool(ready)

    @cached_property
    def _held(self) -> dict[str, str]:
        """The data of every task."""
        return dict(
            self.store.current(TASK, columns=("task", "content")).select("task", "content").iter_rows()
        )

    def _repaired(self, task: str, listed: Listed) -> bool:
        """Correct the addresses in a task whose item is unchanged; whether any was wrong."""
        if self.effects.on_change is not OnChange.UPDATE or task not in self._held:
            return False
        try:
            links = self.source.links(listed, self.tool).data
        except BadRecord:
            return False
        held = json.loads(self._held[task])
        wrong = {name: url for name, url in links.items() if name in held and held[name] != url}
        if wrong:
            self._alone()
            self.tool.update_item(task, Item(key=listed.key, data=wrong, version=listed.version))
        return bool(wrong)

    def _moved(self, elsewhere: Sequence[Listed], gone: pl.DataFrame) -> pl.DataFrame:
        """Let tasks follow what moved: one key is gone, one has come, and their content is the same.

        Returns:
            What is gone for good.
        """
        came = Counter(listed.version for listed in elsewhere)
        went = Counter(gone["version"])
        task_of = dict(gone.select("version", "task").iter_rows())
        followed = []
        for listed in elsewhere:
            if came[listed.version] == went[listed.version] == 1:
                followed.append(task_of[listed.version])
                self.done.moved += self._update(followed[-1], listed)
            else:
                self.waiting.append(listed)
        return gone.filter(~pl.col("task").is_in(followed))

    def _gone(self, gone: pl.DataFrame) -> None:
        self.done.gone = len(gone)
        if self.effects.on_delete is OnDelete.FLAG:
            self.flagged[GONE_QUEUE] += gone["task"].to_list()
        elif self.effects.on_delete is OnDelete.REMOVE_UNLABELED:
            if len(gone) > max(1, self.effects.most_removed * len(self.tasks)):
                why = f"the raw data of {len(gone)} of {len(self.tasks)} tasks is gone; none was deleted"
                self.rejects.append(Reject("the listing", why))
                self.flagged[GONE_QUEUE] += gone["task"].to_list()
                return
            for task in self.tool.read_tasks(gone["task"].to_list()):
                if task.annotations:
                    self.flagged[GONE_QUEUE].append(task.id)
                    continue
                self._alone()
                try:
                    self.tool.delete_task(task)
                    self.done.removed += 1
                except Conflict:
                    self.flagged[GONE_QUEUE].append(task.id)

    def _flag(self) -> None:
        if self.tool.capabilities.review_queue:
            for name, tasks in self.flagged.items():
                if tasks:
                    # Without the lease: a list is the same however often it is made, and a watch makes it
                    # every round.
                    self.done.queues[name] = self.tool.review_queue(name, tasks)


def _compared(batch: Sequence[Listed], tasks: pl.DataFrame) -> pl.DataFrame:
    """The task and its version of each item of a batch; null where there is none."""
    keys = pl.DataFrame({"key": [listed.key for listed in batch]}, schema={"key": pl.String})
    return keys.join(tasks, on="key", how="left", maintain_order="left")


def connect(tool: LabelingTool, url: str, options: Mapping[str, str]) -> None:
    """Connect the tool to the bucket that the items come from, so that it can show them."""
    if tool.capabilities.connect_bucket and not url.startswith("memory:"):
        tool.connect_bucket(Bucket(url, options))


def image_fields(tool: LabelingTool) -> frozenset[str]:
    """The fields of a task's data that the tool shows as pictures."""
    return frozenset(field for kind, field in tool.read_ontology().objects.values() if kind == "image")


_HELD = ("text", "hypertext", "paragraphs", "list", "table", "chat")


def plain_fields(tool: LabelingTool) -> frozenset[str]:
    """The fields of a task's data that hold what the tool shows itself, and no address of it."""
    ontology = tool.read_ontology()
    found = set()
    for name, (kind, shown_in) in ontology.objects.items():
        default = "json" if kind in _HELD else "url"
        if ontology.object_attributes.get(name, {}).get("valuetype", default).lower() != "url":
            found.add(shown_in)
    return frozenset(found)


def settle(tool: LabelingTool, ledger: Ledger) -> None:
    """Wait for what was sent before a crash: the tool may still be working on it.

    A batch that is not there a while after it was sent never came.
    """
    begun = ledger.begun()
    if not begun:
        return
    keys = [key for _, batch, _ in begun for key in batch]
    since = (datetime.now(UTC) - max(at for *_, at in begun)).total_seconds()
    # Clocks are set back: a batch of the future was not sent a negative time ago.
    left = LONGEST_WAIT_SECONDS - since if since > 0 else LONGEST_WAIT_SECONDS
    waiting = Retrying(
        retry=retry_if_result(lambda arrived: len(arrived) < len(keys)),
        wait=wait_exponential(multiplier=0.5, max=5),
        stop=stop_after_delay(max(left, 0)),
        retry_error_callback=lambda _: None,
    )
    waiting(tool.tasks_of, keys)
    for number, *_ in begun:
        ledger.end(number)


def undouble(tool: LabelingTool, store: Store, rejects: list[Reject]) -> int:
    """Delete the later task where two pushes at the same moment made two of one item; returns how many.

    The store must be what the tool holds. Of two that people have answered none is deleted, but named.
    """
    tasks = store.current(TASK, columns=("key", "task", "created_at"))
    twice = tasks.filter(pl.col("key").is_duplicated())
    answered = set(store.current(ANNOTATION)["task"]) if len(twice) else set()
    deleted = 0
    for (key,), each in twice.sort("created_at").group_by("key", maintain_order=True):
        ids = each["task"].to_list()
        kept = next((id for id in ids if id in answered), ids[0])
        for task in tool.read_tasks([id for id in ids if id != kept]):
            if task.annotations:
                why = f"there are two tasks for it, {kept} and {task.id}, and people answered both"
                rejects.append(Reject(str(key), why))
            else:
                try:
                    tool.delete_task(task)
                except Conflict as error:
                    why = f"there are two tasks for it, {kept} and {task.id}, and {error.what}"
                    rejects.append(Reject(str(key), why))
                else:
                    deleted += 1
    return deleted


def sync(
    tool: LabelingTool,
    store: Store,
    source: Source,
    rejects: list[Reject],
    ledger: Ledger,
    effects: Effects | None = None,
    progress: Progress = lambda _: None,
) -> tuple[Pulled, Pushed]:
    """Pull, push, and pull what the push made: afterwards bucket, tool and store agree.

    One at a time: a second one waits for the first to end.

    Args: as of `push`.
    """
    before = len(rejects)

    def work() -> tuple[Pulled, Pushed]:
        del rejects[before:]
        settle(tool, ledger)
        pulled = _pull(tool, store, progress)
        pushed = _push(tool, store, source, rejects, ledger, effects or Effects(), progress)
        if pushed.new or pushed.updated or pushed.moved or pushed.adopted or pushed.removed:
            pulled += _pull(tool, store)
            pushed.doubles = undouble(tool, store, rejects)
            if pushed.doubles:
                pulled += _pull(tool, store)
        return pulled, pushed.remembered(ledger, source.manifest)

    return _alone(store, work)


# Pull.


def pull(
    tool: LabelingTool, store: Store, progress: Progress = lambda _: None, everything: bool = False
) -> Pulled:
    """Bring what changed in the tool into the store, page by page; each page and its cursor in one commit.

    One at a time: a second one waits for the first to end.

    Args:
        progress: told of every page.
        everything: read also what does not count as changed.

    Returns:
        What changed. Interrupted anywhere, the next pull goes on where the last page was kept.
    """
    return _alone(store, lambda: _pull(tool, store, progress, everything))


def _pull(
    tool: LabelingTool, store: Store, progress: Progress = lambda _: None, everything: bool = False
) -> Pulled:
    done, ontology = Pulled(), tool.read_ontology()

    def keep(tasks: Sequence[Task], cursor: str, gone: Sequence[str] = ()) -> None:
        done.annotations += store.append(tasks, cursor, datetime.now(UTC), gone, ontology)
        done.tasks += len(tasks)
        done.deleted_tasks += len(gone)
        progress(len(tasks))

    def read(since: str | None) -> None:
        for page in tool.changed_tasks(since):
            keep(page.tasks, page.cursor)

    read(None if everything else store.cursor_kept)
    cursor = store.cursor_kept or ""
    gone = _deleted_tasks(tool, store)
    if gone or cursor:
        keep([], cursor, gone)
    for tasks in batches(_silently_changed(tool, store), tool.capabilities.import_batch):
        keep(tasks, cursor)
    if not done.annotations and store.count(ANNOTATION) != tool.count_annotations():
        # A server that died in the middle may have kept an answer, and not called its task changed.
        read(None)
    done.version = store.version
    return done


def _deleted_tasks(tool: LabelingTool, store: Store) -> list[str]:
    """Tasks that we have and the tool has not. Nothing is lost to us, so equal counts mean equal sets."""
    if store.count(TASK) == tool.count_tasks():
        return []
    theirs = set(tool.task_ids())
    return [task for task in store.current(TASK, columns=["task"])["task"] if task not in theirs]


def _silently_changed(tool: LabelingTool, store: Store) -> Iterator[Task]:
    """Tasks whose predictions changed without the tool calling the tasks changed; again by their count."""
    if not tool.capabilities.predictions or store.count(PREDICTION) == tool.count_predictions():
        return
    seen = set()
    for task in tool.tasks_with_predictions():
        seen.add(task.id)
        yield task
    bare = set(store.current(PREDICTION)["task"]) - seen
    yield from tool.read_tasks(sorted(bare))


def standing(tool: LabelingTool, store: Store) -> dict[str, Any]:
    """The state of the project: what the tool and the store hold.

    Returns:
        tasks_in_tool, tasks_in_store, complete (as many people as asked for have answered), answers,
        annotators, skipped, last_pull (None before the first), version.
    """
    answers = store.answers().filter("own")
    people = answers.filter(~pl.col("cancelled"))
    by_task = people.group_by("task").agg(people=pl.col("annotator").n_unique())
    tasks = store.current(TASK, columns=("task", "overlap")).join(by_task, on="task", how="left")
    return {
        "tasks_in_tool": tool.count_tasks(),
        "tasks_in_store": len(tasks),
        "complete": int((tasks["people"].fill_null(0) >= tasks["overlap"]).sum()),
        "answers": len(people),
        "annotators": people["annotator"].n_unique(),
        "skipped": len(answers) - len(people),
        "last_pull": store.last_pull(),
        "version": store.version,
    }
