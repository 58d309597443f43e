"""push, pull, sync, reconcile: items to the tool, labels to the store, and whether they agree."""

from __future__ import annotations

import getpass
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from connector.commands.session import Command, Session, out_option, pass_session
from connector.commands.setup import list_rejects, suggest_accepting
from connector.errors import EXIT_GATE, ConnectorError, Reject, UsageError

if TYPE_CHECKING:
    from connector.store.label_store import Store
    from connector.sync.ledger import Ledger
    from connector.sync.predictions import Predicted
    from connector.sync.rounds import Effects, Pulled, Pushed


manifest_option = click.option(
    "--manifest",
    help="A .csv, .json, .jsonl or .parquet file, here or in a bucket, with a column `key`: its rows, not "
    "all objects.",
)


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--manifest, and what changes of the raw data do."""
    for option in (
        click.option(
            "--most-removed",
            type=click.FloatRange(0, 1),
            default=0.1,
            show_default=True,
            help="Delete nothing if more than this share of the tasks would go.",
        ),
        click.option(
            "--on-delete",
            type=click.Choice(["keep", "flag", "remove-unlabeled"]),
            default="flag",
            show_default=True,
            help="What becomes of a task whose raw data is gone.",
        ),
        click.option(
            "--on-change",
            type=click.Choice(["new-task", "update", "flag"]),
            default="flag",
            show_default=True,
            help="What becomes of a task whose raw data has other content now.",
        ),
        manifest_option,
    ):
        command = option(command)
    return command


@click.command(cls=Command)
@source_options
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    help="A .jsonl file of a model's answers to show: key or task, result, model_version, perhaps score.",
)
@click.option("--keep-others", is_flag=True, help="Leave the predictions of other models on these tasks.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@pass_session
def push(
    session: Session, /, predictions: Path | None, keep_others: bool, dry_run: bool, **given: Any
) -> int | None:
    """Make a task of every object of the bucket.

    Each object, or row of a manifest, becomes a task once, by its key, however often this runs. The tool is
    connected to the bucket, so that people see the objects. A task that was made by other means and refers
    to an object is adopted: it gets the object's key and keeps all else. The label store is brought up to
    date first and afterwards.

    Raw data that changed or is gone: by default the tasks are listed in the tool, for a person to look at.
    What moved (the same content under another key) keeps its task and its labels.

    \b
    Example:
        connector push --dry-run
        connector push --manifest pictures.csv
        connector push --on-change update --on-delete remove-unlabeled
        connector push --predictions model-7.jsonl
    """
    if dry_run:
        with session.progress("push") as progress:
            pushed = session.project.dry_push(given["manifest"], _effects(given), progress)
    else:
        _, pushed = _round(session, given)
    _say_pushed(session, pushed, dry_run)
    found = {**_as_json(pushed), "dry_run": dry_run}
    if predictions:
        shown = _show_predictions(session, predictions, keep_others, dry_run)
        found["predictions"] = {**asdict(shown), "rejects": len(shown.rejects)}
    session.answer({**found, "source": _source_of(session, given)})
    suggest_accepting(session, pushed.rejects)
    return session.rejected([*pushed.rejects, *(shown.rejects if predictions else ())])


def _show_predictions(session: Session, file: Path, keep_others: bool, dry_run: bool) -> Predicted:
    from connector.sync.predictions import push_predictions
    from connector.sync.rounds import pull as pull_all

    tool, store = session.project.tool(dry_run), session.project.store()
    with session.progress("predictions") as progress:
        if dry_run:
            shown = push_predictions(tool, store, file, keep_others, progress)
        else:
            with store.lease():
                store.take()
                shown = push_predictions(tool, store, file, keep_others, progress)
                pull_all(tool, store)
    would = "would be " if dry_run else ""
    session.say(f"{shown.found} predictions: {shown.stored} {would}stored, {shown.replaced} {would}replaced")
    return shown


@click.command(cls=Command)
@click.option("--all", "everything", is_flag=True, help="Read also what does not count as changed.")
@pass_session
def pull(session: Session, everything: bool) -> None:
    """Bring what people labeled into the label store.

    Only what changed since the last pull is read. Interrupted anywhere, the next pull goes on from there.
    After a crash of the tool's own server, read all: it may have kept a change without telling of it.

    \b
    Example:
        connector pull
    """
    from connector.sync.rounds import pull as pull_all

    store = session.project.store()
    with session.progress("pull") as progress:
        done = pull_all(session.project.tool(), store, progress, everything)
    _say_pulled(session, done)
    session.answer({**asdict(done), "source": session.source(store=store.url, version=done.version)})


@click.command(cls=Command)
@source_options
@click.option("--watch", is_flag=True, help="Go on until SIGTERM, SIGHUP or Ctrl-C, round after round.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=60.0,
    show_default=True,
    help="Seconds between rounds.",
)
@pass_session
def sync(session: Session, /, watch: bool, interval: float, **given: Any) -> int | None:
    """Push and pull, once or as long as it runs.

    Afterwards bucket, tool and store agree. With --watch it goes on. A round that fails is tried again after
    longer and longer pauses; after five failures the tool is only asked whether it answers, until it does.

    \b
    Example:
        connector sync
        connector sync --watch --interval 300
    """
    if watch:
        return _watch(session, given, interval)
    pulled, pushed = _round(session, given)
    _say_pushed(session, pushed, dry_run=False)
    _say_pulled(session, pulled)
    session.answer({"push": _as_json(pushed), "pull": asdict(pulled), "source": _source_of(session, given)})
    suggest_accepting(session, pushed.rejects)
    return session.rejected(pushed.rejects)


def _watch(session: Session, given: Mapping[str, Any], interval: float) -> int:
    from connector.serve.watch import stopped_by_signals, watch

    totals = {"new": 0, "rejected": 0}
    stores: list[Store] = []

    def one() -> None:
        # What a store knows of itself is good as long as nothing fails: a million tasks are not read anew.
        store = stores.pop() if stores else session.project.store()
        pulled, pushed = _round(session, given, store)
        stores.append(store)
        totals["new"] += pushed.new
        totals["rejected"] += len(pushed.rejects)
        if pushed.new or pushed.adopted or pushed.changed or pushed.gone or pulled.annotations:
            _say_pushed(session, pushed, dry_run=False)
            _say_pulled(session, pulled)

    tool, stop = session.project.tool(), threading.Event()
    with stopped_by_signals(stop):
        session.note(f"watching; a round every {interval:g} s, SIGTERM or Ctrl-C ends it")
        rounds = watch(one, tool.count_tasks, interval, stop, session.note)
    session.say(f"{rounds} rounds, {totals['new']} new tasks")
    session.answer({"rounds": rounds, **totals, "source": _source_of(session, given)})
    return 0


@click.command(cls=Command)
@manifest_option
@out_option("Write the differences: .csv, .parquet, .jsonl or .xlsx.")
@click.option(
    "--accept",
    multiple=True,
    metavar="KEY",
    help="Accept that what the last push rejected under this key stays out; may be repeated.",
)
@click.option("--accept-all", is_flag=True, help="Accept all that the last push rejected.")
@click.option("--unaccept", multiple=True, metavar="KEY", help="Take it back; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Accept nothing; only report what would agree then.")
@pass_session
def reconcile(
    session: Session,
    manifest: str | None,
    out: Path | None,
    accept: tuple[str, ...],
    accept_all: bool,
    unaccept: tuple[str, ...],
    dry_run: bool,
) -> int | None:
    """Prove that bucket, tool and store agree, item by item.

    Everything is read, and nothing in bucket, tool and store is changed. What differs is listed, and the exit
    code is 3.

    Objects that cannot become a task (an empty one, a text among pictures) are rejects: they are listed, and
    while they are not accepted the exit code is 4, as that of every push. An accepted reject does not count,
    until the object changes or the reason does.

    \b
    Example:
        connector reconcile --out differences.csv
        connector reconcile --accept s3://pictures/raw/notes.txt
    """
    from connector.sync.reconcile import reconcile as compare

    if accept_all and (accept or unaccept):
        raise UsageError("--accept-all is given with --accept or --unaccept", "use one of them")
    rejects: list[Reject] = []
    tool, store = session.project.tool(), session.project.store()
    with (
        closing(session.project.ledger(scratch=dry_run)) as ledger,
        session.progress("reconcile") as progress,
    ):
        newly = _accept(ledger, accept, accept_all, unaccept)
        source = session.project.items(rejects, manifest)
        found = compare(tool, store, source, progress, rejects, ledger)
    if accept or accept_all:
        session.say(f"{newly} rejects {'would be' if dry_run else 'are now'} accepted")
    by_kind = dict(found.differences["what"].value_counts(sort=True).iter_rows())
    session.say(f"{found.items} items, {found.tasks} tasks, {found.annotations} annotations")
    if by_kind:
        session.table("Where they differ", ("what", "how many"), list(by_kind.items()))
    list_rejects(session, found.rejects)
    if found.agree:
        session.say("bucket, tool and store agree")
    if any("store" in what for what in by_kind):
        session.note("next: run `connector pull --all`, then this again")
    session.write_rows(found.differences, out)
    session.answer(
        {
            "agree": found.agree,
            "items": found.items,
            "tasks": found.tasks,
            "annotations": found.annotations,
            "rejected": len(found.counted),
            "accepted": len(found.rejects) - len(found.counted),
            "rejects": found.rejects,
            "differences": by_kind,
            "dry_run": dry_run,
            "source": session.source(
                bucket=session.project.raw().url, store=store.url, version=store.version
            ),
        }
    )
    rejected = session.rejected(found.counted)
    return EXIT_GATE if by_kind else rejected


def _accept(ledger: Ledger, accept: Sequence[str], accept_all: bool, unaccept: Sequence[str]) -> int:
    """Accept rejects, and take acceptances back; returns how many were not accepted before."""
    if unaccept:
        ledger.unaccept(unaccept)
    if not (accept or accept_all):
        return 0
    return ledger.accept(None if accept_all else accept, _user(), datetime.now(UTC))


def _user() -> str:
    """Who runs this, for people to read."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may give its user no name
        name = f"user {os.getuid()}"
    return f"{name}@{socket.gethostname()}"


