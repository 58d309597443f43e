"""People are asked, once a key, and what comes back is honest."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connector.ask import Asked, Asks, Question, routes
from connector.config import SIGNING_SECRET, Serve
from connector.errors import Conflict, Temporary
from connector.inbox import Inbox
from connector.outgoing import Sender
from connector.webhooks import Metrics, Receiver, application, serving
from tests.unit.memory_line import MemoryLine, contract
from tests.unit.receiver import receiver

ALLOWED = {"Authorization": "Bearer may ask"}
DATA = {"image": "x.png"}


class Desk(MemoryLine):
    """A line where people are asked."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asks = Asks(self.log)

    def put(self, key: str = "k", **more: Any) -> Asked:
        asked, _ = self.asks.put(Question(key=key, data=DATA, **more))
        return asked

    def round(self) -> None:
        self.asks.place(self.tool, self.store)
        self.follow()
        self.asks.settle(self.tool, lambda _: ())

    def now(self, asked: Asked) -> Asked:
        found = self.asks.get(asked.id)
        assert found
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_question_becomes_a_task_and_its_answer_comes_when_people_agree(desk: Desk) -> None:
    guess = {"result": [contract.choice("cat")], "model_version": "m", "score": 0.3}
    asked = desk.put(annotators=3, prediction=guess)
    assert (asked.state, asked.task) == ("asked", None)
    desk.round()
    asked = desk.now(asked)
    assert (asked.state, desk.tool.project.queues["asked"]) == ("open", [asked.task])
    task = desk.tool.read_task(str(asked.task))
    assert (task.key, task.overlap, task.predictions[0].score) == ("k", 3, 0.3)
    for who, label in (("ann", "cat"), ("ben", "dog")):
        desk.say(task.id, who, label)
    desk.round()
    assert desk.now(asked).state == "open"
    desk.say(task.id, "cem", "cat")
    desk.round()
    found = desk.now(asked).to_json()
    assert (found["state"], found["agreed"], found["annotators"]) == ("answered", True, 3)
    assert found["answer"][0]["label"] == "cat"
    assert desk.tool.project.queues["asked"] == []


def test_people_who_do_not_agree_are_no_answer(desk: Desk) -> None:
    asked = desk.put(seconds=0.6)
    desk.round()
    for who, label in (("ann", "cat"), ("ben", "dog")):
        desk.say(str(desk.now(asked).task), who, label)
    desk.round()
    assert desk.now(asked).state == "open"
    time.sleep(0.7)
    desk.round()
    assert desk.now(asked).to_json() | {"state": "expired", "agreed": False} == desk.now(asked).to_json()


def test_one_person_cannot_agree(desk: Desk) -> None:
    asked = desk.put(annotators=1)
    desk.round()
    desk.say(str(desk.now(asked).task), "ann", "cat")
    desk.round()
    found = desk.now(asked).to_json()
    assert (found["state"], found["agreed"], found["annotators"]) == ("answered", None, 1)


def test_what_nobody_answered_in_time_expires_and_stays_so(desk: Desk) -> None:
    asked = desk.put(seconds=3)
    desk.round()
    assert 0 < desk.asks.seconds_left() <= 3
    time.sleep(desk.asks.seconds_left() + 0.1)
    desk.round()
    assert desk.now(asked).to_json()["why"] == "nobody answered"
    for who in ("ann", "ben"):
        desk.say(str(desk.now(asked).task), who, "cat")
    desk.round()
    assert desk.now(asked).state == "expired"
    assert [e.type for e in desk.log.events(subject=f"ask:{asked.id}")] == ["ask.expired"]


def test_the_same_question_is_asked_once_and_another_under_its_key_is_refused(desk: Desk) -> None:
    first, again = desk.put(), desk.put()
    assert first == again
    desk.round()
    desk.put()
    desk.round()
    assert len(desk.tool.project.tasks) == 1
    with pytest.raises(Conflict, match="another key"):
        desk.put(seconds=5)


def test_a_tool_that_is_away_is_asked_again_and_the_task_is_one(desk: Desk) -> None:
    asked = desk.put(annotators=3)
    desk.tool.faults.fail("add_items", 1)
    desk.tool.faults.lose_answer("set_task_overlap", 1)
    for _ in range(2):
        with pytest.raises(Temporary):
            desk.round()
        assert desk.now(asked).state == "asked"
    desk.round()
    assert (desk.now(asked).state, len(desk.tool.project.tasks)) == ("open", 1)


