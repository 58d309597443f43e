"""Deliveries: what a rule does about an event, in the tool, in the bucket or at somebody else's address.

Calls follow the Standard Webhooks convention (https://www.standardwebhooks.com): the event's id, the time and
an HMAC of both and the body stand in headers. A delivery may come twice, with the same id; it never overtakes
an earlier one of the same rule about the same subject.
"""

from __future__ import annotations

import base64
import binascii
import errno
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from queue import Empty, SimpleQueue
from string import Formatter
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter
from standardwebhooks.webhooks import Webhook

from connector.adapters.base import LabelingTool
from connector.config import (
    LEAST_SECRET_BYTES,
    SIGNING_SECRET,
    Action,
    Call,
    Export,
    OneMore,
    Queue,
    Run,
    Slack,
    needed_secret,
    refuse_short,
)
from connector.errors import Conflict, ConnectorError, Temporary, UsageError
from connector.events.callbacks import Receivers, Unreachable, post
from connector.events.detect import tasks_of
from connector.events.log import Delivery, Event, EventLog
from connector.io.retry import REDELIVERED_AFTER, redelivery
from connector.model import Annotation, Task, dump_json

_ACTION: TypeAdapter[Action] = TypeAdapter(Action)


class _Stopped(Temporary):
    """It was ended because the connector stops."""


_Tried = tuple[Sequence[Delivery], Exception | None]
"""Deliveries that were tried together, and what went wrong."""

WORKERS = 32
"""Deliveries at once, each to another target. They only wait, mostly."""

LOOK_EVERY_SECONDS = 0.05
"""How often it is checked whether a command has ended."""

DUE_EVERY_SECONDS = 0.5
"""How often it is checked what has become due while other deliveries are in flight."""

ABANDONED_AFTER_SECONDS = 3.0
"""How long a stop waits for deliveries in flight. The others are repeated after the next start."""


