"""Rules: what is to be done when something happens. They stand in `connector.toml`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any

from connector.adapters.base import Capabilities
from connector.config import (
    SIGNING_SECRET,
    Call,
    Config,
    Export,
    OneMore,
    Queue,
    Rule,
    Run,
    Slack,
    needed_secret,
)
from connector.errors import Unsupported, UsageError
from connector.events.callbacks import Receivers
from connector.events.deliver import signer
from connector.events.detect import NAMES, find
from connector.events.log import Delivery, Event, EventLog, Planned
from connector.formats.export import FORMS
from connector.store.label_store import Store

OF_TASKS = ("task.", "consensus.", "prediction.")
"""The events that are about one task."""


def planned_by(rules: Sequence[Rule], log: EventLog) -> Planned:
    """What these rules make of an event."""

    def planned(event: Event) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for rule in rules:
            if rule.when == event.type and (rule.after is None or log.events(rule.after, event.subject, 1)):
                yield rule.name, rule.then.model_dump()

    return planned


def check(rules: Sequence[Rule], capabilities: Capabilities, receivers: Receivers | None = None) -> None:
    """That every rule can be carried out.

    Args:
        receivers: those that may be called; by default the public ones.

    Raises:
        UsageError: naming the rule that makes no sense, or that the tool cannot follow.
        AuthError: if a secret is missing that a rule needs.
    """
    for rule in rules:
        _check(rule, capabilities, receivers or Receivers())


def _check(rule: Rule, capabilities: Capabilities, receivers: Receivers) -> None:
    then, where = rule.then, f"the rule {rule.name!r}"
    if rule.after and not (rule.when.startswith(OF_TASKS) and rule.after.startswith(OF_TASKS)):
        raise UsageError(f"{where}: `after` is of events of tasks", "leave it out, or name two such events")
    if isinstance(then, OneMore):
        if not rule.when.startswith("consensus."):
            raise UsageError(
                f"{where} asks for one more annotator when {rule.when}", "let it be of consensus.failed"
            )
        if not capabilities.task_overlap:
            raise Unsupported(
                f"{where}: {capabilities.name} cannot show one task to more people", "use a queue instead"
            )
    if isinstance(then, Queue | OneMore) and not capabilities.review_queue:
        raise Unsupported(f"{where}: {capabilities.name} has no lists of tasks", "send a message instead")
    if isinstance(then, Queue) and rule.when.startswith("ask."):
        raise UsageError(f"{where}: what is asked stands in a list already", "leave the rule out")
    if isinstance(then, Call):
        signer(needed_secret(SIGNING_SECRET, f"to sign with what {where} sends"))
        receivers.check(then.url, where)
    if isinstance(then, Slack):
        url = needed_secret(then.url_from, f"for {where}, which is the address of the Slack webhook")
        receivers.check(url, where)
        _check_names(then.text, ("type", "subject", *NAMES[rule.when]), rule)
    if isinstance(then, Export):
        _check_names(then.to, ("batch",) if "batch" in NAMES[rule.when] else (), rule)
        if (suffix := PurePosixPath(then.to).suffix) not in FORMS:
            raise UsageError(
                f'{where}: unsupported file type "{suffix}" of {then.to}', f"use {', '.join(FORMS)}"
            )
    if isinstance(then, Run) and shutil.which(then.command[0]) is None:
        raise UsageError(
            f"{where}: there is no command {then.command[0]}", "install it, or give its whole path"
        )


def _check_names(text: str, known: Sequence[str], rule: Rule) -> None:
    """That what stands in braces is told by every event of the rule."""
    where = f"the rule {rule.name!r}"
    try:
        fields = [field for _, field, _, _ in Formatter().parse(text) if field is not None]
    except ValueError as error:
        raise UsageError(f"{where}: {text!r} cannot be filled: {error}", "write {{ for a brace") from error
    # A name may be followed by a part of it, as in {answer[0]}.
    strange = [name for name in (re.split(r"[.\[]", field)[0] for field in fields) if name not in known]
    if strange:
        raise UsageError(
            f"{where}: {text!r} names {{{strange[0]}}}, which {rule.when} does not have",
            f"it may name {', '.join(known) or 'nothing'}",
        )


def rehearse(store: Store, config: Config, source: str) -> list[Delivery]:
    """What the rules would have done about everything that ever happened, in its order. Nothing is done.

    What an action would have changed, such as one more answer, did not happen, so nothing follows from it.
    """
    with closing(EventLog(Path(":memory:"), source)) as log:
        log.keep(find(store, log, config, store.changed(0)[0]), planned_by(config.rules, log))
        return log.deliveries()[::-1]
