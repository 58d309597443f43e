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
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
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
from connector.model import dump_json
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
        while not stop.is_set() and (delivery := self._log.due()):
            try:
                self.carry_out(delivery)
            except Temporary as error:
                again = redelivery(delivery.attempts, error.retry_after)
                self._log.not_delivered(delivery, error.what, again)
                if isinstance(error, _Silent):
                    self._log.put_off(delivery.action, REDELIVERED_AFTER[0])
            except ConnectorError as error:
                self._log.not_delivered(delivery, error.what, None)
            except Exception as error:
                # One delivery that we did not foresee must not keep the others waiting; it is listed.
                self._log.not_delivered(delivery, f"a fault of ours: {type(error).__name__}", None)
            else:
                self._log.delivered(delivery)
                sent += 1
        return sent

    def carry_out(self, delivery: Delivery) -> None:
        """Do it, once.

        Raises:
            Temporary: if another try may help.
            ConnectorError: if none will.
        """
        event, then = delivery.event, _ACTION.validate_python(delivery.action)
        if isinstance(then, OneMore):
            self._one_more(event, then)
        elif isinstance(then, Queue):
            self._queue(then.queue, tasks_of(event))
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
        task, answered = event.data["task"], int(event.data["annotators"])
        if answered >= then.limit:
            self._queue(then.queue, [task])
            return
        try:
            if self._tool.read_task(task).overlap <= answered:
                self._tool.set_task_overlap(task, answered + 1)
        except Conflict:
            return  # a task that is gone needs no more answers

    def _queue(self, queue: str, tasks: list[str]) -> None:
        if tasks:
            self._tool.review_queue(queue, self._log.listed(queue, tasks))


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
