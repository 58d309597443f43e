"""The contract suite: every promise of `LabelingTool`, one test each. It needs pytest.

Subclass it in a test file of your own:

    class TestMyTool(LabelingToolContract):
        @pytest.fixture
        def open_tool(self):                        # each call: a new adapter object on the same project,
            project = make_an_empty_project()       # which is empty at the start of every test
            return lambda: MyTool(project)

        def remove_task(self, tool, task_id): ...   # delete a task behind the adapter's back

Where your tool speaks otherwise than Label Studio, set the class attributes `source` to `event` too. To see
paging at work, let the adapter read pages of 3 tasks or fewer.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest

from connector.adapters.base import Bucket, Known, LabelingTool
from connector.errors import AuthError, BadRecord, Conflict, ConnectorError, Unsupported, UsageError
from connector.model import Annotation, Item, Prediction, Task, dump_json

NO_SUCH_IDS = ("999999999", "no-such-id")


def read(tool: LabelingTool, since: str | None = None) -> tuple[dict[str, Task], str | None]:
    """All tasks changed since a cursor by id, the last reading of each, and the new cursor."""
    tasks: dict[str, Task] = {}
    for page in tool.changed_tasks(since):
        tasks |= {task.id: task for task in page.tasks}
        since = page.cursor
    return tasks, since


def revisions(tasks: Mapping[str, Task]) -> dict[str, str]:
    """What each task holds, in one word each."""
    return {id: task.revision for id, task in tasks.items()}


class LabelingToolContract:
    """What every adapter promises. See the module for how to use it."""

    source = """
        <View>
          <Image name="image" value="$image"/>
          <Choices name="animal" toName="image"><Choice value="cat"/><Choice value="dog"/></Choices>
          <RectangleLabels name="parts" toName="image">
            <Label value="head"/><Label value="tail"/>
          </RectangleLabels>
        </View>
    """
    """An ontology: a choice `animal` of cat and dog, and boxes `parts`, head and tail, on an image."""

    broken_source = "<View"
    """No ontology at all."""

    refused_source = (
        '<View><Image name="image" value="$image"/>'
        '<Choices name="animal" toName="nowhere"><Choice value="cat"/></Choices></View>'
    )
    """An ontology that reads well and that the tool refuses."""

    refused_item = Item(key="refused", data={"nothing": "to show"})
    """An item that the tool refuses under this ontology."""

    webhook_url = "https://example.com/hook"
    """An address the tool lets us register; nothing is sent there."""

    secret = "open sesame"
    headers: Mapping[str, str] = {"X-Connector-Secret": secret}
    event = (
        b'{"action": "ANNOTATION_CREATED", "task": {"id": 7}, "annotation": {"id": 8, "updated_at": "2026"}}'
    )
    """An event of task 7 and annotation 8, with its headers, as the tool sends it."""

    idle_event = b'{"action": "PROJECT_UPDATED"}'
    """An event of no interest to us."""

    # what a subclass gives

    @pytest.fixture
    def open_tool(self) -> Callable[[], LabelingTool]:
        """Opens the same project with a new adapter object at every call; the project is empty at first."""
        raise NotImplementedError("give a fixture `open_tool`")

    def remove_task(self, tool: LabelingTool, task_id: str) -> None:
        """Delete a task as a person would, behind the adapter's back."""
        raise NotImplementedError("say how to delete a task")

    def leave_draft(
        self,
        tool: LabelingTool,  # noqa: ARG002
        task_id: str,  # noqa: ARG002
        annotation: str | None,  # noqa: ARG002
        who: str,  # noqa: ARG002
    ) -> None:
        """Begin to edit an annotation, or with None to make one, in a person's name, and do not save it."""
        pytest.skip("this tool shows no unsaved drafts")

    def import_object(self, tool: LabelingTool, bucket: Bucket | None) -> tuple[str, str]:  # noqa: ARG002
        """Let a storage of the tool's own make a task of an object; returns the task's id and the URL."""
        pytest.skip("this tool makes no tasks by itself")

    @pytest.fixture
    def bucket(self) -> Bucket | None:
        """A bucket that the tool reaches, if there is one."""
        return None

    @pytest.fixture
    def unavailable(self) -> Sequence[tuple[LabelingTool, type[ConnectorError]]]:
        """Adapters that cannot work (wrong token, no such project, no server), and how each must fail."""
        raise NotImplementedError("give a fixture `unavailable`: adapters that cannot work")

    # what the tests use

    @pytest.fixture
    def tool(self, open_tool: Callable[[], LabelingTool]) -> LabelingTool:
        """The adapter under test; its project has the ontology of `source`."""
        tool = open_tool()
        tool.write_ontology(tool.parse_ontology(self.source))
        return tool

    @pytest.fixture
    def people(self, tool: LabelingTool) -> Sequence[str]:
        """In whose names annotations are written: two people's, where the tool can, else twice our own."""
        if not tool.capabilities.acts_for_others:
            return (tool.whoami().name,) * 2
        names = [annotator.name for annotator in tool.annotators()]
        assert len(names) >= 2, "the contract suite needs a tool with two annotators"
        return names[:2]

    def item(self, key: str) -> Item:
        """An item that the tool takes."""
        return Item(key=key, data={"image": f"https://example.com/{len(key)}.png", "weather": "Regen 🌧"})

    def add(self, tool: LabelingTool, *keys: str) -> list[Task]:
        """Tasks of items with these keys."""
        return list(tool.add_items(self.item(key) for key in keys))

    def choice(self, label: str, **more: Any) -> dict[str, Any]:
        """A region that answers `animal`."""
        value = {"choices": [label]}
        return {
            "id": "c1",
            "from_name": "animal",
            "to_name": "image",
            "type": "choices",
            "value": value,
            **more,
        }

    def box(self, label: str, x: float) -> dict[str, Any]:
        """A region drawn for `parts`."""
        value = {"x": x, "y": 2.5, "width": 10.125, "height": 33.3, "rotation": 0, "rectanglelabels": [label]}
        return {
            "id": "b1",
            "from_name": "parts",
            "to_name": "image",
            "type": "rectanglelabels",
            "value": value,
        }

    def write(
        self, tool: LabelingTool, task: Task, who: str, *regions: dict[str, Any], **more: Any
    ) -> Annotation:
        """A new annotation, as the tool stored it."""
        new = Annotation(task_id=task.id, annotator=who, result=json.dumps(regions), **more)
        return tool.write_annotation(new, None)

    def edit(self, tool: LabelingTool, held: Annotation, *regions: dict[str, Any]) -> Annotation:
        """The annotation with another result, as the tool stored it."""
        edited = held.model_copy(update={"result": json.dumps(regions)})
        return tool.write_annotation(edited, held.revision)

    # the ontology

    def test_an_ontology_comes_back_as_it_was_written(self, tool: LabelingTool) -> None:
        written = tool.parse_ontology(self.source)
        assert tool.read_ontology().version == written.version
        animal, parts = tool.read_ontology().control("animal"), tool.read_ontology().control("parts")
        assert animal is not None
        assert parts is not None
        assert (animal.labels, parts.labels) == (("cat", "dog"), ("head", "tail"))

    def test_a_text_that_is_no_ontology_is_a_usage_error(self, tool: LabelingTool) -> None:
        with pytest.raises(UsageError):
            tool.parse_ontology(self.broken_source)

    def test_a_refused_ontology_is_a_usage_error_and_changes_nothing(self, tool: LabelingTool) -> None:
        before = tool.read_ontology()
        with pytest.raises(UsageError):
            tool.write_ontology(tool.parse_ontology(self.refused_source))
        assert tool.read_ontology().version == before.version

    # items to tasks

    def test_tasks_come_back_in_the_order_of_the_items(self, tool: LabelingTool) -> None:
        tasks = self.add(tool, "b", "a", "ключ/ü #1?.png", "c")
        assert [task.key for task in tasks] == ["b", "a", "ключ/ü #1?.png", "c"]
        assert len({task.id for task in tasks}) == 4

    def test_the_same_item_twice_is_one_task(
        self, tool: LabelingTool, open_tool: Callable[[], LabelingTool]
    ) -> None:
        first = [task.id for task in self.add(tool, "a", "b", "a")]
        assert first[0] == first[2]
        assert [task.id for task in self.add(tool, "b", "a")] == [first[1], first[0]]
        again = open_tool()
        assert [task.id for task in self.add(again, "c", "b", "a")][1:] == [first[1], first[0]]
        assert tool.count_tasks() == 3

    def test_what_was_pulled_need_not_be_looked_up(
        self, tool: LabelingTool, open_tool: Callable[[], LabelingTool]
    ) -> None:
        a, b = self.add(tool, "a", "b")
        pulled, cursor = read(tool)
        [c] = self.add(tool, "c")
        known = Known({task.key: task.id for task in pulled.values()}, cursor)
        again = open_tool().add_items((self.item(key) for key in ("d", "c", "b", "a")), known)
        assert [task.id for task in again][1:] == [c.id, b.id, a.id]
        assert tool.count_tasks() == 4

    def test_the_tasks_of_keys_are_told(self, tool: LabelingTool) -> None:
        keys = [f"s3://raw/ü {n:03} #&+?%.png" for n in range(150)]
        tasks = {task.key: (task.id,) for task in self.add(tool, *keys)}
        found = tool.tasks_of([*keys[:130], "nobody's", "task:999999999"])
        assert {key: tuple(ids) for key, ids in found.items()} == {key: tasks[key] for key in keys[:130]}
        assert tool.tasks_of([]) == {}

    def test_what_a_task_shows_can_be_replaced(self, tool: LabelingTool, people: Sequence[str]) -> None:
        [task] = self.add(tool, "a")
        held = self.write(tool, task, people[0], self.choice("cat"))
        _, cursor = read(tool)
        item = Item(key="b", data={"image": "https://example.com/new.png"}, version="e2")
        for _ in range(2):
            tool.update_item(task.id, item)
        now = tool.read_task(task.id)
        # The user's own field stays.
        assert (now.key, now.data, now.version) == ("b", {**self.item("a").data, **item.data}, "e2")
        assert now.annotations == (held,)
        assert tool.tasks_of(["a", "b"]) == {"b": [task.id]}
        assert read(tool, cursor)[0][task.id] == now
        with pytest.raises(Conflict):
            tool.update_item("999999999", item)

    def test_an_object_of_a_bucket_that_is_not_connected_is_not_fetched(
        self, tool: LabelingTool, bucket: Bucket | None
    ) -> None:
        if not tool.capabilities.connect_bucket:
            with pytest.raises(Unsupported):
                tool.fetch(self.item("a"))
            return
        assert tool.fetch(Item(key="a", data={"weather": "Regen"})) == 0
        if bucket is None:
            pytest.skip("no bucket was given")
        url = f"{bucket.url}/a.png"
        item = tool.data_for(Item(key="a"), "image", url)
        assert tool.objects_in(item.data) == {url}
        with pytest.raises(UsageError):
            tool.fetch(item)

    def test_the_object_that_the_tool_itself_made_a_task_of_is_named(
        self, tool: LabelingTool, bucket: Bucket | None
    ) -> None:
        self.add(tool, "a", "b")
        assert tool.imported_from() == {}
        task, url = self.import_object(tool, bucket)
        assert tool.imported_from() == {task: url}

    def test_the_version_of_what_is_shown_survives(self, tool: LabelingTool) -> None:
        [task] = tool.add_items([self.item("a").model_copy(update={"version": '"e1-7"'})])
        assert tool.read_task(task.id).version == task.version == '"e1-7"'
        assert tool.read_task(task.id).data == self.item("a").data

    def test_a_task_is_deleted_unless_somebody_answered_it_meanwhile(
        self, tool: LabelingTool, people: Sequence[str]
    ) -> None:
        a, b = (tool.read_task(task.id) for task in self.add(tool, "a", "b"))
        for _ in range(2):
            tool.delete_task(a)
        assert list(tool.task_ids()) == [b.id]
        answer = self.write(tool, b, people[0], self.choice("cat"))
        with pytest.raises(Conflict):
            tool.delete_task(b)
        assert tool.read_task(b.id).annotations == (answer,)
        assert [task.key for task in self.add(tool, "a")] == ["a"]

    def test_no_write_deletes_an_unsaved_draft(self, tool: LabelingTool, people: Sequence[str]) -> None:
        [task] = self.add(tool, "a")
        held = self.write(tool, task, people[0], self.choice("cat"))
        free = self.write(tool, task, people[1], self.choice("dog"))
        self.leave_draft(tool, task.id, held.id, people[0])
        self.leave_draft(tool, task.id, held.id, people[1])
        self.leave_draft(tool, task.id, None, people[1])
        before = tool.read_task(task.id)
        owners = sorted((draft.annotation or "", draft.annotator) for draft in before.drafts)
        assert owners == sorted([(held.id, people[0]), (held.id, people[1]), ("", people[1])])
        for write in (
            lambda: self.edit(tool, held, self.choice("dog")),
            lambda: tool.delete_annotation(str(held.id), held.revision),
        ):
            with pytest.raises(Conflict, match="unsaved draft") as refused:
                write()
            assert all(name in refused.value.what for name in people)
            assert tool.read_task(task.id) == before
        with pytest.raises(Conflict, match="unsaved draft"):
            tool.delete_task(before)
        # What does not delete a draft is not kept from happening.
        self.edit(tool, free, self.choice("cat"))
        self.write(tool, task, people[0], self.choice("cat"))
        assert sorted(tool.read_task(task.id).drafts, key=str) == sorted(before.drafts, key=str)

    def test_many_tasks_are_read_at_once_and_what_is_gone_is_left_out(self, tool: LabelingTool) -> None:
        tasks = self.add(tool, *(f"k{n}" for n in range(120)))
        asked = [task.id for task in tasks[5:]]
        found = list(tool.read_tasks([*asked, *NO_SUCH_IDS]))
        assert sorted(task.id for task in found) == sorted(asked)
        assert list(tool.read_tasks([])) == []

    def test_every_key_is_known_with_its_task(self, tool: LabelingTool) -> None:
        tasks = self.add(tool, "a", "b", "c", "d")
        assert dict(tool.known_keys()) == {task.key: task.id for task in tasks}

    def test_the_ids_and_the_count_of_tasks_follow_what_is_there(self, tool: LabelingTool) -> None:
        assert (list(tool.task_ids()), tool.count_tasks()) == ([], 0)
        a, b, c, d = self.add(tool, "a", "b", "c", "d")
        assert sorted(tool.task_ids()) == sorted([a.id, b.id, c.id, d.id])
        self.remove_task(tool, b.id)
        assert sorted(tool.task_ids()) == sorted([a.id, c.id, d.id])
        assert tool.count_tasks() == 3

    def test_the_data_of_an_item_survives(self, tool: LabelingTool) -> None:
        [task] = self.add(tool, "a")
        kept = tool.read_task(task.id)
        assert (kept.key, kept.data) == ("a", self.item("a").data)
        assert read(tool)[0][task.id] == kept

    def test_a_refused_item_is_named_and_its_batch_is_not_sent(self, tool: LabelingTool) -> None:
        with pytest.raises(BadRecord, match="refused"):
            list(tool.add_items([self.item("good"), self.refused_item]))
        assert tool.count_tasks() == 0

    def test_an_item_with_a_reserved_field_is_refused_and_its_batch_is_not_sent(
        self, tool: LabelingTool
    ) -> None:
        for name in sorted(tool.capabilities.reserved):
            item = self.item("bad")
            taken = item.model_copy(update={"data": {**item.data, name: "mine"}})
            with pytest.raises(BadRecord, match=f"{name} of its data is reserved"):
                list(tool.add_items([self.item("good"), taken]))
        assert tool.count_tasks() == 0

    def test_overlap_is_how_many_people_label_each_task(self, tool: LabelingTool) -> None:
        if not tool.capabilities.overlap:
            with pytest.raises(Unsupported):
                tool.set_overlap(3)
            return
        tool.set_overlap(3)
        [task] = self.add(tool, "a")
        assert tool.read_task(task.id).overlap == 3
        known, cursor = read(tool)
        tool.set_overlap(2)
        assert (known | read(tool, cursor)[0])[task.id].overlap == 2

    def test_one_task_can_be_shown_to_more_people(self, tool: LabelingTool, people: Sequence[str]) -> None:
        a, b = self.add(tool, "a", "b")
        if not tool.capabilities.task_overlap:
            with pytest.raises(Unsupported):
                tool.set_task_overlap(a.id, 4)
            return
        said = self.write(tool, a, people[0], self.choice("cat"))
        known, cursor = read(tool)
        for _ in range(2):
            tool.set_task_overlap(a.id, 4)
        now = (known | read(tool, cursor)[0])[a.id]
        assert (now.overlap, now.annotations) == (4, (said,))
        assert tool.read_task(b.id).overlap == known[b.id].overlap != 4
        for id in NO_SUCH_IDS:
            with pytest.raises(Conflict):
                tool.set_task_overlap(id, 4)

    def test_a_note_is_left_on_a_task_and_taken_away(self, tool: LabelingTool, people: Sequence[str]) -> None:
        [task] = self.add(tool, "a")
        if not tool.capabilities.notes:
            with pytest.raises(Unsupported):
                tool.leave_note(task.id, "look again")
            return
        said = self.write(tool, task, people[0], self.choice("cat"))
        known, cursor = read(tool)
        for note in ("look again", 'is it a "dog"?\n🐕 <b>', None, None):
            tool.leave_note(task.id, note)
            now = (known | read(tool, cursor)[0])[task.id]
            assert (now.note, now.data, now.key) == (note, self.item("a").data, "a")
            assert now.annotations == (said,)
        tool.leave_note(task.id, "look at the tail")
        tool.update_item(task.id, self.item("another"))
        assert tool.read_task(task.id).note == "look at the tail"
        for id in NO_SUCH_IDS:
            with pytest.raises(Conflict):
                tool.leave_note(id, "look again")

    # what annotators said

    def test_what_is_written_is_returned_as_it_is_stored(
        self, tool: LabelingTool, people: Sequence[str]
    ) -> None:
        [task] = self.add(tool, "a")
        stored = self.write(tool, task, people[0], self.choice("cat"), self.box("head", 1.5), seconds=12.5)
        assert stored == tool.read_annotation(str(stored.id))
        assert (stored.annotator, stored.seconds, stored.task_id) == (people[0], 12.5, task.id)
        edited = self.edit(tool, stored, self.choice("dog"))
        assert edited == tool.read_annotation(str(stored.id))
        assert (edited.id, edited.created_at) == (stored.id, stored.created_at)
        assert json.loads(edited.result) == [self.choice("dog")]

    def test_every_annotators_answer_survives(self, tool: LabelingTool, people: Sequence[str]) -> None:
        [task] = self.add(tool, "a")
        said = [
            self.write(tool, task, who, self.choice(x)) for who, x in zip(people, ("cat", "dog"), strict=True)
        ]
        kept = read(tool)[0][task.id].annotations
        assert sorted(kept, key=lambda a: said.index(a)) == said
        assert [one.annotator for one in said] == list(people)

    def test_empty_and_cancelled_answers_survive(self, tool: LabelingTool, people: Sequence[str]) -> None:
        [task] = self.add(tool, "a")
        empty = self.write(tool, task, people[0])
        skipped = self.write(tool, task, people[1], cancelled=True)
        assert tool.count_annotations() == 2
        assert {a.id: (a.result, a.cancelled) for a in tool.read_task(task.id).annotations} == {
            empty.id: ("[]", False),
            skipped.id: ("[]", True),
        }

    def test_fields_we_do_not_understand_survive(self, tool: LabelingTool, people: Sequence[str]) -> None:
        [task] = self.add(tool, "a")
        strange = {
            "big": 2**70,
            "small": -1e-9,
            "list": [1, None, True, {}],
            "text": 'ж 🦓 \u202e <b> "\\ \u0000',
        }
        region = self.choice("cat", meta={"text": ["unsure"]}, strange=strange)
        stored = self.write(tool, task, people[0], region)
        again = self.edit(tool, stored, region, self.box("tail", 0))
        assert json.loads(stored.result) == [region]
        assert json.loads(again.result) == [region, self.box("tail", 0)]
        assert json.loads(tool.read_task(task.id).annotations[0].result) == json.loads(again.result)

    def test_one_ground_truth_clears_the_others(self, tool: LabelingTool, people: Sequence[str]) -> None:
        [task] = self.add(tool, "a")
        first = self.write(tool, task, people[0], self.choice("cat"), ground_truth=True)
        second = self.write(tool, task, people[1], self.choice("cat"), ground_truth=True)
        assert first.ground_truth
        assert second.ground_truth
        now = {a.id: a for a in tool.read_task(task.id).annotations}
        assert now[second.id].ground_truth
        assert now[first.id].ground_truth is not tool.capabilities.one_ground_truth
        if tool.capabilities.one_ground_truth:
            assert now[first.id].revision != first.revision, "a stale write must be seen after this too"

    def test_writing_in_anothers_name_needs_the_capability(self, tool: LabelingTool) -> None:
        me = tool.whoami().name
        other = next(one.name for one in tool.annotators() if one.name != me)
        [task] = self.add(tool, "a")
        if tool.capabilities.acts_for_others:
            assert self.write(tool, task, other, self.choice("cat")).annotator == other
        else:
            with pytest.raises(Unsupported):
                self.write(tool, task, other, self.choice("cat"))

    # stale writes

    def test_a_stale_write_is_refused_and_the_others_edit_stays(
        self, tool: LabelingTool, people: Sequence[str]
    ) -> None:
        [task] = self.add(tool, "a")
        mine = self.write(tool, task, people[0], self.choice("cat"))
        theirs = self.edit(tool, mine, self.choice("dog"))
        with pytest.raises(Conflict):
            self.edit(tool, mine, self.box("head", 1))
        assert tool.read_annotation(str(mine.id)) == theirs

    def test_a_new_annotation_is_refused_where_the_task_was_answered_meanwhile(
        self, tool: LabelingTool, people: Sequence[str]
    ) -> None:
        [task] = self.add(tool, "a")
        seen = tool.read_task(task.id)
        new = Annotation(task_id=task.id, annotator=people[0], result=json.dumps([self.choice("cat")]))
        first = tool.write_annotation(new, seen.revision)
        with pytest.raises(Conflict):
            tool.write_annotation(new.model_copy(update={"annotator": people[1]}), seen.revision)
        assert tool.read_task(task.id).annotations == (first,)
        tool.write_annotation(new, tool.read_task(task.id).revision)

    def test_what_arrived_before_a_crash_is_known_by_its_content(
        self, tool: LabelingTool, open_tool: Callable[[], LabelingTool], people: Sequence[str]
    ) -> None:
        [task] = self.add(tool, "a")
        said = dump_json([self.choice("cat"), self.box("head", 1.5)])
        new = Annotation(task_id=task.id, annotator=people[0], result=said, ground_truth=True)
        tool.write_annotation(new, tool.read_task(task.id).revision)
        [found] = open_tool().read_task(task.id).annotations
        assert (found.content, found.result) == (new.content, said)
        tool.delete_annotation(str(found.id), found.revision)
        assert open_tool().read_task(task.id).annotations == ()
        if tool.capabilities.predictions:
            tool.write_predictions([Prediction(task_id=task.id, result=said, model_version="plan x")])
            [guess] = open_tool().read_task(task.id).predictions
            assert (guess.model_version, guess.result) == ("plan x", said)

    def test_a_stale_delete_is_refused_and_the_others_edit_stays(
        self, tool: LabelingTool, people: Sequence[str]
    ) -> None:
        [task] = self.add(tool, "a")
        mine = self.write(tool, task, people[0], self.choice("cat"))
        theirs = self.edit(tool, mine, self.choice("dog"))
        with pytest.raises(Conflict):
            tool.delete_annotation(str(mine.id), mine.revision)
        assert tool.read_task(task.id).annotations == (theirs,)

    def test_what_was_deleted_is_gone_for_everybody(self, tool: LabelingTool, people: Sequence[str]) -> None:
        [task] = self.add(tool, "a")
        mine = self.write(tool, task, people[0], self.choice("cat"))
        tool.delete_annotation(str(mine.id), mine.revision)
        assert tool.read_task(task.id).annotations == ()
        with pytest.raises(Conflict):
            self.edit(tool, mine, self.choice("dog"))
        with pytest.raises(Conflict):
            tool.delete_annotation(str(mine.id), mine.revision)

    @pytest.mark.parametrize("id", NO_SUCH_IDS)
    def test_what_is_not_there_is_a_conflict(self, tool: LabelingTool, id: str) -> None:
        ghost = Annotation(id=id, task_id="1", annotator="")
        calls: list[Callable[[], object]] = [
            lambda: tool.read_task(id),
            lambda: tool.read_annotation(id),
            lambda: tool.write_annotation(ghost, "a revision"),
            lambda: tool.delete_annotation(id, "a revision"),
            lambda: tool.write_annotation(ghost.model_copy(update={"id": None, "task_id": id}), None),
        ]
        for call in calls:
            with pytest.raises(Conflict):
                call()

    # what changed

    def test_changed_tasks_carry_all_their_annotations(
        self, tool: LabelingTool, people: Sequence[str]
    ) -> None:
        tasks = self.add(tool, *"abcde")
        for task in tasks:
            self.write(tool, task, people[0], self.choice("cat"))
        _, cursor = read(tool)
        self.write(tool, tasks[1], people[1], self.choice("dog"))
        changed, _ = read(tool, cursor)
        assert len(changed[tasks[1].id].annotations) == 2

    def test_all_changes_since_a_cursor_are_found(self, tool: LabelingTool, people: Sequence[str]) -> None:
        a, b, c, d = self.add(tool, *"abcd")
        held = [self.write(tool, task, people[0], self.choice("cat")) for task in (a, b, c)]
        known, cursor = read(tool)
        self.edit(tool, held[0], self.choice("dog"))
        tool.delete_annotation(str(held[1].id), held[1].revision)
        self.write(tool, d, people[0], self.box("head", 7))
        [e] = self.add(tool, "e")
        changed, _ = read(tool, cursor)
        assert {a.id, b.id, d.id, e.id} <= changed.keys()
        assert revisions(known | changed) == revisions(read(tool)[0])
        assert changed[b.id].annotations == ()

    def test_nothing_changed_brings_nothing_new(self, tool: LabelingTool, people: Sequence[str]) -> None:
        for task in self.add(tool, *"abcd"):
            self.write(tool, task, people[0], self.choice("cat"))
        known, cursor = read(tool)
        for _ in range(2):
            again, cursor = read(tool, cursor)
            assert revisions(known | again) == revisions(known)

    def test_going_on_from_any_page_loses_nothing(self, tool: LabelingTool, people: Sequence[str]) -> None:
        tasks = self.add(tool, *"abcdefg")
        for task in tasks[::2]:
            self.write(tool, task, people[0], self.choice("cat"))
        pages = list(tool.changed_tasks(None))
        whole, _ = read(tool)
        seen: dict[str, Task] = {}
        for page in pages:
            seen |= {task.id: task for task in page.tasks}
            rest, _ = read(tool, page.cursor)
            assert revisions(seen | rest) == revisions(whole)

    def test_changes_between_two_pages_are_not_missed(
        self, tool: LabelingTool, people: Sequence[str]
    ) -> None:
        tasks = self.add(tool, *"abcdefg")
        held = {task.id: self.write(tool, task, people[0], self.choice("cat")) for task in tasks}
        seen: dict[str, Task] = {}
        cursor = None
        for number, page in enumerate(tool.changed_tasks(None)):
            seen |= {task.id: task for task in page.tasks}
            cursor = page.cursor
            if number == 0:
                for task in (tasks[0], tasks[-1]):
                    self.edit(tool, held[task.id], self.choice("dog"))
        assert revisions(seen | read(tool, cursor)[0]) == revisions(read(tool)[0])

    # predictions, the review queue, the bucket

    def predicted(self, task: Task, label: str, model: str, score: float | None = 0.75) -> Prediction:
        """What a model says to `animal`."""
        said = json.dumps([self.choice(label)])
        return Prediction(task_id=task.id, result=said, model_version=model, score=score)

    def said(self, tool: LabelingTool, task: Task) -> list[tuple[str, str, float | None]]:
        """What the models say of a task."""
        found = tool.read_task(task.id).predictions
        regions = [(p, json.loads(p.result)[0]) for p in found]
        return sorted((p.model_version, r["value"]["choices"][0], p.score) for p, r in regions)

    def test_predictions_are_counted_and_are_nobodys_answer(self, tool: LabelingTool) -> None:
        a, b, c = self.add(tool, "a", "b", "c")
        predictions = [self.predicted(task, "cat", "v1") for task in (a, b)]
        if not tool.capabilities.predictions:
            for call in (tool.write_predictions, tool.delete_predictions):
                with pytest.raises(Unsupported):
                    call(predictions)
            with pytest.raises(Unsupported):
                tool.count_predictions()
            return
        assert tool.write_predictions(iter(predictions)) == 2
        assert tool.write_predictions([]) == 0
        assert tool.read_task(a.id).annotations == ()
        assert self.said(tool, a) == [("v1", "cat", 0.75)]
        assert tool.count_predictions() == 2
        assert sorted(task.id for task in tool.tasks_with_predictions()) == sorted([a.id, b.id])
        assert tool.read_task(c.id).predictions == ()

    def test_a_task_has_one_prediction_of_each_version_of_a_model(self, tool: LabelingTool) -> None:
        if not tool.capabilities.predictions:
            return
        a, b = self.add(tool, "a", "b")
        tool.write_predictions([self.predicted(a, "cat", "v1"), self.predicted(b, "dog", "v1", None)])
        kept = tool.read_task(a.id).predictions
        again = [
            self.predicted(a, "cat", "v1"),
            self.predicted(b, "cat", "v1"),
            self.predicted(b, "dog", "v2"),
        ]
        assert tool.write_predictions(again) == 2
        assert tool.read_task(a.id).predictions == kept
        assert self.said(tool, b) == [("v1", "cat", 0.75), ("v2", "dog", 0.75)]

    def test_predictions_are_taken_away(self, tool: LabelingTool) -> None:
        if not tool.capabilities.predictions:
            return
        a, b = self.add(tool, "a", "b")
        models = [self.predicted(task, "cat", model) for task in (a, b) for model in ("v1", "v2")]
        tool.write_predictions(models)
        stale = [p for p in tool.read_task(a.id).predictions if p.model_version == "v1"]
        stale += tool.read_task(b.id).predictions
        assert tool.delete_predictions(stale) == 3
        assert tool.delete_predictions(stale) == 0
        assert (self.said(tool, a), self.said(tool, b)) == ([("v2", "cat", 0.75)], [])

    def test_a_prediction_for_a_task_that_is_gone_is_a_conflict(self, tool: LabelingTool) -> None:
        if not tool.capabilities.predictions:
            return
        [a] = self.add(tool, "a")
        lost = Prediction(task_id="999999999", result="[]", model_version="v1")
        with pytest.raises(Conflict):
            tool.write_predictions([self.predicted(a, "cat", "v1"), lost])

    def test_a_review_queue_of_the_same_name_is_replaced(self, tool: LabelingTool) -> None:
        a, b, c = (task.id for task in self.add(tool, "a", "b", "c"))
        if not tool.capabilities.review_queue:
            with pytest.raises(Unsupported):
                tool.review_queue("check", [a])
            return
        first = tool.review_queue("check", [a, b])
        assert first
        assert tool.review_queue("check", [c]) == first
        assert tool.review_queue("another", [a]) != first

    def test_connecting_a_bucket_twice_is_connecting_it_once(
        self, tool: LabelingTool, bucket: Bucket | None
    ) -> None:
        if not tool.capabilities.connect_bucket:
            with pytest.raises(Unsupported):
                tool.connect_bucket(Bucket("s3://raw"))
            return
        if bucket is None:
            pytest.skip("no bucket was given")
        tool.connect_bucket(bucket)
        once = self.connections(tool)
        tool.connect_bucket(bucket)
        assert self.connections(tool) == once == 1

    def connections(self, tool: LabelingTool) -> int:
        """How many buckets are connected, asked behind the adapter's back. Needed with a `bucket` only."""
        raise NotImplementedError("say how many buckets are connected")

    # webhooks

    def test_webhooks_are_added_and_removed_as_often_as_one_likes(self, tool: LabelingTool) -> None:
        if not tool.capabilities.webhooks:
            self._every_webhook_method_is_unsupported(tool)
            return
        assert list(tool.webhooks()) == []
        for _ in range(2):
            added = tool.add_webhook(self.webhook_url, self.headers)
            assert [(hook.id, hook.url) for hook in tool.webhooks()] == [(added.id, self.webhook_url)]
        for _ in range(2):
            tool.remove_webhook(added.id)
            assert list(tool.webhooks()) == []

    def test_a_test_of_the_webhooks_changes_nothing(self, tool: LabelingTool) -> None:
        if not tool.capabilities.webhooks:
            return
        before = tool.read_ontology()
        tool.test_webhooks()
        assert tool.read_ontology() == before

    def _every_webhook_method_is_unsupported(self, tool: LabelingTool) -> None:
        calls: Iterable[Callable[[], object]] = (
            lambda: tool.add_webhook(self.webhook_url, self.headers),
            lambda: tool.webhooks(),
            lambda: tool.remove_webhook("1"),
            lambda: tool.test_webhooks(),
            lambda: tool.parse_event(self.headers, self.event, self.secret),
        )
        for call in calls:
            with pytest.raises(Unsupported):
                call()

    @pytest.fixture
    def parse(self, tool: LabelingTool, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
        """`parse_event` with the network cut."""
        if not tool.capabilities.webhooks:
            pytest.skip("the tool has no webhooks")

        def cut(*_: object) -> None:
            raise AssertionError("an event must be parsed without a network")

        monkeypatch.setattr(socket.socket, "connect", cut)
        return tool.parse_event

    def test_an_event_says_what_to_look_at_and_is_the_same_when_it_comes_twice(
        self, parse: Callable[..., Any]
    ) -> None:
        woken = parse(self.headers, self.event, self.secret)
        assert (woken.task_ids, woken.annotation_ids) == (("7",), ("8",))
        shouted = {name.upper(): value for name, value in self.headers.items()}
        assert parse(shouted, self.event, self.secret) == woken

    def test_an_event_of_no_interest_wakes_nobody(self, parse: Callable[..., Any]) -> None:
        assert parse(self.headers, self.idle_event, self.secret) is None

    @pytest.mark.parametrize("secret", ["close sesame", "", "ö"])
    def test_an_event_without_our_secret_is_not_let_in(self, parse: Callable[..., Any], secret: str) -> None:
        with pytest.raises(AuthError):
            parse(self.headers, self.event, secret)
        with pytest.raises(AuthError):
            parse({}, self.event, self.secret)

    @pytest.mark.parametrize("body", [b"", b"not json", b"[]", b"null", b"7", b"{}", b"\xff\xfe"])
    def test_garbage_is_a_bad_record(self, parse: Callable[..., Any], body: bytes) -> None:
        with pytest.raises(BadRecord):
            parse(self.headers, body, self.secret)

    # failures

    def test_every_failure_is_one_of_ours(
        self, unavailable: Sequence[tuple[LabelingTool, type[ConnectorError]]]
    ) -> None:
        assert unavailable, "the contract suite needs adapters that cannot work"
        for tool, error in unavailable:
            for call in self._reads_and_writes(tool):
                with pytest.raises(error):
                    call()

    def _reads_and_writes(self, tool: LabelingTool) -> Iterable[Callable[[], object]]:
        return (
            tool.count_tasks,
            tool.task_ids,
            tool.known_keys,
            tool.read_ontology,
            lambda: list(tool.changed_tasks(None)),
            lambda: list(tool.add_items([self.item("a")])),
            lambda: tool.read_task("1"),
        )

    def test_a_check_names_what_is_wrong_and_never_raises(self, tool: LabelingTool) -> None:
        assert tool.check()

    def test_a_check_of_what_cannot_work_names_what_is_wrong_and_never_raises(
        self, unavailable: Sequence[tuple[LabelingTool, type[ConnectorError]]]
    ) -> None:
        for broken, _ in unavailable:
            wrong = [found for found in broken.check() if not found.ok]
            assert wrong
            assert all(found.next_step for found in wrong)
