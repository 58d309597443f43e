"""What is raw data: objects of a bucket and rows of manifests, as the items that become tasks.

A source lists cheaply what is there; only what is new or changed is then made ready to be sent.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import polars as pl

from connector.adapters.base import LabelingTool
from connector.adapters.objects import Object, Objects
from connector.config import FieldRule, Raw
from connector.errors import BadRecord, Reject, UsageError
from connector.model import Item, digest

CHECK_BYTES = 16

ROWS_AT_ONCE = 50_000
"""So many rows of a Parquet manifest are in memory at once."""

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


@dataclass(frozen=True, slots=True)
class Listed:
    """An item as a listing tells of it.

    Attributes:
        key: names it for good.
        version: changes when its content does; empty where nobody can tell.
        tells_content: an equal version under another key is the same content.
        parts: what it is made of: a row of a manifest, or an object for each field.
    """

    key: str
    version: str
    tells_content: bool
    parts: Mapping[str, Any]


class Source(Protocol):
    """Where items come from."""

    def __iter__(self) -> Iterator[Listed]:
        """All items there are; what is none is left out, and noted in the rejects."""
        ...

    def holds(self, key: str) -> bool:
        """Whether an item of this key would be listed here; then, if it is not, it is gone."""
        ...

    def item(self, listed: Listed, tool: LabelingTool) -> Item:
        """The item as the tool takes it.

        Raises:
            BadRecord: if it cannot be shown.
        """
        ...


@dataclass(frozen=True)
class BucketItems:
    """Objects of a bucket: one an item, or one for each field of it.

    Args:
        rejects: what cannot become an item is added here.
        image_fields: fields that are shown as pictures; what is none is refused.
    """

    objects: Objects
    raw: Raw
    rejects: list[Reject]
    image_fields: frozenset[str] = frozenset()

    @property
    def _rules(self) -> Mapping[str, FieldRule]:
        one = FieldRule(match=self.raw.include or ["*"], content=self.raw.content)
        return self.raw.fields or {self.raw.field: one}

    def __iter__(self) -> Iterator[Listed]:
        found = self._found()
        return self._whole(found) if self.raw.fields else (self._listed(k, {f: o}) for k, f, o in found)

    def _found(self) -> Iterator[tuple[str, str, Object]]:
        """Every object that belongs to an item: the item's key, the field it is for, and the object."""
        rules = self._rules
        for one in self.objects.list():
            if any(fnmatchcase(one.path, glob) for glob in self.raw.exclude):
                continue
            name = next((f for f, rule in rules.items() if rule.matches(one.path)), None)
            if name is None:
                continue
            if one.size:
                yield self._key(one), name, one
            else:
                self.rejects.append(Reject(one.key, "the object is empty"))

    def _key(self, one: Object) -> str:
        path = PurePosixPath(one.path)
        folder = "" if str(path.parent) == "." else f"{path.parent}/"
        parts = {
            "url": one.key,
            "path": one.path,
            "folder": folder,
            "name": path.name,
            "stem": path.stem,
            "suffix": path.suffix,
        }
        return self.raw.key_template.format(**parts)

    def _whole(self, found: Iterable[tuple[str, str, Object]]) -> Iterator[Listed]:
        """Items of several objects; the listing gives these in no order that helps."""
        parts: dict[str, dict[str, Object]] = {}
        for key, name, one in found:
            held = parts.setdefault(key, {})
            if name in held:
                self.rejects.append(Reject(one.key, f"{held[name].key} is the {name} of {key} already"))
            else:
                held[name] = one
        for key, objects in parts.items():
            missing = [f for f, rule in self._rules.items() if f not in objects and not rule.optional]
            if missing:
                self.rejects.append(Reject(key, f"there is no object for {', '.join(missing)}"))
            else:
                yield self._listed(key, objects)

    @staticmethod
    def _listed(key: str, objects: Mapping[str, Object]) -> Listed:
        versions = {name: one.version for name, one in objects.items()}
        version = digest(versions) if len(versions) > 1 else next(iter(versions.values()))
        return Listed(key, version, all(one.fingerprint for one in objects.values()), objects)

    def holds(self, key: str) -> bool:
        return key.startswith(self.objects.url.rstrip("/") + "/")

    def item(self, listed: Listed, tool: LabelingTool) -> Item:
        made = Item(key=listed.key, version=listed.version)
        for name, one in listed.parts.items():
            made = self._with(made, name, one, tool)
        return made

    def _with(self, item: Item, name: str, one: Object, tool: LabelingTool) -> Item:
        content = self._rules[name].content
        if content == "url":
            if name in self.image_fields and not is_image(self.objects.head(one.path, CHECK_BYTES)):
                raise BadRecord(f"{one.key} is not a picture that a browser shows")
            return tool.data_for(item, name, one.key)
        try:
            text = self.objects.read(one.path).decode()
            data = {name: text} if content == "text" else json.loads(text)
        except ValueError as error:
            raise BadRecord(
                f"{one.key} is not {'JSON' if content == 'json' else 'UTF-8 text'}: {error}"
            ) from error
        if not isinstance(data, dict):
            raise BadRecord(f"{one.key} must hold one JSON object, the data of a task")
        return item.model_copy(update={"data": {**item.data, **data}})


