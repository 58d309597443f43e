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

from connector.adapters.label_studio.adapter import RESERVED
from connector.config import SIGNING_SECRET, Serve
from connector.errors import Conflict, Temporary, UsageError
from connector.events.deliver import Sender
from connector.events.log import Event, EventLog
from connector.model import Item
from connector.serve.ask import Asked, Asks, Question, routes
from connector.serve.inbox import Inbox
from connector.serve.receiver import Metrics, Receiver, application, serving
from tests.unit.memory_line import MemoryLine, contract
from tests.unit.receiver import LOOPBACK, receiver

ALLOWED = {"Authorization": "Bearer may ask"}
DATA = {"image": "x.png"}


class Desk(MemoryLine):
    """A line where people are asked."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.late = 0.0
        self.asks = Asks(self.log, self.clock)
        self.told: list[Event] = []

    def clock(self) -> float:
        """The time, after all that was waited for."""
        return time.time() + self.late

    def put(self, key: str = "k", **more: Any) -> Asked:
        asked, _ = self.asks.put(Question(key=key, data=DATA, **more))
        return asked

    def round(self) -> None:
        begun = self.clock()
        self.follow()
        self.asks.settle(self.tool, self.planned, self.clock() - begun)
        self.asks.place(self.tool, self.store, self.planned)

    def planned(self, event: Event) -> tuple[()]:
        self.told.append(event)
        return ()

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
    asked = desk.put(seconds=600)
    desk.round()
    for who, label in (("ann", "cat"), ("ben", "dog")):
        desk.say(str(desk.now(asked).task), who, label)
    desk.round()
    assert desk.now(asked).state == "open"
    desk.late += 601
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
    asked = desk.put(seconds=600)
    desk.round()
    assert 0 < desk.asks.seconds_left() <= 600
    desk.late += desk.asks.seconds_left() + 1
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


@pytest.mark.parametrize("method", ["set_task_overlap", "write_predictions"])
def test_a_question_that_the_tool_calls_wrong_is_refused_and_the_others_go_on(
    desk: Desk, method: str
) -> None:
    guess = {"result": [], "model_version": "m"}
    bad, good = desk.put("bad", annotators=3, prediction=guess), desk.put("good")
    desk.tool.faults.fail(method, 1, UsageError("Label Studio refused this (400): so there"))
    desk.round()
    assert desk.now(bad).to_json()["why"] == "Label Studio refused this (400): so there"
    assert (desk.now(bad).state, desk.now(good).state) == ("refused", "open")


def test_a_question_that_fails_again_and_again_stops_neither_pulls_nor_others_and_expires(
    desk: Desk,
) -> None:
    bad, good = desk.put("bad", annotators=3, seconds=600), desk.put("good")
    for call in range(1, 10):
        desk.tool.faults.fail("set_task_overlap", call)
    with pytest.raises(Temporary, match="set_task_overlap"):
        desk.round()
    assert (desk.now(bad).state, desk.now(good).state) == ("asked", "open")
    for who in ("ann", "ben"):
        desk.say(str(desk.now(good).task), who, "cat")
    with pytest.raises(Temporary):
        desk.round()
    assert desk.now(good).state == "answered"
    desk.late += 601
    desk.round()
    assert desk.now(bad).state == "expired"


def test_where_many_fail_the_others_have_their_turn(desk: Desk) -> None:
    bad, good = [desk.put(f"bad {n}", annotators=3) for n in range(5)], desk.put("good")
    for call in range(1, 10):
        desk.tool.faults.fail("set_task_overlap", call)
    for tried in (3, 8):
        with pytest.raises(Temporary):
            desk.round()
        assert desk.tool.faults.calls["set_task_overlap"] == tried
    assert {desk.now(one).state for one in bad} == {"asked"}
    assert desk.now(good).state == "open"


def answered_and_gone(desk: Desk) -> str:
    """A task that people said something else of, whose id the next one will get."""
    desk.tool.project.reuse_ids = True
    [old] = desk.add("old")
    for who in ("ann", "ben"):
        desk.say(old, who, "dog")
    desk.follow()
    desk.tool.project.delete_task(old)
    return old


def test_what_people_said_of_another_task_of_that_id_is_no_answer(desk: Desk) -> None:
    old = answered_and_gone(desk)
    asked = desk.put()
    desk.round()
    assert desk.now(asked).task == old
    desk.round()
    assert desk.now(asked).state == "open"
    for who in ("ann", "ben"):
        desk.say(old, who, "cat")
    desk.round()
    assert desk.now(asked).to_json()["answer"][0]["label"] == "cat"


def test_a_task_of_others_that_has_the_id_of_another_is_answered_by_its_own_answers(desk: Desk) -> None:
    old = answered_and_gone(desk)
    [task] = desk.tool.add_items([Item(key="k", data=DATA)])
    asked = desk.put()
    desk.round()
    desk.round()
    assert (task.id, desk.now(asked).task, desk.now(asked).state) == (old, old, "open")
    for who in ("ann", "ben"):
        desk.say(old, who, "cat")
    desk.round()
    assert desk.now(asked).to_json()["answer"][0]["label"] == "cat"


def test_what_was_answered_before_it_was_asked_is_answered(desk: Desk) -> None:
    [task] = [task.id for task in desk.tool.add_items([Item(key="k", data=DATA)])]
    for who in ("ann", "ben"):
        desk.say(task, who, "cat")
    desk.follow()
    asked = desk.put()
    desk.round()
    desk.round()
    assert desk.now(asked).to_json()["answer"][0]["label"] == "cat"


def test_a_key_of_a_task_that_shows_something_else_is_refused(desk: Desk) -> None:
    desk.add("k", other="x")
    desk.follow()
    asked = desk.put(annotators=3)
    desk.round()
    assert desk.now(asked).state == "refused"
    assert "shows something else" in desk.now(asked).to_json()["why"]
    [task] = desk.tool.project.tasks.values()
    assert (task.overlap, desk.tool.project.queues.get("asked", [])) == (2, [])


@pytest.mark.parametrize(("wanted", "shown_to"), [(1, 2), (3, 3)])
def test_a_task_of_others_is_shown_to_no_fewer_people(desk: Desk, wanted: int, shown_to: int) -> None:
    list(desk.tool.add_items([Item(key="k", data=DATA)]))
    desk.follow()
    desk.put(annotators=wanted)
    desk.round()
    assert [task.overlap for task in desk.tool.project.tasks.values()] == [shown_to]


def test_a_task_made_for_a_question_is_shown_to_so_many_whatever_broke_off(desk: Desk) -> None:
    asked = desk.put(annotators=1)
    desk.tool.faults.fail("set_task_overlap", 1)
    with pytest.raises(Temporary):
        desk.round()
    desk.round()
    assert (desk.now(asked).state, desk.tool.read_task(str(desk.now(asked).task)).overlap) == ("open", 1)


def test_an_answer_given_in_time_counts_though_it_comes_after_the_pull(desk: Desk) -> None:
    asked = desk.put(annotators=1, seconds=600)
    desk.round()
    begun = desk.clock()
    desk.follow()
    desk.late += 601
    desk.asks.settle(desk.tool, desk.planned, desk.clock() - begun)
    assert desk.now(asked).state == "open"
    desk.say(str(desk.now(asked).task), "ann", "cat")  # the tool's clock stands long before
    desk.round()
    assert desk.now(asked).state == "answered"


def test_what_expired_is_not_brought_before_people(desk: Desk) -> None:
    asked = desk.put(seconds=600)
    desk.late += 601
    assert not desk.asks.place(desk.tool, desk.store, desk.planned)
    desk.round()
    assert (desk.now(asked).state, desk.tool.project.tasks) == ("expired", {})


def test_the_list_is_there_before_a_question_is_open_and_comes_again(desk: Desk) -> None:
    asked = desk.put()
    desk.tool.faults.fail("review_queue", 1)
    with pytest.raises(Temporary):
        desk.round()
    assert desk.now(asked).state == "asked"
    desk.round()
    assert desk.tool.project.queues["asked"] == [desk.now(asked).task]
    # What another process left unshown at its end is shown.
    desk.tool.project.queues.clear()
    desk.asks = Asks(desk.log)
    desk.round()
    assert desk.tool.project.queues["asked"] == [desk.now(asked).task]


def test_a_list_that_lagged_behind_is_made_good(desk: Desk) -> None:
    asked = desk.put(annotators=1)
    desk.round()
    desk.say(str(desk.now(asked).task), "ann", "cat")
    desk.tool.faults.fail("review_queue", 2, UsageError("no such list"))
    with pytest.raises(Temporary, match="no such list"):
        desk.round()
    assert desk.now(asked).state == "answered"
    desk.round()
    assert desk.tool.project.queues["asked"] == []


def test_questions_of_an_older_file_are_asked_on(tmp_path: Path) -> None:
    with closing(EventLog(tmp_path / "log.sqlite", "memory")) as log:
        with log.file.read() as db:
            db.execute(
                "CREATE TABLE ask (id TEXT PRIMARY KEY, source TEXT NOT NULL, question TEXT NOT NULL, "
                "state TEXT NOT NULL, task TEXT, expires REAL NOT NULL, answer TEXT)"
            )
            question = Question(key="k", data=DATA).model_dump_json()
            row = ("1", "memory", question, "open", "7", time.time() + 60)
            db.execute("INSERT INTO ask VALUES (?, ?, ?, ?, ?, ?, NULL)", row)
        assert Asks(log).unanswered("open")[0].since is None


def test_a_refusal_is_told_to_whoever_asked(desk: Desk) -> None:
    asked = desk.asks.put(Question(key="k", data={"text": "no image"}, callback="https://a.example"))[0]
    desk.round()
    [event] = desk.told
    assert (event.type, event.data["ask"], "image" in event.data["why"]) == ("ask.refused", asked.id, True)
    [delivery] = desk.log.deliveries("waiting")
    assert (delivery.event.id, delivery.action["url"]) == (event.id, "https://a.example")


def test_the_answer_is_sent_to_whoever_asked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIGNING_SECRET, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    with receiver() as hook:
        asked = desk.put(callback=hook.url)
        desk.round()
        for who in ("ann", "ben"):
            desk.say(str(desk.now(asked).task), who, "cat")
        desk.round()
        desk.round()
        Sender(desk.log, desk.tool, lambda _: None, LOOPBACK).send_due(threading.Event())
    assert [(body["type"], body["data"]["ask"]) for body in hook.json] == [("ask.answered", asked.id)]


@pytest.fixture
def address(desk: Desk, tmp_path: Path) -> Iterator[str]:
    with closing(Inbox(tmp_path / "i.sqlite", "one")) as inbox:
        receiver = Receiver(
            desk.tool.parse_event, "x", inbox, lambda: None, Metrics(inbox), Serve(per_second=100_000)
        )
        app = application(
            receiver, *routes(desk.asks, "may ask", lambda: None, threading.Event(), reserved=RESERVED)
        )
        with serving(app, "127.0.0.1", 0) as url:
            yield f"{url}/ask"


def test_over_http(desk: Desk, address: str) -> None:
    body = {"key": "k", "data": DATA}
    for headers in ({}, {"Authorization": "Bearer may"}, {"Authorization": "may ask"}):
        assert requests.post(address, json=body, headers=headers, timeout=60).status_code == 401
        assert requests.get(f"{address}/x", headers=headers, timeout=60).status_code == 401
    first = requests.post(address, json=body, headers=ALLOWED, timeout=60)
    assert (first.status_code, first.json()["state"]) == (202, "asked")
    assert requests.post(address, json=body, headers=ALLOWED, timeout=60).status_code == 200
    other = requests.post(address, json={**body, "annotators": 5}, headers=ALLOWED, timeout=60)
    assert other.status_code == 409
    assert requests.get(f"{address}/none", headers=ALLOWED, timeout=60).status_code == 404
    where = f"{address}/{first.json()['id']}"
    assert requests.get(where, params={"wait": "soon"}, headers=ALLOWED, timeout=60).status_code == 400
    begun = time.monotonic()
    assert requests.get(where, params={"wait": 0.5}, headers=ALLOWED, timeout=60).json()["state"] == "asked"
    assert time.monotonic() - begun >= 0.4


@pytest.mark.parametrize("name", ["connector_key", "connector_version", "connector_note"])
def test_a_field_that_is_reserved_is_refused_before_anything_is_kept(
    desk: Desk, address: str, name: str
) -> None:
    body = {"key": "k", "data": {**DATA, name: "another"}}
    answer = requests.post(address, json=body, headers=ALLOWED, timeout=60)
    assert answer.status_code == 400
    [wrong] = answer.json()["wrong"]
    assert (wrong["at"], "reserved" in wrong["why"]) == (["data", name], True)
    assert desk.asks.unanswered("asked") == []
    nested = {"key": "k", "data": {**DATA, "of": {name: "another"}}}
    assert requests.post(address, json=nested, headers=ALLOWED, timeout=60).status_code == 202


@pytest.mark.parametrize("where", ["data", "prediction"])
@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_refused_and_nothing_is_kept(
    desk: Desk, address: str, where: str, number: str
) -> None:
    held = {"data": "1", "prediction": "1", where: number}
    guess = f'{{"model_version": "m", "result": [{{"n": {held["prediction"]}}}]}}'
    body = f'{{"key": "k", "data": {{"n": [{held["data"]}]}}, "prediction": {guess}}}'
    answer = requests.post(address, data=body, headers=ALLOWED, timeout=60)
    assert answer.status_code == 400
    assert desk.asks.unanswered("asked") == []


@pytest.mark.parametrize("secret", [None, "whsec_", "whsec_ö"])
def test_who_cannot_be_called_back_is_told_at_once(
    desk: Desk, address: str, secret: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if secret is None:
        monkeypatch.delenv(SIGNING_SECRET, raising=False)
    else:
        monkeypatch.setenv(SIGNING_SECRET, secret)
    body = {"key": "k", "data": DATA, "callback": "https://a.example"}
    answer = requests.post(address, json=body, headers=ALLOWED, timeout=60)
    assert (answer.status_code, SIGNING_SECRET in answer.json()["error"]) == (400, True)
    assert desk.asks.unanswered("asked") == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/", "http://169.254.169.254/", "http://[::1]/", "http://["]
)
def test_a_callback_inside_the_network_is_refused_at_once(
    desk: Desk, address: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SIGNING_SECRET, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = {"key": "k", "data": DATA, "callback": url}
    answer = requests.post(address, json=body, headers=ALLOWED, timeout=60)
    assert (answer.status_code, "the callback" in answer.json()["error"]) == (400, True)
    assert desk.asks.unanswered("asked") == []


def test_a_file_that_is_damaged_is_no_fault_of_whoever_asks(desk: Desk, address: str) -> None:
    with desk.log.file.read() as db:
        db.execute("DROP TABLE ask")
    answer = requests.post(address, json={"key": "k", "data": DATA}, headers=ALLOWED, timeout=60)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert requests.get(f"{address}/x", headers=ALLOWED, timeout=60).status_code == 503


def test_no_client_is_kept_waiting_at_shutdown(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, asked, found = threading.Event(), desk.put(), list[str]()
    looked_up, get = threading.Event(), desk.asks.get

    def noticed(id: str) -> Asked | None:
        looked_up.set()
        return get(id)

    monkeypatch.setattr(desk.asks, "get", noticed)
    with closing(Inbox(tmp_path / "i.sqlite", "one")) as inbox:
        receiver = Receiver(desk.tool.parse_event, "x", inbox, lambda: None, Metrics(inbox), Serve())
        app = application(receiver, *routes(desk.asks, "may ask", lambda: None, stop))
        with serving(app, "127.0.0.1", 0) as url:

            def wait() -> None:
                where = f"{url}/ask/{asked.id}"
                answer = requests.get(where, params={"wait": 50}, headers=ALLOWED, timeout=60)
                found.append(answer.json()["state"])

            waiting = threading.Thread(target=wait)
            waiting.start()
            assert looked_up.wait(60)
            begun = time.monotonic()
            stop.set()
    waiting.join()
    assert found == ["asked"]
    assert time.monotonic() - begun < 40


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
    answer = requests.post(address, data=body, headers=ALLOWED, timeout=60)
    assert answer.status_code in (200, 202, 400, 409)
    told: Mapping[str, Any] = answer.json()
    assert "id" in told or "error" in told
