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
    found = session.project.tool().read_ontology()
    rows = [(c.name, c.kind, c.target, ", ".join(c.labels), c.required) for c in found.controls]
    session.table(f"Ontology {found.version}", ("control", "kind", "about", "labels", "required"), rows)
    controls = [c.model_dump() for c in found.controls]
    session.answer(
        {
            "version": found.version,
            "controls": controls,
            "config": found.source,
            "source": session.source(tool=session.project.name),
        }
    )


@ontology.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--force", is_flag=True, help="Also remove labels that are in use.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@pass_session
def push(session: Session, file: Path | None, force: bool, dry_run: bool) -> None:
    """Give the tool the questions of a file, and the overlap of the configuration.

    The annotations in the tool are read first: a label that one of them uses, a skipped one too, is only
    removed with --force.

    Without FILE only the overlap is set: how many people label each task, each blind to the others.

    \b
    Example:
        connector ontology push ontology.xml
    """
    from connector.sync import ontology as room

    if file and not file.is_file():
        raise UsageError(f"file not found: {file}", "name the file of the labeling configuration")
    config = session.config
    with session.progress("labels in use") as progress:
        source = file.read_text(encoding="utf-8-sig") if file else None
        pushed = room.push(session.project.tool(dry_run), source, config.tool.overlap, force, progress)
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
            "source": session.source(tool=session.project.name),
        }
    )
