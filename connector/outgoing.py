"""Deliveries: what a rule does about an event, in the tool, in the bucket or at somebody else's address.

Calls follow the Standard Webhooks convention (https://www.standardwebhooks.com): the event's id, the time and
an HMAC of both and the body stand in headers. A delivery may come twice, with the same id; it never overtakes
an earlier one of the same rule about the same subject.
"""

from __future__ import annotations

import base64
import binascii
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
from string import Formatter
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter
from standardwebhooks.webhooks import Webhook

from connector.adapters.base import LabelingTool
from connector.callbacks import Receivers, Unreachable, post
from connector.config import SIGNING_SECRET, Action, Call, Export, OneMore, Queue, Run, Slack, needed_secret
from connector.errors import Conflict, ConnectorError, Temporary, UsageError
from connector.eventlog import Delivery, Event, EventLog
from connector.events import tasks_of
from connector.model import Annotation, Task, dump_json
from connector.retry import REDELIVERED_AFTER, redelivery

LEAST_SECRET_BYTES = 24
"""The shortest key of the Standard Webhooks convention."""

_ACTION: TypeAdapter[Action] = TypeAdapter(Action)


class Sender:
    """Carries out deliveries.

    Args:
        log: where they wait.
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

    def send_due(self, stop: threading.Event) -> int:
        """Try every delivery whose time has come; returns how many went well."""
        sent = 0
        while not stop.is_set() and (first := self._log.due()):
            # A list goes to the tool as a whole: what belongs to it goes there together.
            due = self._log.due_with(first) if first.action["do"] == "queue" else [first]
            try:
                self.carry_out(due, stop)
            except Temporary as error:
                tried = [(one, redelivery(one.attempts, error.retry_after)) for one in due]
                self._log.not_delivered(tried, error.what)
                if pause := _pause(first, error):
                    self._log.put_off(first.action, pause)
            except ConnectorError as error:
                self._log.not_delivered([(one, None) for one in due], error.what)
            except Exception as error:
                # One delivery that we did not foresee must not keep the others waiting; it is listed.
                what = f"a fault of ours: {type(error).__name__}"
                self._log.not_delivered([(one, None) for one in due], what)
            else:
                self._log.delivered(due)
                sent += len(due)
        return sent

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


def _pause(delivery: Delivery, error: Temporary) -> float:
    """For how many seconds nothing else with the same action is tried; 0 where it may well succeed."""
    away = isinstance(error, Unreachable) or delivery.action["do"] in ("queue", "one-more")
    asked = min(error.retry_after or 0.0, REDELIVERED_AFTER[-1])
    return max(asked, REDELIVERED_AFTER[0]) if away else asked


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
    if len(key) < LEAST_SECRET_BYTES:
        raise UsageError(
            f"{SIGNING_SECRET} is not whsec_ and the base64 of at least {LEAST_SECRET_BYTES} bytes",
            f'make one: echo "whsec_$(openssl rand -base64 {LEAST_SECRET_BYTES + 8})"',
        )
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

LOOK_EVERY_SECONDS = 0.05


def run(then: Run, event: Event, stop: threading.Event) -> None:
    """Run a command with the event on its standard input. What it writes goes where our own output goes.

    All its processes end with it: they are a process group, which gets SIGTERM, and SIGKILL after that.

    Args:
        stop: ends the command early.

    Raises:
        Temporary: if it ends with another exit code than 0, takes too long, or is stopped.
        UsageError: if there is no such command.
    """
    passed_on = {name: os.environ[name] for name in (*ENVIRONMENT, *then.environment) if name in os.environ}
    name, until = then.command[0], time.monotonic() + then.seconds
    with TemporaryFile() as given:  # a pipe would have to be written while the command runs
        given.write(json.dumps(event.to_json()).encode())
        given.seek(0)
        try:
            process = subprocess.Popen(then.command, stdin=given, env=passed_on, start_new_session=True)
        except OSError as error:
            raise UsageError(f"{name} cannot be run: {error}", "fix the rule's command") from error
    try:
        while process.poll() is None:
            if time.monotonic() > until:
                raise Unreachable(f"{name} took more than {then.seconds:g} s")
            if stop.wait(LOOK_EVERY_SECONDS):
                raise Temporary(f"{name} was stopped")
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
