"""Files of other labeling tools, recognised by their form, so that a refusal can name them.

None of them is read yet. Guessing at one would give numbers that look right and are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from connector.errors import Unsupported

_MTURK = "--columns task=HITId,annotator=WorkerId,label={},seconds=WorkTimeInSeconds"

_XML = {
    "annotations": "a CVAT export",
    "annotation": "a Pascal VOC annotation",
}

_BOXES = [{"x", "y", "width", "height"}, {"x", "y", "w", "h"}, {"xmin", "ymin", "xmax", "ymax"}]
_BOXES += [{"x_min", "y_min", "x_max", "y_max"}, {"x1", "y1", "x2", "y2"}, {"left", "top", "width", "height"}]
_STRETCHES = [{f"start{end}", f"end{end}"} for end in ("", "_frame", "_offset", "_char", "_ms", "_sec")]
_STRETCHES += [{"start_seconds", "end_seconds"}, {"onset", "offset"}, {"begin", "end"}]


def refuse(path: Path, what: str, hint: str = "") -> Unsupported:
    """The error that names a format."""
    return Unsupported(
        f"{path}: this is {what}, which is not supported yet",
        hint or "write its answers to a table with the columns task, annotator, label",
    )


def refuse_xml(path: Path, text: str) -> Unsupported:
    """The error for an XML file, whatever it is."""
    root = re.search(r"<([A-Za-z_][\w.-]*)", re.sub(r"(?s)<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>]*>", "", text))
    name = root[1] if root else "no element"
    return refuse(path, _XML.get(name, f"an XML file ({name})"))


def refuse_table(path: Path, columns: Sequence[str], named: Iterable[str] = ()) -> None:
    """Raise if the columns are those of a tool's own table, or of a table of regions.

    Args:
        named: the roles of columns that the user has named.

    Raises:
        Unsupported: naming what the table is.
    """
    names, named = {name.strip().casefold() for name in columns}, set(named)
    if any(part <= named for part in ({"x", "y"}, {"xmin", "ymin"}, {"start", "end"})):
        raise _regions(path)
    for boxes in (*_BOXES, *_STRETCHES):
        if boxes <= names:
            raise _regions(path)
    if {"task", "annotator", "label"} <= named:
        return
    answers = [name for name in columns if name.startswith("Answer.")]
    if {"hitid", "workerid"} <= names and (answers or "assignmentid" in names):
        hint = _MTURK.format(answers[0] if answers else "COLUMN")
        raise refuse(path, "a Mechanical Turk batch result", f"name its columns: {hint}")
    if any(name.startswith("OUTPUT:") for name in columns):
        answer = next(name for name in columns if name.startswith("OUTPUT:"))
        item = next((name for name in columns if name.startswith("INPUT:")), "COLUMN")
        hint = f"--columns task={item},annotator=ASSIGNMENT:worker_id,label={answer}"
        raise refuse(path, "a Toloka result", f"name its columns: {hint}")


def _regions(path: Path) -> Unsupported:
    return refuse(
        path,
        "a table of regions (a row for each box, span or segment)",
        "use the labeling tool's JSON export; tables of choices are read",
    )


def refuse_json(path: Path, found: object) -> None:
    """Raise if a JSON object is in another tool's form.

    Args:
        found: the whole document, or the first of its records.

    Raises:
        Unsupported: naming whose it is.
    """
    if isinstance(found, Mapping) and (name := _tool_of(found)):
        raise refuse(path, name)


def _tool_of(record: Mapping[str, object]) -> str | None:
    keys = set(record)
    label = record.get("label")
    if {"images", "annotations"} <= keys or {"images", "categories"} <= keys:
        return "a COCO file"
    if "data_row" in keys:
        return "a Labelbox export"
    if keys & {"_task_hash", "_input_hash", "_view_id", "_session_id"}:
        return "a Prodigy export"
    if "source-ref" in keys or any(name.endswith("-metadata") and name[:-9] in keys for name in keys):
        return "a SageMaker Ground Truth manifest"
    if {"fields", "responses"} <= keys or any(name.endswith(".responses") for name in keys):
        return "an Argilla export"
    if "label_annotations" in keys or {"instance_id", "span_annotations"} <= keys:
        return "a Potato export"
    if {"text", "Comments"} <= keys or ("text" in keys and _is_doccano(label)):
        return "a doccano export"
    if {"text", "entities", "relations"} <= keys:
        return "a doccano export"
    if {"version", "flags", "shapes", "imagePath"} <= keys:
        return "a LabelMe file"
    if "_via_img_metadata" in keys:
        return "a VGG Image Annotator project"
    return None


def _is_doccano(label: object) -> bool:
    spans = isinstance(label, list) and all(isinstance(one, list) and len(one) == 3 for one in label)
    return bool(label) and spans