class Sender:
    """Carries out deliveries: many at once, and to the same target one by one.

    So a receiver that does not answer delays only what goes to itself. Where many do not answer, at most half
    of the workers wait for those that did not the last time.

    Args:
        log: where they wait. Only the thread that calls `send_due` writes their outcomes there.
        tool: the labeling tool.
        export: writes the labels into a file of that name.
        receivers: those that may be called; by default the public ones.
    """

    def __init__(
        self,
        log: EventLog,
        tool: LabelingTool,
        export: Callable[[str], object],
        receivers: Receivers | None = None,
    ) -> None:
        self._log, self._tool, self._export = log, tool, export
        self._receivers = receivers or Receivers()
        self._busy, self._unresponsive = set[str](), set[str]()
        self._tried = SimpleQueue[_Tried]()
        self._unwritten: _Tried | None = None

    def send_due(self, stop: threading.Event, sent: Callable[[], object] = lambda: None) -> int:
        """Try every delivery whose time has come; returns how many went well.

        Args:
            stop: ends it early. What is in flight then is abandoned after some seconds, and stays due.
            sent: called when something went well.

        Raises:
            ConnectorError: if the log cannot be read or written. The next call goes on from there: no
                delivery is repeated because its outcome could not be written.
        """
        count, wait = 0, 0.0
        until: float | None = None
        while True:
            if went_well := self._note_tried(wait):
                count += went_well
                sent()
            if not stop.is_set():
                self._start_due(stop)
            elif until is None:
                until = time.monotonic() + ABANDONED_AFTER_SECONDS
            if not self._busy or (until is not None and time.monotonic() > until):
                return count
            wait = DUE_EVERY_SECONDS

    def _start_due(self, stop: threading.Event) -> None:
        while len(self._busy) < WORKERS and (first := self._log.due(self._not_now())):
            # A list goes to the tool as a whole: what belongs to it goes there together.
            due = self._log.due_with(first) if first.action["do"] == "queue" else [first]
            self._busy.add(first.target)
            # Not of a pool, which would wait for the last one when the process ends.
            threading.Thread(target=self._try, args=(due, stop), name=first.target, daemon=True).start()

    def _not_now(self) -> set[str]:
        many = len(self._busy & self._unresponsive) >= WORKERS // 2
        return self._busy | self._unresponsive if many else self._busy

    def _try(self, due: Sequence[Delivery], stop: threading.Event) -> None:
        error: Exception | None = None
        try:
            self.carry_out(due, stop)
        except Exception as failure:
            error = failure
        self._tried.put((due, error))

    def _note_tried(self, seconds: float) -> int:
        """Write down the next outcome, waiting for it so many seconds; returns how many went well."""
        if self._unwritten is None:
            try:
                self._unwritten = self._tried.get(timeout=seconds)
            except Empty:
                return 0
        due, error = self._unwritten
        self._note(due, error)
        self._unwritten = None
        self._busy.discard(due[0].target)
        return 0 if error else len(due)

    def _note(self, due: Sequence[Delivery], error: Exception | None) -> None:
        first = due[0]
        if isinstance(error, Unreachable):
            self._unresponsive.add(first.target)
        else:
            self._unresponsive.discard(first.target)
        if isinstance(error, _Stopped):
            return  # it stays due
        if error is None:
            self._log.delivered(due)
        elif isinstance(error, Temporary):
            tried = [(one, redelivery(one.attempts, error.retry_after)) for one in due]
            self._log.not_delivered(tried, error.what)
            whole_target = isinstance(error, Unreachable) or first.action["do"] in ("queue", "one-more")
            asked = min(error.retry_after or 0.0, REDELIVERED_AFTER[-1])
            if pause := max(asked, REDELIVERED_AFTER[0] if whole_target else 0.0):
                self._log.put_off(first, pause, whole_target)
        elif isinstance(error, ConnectorError):
            self._log.not_delivered([(one, None) for one in due], error.what)
        else:
            # One delivery that we did not foresee must not keep the others waiting; it is listed.
            what = f"internal error: {type(error).__name__}"
            self._log.not_delivered([(one, None) for one in due], what)

    def carry_out(self, deliveries: Sequence[Delivery], stop: threading.Event) -> None:
        """Do them, once.

        Args:
            deliveries: one, or several that put tasks into the same list.
            stop: ends a command early.

        Raises:
            Temporary: if another try may help.
            ConnectorError: if none will.
        """
        event, then = deliveries[0].event, _ACTION.validate_python(deliveries[0].action)
        if isinstance(then, OneMore):
            self._one_more(event, then)
        elif isinstance(then, Queue):
            self._queue(then.queue, [task for one in deliveries for task in tasks_of(one.event)])
        elif isinstance(then, Export):
            self._export(then.to.replace("{batch}", in_a_name(str(event.data.get("batch", "")))))
        elif isinstance(then, Call):
            call(then.url, event, self._receivers)
        elif isinstance(then, Slack):
            send_to_slack(then, event, self._receivers)
        else:
            run(then, event, stop)

    def _one_more(self, event: Event, then: OneMore) -> None:
        counted = int(event.data.get("answered", event.data["annotators"]))
        try:
            self._ask_another(self._tool.read_task(event.data["task"]), counted, then)
        except Conflict:
            return  # a task that is gone needs no more answers

    def _ask_another(self, task: Task, counted: int, then: OneMore) -> None:
        # More may have answered since the event counted. A ground truth of our own is left to the event: it
        # may be a plan's, which is nobody's answer, and only the store tells.
        now = {one.annotator for one in task.annotations if not (one.cancelled or self._may_be_planned(one))}
        answered = max(counted, len(now))
        if answered >= then.limit:
            self._queue(then.queue, [task.id])
        elif task.overlap <= answered:
            self._tool.set_task_overlap(task.id, answered + 1)

    def _may_be_planned(self, annotation: Annotation) -> bool:
        return annotation.ground_truth and annotation.annotator == self._me

    @cached_property
    def _me(self) -> str:
        return self._tool.whoami().name

    def _queue(self, queue: str, tasks: Sequence[str]) -> None:
        if tasks:
            self._tool.review_queue(queue, self._log.listed(queue, tasks))


LONGEST_PART = 48
"""So many characters of a batch's name stand in the name of a file. A character is up to four bytes, and
systems allow 255 in all."""


