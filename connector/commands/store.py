"""store log, show, diff, snapshot, compact, vacuum."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from connector.commands.inputs import as_version
from connector.commands.session import Group, Session, pass_session, rows_option
from connector.errors import BadRecord, UsageError

if TYPE_CHECKING:
    import polars as pl

    from connector.store.label_store import Store, Version

CHANGES = ("added", "changed", "deleted")
RECORDS = ("task", "annotation", "prediction")
SHOWN = 20
"""So many changes are shown to people; `--out` has them all."""


@click.group(cls=Group)
def store() -> None:
    """The label store: its versions, and its care."""


@store.command()
@click.option("--all", "everything", is_flag=True, help="Also commits that only say who is writing.")
@click.option("--last", type=click.IntRange(1), help="Only so many, the newest.")
@pass_session
def log(session: Session, everything: bool, last: int | None) -> None:
    """Show every version: when it was made, how, and what it changed.

    \b
    Example:
        connector store log --last 10
    """
    kept = session.project.store()
    found = [commit for commit in kept.commits() if everything or commit.kind != "lease"][:last]
    named = {one.version: one.name for one in kept.snapshots()}
    columns = ("version", "made", "kind", *(f"{record}s" for record in RECORDS), "by", "snapshot")
    rows = [
        (
            *(one.version, one.at, one.kind),
            *(_counted(one.told.get(f"{record}s")) for record in RECORDS),
            *(one.by, named.get(one.version)),
        )
        for one in found
    ]
    title = "Versions of the label store; new, changed, deleted"
    session.table(title, columns, rows, "The label store has no versions yet; run `connector pull`.")
    holder = kept.holder()
    if holder:
        session.say(f"{holder} is writing now")
    session.answer(
        {
            "commits": [
                {
                    "version": one.version,
                    "at": one.at,
                    "kind": one.kind,
                    "by": one.by,
                    **{f"{record}s": one.told.get(f"{record}s") for record in RECORDS},
                    "snapshot": named.get(one.version),
                }
                for one in found
            ],
            "writing": str(holder) if holder else None,
            "source": session.source(store=kept.url, version=kept.version),
        }
    )


def _counted(counts: Mapping[str, int] | None) -> str | None:
    return f"{counts['new']}, {counts['changed']}, {counts['deleted']}" if counts else None


@store.command()
@click.option("--version", "number", type=int, help="As of that version; by default the newest.")
@click.option("--snapshot", "name", help="As of the version of that name.")
@pass_session
def show(session: Session, number: int | None, name: str | None) -> None:
    """Show what the store holds: tasks, annotators, and how often each label was given.

    \b
    Example:
        connector store show
        connector store show --snapshot first-batch
    """
    from connector.store.history import contents

    if number is not None and name is not None:
        raise UsageError("--version and --snapshot are given", "say one of them")
    kept, version = _kept(session), number if name is None else name
    found = contents(kept, version)
    given, skipped = (int(found.annotators[name].sum()) for name in ("annotations", "skipped"))
    session.say(
        f"{found.tasks} tasks, {given} annotations, {skipped} skipped, {found.predictions} predictions"
    )
    session.table("Annotators", found.annotators.columns, list(found.annotators.iter_rows()))
    session.table("Labels", found.labels.columns, list(found.labels.iter_rows()))
    if found.unread:
        session.note(
            f"{found.unread} annotations are not in Label Studio's form; their labels are not counted"
        )
    session.answer(
        {
            "tasks": found.tasks,
            "annotations": given,
            "skipped": skipped,
            "predictions": found.predictions,
            "unread": found.unread,
            "annotators": found.annotators.to_dicts(),
            "controls": [
                {"control": name[0], "labels": part.drop("control").to_dicts()}
                for name, part in found.labels.partition_by(
                    "control", as_dict=True, maintain_order=True
                ).items()
            ],
            "source": _source(session, kept, version),
        }
    )


@store.command()
@click.argument("old", callback=as_version)
@click.argument("new", callback=as_version, required=False)
@rows_option
@pass_session
def diff(session: Session, old: Version, new: Version | None, out: Path | None) -> None:
    """Show what changed from one version to another: tasks, annotations and predictions, before and after.

    OLD and NEW are numbers of versions or names of snapshots; NEW is the newest version by default.

    \b
    Example:
        connector store diff first-batch
        connector store diff 12 42 --out changes.csv
    """
    from connector.store.history import differences

    kept = _kept(session)
    until = (kept.version or 0) if new is None else new
    found = differences(kept, old, until)
    counts = {f"{record}s": _counts(found, record) for record in RECORDS}
    people = sorted(set(found.filter(record="annotation")["annotator"].drop_nulls()))
    by = {who: _counts(found.filter(annotator=who), "annotation") for who in people}
    session.table("What changed", ("", *CHANGES), [(name, *n.values()) for name, n in counts.items()])
    session.table("Annotators", ("annotator", *CHANGES), [(who, *n.values()) for who, n in by.items()])
    first = found.filter(record="annotation").head(SHOWN)
    columns = ("change", "task", "annotator", "before", "after")
    shown = [(*row, _said(a), _said(b)) for *row, a, b in first.select("change", "key", *columns[2:]).rows()]
    session.table("The first changes", columns, shown, "No annotation changed.")
    session.write_rows(found, out)
    session.answer(
        {
            **counts,
            "annotators": [{"annotator": who, **n} for who, n in by.items()],
            "old": kept.number_of(old),
            "new": kept.number_of(until),
            "source": session.source(store=kept.url, version=kept.version),
        }
    )


def _counts(rows: pl.DataFrame, record: str) -> dict[str, int]:
    found = dict(rows.filter(record=record)["change"].value_counts().iter_rows())
    return {change: found.get(change, 0) for change in CHANGES}


def _said(result: str | None) -> str | None:
    """What a result says, in short: its labels, or the beginning of it."""
    import json

    from connector.regions import parse_result

    if result is None:
        return None
    try:
        labels = [label for region in parse_result(json.loads(result)) for label in region.labels]
    except BadRecord:
        labels = []
    return ", ".join(labels) or (result if len(result) <= 40 else result[:39] + "…")


@store.command()
@click.argument("name", required=False)
@click.option("--version", "number", type=int, help="The version that gets the name; by default the newest.")
@click.option("--remove", is_flag=True, help="Take the name away.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@pass_session
def snapshot(session: Session, name: str | None, number: int | None, remove: bool, dry_run: bool) -> None:
    """Give a version a name, so that it can be read by it for good; without a name, list them.

    \b
    Example:
        connector store snapshot first-batch
        connector quality summary --store-version first-batch
        connector store snapshot first-batch --remove
    """
    kept, now = _kept(session), datetime.now(UTC)
    if name is None and (remove or number is not None):
        raise UsageError("no name is given", "say `connector store snapshot NAME`")
    would = "would be " if dry_run else ""
    if name and remove:
        kept.forget(name, now, dry_run)
        session.say(f"{name} {would}removed")
    elif name:
        made = kept.name(name, now, number, dry_run)
        session.say(f"version {made.version} {would}named {name}")
    named = kept.snapshots()
    if name is None:
        rows = [(one.name, one.version, one.at) for one in named]
        session.table("Snapshots", ("name", "version", "named"), rows, "There are no snapshots.")
    session.answer(
        {
            "snapshots": [{"name": one.name, "version": one.version, "at": one.at} for one in named],
            "dry_run": dry_run,
            "source": session.source(store=kept.url, version=kept.version),
        }
    )


@store.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@pass_session
def compact(session: Session, dry_run: bool) -> None:
    """Merge the many small files that pulls write into few, which are read faster.

    Nothing is lost: all rows and all versions stay.

    \b
    Example:
        connector store compact
    """
    kept = _kept(session)
    with session.progress("compact") as progress:
        done = kept.compact(datetime.now(UTC), dry_run, progress)
    would = "would be " if dry_run else ""
    session.say(f"{done.files} files of {_size(done.bytes)} {would}merged into {done.into}")
    session.answer(
        {
            "files": done.files,
            "bytes": done.bytes,
            "into": done.into,
            "dry_run": dry_run,
            "source": session.source(store=kept.url, version=kept.version),
        }
    )


@store.command()
@click.option(
    "--days",
    type=click.FloatRange(0),
    default=30,
    show_default=True,
    help="Only files that were merged so long ago.",
)
@click.option("--force", is_flag=True, help="Also less than 7 days.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@pass_session
def vacuum(session: Session, days: float, force: bool, dry_run: bool) -> None:
    """Delete files that `compact` merged into others.

    Every version stays readable here: what they held is in the merged files. Other programs read an old
    version from the files it had, and find those of snapshots only.

    \b
    Example:
        connector store vacuum --dry-run
        connector store vacuum --days 60
    """
    kept = _kept(session)
    done = kept.vacuum(datetime.now(UTC), days, force, dry_run)
    named = sorted({one.version for one in kept.snapshots()})
    would = "would be " if dry_run else ""
    session.say(f"{done.files} files of {_size(done.bytes)} {would}deleted")
    if done.before is not None:
        but = f" but {', '.join(map(str, named))}" if named else ""
        session.say(
            f"other programs {'could' if dry_run else 'can'} then read no version before {done.before}{but}"
        )
    session.answer(
        {
            "files": done.files,
            "bytes": done.bytes,
            "unreadable_before": done.before,
            "kept": named,
            "dry_run": dry_run,
            "source": session.source(store=kept.url, version=kept.version),
        }
    )


def _kept(session: Session) -> Store:
    """The store, if anything is in it."""
    kept = session.project.store()
    if kept.version is None:
        raise UsageError(f"the label store {kept.url} is empty", "run `connector pull`")
    return kept


def _source(session: Session, kept: Store, version: Version | None) -> Mapping[str, Any]:
    number = kept.version if version is None else kept.number_of(version)
    return session.source(store=kept.url, version=number)


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MB"
