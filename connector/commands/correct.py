"""correct plan, apply, undo, log, verify."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from connector.commands.inputs import (
    engine_option,
    gold_option,
    load,
    merge,
    reading_given,
    reading_options,
    truth_option,
)
from connector.commands.session import Group, Session, pass_session
from connector.errors import Conflict, Reject, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connector.corrections.apply import Applied
    from connector.corrections.plan import Plan, Proposed
    from connector.model import Ontology
    from connector.store.parts import Aligned

SHOWN = 12

_FILE = click.Path(path_type=Path)

_ACTIONS = ["add", "replace", "predict", "delete", "return", "ask"]


@click.group(cls=Group)
def correct() -> None:
    """Write corrections back, and take them back."""


@correct.command("plan")
@click.option("--out", type=_FILE, default=Path("plan.jsonl"), show_default=True, help="The plan.")
@click.option(
    "--from",
    "decides",
    default="consensus",
    show_default=True,
    metavar="SOURCE",
    help="What decides: consensus (and reviewers, where one answered), review, gold, ontology, a table "
    "(.csv, .jsonl, .xlsx, .parquet, …), or a Python function as module:function.",
)
@click.option(
    "--policy",
    type=click.Choice(_ACTIONS),
    help="Add the right answer, marked ground truth (the default); replace the wrong ones (the default "
    "for ontology); show it as a prediction; delete the wrong ones; return the task to its annotator with a "
    "note; ask one more annotator where nothing is decided.",
)
@gold_option
@click.option("--verdicts", type=_FILE, help="With --from review: what `review collect` wrote.")
@click.option(
    "--mapping",
    type=_FILE,
    help='With --from ontology: JSON, {"control": {"old label": "new label, or null to remove it"}}. A label '
    'of a tree is its path, as in "animal / dog"; the control of relations is "relations".',
)
@click.option(
    "--min-confidence",
    "confident",
    type=click.FloatRange(0, 1),
    default=0.6,
    show_default=True,
    help=(
        "The least confidence of a consensus that is written back; with --truth dawid-skene that is a model "
        "score, mostly too high."
    ),
)
@click.option("--max-changes", type=click.IntRange(0), help="At most so many corrections, the surest.")
@click.option("--annotator", "annotators", multiple=True, help="Only this annotator's annotations.")
@click.option("--per-annotator", type=click.IntRange(0), help="At most so many of each annotator's.")
@truth_option
@engine_option
@reading_options
@pass_session
def plan_command(
    session: Session,
    out: Path,
    decides: str,
    policy: str | None,
    gold_file: Path | None,
    verdicts: Path | None,
    mapping: Path | None,
    confident: float,
    max_changes: int | None,
    annotators: tuple[str, ...],
    per_annotator: int | None,
    truth: str,
) -> int | None:
    """Plan what to correct.

    Nothing is written to the tool. The plan can be read and edited, a line a correction.

    \b
    Example:
        connector correct plan --out plan.jsonl
        connector correct plan --from gold --gold gold.csv --policy return --annotator ann@example.com
    """
    from connector.corrections.plan import Limits, plan
    from connector.journal.correction import Action

    action = Action(policy or ("replace" if decides == "ontology" else "add"))
    labels = load(session, None, gold_file)
    loaded = labels.loaded
    proposed = _proposed(session, labels, decides, action, confident, truth, verdicts, mapping)
    limits = Limits(confident, max_changes, frozenset(annotators), per_annotator)
    source = {**loaded.source, "from": decides}
    made = plan(session.project.name, source, proposed, action, limits)
    made.save(out)
    _show(session, made)
    undecided = [one.task.id for one in proposed.undecided]
    open_ones = "" if action is Action.ASK else f"; {len(undecided)} tasks are undecided and belong in review"
    session.say(f"{len(made.corrections)} corrections in {out}, of which the first are shown{open_ones}")
    session.answer(
        {
            "run": made.run,
            "corrections": len(made.corrections),
            "undecided": undecided,
            "policy": action.value,
            "source": session.source(**source),
        }
    )
    return session.rejected([*loaded.rejects, *proposed.rejects])


def _proposed(
    session: Session,
    labels: Aligned,
    decides: str,
    action: str,
    confident: float,
    truth: str,
    verdicts: Path | None,
    mapping: Path | None,
) -> Proposed:
    """What the source of --from says."""
    from connector.corrections import sources
    from connector.io.tables import SUFFIXES
    from connector.journal.correction import OWN
    from connector.model import Role
    from connector.review.samples import read_verdicts

    loaded, units = labels.loaded, labels.units
    store, version = session.project.store(), int(loaded.source["version"])
    tasks, own = store.tasks(version), action in OWN
    if verdicts and decides != "review":
        raise UsageError("--verdicts are a review's", "say --from review")
    if decides == "ontology":
        if action not in OWN:
            raise UsageError(
                f"an ontology's change cannot {action}", "use --policy replace, delete or return"
            )
        return sources.from_ontology(tasks, _mapping(mapping), _ontology(session, version))
    if decides == "review" and verdicts:
        return sources.from_verdicts(read_verdicts(verdicts), tasks)
    if decides in ("review", "gold"):
        role = Role.REVIEWER if decides == "review" else Role.GOLD
        merged = None if own else merge(session, labels, truth).units
        return sources.from_role(loaded, units, role, tasks, own, merged)
    if decides == "consensus":
        merged = merge(session, labels, truth).units
        return sources.from_consensus(loaded, units, merged, tasks, own, confident)
    if Path(decides).suffix.lower() in (*SUFFIXES, ".gz", ".zip"):
        encoding = reading_given().encoding
        answers = None if own else sources.Answers(loaded, units, merge(session, labels, truth).units)
        return sources.from_file(
            Path(decides), tasks, own, _ontology(session, version), encoding, answers=answers
        )
    if ":" in decides:
        sys.path.insert(0, str(session.config.folder))  # where a team keeps its own code
        return sources.from_function(decides, tasks, _ontology(session, version))
    raise UsageError(
        f"--from {decides} is no source", "use consensus, review, gold, ontology, a file, or module:function"
    )


def _ontology(session: Session, version: int) -> Ontology:
    found = session.project.store().ontology(version)
    if found is None:
        raise UsageError("the label store knows no ontology yet", "run `connector pull`")
    return found


def _mapping(path: Path | None) -> Mapping[str, Mapping[str, str | None]]:
    from pydantic import TypeAdapter, ValidationError

    if path is None or not path.is_file():
        raise UsageError("say how labels change", "give --mapping FILE.json")
    try:
        return TypeAdapter(dict[str, dict[str, str | None]]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise UsageError(
            f"{path} is no mapping: {error.errors()[0]['msg']}", 'write {"control": {"old": "new"}}'
        ) from error


def _show(session: Session, made: Plan) -> None:
    from connector.corrections.timeline import in_short

    rows = []
    for c in made.corrections:
        whose = f"{c.annotation} ({c.annotator})" if c.annotation else None
        whole = [(None, in_short(c.now), in_short(c.then))]
        changes = [(one.control, one.now, one.then) for one in c.changes]
        rows += [(c.task, c.action, whose, *told, c.why, c.confidence) for told in changes or whole]
    columns = ("task", "action", "annotation", "control", "now", "then", "why", "confidence")
    session.table(f"Plan {made.run}", columns, rows[:SHOWN], "There is nothing to correct.")


_rate = click.option("--rate", type=click.FloatRange(0, min_open=True), help="At most so many a second.")
_unauthenticated = click.option(
    "--unauthenticated",
    is_flag=True,
    help="Accept a journal without a valid seal, such as earlier versions wrote; from now on it is sealed.",
)


@correct.command("apply")
@click.argument("plan", type=_FILE)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@_rate
@click.option("--max-conflicts", type=click.IntRange(0), help="Stop after more than so many conflicts.")
@_unauthenticated
@pass_session
def apply_command(
    session: Session,
    plan: Path,
    dry_run: bool,
    rate: float | None,
    max_conflicts: int | None,
    unauthenticated: bool,
) -> int | None:
    """Write a plan's corrections to the tool.

    Each is compared with what the tool holds now and noted in the journal before it is sent. What was edited
    meanwhile is left as it is. Run again, it continues.

    \b
    Example:
        connector correct apply plan.jsonl --dry-run
        connector correct apply plan.jsonl --max-conflicts 20
    """
    from connector.corrections.apply import apply
    from connector.corrections.plan import Plan

    given, project = Plan.load(plan), session.project
    with session.progress("apply", len(given.corrections)) as progress:
        tool, journal = project.tool(dry_run), project.authenticated_journal(dry_run, unauthenticated)
        done = apply(tool, given, project.name, journal, _now, progress, rate, max_conflicts)
    return _tell(session, done, "written", dry_run, str(plan))


@correct.command()
@click.argument("run")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@_rate
@_unauthenticated
@pass_session
def undo(session: Session, run: str, dry_run: bool, rate: float | None, unauthenticated: bool) -> int | None:
    """Take back a run of corrections, each only where it is still as it was left.

    An annotation that was deleted is made again, with a new id.

    \b
    Example:
        connector correct log
        connector correct undo 1f2e3d4c5b
    """
    from connector.corrections.undo import undo as take_back

    project = session.project
    with session.progress("undo") as progress:
        journal = project.authenticated_journal(dry_run, unauthenticated)
        done = take_back(project.tool(dry_run), run, project.name, journal, _now, progress, rate)
    return _tell(session, done, "taken back", dry_run, None)


@correct.command()
@click.option("--task", help="Show what people and plans did to this task: its id, or its item's key.")
@pass_session
def log(session: Session, task: str | None) -> None:
    """Show the runs of corrections, and what became of them; or the history of one task.

    \b
    Example:
        connector correct log
        connector correct log --task 17
    """
    if task is not None:
        _show_history(session, task)
        return
    runs = session.project.journal().runs()
    session.table(
        "Runs of corrections",
        ("run", "project", "by", "begun", "corrections"),
        [(r.run, r.project, r.by, r.at, ", ".join(f"{n} {s}" for s, n in r.states.items())) for r in runs],
        "No corrections have been applied yet; `connector correct plan` makes a plan.",
    )
    session.answer(
        {
            "runs": [
                {"run": r.run, "project": r.project, "by": r.by, "at": r.at, "corrections": r.states}
                for r in runs
            ],
            "source": session.source(journal=session.project.journal().url),
        }
    )


def _show_history(session: Session, task: str) -> None:
    import polars as pl

    from connector.corrections.timeline import history
    from connector.store.label_store import TASK

    store, journal = session.project.store(), session.project.journal()
    known = store.current(TASK).filter((pl.col("task") == task) | (pl.col("key") == task))
    events = history(store, journal, known["task"][0] if len(known) else task)
    if not events:
        raise UsageError(f"nothing is known of a task {task}", "name a task's id, or its item's key")
    columns = ("at", "who", "what", "annotation", "before", "after", "why", "plan")
    rows = [tuple(getattr(one, name) for name in columns) for one in events]
    session.table(f"Task {task}", columns, rows)
    told = [dict(zip(columns, row, strict=True)) for row in rows]
    session.answer(
        {"task": task, "events": told, "source": session.source(store=store.url, journal=journal.url)}
    )


@correct.command()
@click.option("--head", help="The hash that this command printed earlier: nothing up to there was cut off.")
@pass_session
def verify(session: Session, head: str | None) -> None:
    """Check that the journal of corrections was not changed.

    Each line contains the hash of the line before, and the last line of each segment is a seal that only a
    holder of the key (LABELING_JOURNAL_KEY) can make: a journal that was rewritten is found. The label store
    notes with each pull how far it has read: a journal that is missing or shortened is found up to there.
    To prove that its end was not cut off since, keep the last hash elsewhere and compare it with --head.
    Without the key, only hashes and notes are compared.

    \b
    Example:
        connector correct verify
    """
    from connector.config import JOURNAL_KEY
    from connector.journal.keys import configured_keys

    project = session.project
    journal = project.authenticated_journal() if configured_keys() else project.journal()
    found = journal.chain(head)
    session.say(f"{found.lines} lines in {found.segments} segments; the last has the hash {found.head}")
    if found.authenticated:
        session.say("authenticated: a holder of the key wrote all of them")
    else:
        session.say(f"not authenticated: set {JOURNAL_KEY} to check that")
    session.say(f"the first {found.proven} lines are as noted earlier; later ones may have been cut off")
    session.answer(
        {
            "lines": found.lines,
            "segments": found.segments,
            "head": found.head,
            "compared": found.proven,
            "authenticated": found.authenticated,
            "source": session.source(journal=journal.url),
        }
    )


_AFTER_CONFLICTS = (
    "next: where there is an unsaved draft, let its author submit or discard it; then run `connector pull` "
    "and plan again"
)
_AFTER_CONFLICTS_WHEN_UNDONE = (
    "next: to apply what was undone again, run `connector pull`, make a new plan with "
    "`connector correct plan`, and apply that"
)
_AFTER_CONFLICTS_OF_UNDO = (
    "next: what was edited since stays as it is, and can be changed in the tool; where there is an unsaved "
    "draft, let its author submit or discard it, then run the same undo again"
)


def _now() -> datetime:
    return datetime.now(UTC)


def _tell(session: Session, done: Applied, verb: str, dry_run: bool, plan: str | None) -> int | None:
    would = "would be " if dry_run else ""
    why = "they were undone or edited" if done.undone else "they were edited"
    session.say(
        f"run {done.run}: {done.written} {would}{verb}, {done.already} were already, "
        f"{len(done.conflicts)} left out because {why} meanwhile, {len(done.failed)} failed"
    )
    if done.undone:
        session.say(f"{done.undone} of the corrections of run {done.run} had been undone before")
    for reject in (*done.conflicts, *done.notes):
        session.note(f"  {reject.where}: {reject.why}")
    session.answer(
        {
            "run": done.run,
            verb.replace(" ", "_"): done.written,
            "already": done.already,
            "conflicts": _rows(done.conflicts),
            "failed": _rows(done.failed),
            "notes": _rows(done.notes),
            "undone_before": done.undone,
            "stopped": done.stopped and done.stopped.what,
            "dry_run": dry_run,
            "source": session.source(plan=plan, tool=session.project.name),
        }
    )
    failed = session.rejected(done.failed)
    if done.stopped:
        session.note(f"it stopped: {done.stopped}")
    if done.stopped and not isinstance(done.stopped, Conflict):
        return done.stopped.exit_code
    if done.conflicts:
        hint = _AFTER_CONFLICTS_WHEN_UNDONE if done.undone else _AFTER_CONFLICTS
        session.note(hint if plan else _AFTER_CONFLICTS_OF_UNDO)
        return Conflict.exit_code
    return failed


def _rows(rejects: list[Reject]) -> list[dict[str, Any]]:
    return [{"task": r.where.removeprefix("task "), "why": r.why} for r in rejects]