def in_a_name(batch: str) -> str:
    """A batch's name as a part of a file's name: without separators, and different for different batches.

    Others name batches. Where the name is changed, a part of its digest follows; also where it already ends
    like one with a digest.
    """
    name = re.sub(r"[^\w-]+", "-", batch)[:LONGEST_PART]
    if name == batch and not re.search(r"-[0-9a-f]{12}$", name):
        return name
    return f"{name}-{sha256(batch.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def signer(secret: str) -> Webhook:
    """What signs with a secret.

    Raises:
        UsageError: if it is not a secret of the convention, or shorter than its least length.
    """
    text = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    command = f'echo "whsec_$(openssl rand -base64 {LEAST_SECRET_BYTES + 8})"'
    refuse_short(SIGNING_SECRET, key, "whsec_ and the base64 of ", command)
    return Webhook(key)


def call(url: str, event: Event, receivers: Receivers) -> None:
    """Send an event to an address, signed.

    Raises:
        ConnectorError: as of `callbacks.post`.
    """
    now, body = datetime.now(UTC), dump_json(event.to_json())
    signature = signer(needed_secret(SIGNING_SECRET, "to sign with")).sign(event.id, now, body)
    headers = {
        "webhook-id": event.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    post(url, body, headers, host_of(url), receivers)


def host_of(url: str) -> str:
    """By which name a receiver is called in errors."""
    try:
        return urlsplit(url).hostname or "the receiver"
    except ValueError:
        return "the receiver"


def send_to_slack(then: Slack, event: Event, receivers: Receivers) -> None:
    """Send a line of text to Slack, or to what takes the same.

    Raises:
        UsageError: if the text names what the event does not have.
        ConnectorError: as of `callbacks.post`.
    """
    names = {**event.data, "type": event.type, "subject": event.subject}
    try:
        text = _SlackText().vformat(then.text, (), names)
    except (LookupError, ValueError, AttributeError) as error:
        raise UsageError(
            f"the text {then.text!r} cannot be filled: {error!r}", f"it may name {', '.join(sorted(names))}"
        ) from error
    url = needed_secret(then.url_from, "for Slack: the address of its webhook")
    post(url, dump_json({"text": text}), {}, "Slack", receivers)


class _SlackText(Formatter):
    """Fills a text. What is filled in, from whatever depth, is escaped: Slack takes `<!channel>` for a
    mention of everyone, and `<https://…|text>` for a link."""

    def format_field(self, value: Any, format_spec: str) -> str:
        shown = str(super().format_field(value, format_spec))
        return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


ENVIRONMENT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
"""What a command gets of our environment, besides the variables that its rule names: no secret of ours."""

STOP_SECONDS = 2.0
"""How long the processes of a command have from SIGTERM to SIGKILL."""


_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)


def run(then: Run, event: Event, stop: threading.Event) -> None:
    """Run a command with the event on its standard input. What it writes goes where our own output goes.

    All its processes end with it: they are a process group, which gets SIGTERM, and SIGKILL after that.

    Args:
        stop: ends the command early.

    Raises:
        Temporary: if it ends with another exit code than 0, takes too long, is stopped, or cannot start.
        UsageError: if there is no such command.
    """
    passed_on = {name: os.environ[name] for name in (*ENVIRONMENT, *then.environment) if name in os.environ}
    name, until = then.command[0], time.monotonic() + then.seconds
    try:
        given = TemporaryFile()  # noqa: SIM115 - closed below; a pipe would have to be written meanwhile
        given.write(json.dumps(event.to_json()).encode())
        given.seek(0)
    except OSError as error:
        raise Temporary(f"{name} cannot be given the event now: {error.strerror}") from error
    with given:
        try:
            process = subprocess.Popen(then.command, stdin=given, env=passed_on, start_new_session=True)
        except OSError as error:
            if error.errno in _EXHAUSTED:
                raise Temporary(f"{name} cannot be run now: {error.strerror}") from error
            raise UsageError(f"{name} cannot be run: {error}", "fix the rule's command") from error
    try:
        while process.poll() is None:
            if time.monotonic() > until:
                raise Unreachable(f"{name} took more than {then.seconds:g} s")
            if stop.wait(LOOK_EVERY_SECONDS):
                raise _Stopped(f"{name} was stopped")
    finally:
        _end(process)
    if process.returncode:
        raise Temporary(f"{name} ended with exit code {process.returncode}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End all processes of a group, whether or not its first one has ended."""
    until = time.monotonic() + STOP_SECONDS
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < until:
            process.poll()  # of a process that has ended and was not waited for, the group still exists
            time.sleep(LOOK_EVERY_SECONDS)
            os.killpg(process.pid, 0)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
