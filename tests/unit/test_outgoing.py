"""What rules send: signed, tried again, in order, and without a word of a secret in any error."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from connector.adapters.memory import MemoryTool
from connector.config import SIGNING_SECRET
from connector.errors import BadRecord, Temporary, UsageError
from connector.events.deliver import Sender, in_a_name, signer
from connector.events.log import DEAD, DONE, WAITING, Changes, Delivery, Event, EventLog
from connector.io import retry
from tests.unit.receiver import LOOPBACK, receiver
from tests.waiting import until

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Post:
    """A log, and what carries out its deliveries."""

    def __init__(self, log: EventLog) -> None:
        self.log, self.tool, self.exported = log, MemoryTool(), list[str]()
        self.sender = Sender(log, self.tool, self.exported.append, LOOPBACK)

    def happens(
        self, action: dict[str, Any], subject: str = "task:1", id: str = "evt_1", **data: Any
    ) -> None:
        event = Event(id, "task.completed", subject, datetime(2026, 3, 1, tzinfo=UTC), {"task": "1", **data})
        self.log.keep(Changes(events=[event]), lambda _: [("rule", action)])

    def send(self) -> list[tuple[str, int, str | None]]:
        self.sender.send_due(threading.Event())
        return [(d.state, d.attempts, d.error) for d in reversed(self.log.deliveries())]

    def send_until_quiet(self) -> None:
        deadline = time.monotonic() + 120
        while self.log.deliveries(WAITING) and time.monotonic() < deadline:
            self.sender.send_due(threading.Event())


@pytest.fixture
def post(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Post]:
    monkeypatch.setenv(SIGNING_SECRET, SECRET)
    with closing(EventLog(tmp_path / "e.sqlite", "one")) as log:
        yield Post(log)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "REDELIVERED_AFTER", (0.01,) * 7)


def test_a_call_is_signed_by_the_convention(post: Post) -> None:
    with receiver() as hook:
        post.happens({"do": "call", "url": hook.url}, name="ü")
        assert post.send() == [(DONE, 1, None)]
    assert Webhook(SECRET).verify(hook.bodies[0], hook.headers[0]) == {
        "id": "evt_1",
        "type": "task.completed",
        "subject": "task:1",
        "timestamp": "2026-03-01T00:00:00+00:00",
        "data": {"task": "1", "name": "ü"},
    }
    assert hook.headers[0]["webhook-id"] == "evt_1"
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(hook.bodies[0] + b" ", hook.headers[0])


def test_the_signature_is_that_of_the_published_vector() -> None:
    """The example of the convention's own libraries."""
    at = datetime.fromtimestamp(1614265330, UTC)
    signed = signer(SECRET).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, '{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    "secret",
    ["whsec_", "whsec_a", "ä", "whsec_" + "QUJD" * 7, "whsec_c2hvcnQ=", "c2hvcnQ", "whsec_" + "!" * 40],
)
def test_a_secret_that_cannot_sign_or_is_short_is_named(secret: str) -> None:
    with pytest.raises(UsageError, match=SIGNING_SECRET) as caught:
        signer(secret)
    assert "at least 24 bytes" in caught.value.what


def test_a_secret_may_have_no_prefix_and_no_padding() -> None:
    signed = [signer(one).sign("m", datetime.fromtimestamp(0, UTC), "") for one in (SECRET, SECRET[6:])]
    assert signed[0] == signed[1]
    assert signer(f"whsec_{'A' * 34}")  # 25 bytes, as some tools write them


@pytest.mark.usefixtures("quick")
def test_a_call_that_fails_is_tried_again_with_the_same_id(post: Post) -> None:
    with receiver(500, 429, 302, 404) as hook:
        post.happens({"do": "call", "url": hook.url})
        post.send_until_quiet()
    assert [h["webhook-id"] for h in hook.headers] == ["evt_1"] * 5
    assert [(d.state, d.attempts) for d in post.log.deliveries()] == [(DONE, 5)]


@pytest.mark.usefixtures("quick")
def test_it_is_given_up_at_last_and_a_receiver_may_say_so_at_once(post: Post) -> None:
    with receiver(*[503] * 8) as hook, receiver(410) as gone:
        post.happens({"do": "call", "url": hook.url})
        post.happens({"do": "call", "url": gone.url}, subject="task:2", id="evt_2")
        post.send_until_quiet()
    assert [(d.state, d.attempts) for d in post.log.deliveries()] == [(DEAD, 1), (DEAD, 8)]


