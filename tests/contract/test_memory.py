"""The in-memory tool keeps the contract: with all it can do, with as little as may be, with ids reused."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from connector.adapters.base import Bucket
from connector.adapters.contract import LabelingToolContract
from connector.adapters.memory import CAPABILITIES, MemoryTool, ToolProject
from connector.errors import AuthError, ConnectorError, Temporary, UsageError
from connector.model import Draft, Item

POOR = replace(
    CAPABILITIES,
    one_ground_truth=False,
    acts_for_others=False,
    overlap=False,
    task_overlap=False,
    notes=False,
    predictions=False,
    webhooks=False,
    review_queue=False,
    connect_bucket=False,
    import_batch=2,
)


class TestMemory(LabelingToolContract):
    capabilities = CAPABILITIES

    @pytest.fixture
    def project(self) -> ToolProject:
        return ToolProject()

    @pytest.fixture
    def open_tool(self, project: ToolProject) -> Callable[[], MemoryTool]:
        return lambda: MemoryTool(project, page_size=3, capabilities=self.capabilities)

    @pytest.fixture
    def bucket(self) -> Bucket:
        return Bucket("s3://raw/pictures")

    @pytest.fixture
    def unavailable(self) -> list[tuple[MemoryTool, type[ConnectorError]]]:
        errors = (AuthError, UsageError, Temporary)
        tools = [MemoryTool(capabilities=self.capabilities) for _ in errors]
        for tool, error in zip(tools, errors, strict=True):
            tool.faults.unavailable = error("this tool cannot work", "open another one")
        return list(zip(tools, errors, strict=True))

    def remove_task(self, tool: MemoryTool, task_id: str) -> None:
        tool.project.delete_task(task_id)

    def leave_draft(self, tool: MemoryTool, task_id: str, annotation: str | None, who: str) -> None:
        held = tool.project.tasks[task_id]
        draft = Draft(annotator=who, annotation=annotation)
        tool.project.tasks[task_id] = held.model_copy(update={"drafts": (*held.drafts, draft)})

    def import_object(self, tool: MemoryTool, bucket: Bucket | None) -> tuple[str, str]:
        assert bucket is not None
        id, url = tool._new_task(Item(key="?", data={"text": "of the object"})), f"{bucket.url}/ü 1.json"
        tool.project.imported[id] = url
        return id, url

    def connections(self, tool: MemoryTool) -> int:
        return len(tool.project.buckets)


class TestMemoryThatCanLittle(TestMemory):
    capabilities = POOR


class TestMemoryThatReusesIds(TestMemory):
    @pytest.fixture
    def project(self) -> ToolProject:
        return ToolProject(reuse_ids=True)


def test_a_fault_before_the_work_leaves_nothing_and_one_after_it_leaves_everything():
    tool, contract = MemoryTool(), LabelingToolContract()
    tool.faults.fail("add_items", 1)
    tool.faults.lose_answer("add_items", 2)
    with pytest.raises(Temporary, match="fails"):
        contract.add(tool, "a")
    assert tool.count_tasks() == 0
    with pytest.raises(Temporary, match="lost"):
        contract.add(tool, "a")
    assert tool.count_tasks() == 1


def test_a_fault_can_be_any_error_of_ours():
    tool = MemoryTool()
    tool.faults.fail("count_tasks", 2, AuthError("the token has run out"))
    tool.count_tasks()
    with pytest.raises(AuthError):
        tool.count_tasks()


def test_a_deleted_annotations_id_comes_again_when_ids_are_reused():
    contract, tool = LabelingToolContract(), MemoryTool(ToolProject(reuse_ids=True))
    [task] = contract.add(tool, "a")
    first = contract.write(tool, task, "", contract.choice("cat"))
    tool.delete_annotation(str(first.id), first.revision)
    second = contract.write(tool, task, "", contract.choice("cat"))
    assert second.id == first.id
    assert second.created_at != first.created_at
