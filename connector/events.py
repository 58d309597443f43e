"""What happened, as the store tells it: the events that a labeling tool does not send.

    task.completed        as many people as asked for have answered
    task.reopened         they have not any more: an answer is gone, or more were asked for
    consensus.reached     they agree; consensus.failed: they do not
    prediction.uncertain  a model is not sure
    annotator.failing     an annotator's golden score lies below the limit, its whole interval
    batch.completed       every task of a batch is completed; batch.accepted: and they all agree

The events of a task are found by going through all that was ever stored of it, pull after pull, and the
n-th completion of a task has always the same id. So whoever looks twice, or later, or after a crash, finds
the same events, and the log takes each once. What came and went between two pulls nobody can know.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from connector.adapters.base import batches
from connector.config import Config
from connector.eventlog import Changes, Event, EventLog, Planned, Standing, event_id
from connector.labels import Loaded, read_answers, read_file, with_gold
from connector.model import Ontology, Role
from connector.quality.consensus import merged_answers
from connector.quality.golden import golden
from connector.quality.units import keep_roles, units
from connector.store import ANNOTATION, PREDICTION, TASK, Store

ALL = "all"
"""The batch of tasks that name none."""

TASKS_AT_ONCE = 2000

_Row = Mapping[str, Any]
_Identity = tuple[str, datetime | None]
_Told = tuple[str, datetime, list[_Row]]

COMPLETED, REOPENED, UNCERTAIN = "task.completed", "task.reopened", "prediction.uncertain"
JUDGED = "answers changed"
"""What makes no event by itself: people have to agree anew."""


def note_events(store: Store, log: EventLog, config: Config, planned: Planned) -> list[Event]:
    """Find what happened since the store was last followed, and keep it.

    What happened before the first time is noted, and nothing is done about it.

    Args:
        planned: what is to be done about an event.

    Returns:
        What is new.
    """
    since = log.followed()
    tasks, last = store.changed(since or 0)
    if last == since:
        return []
    changes = find(store, log, config, tasks)
    return log.keep(changes, planned if since is not None else lambda _: (), last)


def find(store: Store, log: EventLog, config: Config, tasks: Sequence[str]) -> Changes:
    """What happened to these tasks, ever, and how they stand."""
    changes, ontology, gold = Changes(), store.ontology(), _gold_file(config, store.ontology())
    scored = False
    for some in batches(tasks, TASKS_AT_ONCE):
        lives = _lives(store.history(some), config)
        _of_tasks(lives, log.source, config, ontology, changes)
        scored = scored or any(map(_has_gold(gold), lives))
    if scored:
        _of_annotators(_golden_scores(store, config, ontology, gold), log, changes)
    _of_batches(log, tasks, changes)
    return changes


# Tasks.


@dataclass
class _Life:
    """What became of one task, row after row.

    Attributes:
        answers: what counts now, by the identity of the annotation.
        truths: the annotations that are gold.
        times: how often it was completed.
        told: what happened: the type, when, and the answers at that time, or the prediction.
    """

    task: str
    key: str = ""
    created_at: datetime | None = None
    batch: str = ALL
    data: str = "{}"
    overlap: int = 1
    there: bool = False
    answers: dict[_Identity, _Row] = field(default_factory=dict)
    truths: set[_Identity] = field(default_factory=set)
    times: int = 0
    complete: bool = False
    told: list[_Told] = field(default_factory=list)


def _lives(history: pl.DataFrame, config: Config) -> list[_Life]:
    lives = []
    for (task,), rows in history.group_by("task", maintain_order=True):
        life = _Life(str(task))
        for row in sorted(rows.iter_rows(named=True), key=_order):
            _live(life, row, config)
        lives.append(life)
    return lives


def _of_tasks(
    lives: Sequence[_Life], source: str, config: Config, ontology: Ontology | None, changes: Changes
) -> None:
    told = [(life, n, type, said) for life in lives for n, (type, _, said) in enumerate(life.told)]
    answered = [(life, n) for life, n, type, said in told if said and type != UNCERTAIN]
    merged = _merged([(life, life.told[n][2]) for life, n in answered], config, ontology)
    answers = {(life.task, n): answer for (life, n), answer in zip(answered, merged, strict=True)}
    for life in lives:
        theirs = {n: answers.get((life.task, n), []) for n in range(len(life.told))}
        _tell(life, theirs, source, config, changes)


def _order(row: _Row) -> tuple[int, int, datetime]:
    """What came first within a pull: the task itself, then answers as they were given.

    What is gone went last, since nobody knows when.
    """
    rank = 2 if row["deleted"] else 0 if row["record"] == TASK else 1
    return row["pull"], rank, row["updated_at"] or row["pulled_at"]


def _live(life: _Life, row: _Row, config: Config) -> None:
    """Let the next row change what is known of a task, and note what happened by it."""
    if row["record"] == TASK:
        _become(life, row, config)
    elif row["record"] == ANNOTATION:
        _answer(life, row, config)
    elif not row["deleted"] and _score(row) < config.events.prediction_score:
        life.told.append((UNCERTAIN, row["created_at"] or row["pulled_at"], [row]))
    if row["record"] == PREDICTION or not life.there:
        return
    at, said = row["updated_at"] or row["pulled_at"], list(life.answers.values())
    complete = len({one["annotator"] for one in said}) >= life.overlap
    if complete and not life.complete:
        life.times += 1
        life.told.append((COMPLETED, at, said))
    elif life.complete and not complete:
        life.told.append((REOPENED, at, []))
    elif complete and row["record"] == ANNOTATION:
        life.told.append((JUDGED, at, said))
    life.complete = complete


def _score(prediction: _Row) -> float:
    """How sure a model is; where it does not say, nothing is made of it."""
    return 1.0 if prediction["score"] is None else float(prediction["score"])


def _become(life: _Life, row: _Row, config: Config) -> None:
    if row["deleted"]:
        life.there = life.there and row["created_at"] != life.created_at
        return
    if row["created_at"] != life.created_at:
        # Tools give the id of a task that is gone to a new one.
        life.answers, life.truths, life.told = {}, set(), []
        life.times, life.complete = 0, False
    life.there, life.created_at, life.key = True, row["created_at"], row["key"]
    life.overlap, life.data, life.batch = row["overlap"] or 1, row["content"], _batch(row, config)


def _answer(life: _Life, row: _Row, config: Config) -> None:
    identity = (row["id"], row["created_at"])
    if row["plan"] and not row["deleted"]:
        return  # what a plan of corrections wrote is nobody's answer
    life.answers.pop(identity, None)
    life.truths.discard(identity)
    if row["deleted"] or row["cancelled"]:
        return
    role = config.roles.get(row["annotator"], Role.PERSON)
    if role is Role.PERSON:
        life.answers[identity] = row
    if role is Role.GOLD or row["ground_truth"]:
        life.truths.add(identity)


def _batch(row: _Row, config: Config) -> str:
    name = config.events.batch
    named = json.loads(row["content"]).get(name) if name else None
    return ALL if named is None else str(named)


def _merged(
    cases: Sequence[tuple[_Life, list[_Row]]], config: Config, ontology: Ontology | None
) -> list[list[dict[str, Any]]]:
    """The merged answer of each case: a list of units. Cases of one task are taken for tasks of their own."""
    rows = [{**row, "task": str(n)} for n, (_, said) in enumerate(cases) for row in said]
    data = {str(n): life.data for n, (life, _) in enumerate(cases)}
    loaded = read_answers(rows, data, config.roles, ontology)
    table = keep_roles(units(loaded.labels, config.quality.thresholds), [Role.PERSON])
    found: list[list[dict[str, Any]]] = [[] for _ in cases]
    for unit in merged_answers(table).iter_rows(named=True):
        # A tie decides nothing; what is named there depends on the tasks that are looked at together.
        found[int(unit.pop("task"))].append({**unit, "label": None} if unit["tie"] else unit)
    return found


def _tell(
    life: _Life, answers: Mapping[int, list[dict[str, Any]]], source: str, config: Config, changes: Changes
) -> None:
    """Turn a task's life into its events, and note how it stands at the end."""
    identity = [source, life.task, str(life.created_at)]
    count, agreed = Counter[str](), None

    def tell(type: str, at: datetime, data: Mapping[str, Any], *which: Any) -> None:
        about = {"task": life.task, "batch": life.batch, **data}
        changes.events.append(Event(event_id(type, *identity, *which), type, f"task:{life.task}", at, about))

    for n, (type, at, said) in enumerate(life.told):
        count[type] += 1
        if type == UNCERTAIN:
            [guess] = said
            data = {"model": guess["annotator"], "score": guess["score"]}
            tell(type, at, data, guess["annotator"], guess["id"], str(guess["created_at"]))
            continue
        if type == REOPENED:
            agreed = None
            tell(type, at, {}, count[type])
            continue
        people = len({one["annotator"] for one in said})
        data = {"annotators": people, "answer": answers[n]}
        if type == COMPLETED:
            tell(type, at, data, count[type])
        verdict = _verdict(answers[n], people, config)
        if verdict and verdict["reached"] is not agreed:
            agreed = verdict.pop("reached")
            count["verdict"] += 1
            tell(
                "consensus.reached" if agreed else "consensus.failed",
                at,
                {**data, **verdict},
                count["verdict"],
            )
    if life.there:
        failed = life.complete and agreed is False
        changes.standing.append(Standing(life.task, life.batch, life.times, life.complete, failed))
    else:
        changes.gone.append(life.task)


