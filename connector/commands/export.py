"""export: labels out, for programs that do not read Delta."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from connector.commands.inputs import as_version
from connector.commands.session import Command, Session, pass_session

if TYPE_CHECKING:
    from connector.store.label_store import Version


@click.command(cls=Command)
@click.argument("target")
@click.option(
    "--version", callback=as_version, help="Of the store, or a snapshot's name; by default the newest."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be written.")
@pass_session
def export(session: Session, target: str, version: Version | None, dry_run: bool) -> None:
    """Write the labels into one file: .parquet, .jsonl or .json.

    TARGET is a file or a URL such as s3://bucket/labels.parquet. A .parquet file has a row for each
    annotation; .json is a Label Studio export, and .jsonl the same with a task on each line. What is named in
    store.copies in connector.toml is written anew after every sync that changed the store.

    \b
    Example:
        connector export labels.json --version 12
    """
    from dataclasses import asdict

    project = session.project
    done = project.export(target, version, dry_run)
    would = "would be" if dry_run else "are"
    session.say(f"{done.tasks} tasks and {done.annotations} annotations {would} in {done.place}")
    session.answer(
        {
            **asdict(done),
            "dry_run": dry_run,
            "source": session.source(store=project.store().url, version=done.version),
        }
    )
