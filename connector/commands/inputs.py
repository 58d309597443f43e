"""What the commands on labels have in common: where labels come from, and how they are aligned."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from connector.commands.session import Session
from connector.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from connector.io.reading import Read, Reading
    from connector.model import Ontology
    from connector.quality.consensus import Consensus
    from connector.quality.interval import Estimate
    from connector.store.label_store import Version
    from connector.store.labels import Loaded
    from connector.store.parts import Aligned

F = TypeVar("F", bound=Callable[..., Any])

_LEVELS = ("nominal", "ordinal", "interval", "ratio", "similarity")

_LEVEL, _ORDER = "connector.level", "connector.order"
_ONTOLOGY, _VERSION, _ENGINE = "connector.ontology", "connector.version", "connector.engine"
_READING = "connector.reading"


def _remember(ctx: click.Context, option: click.Parameter, value: object) -> None:
    ctx.meta[_ONTOLOGY if option.name == "ontology_file" else _ENGINE] = value


def engine_option(function: F) -> F:
    """--engine, which `load` finds in the context."""
    return click.option(
        "--engine",
        expose_value=False,
        callback=_remember,
        metavar="ENGINE",
        help="Where the label store's labels are aligned: local, or dask://host:port.",
    )(function)


def _remember_reading(ctx: click.Context, option: click.Parameter, value: object) -> None:
    if value is not None and option.name:
        ctx.meta.setdefault(_READING, {})[option.name] = value


def reading_options(function: F) -> F:
    """What a label file itself leaves open, which `load` finds in the context."""
    options: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (
            ("--columns",),
            {"metavar": "ROLE=COLUMN,…", "help": "Name columns: task=HITId,annotator=WorkerId,label=answer."},
        ),
        (
            ("--wide",),
            {"is_flag": True, "default": None, "help": "A table with one column for each annotator."},
        ),
        (
            ("--multi-label",),
            {
                "metavar": "SEP",
                "help": "What separates several labels in a cell; '' if nothing does.",
            },
        ),
        (
            ("--merge-similar",),
            {"is_flag": True, "default": None, "help": "Merge labels that differ only by case or spaces."},
        ),
        (
            ("--keep-missing",),
            {
                "is_flag": True,
                "default": None,
                "help": "NaN, NA, None and null are labels, not empty answers.",
            },
        ),
        (
            ("--repeats",),
            {
                "type": click.Choice(["last", "all", "labels"]),
                "help": "Several answers of an annotator to one question: only the last is read; all are, "
                "the last counts and the others show consistency (in an export by default); or, in a table, "
                "they are labels of one answer.",
            },
        ),
        (
            ("--date-format",),
            {"metavar": "FORMAT", "help": "Of created_at, such as '%m/%d/%Y %H:%M'; ISO 8601 by default."},
        ),
        (
            ("--decimal",),
            {
                "type": click.Choice([".", ","]),
                "help": "The decimal sign of seconds and of labels that are numbers.",
            },
        ),
        (("--encoding",), {"metavar": "NAME", "help": "Of a text file; by default detected."}),
    ]
    for names, more in reversed(options):
        function = click.option(*names, expose_value=False, callback=_remember_reading, **more)(function)
    return function


def reading_given() -> Reading:
    """What the command line says of how files are read."""
    from connector.io.reading import Reading, columns_of

    given = dict(click.get_current_context().meta.get(_READING, {}))
    if "columns" in given:
        given["columns"] = columns_of(given["columns"])
    return Reading(**given)


def as_version(ctx: click.Context, _: click.Parameter, value: str | None) -> Version | None:  # noqa: ARG001
    """What names a version of the label store: a number, or else the name of a snapshot."""
    return int(value) if value and re.fullmatch("-?[0-9]+", value) else value


def _remember_version(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    ctx.meta[_VERSION] = as_version(ctx, param, value)


def _remember_scales(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> None:
    """`CONTROL=VALUE`, or `VALUE` for every control that it suits."""
    found: dict[str, str] = {}
    for text in values:
        control, equals, value = text.rpartition("=")
        if control in found:
            raise click.BadParameter(f"it is given twice for {control or 'all controls'}", ctx, option)
        if option.name == "level" and value not in _LEVELS:
            raise click.BadParameter(f"{value!r} is not one of {', '.join(_LEVELS)}", ctx, option)
        found[control if equals else ""] = value
    ctx.meta[_LEVEL if option.name == "level" else _ORDER] = found


def _scale_options(function: F) -> F:
    """--level and --order, which `load` finds in the context."""
    function = click.option(
        "--order",
        multiple=True,
        expose_value=False,
        callback=_remember_scales,
        metavar="[CONTROL=]A,B,C",
        help="Ordered answers, the lowest first; may be repeated. Without --level they are ordinal.",
    )(function)
    return click.option(
        "--level",
        multiple=True,
        expose_value=False,
        callback=_remember_scales,
        metavar="[CONTROL=]LEVEL",
        help="What differences between answers mean: nominal, ordinal, interval, ratio or similarity; may be "
        "repeated. By default what suits each control's kind.",
    )(function)


def labels_option(function: F) -> F:
    """--labels, with --ontology, --store-version, --engine, --level and --order, which `load` finds in the
    context."""
    function = _scale_options(function)
    function = click.option(
        "--store-version",
        expose_value=False,
        callback=_remember_version,
        help="A version of the label store: its number, or the name of a snapshot; by default the newest.",
    )(engine_option(function))
    function = reading_options(function)
    function = click.option(
        "--ontology",
        "ontology_file",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_remember,
        help="The labeling configuration of a .json export; what it does not allow is rejected.",
    )(function)
    return click.option(
        "--labels",
        "labels_file",
        type=click.Path(path_type=Path),
        help="A table (.csv, .tsv, .jsonl, .parquet, .xlsx, …) or an export; by default the label store.",
    )(function)


def gold_option(function: F) -> F:
    """--gold."""
    return click.option(
        "--gold",
        "gold_file",
        type=click.Path(path_type=Path),
        help="Known answers, in the same forms; by default what is marked as ground truth.",
    )(function)


def chance_options(function: F) -> F:
    """--confidence and --seed."""
    function = click.option(
        "--seed", type=click.IntRange(0), help="Random seed; by default the configuration's."
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
        help=(
            "How answers are merged: the label most annotators gave, or the estimate of Dawid and Skene's "
            "model, whose `confidence` is a model score and not a calibrated probability."
        ),
    )(function)


def like_option(function: F) -> F:
    """--like."""
    return click.option(
        "--like",
        type=click.Choice(["label-studio-enterprise", "labelbox", "cvat"]),
        help="Show also what that tool would show, by its own published definitions.",
    )(function)


def like_json(
    session: Session, loaded: Loaded, like: str | None, gold: bool, confidence: float
) -> dict[str, Any]:
    """What another tool would show: told, and as a part of the answer."""
    from connector.quality.parity import parity

    if like is None:
        return {}
    found = parity(loaded.labels, like, gold, confidence)
    rows: list[tuple[str, Estimate]] = [*found.controls.items(), ("all together", found.overall)]
    session.table(f"As {like} shows it", ("control", "score"), [(name, short(one)) for name, one in rows])
    return {
        "like": {
            "tool": like,
            "overall": found.overall,
            "controls": [{"control": name, "score": score} for name, score in found.controls.items()],
            "annotators": [{"annotator": who, "score": score} for who, score in found.annotators.items()],
        }
    }


def short(estimate: Estimate) -> str:
    """A number and its interval in a table's cell."""
    if estimate.value is None:
        return f"– ({estimate.why})"
    return f"{estimate.value:.3f}" + (
        f" [{estimate.low:.3f}, {estimate.high:.3f}]" if estimate.low is not None else ""
    )


