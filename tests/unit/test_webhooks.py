"""The receiver takes what is ours, refuses what is not, and answers when it is on the disk."""

from __future__ import annotations

import json
import socket
import sqlite3
import string
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.responses import Response

from connector.adapters.label_studio.adapter import LabelStudio
from connector.adapters.memory import MemoryTool
from connector.adapters.signatures import SECRET_HEADER
from connector.config import Serve
from connector.errors import Temporary, UsageError
from connector.serve import connections
from connector.serve import receiver as webhooks
from connector.serve.inbox import Inbox
from connector.serve.receiver import Metrics, Receiver, application, local_url, proven, serving

SECRET = "open sesame"
HEADERS = {SECRET_HEADER: SECRET}


def event(id: int = 8, at: datetime | None = None, **more: Any) -> bytes:
    at = at or datetime.now(UTC)
    annotation = {"id": id, "updated_at": at.isoformat(), "result": [{"value": "ü"}], **more}
    return json.dumps({"action": "ANNOTATION_CREATED", "task": {"id": 7}, "annotation": annotation}).encode()


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Door:
    """A receiver that is served, and whose answers are looked at."""

    address: tuple[str, int]
    inbox: Inbox
    rung: list[int]
    receiver: Receiver

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[bytes, bytes] | None = None,
    ) -> Answer:
        """One request, with headers as they may come: any bytes."""
        with closing(HTTPConnection(*self.address, timeout=60)) as wire:
            chunked = not isinstance(body, (bytes, type(None)))
            wire.putrequest(method, path)
            for name, value in (headers or {}).items():
                wire.putheader(name, value)  # type: ignore[arg-type]
            if chunked:
                wire.putheader("Transfer-Encoding", "chunked")
            elif body is not None:
                wire.putheader("Content-Length", str(len(body)))  # type: ignore[arg-type]
            wire.endheaders(body, encode_chunked=chunked)
            answer = wire.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def knock(self, body: bytes, headers: Mapping[str, str] = HEADERS) -> int:
        raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        return self.ask("POST", "/events", body, raw).status


@contextmanager
def opened(receiver: Receiver, rung: list[int]) -> Iterator[Door]:
    with serving(application(receiver), "127.0.0.1", 0) as url:
        yield Door(("127.0.0.1", int(url.rsplit(":", 1)[1])), receiver.inbox, rung, receiver)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with closing(Inbox(tmp_path / "inbox.sqlite", "one")) as inbox:
        rung: list[int] = []
        tool = LabelStudio("http://localhost:1", "a" * 40, 1)
        serve = Serve(per_second=1_000_000, body_bytes=100_000)
        receiver = Receiver(tool.parse_event, SECRET, inbox, lambda: rung.append(1), Metrics(inbox), serve)
        with opened(receiver, rung) as door:
            yield door


def test_an_event_is_kept_and_rings(door: Door) -> None:
    assert door.knock(event()) == 202
    assert (door.inbox.waiting(), len(door.rung)) == (1, 1)


def test_what_is_kept_holds_nothing_of_the_body(door: Door, tmp_path: Path) -> None:
    assert door.knock(event(project={"token": "a secret of the project"})) == 202
    for file in tmp_path.iterdir():
        assert b"secret of the project" not in file.read_bytes()


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (event(), {}, 401),
        (event(), {SECRET_HEADER: "close sesame"}, 401),
        (event(), {SECRET_HEADER: ""}, 401),
        (event(), {SECRET_HEADER: "ö"}, 401),
        (b"not json", HEADERS, 400),
        (b"", HEADERS, 400),
        (b"[" * 90_000, HEADERS, 400),
        (b'{"action":' * 9_000 + b"1" + b"}" * 9_000, HEADERS, 400),
        (b'{"action": "ANNOTATION_CREATED", "annotation": {"id": ' + b"9" * 5000 + b"}}", HEADERS, 400),
        (b"\xff\xfe", HEADERS, 400),
        (b"x" * 100_001, HEADERS, 413),
        (b'{"action": "PROJECT_UPDATED"}', HEADERS, 200),
        (b'{"action": "SOMETHING_NEW"}', HEADERS, 200),
        (event(at=datetime.now(UTC) - timedelta(hours=1)), HEADERS, 200),
    ],
)
def test_what_is_not_ours_is_refused_or_ignored(
    door: Door, body: bytes, headers: Mapping[str, str], status: int
) -> None:
    assert door.knock(body, headers) == status
    assert (door.inbox.waiting(), door.rung) == (0, [])


