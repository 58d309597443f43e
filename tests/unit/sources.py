"""A source of items as a test wants them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from connector.adapters.base import LabelingTool
from connector.errors import Reject
from connector.model import Item
from connector.store.label_store import Store
from connector.sync import rounds as sync
from connector.sync.items import Listed
from connector.sync.ledger import Ledger


@dataclass
class Given:
    """Items by key, each with the version of its content. Keys that start with `raw/` are in a bucket."""

    versions: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    manifest: str | None = None

    def __iter__(self) -> Iterator[Listed]:
        for key, version in self.versions.items():
            yield Listed(key, version, bool(version), {})

    def holds(self, key: str) -> bool:
        return key.startswith("raw/")

    def in_bucket(self, url: str) -> bool:
        return url.startswith("raw/")

    def items(self, listed: Sequence[Listed], tool: LabelingTool) -> Iterator[Item]:
        for one in listed:
            data = {**self.data, "content": one.version}
            yield tool.data_for(Item(key=one.key, data=data, version=one.version), "image", one.key)

    def objects_of(self, listed: Listed) -> frozenset[str]:
        return frozenset({listed.key})

    def links(self, listed: Listed, tool: LabelingTool) -> Item:
        return tool.data_for(Item(key=listed.key, version=listed.version), "image", listed.key)


def given(*keys: str, version: str = "") -> Given:
    """Items of these keys."""
    return Given(dict.fromkeys(keys, version))


def synced(
    tool: LabelingTool,
    source: sync.Source,
    folder: Path,
    effects: sync.Effects | None = None,
    rejects: list[Reject] | None = None,
) -> tuple[sync.Pulled, sync.Pushed]:
    """One sync of a line whose store and ledger lie in a folder."""
    store = Store(str(folder / "labels"))
    with closing(Ledger(folder / "sync.sqlite", "test")) as ledger:
        return sync.sync(tool, store, source, [] if rejects is None else rejects, ledger, effects)
