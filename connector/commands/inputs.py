"""What the commands on labels have in common: where labels come from, and how they are aligned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from connector.commands.session import Session
from connector.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from connector.labels import Loaded
    from connector.quality.consensus import Consensus

F = TypeVar("F", bound=Callable[..., Any])


def labels_option(function: F) -> F:
    """--labels."""
    return click.option(
        "--labels",
        "labels_file",
        type=click.Path(path_type=Path),
        help="A .csv, .parquet, .jsonl table or a .json export; by default the label store.",
    )(function)


def gold_option(function: F) -> F:
    """--gold."""
    return click.option(
        "--gold",
        "gold_file",
        type=click.Path(path_type=Path),
        help="Known answers, in the same forms; by default what is marked as ground truth.",
    )(function)


def out_option(function: F) -> F:
    """--out."""
    return click.option(
        "--out", type=click.Path(path_type=Path), help="Write the rows to a .csv, .parquet or .jsonl file."
    )(function)


def chance_options(function: F) -> F:
    """--confidence and --seed."""
    function = click.option(
        "--seed", type=click.IntRange(0), help="Of chance; by default the configuration's."
    )(function)
    return click.option(
        "--confidence",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.95,
        show_default=True,
        help="Of the intervals.",
    )(function)


def truth_option(function: F) -> F:
    """--truth."""
    return click.option(
        "--truth",
        type=click.Choice(["majority", "dawid-skene"]),
        default="majority",
        show_default=True,
        help="How answers are merged.",
    )(function)


def load(session: Session, labels_file: Path | None, gold_file: Path | None = None) -> Loaded:
    """The labels to work on."""
    from connector.labels import read_file, with_gold

    loaded = read_file(labels_file) if labels_file else session.line.labels()
    for control, kind in loaded.unmeasured.items():
        session.detail(f"control {control} is of kind {kind}, which is not measured yet")
    return with_gold(loaded, read_file(gold_file, gold=True)) if gold_file else loaded


def align(session: Session, loaded: Loaded) -> pl.DataFrame:
    """The unit table of the labels."""
    from connector.quality.kinds import DRAWN
    from connector.quality.units import units

    unknown = sorted(set(session.config.quality.thresholds) - set(DRAWN))
    if unknown:
        raise UsageError(
            f"quality.thresholds names {unknown[0]!r}, which is no kind that is drawn",
            f"use some of {', '.join(DRAWN)}",
        )
    return units(loaded.labels, session.config.quality.thresholds)


def merge(
    session: Session,
    units: pl.DataFrame,
    truth: str = "majority",
    seed: int | None = None,
    confidence: float = 0.95,
) -> Consensus:
    """The consensus of the persons."""
    from connector.quality.consensus import consensus

    return consensus(units, seed_of(session, seed), truth, confidence=confidence)


def seed_of(session: Session, seed: int | None) -> int:
    """The seed that was given, or the configuration's."""
    configured = session.config.quality.seed
    return configured if seed is None else seed


@contextmanager
def answerable(hint: str) -> Iterator[None]:
    """What the quality room has no answer to, said as an error of ours."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error), hint) from error
