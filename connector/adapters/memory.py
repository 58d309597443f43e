"""A labeling tool in memory: a stand-in for tests and for authors of plugins, never for labels that matter.

It keeps every promise of `LabelingTool` and can be told to break down on the way. Where tools differ it
does as Label Studio does: its ontology is Label Studio's XML, one ground truth per task.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from connector.adapters.base import (
    AFTER_DRAFT,
    Bucket,
    Capabilities,
    Check,
    Known,
    Page,
    WakeUp,
    Webhook,
    batches,
)
from connector.adapters.label_studio.ontology import parse_config
from connector.adapters.signatures import SECRET_HEADER, require_secret
from connector.errors import (
    BadRecord,
    Conflict,
    ConnectorError,
    Temporary,
    Unsupported,
    UsageError,
)
from connector.model import Annotation, Annotator, Item, Ontology, Prediction, Task, dump_json

CAPABILITIES = Capabilities(
    name="memory",
    atomic_write=True,
    one_ground_truth=True,
    acts_for_others=True,
    overlap=True,
    task_overlap=True,
    notes=True,
    predictions=True,
    webhooks=True,
    review_queue=True,
    connect_bucket=True,
)


class Faults:
    """What goes wrong, and when. Calls are counted from 1; each batch and each page is a call of its own."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.refused_keys: set[str] = set()
        self.unavailable: ConnectorError | None = None
        """As long as it is set, every call raises it."""

        self._before: dict[tuple[str, int], BaseException] = {}
        self._after: dict[tuple[str, int], BaseException] = {}

    def fail(self, method: str, call: int, error: BaseException | None = None) -> None:
        """The n-th call of a method raises, and nothing is done."""
        self._before[method, call] = error or Temporary(f"injected: {method} fails")

    def lose_answer(self, method: str, call: int, error: BaseException | None = None) -> None:
        """The n-th call of a method does its work, and its answer never comes."""
        self._after[method, call] = error or Temporary(f"injected: the answer of {method} is lost")

    def refuse(self, key: str) -> None:
        """The item of this key is never taken."""
        self.refused_keys.add(key)

    @contextmanager
    def around(self, method: str) -> Iterator[None]:
        """One call of a method."""
        self.calls[method] += 1
        if self.unavailable:
            raise self.unavailable
        this = (method, self.calls[method])
        if this in self._before:
            raise self._before[this]
        yield
        if this in self._after:
            raise self._after[this]


@dataclass
class ToolProject:
    """What the tool keeps. Several `MemoryTool`s on one project are several clients of one server.

    Attributes:
        people: the names of those who may answer.
        clock: gives the time, in UTC.
        imported: the URL of the object that a storage of the tool's own made a task of, by task id.
        reuse_ids: give the id of the newest task or annotation, once deleted, to the next, as some tools do.
    """

    people: Sequence[str] = ("ann@example.com", "ben@example.com")
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    reuse_ids: bool = False
    ontology: Ontology = field(default_factory=lambda: Ontology(controls=()))
    overlap: int = 1
    tasks: dict[str, Task] = field(default_factory=dict)
    queues: dict[str, list[str]] = field(default_factory=dict)
    buckets: list[str] = field(default_factory=list)
    imported: dict[str, str] = field(default_factory=dict)
    webhooks: dict[str, Webhook] = field(default_factory=dict)
    _last_id: Counter[str] = field(default_factory=Counter)
    _changes: int = 0
    _changed: dict[str, int] = field(default_factory=dict)

    def new_id(self, kind: str, used: Iterable[str]) -> str:
        """The next id of a kind of thing."""
        newest = max(map(int, used), default=0) if self.reuse_ids else self._last_id[kind]
        self._last_id[kind] = newest + 1
        return str(newest + 1)

    def keep(self, task: Task) -> None:
        """Keep a task as it is now; it counts as changed."""
        self._changes += 1
        self._changed[task.id] = self._changes
        self.tasks[task.id] = task.model_copy(update={"updated_at": self.clock()})

    def changed_after(self, change: int) -> list[tuple[int, Task]]:
        """Tasks changed after the n-th change, each with the number of its last, in that order."""
        found = [(n, self.tasks[id]) for id, n in self._changed.items() if n > change and id in self.tasks]
        return sorted(found, key=lambda one: one[0])

    def delete_task(self, id: str) -> None:
        """Take a task away with everything on it, as a person would in the tool."""
        del self.tasks[id]


