"""The receiver on a real Label Studio: people save, and what should follow follows."""

from __future__ import annotations

import dataclasses
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime

import pytest
import requests
from standardwebhooks.webhooks import Webhook

from connector.demo.pictures import result
from connector.demo.server import S3, free_port
from connector.events.log import EventLog
from connector.model import Item
from connector.serve.live import EVENTS
from tests.conftest import Line
from tests.live.test_line import store_of
from tests.stalling import relay
from tests.unit.receiver import receiver
from tests.waiting import until

pytestmark = pytest.mark.live

SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECRETS = {
    "LABELING_WEBHOOK_SECRET": "open sesame, open sesame, open",
    "LABELING_SIGNING_SECRET": SIGNING,
    "LABELING_ASK_SECRET": "may ask, whoever holds this",
}


@pytest.fixture
def served(line: Line) -> Line:
    """A line with a port of its own for the receiver."""
    (line.folder / "connector.toml").open("a").write(
        f"[serve]\nport = {free_port()}\nsettle_seconds = 0.1\npull_seconds = 300\n"
        '[callbacks]\nallow = ["127.0.0.1"]\n'
    )
    return dataclasses.replace(line, environment={**line.environment, **SECRETS})


def base(line: Line) -> str:
    text = (line.folder / "connector.toml").read_text()
    return f"http://127.0.0.1:{text.split('port = ')[1].splitlines()[0]}"


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=60).status_code == 200
    except requests.ConnectionError:
        return False


@contextmanager
def serve(line: Line) -> Iterator[subprocess.Popen[str]]:
    process = line.start("serve")
    try:
        until(lambda: process.poll() is not None or answers(f"{base(line)}/readyz"))
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


def events_of(line: Line) -> list[tuple[str, str]]:
    source = f"label-studio:{line.server.url}#{line.project}"
    with closing(EventLog(line.folder / EVENTS, source)) as log:
        return [(event.type, event.subject) for event in log.events()]


def task_of(line: Line, key: str) -> str:
    [task] = line.tool.add_items([Item(key=key, data={"image": "s3://raw/x.png"})])
    return task.id


def test_a_save_becomes_events_within_moments_and_the_rules_follow(served: Line) -> None:
    with receiver(500) as hook:
        (served.folder / "connector.toml").open("a").write(
            f"""
            [[rules]]
            name = "one more"
            when = "consensus.failed"
            then = {{ do = "one-more", limit = 4 }}
            [[rules]]
            name = "tell"
            when = "consensus.reached"
            after = "consensus.failed"
            then = {{ do = "call", url = "{hook.url}" }}
            """
        )
        task = task_of(served, "a")
        with serve(served) as process:
            added = served.ask("webhook", "add")
            assert added["arrived"] is True
            assert len(added["webhook"]["actions"]) == 7
            assert "SSRF" in added["notes"][0]
            for who, label in enumerate(("field", "street", "harbour")):
                served.answer(who, task, result(label, [], f"a{who}"))
            until(lambda: ("consensus.failed", f"task:{task}") in events_of(served))
            until(lambda: served.tool.read_task(task).overlap == 4)
            served.answer(3, task, result("field", [], "a3"))
            until(lambda: events_of(served).count(("consensus.failed", f"task:{task}")) == 2)
            # The limit is reached: an expert is to look.
            until(lambda: any(v["data"]["title"] == "expert review" for v in served.tool._views()))
            # Somebody thinks again, and now most agree.
            second, last = served.tool.read_task(task).annotations[1::2]
            served.tool.write_annotation(second.model_copy(update={"result": last.result}), second.revision)
            until(lambda: hook.bodies)
            assert process.poll() is None
            metrics = requests.get(f"{base(served)}/metrics", timeout=60).text
            assert 'connector_deliveries{state="done"} 2.0' in metrics
        assert [event for event, _ in events_of(served) if not event.startswith("batch")] == [
            *("task.completed", "consensus.failed", "task.reopened"),
            *("task.completed", "consensus.failed", "consensus.reached"),
        ]
        Webhook(SIGNING).verify(hook.bodies[0], hook.headers[0])
        assert hook.json[0]["type"] == "consensus.reached"
        log = served.ask("rules", "log")["deliveries"]
        assert [(d["rule"], d["state"]) for d in log] == [
            ("tell", "waiting"),  # the receiver answered 500
            ("one more", "done"),
            ("one more", "done"),
        ]
        rehearsed = served.ask("rules", "test")["would"]
        assert [(d["rule"], d["event"]["type"]) for d in rehearsed][:1] == [("one more", "consensus.failed")]
        assert served.ask("rules", "resend")["again"] == 0


