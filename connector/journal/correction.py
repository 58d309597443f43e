"""A correction: what is to be changed in the tool, where, why, and what must still be there."""

from __future__ import annotations

import json
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, field_validator, model_validator


class Action(StrEnum):
    """What is done about an answer that is not right."""

    ADD = "add"
    """Add the right answer as an annotation of whoever applies the plan, marked ground truth."""
    REPLACE = "replace"
    """Replace the annotator's own, in that name."""
    PREDICT = "predict"
    """Add the right answer as a prediction, for a person to accept."""
    DELETE = "delete"
    """Delete the annotator's own."""
    RETURN = "return"
    """Give the task back to the annotator, with a note."""
    ASK = "ask"
    """Ask one more annotator."""


OWN = frozenset({Action.REPLACE, Action.DELETE, Action.RETURN})
"""What is about one annotator's own annotation. All else is about a task."""

WRITING = frozenset({Action.ADD, Action.REPLACE, Action.PREDICT})
"""What writes a result."""


class Record(BaseModel):
    """What stands on a line of a file of ours."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Change(Record):
    """What people said of one unit, and what shall stand there.

    Attributes:
        votes, annotators: how many of how many said so; none where one person decided.
    """

    control: str
    unit: str
    now: str
    then: str
    confidence: float | None = None
    votes: int | None = None
    annotators: int | None = None


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


class Correction(Record):
    """One thing to be done in the tool.

    Attributes:
        annotation, annotator: whose own annotation it is about; none where it is about the task.
        expect: the revision that the tool must still hold (time and content): of that annotation, or of all
            annotations of the task.
        overlap: how many people the task is shown to, of `ask`.
        now: the result that stands there, of an annotation.
        then: the whole result to be written.
        cancelled: whether the annotation is a skipped one, and stays skipped.
        note: the message to the annotator, of `return`.
        confidence: how sure it is; none when a person said so.
    """

    task: str
    key: str
    action: Action
    annotation: str | None = None
    annotator: str = ""
    expect: str
    overlap: int | None = None
    now: str | None = None
    then: str | None = None
    cancelled: bool = False
    note: str | None = None
    why: str
    confidence: float | None = None
    changes: tuple[Change, ...] = ()

    @field_validator("then")
    @classmethod
    def _is_a_result(cls, then: str | None) -> str | None:
        if then is not None:
            try:
                regions = json.loads(then, parse_constant=_refused)
            except ValueError as error:
                raise ValueError(f"is no JSON: {error}") from error
            if not isinstance(regions, list) or not all(isinstance(one, dict) for one in regions):
                raise ValueError("is no list of regions")
        return then

    @field_validator("note")
    @classmethod
    def _is_one_line(cls, note: str | None) -> str | None:
        return " ".join((note or "").split()) or None

    @model_validator(mode="after")
    def _is_whole(self) -> Correction:
        needed = {
            "then": self.action in WRITING,
            "annotation": self.action in OWN,
            "note": self.action is Action.RETURN,
            "overlap": self.action is Action.ASK,
        }
        for name, is_needed in needed.items():
            if is_needed and getattr(self, name) is None:
                raise ValueError(f"{self.action} needs {name}")
        return self
