"""The seam to a labeling tool: what every adapter offers and what it promises.

An adapter is bound to one project of one tool. What a tool cannot do is a field of its `Capabilities`;
nothing above this floor asks for a tool's name. Each promise in a docstring below is a test of the
contract suite (`connector/adapters/contract.py`), which every adapter runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from connector.model import Annotation, Annotator, Item, Ontology, Prediction, Task

T = TypeVar("T")

AFTER_DRAFT = "let its author submit or discard the draft, then run it again"
"""What to do where a write would delete an annotator's unsaved work."""


def batches(things: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most `size` things, in order."""
    batch: list[T] = []
    for thing in things:
        batch.append(thing)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a tool can do. What is denied here raises `Unsupported` when asked for.

    Attributes:
        name: the tool's name, for people.
        atomic_write: the tool itself refuses a stale write. Where it does not, the adapter compares just
            before it writes, and an edit in the milliseconds between is not seen.
        one_ground_truth: setting the ground truth on one annotation clears it on the task's others.
        acts_for_others: an annotation can be written in another annotator's name.
        overlap: how many people label each task can be set.
        task_overlap: it can be set for a single task.
        notes: a task can carry a note that people see.
        predictions, webhooks, review_queue, connect_bucket: whether the methods of that name work.
        import_batch: how many items are best sent in one request.
        reserved: fields of a task's data that the adapter keeps for itself; an item with one is refused.
        signs_events: who sent an event is known from its body only, which it signs; else from its headers.
    """

    name: str
    atomic_write: bool
    one_ground_truth: bool
    acts_for_others: bool
    overlap: bool
    task_overlap: bool
    notes: bool
    predictions: bool
    webhooks: bool
    review_queue: bool
    connect_bucket: bool
    import_batch: int = 1000
    reserved: frozenset[str] = frozenset()
    signs_events: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, and what to do when it is not well."""

    name: str
    ok: bool
    found: str
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Some changed tasks, and how far the pull has come once they are kept.

    A cursor is the adapter's own text; nobody else reads it.
    """

    tasks: Sequence[Task]
    cursor: str


@dataclass(frozen=True, slots=True)
class Known:
    """What a store holds of the tool, so that it need not be asked for.

    Attributes:
        keys: the task id of every key.
        cursor: how far the pull had come; what is newer is looked up once, and not for every call with it.
    """

    keys: Mapping[str, str]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Webhook:
    """A registration at the tool: where it knocks when something changed."""

    id: str
    url: str
    active: bool = True
    actions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WakeUp:
    """What an event says: look now. `id` is the same when the same event comes twice.

    Attributes:
        at: when it happened, by the sender's clock; None where it does not say.
    """

    id: str
    action: str
    task_ids: tuple[str, ...] = ()
    annotation_ids: tuple[str, ...] = ()
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where raw data lives, as the tool needs to know it to show it.

    Attributes:
        url: `s3://bucket/prefix` or `file:///folder`.
        options: endpoint, region and keys, under the names obstore gives them.
    """

    url: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)


class LabelingTool(Protocol):
    """One project of one labeling tool."""

    capabilities: Capabilities

    def check(self, bucket: Bucket | None = None) -> list[Check]:
        """Who we are, the version, what is wrong and how to fix it. Never raises for what it finds.

        Args:
            bucket: also look whether the tool itself reaches this.
        """
        ...

    def whoami(self) -> Annotator:
        """In whose name we write."""
        ...

    def read_ontology(self) -> Ontology:
        """The questions as the tool holds them now."""
        ...

    def parse_ontology(self, source: str) -> Ontology:
        """Read an ontology in the tool's own words, without any network.

        Raises:
            UsageError: if that is none.
        """
        ...

    def write_ontology(self, ontology: Ontology) -> Ontology:
        """Replace the questions; returns what the tool holds afterwards.

        Raises:
            UsageError: if the tool refuses the ontology.
        """
        ...

    def set_overlap(self, annotators: int) -> None:
        """Show each task to so many people, each blind to the others."""
        ...

    def set_task_overlap(self, task_id: str, annotators: int) -> None:
        """Show one task to so many people. Twice is once; its annotations stay.

        Raises:
            Conflict: if the task is gone.
        """
        ...

    def leave_note(self, task_id: str, note: str | None) -> None:
        """Leave a note on a task for whoever opens it, in place of the one there; None takes it away.

        A note is no part of the task's data, and does not touch its annotations. Twice is once.

        Raises:
            Conflict: if the task is gone.
        """
        ...

    def add_items(self, items: Iterable[Item], known: Known | None = None) -> Iterator[Task]:
        """Make a task of each item; an item whose key has one already gives that one.

        Looks first, sends once, and looks again where an answer did not come. Tasks come back without
        their annotations, in the order of the items, batch by batch: what was yielded is in the tool.

        Args:
            known: what need not be looked up, since the caller has pulled it.

        Raises:
            BadRecord: naming the key, if the tool refuses an item; its batch is not sent.
        """
        ...

    def tasks_of(self, keys: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """The ids of the tasks that these keys have, the oldest first; a key without one is left out."""
        ...

    def known_keys(self) -> Mapping[str, str]:
        """The task id of every key the tool has."""
        ...

    def update_item(self, task_id: str, item: Item) -> None:
        """Set a task's key and version, and the fields of its data that the item has. Idempotent.

        All other fields of the data, the note and the annotations stay.

        Raises:
            Conflict: if the task is gone.
        """
        ...

    def delete_task(self, task: Task) -> None:
        """Delete a task that still holds what it held; one that is gone is deleted already.

        Raises:
            Conflict: if its annotations are others than those of `task`, or there is an unsaved draft on it.
        """
        ...

    def data_for(self, item: Item, field: str, url: str) -> Item:
        """The item with the object at `url` in `field` of its data, as the tool will show it.

        Raises:
            BadRecord: if the tool cannot show an object of that name.
        """
        ...

    def objects_in(self, data: Mapping[str, Any]) -> frozenset[str]:
        """The URLs of all objects that a task's data refers to, in whatever form the tool stores them."""
        ...

    def imported_from(self) -> Mapping[str, str]:
        """The URL of the object that the tool itself made a task of, by task id.

        Tasks that it did not make, or of which it does not name the object, are left out.
        """
        ...

    def fetch(self, item: Item) -> int:
        """Fetch the objects that an item shows through the tool, as an annotator's browser does.

        Returns:
            How many objects were fetched; 0 where the item shows none that the tool serves.

        Raises:
            UsageError: naming the cause, if an annotator would not see one.
        """
        ...

    def changed_tasks(self, since: str | None) -> Iterator[Page]:
        """Tasks changed since a cursor, each with ALL its current annotations and predictions.

        None is missed; some may come twice. Stopping after any page and going on from its cursor loses
        nothing. Nothing changed: no page, or a page that holds what is known already.
        """
        ...

    def task_ids(self) -> Sequence[str]:
        """The ids of all tasks, to find what was deleted."""
        ...

    def count_tasks(self) -> int:
        """How many tasks there are; cheap."""
        ...

    def annotators(self) -> Sequence[Annotator]:
        """Everyone who may answer."""
        ...

    def read_annotation(self, id: str) -> Annotation:
        """One annotation as the tool holds it now.

        Raises:
            Conflict: if there is none of that id (any more).
        """
        ...

    def write_annotation(self, annotation: Annotation, expect: str | None) -> Annotation:
        """Create (it has no id) or replace an annotation; returns what the tool stored.

        Args:
            expect: the revision of the annotation to be replaced; of a new one that of its task, or None
                where anything may stand there.

        Raises:
            Conflict: if the tool holds another revision than `expect`, or an unsaved draft that it would
                delete; the message names the draft's author where the tool does.
        """
        ...

    def delete_annotation(self, id: str, expect: str) -> None:
        """Delete an annotation that still has the revision `expect`.

        Raises:
            Conflict: if it has another, or is gone, or has an unsaved draft.
        """
        ...

    def read_task(self, id: str) -> Task:
        """One task with all its annotations, and the unsaved drafts on it.

        Raises:
            Conflict: if there is none of that id (any more).
        """
        ...

    def read_tasks(self, ids: Sequence[str]) -> Iterator[Task]:
        """Those of these tasks that are there, each with all annotations, predictions and unsaved drafts."""
        ...

    def count_annotations(self) -> int:
        """How many annotations there are, skipped ones too; cheap."""
        ...

    def count_predictions(self) -> int:
        """How many predictions there are; cheap."""
        ...

    def tasks_with_predictions(self) -> Iterator[Task]:
        """All tasks that have a prediction: some tools store them without calling the task changed."""
        ...

    def write_predictions(self, predictions: Iterable[Prediction]) -> int:
        """Show a model's answers to people; returns how many were stored.

        A task has one prediction of each version of a model: one that says the same is left, one that says
        something else is replaced.
        """
        ...

    def delete_predictions(self, predictions: Iterable[Prediction]) -> int:
        """Take predictions away; returns how many. What is gone is gone already."""
        ...

    def review_queue(self, name: str, task_ids: Sequence[str]) -> str:
        """Make, or replace, a list of tasks in the tool; returns the address where a person finds it."""
        ...

    def connect_bucket(self, bucket: Bucket) -> None:
        """Let the tool show objects of this bucket. Connecting twice is connecting once."""
        ...

    def add_webhook(self, url: str, headers: Mapping[str, str]) -> Webhook:
        """Register an address to be knocked at; the same address twice is one registration."""
        ...

    def webhooks(self) -> Sequence[Webhook]:
        """What is registered."""
        ...

    def remove_webhook(self, id: str) -> None:
        """Take a registration away; one that is not there is taken away already."""
        ...

    def test_webhooks(self) -> None:
        """Let the tool send an event of no interest to every registration. Nothing else changes."""
        ...

    def parse_event(self, headers: Mapping[str, str], body: bytes, secret: str) -> WakeUp | None:
        """Read an event without any network; None if it is of no interest.

        Raises:
            AuthError: if it does not carry the secret.
            BadRecord: if the body is not an event of this tool.
        """
        ...
