"""push and pull: items to the tool, labels to the store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from connector.commands.session import Command, Session, pass_session


@click.command(cls=Command)
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    help="A .csv, .jsonl or .parquet file with a column `key`; its rows instead of all objects.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@pass_session
def push(session: Session, manifest: Path | None, dry_run: bool) -> int | None:
    """Make a task of every object of the bucket.

    Each object, or row of a manifest, becomes a task once, by its key, however often this runs. The tool is
    connected to the bucket, so that people see the objects.

    \b
    Example:
        connector push --dry-run
        connector push --manifest pictures.csv
    """
    from connector import sync

    tool, raw, field = session.line.tool(dry_run), session.line.raw(), session.config.raw.field
    done = sync.Pushed()
    if manifest:
        items = sync.items_of_manifest(manifest, tool, field, raw, done.rejects)
    else:
        shows_images = sync.shows_images(tool, field)
        items = sync.items_of_bucket(raw, tool, field, done.rejects, shows_images)
    sync.connect(tool, raw.url, raw.options)
    with session.progress("push") as progress:
        done = sync.push(tool, items, done.rejects, progress)
    would = "would be " if dry_run else ""
    session.say(
        f"{done.found} found: {done.new} {would}new, {done.known} known, {len(done.rejects)} rejected"
    )
    session.answer(
        {
            "found": done.found,
            "new": done.new,
            "known": done.known,
            "rejected": len(done.rejects),
            "dry_run": dry_run,
            "source": session.source(bucket=raw.url, manifest=str(manifest) if manifest else None),
        }
    )
    return session.rejected(done.rejects)


@click.command(cls=Command)
@pass_session
def pull(session: Session) -> None:
    """Bring what people labeled into the label store.

    Only what changed since the last pull is read. Interrupted anywhere, the next pull goes on from there.

    \b
    Example:
        connector pull
    """
    from connector import sync

    store = session.line.store()
    with session.progress("pull") as progress:
        done = sync.pull(session.line.tool(), store, progress)
    n = done.annotations
    session.say(
        f"{done.tasks} tasks read, {done.deleted_tasks} deleted; annotations: "
        f"{n.new} new, {n.changed} changed, {n.deleted} deleted; store version {done.version}"
    )
    session.answer({**asdict(done), "source": session.source(store=store.url, version=done.version)})