def test_what_the_tool_does_not_take_is_refused(desk: Desk) -> None:
    asked = desk.asks.put(Question(key="k", data={"text": "there is no image"}))[0]
    other = desk.put("other")
    desk.round()
    assert desk.now(asked).to_json()["state"] == "refused"
    assert "image" in desk.now(asked).to_json()["why"]
    assert desk.now(other).state == "open"


def test_the_answer_is_sent_to_whoever_asked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIGNING_SECRET, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    with receiver() as hook:
        asked = desk.put(callback=hook.url)
        desk.round()
        for who in ("ann", "ben"):
            desk.say(str(desk.now(asked).task), who, "cat")
        desk.round()
        desk.round()
        Sender(desk.log, desk.tool, lambda _: None).send_due(threading.Event())
    assert [(body["type"], body["data"]["ask"]) for body in hook.json] == [("ask.answered", asked.id)]


@pytest.fixture
def address(desk: Desk, tmp_path: Path) -> Iterator[str]:
    with closing(Inbox(tmp_path / "i.sqlite", "one")) as inbox:
        receiver = Receiver(
            desk.tool.parse_event, "x", inbox, lambda: None, Metrics(inbox), Serve(per_second=100_000)
        )
        app = application(receiver, *routes(desk.asks, "may ask", lambda: None))
        with serving(app, "127.0.0.1", 0) as url:
            yield f"{url}/ask"


def test_over_http(desk: Desk, address: str) -> None:
    body = {"key": "k", "data": DATA}
    for headers in ({}, {"Authorization": "Bearer may"}, {"Authorization": "may ask"}):
        assert requests.post(address, json=body, headers=headers, timeout=5).status_code == 401
        assert requests.get(f"{address}/x", headers=headers, timeout=5).status_code == 401
    first = requests.post(address, json=body, headers=ALLOWED, timeout=5)
    assert (first.status_code, first.json()["state"]) == (202, "asked")
    assert requests.post(address, json=body, headers=ALLOWED, timeout=5).status_code == 200
    other = requests.post(address, json={**body, "annotators": 5}, headers=ALLOWED, timeout=5)
    assert other.status_code == 409
    assert requests.get(f"{address}/none", headers=ALLOWED, timeout=5).status_code == 404
    where = f"{address}/{first.json()['id']}"
    assert requests.get(where, params={"wait": "soon"}, headers=ALLOWED, timeout=5).status_code == 400
    begun = time.monotonic()
    assert requests.get(where, params={"wait": 0.5}, headers=ALLOWED, timeout=5).json()["state"] == "asked"
    assert time.monotonic() - begun >= 0.4


def test_whoever_waits_is_told_as_soon_as_there_is_an_answer(desk: Desk, address: str) -> None:
    asked = desk.put(annotators=1)
    desk.round()

    def answer() -> None:
        desk.say(str(desk.now(asked).task), "ann", "cat")
        desk.round()

    threading.Timer(0.5, answer).start()
    begun = time.monotonic()
    found = requests.get(f"{address}/{asked.id}", params={"wait": 30}, headers=ALLOWED, timeout=40).json()
    assert found["state"] == "answered"
    assert time.monotonic() - begun < 20


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60)
    | st.fixed_dictionaries(
        {
            "key": st.text(max_size=5) | st.integers(),
            "data": st.dictionaries(st.text(), st.text(), max_size=2),
        },
        optional={
            "annotators": st.integers() | st.none(),
            "seconds": st.floats() | st.text(),
            "callback": st.text(),
            "prediction": st.none() | st.dictionaries(st.text(), st.text(), max_size=2),
        },
    ).map(lambda question: json.dumps(question).encode())
)
def test_whatever_is_asked_the_receiver_does_not_break(desk: Desk, address: str, body: bytes) -> None:
    answer = requests.post(address, data=body, headers=ALLOWED, timeout=5)
    assert answer.status_code in (200, 202, 400, 409)
    told: Mapping[str, Any] = answer.json()
    assert "id" in told or "error" in told
