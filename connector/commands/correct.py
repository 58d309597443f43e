"""correct plan, apply, undo, log."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from connector.commands.inputs import engine_option, load, merge, truth_option
from connector.commands.session import Group, Session, pass_session
from connector.errors import UsageError

if TYPE_CHECKING:
    from connector.corrections import Applied
    from connector.journal import Journal

JOURNAL = "corrections.db"
SHOWN = 12


@click.group(cls=Group)
def correct() -> None:
    """Write corrections back, and take them back."""


@correct.command("plan")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("plan.jsonl"), show_default=True, help="The plan."
)
@click.option(
    "--policy",
    type=click.Choice(["add", "replace"]),
    default="add",
    show_default=True,
    help="Add the right answer, marked ground truth; or replace the wrong ones.",
)
@click.option(
    "--min-confidence",
    "confident",
    type=click.FloatRange(0, 1),
    default=0.6,
    show_default=True,
    help="The least confidence of a consensus that is written back.",
)
@truth_option
@engine_option
@pass_session
def plan_command(session: Session, out: Path, policy: str, confident: float, truth: str) -> int | None:
    """Plan what to correct: where people differ from a reviewer, or else from the consensus.

    Nothing is written to the tool. The plan can be read and edited, a line a correction.

    \b
    Example:
        connector correct plan --out plan.jsonl
    """
    from connector.corrections import plan

    store, labels = session.line.store(), load(session, None)
    loaded, units = labels.loaded, labels.units
    merged = merge(session, units, truth)
    version = int(loaded.source["version"])
    made = plan(
        session.line.project, loaded, units, merged.units, list(store.tasks(version)), policy, confident
    )
    made.plan.save(out)
    session.table(
        f"Plan {made.plan.run}",
        ("task", "control", "now", "then", "why", "confidence"),
        [
            (c.task, change.control, change.now, change.then, c.why, c.confidence)
            for c in made.plan.corrections
            for change in c.changes
        ][:SHOWN],
    )
    n = len(made.plan.corrections)
    session.say(
        f"{n} corrections in {out}, of which the first changes are shown; "
        f"{len(made.undecided)} tasks are undecided and belong in review"
    )
    session.answer(
        {
            "run": made.plan.run,
            "corrections": n,
            "undecided": [reject.where.removeprefix("task ") for reject in made.undecided],
            "policy": policy,
            "source": session.source(**loaded.source),
        }
    )
    return session.rejected(loaded.rejects)


@correct.command("apply")
@click.argument("plan", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@pass_session
def apply_command(session: Session, plan: Path, dry_run: bool) -> int | None:
    """Write a plan's corrections to the tool.

    Each is compared with what the tool holds now and noted in the journal before it is sent. Where somebody
    edited meanwhile nothing is written. Run again, it continues.

    \b
    Example:
        connector correct apply plan.jsonl --dry-run
        connector correct apply plan.jsonl
    """
    from connector.corrections import Plan, apply

    given = Plan.load(plan)
    with (
        closing(_journal(session, dry_run)) as journal,
        session.progress("apply", len(given.corrections)) as progress,
    ):
        done = apply(session.line.tool(dry_run), given, session.line.project, journal, _now, progress)
    return _tell(session, done, "written", dry_run, str(plan))


@correct.command()
@click.argument("run")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@pass_session
def undo(session: Session, run: str, dry_run: bool) -> int | None:
    """Take back a run of corrections, each only where it is still as it was left.

    \b
    Example:
        connector correct log
        connector correct undo 1f2e3d4c5b
    """
    from connector.corrections import undo as take_back

    with closing(_journal(session, dry_run)) as journal, session.progress("undo") as progress:
        done = take_back(session.line.tool(dry_run), run, session.line.project, journal, _now, progress)
    return _tell(session, done, "taken back", dry_run, None)


@correct.command()
@pass_session
def log(session: Session) -> None:
    """Show the runs of corrections, and what became of them.

    \b
    Example:
        connector correct log
    """
    with closing(_journal(session, scratch=True)) as journal:
        runs = journal.runs()
    session.table(
        "Runs of corrections",
        ("run", "project", "begun", "corrections"),
        [
            (
                run,
                project,
                f"{at:%Y-%m-%d %H:%M} UTC",
                ", ".join(f"{n} {state}" for state, n in states.items()),
            )
            for run, project, at, states in runs
        ],
    )
    session.answer(
        {
            "runs": [
                {"run": run, "project": project, "at": at, "corrections": states}
                for run, project, at, states in runs
            ],
            "source": session.source(journal=str(session.config.folder / JOURNAL)),
        }
    )


def _journal(session: Session, scratch: bool) -> Journal:
    from connector.journal import Journal

    path = session.config.folder / JOURNAL
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", "mend --config")
    return Journal(path, scratch)


def _now() -> datetime:
    return datetime.now(UTC)


def _tell(session: Session, done: Applied, verb: str, dry_run: bool, plan: str | None) -> int | None:
    would = "would be " if dry_run else ""
    session.say(
        f"run {done.run}: {done.written} {would}{verb}, {done.already} were already, "
        f"{len(done.conflicts)} left out because somebody edited meanwhile"
    )
    for reject in done.conflicts:
        session.note(f"  {reject.where}: {reject.why}")
    session.answer(
        {
            "run": done.run,
            verb.replace(" ", "_"): done.written,
            "already": done.already,
            "conflicts": [{"task": r.where.removeprefix("task "), "why": r.why} for r in done.conflicts],
            "dry_run": dry_run,
            "source": session.source(plan=plan, tool=session.line.project),
        }
    )
    if not done.conflicts:
        return None
    session.note("next: run `connector pull`, then plan again")
    return 7