def _verdict(answer: Sequence[Mapping[str, Any]], people: int, config: Config) -> dict[str, Any] | None:
    """Whether people agree; None where there is nothing to agree on."""
    if people < 2 or not answer:
        return None
    confidence = min(unit["confidence"] for unit in answer)
    shares = [unit["agreement"] for unit in answer if unit["agreement"] is not None]
    agreement = sum(shares) / len(shares) if shares else 1.0
    limits = config.events
    reached = (
        confidence >= limits.confidence
        and agreement >= limits.agreement
        and not any(unit["tie"] for unit in answer)
    )
    return {"reached": reached, "confidence": confidence, "agreement": agreement}


# Annotators.


def _gold_file(config: Config, ontology: Ontology | None) -> Loaded | None:
    file = config.events.gold
    return read_file(Path(config.place(file)), True, ontology) if file else None


def _has_gold(gold: Loaded | None) -> Callable[[_Life], bool]:
    """Whether a task's answers can be compared with a known one."""
    if gold is None:
        return lambda life: bool(life.truths)
    named = set(gold.labels.answers["task"])
    return lambda life: life.task in named or life.key in named


def _of_annotators(scores: Iterable[Mapping[str, Any]], log: EventLog, changes: Changes) -> None:
    """Who fails now. Once failing, an annotator has to pass before failing again is an event."""
    before = log.failing()
    for row in scores:
        subject = f"{row['annotator']}/{row['control']}"
        times, failing = before.get(subject, (0, False))
        if row["verdict"] == "fail" and not failing:
            id = event_id("annotator.failing", log.source, subject, times + 1)
            data = {
                name: row[name] for name in ("annotator", "control", "n", "score", "low", "high", "tasks")
            }
            event = Event(id, "annotator.failing", f"annotator:{subject}", datetime.now(UTC), data)
            changes.events.append(event)
            changes.failing[subject] = (times + 1, True)
        elif row["verdict"] == "pass" and failing:
            changes.failing[subject] = (times, False)


