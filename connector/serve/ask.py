"""Ask people, and wait for the answer.

An item, perhaps with what a model thinks, becomes a task in a list of the tool. The answer comes when people
have answered and agree, or it says that they did not in time.

    POST /ask            {"key", "data", "annotators", "prediction", "seconds", "callback"}
    GET /ask/ID?wait=30  how it stands; waits so many seconds for an answer

The same key with the same question is one question, however often it is sent.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connector.adapters.base import Known, LabelingTool
from connector.config import SIGNING_SECRET, Call, needed_secret
from connector.errors import AuthError, BadRecord, Conflict, Temporary, UsageError
from connector.events.callbacks import Receivers
from connector.events.deliver import signer
from connector.events.log import PRUNED_AT_ONCE, Changes, Event, EventLog, Planned, event_id
from connector.io.retry import Clock
from connector.model import Item, Prediction, Task, digest, dump_json
from connector.serve.receiver import body_of
from connector.store.label_store import TASK, Store

ASKED, OPEN, ANSWERED, EXPIRED, REFUSED = "asked", "open", "answered", "expired", "refused"
"""On its way to the tool; before people; the two ends; and what the tool did not take."""

QUEUE = "asked"
"""The list in the tool where people find what is asked."""

LONGEST_WAIT_SECONDS = 60.0
LOOK_EVERY_SECONDS = 0.2

FAILURES_IN_A_ROW = 3
"""After this number of failures in a row the tool is unavailable: other questions wait for the next round."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS ask (
    id TEXT PRIMARY KEY,
    source TEXT NOT NULL,
    question TEXT NOT NULL,
    state TEXT NOT NULL,
    task TEXT,
    expires REAL NOT NULL,
    answer TEXT,
    since INTEGER
);
CREATE INDEX IF NOT EXISTS ask_state ON ask (source, state);
"""


def _of_json(value: Any) -> Any:
    try:
        dump_json(value)
    except BadRecord as error:
        raise ValueError(error.what) from error
    return value


class Guess(BaseModel):
    """What a model thinks: regions in the tool's own form."""

    model_config = ConfigDict(extra="forbid")
    result: list[dict[str, Any]]
    model_version: str = Field(min_length=1)
    score: float | None = Field(default=None, ge=0, le=1)

    _result_is_json = field_validator("result")(_of_json)


class Question(BaseModel):
    """What is asked.

    `key` names it, and the item; `data` is what people see; `annotators` how many are to answer, by default
    as many as the project asks for; after `seconds` it expires; `callback` is called with the answer.
    """

    model_config = ConfigDict(extra="forbid")
    key: str = Field(min_length=1, max_length=1000)
    data: dict[str, Any]
    annotators: int | None = Field(default=None, ge=1, le=100)
    prediction: Guess | None = None
    seconds: float = Field(default=3600, gt=0, le=30 * 24 * 3600)
    callback: str | None = Field(default=None, pattern="^https?://")

    _data_is_json = field_validator("data")(_of_json)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and how it stands.

    Attributes:
        since: the number of the event after which those of its task are about it: tools give the id of a
            task that is gone to a new one. None until it is known; known before a task is made for it.
    """

    id: str
    question: Question
    state: str
    task: str | None
    expires: float
    answer: Mapping[str, Any] | None
    since: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is shown to whoever asks."""
        at = datetime.fromtimestamp(self.expires, UTC).isoformat()
        return {
            "id": self.id,
            "key": self.question.key,
            "state": self.state,
            "task": self.task,
            "expires_at": at,
            **(self.answer or {}),
        }


