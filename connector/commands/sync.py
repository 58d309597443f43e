"""push, pull, sync, reconcile: items to the tool, labels to the store, and whether they agree."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from connector.commands.session import Command, Session, pass_session
from connector.errors import EXIT_GATE, Reject

if TYPE_CHECKING:
    from connector.items import Source
    from connector.sync import Effects, Pulled, Pushed

LEDGER = "connector-sync.sqlite"


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
        click.option(
            "--manifest",
            type=click.Path(path_type=Path),
            help="A .csv, .json, .jsonl or .parquet file with a column `key`: its rows, not all objects.",
        ),
    ):
        command = option(command)
    return command


@click.command(cls=Command)
@source_options
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@pass_session
def push(session: Session, /, dry_run: bool, **given: Any) -> int | None:
    """Make a task of every object of the bucket.

    Each object, or row of a manifest, becomes a task once, by its key, however often this runs. The tool is
    connected to the bucket, so that people see the objects. The label store is brought up to date first and
    afterwards.

    Raw data that changed or is gone: by default the tasks are listed in the tool, for a person to look at.
    What moved (the same content under another key) keeps its task and its labels.

    \b
    Example:
        connector push --dry-run
        connector push --manifest pictures.csv
        connector push --on-change update --on-delete remove-unlabeled
    """
    rejects: list[Reject] = []
    _, pushed = _round(session, given, rejects, dry_run)
    _say_pushed(session, pushed, dry_run)
    session.answer({**_as_json(pushed), "dry_run": dry_run, "source": _source_of(session, given)})
    return session.rejected(rejects)


@click.command(cls=Command)
@pass_session
def pull(session: Session) -> None:
    """Bring what people labeled into the label store.

    Only what changed since the last pull is read. Interrupted anywhere, the next pull goes on from there.

    \b
    Example:
        connector pull
    """
    from connector.sync import pull as pull_all

    store = session.line.store()
    with session.progress("pull") as progress:
        done = pull_all(session.line.tool(), store, progress)
    _say_pulled(session, done)
    session.answer({**asdict(done), "source": session.source(store=store.url, version=done.version)})


@click.command(cls=Command)
@source_options
@click.option("--watch", is_flag=True, help="Go on until SIGTERM or Ctrl-C, round after round.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=60.0,
    show_default=True,
    help="Seconds between rounds.",
)
@pass_session
def sync(session: Session, /, watch: bool, interval: float, **given: Any) -> int | None:
    """Push and pull: afterwards bucket, tool and store agree.

    With --watch it goes on. A round that fails is tried again after longer and longer pauses; after five
    failures the tool is only asked whether it answers, until it does.

    \b
    Example:
        connector sync
        connector sync --watch --interval 300
    """
    rejects: list[Reject] = []
    if watch:
        return _watch(session, given, interval)
    pulled, pushed = _round(session, given, rejects)
    _say_pushed(session, pushed, dry_run=False)
    _say_pulled(session, pulled)
    session.answer({"push": _as_json(pushed), "pull": asdict(pulled), "source": _source_of(session, given)})
    return session.rejected(rejects)


def _watch(session: Session, given: Mapping[str, Any], interval: float) -> int:
    from connector.watch import Watch, stopped_by_signals

    totals = {"new": 0, "rejected": 0}

    def one() -> None:
        rejects: list[Reject] = []
        pulled, pushed = _round(session, given, rejects)
        totals["new"] += pushed.new
        totals["rejected"] += len(rejects)
        if pushed.new or pushed.changed or pushed.gone or pulled.annotations:
            _say_pushed(session, pushed, dry_run=False)
            _say_pulled(session, pulled)

    tool, stop = session.line.tool(), threading.Event()
    with closing(_ledger(session)) as ledger, stopped_by_signals(stop):
        session.note(f"watching; a round every {interval:g} s, SIGTERM or Ctrl-C ends it")
        rounds = Watch(one, tool.count_tasks, interval, ledger, session.note).run(stop)
    session.say(f"{rounds} rounds, {totals['new']} new tasks")
    session.answer({"rounds": rounds, **totals, "source": _source_of(session, given)})
    return 0


@click.command(cls=Command)
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    help="A .csv, .json, .jsonl or .parquet file with a column `key`: its rows, not all objects.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the differences: .csv, .parquet or .jsonl."
)
@pass_session
def reconcile(session: Session, manifest: Path | None, out: Path | None) -> int | None:
    """Prove that bucket, tool and store agree, item by item.

    Everything is read and nothing is changed. What differs is listed, and the exit code is 3.

    \b
    Example:
        connector reconcile --out differences.csv
    """
    from connector.reconcile import reconcile as compare

    rejects: list[Reject] = []
    tool, store = session.line.tool(), session.line.store()
    source = _source(session, manifest, rejects, check_images=False)
    with session.progress("reconcile") as progress:
        found = compare(tool, store, source, progress)
    by_kind = dict(found.differences["what"].value_counts(sort=True).iter_rows())
    session.say(f"{found.items} items, {found.tasks} tasks, {found.annotations} annotations")
    if by_kind:
        session.table("Where they differ", ("what", "how many"), list(by_kind.items()))
    else:
        session.say("bucket, tool and store agree")
    session.write_rows(found.differences, out)
    session.answer(
        {
            "agree": not by_kind,
            "items": found.items,
            "tasks": found.tasks,
            "annotations": found.annotations,
            "rejected": len(rejects),
            "differences": by_kind,
            "source": session.source(bucket=session.line.raw().url, store=store.url, version=store.version),
        }
    )
    return EXIT_GATE if by_kind else None


# What they have in common.


def _round(
    session: Session, given: Mapping[str, Any], rejects: list[Reject], dry_run: bool = False
) -> tuple[Pulled, Pushed]:
    from connector import sync as line

    tool, store, raw = session.line.tool(dry_run), session.line.store(), session.line.raw()
    source = _source(session, given["manifest"], rejects)
    line.connect(tool, raw.url, raw.options)
    with closing(_ledger(session, dry_run)) as ledger, session.progress("sync") as progress:
        if dry_run:
            effects, progressed = _effects(given), progress
            return line.Pulled(), line.push(
                tool, store, source, rejects, ledger, effects, progressed, up_to_date=False
            )
        return line.sync(tool, store, source, rejects, ledger, _effects(given), progress)


def _source(
    session: Session, manifest: Path | None, rejects: list[Reject], check_images: bool = True
) -> Source:
    from connector.items import BucketItems, ManifestItems
    from connector.sync import image_fields

    raw = session.line.raw()
    if manifest:
        return ManifestItems(manifest, raw, session.config.raw.field, rejects)
    images = image_fields(session.line.tool()) if check_images else frozenset[str]()
    return BucketItems(raw, session.config.raw, rejects, images)


def _ledger(session: Session, dry_run: bool = False) -> Any:
    from connector.ledger import Ledger

    path = Path(":memory:") if dry_run else session.config.folder / LEDGER
    return Ledger(path, session.line.project)


def _effects(given: Mapping[str, Any]) -> Effects:
    from connector.sync import Effects, OnChange, OnDelete

    return Effects(OnChange(given["on_change"]), OnDelete(given["on_delete"]), given["most_removed"])


def _source_of(session: Session, given: Mapping[str, Any]) -> dict[str, Any]:
    manifest = given["manifest"]
    return session.source(bucket=session.line.raw().url, manifest=str(manifest) if manifest else None)


def _as_json(pushed: Pushed) -> dict[str, Any]:
    found = asdict(pushed)
    return {**found, "rejected": len(found.pop("rejects"))}


def _say_pushed(session: Session, done: Pushed, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    parts = [f"{done.new} {would}new", f"{done.known} known"]
    parts += [f"{n} {what}" for what, n in (("moved", done.moved), ("changed", done.changed)) if n]
    parts += [f"{len(done.rejects)} rejected"]
    session.say(f"{done.found} found: {', '.join(parts)}")
    if done.gone:
        session.say(f"{done.gone} tasks have lost their raw data; {done.removed} {would}deleted")
    if done.updated:
        session.say(f"{done.updated} tasks {would or 'now '}show the new content")
    for name, where in done.queues.items():
        session.say(f"{name}: see {where}")


def _say_pulled(session: Session, done: Pulled) -> None:
    n = done.annotations
    session.say(
        f"{done.tasks} tasks read, {done.deleted_tasks} deleted; annotations: "
        f"{n.new} new, {n.changed} changed, {n.deleted} deleted; store version {done.version}"
    )