def test_annotators_do_not_wait_for_the_pull_that_an_event_causes(served: Line) -> None:
    task = task_of(served, "a")
    served.ask("pull")
    store = store_of(served)
    with serve(served):
        served.ask("webhook", "add")
        with store.lease():
            store.take()  # no pull can end until this is released
            for who in range(3):
                served.answer(who, task, result("field", [], f"{who}"))
            until(lambda: waiting(served) >= 3)
            assert events_of(served) == []
        until(lambda: ("consensus.reached", f"task:{task}") in events_of(served))
        until(lambda: waiting(served) == 0)


def waiting(line: Line) -> float:
    """How many events the receiver has acknowledged that no pull has followed yet."""
    page = requests.get(f"{base(line)}/metrics", timeout=60).text
    return float(re.findall(r"^connector_inbox_waiting (.+)$", page, re.MULTILINE)[0])


def test_a_receiver_that_is_killed_and_started_again_misses_nothing(served: Line) -> None:
    tasks = [task_of(served, key) for key in "ab"]
    with serve(served) as process:
        served.ask("webhook", "add")
        served.answer(0, tasks[0], result("field", [], "a"))
        until(lambda: (served.folder / EVENTS).is_file())
        process.send_signal(signal.SIGKILL)
        process.wait()
    for who in (1, 2):  # nobody listens
        served.answer(who, tasks[0], result("field", [], f"b{who}"))
    with serve(served) as process:
        until(lambda: ("task.completed", f"task:{tasks[0]}") in events_of(served))
        for who in range(3):
            served.answer(who, tasks[1], result("field", [], f"c{who}"))
        until(lambda: ("batch.accepted", "batch:all") in events_of(served))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0, process.communicate()
    for task in tasks:
        assert [e for e, subject in events_of(served) if subject == f"task:{task}"] == [
            *("task.completed", "consensus.reached"),
        ]


def test_people_are_asked_and_their_answer_comes_back(served: Line) -> None:
    with receiver() as hook, serve(served):
        served.ask("webhook", "add")
        allowed = {"Authorization": "Bearer may ask, whoever holds this"}
        question = {
            "key": "is this a field?",
            "data": {"image": "s3://raw/x.png"},
            "annotators": 2,
            "callback": hook.url,
            "prediction": {"result": result("street", [], "m"), "model_version": "m1", "score": 0.4},
        }
        url = f"{base(served)}/ask"
        assert requests.post(url, json=question, timeout=60).status_code == 401
        asked = requests.post(url, json=question, headers=allowed, timeout=60)
        assert (asked.status_code, asked.json()["state"]) == (202, "asked")
        where = f"{url}/{asked.json()['id']}"
        task = until(lambda: requests.get(where, headers=allowed, timeout=60).json()["task"])
        held = served.tool.read_task(task)
        assert (held.overlap, held.predictions[0].score) == (2, 0.4)
        assert any(view["data"]["title"] == "asked" for view in served.tool._views())
        again = requests.post(url, json=question, headers=allowed, timeout=60)
        assert (again.status_code, again.json()["state"]) == (200, "open")
        for who in range(2):
            served.answer(who, task, result("field", [], f"a{who}"))
        found = requests.get(where, params={"wait": 30}, headers=allowed, timeout=40).json()
        assert (found["state"], found["agreed"], found["annotators"]) == ("answered", True, 2)
        assert {unit["label"] for unit in found["answer"]} >= {"field"}
        until(lambda: hook.bodies)
        Webhook(SIGNING).verify(hook.bodies[0], hook.headers[0])
        assert hook.json[0]["type"] == "ask.answered"
        assert hook.json[0]["data"]["key"] == "is this a field?"


