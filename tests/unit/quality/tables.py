"""Small ways to write labels down in tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import polars as pl

from connector.quality.kinds import BOX, CHOICE, SPAN
from connector.quality.table import ANSWERS, REGIONS, Labels
from connector.quality.units import UNITS

Row = tuple[str, str, str]
"""task, annotator, label."""

Drawn = tuple[str, float, float, float, float]
"""label, x, y, width, height."""


def choices(rows: Sequence[Row], roles: Mapping[str, str] | None = None) -> pl.DataFrame:
    """The unit table of one choice control; a repeated (task, annotator) is a later answer, which counts."""
    later = Counter[tuple[str, str]]()
    turns = []
    for task, who, _ in reversed(rows):
        turns.append(later[task, who])
        later[task, who] += 1
    return pl.DataFrame(
        [
            {
                "task": task,
                "control": "c",
                "kind": CHOICE,
                "unit": "choice",
                "annotation": f"{task}/{who}/{n}",
                "annotator": who,
                "role": (roles or {}).get(who, "person"),
                "gold": (roles or {}).get(who) == "gold",
                "turn": turn,
                "label": label,
            }
            for n, ((task, who, label), turn) in enumerate(zip(rows, reversed(turns), strict=True))
        ],
        schema_overrides={"label": pl.String, "turn": pl.Int32},
    ).pipe(lambda made: pl.concat([pl.DataFrame(schema=UNITS), made], how="diagonal"))


def last_of(rows: Sequence[Row]) -> list[Row]:
    """The last answer of each annotator to each task."""
    return [row for n, row in enumerate(rows) if row[:2] not in [later[:2] for later in rows[n + 1 :]]]


def of_kind(kind: str, units: Sequence[Sequence[object]]) -> pl.DataFrame:
    """The unit table of one control of a kind: what each of some annotators said of each task; None is
    nothing."""
    rows = [
        (f"{n:04}", f"r{w}", str(one))
        for n, unit in enumerate(units)
        for w, one in enumerate(unit)
        if one is not None
    ]
    return choices(rows).with_columns(kind=pl.lit(kind))


def ratings(columns: Mapping[str, str], missing: str = ".") -> pl.DataFrame:
    """The unit table of annotators' strings of one-letter answers, unit by unit."""
    return choices(
        [
            (f"{n:03}", who, one)
            for who, said in columns.items()
            for n, one in enumerate(said)
            if one != missing
        ]
    )


def boxes(
    answers: Mapping[tuple[str, str], Sequence[Drawn]], roles: Mapping[str, str] | None = None
) -> Labels:
    """Labels of one box control: what each annotator drew in each task."""
    rows = [
        (task, f"{task}/{who}", who, role, role == "gold", None, None)
        for task, who in answers
        for role in [(roles or {}).get(who, "person")]
    ]
    regions = [
        (task, f"{task}/{who}", "b", str(n), None, None, label, [*map(float, place), 0.0], None, None)
        for (task, who), drawn in answers.items()
        for n, (label, *place) in enumerate(drawn)
    ]
    return Labels(
        pl.DataFrame(rows, schema=ANSWERS, orient="row"),
        pl.DataFrame(regions, schema=REGIONS, orient="row"),
        {"b": BOX},
    )


def spans(
    answers: Mapping[tuple[str, str], Sequence[tuple[str, float, float]]],
    roles: Mapping[str, str] | None = None,
) -> Labels:
    """Labels of one control of spans in a text: label, start and end of each that was marked."""
    placed = {key: [(label, 0, 0, 0, 0) for label, *_ in drawn] for key, drawn in answers.items()}
    shapes = [[float(start), float(end)] for drawn in answers.values() for _, start, end in drawn]
    plain = boxes(placed, roles)
    shape = pl.Series("shape", shapes, dtype=pl.List(pl.Float64))
    return Labels(plain.answers, plain.regions.with_columns(shape), {"b": SPAN})
