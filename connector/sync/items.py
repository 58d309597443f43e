"""What is raw data: objects of a bucket and rows of manifests, as the items that become tasks.

A source lists cheaply what is there; only what is new or changed is then made ready to be sent.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from io import TextIOWrapper
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Protocol

import polars as pl

from connector.adapters.base import LabelingTool
from connector.config import FieldRule, Raw
from connector.errors import AuthError, BadRecord, Reject, UsageError
from connector.io.objects import Object, Objects, usable
from connector.model import Item, digest

CHECK_BYTES = 16

_UNKNOWN = datetime.min.replace(tzinfo=UTC)

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
        version: changes when its content does; empty where it is unknown.
        tells_content: an equal version under another key is the same content.
        parts: what it is made of: a row of a manifest, or an object for each field.
    """

    key: str
    version: str
    tells_content: bool
    parts: Mapping[str, Any]


class Source(Protocol):
    """Where items come from."""

    @property
    def manifest(self) -> str | None:
        """The URL of the manifest that they stand in; None where they are the objects of the bucket."""
        ...

    def __iter__(self) -> Iterator[Listed]:
        """All items there are; what is none is left out, and noted in the rejects."""
        ...

    def holds(self, key: str) -> bool:
        """Whether an item of this key would be listed here; then, if it is not, it is gone."""
        ...

    def in_bucket(self, url: str) -> bool:
        """Whether an object of this URL lies in the bucket that the tool is connected to."""
        ...

    def items(self, listed: Sequence[Listed], tool: LabelingTool) -> Iterator[Item]:
        """The items as the tool takes them; what cannot be shown is left out, and noted in the rejects."""
        ...

    def objects_of(self, listed: Listed) -> frozenset[str]:
        """The URLs of the objects that an item is made of, also of those that hold its text or data."""
        ...

    def links(self, listed: Listed, tool: LabelingTool) -> Item:
        """The item with the addresses it shows and nothing else; no object is read.

        Raises:
            BadRecord: if the tool cannot show it.
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
    def manifest(self) -> None:
        return None

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
        for one in self.objects.list(unusable=self.rejects):
            if any(fnmatchcase(one.path, glob) for glob in self.raw.exclude):
                continue
            name = next((f for f, rule in rules.items() if rule.matches(one.path)), None)
            if name is None:
                continue
            if one.size:
                yield self._key(one), name, one
            else:
                self.rejects.append(Reject(one.key, "the object is empty", one.version))

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
                why = f"{held[name].key} is the {name} of {key} already"
                self.rejects.append(Reject(one.key, why, one.version))
            else:
                held[name] = one
        for key, objects in parts.items():
            missing = [f for f, rule in self._rules.items() if f not in objects and not rule.optional]
            if missing:
                why = f"there is no object for {', '.join(missing)}"
                self.rejects.append(Reject(key, why, digest({f: o.version for f, o in objects.items()})))
            else:
                yield self._listed(key, objects)

    def _listed(self, key: str, objects: Mapping[str, Object]) -> Listed:
        versions = {name: self._version(key, name, one) for name, one in objects.items()}
        version = digest(versions) if len(versions) > 1 else next(iter(versions.values()))
        return Listed(key, version, all(one.fingerprint for one in objects.values()), objects)

    def _version(self, key: str, name: str, one: Object) -> str:
        """Of the content; and of the place, where a task shows it and the key leaves some of it unsaid."""
        if self._rules[name].content != "url" or one.path in key or one.key in key:
            return one.version
        before, _, after = (one.key if key in one.key else one.path).rpartition(key)
        return f"{one.version} {before}{after}"

    def holds(self, key: str) -> bool:
        return self.objects.holds(key)

    def in_bucket(self, url: str) -> bool:
        return self.objects.holds(url)

    def items(self, listed: Sequence[Listed], tool: LabelingTool) -> Iterator[Item]:
        looked_into = self._looked_into(listed)
        for one in listed:
            try:
                yield self._item(one, looked_into, tool)
            except BadRecord as error:
                self.rejects.append(Reject(one.key, error.what, one.version))

    def objects_of(self, listed: Listed) -> frozenset[str]:
        return frozenset(one.key for one in listed.parts.values())

    def links(self, listed: Listed, tool: LabelingTool) -> Item:
        made = Item(key=listed.key, version=listed.version)
        for name, one in listed.parts.items():
            if self._rules[name].content == "url":
                made = tool.data_for(made, name, one.key)
        return made

    def _looked_into(self, listed: Sequence[Listed]) -> dict[str, bytes | None]:
        """By the objects' keys: the first bytes of pictures, and all of what is shown as text or data."""
        parts = [(name, one) for item in listed for name, one in item.parts.items()]
        whole = [one for name, one in parts if self._rules[name].content != "url"]
        pictures = [
            one for name, one in parts if self._rules[name].content == "url" and name in self.image_fields
        ]
        found = chain(self.objects.contents(whole), self.objects.contents(pictures, CHECK_BYTES))
        return {one.key: content for one, content in found}

    def _item(self, listed: Listed, looked_into: Mapping[str, bytes | None], tool: LabelingTool) -> Item:
        made = Item(key=listed.key, version=listed.version)
        for name, one in listed.parts.items():
            if one.key not in looked_into:
                made = tool.data_for(made, name, one.key)
            elif (content := looked_into[one.key]) is None:
                raise BadRecord(f"{one.key} is gone since it was listed")
            else:
                made = self._with(made, name, one, content, tool)
        return made

    def _with(self, item: Item, name: str, one: Object, found: bytes, tool: LabelingTool) -> Item:
        content = self._rules[name].content
        if content == "url":
            if not is_image(found):
                raise BadRecord(f"{one.key} is not a picture that a browser shows")
            return tool.data_for(item, name, one.key)
        try:
            text = found.decode()
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
    """Rows of a CSV, JSON, JSONL or Parquet file, in a folder or in a bucket.

    Column `key` names the item. A column named like the field that is shown holds the object's URL, its path
    below the bucket's, or a list of these; without the column the key is taken for that. Column
    `version` tells of changed content; without it the row itself does. All other columns become the task's
    data.

    Args:
        folder: where the file lies.
        path: its path there.
        raw: the bucket that paths in it start from.
        rejects: what cannot become an item is added here.
        plain: the field holds what is shown itself, such as a text, and no address.
        pictures: the field is shown as a picture; what is none is refused.
    """

    folder: Objects
    path: str
    raw: Objects
    field: str
    rejects: list[Reject]
    plain: bool = False
    pictures: bool = False

    @property
    def manifest(self) -> str:
        return self.folder.key_of(self.path)

    def __iter__(self) -> Iterator[Listed]:
        seen: set[str] = set()
        for number, row in _rows(self.folder, self.path, self.rejects):
            where = f"{self.manifest}:{number}"
            key = str(row.get("key") or "").strip()
            if not key:
                self.rejects.append(Reject(where, "the row has no key: fill the column `key`", digest(row)))
            elif key in seen:
                why = f"the key {key} stands in an earlier row: keys name one item each"
                self.rejects.append(Reject(where, why, digest(row)))
            else:
                seen.add(key)
                # A null is no value, except in the field that is shown, where it is an error.
                given = {name: v for name, v in row.items() if v is not None or name == self.field}
                filled = {name: value for name, value in given.items() if value not in (None, "")}
                version = str(filled.pop("version", "") or digest(filled))
                given.pop("version", None)
                yield Listed(key, version, False, given)

    def holds(self, key: str) -> bool:  # noqa: ARG002
        """A manifest may list a part: what it leaves out need not be gone."""
        return False

    def in_bucket(self, url: str) -> bool:
        return self.raw.holds(url)

    def items(self, listed: Sequence[Listed], tool: LabelingTool) -> Iterator[Item]:
        found = self._found(listed)
        for one in listed:
            try:
                addresses = self._addresses(one)
                missing = [url for url in addresses if url in found and found[url] is None]
                if missing:
                    raise BadRecord(f"there is no object {missing[0]}")
                no_picture = [url for url in addresses if self._is_no_picture(found.get(url))]
                if no_picture:
                    raise BadRecord(f"{no_picture[0]} is not a picture that a browser shows")
                yield self._item(one, tool)
            except BadRecord as error:
                self.rejects.append(Reject(one.key, error.what, one.version))

    def objects_of(self, listed: Listed) -> frozenset[str]:
        with suppress(BadRecord):
            return frozenset(self._addresses(listed))
        return frozenset()

    def links(self, listed: Listed, tool: LabelingTool) -> Item:
        data = self._item(listed, tool).data
        shown = {} if self.plain else {self.field: data[self.field]}
        return Item(key=listed.key, data=shown, version=listed.version)

    def _item(self, listed: Listed, tool: LabelingTool) -> Item:
        data = {name: value for name, value in listed.parts.items() if name != "key"}
        item = Item(key=listed.key, data=data, version=listed.version)
        if self.plain:
            if data.get(self.field) is None:
                raise BadRecord(f"the row has no {self.field}: fill that column")
            return item
        urls = self._addresses(listed)
        shown = [self._shown(item, url, tool) for url in urls]
        is_list = isinstance(data.get(self.field), list)
        return item.model_copy(update={"data": {**data, self.field: shown if is_list else shown[0]}})

    def _shown(self, item: Item, url: str, tool: LabelingTool) -> Any:
        """The address at which the tool shows an object."""
        try:
            return tool.data_for(item, self.field, url).data[self.field]
        except UsageError as error:
            if self.raw.holds(url):
                raise  # then it cannot show the bucket at all
            raise BadRecord(error.what, error.hint) from error

    def _addresses(self, listed: Listed) -> list[str]:
        """The URLs of the objects that a row shows."""
        if self.plain:
            return []
        given = listed.parts.get(self.field, listed.key)
        named = given if isinstance(given, list) else [given]
        if not named or any(not isinstance(one, str) or not one.strip() for one in named):
            raise BadRecord(
                f"the row names no object in {self.field}: give a URL, a path below {self.raw.url} or "
                "a list of them, or leave out the column where the key is the path"
            )
        return [one if "://" in one else self.raw.key_of(one.lstrip("/")) for one in named]

    def _found(self, listed: Sequence[Listed]) -> dict[str, bytes | None]:
        """The first bytes of the objects that rows show; None of what is not there.

        Objects elsewhere are looked for where the settings of our bucket open their storage, too. What cannot
        be read there for another reason is left out: the tool may be permitted more than we are.
        """
        by_place: dict[str, list[str]] = {}
        for one in listed:
            with suppress(BadRecord):
                for url in self._addresses(one):
                    by_place.setdefault(self._place(url), []).append(url)
        found: dict[str, bytes | None] = {}
        for place, urls in by_place.items():
            if place == self.raw.url:
                found |= _starts(self.raw, urls)
            elif place:
                found |= self._elsewhere(place, urls)
        return found

    def _elsewhere(self, place: str, urls: Sequence[str]) -> Mapping[str, bytes | None]:
        try:
            return _starts(Objects(place, self.raw.options), urls)
        except AuthError:
            return {}
        except UsageError as error:
            there_is_none = error.__cause__ is None or isinstance(error.__cause__, FileNotFoundError)
            return dict.fromkeys(urls) if there_is_none else {}

    def _place(self, url: str) -> str:
        """Where to look for an object: our bucket, another one or folder of the same storage, or nowhere."""
        if self.raw.holds(url):
            return self.raw.url
        scheme, _, place = url.partition("://")
        if scheme != self.raw.url.partition("://")[0]:
            return ""
        return "file:///" if scheme == "file" else f"{scheme}://{place.partition('/')[0]}"

    def _is_no_picture(self, start: bytes | None) -> bool:
        return self.pictures and start is not None and not is_image(start)