class MemoryTool:
    """A stand-in for a labeling tool, for tests and for authors of plugins.

    Args:
        project: what it works on; an empty one by default.
        me: in whose name it writes; the first of the project's people by default.
        page_size: how many tasks are on a page of `changed_tasks`.
        capabilities: what it can do; what these deny it refuses.
    """

    def __init__(
        self,
        project: ToolProject | None = None,
        me: str = "",
        page_size: int = 100,
        capabilities: Capabilities = CAPABILITIES,
    ) -> None:
        self.project = project or ToolProject()
        self.faults = Faults()
        self.capabilities = capabilities
        self._me = me or self.project.people[0]
        self._page_size = page_size

    def _need(self, able: bool, what: str) -> None:
        if not able:
            raise Unsupported(f"{self.capabilities.name} has no {what}", "see its capabilities")

    # who we are, the ontology

    def check(self, bucket: Bucket | None = None) -> list[Check]:
        if error := self.faults.unavailable:
            return [Check("tasks", False, error.what, error.hint)]
        found = [Check("tasks", True, f"{len(self.project.tasks)} in memory")]
        return found + ([Check("the tool reaches the bucket", True, bucket.url)] if bucket else [])

    def whoami(self) -> Annotator:
        return next(one for one in self.annotators() if one.name == self._me)

    def annotators(self) -> Sequence[Annotator]:
        with self.faults.around("annotators"):
            return [Annotator(id=str(n), name=name) for n, name in enumerate(self.project.people, 1)]

    def read_ontology(self) -> Ontology:
        with self.faults.around("read_ontology"):
            return self.project.ontology

    def parse_ontology(self, source: str) -> Ontology:
        return parse_config(source)

    def write_ontology(self, ontology: Ontology) -> Ontology:
        with self.faults.around("write_ontology"):
            taken = parse_config(ontology.source)
            for control in taken.controls:
                if control.target and control.target not in taken.objects:
                    raise UsageError(
                        f"the control {control.name!r} is about {control.target!r}, which is not there",
                        "name one of the objects in toName",
                    )
            self.project.ontology = taken
            return taken

    def set_overlap(self, annotators: int) -> None:
        self._need(self.capabilities.overlap, "overlap")
        with self.faults.around("set_overlap"):
            self.project.overlap = annotators
            for task in list(self.project.tasks.values()):
                self.project.keep(task.model_copy(update={"overlap": annotators}))

    def set_task_overlap(self, task_id: str, annotators: int) -> None:
        self._need(self.capabilities.task_overlap, "overlap of single tasks")
        with self.faults.around("set_task_overlap"):
            self.project.keep(self._task(task_id).model_copy(update={"overlap": annotators}))

    def leave_note(self, task_id: str, note: str | None) -> None:
        self._need(self.capabilities.notes, "notes")
        with self.faults.around("leave_note"):
            self.project.keep(self._task(task_id).model_copy(update={"note": note}))

    # items to tasks

    def known_keys(self) -> Mapping[str, str]:
        with self.faults.around("known_keys"):
            return {task.key: task.id for task in self.project.tasks.values()}

    def tasks_of(self, keys: Sequence[str]) -> Mapping[str, Sequence[str]]:
        with self.faults.around("tasks_of"):
            found: dict[str, list[str]] = {}
            for task in sorted(self.project.tasks.values(), key=lambda task: int(task.id)):
                if task.key in set(keys):
                    found.setdefault(task.key, []).append(task.id)
            return found

    def add_items(self, items: Iterable[Item], known: Known | None = None) -> Iterator[Task]:  # noqa: ARG002
        for batch in batches(items, self.capabilities.import_batch):
            with self.faults.around("add_items"):
                tasks = self._take(batch)
            yield from tasks

    def _take(self, batch: Sequence[Item]) -> list[Task]:
        for item in batch:
            self._accept(item)
        known = {task.key: task.id for task in self.project.tasks.values()}
        for item in batch:
            if item.key not in known:
                known[item.key] = self._new_task(item)
        tasks = [self.project.tasks[known[item.key]] for item in batch]
        return [task.model_copy(update={"annotations": (), "predictions": ()}) for task in tasks]

    def update_item(self, task_id: str, item: Item) -> None:
        with self.faults.around("update_item"):
            held = self._task(task_id)
            new = {"key": item.key, "data": {**held.data, **item.data}, "version": item.version}
            self.project.keep(held.model_copy(update=new))

    def delete_task(self, task: Task) -> None:
        with self.faults.around("delete_task"):
            held = self.project.tasks.get(task.id)
            if held is None or held.created_at != task.created_at:
                return
            if held.revision != task.revision:
                raise Conflict(f"task {task.id} was annotated since it was pulled", "run `connector pull`")
            if lost := held.unsaved_anywhere:
                raise Conflict(lost, AFTER_DRAFT)
            self.project.delete_task(task.id)

    def _accept(self, item: Item) -> None:
        missing = {shown for _, shown in self.project.ontology.objects.values()} - item.data.keys()
        if missing or item.key in self.faults.refused_keys:
            raise BadRecord(f"item {item.key} is refused: it lacks {sorted(missing) or 'nothing, but it is'}")

    def _new_task(self, item: Item) -> str:
        id = self.project.new_id("task", self.project.tasks)
        now, overlap = self.project.clock(), self.project.overlap
        task = Task(
            id=id, key=item.key, data=item.data, version=item.version, overlap=overlap, created_at=now
        )
        self.project.keep(task)
        return id

    def data_for(self, item: Item, field: str, url: str) -> Item:
        return item.model_copy(update={"data": {**item.data, field: url}})

    def objects_in(self, data: Mapping[str, Any]) -> frozenset[str]:
        return frozenset(value for value in data.values() if isinstance(value, str) and "://" in value)

    def imported_from(self) -> Mapping[str, str]:
        with self.faults.around("imported_from"):
            return {task: url for task, url in self.project.imported.items() if task in self.project.tasks}

    def fetch(self, item: Item) -> int:
        self._need(self.capabilities.connect_bucket, "connection to a bucket")
        with self.faults.around("fetch"):
            urls = self.objects_in(item.data)
            for url in urls:
                if not url.startswith(tuple(self.project.buckets)):
                    raise UsageError(f"{url} lies in no bucket that is connected", "run `connector push`")
            return len(urls)

    # tasks and their annotations

    def changed_tasks(self, since: str | None) -> Iterator[Page]:
        change = int(since or 0)
        while True:
            with self.faults.around("changed_tasks"):
                changed = self.project.changed_after(change)[: self._page_size]
            if not changed:
                return
            change = changed[-1][0]
            yield Page([task for _, task in changed], str(change))

    def task_ids(self) -> Sequence[str]:
        with self.faults.around("task_ids"):
            return list(self.project.tasks)

    def count_tasks(self) -> int:
        with self.faults.around("count_tasks"):
            return len(self.project.tasks)

    def read_tasks(self, ids: Sequence[str]) -> Iterator[Task]:
        with self.faults.around("read_tasks"):
            yield from [self.project.tasks[id] for id in ids if id in self.project.tasks]

    def count_annotations(self) -> int:
        with self.faults.around("count_annotations"):
            return sum(len(task.annotations) for task in self.project.tasks.values())

    def count_predictions(self) -> int:
        self._need(self.capabilities.predictions, "predictions")
        with self.faults.around("count_predictions"):
            return len(self._predictions())

    def tasks_with_predictions(self) -> Iterator[Task]:
        self._need(self.capabilities.predictions, "predictions")
        with self.faults.around("tasks_with_predictions"):
            yield from [task for task in self.project.tasks.values() if task.predictions]

    def read_task(self, id: str) -> Task:
        with self.faults.around("read_task"):
            return self._task(id)

    def _task(self, id: str) -> Task:
        if id not in self.project.tasks:
            raise Conflict(f"task {id} is gone", "run `connector pull`")
        return self.project.tasks[id]

    def _annotations(self) -> dict[str, Annotation]:
        return {str(a.id): a for task in self.project.tasks.values() for a in task.annotations}

    # single annotations

    def read_annotation(self, id: str) -> Annotation:
        with self.faults.around("read_annotation"):
            return self._annotation(id)

    def _annotation(self, id: str, expect: str | None = None) -> Annotation:
        found = self._annotations().get(id)
        if found is None:
            raise Conflict(f"annotation {id} is gone", "run `connector pull`, then plan again")
        if expect is not None and found.revision != expect:
            raise Conflict(f"annotation {id} was changed", "run `connector pull`, then plan again")
        return found

    def write_annotation(self, annotation: Annotation, expect: str | None) -> Annotation:
        with self.faults.around("write_annotation"):
            now = self.project.clock()
            if annotation.id is None or expect is None:
                if expect is not None and self._task(annotation.task_id).revision != expect:
                    raise Conflict(
                        f"task {annotation.task_id} was answered meanwhile", "run `connector pull`"
                    )
                id, created = self.project.new_id("annotation", self._annotations()), now
            else:
                held = self._annotation(annotation.id, expect)
                self._nothing_unsaved(held)
                id, created = str(held.id), held.created_at or now
            stored = annotation.model_copy(
                update={
                    "id": id,
                    "annotator": self._author(annotation.annotator),
                    "result": dump_json(json.loads(annotation.result)),
                    "created_at": created,
                    "updated_at": now,
                }
            )
            self._replace(stored.task_id, id, stored)
            return stored

    def _author(self, name: str) -> str:
        if name and name != self._me:
            self._need(self.capabilities.acts_for_others, "way to write in another's name")
        if name and name not in self.project.people:
            raise UsageError(f"nobody here is called {name!r}", "write in your own name")
        return name or self._me

    def _replace(self, task_id: str, id: str, stored: Annotation | None) -> None:
        task = self._task(task_id)
        kept = [a for a in task.annotations if a.id != id]
        is_one_already = any(a.id == id and a.ground_truth for a in task.annotations)
        if stored and stored.ground_truth and not is_one_already and self.capabilities.one_ground_truth:
            # The siblings keep their `updated_at`, as on Label Studio.
            kept = [a.model_copy(update={"ground_truth": False}) for a in kept]
        kept += [stored] if stored else []
        kept.sort(key=lambda a: int(a.id or 0))
        self.project.keep(task.model_copy(update={"annotations": tuple(kept)}))

    def delete_annotation(self, id: str, expect: str) -> None:
        with self.faults.around("delete_annotation"):
            held = self._annotation(id, expect)
            self._nothing_unsaved(held)
            self._replace(held.task_id, id, None)

    def _nothing_unsaved(self, held: Annotation) -> None:
        if lost := self._task(held.task_id).unsaved(held.id):
            raise Conflict(lost, AFTER_DRAFT)

    # predictions, the review queue, the bucket

    def write_predictions(self, predictions: Iterable[Prediction]) -> int:
        self._need(self.capabilities.predictions, "predictions")
        with self.faults.around("write_predictions"):
            stored = 0
            for one in predictions:
                task = self._task(one.task_id)
                kept = [p for p in task.predictions if p.model_version != one.model_version]
                same = [p for p in task.predictions if p not in kept and _says(p) == _says(one)]
                if not same:
                    now = self.project.clock()
                    id = self.project.new_id("prediction", self._predictions())
                    same = [one.model_copy(update={"id": id, "created_at": now, "updated_at": now})]
                    stored += 1
                self.project.keep(task.model_copy(update={"predictions": (*kept, *same[:1])}))
            return stored

    def _predictions(self) -> list[str]:
        return [str(p.id) for task in self.project.tasks.values() for p in task.predictions]

    def delete_predictions(self, predictions: Iterable[Prediction]) -> int:
        self._need(self.capabilities.predictions, "predictions")
        with self.faults.around("delete_predictions"):
            gone = {(one.id, one.created_at) for one in predictions}
            before = len(self._predictions())
            for task in list(self.project.tasks.values()):
                kept = tuple(p for p in task.predictions if (p.id, p.created_at) not in gone)
                if len(kept) < len(task.predictions):
                    self.project.keep(task.model_copy(update={"predictions": kept}))
            return before - len(self._predictions())

    def review_queue(self, name: str, task_ids: Sequence[str]) -> str:
        self._need(self.capabilities.review_queue, "review queue")
        with self.faults.around("review_queue"):
            self.project.queues[name] = list(task_ids)
            return f"memory:queue/{name}"

    def connect_bucket(self, bucket: Bucket) -> None:
        self._need(self.capabilities.connect_bucket, "connection to a bucket")
        with self.faults.around("connect_bucket"):
            if bucket.url not in self.project.buckets:
                self.project.buckets.append(bucket.url)

    # webhooks

    def add_webhook(self, url: str, headers: Mapping[str, str]) -> Webhook:  # noqa: ARG002 nothing is sent
        self._need(self.capabilities.webhooks, "webhooks")
        with self.faults.around("add_webhook"):
            return self.project.webhooks.setdefault(url, Webhook(url, url))

    def webhooks(self) -> Sequence[Webhook]:
        self._need(self.capabilities.webhooks, "webhooks")
        with self.faults.around("webhooks"):
            return list(self.project.webhooks.values())

    def remove_webhook(self, id: str) -> None:
        self._need(self.capabilities.webhooks, "webhooks")
        with self.faults.around("remove_webhook"):
            self.project.webhooks.pop(id, None)

    def test_webhooks(self) -> None:
        self._need(self.capabilities.webhooks, "webhooks")
        with self.faults.around("test_webhooks"):
            """Nothing is sent."""

    def parse_event(self, headers: Mapping[str, str], body: bytes, secret: str) -> WakeUp | None:
        self._need(self.capabilities.webhooks, "webhooks")
        require_secret(headers, SECRET_HEADER, secret)
        try:
            event = json.loads(body)
            action, task, annotation = str(event["action"]), event.get("task"), event.get("annotation")
            tasks = (str(task["id"]),) if task else ()
            annotations = (str(annotation["id"]),) if annotation else ()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadRecord(f"this is not an event: {error!r}") from error
        if not action.startswith(("ANNOTATION", "TASK")):
            return None
        return WakeUp(dump_json(event), action, tasks, annotations)


def _says(prediction: Prediction) -> tuple[str, float | None]:
    return dump_json(json.loads(prediction.result)), prediction.score
