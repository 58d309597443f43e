"""What each kind of correction is: how it is checked, sent, found again after a crash, and taken back."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from connector.adapters.base import AFTER_DRAFT, Capabilities, LabelingTool
from connector.errors import Conflict
from connector.journal.correction import Action, Correction, Record
from connector.model import PLAN_MODEL, Annotation, Prediction, Task, dump_json

PULL = "run `connector pull`, then plan again"
STAYS_WITHOUT = "stays without its ground truth"


class Held(Record):
    """What the tool held of a task, as far as a correction touches it.

    Attributes:
        annotations: the corrected one first; then those whose ground truth it takes.
        ids: of all the task's annotations.
    """

    annotations: tuple[Annotation, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    note: str | None = None
    overlap: int | None = None
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends corrections: in whose name, and by which plan."""

    name: str
    run: str


@dataclass(frozen=True, slots=True)
class Sent:
    """What is to be taken back.

    Attributes:
        before, after: what the tool held before it was sent, and then.
        made: ids of annotations that this undoing has made already: they are no annotator's work.
    """

    before: Held
    after: Held
    made: Collection[str]


@dataclass(frozen=True, slots=True)
class Back:
    """What it took to take a correction back.

    Attributes:
        made: annotations that stand there anew, as the tool holds them.
        told: what is not quite as it was; the empty text if all is.
    """

    made: tuple[Annotation, ...] = ()
    told: str = ""


class Kind(ABC):
    """One kind of correction. Each reads the task it is given, and asks the tool for no more than it must."""

    @abstractmethod
    def able(self, can: Capabilities) -> bool:
        """Whether a tool can do this, and take it back."""

    @abstractmethod
    def unexpected(self, task: Task, correction: Correction) -> str:
        """What the tool holds otherwise than the plan expects; the empty text if nothing."""

    @abstractmethod
    def before(self, task: Task, correction: Correction) -> Held:
        """What is needed to take it back."""

    def wanted(self, correction: Correction, before: Held, by: Sender) -> Sequence[Annotation]:  # noqa: ARG002
        """The annotation that it writes, if it does."""
        return ()

    @abstractmethod
    def send(self, tool: LabelingTool, correction: Correction, before: Held, by: Sender) -> Held:
        """Send it, once, and look what the tool holds then.

        Raises:
            Conflict: if the tool holds something else than expected; then nothing was written.
            Temporary: if the answer was lost; it may have arrived.
        """

    @abstractmethod
    def arrived(self, task: Task, correction: Correction, before: Held, by: Sender) -> Held | None:
        """What the tool holds of it, if it was sent and has arrived."""

    @abstractmethod
    def take_back(self, tool: LabelingTool, task: Task, sent: Sent) -> Back:
        """Make it as it was before. Twice is once.

        Args:
            task: as the tool holds it now.

        Raises:
            Conflict: if it was changed since.
            Temporary: if the answer was lost; it may have arrived.
        """


class _OfTask(Kind):
    """About a task: all its annotations must be what they were."""

    def unexpected(self, task: Task, correction: Correction) -> str:
        if task.revision != correction.expect:
            return f"the answers to task {task.id} were changed since they were pulled"
        return ""

    def _still_expected(self, tool: LabelingTool, correction: Correction) -> Task:
        task = tool.read_task(correction.task)
        if found := self.unexpected(task, correction):
            raise Conflict(found, PULL)
        return task


class _OfAnnotation(Kind):
    """About one annotation: it must be what it was."""

    def unexpected(self, task: Task, correction: Correction) -> str:
        found = _annotation(task, str(correction.annotation))
        if found is None:
            return f"annotation {correction.annotation} is gone"
        if found.revision != correction.expect:
            return f"annotation {found.id} was changed since it was pulled"
        return self.unsaved(task, found)

    def unsaved(self, task: Task, found: Annotation) -> str:
        """The unsaved work on the annotation that the correction would delete; the empty text if none."""
        return task.unsaved(found.id)

    def before(self, task: Task, correction: Correction) -> Held:
        held = _annotation(task, str(correction.annotation))
        return Held(annotations=(held,) if held else (), ids=_ids(task))


