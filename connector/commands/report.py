"""report: the picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from connector.commands.inputs import (
    answerable,
    chance_options,
    gold_option,
    labels_option,
    load,
    merge,
    seed_of,
    truth_option,
)
from connector.commands.session import Command, Session, pass_session
from connector.errors import ConnectorError

if TYPE_CHECKING:
    from connector.quality.interval import Estimate
    from connector.store.labels import Loaded

_FILE = click.Path(path_type=Path)


@click.command(cls=Command)
@labels_option
@gold_option
@truth_option
@chance_options
@click.option("--sample", type=_FILE, help="What `review draw` wrote; with --verdicts.")
@click.option("--verdicts", type=_FILE, help="What `review collect` wrote; with --sample.")
@click.option("--plan", type=_FILE, help="What `correct plan` wrote.")
@click.option("--title", default="Label quality", show_default=True, help="Its heading.")
@click.option("--cards", type=click.IntRange(0), default=8, show_default=True, help="Disagreements to draw.")
@click.option("--out", type=_FILE, default=Path("report.html"), show_default=True, help="The page.")
@pass_session
def report(
    session: Session,
    labels_file: Path | None,
    gold_file: Path | None,
    truth: str,
    confidence: float,
    seed: int | None,
    sample: Path | None,
    verdicts: Path | None,
    plan: Path | None,
    title: str,
    cards: int,
    out: Path,
) -> int | None:
    """Write the report, one HTML file.

    It holds everything, pictures included: it can be sent by mail, and opens without a network.

    \b
    Example:
        connector report --gold gold.json --sample sample.csv --verdicts verdicts.csv --out report.html
    """
    from connector.corrections.plan import Plan
    from connector.io.files import write_atomic
    from connector.report import render
    from connector.report.content import content

    labels = load(session, labels_file, gold_file, keep_regions=plan is not None)
    loaded, units = labels.loaded, labels.units
    source = session.source(**loaded.source, seed=seed_of(session, seed))
    with answerable("keep one gold answer per task"):
        data = content(
            title,
            datetime.now(UTC),
            [
                (name, value if isinstance(value, str) else json.dumps(value))
                for name, value in source.items()
            ],
            loaded.labels,
            units,
            merge(session, labels, truth, seed, confidence),
            session.settings.quality.gold_limit,
            confidence,
            loaded.tasks,
            _pictures(session, loaded),
            _error_rate(sample, verdicts, confidence),
            Plan.load(plan).corrections if plan else (),
            cards,
            session.settings.quality.gold_least,
            loaded.not_counted,
        )
    write_atomic(out, render(data).encode())
    session.say(f"report: {out}")
    session.answer({"report": str(out), "source": source})
    return session.rejected(loaded.rejects)


def _error_rate(sample: Path | None, verdicts: Path | None, confidence: float) -> Estimate | None:
    from connector.review.samples import estimate, read_sample, read_verdicts

    if sample is None or verdicts is None:
        return None
    return estimate(read_sample(sample), read_verdicts(verdicts), confidence).error_rate


def _pictures(session: Session, loaded: Loaded) -> Callable[[str], bytes | None]:
    """Reads a task's picture from the bucket; a task without one, or an unreachable bucket, has none."""
    from connector.report.content import PICTURE_BYTES

    keys = dict(zip(loaded.tasks["task"], loaded.tasks["key"], strict=True))

    def picture(task: str) -> bytes | None:
        if task not in keys:
            return None
        try:
            raw = session.project.raw()
            return raw.head(raw.path_of(keys[task]), PICTURE_BYTES + 1)
        except ConnectorError as error:
            session.detail(f"no picture of task {task}: {error.what}")
            return None

    return picture
