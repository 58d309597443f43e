"""init, doctor, status: the configuration, the connections, and the state of the project."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from connector.commands.session import Command, Session, pass_session
from connector.errors import AuthError, ConnectorError, Reject, Unsupported, UsageError

if TYPE_CHECKING:
    from connector.config import Config
    from connector.project import Project
    from connector.sync.ledger import KnownReject, Ledger

MANY_FILES = 100
"""So many small files of the store are worth a hint."""


class _Checked(click.ParamType[str]):
    """A text that a function accepts; the function raises for others."""

    def __init__(self, name: str, check: Callable[[str], object]) -> None:
        self.name = name
        self._check = check

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            self._check(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        except UsageError as error:
            self.fail(f"{error.what}: {error.hint}", param, ctx)
        return value


def _is_address(text: str) -> None:
    from connector.config import web_address

    web_address(text)


def _is_place(text: str) -> None:
    from connector.io.objects import absolute_url

    absolute_url(text)


_QUESTIONS = {
    "url": "Address of Label Studio",
    "project": "Number of the project in it",
    "raw": "Raw data (s3://bucket/prefix, or a folder)",
    "field": "Field of a task's data that shows the object",
    "overlap": "Annotators for each task",
    "store": "Label store (a folder, or s3://bucket/prefix)",
    "reviewers": "E-mail addresses of reviewers, separated by commas",
}
"""What `init` asks on a terminal, by the name of the option that answers it."""


@click.command(cls=Command)
@click.option(
    "--url",
    default="http://localhost:8080",
    show_default=True,
    type=_Checked("url", _is_address),
    help="The address of Label Studio.",
)
@click.option("--project", default=1, show_default=True, type=click.IntRange(1), help="The project's number.")
@click.option(
    "--raw",
    default="raw",
    show_default=True,
    type=_Checked("place", _is_place),
    help="The raw data: s3://bucket/prefix, or a folder.",
)
@click.option(
    "--field", default="image", show_default=True, help="The field of a task's data that shows the object."
)
@click.option(
    "--overlap",
    default=3,
    show_default=True,
    type=click.IntRange(1),
    help="How many annotators label each task; where given, it is set in the tool too.",
)
@click.option(
    "--store",
    default="labels",
    show_default=True,
    type=_Checked("place", _is_place),
    help="The label store: a folder, or s3://bucket/prefix.",
)
@click.option(
    "--reviewer", "reviewers", multiple=True, help="The e-mail address of a reviewer; may be repeated."
)
@click.option("--force", is_flag=True, help="Replace an existing configuration.")
@click.option("--dry-run", is_flag=True, help="Only report what would be written.")
@click.pass_context
def init(ctx: click.Context, /, force: bool, dry_run: bool, **given: Any) -> None:
    """Write a configuration, connector.toml.

    Without options it asks, on a terminal. The file never holds secrets: the tool's token is read from
    LABEL_STUDIO_API_KEY or the keyring. The overlap is also set in the tool; where that is not possible yet,
    the answer says why and what to do. A key for the journal of corrections is created in the keyring unless
    there is one; without a keyring it is read from LABELING_JOURNAL_KEY.

    \b
    Example:
        connector init
        connector init --url http://localhost:8080 --project 1 --raw s3://pictures/raw --overlap 3
    """
    from connector.config import FILE, parse
    from connector.io.files import write_atomic

    session: Session = ctx.obj
    path = session.config_path or Path(FILE)
    named = {name for name in given if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if not named:
        _refuse_existing(path, None, force)
        given, named = _asked(ctx, session), set(given)
    text = _filled(**given)
    config = parse(text, path)  # what cannot be read back is not written
    _refuse_existing(path, text, force)
    if not dry_run:
        write_atomic(path, text.encode())
    session.say(f"{'would write' if dry_run else 'wrote'} {path}")
    overlap = _set_overlap(session, config, given["overlap"], dry_run) if "overlap" in named else None
    journal_key = _journal_key(session, dry_run)
    session.say("next: set LABEL_STUDIO_API_KEY, then run `connector doctor`")
    session.answer(
        {
            "config": str(path),
            "overlap": overlap,
            "journal_key": journal_key,
            "dry_run": dry_run,
            "source": session.source(),
        }
    )


def _refuse_existing(path: Path, text: str | None, force: bool) -> None:
    """Keep a configuration that exists, unless it is the same or is to be replaced."""
    if path.exists() and not force and (text is None or path.read_bytes() != text.encode()):
        raise UsageError(f"{path} exists already", "edit it, or use --force to replace it")


def _asked(ctx: click.Context, session: Session) -> dict[str, Any]:
    """The answers to all questions."""
    if session.as_json or not sys.stdin.isatty():
        raise UsageError(
            "nothing says what to configure: no options are given, and there is no terminal to ask on",
            "give --url URL --project NUMBER --raw PLACE, and where the defaults do not fit --field, "
            "--overlap, --store and --reviewer",
        )
    found: dict[str, Any] = {}
    for option in ctx.command.params:
        if question := _QUESTIONS.get(str(option.name)):
            several = option.multiple if isinstance(option, click.Option) else False
            default = "" if several else option.get_default(ctx)
            answer = click.prompt(question, default, type=option.type, show_default=not several, err=True)
            found[str(option.name)] = _separated(answer) if several else answer
    return found


def _separated(answer: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in answer.split(",") if part.strip())


def _filled(
    url: str, project: int, raw: str, field: str, overlap: int, store: str, reviewers: Sequence[str]
) -> str:
    """The text of a configuration."""
    from connector.config import TEMPLATE

    # JSON's strings are TOML's.
    quoted = partial(json.dumps, ensure_ascii=False)
    roles = "\n".join(f'{quoted(name)} = "reviewer"' for name in dict.fromkeys(reviewers))
    return TEMPLATE.format(
        url=quoted(url),
        project=project,
        raw=quoted(raw),
        field=quoted(field),
        overlap=overlap,
        store=quoted(store),
        roles=roles or '# "expert@example.com" = "reviewer"',
    )


def _set_overlap(session: Session, config: Config, annotators: int, dry_run: bool) -> dict[str, Any]:
    """Let the tool show each task to so many annotators; where it does not, report who has to do what."""
    from connector.project import Project

    where = f"project {config.tool.project} at {config.tool.url}"
    try:
        tool = Project(config, session.note).tool(dry_run)
        if not tool.capabilities.overlap:
            raise Unsupported(
                f"{tool.capabilities.name} takes no overlap from a program",
                f"whoever administers {where} sets it there",
            )
        tool.set_overlap(annotators)
    except ConnectorError as error:
        why, steps = error.what, [error.hint] if error.hint else []
        if not isinstance(error, Unsupported):
            steps.append("run `connector ontology push`, which sets it")
        session.note(f"the overlap is not set in the tool: {why}\n  next: {'; then '.join(steps)}")
        return {"annotators": annotators, "set": False, "why": why, "next": "; then ".join(steps)}
    would = "would be" if dry_run else "is now"
    session.say(f"each task of {where} {would} shown to {annotators} annotators")
    return {"annotators": annotators, "set": not dry_run, "why": None, "next": None}


def _journal_key(session: Session, dry_run: bool) -> str | None:
    """Make the key of the journal of corrections, unless there is one.

    Returns:
        Where it is: `found`, `made`, or None where there is none and no keyring to keep it.
    """
    from connector.config import JOURNAL_KEY, KEYRING_SERVICE, keep_secret
    from connector.journal.keys import configured_keys

    if configured_keys():
        return "found"
    if not dry_run and keep_secret(JOURNAL_KEY, token_hex(32)):
        session.say(
            "created a key for the journal of corrections in the keyring; other machines that "
            f"correct this project need it in {JOURNAL_KEY}; `keyring get {KEYRING_SERVICE} {JOURNAL_KEY}` "
            "prints it"
        )
        return "made"
    session.say(
        f"before the first `connector correct apply`, set {JOURNAL_KEY} on each machine that corrects this "
        "project, to the same key: `openssl rand -hex 32` makes one"
    )
    return None


@click.command(cls=Command)
@pass_session
def doctor(session: Session) -> int:
    """Check every connection, and say how to fix it.

    \b
    Example:
        connector doctor
    """
    checks = list(_checks(session))
    for check in checks:
        session.say(f"{'ok   ' if check['ok'] else 'FAIL '}  {check['name']}: {check['found']}")
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

    look("configuration", lambda: session.config.file)
    if not found[-1]["ok"]:
        return found
    look("bucket can be read", lambda: _first_object(session))
    look("label store", lambda: _store_version(session))
    look("journal of corrections", lambda: _journal_state(session))
    try:
        for check in session.project.tool().check(session.project.bucket()):
            wrong = AuthError if "token" in check.name else UsageError
            note(check.name, check.found, None if check.ok else wrong(check.found, check.next_step))
    except ConnectorError as error:
        note("labeling tool", "", error)
    if all(check["ok"] for check in found):
        look("an object is shown through the tool", lambda: _shown(session))
    return found


def _shown(session: Session) -> str:
    from connector.model import Item

    tool, raw = session.project.tool(), session.project.raw()
    if not tool.capabilities.connect_bucket or session.config.raw.content != "url":
        return "not checked: the tool does not show objects of the bucket"
    if not session.project.store().cursor():
        return "not checked yet: the first `connector push` connects the bucket and checks one"
    first = next(raw.list(unusable=[]))
    tool.fetch(tool.data_for(Item(key=first.key), session.config.raw.field, first.key))
    return first.key


def _first_object(session: Session) -> str:
    raw = session.project.raw()
    first = next(raw.list(unusable=[]), None)
    if first is None:
        raise UsageError(f"{raw.url} is empty", "put raw data there, or fix raw.url in connector.toml")
    return f"{raw.url}, such as {first.path}"


def _store_version(session: Session) -> str:
    store = session.project.store()
    version = store.version
    return f"{store.url}, " + ("empty so far" if version is None else f"version {version}")


def _journal_state(session: Session) -> str:
    from connector.config import JOURNAL_KEY
    from connector.journal.keys import configured_keys

    if not configured_keys():
        runs = len(session.project.journal().runs())
        return f"{runs} runs, not authenticated; `correct apply` and `undo` need {JOURNAL_KEY}"
    return f"{len(session.project.authenticated_journal().runs())} runs, authenticated"


@click.command(cls=Command)
@click.option("--no-bucket", is_flag=True, help="Do not count the objects of the bucket.")
@pass_session
def status(session: Session, no_bucket: bool) -> None:
    """Show the state of the project.

    How much there is in bucket, tool and store, how long ago the store was known to be what the tool holds,
    who is writing to it, what went wrong last, and what the last push rejected. Rejects that are accepted
    (`connector reconcile --accept`) are listed and do not count.

    \b
    Example:
        connector status
        connector status --no-bucket --json
    """
    from connector.store.label_store import TASK
    from connector.sync.rounds import standing

    project, now = session.project, datetime.now(UTC)
    store = project.store()
    found = standing(project.tool(), store)
    with closing(project.ledger()) as ledger:
        rounds = ledger.rounds()
        found["on_their_way"] = sum(len(keys) for _, keys, _ in ledger.begun())
        if no_bucket:
            rejects = ledger.rejects()
        else:
            with session.progress("bucket") as progress:
                keys = set(store.current(TASK, columns=("key",))["key"])
                found["items_in_bucket"], rejects = _in_bucket(project, ledger, keys, progress)
    found["last_errors"] = [asdict(one) for one in rounds if one.error]
    seen = max(filter(None, [found["last_pull"], *(r.at for r in rounds if not r.error)]), default=None)
    found["lag_seconds"] = (now - seen).total_seconds() if seen else None
    holder = store.holder()
    found["writing"] = str(holder) if holder else None
    found["small_files"] = store.compact(now, dry_run=True).files
    found["accepted"] = sum(one.accepted for one in rejects)
    found["rejected"] = len(rejects) - found["accepted"]
    counts = [found.get("items_in_bucket"), found["tasks_in_tool"], found["tasks_in_store"]]
    found["agree"] = len({count for count in counts if count is not None}) == 1 and not found["rejected"]
    rows = [(name.replace("_", " "), value) for name, value in found.items() if name != "last_errors"]
    session.table("State of the project", ("", ""), rows)
    list_rejects(session, rejects)
    if found["small_files"] >= MANY_FILES:
        session.note("the store has many small files: `connector store compact` makes reading faster")
    for trouble in found["last_errors"]:
        session.say(f"{trouble['at']:%Y-%m-%d %H:%M:%S} UTC: {trouble['error']}")
    session.answer(
        {
            **found,
            "rejects": rejects,
            "source": session.source(store=store.url, version=found["version"]),
        }
    )


def _in_bucket(
    project: Project, ledger: Ledger, tasks: Collection[str], progress: Callable[[int], None]
) -> tuple[int, list[KnownReject]]:
    """How many items of the bucket should have a task, and all rejects: its own and those of manifests.

    Args:
        tasks: the keys that have a task.
    """
    of_listing, known = list[Reject](), ledger.rejects()
    keys, versions, count = {one.key for one in known}, dict[str, str](), 0
    for one in project.items(of_listing):
        count += 1
        if one.key in keys:
            versions[one.key] = one.version
        progress(1)
    rejects = ledger.present(of_listing, None, versions)
    none = {one.key for one in rejects} & versions.keys() - set(tasks)
    return count - len(none), [*rejects, *(one for one in known if one.manifest)]


SHOWN_REJECTS = 20
"""The number of rejects that are listed for people; with --json all are."""


def list_rejects(session: Session, rejects: Sequence[KnownReject]) -> None:
    """List what is known of rejects, those first that count."""
    if not rejects:
        return
    by_count = sorted(rejects, key=lambda one: one.accepted)
    rows = [
        (
            one.where,
            one.why,
            one.since,
            f"{one.accepted_by}, {one.accepted_at:%Y-%m-%d %H:%M} UTC" if one.accepted_at else "no",
        )
        for one in by_count[:SHOWN_REJECTS]
    ]
    session.table("Rejected", ("where", "why", "since", "accepted"), rows)
    if len(rejects) > SHOWN_REJECTS:
        session.say(f"and {len(rejects) - SHOWN_REJECTS} more: see --json")
    suggest_accepting(session, [one.reject for one in rejects if not one.accepted])


def suggest_accepting(session: Session, rejects: Sequence[Reject]) -> None:
    """The next step where there are rejects that count."""
    if rejects:
        session.note(
            "next: fix what was rejected, or accept that it stays out: "
            "`connector reconcile --accept KEY`, or --accept-all"
        )