def test_a_receiver_that_does_not_answer_delays_neither_others_nor_the_end(served: Line) -> None:
    taken: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                taken.append(mute.accept()[0])

    with receiver() as healthy, socket.create_server(("127.0.0.1", 0)) as mute:
        threading.Thread(target=accept, daemon=True).start()
        port = mute.getsockname()[1]
        (served.folder / "connector.toml").open("a").write(
            f"""
            [[rules]]
            name = "mute"
            when = "task.completed"
            then = {{ do = "call", url = "http://127.0.0.1:{port}/" }}
            [[rules]]
            name = "healthy"
            when = "task.completed"
            then = {{ do = "call", url = "{healthy.url}" }}
            """
        )
        task = task_of(served, "a")
        with serve(served) as process:
            served.ask("webhook", "add")
            for who in range(3):
                served.answer(who, task, result("field", [], f"a{who}"))
            until(lambda: taken and healthy.bodies)
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0, process.communicate()
            assert time.monotonic() - begun < 10
        mute.shutdown(
            socket.SHUT_RDWR
        )  # else the port stays taken while another thread waits for a connection
        for wire in taken:
            wire.close()
    log = served.ask("rules", "log")["deliveries"]
    assert {(d["rule"], d["state"], d["attempts"]) for d in log} == {
        ("mute", "waiting", 0),
        ("healthy", "done", 1),
    }
    with receiver(port=port) as answers_now, serve(served):
        until(lambda: answers_now.bodies)
    assert [body["id"] for body in answers_now.json] == [body["id"] for body in healthy.json]
    assert len(healthy.bodies) == 1


def test_what_the_tool_does_not_take_is_refused_and_a_stalled_sender_does_not_keep_it_up(
    served: Line,
) -> None:
    with serve(served) as process:
        allowed = {"Authorization": "Bearer may ask, whoever holds this"}
        guess = {"result": result("no such label", [], "m"), "model_version": "m1"}
        question = {"key": "q", "data": {"image": "s3://raw/x.png"}, "prediction": guess}
        asked = requests.post(f"{base(served)}/ask", json=question, headers=allowed, timeout=60).json()
        where = f"{base(served)}/ask/{asked['id']}"

        def refused() -> dict[str, str] | None:
            found: dict[str, str] = requests.get(where, headers=allowed, timeout=60).json()
            return found if found["state"] == "refused" else None

        assert "does not fit the ontology" in until(refused)["why"]
        wire = socket.create_connection(("127.0.0.1", int(base(served).rsplit(":", 1)[1])))
        wire.sendall(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0, process.communicate()
        wire.close()


def test_a_wrong_address_is_found_out(served: Line) -> None:
    assert served.ask("webhook", "test", code=3)["arrived"] is None
    with serve(served):
        # A receiver that answers us, and that the tool does not knock at.
        assert served.ask("webhook", "test", code=3)["arrived"] is False
        secrets = {**served.environment, "LABELING_WEBHOOK_SECRET": "another " * 4}
        wrong = dataclasses.replace(served, environment=secrets)
        assert wrong.ask("webhook", "add", code=3)["arrived"] is False
        assert served.ask("webhook", "add")["arrived"] is True
        [hook] = served.ask("webhook", "list")["webhooks"]
        assert hook["active"]


BUCKET_WAITS_SECONDS = 10.0
"""Well below the time for which a bucket is waited for, whoever else uses this machine."""


def test_events_are_answered_while_the_bucket_does_not_answer(served: Line, s3: S3) -> None:
    with relay(s3.endpoint) as way:
        toml = served.folder / "connector.toml"
        toml.open("a").write(
            f"[store]\nurl = '{s3.url}/{served.folder.name}/labels'\nendpoint = '{way.url}'\n"
        )
        line = dataclasses.replace(served, environment={**served.environment, **s3.environment})
        with serve(line) as process:
            headers = {"X-Connector-Secret": SECRETS["LABELING_WEBHOOK_SECRET"]}
            way.stalled.set()
            took = []
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                event = {
                    "action": "ANNOTATION_CREATED",
                    "task": {"id": 1},
                    "annotation": {"id": len(took), "updated_at": datetime.now(UTC).isoformat()},
                }
                begun = time.monotonic()
                answer = requests.post(f"{base(line)}/events", json=event, headers=headers, timeout=60)
                took.append(time.monotonic() - begun)
                assert answer.status_code == 202
                time.sleep(0.1)
            assert way.waiting > 0  # the pull waits for the bucket
            assert max(took) < BUCKET_WAITS_SECONDS
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0, process.communicate()