def _starts(place: Objects, urls: Iterable[str]) -> dict[str, bytes | None]:
    """The first bytes of objects, by URL; None of what is not there."""
    paths = {url: place.path_of(url) if place.holds(url) else "" for url in urls}
    asked = [Object(url, path, 0, _UNKNOWN, None) for url, path in paths.items() if path and usable(path)]
    found = {one.key: content for one, content in place.contents(asked, CHECK_BYTES)}
    return {url: found.get(url) for url in paths}


def is_image(start: bytes) -> bool:
    """Whether bytes begin as a picture that browsers show does."""
    if start.startswith(_IMAGE_STARTS):
        return True
    return (start[:4] == b"RIFF" and start[8:12] == b"WEBP") or start[4:8] == b"ftyp"


Row = tuple[int, dict[str, Any]]
"""A row of a manifest and its number."""


def _rows(folder: Objects, path: str, rejects: list[Reject]) -> Iterator[Row]:
    form, place = PurePosixPath(path).suffix, folder.key_of(path)
    if form not in _FORMS:
        raise UsageError(f"{place} is no manifest we read", f"name a file that ends with {', '.join(_FORMS)}")
    with folder.open(path) as file:
        try:
            yield from _FORMS[form](file, place, rejects)
        except UnicodeDecodeError as error:
            raise UsageError(f"{place} is not UTF-8 text: {error}", "save it as UTF-8") from error


