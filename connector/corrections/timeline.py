"""The history of one task: what people and plans did to it, in order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from connector.journal.correction import Action, Correction
from connector.journal.journal import Begun, Journal, Outcome, State
from connector.store.label_store import ANNOTATION, Store

_WRITTEN = {
    Action.ADD: "added by a correction",
    Action.REPLACE: "replaced by a correction",
    Action.PREDICT: "predicted by a correction",
    Action.DELETE: "deleted by a correction",
    Action.RETURN: "returned by a correction",
    Action.ASK: "one more annotator asked by a correction",
}

_NOT_WRITTEN = {
    State.UNDONE: "undone",
    State.CONFLICT: "left out",
    State.EDITED: "not undone",
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done to a task.

    Attributes:
        who: the annotator, or who sent the correction.
        what: `answered`, `edited`, `deleted`; or what became of a correction.
        before, after: what the annotation says, in short; empty where there is none.
        plan: of a correction.
    """

    at: datetime
    who: str
    what: str
    annotation: str
    before: str
    after: str
    why: str
    plan: str | None


def history(store: Store, journal: Journal, task: str) -> list[Event]:
    """What people and plans did to a task. What people did is known as far as it was pulled.

    Args:
        task: the tool's id.
    """
    events = [*_of_people(store, task, journal), *_of_plans(journal, task)]
    return sorted(events, key=lambda one: one.at)


def _of_people(store: Store, task: str, journal: Journal) -> Iterator[Event]:
    restored, deleted = journal.plans().restored, set(_deleted(journal, task))
    mine = (pl.col("record") == ANNOTATION) & (pl.col("task") == task)
    last: dict[tuple[str, datetime], Mapping[str, object]] = {}
    for row in store.collect(store.rows().filter(mine).sort("pull")).iter_rows(named=True):
        was = last.get((row["id"], row["created_at"]), {})
        last[row["id"], row["created_at"]] = {**was, **{k: v for k, v in row.items() if v is not None}}
        ours = (row["id"], row["created_at"]) in deleted if row["deleted"] else row["plan"]
        if ours or (row["id"], row["hash"]) in restored:
            continue  # the journal tells it, and why
        yield Event(
            at=row["pulled_at"] if row["deleted"] else row["updated_at"] or row["pulled_at"],
            who=str(row["annotator"] or was.get("annotator", "")),
            what="deleted" if row["deleted"] else "edited" if was else "answered",
            annotation=row["id"],
            before=in_short(was.get("content")),
            after="" if row["deleted"] else in_short(row["content"]),
            why="",
            plan=None,
        )


def _deleted(journal: Journal, task: str) -> Iterator[tuple[str, datetime | None]]:
    """The annotations that a plan, or its undoing, deleted."""
    for run in journal.runs():
        for entry in run.entries.values():
            if entry.correction.task != task:
                continue
            held = None
            if entry.correction.action is Action.DELETE and entry.after:
                held = entry.before
            elif entry.correction.action is Action.ADD and entry.state is State.UNDONE:
                held = entry.after
            if held:
                yield str(held.annotations[0].id), held.annotations[0].created_at


def _of_plans(journal: Journal, task: str) -> Iterator[Event]:
    corrections: dict[tuple[str, int], Correction] = {}
    by: dict[str, str] = {}
    for one in journal.told():
        if isinstance(one, Begun):
            by[one.run] = one.by
            continue
        if found := getattr(one, "correction", None):
            corrections[one.run, one.number] = found
        correction = corrections[one.run, one.number]
        if correction.task == task and isinstance(one, Outcome):
            yield _event(one, correction, by[one.run])


def _event(outcome: Outcome, correction: Correction, by: str) -> Event:
    before, after = in_short(correction.now), in_short(correction.then)
    if correction.action is Action.RETURN:
        after = correction.note or ""
    if correction.action is Action.ASK:
        before, after = str(correction.overlap), str((correction.overlap or 0) + 1)
    if outcome.state is State.UNDONE:
        before, after = after, before
    return Event(
        at=outcome.at.astimezone(UTC),
        who=by,
        what=_what(correction.action, outcome.state),
        annotation=correction.annotation or "",
        before=before,
        after=after,
        why=outcome.why or correction.why,
        plan=outcome.run,
    )


def _what(action: Action, state: State) -> str:
    """What became of a correction."""
    return _WRITTEN[action] if state is State.WRITTEN else f"{action} {_NOT_WRITTEN.get(state, state)}"


def in_short(result: object) -> str:
    """A result in a few words: the labels of its regions, or what else they say."""
    regions = json.loads(result) if isinstance(result, str) else []
    return "; ".join(_words(raw) for raw in regions if isinstance(raw, dict))


def _words(raw: Mapping[str, object]) -> str:
    value = raw.get("value")
    said = value.get(str(raw.get("type")), value.get("text")) if isinstance(value, dict) else None
    if isinstance(said, list):
        return ", ".join(" > ".join(map(str, one)) if isinstance(one, list) else str(one) for one in said)
    return str(raw.get("type", "?")) if said is None else str(said)