def test_pauses_grow_and_a_receiver_may_ask_for_longer_ones(post: Post) -> None:
    pauses = [retry.redelivery(n) for n in range(7)]
    assert pauses == sorted(p for p in pauses if p is not None)
    assert retry.redelivery(7) is None
    assert retry.redelivery(0, 600) == 600
    assert retry.redelivery(0, 1e9) == retry.REDELIVERED_AFTER[-1]


@pytest.mark.usefixtures("quick")
def test_nothing_is_overtaken_that_is_about_the_same(post: Post) -> None:
    with receiver(500, 500) as hook:
        post.happens({"do": "call", "url": hook.url}, n=1)
        post.happens({"do": "call", "url": hook.url}, id="evt_2", n=2)
        post.send_until_quiet()
    seen = [body["id"] for body in hook.json]
    assert seen == ["evt_1"] * 3 + ["evt_2"]


def test_what_waits_long_keeps_nobody_else_waiting(post: Post) -> None:
    with receiver(500) as hook:
        post.happens({"do": "call", "url": hook.url})
        post.happens({"do": "call", "url": hook.url}, subject="task:2", id="evt_2")
        assert [state for state, _, _ in post.send()] == [WAITING, DONE]


def test_who_does_not_answer_keeps_nobody_else_waiting(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connector.events.callbacks.CALL_SECONDS", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as mute, receiver() as hook:
        silent = f"http://127.0.0.1:{mute.getsockname()[1]}/"
        for n in range(50):
            post.happens({"do": "call", "url": silent}, subject=f"task:{n}", id=f"evt_{n}")
        post.happens({"do": "call", "url": hook.url}, subject="task:50", id="evt_50")
        *waiting, last = post.send()
    assert last == (DONE, 1, None)
    assert [attempts for _, attempts, _ in waiting] == [1] + [0] * 49


@dataclass
class Mute:
    """A server that takes connections and never answers, and how many it had at once."""

    url: str
    open: int = 0
    most: int = 0
    seen: int = 0


@contextmanager
def mute(address: str = "127.0.0.1") -> Iterator[Mute]:
    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=hold, args=(server.accept()[0],), daemon=True).start()

    def hold(wire: socket.socket) -> None:
        with lock:
            found.seen += 1
            found.open += 1
            found.most = max(found.most, found.open)
        with wire, suppress(OSError):
            wire.settimeout(60)
            while wire.recv(65536):
                pass
        with lock:
            found.open -= 1

    lock = threading.Lock()
    with socket.create_server((address, 0)) as server:
        found = Mute(f"http://{address}:{server.getsockname()[1]}/")
        threading.Thread(target=accept, daemon=True).start()
        yield found
        server.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for a connection


@contextmanager
def sending(post: Post) -> Iterator[threading.Event]:
    """Deliveries in a thread of their own; leaving it stops them, also while receivers do not answer."""
    stop = threading.Event()
    thread = threading.Thread(target=post.sender.send_due, args=(stop,), daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def test_twenty_receivers_that_do_not_answer_do_not_delay_one_that_does(post: Post) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(mute(f"127.0.0.{n}")) for n in range(2, 22)]
        hook = stack.enter_context(receiver())
        for n, one in enumerate(silent):
            post.happens({"do": "call", "url": one.url}, subject=f"task:{n}", id=f"evt_{n}")
        stack.enter_context(sending(post))
        until(lambda: all(one.open for one in silent))
        for n in range(100, 110):  # also what comes later
            post.happens({"do": "call", "url": hook.url}, subject=f"task:{n}", id=f"evt_{n}")
        until(lambda: len(hook.bodies) == 10)


