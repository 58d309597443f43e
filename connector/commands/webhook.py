"""webhook add, list, remove, test: what the labeling tool sends to the receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from connector.commands.session import Group, Session, pass_session
from connector.errors import EXIT_GATE, Temporary, UsageError

if TYPE_CHECKING:
    from connector.adapters.base import LabelingTool, Webhook

INSIDE = (
    "{url} is an address inside a network, which Label Studio refuses by default: start it with "
    "SSRF_PROTECTION_ENABLED=false, or name the network in USER_ADDITIONAL_BANNED_SUBNETS with "
    "USE_DEFAULT_BANNED_SUBNETS=false"
)


@click.group(cls=Group)
def webhook() -> None:
    """Let the labeling tool tell the receiver what happens."""


url_option = click.option(
    "--url", help="Of the receiver, as the tool reaches it; by default serve.url of the configuration."
)


@webhook.command("add")
@url_option
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@pass_session
def add_command(session: Session, url: str | None, dry_run: bool) -> int | None:
    """Register the receiver at the tool, and prove that events arrive.

    The tool shows the secret in LABELING_WEBHOOK_SECRET with every event. The same address twice is one
    registration. With `connector serve` running on this machine, an event is sent all the way; the exit code
    is 3 if it does not arrive. Pulls by the clock go on in any case.

    \b
    Example:
        export LABELING_WEBHOOK_SECRET="$(openssl rand -hex 32)"
        connector serve &
        connector webhook add --url https://connector.example.com
    """
    from connector.config import knock_secret
    from connector.serve.receiver import inside, register

    address, notes = _address(session, url), list[str]()
    if inside(address):
        notes.append(INSIDE.format(url=address))
        session.note(notes[-1])
    tool = session.project.tool(dry_run)
    made = register(tool, address, knock_secret())
    session.say(f"{made.url} {'would be' if dry_run else 'is'} registered")
    arrived = None if dry_run else _prove(session, tool, address, notes)
    session.answer(
        {
            "webhook": _as_json(made),
            "arrived": arrived,
            "notes": notes,
            "dry_run": dry_run,
            "source": session.source(),
        }
    )
    return EXIT_GATE if arrived is False else None


@webhook.command("test")
@url_option
@pass_session
def test_command(session: Session, url: str | None) -> int | None:
    """Let the tool send an event, and see whether it reaches the receiver.

    Nothing is changed. Run it on the machine where `connector serve` runs, which is asked on serve.host and
    serve.port whether the event arrived. The exit code is 3 if it did not.

    \b
    Example:
        connector webhook test
    """
    notes: list[str] = []
    arrived = _prove(session, session.project.tool(), _address(session, url), notes)
    session.answer({"arrived": arrived, "notes": notes, "source": session.source()})
    return None if arrived else EXIT_GATE


@webhook.command("list")
@pass_session
def list_command(session: Session) -> None:
    """Show what is registered at the tool.

    \b
    Example:
        connector webhook list
    """
    found = session.project.tool().webhooks()
    rows = [(hook.id, hook.url, "yes" if hook.active else "no", len(hook.actions)) for hook in found]
    empty = "No webhook is registered; `connector webhook add` registers one."
    session.table("Webhooks", ("id", "address", "active", "actions"), rows, empty)
    silent = [hook.url for hook in found if not hook.active or not hook.actions]
    for address in silent:
        session.note(f"{address} is sent nothing; run `connector webhook add` to register it again")
    session.answer({"webhooks": [_as_json(hook) for hook in found], "source": session.source()})


@webhook.command("remove")
@click.argument("which")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@pass_session
def remove_command(session: Session, which: str, dry_run: bool) -> None:
    """Take a registration away: WHICH is its id or its address.

    \b
    Example:
        connector webhook remove 7
    """
    tool = session.project.tool(dry_run)
    found = [hook for hook in tool.webhooks() if which in (hook.id, hook.url)]
    if not found:
        raise UsageError(f"no webhook has the id or address {which}", "see `connector webhook list`")
    for hook in found:
        tool.remove_webhook(hook.id)
        session.say(f"{hook.url} {'would be' if dry_run else 'is'} removed")
    session.answer(
        {"removed": [_as_json(hook) for hook in found], "dry_run": dry_run, "source": session.source()}
    )


def _address(session: Session, url: str | None) -> str:
    from connector.serve.receiver import local_url

    settings = session.config.serve
    return url or settings.url or local_url(settings)


def _prove(session: Session, tool: LabelingTool, address: str, notes: list[str]) -> bool | None:
    """Whether an event arrived; None if there is no receiver to ask."""
    from connector.serve.receiver import local_url, proven

    try:
        arrived = proven(tool, local_url(session.config.serve))
    except Temporary as error:
        notes.append(error.what)
        session.note(f"not proven: {error}")
        return None
    if arrived:
        session.say("a test event arrived")
    else:
        notes.append("a test event did not arrive")
        session.note(
            f"a test event did not arrive at {address}\n  next: look whether the tool's machine reaches it, "
            "and whether both have the same LABELING_WEBHOOK_SECRET"
        )
    return arrived


def _as_json(hook: Webhook) -> dict[str, Any]:
    return {"id": hook.id, "url": hook.url, "active": hook.active, "actions": list(hook.actions)}