def load(
    session: Session, labels_file: Path | None, gold_file: Path | None = None, keep_regions: bool = False
) -> Aligned:
    """The labels to work on, and their unit table.

    Args:
        keep_regions: whether what was drawn is wanted besides the units.
    """
    from connector.config import NoConfiguration
    from connector.formats.label_files import read_file
    from connector.store.labels import EmptyStore, declared, with_gold
    from connector.store.parts import align

    thresholds = _thresholds(session)
    ontology, meta = _ontology(labels_file), click.get_current_context().meta
    version = meta.get(_VERSION)
    reading = reading_given()
    gold = read_file(gold_file, True, ontology, reading) if gold_file else None
    if labels_file and version is not None:
        raise UsageError("--store-version is of the label store, and --labels is given", "say one of them")
    if labels_file:
        people = read_file(labels_file, ontology=ontology, reading=reading)
        _report(session, people.read, gold.read if gold else None)
        found = align(with_gold(people, gold) if gold else people, thresholds)
    else:
        _report(session, None, gold.read if gold else None)
        try:
            with session.progress("align") as progress:
                found = session.project.aligned(version, gold, meta.get(_ENGINE), keep_regions, progress)
        except (EmptyStore, NoConfiguration) as error:
            options = {option.name for option in click.get_current_context().command.params}
            hint = f"{error.hint}, or give --labels" if "labels_file" in options else error.hint
            raise type(error)(error.what, hint) from error
    orders = {name: order.split(",") for name, order in meta.get(_ORDER, {}).items()}
    tolerances = session.settings.quality.tolerances
    if labels_file:  # the configuration is of the store's controls, of which a file may have others
        tolerances = {name: one for name, one in tolerances.items() if name in found.loaded.labels.controls}
    labels = declared(found.loaded.labels, tolerances, meta.get(_LEVEL, {}), orders)
    found = replace(found, loaded=replace(found.loaded, labels=labels))
    for control, kind in found.loaded.unmeasured.items():
        session.detail(f"control {control} is of kind {kind}, which is not measured yet")
    for left_out in found.loaded.not_counted:
        session.say(str(left_out))
    return found