class Asks:
    """The questions of one project. They are on the disk when they are acknowledged.

    Args:
        log: whose file they stand in, and where their answers become events.
        now: the clock that questions expire by, in seconds since the epoch; by default the system's.
    """

    def __init__(self, log: EventLog, now: Callable[[], float] | None = None) -> None:
        self._log, self._now = log, now or Clock(self._move).now
        self._failed = Counter[str]()
        with log.file.read() as db:
            db.executescript(_SCHEMA)
            if "since" not in {column[1] for column in db.execute("PRAGMA table_info(ask)")}:
                db.execute("ALTER TABLE ask ADD COLUMN since INTEGER")
            # The clock may have been set back since the last run.
            db.execute(
                "UPDATE ask SET expires = min(expires, ? + json_extract(question, '$.seconds')) "
                "WHERE source = ? AND state IN (?, ?)",
                (self._now(), log.source, ASKED, OPEN),
            )
            # What the list in the tool held at the end of another process, nobody knows.
            placed = "SELECT 1 FROM ask WHERE source = ? AND task IS NOT NULL LIMIT 1"
            self._shown: list[str] | None = None if db.execute(placed, (log.source,)).fetchone() else []

    def _move(self, seconds: float) -> None:
        """The clock was set: what waits expires after as long as before."""
        with self._log.file.write() as db:
            move = "UPDATE ask SET expires = expires + ? WHERE source = ? AND state IN (?, ?)"
            db.execute(move, (seconds, self._log.source, ASKED, OPEN))

    def put(self, question: Question) -> tuple[Asked, bool]:
        """Take a question; gives it, and whether it is new.

        Raises:
            Conflict: if something else was asked under that key.
        """
        source, said = self._log.source, question.model_dump_json()
        id = digest([source, question.key])
        row = (id, source, said, ASKED, self._now() + question.seconds)
        with self._log.file.write() as db:
            into = "INSERT OR IGNORE INTO ask (id, source, question, state, expires) VALUES (?, ?, ?, ?, ?)"
            new = db.execute(into, row).rowcount == 1
        held = self.get(id)
        assert held is not None
        if held.question != question:
            raise Conflict(f"something else was asked under the key {question.key!r}", "use another key")
        return held, new

    def get(self, id: str) -> Asked | None:
        """A question by its id."""
        return next(self._those("id = ?", id), None)

    def unanswered(self, *states: str) -> list[Asked]:
        """The questions in these states."""
        return list(self._those(f"state IN ({', '.join('?' * len(states))})", *states))

    def _those(self, which: str, *parameters: object) -> Iterator[Asked]:
        ask = "SELECT id, question, state, task, expires, answer, since FROM ask WHERE source = ? AND"
        with self._log.file.read() as db:
            rows = db.execute(f"{ask} {which} ORDER BY rowid", (self._log.source, *parameters)).fetchall()
        for id, question, state, task, expires, answer, since in rows:
            said = Question.model_validate_json(question)
            yield Asked(id, said, state, task, expires, json.loads(answer) if answer else None, since)

    def _keep(self, asked: Asked) -> None:
        """Keep how a question stands now."""
        answer = dump_json(asked.answer) if asked.answer else None
        with self._log.file.write() as db:
            db.execute(
                "UPDATE ask SET state = ?, task = ?, answer = ?, since = ? WHERE id = ?",
                (asked.state, asked.task, answer, asked.since, asked.id),
            )

    def prune(self, before: float) -> int:
        """Delete questions that ended and expired before a time, after the events of their ends.

        Until then the same question has the same answer. Sent again later, it is a new one, and is answered
        by what people said of its item.

        Returns:
            How many.
        """
        ended = "SELECT rowid FROM ask WHERE source = ? AND state NOT IN (?, ?) AND expires < ?"
        known = "SELECT 1 FROM event WHERE source = ask.source AND subject = 'ask:' || ask.id"
        old = f"{ended} AND NOT EXISTS ({known}) LIMIT ?"
        parameters = (self._log.source, ASKED, OPEN, before, PRUNED_AT_ONCE)
        pruned, deleted = 0, PRUNED_AT_ONCE
        while deleted == PRUNED_AT_ONCE:
            with self._log.file.write() as db:
                deleted = db.execute(f"DELETE FROM ask WHERE rowid IN ({old})", parameters).rowcount
            pruned += deleted
        return pruned

    def seconds_left(self) -> float:
        """Until the next question expires; very long where there is none."""
        now = self._now()  # first, since it may move what is read then
        waiting = self.unanswered(ASKED, OPEN)
        return max(0.0, min((asked.expires for asked in waiting), default=1e12) - now)

    # what a round does

    def place(self, tool: LabelingTool, store: Store, planned: Planned) -> bool:
        """Bring what was asked before people; returns whether anything was.

        Twice is once: a crash between does no harm. What the tool does not take is refused. What fails for
        now comes again with the next round, and keeps nothing else waiting.

        Args:
            store: what a pull just brought.

        Raises:
            Temporary: at the end, if something failed for now.
        """
        now = self._now()
        waiting = [asked for asked in self.unanswered(ASKED) if asked.expires > now]
        if not waiting:
            return False
        held = store.current(TASK).filter(pl.col("key").is_in([asked.question.key for asked in waiting]))
        known = Known(dict(held.select("key", "task").iter_rows()), store.cursor_kept)
        placed, failed, failed_in_a_row = list[Asked](), list[Temporary](), 0
        for asked in sorted(waiting, key=lambda asked: self._failed[asked.id]):
            begun = self._begun(asked, known)
            try:
                placed.append(self._placed(begun, tool, known))
                failed_in_a_row = 0
            except Temporary as error:
                self._failed[asked.id] += 1
                failed.append(error)
                failed_in_a_row += 1
                if failed_in_a_row == FAILURES_IN_A_ROW:
                    break
            except (BadRecord, Conflict, UsageError) as error:
                failed_in_a_row = 0
                self._end(begun, REFUSED, {"why": error.what}, planned)
        # The list first: what is open can be found by people, whatever happens between.
        self._show(tool, placed)
        for asked in placed:
            self._keep(asked)
        if failed:
            raise failed[0]
        return bool(placed)

    def _begun(self, asked: Asked, known: Known) -> Asked:
        """The question, from now on one for which a task is made, where there is none of its key."""
        if asked.since is not None or asked.question.key in known.keys:
            return asked
        begun = replace(asked, since=self._log.last())
        self._keep(begun)
        return begun

    def _placed(self, asked: Asked, tool: LabelingTool, known: Known) -> Asked:
        question = asked.question
        [made] = tool.add_items([Item(key=question.key, data=question.data)], known)
        task = tool.read_task(made.id)
        if (task.key, task.data) != (question.key, question.data):
            raise Conflict(
                f"the key {question.key!r} is that of task {task.id}, which shows something else",
                "use another key",
            )
        wanted, ours = question.annotators or task.overlap, asked.since is not None
        # Others wait for the answers to a task of theirs: it is shown to more people, never to fewer.
        if tool.capabilities.task_overlap and (wanted > task.overlap or (ours and wanted < task.overlap)):
            tool.set_task_overlap(task.id, wanted)
        if (guess := question.prediction) and tool.capabilities.predictions:
            said = dump_json(guess.result)
            tool.write_predictions(
                [
                    Prediction(
                        task_id=task.id, result=said, model_version=guess.model_version, score=guess.score
                    )
                ]
            )
        return replace(asked, state=OPEN, task=task.id, since=asked.since if ours else self._before(task))

    def _before(self, task: Task) -> int:
        """The number of the last event about another task, which had the id before; 0 where none had."""
        events, made = self._log.numbered(f"task:{task.id}"), task.created_at
        return max((number for number, event in events if made and event.at < made), default=0)

    def _show(self, tool: LabelingTool, placed: Sequence[Asked] = ()) -> None:
        """Let people find what is asked, and nothing else, in a list of its own.

        Args:
            placed: what is open in a moment.

        Raises:
            Temporary: if there is no such list now.
        """
        tasks = [asked.task for asked in (*self.unanswered(OPEN), *placed) if asked.task]
        if not tool.capabilities.review_queue or tasks == self._shown:
            return
        try:
            tool.review_queue(QUEUE, tasks)
        except UsageError as error:
            # Nobody who asked is to blame, and all else goes on meanwhile.
            raise Temporary(f"the list {QUEUE!r} cannot be shown: {error.what}", error.hint) from error
        self._shown = tasks

    def settle(self, tool: LabelingTool, planned: Planned, ago: float) -> list[Asked]:
        """End what has an answer, and what has expired; returns what ended.

        An answer that was given in time counts, even if it was pulled later.

        Args:
            ago: how many seconds ago the last pull began. What expired since may have an answer that it did
                not see.
        """
        begun, ended = self._now() - ago, list[Asked]()
        for asked in self.unanswered(ASKED, OPEN):
            verdict = self._verdict(asked) if asked.state == OPEN else None
            if verdict and verdict.at.timestamp() <= asked.expires:
                self._end(asked, ANSWERED, {"agreed": _agreed(verdict), **_shown(verdict)}, planned)
            elif asked.expires < begun:
                why = "nobody answered" if verdict is None else "people answered too late"
                self._end(asked, EXPIRED, {"agreed": False, "why": why}, planned)
            else:
                continue
            ended.append(asked)
        self._show(tool)
        return ended

    def _verdict(self, asked: Asked) -> Event | None:
        """The event by which people have answered and, as far as it can be told, agree."""
        events = [e for number, e in self._log.numbered(f"task:{asked.task}") if number > (asked.since or 0)]
        last = next((e for e in reversed(events) if e.type.startswith(("task.", "consensus."))), None)
        return last if last and last.type in ("task.completed", "consensus.reached") else None

    def _end(self, asked: Asked, state: str, answer: Mapping[str, Any], planned: Planned) -> None:
        type, data = f"ask.{state}", {"ask": asked.id, "key": asked.question.key, **answer}
        about = {**data, "task": asked.task} if asked.task else data
        event = Event(event_id(type, asked.id), type, f"ask:{asked.id}", datetime.now(UTC), about)

        def called(event: Event) -> Iterator[tuple[str, Mapping[str, Any]]]:
            yield from planned(event)
            if asked.question.callback:
                yield f"callback of {asked.id}", Call(do="call", url=asked.question.callback).model_dump()

        self._log.keep(Changes(events=[event]), called)
        self._keep(replace(asked, state=state, answer=answer))


