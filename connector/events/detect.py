"""What happened, as the store tells it: the events that a labeling tool does not send.

    task.completed        as many as asked for have answered
    task.reopened         they have not any more: an answer is gone, or more were asked for
    consensus.reached     they agree; consensus.failed: they do not
    prediction.uncertain  a model is not sure
    annotator.failing     an annotator's golden score is below the limit, by the rule of `quality golden`
    batch.completed       every task of a batch is completed; batch.accepted: and they all agree

The events of a task are found by going through all that was ever stored of it, pull after pull, and the
n-th completion of a task has always the same id. So whoever looks twice, or later, or after a crash, finds
the same events, and the log takes each once. What came and went between two pulls nobody can know.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from connector.adapters.base import batches
from connector.config import Config, EventType
from connector.errors import UsageError
from connector.events.log import Changes, Event, EventLog, Planned, Standing, event_id
from connector.formats.label_files import read_file
from connector.model import Ontology, Role
from connector.quality.answers import ABSENT
from connector.quality.consensus import merged_answers
from connector.quality.golden import golden
from connector.quality.table import Scale
from connector.quality.units import UNIT, keep_roles, units
from connector.store.label_store import ANNOTATION, PREDICTION, TASK, Store
from connector.store.labels import Loaded, declared, read_answers, standing_of, with_gold

ALL = "all"
"""The batch of tasks that name none."""

TASKS_AT_ONCE = 2000

_TASK = ("task", "batch")
_SAID = (*_TASK, "annotators", "answered", "answer")
_VERDICT = (*_SAID, "confidence", "agreement")
_SCORE = ("annotator", "control", "n", "score", "low", "high", "tasks")
_BATCH = ("batch", "size", "failed")
_ASK = ("ask", "key", "agreed")

NAMES: Mapping[EventType, Sequence[str]] = {
    "task.completed": _SAID,
    "task.reopened": _TASK,
    "consensus.reached": _VERDICT,
    "consensus.failed": _VERDICT,
    "prediction.uncertain": (*_TASK, "model", "score"),
    "annotator.failing": _SCORE,
    "batch.completed": _BATCH,
    "batch.accepted": _BATCH,
    "ask.answered": (*_ASK, "task", "annotators", "answer"),
    "ask.expired": (*_ASK, "why"),
    "ask.refused": ("ask", "key", "why"),
}
"""What the data of each event always has."""

_Row = Mapping[str, Any]
_Identity = tuple[str, datetime | None]

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
    lost: set[str] = set()
    if since is not None and last < since:
        # The store went back: it was restored from a copy, or pulled anew. All of it is gone through; what
        # the log knows it knows by its id, and what is new to it is acted on, as nobody has yet.
        since, (tasks, last) = 0, store.changed(0)
        lost = log.tasks() - set(tasks)
    changes = find(store, log, config, [*tasks, *sorted(lost)])
    changes.gone += lost

    def acted_on(event: Event) -> Iterable[tuple[str, Mapping[str, Any]]]:
        # With other settings than before, a task's whole life reads otherwise. That is noted, and it is past.
        is_new = since is not None and changes.pulls.get(event.id, last) > since
        return planned(event) if is_new else ()

    return log.keep(changes, acted_on, last)


def find(store: Store, log: EventLog, config: Config, tasks: Sequence[str]) -> Changes:
    """What happened to these tasks, ever, and how they stand."""
    changes, ontology = Changes(), store.ontology()
    gold, scored = gold_answers(config, ontology), False
    for some in batches(tasks, TASKS_AT_ONCE):
        lives = _lives(store.history(some), config)
        _of_tasks(lives, log.source, config, ontology, changes)
        scored = scored or any(map(_has_gold(gold, config), lives))
    if scored:
        scores = _golden_scores(store, config, ontology, gold)
        _of_annotators(scores, log, changes)
    _of_batches(log, tasks, changes)
    return changes


# Tasks.


@dataclass(frozen=True, slots=True)
class _Told:
    """What happened to a task.

    Attributes:
        pull: what it was found by.
        rows: people's answers at that time, or the prediction.
        answered: how many had answered, in whatever role.
    """

    type: str
    at: datetime
    pull: int
    rows: Sequence[_Row] = ()
    answered: int = 0


@dataclass
class _Life:
    """What became of one task, row after row.

    Attributes:
        answers: what was answered and stands, by the identity of the annotation.
        times: how often it was completed.
        told: what happened.
    """

    task: str
    key: str = ""
    created_at: datetime | None = None
    batch: str = ALL
    data: str = "{}"
    overlap: int = 1
    there: bool = False
    answers: dict[_Identity, _Row] = field(default_factory=dict)
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
    told = [(life, n, one) for life in lives for n, one in enumerate(life.told)]
    answered = [(life, n) for life, n, one in told if one.rows and one.type != UNCERTAIN]
    merged = _merged([(life, life.told[n].rows) for life, n in answered], config, ontology)
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
        _answer(life, row)
    elif not row["deleted"] and _score(row) < config.events.prediction_score:
        at = row["created_at"] or row["pulled_at"]
        life.told.append(_Told(UNCERTAIN, at, row["pull"], [row]))
    if row["record"] == PREDICTION or not life.there:
        return
    # The tool counts whoever answered, also a reviewer or who knows the right answer; they are not asked
    # what people agree on.
    answered = len({one["annotator"] for one in life.answers.values()})
    said = [one for one in life.answers.values() if standing_of(one, config.roles)[0] is Role.PERSON]
    at, complete = row["updated_at"] or row["pulled_at"], answered >= life.overlap
    if complete and not life.complete:
        life.times += 1
        life.told.append(_Told(COMPLETED, at, row["pull"], said, answered))
    elif life.complete and not complete:
        life.told.append(_Told(REOPENED, at, row["pull"]))
    elif complete and row["record"] == ANNOTATION:
        life.told.append(_Told(JUDGED, at, row["pull"], said, answered))
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
        life.answers, life.told, life.times, life.complete = {}, [], 0, False
    life.there, life.created_at, life.key = True, row["created_at"], row["key"]
    life.overlap, life.data, life.batch = row["overlap"] or 1, row["content"], _batch(row, config)


def _answer(life: _Life, row: _Row) -> None:
    identity = (row["id"], row["created_at"])
    if row["plan"] and not row["deleted"]:
        return  # what a plan of corrections wrote is nobody's answer
    life.answers.pop(identity, None)
    if not (row["deleted"] or row["cancelled"]):
        life.answers[identity] = row


def _batch(row: _Row, config: Config) -> str:
    name = config.events.batch
    named = json.loads(row["content"]).get(name) if name else None
    return ALL if named is None else str(named)


def _merged(
    cases: Sequence[tuple[_Life, Sequence[_Row]]], config: Config, ontology: Ontology | None
) -> list[list[dict[str, Any]]]:
    """The merged answer of each case: a list of units. Cases of one task are taken for tasks of their own."""
    rows = [{**row, "task": str(n)} for n, (_, said) in enumerate(cases) for row in said]
    data = {str(n): life.data for n, (life, _) in enumerate(cases)}
    loaded = read_answers(rows, data, config.roles, ontology)
    table = keep_roles(units(loaded.labels, config.quality.thresholds), [Role.PERSON])
    found: list[list[dict[str, Any]]] = [[] for _ in cases]
    answers = merged_answers(table, _scales(loaded, config))
    # A control that no annotator used is no part of the answer, and not what they agree on; unless they used
    # none, and agree that nothing is there.
    empty = (pl.col("label") == ABSENT) & (pl.col("votes") == pl.col("annotators"))
    answers = answers.filter(~empty | empty.all().over("task"))
    for unit in answers.iter_rows(named=True):
        # A tie decides nothing; what is named there depends on the tasks that are looked at together.
        found[int(unit.pop("task"))].append({**unit, "label": None} if unit["tie"] else unit)
    return found


def _scales(loaded: Loaded, config: Config) -> Mapping[str, Scale]:
    """What is declared about the answers, in the ontology and in the configuration."""
    tolerances = {n: t for n, t in config.quality.tolerances.items() if n in loaded.labels.controls}
    return declared(loaded.labels, tolerances, {}, {}).scales


def _tell(
    life: _Life, answers: Mapping[int, list[dict[str, Any]]], source: str, config: Config, changes: Changes
) -> None:
    """Turn a task's life into its events, and note how it stands at the end."""
    identity = [source, life.task, str(life.created_at)]
    count, agreed = Counter[str](), None

    def tell(type: str, one: _Told, data: Mapping[str, Any], *which: Any) -> None:
        about = {"task": life.task, "batch": life.batch, **data}
        event = Event(event_id(type, *identity, *which), type, f"task:{life.task}", one.at, about)
        changes.events.append(event)
        changes.pulls[event.id] = one.pull

    for n, one in enumerate(life.told):
        count[one.type] += 1
        if one.type == UNCERTAIN:
            [guess] = one.rows
            data = {"model": guess["annotator"], "score": guess["score"]}
            tell(one.type, one, data, guess["annotator"], guess["id"], str(guess["created_at"]))
            continue
        if one.type == REOPENED:
            agreed = None
            tell(one.type, one, {}, count[one.type])
            continue
        people = len({row["annotator"] for row in one.rows})
        data = {"annotators": people, "answered": one.answered, "answer": answers[n]}
        if one.type == COMPLETED:
            tell(one.type, one, data, count[one.type])
        verdict = _verdict(answers[n], people, config)
        reached = verdict.pop("reached") if verdict else None
        if verdict and reached is not agreed:
            count["verdict"] += 1
            type = "consensus.reached" if reached else "consensus.failed"
            tell(type, one, {**data, **verdict}, count["verdict"])
        agreed = reached
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