def _report(session: Session, labels: Read | None, gold: Read | None) -> None:
    """Report what was found in files: a line for each, and below it what a person should know or decide."""
    meta = click.get_current_context().meta
    if meta.get(_LEVEL) or meta.get(_ORDER):
        labels, gold = _without_level_hint(labels), _without_level_hint(gold)
    for read in (labels, gold):
        if read is not None and not session.as_json:
            session.note(str(read))
            for notice in read.notices:
                session.note(f"  {notice}")
    if labels or gold:
        whole = labels.to_json() if labels else {}
        session.read = {**whole, "gold": gold.to_json()} if gold else whole


def _without_level_hint(read: Read | None) -> Read | None:
    """What was found, without a hint at the option that was given."""
    from connector.io.reading import NUMERIC

    return read and replace(read, notices=[notice for notice in read.notices if notice != NUMERIC])


def as_written(rows: pl.DataFrame, loaded: Loaded, *columns: str) -> pl.DataFrame:
    """Rows whose labels are written as they were where they were read.

    Args:
        columns: which hold labels.
    """
    return loaded.written.restore(rows, loaded.labels.controls, *columns)


def _thresholds(session: Session) -> Mapping[str, float]:
    from connector.quality.kinds import DRAWN

    thresholds = session.settings.quality.thresholds
    unknown = sorted(set(thresholds) - set(DRAWN))
    if unknown:
        raise UsageError(
            f"quality.thresholds names {unknown[0]!r}, which is no kind that is drawn",
            f"use some of {', '.join(DRAWN)}",
        )
    return thresholds


def _ontology(labels_file: Path | None) -> Ontology | None:
    """The ontology of --ontology."""
    from connector.adapters.label_studio.ontology import parse_config

    file: Path | None = click.get_current_context().meta.get(_ONTOLOGY)
    if file is None:
        return None
    if labels_file is None:
        raise UsageError("--ontology is of an export, and no --labels is given", "the store knows its own")
    if not file.is_file():
        raise UsageError(f"file not found: {file}", "name the file of the labeling configuration")
    return parse_config(file.read_text(encoding="utf-8-sig"))


def merge(
    session: Session,
    labels: Aligned,
    truth: str = "majority",
    seed: int | None = None,
    confidence: float = 0.95,
    analytic: bool = False,
) -> Consensus:
    """The consensus of the persons."""
    from connector.quality.consensus import consensus

    chance = seed_of(session, seed)
    scales = labels.loaded.labels.scales
    return consensus(labels.units, chance, truth, confidence=confidence, analytic=analytic, scales=scales)


def seed_of(session: Session, seed: int | None) -> int:
    """The seed that was given, or the configuration's."""
    configured = session.settings.quality.seed
    return configured if seed is None else seed


@contextmanager
def answerable(hint: str) -> Iterator[None]:
    """What the quality room has no answer to, said as an error of ours."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error), hint) from error