class _Add(_OfTask):
    def wanted(self, correction: Correction, before: Held, by: Sender) -> Sequence[Annotation]:  # noqa: ARG002
        new = Annotation(
            task_id=correction.task, annotator=by.name, result=_result(correction), ground_truth=True
        )
        return (new,)

    def able(self, can: Capabilities) -> bool:  # noqa: ARG002
        return True

    def before(self, task: Task, correction: Correction) -> Held:  # noqa: ARG002
        return Held(annotations=tuple(a for a in task.annotations if a.ground_truth), ids=_ids(task))

    def send(self, tool: LabelingTool, correction: Correction, before: Held, by: Sender) -> Held:
        [wanted] = self.wanted(correction, before, by)
        stored = tool.write_annotation(wanted, correction.expect)
        siblings = before.annotations
        if tool.capabilities.one_ground_truth:
            siblings = tuple(map(_without_ground_truth, siblings))
        return Held(annotations=(stored, *siblings), ids=(*before.ids, str(stored.id)))

    def arrived(self, task: Task, correction: Correction, before: Held, by: Sender) -> Held | None:
        [wanted] = self.wanted(correction, before, by)
        siblings = {a.id for a in before.annotations}
        for found in task.annotations:
            if found.id not in before.ids and found.content == wanted.content:
                others = (a for a in task.annotations if a.id in siblings)
                return Held(annotations=(found, *others), ids=_ids(task))
        return None

    def take_back(self, tool: LabelingTool, task: Task, sent: Sent) -> Back:
        ours = sent.after.annotations[0]
        taken = any(a.ground_truth for a in task.annotations if not _is(a, ours))
        for sibling in sent.before.annotations:  # before anything is written: all of it, or nothing
            found = _same(task, sibling)
            as_left = found is not None and found.content == _without_ground_truth(sibling).content
            if as_left and not taken and (lost := task.unsaved(sibling.id)):
                raise Conflict(lost, AFTER_DRAFT)
        if _same(task, ours):
            tool.delete_annotation(str(ours.id), expect=ours.revision)
        again: list[Annotation] = []
        told: list[str] = []
        for sibling in sent.before.annotations:
            # The tool took the ground truth from this one when ours came; its own time did not move.
            found = _same(task, sibling)
            if found is None:
                continue
            if found.ground_truth:
                again.append(found)
            elif taken:
                told.append(f"annotation {sibling.id} {STAYS_WITHOUT}: the task has another")
            elif found.content != _without_ground_truth(sibling).content:
                told.append(f"annotation {sibling.id} was edited since and {STAYS_WITHOUT}")
            else:
                again.append(tool.write_annotation(sibling, expect=found.revision))
                taken = True
        return Back(tuple(again), "; ".join(told))


class _Replace(_OfAnnotation):
    def wanted(self, correction: Correction, before: Held, by: Sender) -> Sequence[Annotation]:  # noqa: ARG002
        new = {"result": _result(correction), "cancelled": correction.cancelled}
        return (before.annotations[0].model_copy(update=new),)

    def able(self, can: Capabilities) -> bool:
        return can.acts_for_others

    def send(self, tool: LabelingTool, correction: Correction, before: Held, by: Sender) -> Held:
        [wanted] = self.wanted(correction, before, by)
        stored = tool.write_annotation(wanted, correction.expect)
        return Held(annotations=(stored,), ids=before.ids)

    def arrived(self, task: Task, correction: Correction, before: Held, by: Sender) -> Held | None:
        found = _same(task, before.annotations[0])
        [wanted] = self.wanted(correction, before, by)
        there = found is not None and found.content == wanted.content
        return Held(annotations=(found,), ids=before.ids) if found and there else None

    def take_back(self, tool: LabelingTool, task: Task, sent: Sent) -> Back:
        was, ours = sent.before.annotations[0], sent.after.annotations[0]
        found = _same(task, was)
        if found is None or found.content != was.content:
            found = tool.write_annotation(was, expect=ours.revision)
        return Back((found,))


