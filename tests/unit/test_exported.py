"""Exports of Label Studio with what breaks converters: nothing is read wrongly or lost silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter.brush import encode_rle

from connector.formats.label_files import read_file
from connector.store.labels import Loaded

BOX = {"x": 1, "y": 2, "width": 3, "height": 4, "rotation": 0, "rectanglelabels": ["car"]}


def region(value: dict[str, Any], type_: str = "rectanglelabels", size: int = 10) -> dict[str, Any]:
    size_of = {"original_width": size, "original_height": size}
    return {"id": "r", "from_name": "what", "to_name": "it", "type": type_, **size_of, "value": value}


def read(tmp_path: Path, *results: list[dict[str, Any]], **data: str) -> Loaded:
    """Each result as the only annotation of a task."""
    tasks = [
        {"id": n, "data": data, "annotations": [{"id": n, "completed_by": 1, "result": result}]}
        for n, result in enumerate(results)
    ]
    (tmp_path / "a.json").write_text(json.dumps(tasks))
    return read_file(tmp_path / "a.json")


def notices(loaded: Loaded) -> str:
    assert loaded.read
    return "\n".join(loaded.read.notices)


def test_a_box_without_numbers_is_one_reject_with_its_place(tmp_path: Path) -> None:
    nothing = BOX | dict.fromkeys(("x", "y", "width", "height"))
    loaded = read(tmp_path, [region(BOX)], [region(nothing)], [region(BOX)])
    (reject,) = loaded.rejects
    assert reject.where.endswith("task 1, annotation 0")
    assert "value.x must be a finite number, found None" in reject.why
    assert loaded.labels.answers["task"].to_list() == ["0", "2"]


def test_a_mask_with_more_runs_than_its_picture_is_refused_with_both_numbers(tmp_path: Path) -> None:
    pixels = np.zeros((20, 20, 4), dtype=np.uint8)
    pixels[2:5, 2:5] = 255
    value = {"format": "rle", "rle": encode_rle(pixels.ravel()), "brushlabels": ["car"]}
    fits = region(value, "brushlabels", 20)
    loaded = read(tmp_path, [fits], [region(value, "brushlabels", 10)])
    (reject,) = loaded.rejects
    assert reject.where.endswith("task 1, annotation 0")
    assert "1600" in reject.why
    assert "400" in reject.why
    assert loaded.labels.answers["task"].to_list() == ["0"]


def test_a_box_without_a_label_is_read_and_reported(tmp_path: Path) -> None:
    bare = {name: side for name, side in BOX.items() if name != "rectanglelabels"}
    loaded = read(tmp_path, [region(BOX)], [region(bare)], [region(bare, "rectangle")])
    assert loaded.labels.regions["label"].to_list() == ["car", "", ""]
    assert "2 drawn regions without a label" in notices(loaded)


def test_an_empty_result_is_an_answer(tmp_path: Path) -> None:
    loaded = read(tmp_path, [region(BOX)], [])
    assert loaded.labels.answers["task"].to_list() == ["0", "1"]
    assert loaded.labels.regions["task"].to_list() == ["0"]
    assert "1 submitted annotation left empty" in notices(loaded)
    assert str(loaded.read).endswith(": 2 rows, 2 tasks, 1 annotator, 1 label, 1 empty answer")


def test_boxes_beyond_the_picture_are_clipped_and_counted(tmp_path: Path) -> None:
    turned = BOX | {"x": -1.2, "rotation": 30}
    loaded = read(tmp_path, [region(BOX | {"x": -1.2, "width": 104})], [region(BOX)], [region(turned)])
    assert loaded.labels.regions["shape"].to_list() == [
        [0, 2, 100, 4, 0],
        [1, 2, 3, 4, 0],
        [-1.2, 2, 3, 4, 30],  # only the pieces of an upright box are a box
    ]
    assert "1 box reaching beyond the picture" in notices(loaded)


def test_a_mask_that_is_called_a_box_is_refused_by_name(tmp_path: Path) -> None:
    loaded = read(tmp_path, [region({"format": "rle", "rle": [0] * 9, "rectanglelabels": ["car"]})])
    (reject,) = loaded.rejects
    assert "is called rectanglelabels and holds a mask (rle)" in reject.why


TEXT = "💩👩🏽\u200d🚒 Ann\r\nand Bob"


def utf16(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
@pytest.mark.parametrize("length", [utf16, len])
def test_a_span_is_found_however_it_was_counted(tmp_path: Path, line_end: str, length: Any) -> None:
    start = length(TEXT.replace("\r\n", line_end)[: -len("Bob")])
    value = {"start": start, "end": start + 3, "text": "Bob", "labels": ["name"]}
    loaded = read(tmp_path, [region(value, "labels")], text=TEXT, other="plain")
    (shape,) = loaded.labels.regions["shape"].to_list()
    assert TEXT.encode("utf-16-le")[int(shape[0]) * 2 : int(shape[1]) * 2].decode("utf-16-le") == "Bob"
    right = line_end == "\r\n" and length is utf16
    assert ("1 span counted another way" in notices(loaded)) is not right