def test_one_receiver_occupies_one_worker_whatever_the_urls(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connector.events.callbacks.CALL_SECONDS", 1.0)
    with mute() as silent:
        for n in range(50):
            url = silent.url.replace("http://", "http://me@" if n % 2 else "http://") + f"answers/{n}?x=/@"
            post.happens({"do": "call", "url": url}, subject=f"task:{n}", id=f"evt_{n}")
        attempts = [attempts for _, attempts, _ in post.send()]
    assert sum(attempts) == silent.seen == silent.most == 1


def test_receivers_that_never_answer_leave_half_of_the_workers_to_others(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connector.events.deliver.WORKERS", 4)
    monkeypatch.setattr("connector.events.deliver.REDELIVERED_AFTER", (0.01,) * 7)
    monkeypatch.setattr(retry, "REDELIVERED_AFTER", (0.01,) * 7)
    monkeypatch.setattr("connector.events.callbacks.CALL_SECONDS", 0.5)
    with ExitStack() as stack:
        silent = [stack.enter_context(mute(f"127.0.0.{n}")) for n in range(2, 10)]
        hook = stack.enter_context(receiver())
        for n, one in enumerate(silent):
            post.happens({"do": "call", "url": one.url}, subject=f"task:{n}", id=f"evt_{n}")
        stack.enter_context(sending(post))
        until(lambda: all(one.seen for one in silent))  # each was tried: now it is known who does not answer
        monkeypatch.setattr("connector.events.callbacks.CALL_SECONDS", 15.0)
        until(lambda: sum(one.open for one in silent) == 2 and not sum(d.attempts == 0 for d in due(post)))
        time.sleep(1.5)
        assert sum(one.open for one in silent) == 2
        post.happens({"do": "call", "url": hook.url}, subject="task:100", id="evt_100")
        until(lambda: hook.bodies, 12)  # less than those who do not answer are waited for


def due(post: Post) -> list[Delivery]:
    return post.log.deliveries(WAITING)


def test_what_is_in_flight_when_it_stops_is_repeated_with_the_same_id(post: Post) -> None:
    with mute() as silent:
        post.happens({"do": "call", "url": silent.url})
        with sending(post):
            until(lambda: silent.open)
        [left] = due(post)
    assert (left.attempts, left.event.id) == (0, "evt_1")
    again = post.log.due()
    assert again is not None
    assert again.number == left.number


def test_what_was_sent_is_not_sent_again_because_it_cannot_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SIGNING_SECRET, SECRET)
    monkeypatch.setattr("connector.io.sqlite.BUSY_SECONDS", 0.05)
    with closing(EventLog(tmp_path / "e.sqlite", "one")) as log, receiver() as hook:
        post = Post(log)
        post.happens({"do": "call", "url": hook.url})
        with closing(sqlite3.connect(tmp_path / "e.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(3):
                with pytest.raises(Temporary, match="in use"):
                    post.sender.send_due(threading.Event())
            other.execute("ROLLBACK")
        rung: list[None] = []
        assert post.sender.send_due(threading.Event(), lambda: rung.append(None)) == 1
        assert rung == [None]
        assert [d.state for d in log.deliveries()] == [DONE]
    assert len(hook.bodies) == 1


def test_a_file_of_an_older_version_is_brought_up_to_date(tmp_path: Path, post: Post) -> None:
    old = tmp_path / "old.sqlite"
    post.happens({"do": "call", "url": "https://Model.example.com:8443/x?y=@z"})
    post.happens({"do": "queue", "queue": "look"}, id="evt_2")
    with closing(sqlite3.connect(old)) as db, post.log.file.read() as now:
        now.backup(db)
        db.execute("ALTER TABLE delivery DROP COLUMN target")
    with closing(EventLog(old, "one")) as log:
        assert [d.target for d in log.deliveries()] == ["the labeling tool", "call model.example.com:8443"]
        assert log.deliveries() == post.log.deliveries()
    with closing(EventLog(old, "one")) as log:
        assert len(log.deliveries()) == 2


def test_no_error_tells_an_address_or_a_secret(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_ADDRESS", "http://127.0.0.1:1/services/hidden")
    post.happens({"do": "slack", "url_from": "SLACK_ADDRESS"})
    post.happens({"do": "call", "url": "http://127.0.0.1:1/x?token=hidden"}, subject="task:2", id="evt_2")
    errors = [str(error) for _, _, error in post.send()]
    assert errors == [
        "Slack cannot be reached: ConnectionRefusedError",
        "127.0.0.1 cannot be reached: ConnectionRefusedError",
    ]


def test_slack_is_told_a_line(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as hook:
        monkeypatch.setenv("SLACK_ADDRESS", hook.url)
        text = "{type}: <https://labels.example.com/{task}|{subject}> of {name}"
        action = {"do": "slack", "url_from": "SLACK_ADDRESS", "text": text}
        post.happens(action, name="<!channel> & co")
        post.happens({**action, "text": "{missing}"}, id="evt_2")
        (state, _, _), (dead, _, error) = post.send()
    assert (state, dead) == (DONE, DEAD)
    assert "may name" not in str(error)
    assert "'missing'" in str(error)
    said = "task.completed: <https://labels.example.com/1|task:1> of &lt;!channel&gt; &amp; co"
    assert hook.json == [{"text": said}]


def test_a_command_gets_the_event(post: Post, tmp_path: Path) -> None:
    script = f"import sys; open({str(tmp_path / 'got')!r}, 'w').write(sys.stdin.read())"
    post.happens({"do": "run", "command": [sys.executable, "-c", script]})
    post.happens({"do": "run", "command": ["false"]}, subject="task:2", id="evt_2")
    post.happens({"do": "run", "command": ["no such command"]}, subject="task:3", id="evt_3")
    post.happens({"do": "run", "command": ["sleep", "5"], "seconds": 0.1}, subject="task:4", id="evt_4")
    states = post.send()
    assert [state for state, _, _ in states] == [DONE, WAITING, DEAD, WAITING]
    assert states[1][2] == "false ended with exit code 1"
    assert json.loads((tmp_path / "got").read_text())["id"] == "evt_1"


def test_slack_gets_no_markup_from_what_is_filled_in(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not from within lists and objects, or by a conversion."""
    answer = [{"label": "<!channel>", "votes": {"<@U1>": 2}}]
    with receiver() as hook:
        monkeypatch.setenv("SLACK_ADDRESS", hook.url)
        text = "{answer} {answer[0][label]} {answer!r:.20} {name:>12} &amp; <!here>"
        post.happens({"do": "slack", "url_from": "SLACK_ADDRESS", "text": text}, answer=answer, name="<&>")
        assert [state for state, _, _ in post.send()] == [DONE]
    [said] = [body["text"] for body in hook.json]
    assert said == (
        "[{'label': '&lt;!channel&gt;', 'votes': {'&lt;@U1&gt;': 2}}] &lt;!channel&gt; "
        "[{'label': '&lt;!channe          &lt;&amp;&gt; &amp; <!here>"
    )


def test_a_command_gets_no_secret_of_ours(
    post: Post, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("FOR_THE_COMMAND", "wanted")
    script = f"import json, os; json.dump(dict(os.environ), open({str(tmp_path / 'got')!r}, 'w'))"
    command = {"do": "run", "command": [sys.executable, "-c", script]}
    post.happens({**command, "environment": ["FOR_THE_COMMAND", "NOT_SET"]})
    assert [state for state, _, _ in post.send()] == [DONE]
    got = json.loads((tmp_path / "got").read_text())
    assert got["PATH"] == os.environ["PATH"]
    assert got["FOR_THE_COMMAND"] == "wanted"
    assert not {SIGNING_SECRET, "AWS_SECRET_ACCESS_KEY", "NOT_SET"} & set(got)


@pytest.mark.parametrize("lacks", ["room", "file handles"])
def test_a_command_that_cannot_start_for_now_is_tried_again(
    post: Post, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    if lacks == "room":
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    else:
        monkeypatch.setattr("subprocess.Popen", none_left)
    post.happens({"do": "run", "command": ["true"]})
    [(state, attempts, error)] = post.send()
    assert (state, attempts) == (WAITING, 1)
    assert "now" in str(error)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("ends", ["too late", "by itself", "stopped", "deaf"])
def test_no_process_of_a_command_outlives_it(
    post: Post, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    monkeypatch.setattr("connector.events.deliver.STOP_SECONDS", 0.5)
    child = "trap '' TERM; sleep 60" if ends == "deaf" else "sleep 60"
    last = "exit 0" if ends == "by itself" else "wait"
    command = f'sh -c "{child}" & echo $! > {tmp_path}/started; mv {tmp_path}/started {tmp_path}/pid; {last}'
    seconds = 30 if ends in ("by itself", "stopped") else 2.0
    post.happens({"do": "run", "command": ["sh", "-c", command], "seconds": seconds})
    stop, begun = threading.Event(), time.monotonic()
    if ends == "stopped":
        threading.Timer(2.0, stop.set).start()
    post.sender.send_due(stop)
    assert time.monotonic() - begun < 25
    child_pid = int((tmp_path / "pid").read_text())
    until(lambda: not alive(child_pid))  # killed it is; the system ends it when it comes to that
    [delivery] = post.log.deliveries()
    assert delivery.state == (DONE if ends == "by itself" else WAITING)


def test_an_export_cannot_leave_its_folder_by_the_name_of_a_batch(post: Post) -> None:
    post.happens({"do": "export", "to": "out/{batch}.json"}, batch="../../etc/week 7")
    assert [state for state, _, _ in post.send()] == [DONE]
    [name] = post.exported
    assert re.fullmatch(r"out/-etc-week-7-[0-9a-f]{12}\.json", name)


def test_batches_of_different_names_never_share_a_file() -> None:
    plain = ["week-7", "Woche_7", "ünïcode", ""]
    assert [in_a_name(name) for name in plain] == plain
    alike = ["a/b", "a b", "a-b", "a  b", "a\\b", "a-b-", "x" * 300, "x" * 299, "/", "//", "ü" * 400]
    alike += [in_a_name(name) for name in alike]  # whoever names a batch may know how names are made
    names = [in_a_name(name) for name in alike]
    assert len(set(names)) == len(set(alike))
    assert all(re.fullmatch(r"[\w-]+", name) and len(name.encode()) < 220 for name in names)


def test_a_list_in_the_tool_keeps_what_was_put_there(post: Post) -> None:
    post.happens({"do": "queue", "queue": "look"}, id="evt_1", task="1")
    post.happens({"do": "queue", "queue": "look"}, id="evt_2", task="2")
    post.send()
    assert post.tool.project.queues == {"look": ["1", "2"]}


def test_what_belongs_to_one_list_goes_to_the_tool_at_once(post: Post) -> None:
    for n in range(20):
        post.happens({"do": "queue", "queue": "look"}, subject=f"task:{n}", id=f"evt_{n}", task=str(n))
    post.happens({"do": "queue", "queue": "other"}, subject="task:20", id="evt_20", task="20")
    assert {state for state, _, _ in post.send()} == {DONE}
    assert post.tool.project.queues == {"look": [str(n) for n in range(20)], "other": ["20"]}
    assert post.tool.faults.calls["review_queue"] == 2


def test_a_list_that_the_tool_refuses_is_given_up_as_a_whole(post: Post) -> None:
    post.tool.faults.fail("review_queue", 1, BadRecord("no such list"))
    for n in range(3):
        post.happens({"do": "queue", "queue": "look"}, subject=f"task:{n}", id=f"evt_{n}", task=str(n))
    assert post.send() == [(DEAD, 1, "no such list")] * 3


@pytest.mark.parametrize("action", [{"do": "queue", "queue": "look"}, {"do": "one-more", "limit": 3}])
def test_a_tool_that_is_away_is_asked_once_and_then_left_alone(post: Post, action: dict[str, Any]) -> None:
    post.tool.faults.fail("review_queue", 1)
    post.tool.faults.fail("read_task", 1)
    for n in range(20):
        post.happens(action, subject=f"task:{n}", id=f"evt_{n}", annotators=2)
    assert {state for state, _, _ in post.send()} == {WAITING}
    assert sum(post.tool.faults.calls.values()) == 1


def test_a_receiver_that_asks_for_patience_is_left_alone(post: Post) -> None:
    with receiver(429, retry_after=60) as hook:
        for n in range(3):
            post.happens({"do": "call", "url": hook.url}, subject=f"task:{n}", id=f"evt_{n}")
        states = post.send()
    assert [attempts for _, attempts, _ in states] == [1, 0, 0]
    assert len(hook.bodies) == 1


def test_the_next_delivery_is_found_by_an_index(post: Post) -> None:
    """However many wait: of 20,000 one is found in 25 ms without it, and in a fortieth of one with it."""
    with post.log.file.read() as db:
        asked: list[str] = []
        db.set_trace_callback(asked.append)
        post.log.due()
        db.set_trace_callback(None)
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {asked[-1]}")]
    assert plan[0].startswith("SEARCH d USING INDEX delivery_due (source=? AND state=? AND due<?)")
    assert not [step for step in plan if "TEMP B-TREE" in step]


def test_a_fault_of_ours_is_listed_and_keeps_nobody_waiting(post: Post) -> None:
    post.happens({"do": "one-more", "limit": 3}, annotators="many")
    post.happens({"do": "queue", "queue": "look"}, subject="task:2", id="evt_2")
    (first, _, error), (second, _, _) = post.send()
    assert (first, second, error) == (DEAD, DONE, "internal error: ValueError")