class _Delete(_OfAnnotation):
    def able(self, can: Capabilities) -> bool:
        return can.acts_for_others

    def send(self, tool: LabelingTool, correction: Correction, before: Held, by: Sender) -> Held:  # noqa: ARG002
        if found := self.unexpected(tool.read_task(correction.task), correction):
            raise Conflict(found, PULL)
        tool.delete_annotation(str(correction.annotation), correction.expect)
        return self._left(before)

    def arrived(self, task: Task, correction: Correction, before: Held, by: Sender) -> Held | None:  # noqa: ARG002
        return None if _same(task, before.annotations[0]) else self._left(before)

    def _left(self, before: Held) -> Held:
        return Held(ids=tuple(id for id in before.ids if id != before.annotations[0].id))

    def before(self, task: Task, correction: Correction) -> Held:
        held = super().before(task, correction)
        truths = (a for a in task.annotations if a.ground_truth and a.id != correction.annotation)
        return held.model_copy(update={"annotations": (*held.annotations, *truths)})

    def take_back(self, tool: LabelingTool, task: Task, sent: Sent) -> Back:
        was, left = sent.before.annotations[0], self._left(sent.before).ids
        if found := _same(task, was):
            return Back((found,))
        since = [a for a in task.annotations if a.id not in left and a.id not in sent.made]
        bare = _without_ground_truth(was)
        again = next((a for a in since if a.content in (was.content, bare.content)), None)
        if again is None:
            if any(a.annotator == was.annotator for a in since):
                raise Conflict(f"{was.annotator} has answered task {task.id} again since", PULL)
            new = bare if self._would_take_the_truth(tool, task, sent) else was
            fresh = {"id": None, "created_at": None, "updated_at": None}
            again = tool.write_annotation(new.model_copy(update=fresh), task.revision)
        told = f"annotation {was.id} was made again as {again.id}"
        stays = f", and {STAYS_WITHOUT}: the task has another"
        return Back((again,), told + stays * (was.ground_truth and not again.ground_truth))

    def _would_take_the_truth(self, tool: LabelingTool, task: Task, sent: Sent) -> bool:
        """Whether another has the ground truth that had it before too, and would lose it to this one."""
        was, *truths = sent.before.annotations
        held = [a for a in task.annotations if a.ground_truth] if was.ground_truth else []
        if any(a.id not in sent.made and not any(_is(a, one) for one in truths) for a in held):
            raise Conflict(f"task {task.id} has another ground truth since", PULL)
        return bool(held) and tool.capabilities.one_ground_truth


class _Predict(_OfTask):
    def able(self, can: Capabilities) -> bool:
        return can.predictions

    def unexpected(self, task: Task, correction: Correction) -> str:
        # By another run, perhaps of the same plan before it was edited: this one's own would have been found.
        if any(one.result == _result(correction) for one in task.predictions):
            return f"a prediction for task {task.id} says so already"
        return super().unexpected(task, correction)

    def before(self, task: Task, correction: Correction) -> Held:  # noqa: ARG002
        return Held(ids=_ids(task))

    def send(self, tool: LabelingTool, correction: Correction, before: Held, by: Sender) -> Held:
        self._still_expected(tool, correction)
        wanted = Prediction(
            task_id=correction.task,
            result=_result(correction),
            model_version=model_of(by.run),
            score=correction.confidence,
        )
        tool.write_predictions([wanted])
        return _seen(tool, self, correction, before, by)

    def arrived(self, task: Task, correction: Correction, before: Held, by: Sender) -> Held | None:
        for found in task.predictions:
            if found.model_version == model_of(by.run) and found.result == _result(correction):
                return Held(predictions=(found,), ids=before.ids)
        return None

    def take_back(self, tool: LabelingTool, task: Task, sent: Sent) -> Back:  # noqa: ARG002
        tool.delete_predictions(sent.after.predictions)
        return Back()