def _agreed(verdict: Event) -> bool | None:
    """None where one person answered, or answers cannot be compared."""
    return True if verdict.type == "consensus.reached" else None


def _shown(verdict: Event) -> dict[str, Any]:
    wanted = ("answer", "annotators", "confidence", "agreement")
    return {name: verdict.data[name] for name in wanted if name in verdict.data}


# Over HTTP.


def routes(
    asks: Asks,
    secret: str,
    ring: Callable[[], None],
    stop: threading.Event,
    receivers: Receivers | None = None,
    reserved: frozenset[str] = frozenset(),
) -> list[Route]:
    """The routes of the receiver by which people are asked.

    Args:
        secret: what whoever asks shows as `Authorization: Bearer …`.
        ring: called when there is something to do.
        stop: when it is set, nobody waits for an answer any more.
        receivers: those that may be called back; by default the public ones.
        reserved: fields of the data that the labeling tool's adapter keeps for itself.
    """
    callable_back = receivers or Receivers()

    def let_in(request: Request) -> None:
        given = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {secret}".encode()):
            raise AuthError("this is not somebody who may ask")

    async def post(request: Request) -> Response:
        let_in(request)
        try:
            question = Question.model_validate_json(await body_of(request))
        except ValidationError as error:
            wrong = [{"at": list(e["loc"]), "why": e["msg"]} for e in error.errors()]
            return JSONResponse({"error": "this is no question", "wrong": wrong}, 400)
        if taken := sorted(reserved & question.data.keys()):
            wrong = [
                {"at": ["data", name], "why": "this field is reserved; use another name"} for name in taken
            ]
            return JSONResponse({"error": "this is no question", "wrong": wrong}, 400)
        try:
            if question.callback:
                await asyncio.to_thread(_check_callback, question.callback, callable_back)
        except (AuthError, UsageError) as error:
            return JSONResponse({"error": f"the callback cannot be called: {error.what}"}, 400)
        try:
            asked, new = await asyncio.to_thread(asks.put, question)
        except Conflict as error:
            return JSONResponse({"error": error.what}, 409)
        ring()
        return JSONResponse(asked.to_json(), 202 if new else 200)

    async def get(request: Request) -> Response:
        let_in(request)
        until = time.monotonic() + _seconds(request.query_params.get("wait", "0"))
        while True:
            asked = await asyncio.to_thread(asks.get, request.path_params["id"])
            if asked is None:
                return JSONResponse({"error": "nothing was asked under this id"}, 404)
            waits = asked.state in (ASKED, OPEN) and time.monotonic() < until
            if not waits or stop.is_set() or await request.is_disconnected():
                return JSONResponse(asked.to_json())
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    return [Route("/ask", post, methods=["POST"]), Route("/ask/{id}", get)]


def _check_callback(url: str, receivers: Receivers) -> None:
    signer(needed_secret(SIGNING_SECRET, f"to sign with: {SIGNING_SECRET} is not set"))
    receivers.check(url, "the callback")


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text):
        raise BadRecord(f"wait must be a number of seconds, found {text[:20]!r}")
    return min(float(text), LONGEST_WAIT_SECONDS)