def gold_answers(config: Config, ontology: Ontology | None = None) -> Loaded | None:
    """The known answers of the file that the configuration names; None where it names none.

    Raises:
        UsageError: if it is not there, or cannot be read.
    """
    if not config.events.gold:
        return None
    place = Path(config.place(config.events.gold))
    try:
        return read_file(place, True, ontology)
    except OSError as error:
        raise UsageError(
            f"{place} cannot be read: {error}", "it is what events.gold names; fix it"
        ) from error


def _has_gold(gold: Loaded | None, config: Config) -> Callable[[_Life], bool]:
    """Whether a task's answers can be compared with a known one."""
    if gold is None:
        return lambda life: any(standing_of(one, config.roles)[1] for one in life.answers.values())
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
            data = {name: row[name] for name in _SCORE}
            event = Event(id, "annotator.failing", f"annotator:{subject}", datetime.now(UTC), data)
            changes.events.append(event)
            changes.failing[subject] = (times + 1, True)
        elif row["verdict"] == "pass" and failing:
            changes.failing[subject] = (times, False)


def _golden_scores(
    store: Store, config: Config, ontology: Ontology | None, gold: Loaded | None
) -> Iterator[dict[str, Any]]:
    """The golden scores as of now, and the tasks of each annotator."""
    has_gold = _has_gold(gold, config)
    lives = _lives(store.history(_ever_gold(store, config, gold)), config)
    known = [life for life in lives if life.there and has_gold(life)]
    answers = [row for life in known for row in life.answers.values()]
    loaded = read_answers(answers, {life.task: life.data for life in known}, config.roles, ontology)
    if gold:
        keys = [(life.task, life.key) for life in known]
        loaded = replace(loaded, tasks=pl.DataFrame(keys, schema=["task", "key"], orient="row"))
        loaded = with_gold(loaded, gold)
    table = _undisputed(units(loaded.labels, config.quality.thresholds))
    try:
        quality = config.quality
        found = golden(table, quality.gold_limit, least=quality.gold_least, scales=_scales(loaded, config))
    except ValueError:
        return  # a gold answer that is none of its kind; `connector quality golden` names it
    known_by = table.filter("gold").select("task", by="annotator").unique()
    scored = table.join(known_by, on="task").filter(pl.col("annotator") != pl.col("by"))
    tasks = scored.group_by("annotator").agg(pl.col("task").unique().sort())
    of = dict(tasks.select("annotator", "task").iter_rows())
    for row in found.annotators.iter_rows(named=True):
        yield {**row, "tasks": of[row["annotator"]]}