def test_a_huge_body_is_refused_however_it_is_sent(door: Door) -> None:
    secret = {SECRET_HEADER.encode(): SECRET.encode()}
    answer = door.ask("POST", "/events", (b"x" * 30_000 for _ in range(4)), secret)
    assert answer.status == 413


def test_the_answer_to_a_wrong_secret_tells_nothing(door: Door) -> None:
    answer = door.ask("POST", "/events", event(), {SECRET_HEADER.encode(): b"x"})
    assert answer.json == {"error": "not let in"}
    assert SECRET not in repr(door.receiver)


def test_duplicates_are_one_event(door: Door) -> None:
    body = event()
    assert [door.knock(body) for _ in range(5)] == [202] * 5
    assert door.inbox.waiting() == 1


def test_more_requests_than_are_allowed_are_refused(door: Door) -> None:
    receiver = replace(door.receiver, settings=Serve(per_second=3))
    with opened(receiver, []) as narrow:
        found = [narrow.knock(event(n)) for n in range(12)]
    assert found.count(202) <= 6  # a second may have turned on the way
    assert set(found) == {202, 429}


def test_an_inbox_that_cannot_be_written_says_come_again(door: Door, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "inbox.sqlite")) as other:
        other.execute("DROP TABLE knock")
        other.commit()
    answer = door.ask("POST", "/events", event(), {SECRET_HEADER.encode(): SECRET.encode()})
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert door.rung == []


def test_health_readiness_and_metrics(door: Door) -> None:
    assert door.ask("GET", "/healthz").status == 200
    assert door.ask("GET", "/readyz").status == 503
    door.receiver.metrics.pulled(None)
    assert door.ask("GET", "/readyz").json == {"ready": True, "why": None}
    door.receiver.metrics.pulled("the server is away")
    assert door.ask("GET", "/readyz").json == {"ready": False, "why": "the server is away"}
    door.knock(event())
    door.knock(b"")
    shown = door.ask("GET", "/metrics").body.decode()
    assert 'connector_events_total{outcome="kept"} 1.0' in shown
    assert 'connector_events_total{outcome="unreadable"} 1.0' in shown
    assert "connector_inbox_waiting 1.0" in shown
    assert "connector_event_seconds_bucket" in shown


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
ids = st.integers() | st.text(max_size=5) | json_values
annotations = st.dictionaries(st.sampled_from(["id", "updated_at", "task"]), ids | st.text(), max_size=3)
events = st.fixed_dictionaries(
    {"action": st.sampled_from(["ANNOTATION_CREATED", "TASKS_DELETED", "X"]) | json_values},
    optional={
        "annotation": annotations | json_values,
        "annotations": st.lists(annotations, max_size=3) | json_values,
        "task": annotations | json_values,
        "tasks": st.lists(annotations, max_size=3) | json_values,
    },
)
bodies = st.binary(max_size=200) | (json_values | events).map(lambda value: json.dumps(value).encode())
names = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=12).filter(
    lambda name: (
        name.lower() not in ("content-length", "transfer-encoding", "upgrade", "connection", "expect")
    )
)
values = st.binary(max_size=30).filter(lambda value: not set(value) & set(b"\r\n"))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies, st.dictionaries(names, values, max_size=4), values | st.just(SECRET.encode()))
def test_whatever_comes_the_receiver_does_not_break(
    door: Door, body: bytes, headers: Mapping[str, bytes], secret: bytes
) -> None:
    sent = {name.encode(): value for name, value in headers.items()}
    answer = door.ask("POST", "/events", body, {**sent, SECRET_HEADER.encode(): secret})
    assert answer.status in (200, 202, 400, 401)
    assert answer.status in (400, 401) or secret.strip() == SECRET.encode()


