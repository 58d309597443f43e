"""ontology show, push."""

from __future__ import annotations

from pathlib import Path

import click

from connector.commands.session import Group, Session, pass_session
from connector.errors import UsageError


@click.group(cls=Group)
def ontology() -> None:
    """The questions people are asked, and their labels."""


@ontology.command()
@pass_session
def show(session: Session) -> None:
    """Show the questions as the tool holds them now.

    \b
    Example:
        connector ontology show
        connector ontology show --json | jq -r .config > ontology.xml
    """
    found = session.line.tool().read_ontology()
    rows = [(c.name, c.kind, c.target, ", ".join(c.labels), c.required) for c in found.controls]
    session.table(f"Ontology {found.version}", ("control", "kind", "about", "labels", "required"), rows)
    controls = [c.model_dump() for c in found.controls]
    session.answer(
        {
            "version": found.version,
            "controls": controls,
            "config": found.source,
            "source": session.source(tool=session.line.project),
        }
    )


@ontology.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--force", is_flag=True, help="Also take away labels that are in use.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@pass_session
def push(session: Session, file: Path | None, force: bool, dry_run: bool) -> None:
    """Give the tool the questions of a file, and the overlap of the configuration.

    Without FILE only the overlap is set: how many people label each task, each blind to the others.

    \b
    Example:
        connector ontology push ontology.xml
    """
    import polars as pl

    from connector import ontology as room
    from connector.labels import read_store

    if file and not file.is_file():
        raise UsageError(f"there is no file {file}", "name the file of the labeling configuration")
    store, config = session.line.store(), session.config
    empty = pl.DataFrame(schema={"control": pl.String, "label": pl.String, "n": pl.Int64})
    used = empty
    if store.version is not None:
        regions = read_store(store, config.roles).labels.regions
        used = regions.group_by("control", "label").agg(n=pl.len().cast(pl.Int64))
    pushed = room.push(
        session.line.tool(dry_run), file.read_text() if file else None, config.tool.overlap, used, force
    )
    would = "would be: " if dry_run else ""
    session.say(
        f"{would}ontology {pushed.version}, {len(pushed.controls)} questions, "
        f"{config.tool.overlap} people label each task"
    )
    session.answer(
        {
            "version": pushed.version,
            "overlap": config.tool.overlap,
            "dry_run": dry_run,
            "source": session.source(tool=session.line.project),
        }
    )
