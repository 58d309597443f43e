"""rules test, log, resend: what is done when something happens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from connector.commands.session import Group, Session, pass_session

if TYPE_CHECKING:
    from connector.events.log import Delivery


@click.group(cls=Group)
def rules() -> None:
    """What is done when something happens, and what became of it."""


@rules.command("test")
@pass_session
def test_command(session: Session) -> None:
    """Say what the rules would have done about all that the store knows. Nothing is done.

    \b
    Example:
        connector pull && connector rules test
    """
    from connector.events.rules import check, rehearse
    from connector.serve.live import receivers

    project = session.project
    check(session.config.rules, project.tool().capabilities, receivers(project))
    store = project.store()
    found = rehearse(store, session.config, project.name)
    _show(session, "What would have been done", found, "No rule would have done anything.")
    session.say(f"{len(found)} deliveries by {len(session.config.rules)} rules; nothing was done")
    source = session.source(store=store.url, version=store.version)
    session.answer({"would": [_as_json(one) for one in found], "source": source})


@rules.command("log")
@click.option("--failed", is_flag=True, help="Only what was given up.")
@click.option(
    "--most", type=click.IntRange(1), default=50, show_default=True, help="So many, the newest first."
)
@pass_session
def log_command(session: Session, failed: bool, most: int) -> None:
    """Show what rules did, what waits, and what was given up.

    \b
    Example:
        connector rules log --failed
    """
    from connector.events.log import DEAD
    from connector.serve.live import event_log

    with closing(event_log(session.project)) as log:
        found = log.deliveries(DEAD if failed else None, most)
    _show(session, "Deliveries", found, "There are no deliveries.")
    session.answer({"deliveries": [_as_json(one) for one in found], "source": session.source()})


@rules.command("resend")
@click.argument("numbers", nargs=-1, type=int)
@pass_session
def resend_command(session: Session, numbers: Sequence[int]) -> None:
    """Try what was given up again: the deliveries of these numbers, or all.

    `connector serve` sends them.

    \b
    Example:
        connector rules log --failed && connector rules resend 17
    """
    from connector.serve.live import event_log

    with closing(event_log(session.project)) as log:
        again = log.resend(numbers or None)
    session.say(f"{again} deliveries are tried again")
    session.answer({"again": again, "source": session.source()})


def _show(session: Session, title: str, found: Sequence[Delivery], empty: str) -> None:
    columns = ("number", "rule", "does", "when", "about", "state", "tries", "error")
    rows = [
        (d.number, d.rule, d.action["do"], d.event.type, d.event.subject, d.state, d.attempts, d.error)
        for d in found
    ]
    session.table(title, columns, rows, empty)


def _as_json(one: Delivery) -> dict[str, Any]:
    return {
        "number": one.number,
        "rule": one.rule,
        "action": dict(one.action),
        "event": one.event.to_json(),
        "state": one.state,
        "attempts": one.attempts,
        "error": one.error,
    }
