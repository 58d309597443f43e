"""Labels from the files that Label Studio exports: JSON, JSON_MIN, CSV and TSV."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import polars as pl

from connector.errors import Reject, UsageError
from connector.io.reading import Read, Reading, counted, merged_spelling, similar_notices
from connector.io.tables import Records, is_unicode
from connector.model import Ontology, Role
from connector.quality.answers import ABSENT
from connector.quality.kinds import BOX
from connector.quality.units import latest, with_turns
from connector.store.labels import GOLD, TASKS, Loaded, Tables, count_answers

_KNOWN = {
    *("id", "annotation_id", "annotator", "created_at", "updated_at", "lead_time", "agreement"),
    *("predictions", "inner_id", "project", "draft_id", "ground_truth", "was_cancelled", "meta"),
}
"""Columns of a short export that are neither the task's data nor an answer."""

_LABELED = "labels"


def is_export(records: Sequence[object]) -> bool:
    """Whether these are tasks with their annotations."""
    return any(isinstance(one, dict) and _annotations(one) is not None for one in records)


def is_short(names: Sequence[str]) -> bool:
    """Whether these are the columns of a CSV, TSV or JSON_MIN export."""
    return {"annotation_id", "annotator", "id"} <= set(names)


def _annotations(task: Mapping[str, Any]) -> object:
    """A task's annotations; `completions` in files written before version 1.0."""
    return task.get("annotations", task.get("completions"))


def read_export(
    records: Records,
    path: Path,
    source: Mapping[str, Any],
    rejects: Sequence[Reject],
    gold: bool,
    ontology: Ontology | None,
    reading: Reading,
) -> Loaded:
    """Labels from a JSON export.

    Drafts are not read, cancelled annotations are no answers. An annotation that stands in the file several
    times counts once, as the last of them says.
    """
    tables = Tables(ontology)
    tables.rejects += rejects
    kept: dict[object, tuple[str, str, str, dict[str, Any], object]] = {}
    rows = drafts = cancelled = copies = 0
    seen: set[str] = set()
    again: dict[str, None] = {}
    for number, (_, task) in enumerate(records.found):
        where = f"{path}: task {number}"
        name = name_of(task.get("id")) if isinstance(task, dict) else None
        annotations = _annotations(task) if name is not None else None
        if name is None or not isinstance(annotations, list):
            tables.rejects.append(Reject(where, "a task needs an id and its annotations"))
            continue
        again |= {name: None} if name in seen else {}
        seen.add(name)
        drafts += len(task["drafts"]) if isinstance(task.get("drafts"), list) else 0
        for at, annotation in enumerate(annotations):
            place = f"{where}, annotation {at}"
            rows += 1
            if not isinstance(annotation, dict):
                tables.rejects.append(Reject(place, "an annotation must be a JSON object"))
                continue
            if annotation.get("was_cancelled"):
                cancelled += 1
                continue
            own = annotation.get("id")
            key = (name, json.dumps(annotation if own is None else own, sort_keys=True))
            copies += key in kept
            kept[key] = (name, f"{number}/{at}", place, annotation, task.get("data"))
    moved = 0
    for name, id, place, annotation, data in kept.values():
        spans, annotation = _counted_as_browsers(annotation, data)
        moved += spans
        _add(tables, name, id, annotation, place, gold, data)
    notices = [
        *records.notices,
        *(
            [f"{counted(len(again), 'task')} listed several times, counted once: {_some(again)}"]
            if again
            else []
        ),
        *([f"{counted(drafts, 'draft')} not read"] if drafts else []),
        *([f"{counted(cancelled, 'cancelled annotation')} not counted as answers"] if cancelled else []),
        *(
            [f"{counted(moved, 'span')} counted another way than browsers do, and moved to the text"]
            if moved
            else []
        ),
    ]
    return _read(tables, path, source, reading, rows, copies, notices)