def _golden_scores(
    store: Store, config: Config, ontology: Ontology | None, gold: Loaded | None
) -> Iterator[dict[str, Any]]:
    """The golden scores as of now, and the tasks each is made of."""
    answers, tasks = store.answers().filter("own", ~pl.col("cancelled")), store.current(TASK)
    if gold:
        named = gold.labels.answers["task"].unique().to_list()
        known = tasks.filter(pl.col("task").is_in(named) | pl.col("key").is_in(named))["task"]
    else:
        keepers = [name for name, role in config.roles.items() if role is Role.GOLD]
        known = answers.filter(pl.col("ground_truth") | pl.col("annotator").is_in(keepers))["task"]
    theirs = answers.filter(pl.col("task").is_in(known.unique().to_list()))
    data = dict(tasks.select("task", "content").iter_rows())
    loaded = read_answers(theirs.to_dicts(), data, config.roles, ontology)
    loaded = replace(loaded, tasks=tasks.select("task", "key", data="content", overlap="overlap"))
    labels = (with_gold(loaded, gold) if gold else loaded).labels
    found = golden(units(labels, config.quality.thresholds), config.quality.gold_limit)
    for row in found.annotators.iter_rows(named=True):
        yield {**row, "tasks": sorted(set(theirs.filter(annotator=row["annotator"])["task"]))}


# Batches.


def _of_batches(log: EventLog, changed: Sequence[str], changes: Changes) -> None:
    """Which batches are complete now. One that is so again is so by another completion of some task."""
    now, touched = {one.task: one for one in changes.standing}, set(changed)
    for batch in sorted(log.batches_of(changed) | {one.batch for one in now.values()}):
        here = {task: one for task, one in now.items() if one.batch == batch}
        if not all(one.complete for one in here.values()):
            continue
        # Those that stood open before and are among the changed ones may have been completed, or be gone.
        if set(log.incomplete(batch, len(changed) + 1)) - touched:
            continue
        before = {one.task: one for one in log.standing(batch) if one.task not in touched}
        _completed(batch, {**before, **here}, log.source, changes)


def _completed(batch: str, tasks: Mapping[str, Standing], source: str, changes: Changes) -> None:
    if not tasks:
        return
    made_of = sorted((one.task, one.times) for one in tasks.values())
    failed = sorted(one.task for one in tasks.values() if one.failed)
    data = {"batch": batch, "size": len(tasks), "failed": failed}
    for type in ["batch.completed"] if failed else ["batch.completed", "batch.accepted"]:
        id = event_id(type, source, batch, made_of)
        changes.events.append(Event(id, type, f"batch:{batch}", datetime.now(UTC), data))


def tasks_of(event: Event) -> list[str]:
    """The tasks an event is about."""
    data = event.data
    return [data["task"]] if "task" in data else list(data.get("tasks", data.get("failed", [])))