# What they have in common.


def _round(session: Session, given: Mapping[str, Any], store: Store | None = None) -> tuple[Pulled, Pushed]:
    """One sync, noted in the ledger, from which `connector status` tells."""
    with closing(session.project.ledger()) as ledger, session.progress("sync") as progress:
        try:
            done = session.project.sync(ledger, given["manifest"], _effects(given), progress, store)
        except ConnectorError as error:
            ledger.note(datetime.now(UTC), error.what)
            raise
        ledger.note(datetime.now(UTC), None)
    if done[0].annotations or done[1].new:
        session.project.export_copies()
    return done


def _effects(given: Mapping[str, Any]) -> Effects:
    from connector.sync.rounds import Effects, OnChange, OnDelete

    return Effects(OnChange(given["on_change"]), OnDelete(given["on_delete"]), given["most_removed"])


def _source_of(session: Session, given: Mapping[str, Any]) -> dict[str, Any]:
    return session.source(bucket=session.project.raw().url, manifest=given["manifest"])


def _as_json(pushed: Pushed) -> dict[str, Any]:
    found = asdict(pushed)
    return {**found, "rejected": len(found.pop("rejects")), "accepted": len(found.pop("accepted"))}


def _say_pushed(session: Session, done: Pushed, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    parts = [f"{done.new} {would}new", f"{done.known} known"]
    parts += [f"{n} {what}" for what, n in _other(done, would) if n]
    parts += [f"{len(done.rejects)} rejected"]
    parts += [f"{len(done.accepted)} rejected and accepted"] if done.accepted else []
    session.say(f"{done.found} found: {', '.join(parts)}")
    if done.gone:
        session.say(f"{done.gone} tasks have lost their raw data; {done.removed} {would}deleted")
    if done.updated:
        session.say(f"{done.updated} tasks {would or 'now '}show the new content")
    for name, where in done.queues.items():
        session.say(f"{name}: see {where}")


def _other(done: Pushed, would: str) -> list[tuple[str, int]]:
    return [(f"{would}adopted", done.adopted), ("moved", done.moved), ("changed", done.changed)]


def _say_pulled(session: Session, done: Pulled) -> None:
    n = done.annotations
    session.say(
        f"{done.tasks} tasks read, {done.deleted_tasks} deleted; annotations: "
        f"{n.new} new, {n.changed} changed, {n.deleted} deleted; store version {done.version}"
    )
