"""A labeling tool that is only looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from connector.adapters.base import Bucket, Known, LabelingTool, Webhook
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
        "read_tasks",
        "count_annotations",
        "count_predictions",
        "tasks_with_predictions",
        "data_for",
    ),
    *("changed_tasks", "task_ids", "count_tasks", "annotators", "read_annotation", "read_task"),
    *("webhooks", "parse_event"),
}


class DryRun:
    """Reads from a tool, writes nothing, and answers what a write would have answered.

    It fails closed: what it does not know is refused, so a new way of writing cannot slip through.

    Args:
        tool: the real one.
    """

    def __init__(self, tool: LabelingTool) -> None:
        self._tool = tool

    def __getattr__(self, name: str) -> Any:
        if name not in _READS:
            raise Unsupported(f"a dry run does not know {name!r}, so it does not do it")
        return getattr(self._tool, name)

    def write_ontology(self, ontology: Ontology) -> Ontology:
        return ontology

    def set_overlap(self, annotators: int) -> None:
        """Nothing is set."""

    def set_task_overlap(self, task_id: str, annotators: int) -> None:
        """Nothing is set."""

    def leave_note(self, task_id: str, note: str | None) -> None:
        """Nothing is left."""

    def add_items(self, items: Iterable[Item], known: Known | None = None) -> Iterator[Task]:
        keys = known.keys if known else self._tool.known_keys()
        for item in items:
            yield Task(id=keys.get(item.key, "new"), key=item.key, data=item.data, version=item.version)

    def update_item(self, task_id: str, item: Item) -> None:
        """Nothing is replaced."""

    def delete_task(self, task: Task) -> None:
        """Nothing is deleted."""

    def write_annotation(self, annotation: Annotation, expect: str | None) -> Annotation:
        if annotation.id is None or expect is None:
            return annotation.model_copy(update={"id": "new"})
        self._expect(annotation.id, expect)
        return annotation

    def delete_annotation(self, id: str, expect: str) -> None:
        self._expect(id, expect)

    def _expect(self, id: str, revision: str) -> None:
        if self._tool.read_annotation(id).revision != revision:
            raise Conflict(f"annotation {id} was changed since it was pulled", "run `connector pull`")

    def write_predictions(self, predictions: Iterable[Prediction]) -> int:
        return sum(1 for _ in predictions)

    def delete_predictions(self, predictions: Iterable[Prediction]) -> int:
        return sum(1 for _ in predictions)

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
