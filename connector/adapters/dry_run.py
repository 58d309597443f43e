"""A labeling tool that is only looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from connector.adapters.base import AFTER_DRAFT, Bucket, Known, LabelingTool, Webhook
from connector.errors import Conflict, Unsupported
from connector.model import Annotation, Item, Ontology, Prediction, Task

_READS = {
    *(
        "capabilities",
        "check",
        "whoami",
        "read_ontology",
        "parse_ontology",
        "known_keys",
        "tasks_of",
        "count_annotations",
        "count_predictions",
        "tasks_with_predictions",
        "data_for",
        "objects_in",
        "imported_from",
        "fetch",
    ),
    *("changed_tasks", "task_ids", "count_tasks", "annotators"),
    *("webhooks", "parse_event"),
}


class DryRun:
    """Reads from a tool, writes nothing, and answers what a write would have answered.

    Single tasks are read as they would be after what was written. It fails closed: what it does not know is
    refused, so a new way of writing cannot slip through.

    Args:
        tool: the real one.
    """

    def __init__(self, tool: LabelingTool) -> None:
        self._tool = tool
        self._changed: dict[str, Task] = {}
        self._task_of: dict[str, str] = {}
        self._made = 0

    def __getattr__(self, name: str) -> Any:
        if name not in _READS:
            raise Unsupported(f"a dry run does not know {name!r}, so it does not do it")
        return getattr(self._tool, name)

    def write_ontology(self, ontology: Ontology) -> Ontology:
        return ontology

    def set_overlap(self, annotators: int) -> None:
        """Nothing is set."""

    def set_task_overlap(self, task_id: str, annotators: int) -> None:
        self._change(self.read_task(task_id), overlap=annotators)

    def leave_note(self, task_id: str, note: str | None) -> None:
        self._change(self.read_task(task_id), note=note)

    def read_task(self, id: str) -> Task:
        return self._changed[id] if id in self._changed else self._tool.read_task(id)

    def read_tasks(self, ids: Sequence[str]) -> Iterator[Task]:
        for task in self._tool.read_tasks(ids):
            yield self._changed.get(task.id, task)

    def read_annotation(self, id: str) -> Annotation:
        task = self._changed.get(self._task_of.get(id, ""))
        found = next((a for a in task.annotations if a.id == id), None) if task else None
        return found or self._tool.read_annotation(id)

    def _change(self, task: Task, **new: object) -> None:
        self._changed[task.id] = changed = task.model_copy(update=new)
        self._task_of |= {str(a.id): task.id for a in changed.annotations}

    def add_items(self, items: Iterable[Item], known: Known | None = None) -> Iterator[Task]:
        keys = known.keys if known else self._tool.known_keys()
        for item in items:
            yield Task(id=keys.get(item.key, "new"), key=item.key, data=item.data, version=item.version)

    def update_item(self, task_id: str, item: Item) -> None:
        """Nothing is replaced."""

    def delete_task(self, task: Task) -> None:
        """Nothing is deleted."""

    def write_annotation(self, annotation: Annotation, expect: str | None) -> Annotation:
        task = self.read_task(annotation.task_id)
        if annotation.id is None or expect is None:
            if expect is not None and task.revision != expect:
                raise Conflict(f"task {task.id} was answered since it was pulled", "run `connector pull`")
            self._made += 1
            annotation = annotation.model_copy(update={"id": f"new-{self._made}"})
        else:
            self._expect(annotation.id, expect)
        others = [a for a in task.annotations if a.id != annotation.id]
        was_one = any(a.id == annotation.id and a.ground_truth for a in task.annotations)
        if annotation.ground_truth and not was_one and self._tool.capabilities.one_ground_truth:
            others = [a.model_copy(update={"ground_truth": False}) for a in others]
        self._change(task, annotations=(*others, annotation))
        return annotation

    def delete_annotation(self, id: str, expect: str) -> None:
        held = self._expect(id, expect)
        task = self.read_task(held.task_id)
        self._change(task, annotations=tuple(a for a in task.annotations if a.id != id))

    def _expect(self, id: str, revision: str) -> Annotation:
        held = self.read_annotation(id)
        if held.revision != revision:
            raise Conflict(f"annotation {id} was changed since it was pulled", "run `connector pull`")
        if lost := self.read_task(held.task_id).unsaved(id):
            raise Conflict(lost, AFTER_DRAFT)
        return held

    def write_predictions(self, predictions: Iterable[Prediction]) -> int:
        written = list(predictions)
        for one in written:
            task = self.read_task(one.task_id)
            others = [p for p in task.predictions if p.model_version != one.model_version]
            self._change(task, predictions=(*others, one.model_copy(update={"id": "new"})))
        return len(written)

    def delete_predictions(self, predictions: Iterable[Prediction]) -> int:
        gone = list(predictions)
        for one in gone:
            task = self.read_task(one.task_id)
            self._change(task, predictions=tuple(p for p in task.predictions if p.id != one.id))
        return len(gone)

    def review_queue(self, name: str, task_ids: Sequence[str]) -> str:
        return f"(a queue {name!r} of {len(task_ids)} tasks)"

    def connect_bucket(self, bucket: Bucket) -> None:
        """Nothing is connected."""

    def add_webhook(self, url: str, headers: Mapping[str, str]) -> Webhook:  # noqa: ARG002
        return Webhook("new", url)

    def remove_webhook(self, id: str) -> None:
        """Nothing is removed."""

    def test_webhooks(self) -> None:
        """Nothing is sent."""
