"""init, doctor, status: before the line runs, and where it stands."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from connector.commands.session import Command, Session, pass_session
from connector.errors import AuthError, ConnectorError, UsageError

if TYPE_CHECKING:
    from connector.items import Source

MANY_FILES = 100
"""So many small files of the store are worth a hint."""


@click.command(cls=Command)
@click.option("--url", default="http://localhost:8080", help="Where Label Studio answers.")
@click.option("--project", default=1, type=click.IntRange(1), help="The project's number.")
@click.option("--raw", default="raw", help="Where the raw data lies: s3://bucket/prefix, or a folder.")
@click.option("--field", default="image", help="The field of a task's data that shows the object.")
@click.option("--overlap", default=3, type=click.IntRange(1), help="How many people label each task.")
@click.option("--store", default="labels", help="The label store: a folder, or s3://bucket/prefix.")
@click.option(
    "--reviewer", "reviewers", multiple=True, help="The e-mail address of a reviewer; may be repeated."
)
@click.option("--force", is_flag=True, help="Replace a configuration that is there.")
@pass_session
def init(
    session: Session,
    url: str,
    project: int,
    raw: str,
    field: str,
    overlap: int,
    store: str,
    reviewers: tuple[str, ...],
    force: bool,
) -> None:
    """Write a configuration, connector.toml.

    It never holds secrets: the tool's token is read from LABEL_STUDIO_API_KEY or the keyring.

    \b
    Example:
        connector init --url http://localhost:8080 --project 1 --raw s3://pictures/raw
    """
    from connector.config import FILE, TEMPLATE, parse
    from connector.files import write_atomic

    path = session.config_path or Path(FILE)
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", "edit it, or say --force to replace it")
    # JSON's strings are TOML's.
    quoted = partial(json.dumps, ensure_ascii=False)
    roles = "\n".join(f'{quoted(name)} = "reviewer"' for name in dict.fromkeys(reviewers))
    text = TEMPLATE.format(
        url=quoted(url),
        project=project,
        raw=quoted(raw),
        field=quoted(field),
        overlap=overlap,
        store=quoted(store),
        roles=roles or '# "expert@example.com" = "reviewer"',
    )
    parse(text, path)  # what cannot be read back is not written
    write_atomic(path, text.encode())
    session.say(f"wrote {path}\nnext: set LABEL_STUDIO_API_KEY, then run `connector doctor`")
    session.answer({"config": str(path), "source": session.source()})


@click.command(cls=Command)
@pass_session
def doctor(session: Session) -> int:
    """Check every connection, and say how to mend it.

    \b
    Example:
        connector doctor
    """
    checks = list(_checks(session))
    for check in checks:
        session.say(f"{'ok   ' if check['ok'] else 'WRONG'}  {check['name']}: {check['found']}")
        if check["next"]:
            session.say(f"         next: {check['next']}")
    session.answer({"ok": all(c["ok"] for c in checks), "checks": checks, "source": session.source()})
    return max((int(str(c["exit"])) for c in checks), default=0)


def _checks(session: Session) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []

    def note(name: str, what: str, error: ConnectorError | None = None) -> None:
        found.append(
            {
                "name": name,
                "ok": error is None,
                "found": error.what if error else what,
                "next": (error.hint or None) if error else None,
                "exit": error.exit_code if error else 0,
            }
        )

    def look(name: str, ask: object) -> None:
        try:
            note(name, str(ask() if callable(ask) else ask))
        except ConnectorError as error:
            note(name, "", error)

    look("configuration", lambda: f"{session.config.folder}/connector.toml")
    if not found[-1]["ok"]:
        return found
    look("bucket can be read", lambda: _first_object(session))
    look("label store", lambda: _store_version(session))
    try:
        for check in session.line.tool().check(session.line.bucket()):
            wrong = AuthError if "token" in check.name else UsageError
            note(check.name, check.found, None if check.ok else wrong(check.found, check.next_step))
    except ConnectorError as error:
        note("labeling tool", "", error)
    if all(check["ok"] for check in found):
        look("an object is shown through the tool", lambda: _shown(session))
    return found


def _shown(session: Session) -> str:
    from connector.model import Item

    tool, raw = session.line.tool(), session.line.raw()
    if not tool.capabilities.connect_bucket or session.config.raw.content != "url":
        return "not checked: the tool does not show objects of the bucket"
    if not session.line.store().cursor():
        return "not checked yet: the first `connector push` connects the bucket and checks one"
    first = next(raw.list(unusable=[]))
    tool.fetch(tool.data_for(Item(key=first.key), session.config.raw.field, first.key))
    return first.key


def _first_object(session: Session) -> str:
    raw = session.line.raw()
    first = next(raw.list(unusable=[]), None)
    if first is None:
        raise UsageError(f"{raw.url} is empty", "put raw data there, or mend raw.url in connector.toml")
    return f"{raw.url}, such as {first.path}"


def _store_version(session: Session) -> str:
    store = session.line.store()
    version = store.version
    return f"{store.url}, " + ("empty so far" if version is None else f"version {version}")


@click.command(cls=Command)
@click.option("--no-bucket", is_flag=True, help="Do not count the objects of the bucket.")
@pass_session
def status(session: Session, no_bucket: bool) -> None:
    """Show where the line stands.

    How much there is in bucket, tool and store, how long ago the store was known to be what the tool holds,
    who is writing to it, and what went wrong last.

    \b
    Example:
        connector status
        connector status --no-bucket --json
    """
    from connector.sync import standing

    line, now = session.line, datetime.now(UTC)
    store = line.store()
    found = standing(line.tool(), store)
    with closing(line.ledger()) as ledger:
        rounds = ledger.rounds()
        found["on_their_way"] = sum(len(keys) for _, keys, _ in ledger.begun())
    found["last_errors"] = [asdict(one) for one in rounds if one.error]
    seen = max(filter(None, [found["last_pull"], *(r.at for r in rounds if not r.error)]), default=None)
    found["lag_seconds"] = (now - seen).total_seconds() if seen else None
    holder = store.holder()
    found["writing"] = str(holder) if holder else None
    found["small_files"] = store.compact(now, dry_run=True).files
    if not no_bucket:
        with session.progress("bucket") as progress:
            found["items_in_bucket"] = _counted(line.items([]), progress)
    counts = [found.get("items_in_bucket"), found["tasks_in_tool"], found["tasks_in_store"]]
    found["agree"] = len({count for count in counts if count is not None}) == 1
    rows = [(name.replace("_", " "), value) for name, value in found.items() if name != "last_errors"]
    session.table("Where the line stands", ("", ""), rows)
    if found["small_files"] >= MANY_FILES:
        session.note("the store has many small files: `connector store compact` makes reading faster")
    for trouble in found["last_errors"]:
        session.say(f"{trouble['at']:%Y-%m-%d %H:%M:%S} UTC: {trouble['error']}")
    session.answer({**found, "source": session.source(store=store.url, version=found["version"])})


def _counted(source: Source, progress: Callable[[int], None]) -> int:
    count = 0
    for _ in source:
        count += 1
        progress(1)
    return count