class _Return(_OfAnnotation):
    """Whoever has labeled a task finds it in a queue, and on it a note; others' notes stay."""

    def unsaved(self, task: Task, found: Annotation) -> str:  # noqa: ARG002
        return ""  # a note does not touch the annotation, nor what its author is about to make of it

    def able(self, can: Capabilities) -> bool:
        return can.notes and can.review_queue

    def before(self, task: Task, correction: Correction) -> Held:
        return super().before(task, correction).model_copy(update={"note": task.note})

    def send(self, tool: LabelingTool, correction: Correction, before: Held, by: Sender) -> Held:
        task = tool.read_task(correction.task)
        if found := self.unexpected(task, correction):
            raise Conflict(found, PULL)
        if correction.note not in _lines(task):
            tool.leave_note(task.id, "\n".join([*_lines(task), str(correction.note)]))
        return _seen(tool, self, correction, before, by)

    def arrived(self, task: Task, correction: Correction, before: Held, by: Sender) -> Held | None:  # noqa: ARG002
        ours = correction.note in _lines(task)
        return before.model_copy(update={"note": correction.note}) if ours else None

    def take_back(self, tool: LabelingTool, task: Task, sent: Sent) -> Back:
        if sent.after.note in _lines(task) and sent.after.note not in (sent.before.note or "").splitlines():
            tool.leave_note(task.id, "\n".join(n for n in _lines(task) if n != sent.after.note) or None)
        return Back()


class _Ask(_OfTask):
    def able(self, can: Capabilities) -> bool:
        return can.task_overlap

    def unexpected(self, task: Task, correction: Correction) -> str:
        if task.overlap != correction.overlap:
            return f"task {task.id} is shown to {task.overlap} people since, not to {correction.overlap}"
        return super().unexpected(task, correction)

    def before(self, task: Task, correction: Correction) -> Held:  # noqa: ARG002
        return Held(overlap=task.overlap, ids=_ids(task))

    def send(self, tool: LabelingTool, correction: Correction, before: Held, by: Sender) -> Held:
        task = self._still_expected(tool, correction)
        tool.set_task_overlap(task.id, task.overlap + 1)
        return _seen(tool, self, correction, before, by)

    def arrived(self, task: Task, correction: Correction, before: Held, by: Sender) -> Held | None:  # noqa: ARG002
        more = (before.overlap or 0) + 1
        return before.model_copy(update={"overlap": more}) if task.overlap == more else None

    def take_back(self, tool: LabelingTool, task: Task, sent: Sent) -> Back:
        if task.overlap not in (sent.before.overlap, sent.after.overlap):
            raise Conflict(f"task {task.id} is shown to {task.overlap} people since", PULL)
        if task.overlap != sent.before.overlap:
            tool.set_task_overlap(task.id, sent.before.overlap or 1)
        return Back()


KINDS: Mapping[Action, Kind] = {
    Action.ADD: _Add(),
    Action.REPLACE: _Replace(),
    Action.PREDICT: _Predict(),
    Action.DELETE: _Delete(),
    Action.RETURN: _Return(),
    Action.ASK: _Ask(),
}


def model_of(run: str) -> str:
    """The name under which a plan's predictions stand in the tool."""
    return f"{PLAN_MODEL}{run}"


def _result(correction: Correction) -> str:
    """What shall stand there, as the seam writes JSON."""
    return dump_json(json.loads(correction.then or "[]"))


def _seen(tool: LabelingTool, kind: Kind, correction: Correction, before: Held, by: Sender) -> Held:
    """What the tool holds just after a write."""
    found = kind.arrived(tool.read_task(correction.task), correction, before, by)
    if found is None:
        raise Conflict(f"task {correction.task} was changed while it was being written", PULL)
    return found


def _annotation(task: Task, id: str) -> Annotation | None:
    return next((a for a in task.annotations if a.id == id), None)


def _is(one: Annotation, other: Annotation) -> bool:
    """Whether they are versions of the same annotation: ids come again."""
    return (one.id, one.created_at) == (other.id, other.created_at)


def _same(task: Task, annotation: Annotation) -> Annotation | None:
    """The annotation as the task holds it now."""
    return next((a for a in task.annotations if _is(a, annotation)), None)


def _ids(task: Task) -> tuple[str, ...]:
    return tuple(str(a.id) for a in task.annotations)


def _without_ground_truth(annotation: Annotation) -> Annotation:
    return annotation.model_copy(update={"ground_truth": False})


def _lines(task: Task) -> list[str]:
    return (task.note or "").splitlines()