def _csv(file: BinaryIO, place: str, rejects: list[Reject]) -> Iterator[Row]:  # noqa: ARG001
    # An empty cell is an empty text: a tool may ask for the column.
    reader = csv.DictReader(TextIOWrapper(file, "utf-8-sig", newline=""), restval="")
    for row in reader:
        yield reader.line_num, {name: cell for name, cell in row.items() if name}


def _json(file: BinaryIO, place: str, rejects: list[Reject]) -> Iterator[Row]:
    try:
        rows = json.load(TextIOWrapper(file, "utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UsageError(f"{place} is not JSON: {error}", "fix the file") from error
    if not isinstance(rows, list):
        raise UsageError(f"{place} must hold a list of JSON objects", "fix the file, or name it .jsonl")
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict):
            yield number, row
        else:
            rejects.append(Reject(f"{place}:{number}", "this is not a JSON object"))


def json_lines(file: BinaryIO, place: str, rejects: list[Reject]) -> Iterator[Row]:
    """The objects of a file that has one on each line.

    Args:
        place: its name, in rejects.
        rejects: lines that are none are added here.

    Raises:
        UnicodeDecodeError: if the file is no UTF-8.
    """
    for number, line in enumerate(TextIOWrapper(file, "utf-8-sig"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            rejects.append(Reject(f"{place}:{number}", f"the line is not JSON: {error}"))
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            rejects.append(Reject(f"{place}:{number}", "the line is not a JSON object"))


def _parquet(file: BinaryIO, place: str, rejects: list[Reject]) -> Iterator[Row]:  # noqa: ARG001
    # From a copy on disk: polars would hold all of an open file in memory.
    with tempfile.NamedTemporaryFile(suffix=".parquet") as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        table = pl.scan_parquet(copy.name)
        try:
            length = table.select(pl.len()).collect().item()
        except pl.exceptions.PolarsError as error:
            raise UsageError(f"{place} is not Parquet: {error}", "fix the file") from error
        for start in range(0, length, ROWS_AT_ONCE):
            # Through JSON, so that times and nested values are what a task's data can hold. Texts may hold
            # signs that `splitlines` takes for the end of a line.
            lines = table.slice(start, ROWS_AT_ONCE).collect().write_ndjson().rstrip("\n").split("\n")
            for number, line in enumerate(lines, start + 1):
                yield number, json.loads(line)


_FORMS = {".csv": _csv, ".json": _json, ".jsonl": json_lines, ".parquet": _parquet}