def test_it_is_served_on_an_address_and_lets_go_of_it(door: Door) -> None:
    with serving(application(door.receiver), "127.0.0.1", 0) as url:
        assert requests.post(f"{url}/events", data=event(), headers=HEADERS, timeout=60).status_code == 202
        port = int(url.rsplit(":", 1)[1])
        with pytest.raises(UsageError, match="nothing can listen"), serving(None, "127.0.0.1", port):  # type: ignore[arg-type]
            pass
    with serving(application(door.receiver), "127.0.0.1", port) as url:
        assert requests.get(f"{url}/healthz", timeout=60).status_code == 200


def half_a_request(address: tuple[str, int]) -> socket.socket:
    """A request whose headers the receiver has read, and whose body does not come."""
    wire = socket.create_connection(address, timeout=60)
    head = f"POST /events HTTP/1.1\r\nHost: x\r\n{SECRET_HEADER}: {SECRET}\r\nExpect: 100-continue\r\n"
    wire.sendall(f"{head}Content-Length: 100\r\n\r\n".encode())
    assert wire.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.sendall(b"{")
    return wire


def test_a_request_that_stalls_is_given_up(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "BODY_SECONDS", 0.2)
    with closing(half_a_request(door.address)) as wire:
        assert wire.recv(1000).startswith(b"HTTP/1.1 408")
        while wire.recv(1000):
            """The connection is closed, too."""


def test_a_request_that_stalls_does_not_keep_it_from_ending(
    door: Door, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(webhooks, "BODY_SECONDS", 60)
    monkeypatch.setattr(webhooks, "GRACE_SECONDS", 1)
    reading, body_of = threading.Event(), webhooks.body_of

    async def noticed(*words: Any) -> bytes:
        reading.set()
        return await body_of(*words)

    monkeypatch.setattr(webhooks, "body_of", noticed)
    with serving(application(door.receiver), "127.0.0.1", 0) as url:
        wire = half_a_request(("127.0.0.1", int(url.rsplit(":", 1)[1])))
        assert reading.wait(60)
        begun = time.monotonic()
    assert time.monotonic() - begun < 40
    assert wire.recv(1000).startswith(b"HTTP/1.1 408")
    wire.close()
    assert "Traceback" not in capfd.readouterr().err


def test_more_connections_than_are_allowed_are_refused(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST", 3)
    with opened(door.receiver, []) as narrow:
        assert narrow.knock(event()) == 202
        stalling = [half_a_request(narrow.address) for _ in range(3)]
        assert narrow.knock(event()) == 503
        for wire in stalling:
            wire.close()


class Knocking(MemoryTool):
    """A tool that sends its test event through whatever stands between it and the receiver."""

    public = ""

    def test_webhooks(self) -> None:
        requests.post(self.public, data=b'{"action": "PROJECT_UPDATED"}', headers=HEADERS, timeout=60)


def test_the_way_in_is_proven_though_strangers_see_no_metrics(door: Door) -> None:
    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        """Lets events through and nothing else."""
        if scope["path"] != "/events":
            await Response(status_code=404)(scope, receive, send)
        else:
            await application(door.receiver)(scope, receive, send)

    tool, receiver = Knocking(), f"http://127.0.0.1:{door.address[1]}"
    with serving(proxy, "127.0.0.1", 0) as public:
        tool.public = f"{public}/events"
        assert proven(tool, receiver)
        tool.public = f"{public}/nowhere"
        assert not proven(tool, receiver)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Response("no", 403), "answered 403"),
        (Response("<html>\n<p>hello", 200), "is not our receiver"),
        (Response("# TYPE others gauge\nothers 1.0\n", 200), "is not our receiver"),
    ],
)
def test_what_is_no_receiver_is_told_apart(answer: Response, said: str) -> None:
    with serving(answer, "127.0.0.1", 0) as url, pytest.raises(Temporary, match=said) as told:
        proven(MemoryTool(), url)
    assert "serve.port" in told.value.hint
    with pytest.raises(Temporary, match="no receiver answers"):
        proven(MemoryTool(), url)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8765"),
        ("0.0.0.0", "http://127.0.0.1:8765"),
        ("::", "http://[::1]:8765"),
        ("fd00::7", "http://[fd00::7]:8765"),
        ("connector.internal", "http://connector.internal:8765"),
    ],
)
def test_a_receiver_on_this_machine_is_found(host: str, url: str) -> None:
    assert local_url(Serve(host=host)) == url
