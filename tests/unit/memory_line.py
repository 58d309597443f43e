"""A line whose tool is in memory: people answer, and what happened is looked at."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from connector.adapters.contract import LabelingToolContract
from connector.adapters.memory import MemoryTool, ToolProject
from connector.config import Config, parse
from connector.events.detect import note_events
from connector.events.log import Event, EventLog, Planned
from connector.model import Annotation, Item
from connector.store.label_store import Store
from connector.sync import rounds as sync

contract = LabelingToolContract()
PEOPLE = ("ann", "ben", "cem", "dee", "eve", "gil")


class MemoryLine:
    """A project of which each task is shown to two people, followed from its beginning."""

    def __init__(self, folder: Path, config: str = "", overlap: int = 2) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        clock = (datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=n) for n in itertools.count())
        self.tool = MemoryTool(ToolProject(PEOPLE, lambda: next(clock), overlap=overlap))
        self.tool.write_ontology(self.tool.parse_ontology(contract.source))
        self.folder = folder
        self.config: Config = parse(config, folder / "connector.toml")
        self.store = Store(str(folder / "labels"), "memory")
        self.log = EventLog(folder / "events.sqlite", "memory")
        self.follow()

    def add(self, *keys: str, **data: Any) -> list[str]:
        """Tasks of these keys; gives their ids."""
        items = [Item(key=key, data={"image": f"{key}.png", **data}) for key in keys]
        return [task.id for task in self.tool.add_items(items)]

    def say(self, task: str, who: str, *labels: str, **more: Any) -> Annotation:
        """Somebody answers a task."""
        return contract.write(
            self.tool, self.tool.read_task(task), who, *map(contract.choice, labels), **more
        )

    def change(self, held: Annotation, label: str) -> Annotation:
        """Somebody answers otherwise now."""
        return contract.edit(self.tool, held, contract.choice(label))

    def follow(self, planned: Planned = lambda _: ()) -> list[Event]:
        """Pull, and note what happened."""
        sync.pull(self.tool, self.store)
        return note_events(self.store, self.log, self.config, planned)


def told(events: Sequence[Event]) -> list[tuple[str, str]]:
    return [(event.type, event.subject) for event in events]
