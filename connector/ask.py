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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connector.adapters.base import Known, LabelingTool
from connector.config import Call
from connector.errors import AuthError, BadRecord, Conflict
from connector.eventlog import Changes, Event, EventLog, Planned, event_id
from connector.model import Item, Prediction, digest, dump_json
from connector.store import TASK, Store

ASKED, OPEN, ANSWERED, EXPIRED, REFUSED = "asked", "open", "answered", "expired", "refused"
"""On its way to the tool; before people; the two ends; and what the tool did not take."""

QUEUE = "asked"
"""The list in the tool where people find what is asked."""

LONGEST_WAIT_SECONDS = 60.0
LOOK_EVERY_SECONDS = 0.2

_SCHEMA = """
CREATE TABLE IF NOT EXISTS ask (
    id TEXT PRIMARY KEY,
    source TEXT NOT NULL,
    question TEXT NOT NULL,
    state TEXT NOT NULL,
    task TEXT,
    expires REAL NOT NULL,
    answer TEXT
);
CREATE INDEX IF NOT EXISTS ask_state ON ask (source, state);
"""


class Guess(BaseModel):
    """What a model thinks: regions in the tool's own form."""

    model_config = ConfigDict(extra="forbid")
    result: list[dict[str, Any]]
    model_version: str = Field(min_length=1)
    score: float | None = Field(default=None, ge=0, le=1)


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


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and how it stands."""

    id: str
    question: Question
    state: str
    task: str | None
    expires: float
    answer: Mapping[str, Any] | None

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
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        with log.file.read() as db:
            db.executescript(_SCHEMA)

    def put(self, question: Question) -> tuple[Asked, bool]:
        """Take a question; gives it, and whether it is new.

        Raises:
            Conflict: if something else was asked under that key.
        """
        source, said = self._log.source, question.model_dump_json()
        id = digest([source, question.key])
        row = (id, source, said, ASKED, time.time() + question.seconds)
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
        ask = f"SELECT id, question, state, task, expires, answer FROM ask WHERE source = ? AND {which}"
        with self._log.file.read() as db:
            rows = db.execute(f"{ask} ORDER BY rowid", (self._log.source, *parameters)).fetchall()
        for id, question, state, task, expires, answer in rows:
            said = Question.model_validate_json(question)
            yield Asked(id, said, state, task, expires, json.loads(answer) if answer else None)

    def _become(self, asked: Asked, state: str, task: str | None, answer: Mapping[str, Any] | None) -> None:
        with self._log.file.write() as db:
            db.execute(
                "UPDATE ask SET state = ?, task = ?, answer = ? WHERE id = ?",
                (state, task, dump_json(answer) if answer else None, asked.id),
            )

    def seconds_left(self) -> float:
        """Until the next question expires; very long where there is none."""
        waiting = self.unanswered(ASKED, OPEN)
        return max(0.0, min((asked.expires for asked in waiting), default=1e12) - time.time())

    # what a round does

    def place(self, tool: LabelingTool, store: Store) -> None:
        """Bring what was asked before people. Twice is once: a crash between does no harm."""
        waiting = self.unanswered(ASKED)
        if not waiting:
            return
        held = store.current(TASK).filter(pl.col("key").is_in([asked.question.key for asked in waiting]))
        known = Known(dict(held.select("key", "task").iter_rows()), store.cursor_kept)
        for asked in waiting:
            try:
                self._become(asked, OPEN, self._place(asked.question, tool, known), None)
            except (BadRecord, Conflict) as error:
                self._become(asked, REFUSED, None, {"why": error.what})
        self._show(tool)

    def _place(self, question: Question, tool: LabelingTool, known: Known) -> str:
        task = next(iter(tool.add_items([Item(key=question.key, data=question.data)], known)))
        if question.annotators and tool.capabilities.task_overlap:
            tool.set_task_overlap(task.id, question.annotators)
        if (guess := question.prediction) and tool.capabilities.predictions:
            said = dump_json(guess.result)
            tool.write_predictions(
                [
                    Prediction(
                        task_id=task.id, result=said, model_version=guess.model_version, score=guess.score
                    )
                ]
            )
        return task.id

    def _show(self, tool: LabelingTool) -> None:
        """Let people find what is asked, and nothing else, in a list of its own."""
        tasks = [asked.task for asked in self.unanswered(OPEN) if asked.task]
        if tool.capabilities.review_queue:
            tool.review_queue(QUEUE, tasks)

    def settle(self, tool: LabelingTool, planned: Planned) -> list[Asked]:
        """End what has an answer, and what has expired; returns what ended.

        An answer that was given in time counts, even if it was pulled later.
        """
        ended = []
        for asked in self.unanswered(ASKED, OPEN):
            verdict = _verdict(self._log.events(subject=f"task:{asked.task}")) if asked.task else None
            if verdict and verdict.at.timestamp() <= asked.expires:
                self._end(asked, ANSWERED, {"agreed": _agreed(verdict), **_shown(verdict)}, planned)
            elif asked.expires < time.time():
                why = "nobody answered" if verdict is None else "people answered too late"
                self._end(asked, EXPIRED, {"agreed": False, "why": why}, planned)
            else:
                continue
            ended.append(asked)
        if ended:
            self._show(tool)
        return ended

    def _end(self, asked: Asked, state: str, answer: Mapping[str, Any], planned: Planned) -> None:
        type, data = f"ask.{state}", {"ask": asked.id, "key": asked.question.key, **answer}
        about = {**data, "task": asked.task} if asked.task else data
        event = Event(event_id(type, asked.id), type, f"ask:{asked.id}", datetime.now(UTC), about)

        def called(event: Event) -> Iterator[tuple[str, Mapping[str, Any]]]:
            yield from planned(event)
            if asked.question.callback:
                yield f"callback of {asked.id}", Call(do="call", url=asked.question.callback).model_dump()

        self._log.keep(Changes(events=[event]), called)
        self._become(asked, state, asked.task, answer)


def _verdict(events: Sequence[Event]) -> Event | None:
    """The event by which people have answered and, as far as it can be told, agree."""
    last = next((e for e in reversed(events) if e.type.startswith(("task.", "consensus."))), None)
    return last if last and last.type in ("task.completed", "consensus.reached") else None


def _agreed(verdict: Event) -> bool | None:
    """None where one person answered, or answers cannot be compared."""
    return True if verdict.type == "consensus.reached" else None


def _shown(verdict: Event) -> dict[str, Any]:
    wanted = ("answer", "annotators", "confidence", "agreement")
    return {name: verdict.data[name] for name in wanted if name in verdict.data}


# Over HTTP.


def routes(asks: Asks, secret: str, ring: Callable[[], None]) -> list[Route]:
    """The routes of the receiver by which people are asked.

    Args:
        secret: what whoever asks shows as `Authorization: Bearer …`.
        ring: called when there is something to do.
    """

    def let_in(request: Request) -> None:
        given = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {secret}".encode()):
            raise AuthError("this is not somebody who may ask")

    async def post(request: Request) -> Response:
        let_in(request)
        try:
            question = Question.model_validate_json(await request.body())
        except ValidationError as error:
            wrong = [{"at": list(e["loc"]), "why": e["msg"]} for e in error.errors()]
            return JSONResponse({"error": "this is no question", "wrong": wrong}, 400)
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
            if not waits or await request.is_disconnected():
                return JSONResponse(asked.to_json())
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    return [Route("/ask", post, methods=["POST"]), Route("/ask/{id}", get)]


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text):
        raise BadRecord(f"wait must be a number of seconds, found {text[:20]!r}")
    return min(float(text), LONGEST_WAIT_SECONDS)