def read_short(
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    names: Sequence[str],
    path: Path,
    source: Mapping[str, Any],
    rejects: Sequence[Reject],
    gold: bool,
    ontology: Ontology | None,
    reading: Reading,
) -> Loaded:
    """Labels from a CSV, TSV or JSON_MIN export: a row for each annotation, a column for each question.

    Args:
        rows: where each stands, and its cells by column.

    Raises:
        UsageError: if it cannot be told which columns are answers.
    """
    asked, data = _questions(rows, names, path, ontology, reading)
    tables = Tables(ontology)
    tables.rejects += rejects
    last: dict[tuple[str, str], int] = {}
    copies = 0
    for at, (_, row) in enumerate(rows):
        key = (str(row.get("id")), str(row.get("annotation_id")))
        copies += key in last
        last[key] = at
    for at in sorted(last.values()):
        where, row = rows[at]
        task = name_of(row.get("id"))
        if task is None:
            tables.rejects.append(Reject(where, "a row needs the id of its task"))
            continue
        result = [one for name in asked for one in _regions(name, row.get(name), ontology)]
        took = row.get("lead_time")
        with suppress(ValueError):  # refused below, with the rest
            took = float(took) if isinstance(took, str) and took else took
        annotation = {
            "result": result,
            "completed_by": row.get("annotator"),
            "lead_time": None if took == "" else took,
            "created_at": row.get("created_at") or None,
            "ground_truth": str(row.get("ground_truth")).lower() == "true",
            "was_cancelled": str(row.get("was_cancelled")).lower() == "true",
        }
        if annotation["was_cancelled"]:
            continue
        _add(tables, task, f"{at}", annotation, where, gold, {name: row.get(name) for name in data})
    notices = [f"{path} is a short export of Label Studio; read as answers: {', '.join(asked)}"]
    found = _read(tables, path, source, reading, len(rows), copies, notices)
    return replace(found, read=found.read and replace(found.read, ignored=data))


def _questions(
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    names: Sequence[str],
    path: Path,
    ontology: Ontology | None,
    reading: Reading,
) -> tuple[list[str], list[str]]:
    """The columns that are answers, and those of the task's data.

    A short export does not say which is which. The data of a task is the same in all its rows, so a column
    that differs within a task is an answer, and so is one of regions.
    """
    others = [name for name in dict.fromkeys(names) if name and name not in _KNOWN]
    if named := reading.columns.get("label"):
        missing = [name for name in named if name not in names]
        if missing:
            raise UsageError(f"{path} has no column {missing[0]}", f"it has {', '.join(names)}")
        return list(named), [name for name in others if name not in named]
    if ontology is not None:
        asked = [name for name in others if ontology.control(name)]
    else:
        first: dict[tuple[object, str], object] = {}
        differs = set()
        for _, row in rows:
            for name in others:
                value = row.get(name)
                said = first.setdefault((row.get("id"), name), value)
                if said != value or _regions_in(value):
                    differs.add(name)
        asked = [name for name in others if name in differs]
    if not asked:
        raise UsageError(
            f"{path} is a short export of Label Studio that does not say which of its columns "
            f"{', '.join(others)} are answers",
            "name them with --columns label=COLUMN, or use the full JSON export",
        )
    return asked, [name for name in others if name not in asked]


def _json(cell: object) -> object:
    """A cell of a CSV export that is JSON; any other as it is."""
    if isinstance(cell, str) and cell[:1] in ("[", "{"):
        try:
            return json.loads(cell)
        except ValueError:
            return cell
    return cell


def _regions_in(cell: object) -> bool:
    found = _json(cell)
    return isinstance(found, list) and any(isinstance(one, dict) and _type(one) for one in found)


def _type(value: Mapping[str, Any]) -> str | None:
    """The type of the region whose value this is: the name under which it has its labels."""
    return next((name for name in value if name.endswith(_LABELED)), None)


def _regions(control: str, cell: object, ontology: Ontology | None) -> Iterator[dict[str, Any]]:
    """What a cell answers, as the regions of a result."""
    found = _json(cell)
    if found is None or found == "":
        return
    known = ontology.control(control) if ontology else None
    kind = known.kind if known else None
    head = {"from_name": control, "to_name": known.target if known else "object"}
    if isinstance(found, dict) and len(found) == 1 and isinstance(next(iter(found.values())), list):
        ((name, many),) = found.items()  # several of a kind: {"choices": ["a", "b"]}
        yield {**head, "type": kind or name, "value": {kind or name: many}}
        return
    if isinstance(found, list) and found and all(isinstance(one, dict) for one in found):
        for number, one in enumerate(found):
            size = {key: one[key] for key in ("original_width", "original_height") if key in one}
            value = {key: part for key, part in one.items() if key not in size}
            yield {**head, "id": f"{control}{number}", "type": _type(one) or kind, "value": value, **size}
        return
    if kind in (None, "choices") and isinstance(found, str):
        kind, found = "choices", [found]
    elif kind is None and isinstance(found, list) and all(isinstance(one, list) for one in found):
        kind = "taxonomy"
    elif kind is None:
        kind = "choices" if isinstance(found, list) else "number"
    elif kind == "textarea":
        yield {**head, "type": kind, "value": {"text": found if isinstance(found, list) else [found]}}
        return
    if kind in ("number", "rating") and isinstance(found, str):
        with suppress(ValueError):  # refused with its place
            found = float(found)
    yield {**head, "type": kind, "value": {kind: found}}


