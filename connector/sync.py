"""Push, pull: the only code that moves items, tasks and annotations between bucket, tool and store."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from connector.adapters.base import Bucket, LabelingTool, batches
from connector.adapters.objects import Object, Objects
from connector.errors import BadRecord, Reject, UsageError
from connector.model import Item
from connector.store import ANNOTATION, TASK, Counts, Store

Progress = Callable[[int], None]
"""Called with how many more are done."""

CHECK_BYTES = 16

# The first bytes of what browsers show. RIFF and ftyp carry their kind behind a length.
_IMAGE_STARTS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF8",
    b"BM",
    b"II*\x00",
    b"MM\x00*",
    b"<svg",
    b"<?xml",
)


@dataclass
class Pushed:
    """What a push did. `found` = `new` + `known` + rejects."""

    found: int = 0
    new: int = 0
    known: int = 0
    rejects: list[Reject] = field(default_factory=list)


@dataclass
class Pulled:
    """What a pull brought: tasks that were read again, and what changed in their annotations."""

    tasks: int = 0
    deleted_tasks: int = 0
    annotations: Counts = field(default_factory=Counts)
    version: int | None = None


def is_image(start: bytes) -> bool:
    """Whether bytes begin as a picture that browsers show does."""
    if start.startswith(_IMAGE_STARTS):
        return True
    return (start[:4] == b"RIFF" and start[8:12] == b"WEBP") or start[4:8] == b"ftyp"


def items_of_bucket(
    objects: Objects, tool: LabelingTool, field: str, rejects: list[Reject], check_images: bool
) -> Iterator[Item]:
    """An item for every object, keyed by its URL; where pictures are shown, what is none is rejected."""
    for found in objects.list():
        why = _broken(objects, found, check_images)
        if why:
            rejects.append(Reject(found.key, why))
        else:
            yield tool.data_for(Item(key=found.key), field, found.key)


def _broken(objects: Objects, found: Object, check_images: bool) -> str:
    if not found.size:
        return "the object is empty"
    if check_images and not is_image(objects.head(found.path, CHECK_BYTES)):
        return "this is not a picture that a browser shows"
    return ""


def items_of_manifest(
    path: Path, tool: LabelingTool, field: str, raw: Objects, rejects: list[Reject]
) -> Iterator[Item]:
    """An item for every row of a CSV, JSONL or Parquet file.

    Column `key` names the item. A column named like the field that is shown holds the object's URL, or its
    path below the bucket's; without it the key is taken for that. All columns become the task's data.
    """
    seen: set[str] = set()
    for number, row in _rows(path, rejects):
        where = f"{path}:{number}"
        key = str(row.get("key") or "").strip()
        if not key:
            rejects.append(Reject(where, "the row has no key: fill the column `key`"))
        elif key in seen:
            rejects.append(Reject(where, f"the key {key} stands in an earlier row: keys name one item each"))
        else:
            seen.add(key)
            shown = str(row.get(field) or key)
            url = shown if "://" in shown else f"{raw.url.rstrip('/')}/{shown.lstrip('/')}"
            data = {name: value for name, value in row.items() if name != "key" and value is not None}
            yield tool.data_for(Item(key=key, data=data), field, url)


def _rows(path: Path, rejects: list[Reject]) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise UsageError(f"there is no manifest {path}", "name a CSV, JSONL or Parquet file")
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            for row in reader:
                yield reader.line_num, {k: v for k, v in row.items() if k and v not in (None, "")}
    elif path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as file:
            yield from _json_lines(path, file, rejects)
    elif path.suffix == ".parquet":
        for number, row in enumerate(pl.read_parquet(path).iter_rows(named=True), 1):
            yield number, row
    else:
        raise UsageError(f"{path} is no manifest we read", "name a .csv, .jsonl or .parquet file")


def _json_lines(
    path: Path, lines: Iterator[str], rejects: list[Reject]
) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            rejects.append(Reject(f"{path}:{number}", f"the line is not JSON: {error}"))
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            rejects.append(Reject(f"{path}:{number}", "the line is not a JSON object"))


def push(
    tool: LabelingTool,
    items: Iterator[Item],
    rejects: list[Reject],
    progress: Progress = lambda _: None,
) -> Pushed:
    """Make every item a task, each exactly once by its key, however often this runs.

    Args:
        items: what should be in the tool.
        rejects: what was not taken already; refused items are added.
        progress: told of every batch.

    Returns:
        How many were new and how many the tool had.
    """
    done, refused = Pushed(rejects=rejects), 0
    known = set(tool.known_keys())
    for batch in batches(items, tool.capabilities.import_batch):
        new = list({item.key: item for item in batch if item.key not in known}.values())
        taken = list(_sent(tool, new, rejects))
        known.update(item.key for item in taken)
        done.found += len(batch)
        done.new += len(taken)
        refused += len(new) - len(taken)
        progress(len(batch))
    done.found += len(rejects) - refused
    done.known = done.found - done.new - len(rejects)
    return done


def _sent(tool: LabelingTool, batch: list[Item], rejects: list[Reject]) -> Iterator[Item]:
    """Send a batch. The tool takes it whole or not at all: a refused one is halved to find the culprit."""
    if not batch:
        return
    try:
        for _ in tool.add_items(batch):
            pass
        yield from batch
    except BadRecord as error:
        if len(batch) == 1:
            rejects.append(Reject(batch[0].key, error.what))
            return
        middle = len(batch) // 2
        yield from _sent(tool, batch[:middle], rejects)
        yield from _sent(tool, batch[middle:], rejects)


def shows_images(tool: LabelingTool, field: str) -> bool:
    """Whether the tool shows this field of a task's data as a picture."""
    return ("image", field) in tool.read_ontology().objects.values()