@dataclass(frozen=True)
class ManifestItems:
    """Rows of a CSV, JSON, JSONL or Parquet file, here or in a bucket.

    Column `key` names the item. A column named like the field that is shown holds the object's URL, or its
    path below the bucket's; without it the key is taken for that. Column `version` tells of changed content;
    without it the row itself does. All other columns become the task's data.
    """

    file: Path
    raw: Objects
    field: str
    rejects: list[Reject]

    def __iter__(self) -> Iterator[Listed]:
        seen: set[str] = set()
        for number, row in _rows(self.file, self.rejects):
            where = f"{self.file}:{number}"
            key = str(row.get("key") or "").strip()
            if not key:
                self.rejects.append(Reject(where, "the row has no key: fill the column `key`"))
            elif key in seen:
                why = f"the key {key} stands in an earlier row: keys name one item each"
                self.rejects.append(Reject(where, why))
            else:
                seen.add(key)
                given = {name: value for name, value in row.items() if value is not None}
                version = str(given.pop("version", "") or digest(given))
                yield Listed(key, version, False, given)

    def holds(self, key: str) -> bool:  # noqa: ARG002
        """A manifest may list a part: what it leaves out need not be gone."""
        return False

    def item(self, listed: Listed, tool: LabelingTool) -> Item:
        data = {name: value for name, value in listed.parts.items() if name != "key"}
        shown = str(data.get(self.field) or listed.key)
        url = shown if "://" in shown else f"{self.raw.url.rstrip('/')}/{shown.lstrip('/')}"
        return tool.data_for(Item(key=listed.key, data=data, version=listed.version), self.field, url)


def is_image(start: bytes) -> bool:
    """Whether bytes begin as a picture that browsers show does."""
    if start.startswith(_IMAGE_STARTS):
        return True
    return (start[:4] == b"RIFF" and start[8:12] == b"WEBP") or start[4:8] == b"ftyp"


def _rows(path: Path, rejects: list[Reject]) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise UsageError(f"there is no manifest {path}", "name a CSV, JSON, JSONL or Parquet file")
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for row in reader:
                yield reader.line_num, {k: v for k, v in row.items() if k and v not in (None, "")}
    elif path.suffix == ".jsonl":
        with path.open(encoding="utf-8-sig") as file:
            yield from _json_lines(path, file, rejects)
    elif path.suffix == ".json":
        yield from _json_list(path, rejects)
    elif path.suffix == ".parquet":
        yield from _parquet(path)
    else:
        raise UsageError(f"{path} is no manifest we read", "name a .csv, .json, .jsonl or .parquet file")


def _json_list(path: Path, rejects: list[Reject]) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}", "mend the file") from error
    if not isinstance(rows, list):
        raise UsageError(f"{path} must hold a list of JSON objects", "mend the file, or name it .jsonl")
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict):
            yield number, row
        else:
            rejects.append(Reject(f"{path}:{number}", "this is not a JSON object"))


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    table = pl.scan_parquet(path)
    try:
        length = table.select(pl.len()).collect().item()
    except pl.exceptions.PolarsError as error:
        raise UsageError(f"{path} is not Parquet: {error}", "mend the file") from error
    for start in range(0, length, ROWS_AT_ONCE):
        # Through JSON, so that times and nested values are what a task's data can hold.
        lines = table.slice(start, ROWS_AT_ONCE).collect().write_ndjson().splitlines()
        for number, line in enumerate(lines, start + 1):
            yield number, json.loads(line)


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