def _ever_gold(store: Store, config: Config, gold: Loaded | None) -> list[str]:
    """The tasks that have a known answer, and some that had one. Only narrow columns are read of all."""
    if gold:
        named = gold.labels.answers["task"].unique().to_list()
        which = (pl.col("record") == TASK) & (pl.col("task").is_in(named) | pl.col("key").is_in(named))
    else:
        keepers = [name for name, role in config.roles.items() if role is Role.GOLD]
        starred = pl.col("ground_truth") | pl.col("annotator").is_in(keepers)
        which = (pl.col("record") == ANNOTATION) & pl.col("plan").is_null() & starred
    return store.collect(store.rows().filter(which).select("task").unique())["task"].sort().to_list()


def _undisputed(table: pl.DataFrame) -> pl.DataFrame:
    """The units of tasks whose gold answers are one. Where they contradict nobody can tell who is right."""
    gold = table.filter("gold")
    disputed = gold.group_by(UNIT).agg(pl.col("label").n_unique()).filter(pl.col("label") > 1)
    return table.join(disputed, on="task", how="anti", maintain_order="left")


# Batches.


def _of_batches(log: EventLog, changed: Sequence[str], changes: Changes) -> None:
    """Which batches are complete now. One that is so again is so by another completion of some task."""
    now, touched = defaultdict[str, dict[str, Standing]](dict), set(changed)
    for one in changes.standing:
        now[one.batch][one.task] = one
    for batch in sorted(log.batches_of(changed) | set(now)):
        here = now[batch]
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