def _add(
    tables: Tables,
    task: str,
    id: str,
    annotation: Mapping[str, Any],
    where: str,
    gold: bool,
    data: object,
) -> None:
    by = annotation.get("completed_by")
    name = (name_of(by.get("email")) or name_of(by.get("id"))) if isinstance(by, dict) else name_of(by)
    if name is None and not gold:
        tables.rejects.append(Reject(where, "no annotator is named in completed_by"))
        return
    try:
        stamp = annotation.get("created_at")
        created_at = _utc(datetime.fromisoformat(stamp)) if stamp else None
    except (TypeError, ValueError, OverflowError) as error:
        tables.rejects.append(Reject(where, f"created_at cannot be read: {error}"))
        return
    took = annotation.get("lead_time")
    if took is not None and not (_is_number(took) and took >= 0):
        tables.rejects.append(Reject(where, f"lead_time must be a number from 0 on, found {took!r}"[:200]))
        return
    role, known = Role.GOLD if gold else Role.PERSON, gold or bool(annotation.get("ground_truth"))
    head = (task, id, name or GOLD, role.value, known, None if took is None else float(took), created_at)
    tables.add(head, where, annotation.get("result"), lambda: data if isinstance(data, dict) else {})


def _counted_as_browsers(annotation: Mapping[str, Any], data: object) -> tuple[int, dict[str, Any]]:
    """An annotation whose text spans are counted in UTF-16 units, and how many were counted otherwise.

    Scripts count characters, or line ends of two characters as one; a span's own `text` tells.
    """
    result, texts = annotation.get("result"), data.values() if isinstance(data, dict) else ()
    shown = [text for text in texts if isinstance(text, str)]
    if not isinstance(result, list) or all(text.isascii() and "\r" not in text for text in shown):
        return 0, dict(annotation)
    coded = [_utf16(text) for text in shown]
    moved, regions = 0, []
    for region in result:
        value = region.get("value") if isinstance(region, dict) else None
        if isinstance(value, dict) and type(value.get("start")) is int and type(value.get("end")) is int:
            here, said = (value["start"], value["end"]), value.get("text")
            right = isinstance(said, str) and any(
                code[2 * here[0] : 2 * here[1]] == _utf16(said) for code in coded
            )
            found = [] if right else [place for text in shown if (place := _place(text, here, said))]
            if found:
                moved += 1
                region = {**region, "value": {**value, "start": found[0][0], "end": found[0][1]}}
        regions.append(region)
    return moved, {**annotation, "result": regions}


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass")


def _place(text: str, here: tuple[int, int], said: object) -> tuple[int, int] | None:
    """Where a span is in a text, in UTF-16 units, if one way of counting finds what it says."""
    start, end = here
    if not isinstance(said, str) or not 0 <= start < end:
        return None
    # The characters of the text as they may have been counted, each with where it is.
    places = list(accumulate((1 + (character > "\uffff") for character in text), initial=0))
    whole = list(range(len(text)))
    joined = [n for n in whole if text[n : n + 2] != "\r\n"]
    for kept in (whole, joined):
        for wide in (True, False):
            units = [n for n in kept for _ in range(1 + (wide and text[n] > "\uffff"))]
            if end <= len(units) and "".join(text[n] for n in dict.fromkeys(units[start:end])) == said:
                return places[units[start]], places[units[end - 1] + 1]
    return None


