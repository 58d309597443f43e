"""Labels out: what the store holds, as one file for programs that do not read Delta."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import polars as pl

from connector.errors import UsageError
from connector.io.objects import Objects, placed
from connector.model import Task
from connector.store.label_store import ANNOTATION, TASK, Store, Version

FORMS = (".parquet", ".jsonl", ".json")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and where."""

    place: str
    version: int
    tasks: int
    annotations: int


def export(store: Store, target: Objects, version: Version | None = None, dry_run: bool = False) -> Exported:
    """Write the tasks and annotations that are current as of a version into one file, replacing it.

    `.parquet` has a row for each annotation, with its result as JSON; `.json` is a Label Studio export, and
    `.jsonl` the same with a task on each line. An annotation that a plan of corrections wrote names the plan.

    Args:
        target: the file, by its own URL.
        version: of the store, or a snapshot's name; the newest by default.
        dry_run: only say what would be written.

    Raises:
        UsageError: if the store is empty, has no such version, or the file's name ends otherwise.
    """
    number = store.version if version is None else store.number_of(version)
    if number is None:
        raise UsageError(f"the label store {store.url} is empty", "run `connector pull`")
    folder, name = placed(target.url, target.options)
    suffix = PurePosixPath(name).suffix
    if suffix not in FORMS:
        raise UsageError(f'unsupported file type "{suffix}" of {target.url}', f"use {', '.join(FORMS)}")
    version = number if version is None else version
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "labels"
        if suffix == ".parquet":
            tasks, annotations = _parquet(store, version, file)
        else:
            tasks, annotations = _json(store, version, file, one_list=suffix == ".json")
        if not dry_run:
            folder.write(name, file)
    return Exported(target.url, number, tasks, annotations)


def _parquet(store: Store, version: Version, file: Path) -> tuple[int, int]:
    tasks = store.current(TASK, version).select("task", "key", "version", data="content", overlap="overlap")
    said = store.current(ANNOTATION, version).select(
        "task",
        "annotator",
        "created_at",
        "updated_at",
        "seconds",
        "cancelled",
        "ground_truth",
        "plan",
        annotation="id",
        result="content",
    )
    tasks.join(said, on="task", how="left").sort("task", "annotation").write_parquet(file)
    return len(tasks), len(said)


def _json(store: Store, version: Version, file: Path, one_list: bool) -> tuple[int, int]:
    tasks = annotations = 0
    before, between, after = ("[\n", ",\n", "\n]\n") if one_list else ("", "\n", "\n")
    with file.open("w", encoding="utf-8") as out:
        out.write(before)
        for text, said in _exported(store, version):
            out.write(between if tasks else "")
            out.write(text)
            tasks, annotations = tasks + 1, annotations + said
        out.write(after if tasks or one_list else "")
    return tasks, annotations


def _exported(store: Store, version: Version) -> Iterator[tuple[str, int]]:
    """Each task as Label Studio exports it, and how many annotations it has."""
    written = store.current(ANNOTATION, version).filter(pl.col("plan").is_not_null())
    plans = {(task, id): plan for task, id, plan in written.select("task", "id", "plan").iter_rows()}
    for task in store.tasks(version):
        yield json.dumps(_as_export(task, plans), ensure_ascii=False), len(task.annotations)


def _as_export(task: Task, plans: Mapping[tuple[str, str], str]) -> dict[str, object]:
    return {
        "id": int(task.id) if task.id.isdecimal() else task.id,
        "key": task.key,
        "data": task.data,
        "overlap": task.overlap,
        "annotations": [
            {
                "id": one.id,
                "completed_by": {"email": one.annotator},
                "result": json.loads(one.result),
                "was_cancelled": one.cancelled,
                "ground_truth": one.ground_truth,
                "lead_time": one.seconds,
                "plan": plans.get((task.id, str(one.id))),
                "created_at": one.created_at.isoformat() if one.created_at else None,
                "updated_at": one.updated_at.isoformat() if one.updated_at else None,
            }
            for one in task.annotations
        ],
        "predictions": [
            {
                "id": one.id,
                "model_version": one.model_version,
                "result": json.loads(one.result),
                "score": one.score,
            }
            for one in task.predictions
        ],
    }
