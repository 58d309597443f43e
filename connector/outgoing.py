"""Deliveries: what a rule does about an event, in the tool, in the bucket or at somebody else's address.

Calls follow the Standard Webhooks convention (https://www.standardwebhooks.com): the event's id, the time and
an HMAC of both and the body stand in headers. A delivery may come twice, with the same id; it never overtakes
an earlier one of the same rule about the same subject.
"""

from __future__ import annotations

import binascii
import json
import re
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import requests
from pydantic import TypeAdapter
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

from connector.adapters.base import LabelingTool
from connector.config import SIGNING_SECRET, Action, Call, Export, OneMore, Queue, Run, Slack, needed_secret
from connector.errors import BadRecord, Conflict, ConnectorError, Temporary, UsageError
from connector.eventlog import Delivery, Event, EventLog
from connector.events import tasks_of
from connector.model import Annotation, Task, dump_json
from connector.retry import CONNECT_SECONDS, REDELIVERED_AFTER, redelivery

ANSWER_SECONDS = 10.0
"""How long a receiver may take. Whoever needs longer answers first and works afterwards."""

GONE = 410
"""By this status a receiver says that it wants no more."""

_ACTION: TypeAdapter[Action] = TypeAdapter(Action)


class _Silent(Temporary):
    """No answer came. Whatever else waits for the same one would take as long, while others wait."""


class Sender:
    """Carries out deliveries.

    Args:
        log: where they wait.
        tool: the labeling tool.
        export: writes the labels into a file of that name.
    """

    def __init__(self, log: EventLog, tool: LabelingTool, export: Callable[[str], object]) -> None:
        self._log, self._tool, self._export = log, tool, export

    def send_due(self, stop: threading.Event) -> int:
        """Try every delivery whose time has come; returns how many went well."""
        sent = 0
        while not stop.is_set() and (first := self._log.due()):
            # A list goes to the tool as a whole: what belongs to it goes there together.
            due = self._log.due_with(first) if first.action["do"] == "queue" else [first]
            try:
                self.carry_out(due)
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

    def carry_out(self, deliveries: Sequence[Delivery]) -> None:
        """Do them, once.

        Args:
            deliveries: one, or several that put tasks into the same list.

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
            batch = re.sub(r"[^\w-]+", "-", str(event.data.get("batch", "")))  # somebody else named it
            self._export(then.to.replace("{batch}", batch))
        elif isinstance(then, Call):
            call(then.url, event)
        elif isinstance(then, Slack):
            tell_slack(then, event)
        else:
            run(then, event)

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


def _pause(delivery: Delivery, error: Temporary) -> float:
    """For how many seconds nothing else with the same action is tried; 0 where it may well succeed."""
    away = isinstance(error, _Silent) or delivery.action["do"] in ("queue", "one-more")
    asked = min(error.retry_after or 0.0, REDELIVERED_AFTER[-1])
    return max(asked, REDELIVERED_AFTER[0]) if away else asked


def signer(secret: str) -> Webhook:
    """What signs with a secret.

    Raises:
        UsageError: if it is none of the convention.
    """
    try:
        return Webhook(secret)
    except (binascii.Error, ValueError, EmptyWebhookSecretError) as error:
        raise UsageError(
            f"{SIGNING_SECRET} is no secret of the Standard Webhooks convention",
            "let it be whsec_ and the base64 of 24 to 64 random bytes",
        ) from error


def call(url: str, event: Event) -> None:
    """Send an event to an address, signed.

    Raises:
        Temporary: if it did not arrive.
    """
    now, body = datetime.now(UTC), dump_json(event.to_json())
    signature = signer(needed_secret(SIGNING_SECRET, "to sign with")).sign(event.id, now, body)
    headers = {
        "webhook-id": event.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    post(url, body, headers, urlsplit(url).hostname or "the receiver")


def tell_slack(then: Slack, event: Event) -> None:
    """Send a line of text to Slack, or to what takes the same.

    Raises:
        Temporary: if it did not arrive.
        UsageError: if the text names what the event does not have.
    """
    names = {"type": event.type, "subject": event.subject, **event.data}
    escaped = {name: _escaped(value) for name, value in names.items()}
    try:
        text = then.text.format_map(escaped)
    except (LookupError, ValueError, AttributeError) as error:
        raise UsageError(
            f"the text {then.text!r} cannot be filled: {error!r}", f"it may name {', '.join(sorted(names))}"
        ) from error
    url = needed_secret(then.url_from, "for Slack: the address of its webhook")
    post(url, dump_json({"text": text}), {}, "Slack")


def _escaped(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def post(url: str, body: str, headers: Mapping[str, str], receiver: str) -> None:
    """Send JSON; what is no success is a failure.

    Args:
        receiver: its name in errors. An address may hold a secret.

    Raises:
        Temporary: if another try may help.
        BadRecord: if the receiver wants no more of it.
    """
    try:
        answer = requests.post(
            url,
            data=body.encode(),
            headers={"Content-Type": "application/json", **headers},
            timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
            # Whoever answers with a redirection could send us to an address inside our network.
            allow_redirects=False,
        )
    except requests.RequestException as error:
        raise _Silent(f"{receiver} cannot be reached: {type(error).__name__}") from None
    if answer.status_code == GONE:
        raise BadRecord(f"{receiver} wants no more: it answered {GONE}")
    if not answer.ok or answer.is_redirect:
        raise Temporary(
            f"{receiver} answered {answer.status_code}",
            retry_after=_seconds(answer.headers.get("Retry-After")),
        )


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after and retry_after.isdecimal() else None


def run(then: Run, event: Event) -> None:
    """Run a command with the event on its standard input. What it says goes where our own output goes.

    Raises:
        Temporary: if it ends with another exit code than 0, or takes too long.
        UsageError: if there is no such command.
    """
    try:
        done = subprocess.run(
            then.command, input=json.dumps(event.to_json()).encode(), timeout=then.seconds, check=False
        )
    except OSError as error:
        raise UsageError(f"{then.command[0]} cannot be run: {error}", "mend the rule's command") from error
    except subprocess.TimeoutExpired as error:
        raise _Silent(f"{then.command[0]} took more than {then.seconds:g} s") from error
    if done.returncode:
        raise Temporary(f"{then.command[0]} ended with exit code {done.returncode}")