def _within_pictures(regions: pl.DataFrame, controls: Mapping[str, str]) -> tuple[pl.DataFrame, int]:
    """Regions whose upright boxes end where their picture does, and how many boxes were clipped."""
    boxes = [name for name, kind in controls.items() if kind == BOX]
    x, y, width, height, turn = (pl.col("shape").list.get(n, null_on_oob=True) for n in range(5))
    slack = 1e-6  # of percent: what rounding leaves
    outside = (pl.min_horizontal(x, y) < -slack) | (pl.max_horizontal(x + width, y + height) > 100 + slack)
    clip = (pl.col("control").is_in(boxes) & (turn == 0) & outside).fill_null(value=False)
    left, top = x.clip(0, 100), y.clip(0, 100)
    sides = [left, top, (x + width).clip(0, 100) - left, (y + height).clip(0, 100) - top, turn]
    count = int(regions.select(clip.sum()).item())
    return regions.with_columns(shape=pl.when(clip).then(pl.concat_list(sides)).otherwise("shape")), count


def name_of(value: object) -> str | None:
    """An id as text; None if it names nothing."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    return str(value) if str(value).strip() and is_unicode(str(value)) else None


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < math.inf if isinstance(value, float) else abs(value) < 2**63


def _utc(at: datetime) -> datetime:
    """A time without a zone is UTC, wherever the program runs."""
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def _some(names: Mapping[str, object] | Sequence[str]) -> str:
    first = list(names)[:3]
    return ", ".join(first) + (", …" if len(names) > len(first) else "")


def _without_earlier(found: Loaded) -> Loaded:
    """Only the last annotation of each annotator of a task."""
    answers = latest(with_turns(found.labels.answers)).drop("turn")
    regions, uncounted = (
        frame.join(answers, on="annotation", how="semi", maintain_order="left")
        for frame in (found.labels.regions, found.labels.uncounted)
    )
    labels = replace(found.labels, answers=answers, regions=regions, uncounted=uncounted)
    return replace(found, labels=labels, answered=count_answers(labels))


def _read(
    tables: Tables,
    path: Path,
    source: Mapping[str, Any],
    reading: Reading,
    rows: int,
    copies: int,
    notices: list[str],
) -> Loaded:
    """The labels, with what was found in the file."""
    found = tables.done(source, pl.DataFrame(schema=TASKS))
    if reading.repeats == "labels":
        raise UsageError(
            f"{path} is an export, in which each annotation has all its labels",
            "--repeats labels is for tables; give --repeats last or all",
        )
    people = found.labels.answers.filter(pl.col("role") != Role.GOLD)
    twice = Counter(people.select("task", "annotator").iter_rows())
    repeats = [f"{task} of {annotator}" for (task, annotator), n in twice.items() if n > 1]
    if reading.repeats == "last":
        found = _without_earlier(found)
    if repeats:
        earlier = (
            "earlier ones are not read" if reading.repeats == "last" else "earlier ones show consistency"
        )
        notices.append(
            f"{counted(len(repeats), 'task')} annotated several times by one person: {_some(repeats)}; "
            f"the last annotation counts, {earlier}"
        )
    given = found.labels.regions.filter(pl.col("label") != ABSENT)
    empty = len(found.labels.answers.join(given, on="annotation", how="anti"))
    if empty:
        how = "an answer that nothing is there"
        if tables.ontology is None:
            how = "an answer to the drawn controls that other annotations use; --ontology FILE names all"
        notices.append(f"{counted(empty, 'submitted annotation')} left empty: {how}")
    regions, clipped = _within_pictures(found.labels.regions, found.labels.controls)
    if clipped:
        notices.append(f"{counted(clipped, 'box')} reaching beyond the picture, clipped to it")
    bare = len(regions.filter(pl.col("shape").is_not_null() & (pl.col("label") == "")))
    if bare:
        notices.append(f"{counted(bare, 'drawn region')} without a label, counted as drawn")
    regions, similar = merged_spelling(regions, found.labels.controls, reading.merge_similar)
    labels = regions.filter(pl.col("label") != ABSENT)["label"]
    read = Read(
        file=str(path),
        rows=rows,
        tasks=found.labels.answers["task"].n_unique(),
        annotators=found.labels.answers["annotator"].n_unique(),
        labels=labels.n_unique(),
        repeats=copies + sum(n - 1 for n in twice.values()),
        identical=copies,
        empty=empty,
        empty_counted=bool(found.labels.controls),
        similar=similar,
        rejects=len(found.rejects),
        notices=[*notices, *similar_notices(similar, reading.merge_similar)],
    )
    return replace(found, labels=replace(found.labels, regions=regions), read=read)
