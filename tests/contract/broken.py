"""Adapters that break their promises, each in one way, and else are the in-memory tool.

`test_suite.py` runs the contract suite on them, which must notice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping

import pytest

from connector.adapters.base import Known, Page, WakeUp
from connector.adapters.memory import MemoryTool, ToolProject
from connector.model import Annotation, Item, Task
from tests.contract.test_memory import TestMemory


class Duplicates(MemoryTool):
    """An item that is sent again, as after a lost answer, becomes a second task."""

    def add_items(self, items: Iterable[Item], known: Known | None = None) -> Iterator[Task]:
        for item in items:
            self._accept(item)
            yield self.project.tasks[self._new_task(item)]


class Overwrites(MemoryTool):
    """A write does not compare the revision, and replaces what another annotator saved meanwhile."""

    def write_annotation(self, annotation: Annotation, expect: str | None) -> Annotation:
        if annotation.id is not None and expect is not None:
            expect = self._annotation(annotation.id).revision
        return super().write_annotation(annotation, expect)


class Forgets(MemoryTool):
    """The cursor of a page is that of the newest change: whoever goes on from it misses the other pages."""

    def changed_tasks(self, since: str | None) -> Iterator[Page]:
        pages = list(super().changed_tasks(since))
        yield from (Page(page.tasks, pages[-1].cursor) for page in pages)


class Cleans(MemoryTool):
    """Fields of a region that it does not know are dropped when an annotation is stored."""

    def write_annotation(self, annotation: Annotation, expect: str | None) -> Annotation:
        known = {"id", "from_name", "to_name", "type", "value"}
        regions = [{k: v for k, v in one.items() if k in known} for one in json.loads(annotation.result)]
        return super().write_annotation(annotation.model_copy(update={"result": json.dumps(regions)}), expect)


class LetsIn(MemoryTool):
    """An event is taken whatever secret it shows."""

    def parse_event(self, headers: Mapping[str, str], body: bytes, secret: str) -> WakeUp | None:
        shown = next((value for name, value in headers.items() if "secret" in name.lower()), secret)
        return super().parse_event({**headers, "X-Connector-Secret": shown}, body, shown)


BROKEN: Mapping[type[MemoryTool], str] = {
    Duplicates: "test_the_same_item_twice_is_one_task",
    Overwrites: "test_a_stale_write_is_refused_and_the_others_edit_stays",
    Forgets: "test_going_on_from_any_page_loses_nothing",
    Cleans: "test_fields_we_do_not_understand_survive",
    LetsIn: "test_an_event_without_our_secret_is_not_let_in",
}
"""Each with the test of the suite that must fail."""


class TestBroken(TestMemory):
    """The contract suite on each of them."""

    @pytest.fixture(params=BROKEN, ids=lambda broken: str(broken.__name__))
    def open_tool(self, request: pytest.FixtureRequest, project: ToolProject) -> Callable[[], MemoryTool]:
        return lambda: request.param(project, page_size=3, capabilities=self.capabilities)
