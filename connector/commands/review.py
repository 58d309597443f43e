"""review draw, queue, collect, estimate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from connector.commands.inputs import (
    answerable,
    chance_options,
    labels_option,
    load,
    merge,
    seed_of,
)
from connector.commands.session import Group, Session, pass_session, rows_option

if TYPE_CHECKING:
    from connector.review.samples import Sample
    from connector.store.labels import Loaded

_FILE = click.Path(path_type=Path)


@click.group(cls=Group)
def review() -> None:
    """An expert looks at a sample; the rest is inferred."""


@review.command()
@labels_option
@click.option(
    "--fraction", type=click.FloatRange(0, 1, min_open=True), help="The share to draw, such as 0.05."
)
@click.option("--size", type=click.IntRange(1), help="How many tasks to draw.")
@click.option(
    "--by",
    type=click.Choice(["random", "stratified"]),
    default="random",
    show_default=True,
    help="How to draw.",
)
@click.option("--seed", type=click.IntRange(0), help="Random seed; by default the configuration's.")
@rows_option
@pass_session
def draw(
    session: Session,
    labels_file: Path | None,
    fraction: float | None,
    size: int | None,
    by: str,
    seed: int | None,
    out: Path | None,
) -> int | None:
    """Draw tasks for review, each with a known probability.

    `stratified` draws from every merged answer to the first choice in proportion.

    \b
    Example:
        connector review draw --fraction 0.05 --seed 7 --out sample.csv
    """
    from connector.review.samples import draw_sample

    labels = load(session, labels_file)
    loaded, merged = labels.loaded, merge(session, labels)
    drawn = _strata_as_written(
        draw_sample(loaded.labels, merged.units, size, fraction, by, seed_of(session, seed)), loaded
    )
    population = sum(drawn.strata.values())
    session.say(f"{len(drawn.tasks)} of {population} tasks drawn ({by}, seed {seed_of(session, seed)})")
    session.write_rows(drawn.tasks, out)
    if out is None:
        session.table("Sample", drawn.tasks.columns, drawn.tasks.rows())
    counted = dict(drawn.tasks.group_by("stratum").len().iter_rows())
    session.answer(
        {
            "drawn": len(drawn.tasks),
            "population": population,
            "strata": [
                {"stratum": name, "population": n, "drawn": counted.get(name, 0)}
                for name, n in drawn.strata.items()
            ],
            "source": session.source(**loaded.source, seed=seed_of(session, seed)),
        }
    )
    return session.rejected(loaded.rejects)


def _strata_as_written(sample: Sample, loaded: Loaded) -> Sample:
    """A sample whose strata are called as the labels were written where they were read.

    All strata are named together, drawn or not, and two of them never get one name.
    """
    import polars as pl

    from connector.quality.kinds import CHOICE
    from connector.quality.sampling import ALL
    from connector.review.samples import Sample

    names = pl.DataFrame({"stratum": [*{**sample.strata, **dict.fromkeys(sample.tasks["stratum"])}]})
    labels = names.filter(pl.col("stratum") != ALL).with_columns(written="stratum", control=pl.lit(CHOICE))
    restored = loaded.written.restore(labels, {CHOICE: CHOICE}, "written").cast(pl.String)
    written = dict(restored.select("stratum", "written").iter_rows())
    if len(set(written.values())) < len(written):
        return sample
    return Sample(
        sample.tasks.with_columns(pl.col("stratum").replace(written)),
        {written.get(name, name): n for name, n in sample.strata.items()},
    )


@review.command()
@click.option("--sample", required=True, type=_FILE, help="What `review draw` wrote.")
@click.option("--name", default="review", show_default=True, help="The list's name in the tool.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@pass_session
def queue(session: Session, sample: Path, name: str, dry_run: bool) -> None:
    """Make the sample a list in the labeling tool, where a reviewer finds it.

    The reviewer answers each task anew, in an own name; that name has the role reviewer in connector.toml.

    \b
    Example:
        connector review queue --sample sample.csv --name "review, week 7"
    """
    from connector.review import samples as room
    from connector.store.labels import source_of

    tasks = room.read_sample(sample)["task"].to_list()
    where = room.queue(session.project.tool(dry_run), tasks, name)
    session.say(f"{len(tasks)} tasks {'would be ' if dry_run else ''}in the list {name!r}: {where}")
    session.answer(
        {
            "tasks": len(tasks),
            "name": name,
            "url": where,
            "dry_run": dry_run,
            "source": session.source(sample=source_of(sample)),
        }
    )


@review.command()
@labels_option
@click.option("--sample", required=True, type=_FILE, help="What `review draw` wrote.")
@rows_option
@pass_session
def collect(session: Session, labels_file: Path | None, sample: Path, out: Path | None) -> int | None:
    """Compare the reviewers' answers to a sample with the consensus.

    \b
    Example:
        connector pull && connector review collect --sample sample.csv --out verdicts.csv
    """
    from connector.quality.review import verdicts
    from connector.review.samples import read_sample
    from connector.store.labels import source_of

    labels = load(session, labels_file)
    loaded, units = labels.loaded, labels.units
    drawn = read_sample(sample)
    with answerable("let the reviewers settle it in the tool, then pull"):
        found = verdicts(units, merge(session, labels).units)
    mine = found.join(drawn, on="task", how="semi")
    done = mine["task"].n_unique()
    wrong = mine.filter(correct=0)["task"].n_unique()
    session.say(f"{done} of {len(drawn)} drawn tasks were reviewed; the consensus is wrong in {wrong}")
    session.write_rows(mine, out)
    session.answer(
        {
            "drawn": len(drawn),
            "reviewed": done,
            "wrong": wrong,
            "source": session.source(**loaded.source, sample=source_of(sample)),
        }
    )
    return session.rejected(loaded.rejects)


@review.command()
@click.option("--sample", required=True, type=_FILE, help="What `review draw` wrote.")
@click.option(
    "--verdicts", required=True, type=_FILE, help="Columns task, correct (1 or 0); control optional."
)
@chance_options
@pass_session
def estimate(session: Session, sample: Path, verdicts: Path, confidence: float, seed: int | None) -> None:
    """Infer the error rate of all tasks from the reviewed ones.

    A task is wrong if any of its questions is.

    \b
    Example:
        connector review estimate --sample sample.csv --verdicts verdicts.csv --json
    """
    from connector.review.samples import estimate as infer
    from connector.review.samples import read_sample, read_verdicts
    from connector.store.labels import source_of

    found = infer(read_sample(sample), read_verdicts(verdicts), confidence)
    session.say(
        f"error rate of all {found.population} tasks: {found.error_rate} "
        f"({found.reviewed} of {found.drawn} drawn were reviewed)"
    )
    for control, rate in found.controls.items():
        session.say(f"  {control}: {rate}")
    if found.uncovered:
        session.say(
            f"{found.uncovered} of {found.population} tasks are in strata from which nothing was drawn; the "
            "strata that were drawn from stand for them"
        )
    if found.notice:
        session.note(found.notice)
    session.answer(
        {
            "error_rate": found.error_rate,
            "population": found.population,
            "drawn": found.drawn,
            "reviewed": found.reviewed,
            "method": found.error_rate.method,
            "controls": found.controls,
            "uncovered": found.uncovered,
            "strata": found.strata.to_dicts(),
            **({"notice": found.notice} if found.notice else {}),
            "source": session.source(
                sample=source_of(sample), verdicts=source_of(verdicts), seed=seed_of(session, seed)
            ),
        }
    )