def connect(tool: LabelingTool, url: str, options: Mapping[str, str]) -> None:
    """Connect the tool to the bucket that the items come from, so that it can show them."""
    if tool.capabilities.connect_bucket and not url.startswith("memory:"):
        tool.connect_bucket(Bucket(url, options))


def pull(tool: LabelingTool, store: Store, progress: Progress = lambda _: None) -> Pulled:
    """Bring what changed in the tool into the store, page by page; each page and its cursor in one commit.

    Args:
        progress: told of every page.

    Returns:
        What changed. Interrupted anywhere, the next pull goes on where the last page was kept.
    """
    done, ontology = Pulled(), tool.read_ontology()
    for page in tool.changed_tasks(store.cursor_kept):
        done.annotations += store.append(page.tasks, page.cursor, datetime.now(UTC), ontology=ontology)
        done.tasks += len(page.tasks)
        progress(len(page.tasks))
    gone, cursor = _deleted_tasks(tool, store), store.cursor_kept or ""
    if gone or cursor:
        done.annotations += store.append([], cursor, datetime.now(UTC), gone, ontology)
        done.deleted_tasks = len(gone)
    done.version = store.version
    return done


def _deleted_tasks(tool: LabelingTool, store: Store) -> list[str]:
    """Tasks that we have and the tool has not. Nothing is lost to us, so equal counts mean equal sets."""
    if store.version is None:
        return []
    ours = store.current(TASK)["task"]
    if len(ours) == tool.count_tasks():
        return []
    theirs = set(tool.task_ids())
    return [task for task in ours if task not in theirs]


def standing(tool: LabelingTool, store: Store) -> dict[str, Any]:
    """Where the line stands: what the tool and the store hold.

    Returns:
        tasks_in_tool, tasks_in_store, complete (as many people as asked for have answered), answers,
        annotators, skipped, last_pull (None before the first), version.
    """
    answers = store.current(ANNOTATION)
    people = answers.filter(~pl.col("cancelled"))
    by_task = people.group_by("task").agg(people=pl.col("annotator").n_unique())
    tasks = store.current(TASK).join(by_task, on="task", how="left")
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
