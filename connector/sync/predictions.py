"""A model's answers, to be shown to people: read from a file, checked, and put in place of stale ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from connector.adapters.base import LabelingTool, batches
from connector.errors import BadRecord, Reject, UsageError
from connector.model import Ontology, Prediction, dump_json
from connector.regions import check_result
from connector.store.label_store import PREDICTION, TASK, Store, prediction_of
from connector.sync.items import json_lines


@dataclass
class Predicted:
    """What was done: predictions in the file, stored anew, and stale ones taken away."""

    found: int = 0
    stored: int = 0
    replaced: int = 0
    rejects: list[Reject] = field(default_factory=list)


def push_predictions(
    tool: LabelingTool,
    store: Store,
    file: Path,
    keep_others: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Predicted:
    """Show a model's answers to people.

    A task shows what the file says and nothing of other models, unless those are kept. What is there already
    is left as it is, so it can be run again. Pull first, and pull again afterwards.

    Args:
        file: JSON lines with `key` or `task`, `result` (a list of regions), `model_version`, perhaps `score`.
        keep_others: leave what other models said.
        progress: told of every batch.
    """
    done = Predicted()
    tasks = store.current(TASK, columns=("task", "key", "content"))
    held = store.current(PREDICTION).partition_by("task", as_dict=True)
    data = dict(tasks.select("task", "content").iter_rows())
    ids = {id: id for id in data} | dict(tasks.select("key", "task").iter_rows())
    reader = _Reader(file, ids, data, tool.read_ontology(), done.rejects)
    for batch in batches(reader, tool.capabilities.import_batch):
        if not keep_others:
            meant = {(one.task_id, one.model_version) for one in batch}
            others = [
                prediction
                for task in {one.task_id for one in batch}
                for row in held.get((task,), pl.DataFrame()).iter_rows(named=True)
                if (task, (prediction := prediction_of(row)).model_version) not in meant
            ]
            done.replaced += tool.delete_predictions(others)
        done.stored += tool.write_predictions(batch)
        done.found += len(batch)
        progress(len(batch))
        store.renew()
    done.found += len(done.rejects)
    return done


@dataclass
class _Reader:
    """The predictions of a file; what is none is rejected with its line."""

    file: Path
    ids: Mapping[str, str]
    data: Mapping[str, str]
    ontology: Ontology
    rejects: list[Reject]

    def __iter__(self) -> Iterator[Prediction]:
        if not self.file.is_file():
            raise UsageError(f"file not found: {self.file}", "name a .jsonl file of predictions")
        with self.file.open("rb") as lines:
            for number, row in json_lines(lines, str(self.file), self.rejects):
                try:
                    yield self._read(row)
                except BadRecord as error:
                    self.rejects.append(Reject(f"{self.file}:{number}", error.what))

    def _read(self, row: Mapping[str, Any]) -> Prediction:
        name = str(row.get("key") or row.get("task") or "")
        if name not in self.ids:
            raise BadRecord(f"no task has the key or id {name!r}")
        task, model, score = self.ids[name], row.get("model_version"), row.get("score")
        if not isinstance(model, str) or not model:
            raise BadRecord(f"model_version must be a name, found {model!r}")
        if score is not None and not _is_score(score):
            raise BadRecord(f"score must be a number from 0 to 1, found {score!r}")
        check_result(row.get("result"), self.ontology, lambda: json.loads(self.data[task]))
        return Prediction(task_id=task, result=dump_json(row["result"]), model_version=model, score=score)


def _is_score(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value <= 1
