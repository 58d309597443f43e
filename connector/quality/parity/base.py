"""What is compared: every two annotations of a task, question by question."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from connector.quality.answers import ABSENT, joined
from connector.quality.interval import Floats, Ints
from connector.quality.kinds import CHOICE, DRAWN, Shapes
from connector.quality.table import Labels
from connector.quality.units import shapes_of


@dataclass(frozen=True, slots=True)
class Side:
    """What was said to one question, row by row: of a choice about a drawn thing, that thing's shape too."""

    rows: pl.DataFrame
    shapes: Shapes | None
    drawn: str


def side_of(labels: Labels, control: str) -> Side:
    rows = labels.regions.filter(pl.col("control") == control, pl.col("label") != ABSENT)
    kind = str(labels.controls[control])
    if kind in DRAWN:
        return Side(rows, shapes_of(rows), kind)
    if kind != CHOICE or rows["parent"].is_null().all():
        return Side(rows, None, "")
    # The answer is about a thing: it has that thing's place, and must have that thing's kind of place.
    things = labels.regions.filter(pl.col("shape").is_not_null()).select(
        "task", "annotation", "region", "shape", "picture_width", "picture_height", thing="control"
    )
    about = (
        rows.drop("shape", "picture_width", "picture_height")
        .join(things, left_on=["task", "annotation", "parent"], right_on=["task", "annotation", "region"])
        .group_by("task", "annotation", "parent", maintain_order=True)
        .agg(joined(pl.col("label")), pl.col("shape", "picture_width", "picture_height", "thing").first())
    )
    kinds = {str(labels.controls[name]) for name in about["thing"].unique()}
    return Side(about, shapes_of(about), kinds.pop() if len(kinds) == 1 else "")


def counts(side: Side, both: pl.DataFrame) -> pl.DataFrame:
    """How many rows each side of a pair has; pairs that have none on either are left out."""
    n = side.rows.group_by("annotation").len()
    counted = both.join(n.select(a="annotation", n_a="len"), on="a", how="left").join(
        n.select(b="annotation", n_b="len"), on="b", how="left"
    )
    counted = counted.with_columns(pl.col("n_a", "n_b").fill_null(0).cast(pl.Float64)).sort("pair")
    return counted.filter(pl.col("n_a") + pl.col("n_b") > 0)


def crossed(side: Side, both: pl.DataFrame) -> tuple[Ints, Ints, Ints, pl.DataFrame]:
    """Every row of one side of a pair with every row of the other: the pair, both rows, both labels."""
    rows = side.rows.select("annotation", "label").with_row_index("row")
    left = both.select("pair", "b", annotation="a").join(rows, on="annotation")
    crossed = left.select("pair", "b", i="row", label_a="label").join(
        rows.select(b="annotation", j="row", label_b="label"), on="b"
    )
    crossed = crossed.sort("pair", "i", "j")
    pair, i, j = (crossed[name].to_numpy().astype(np.int64) for name in ("pair", "i", "j"))
    return pair, i, j, crossed


def scored(counted: pl.DataFrame, score: Floats, weight: Floats | None = None) -> pl.DataFrame:
    weight = np.ones(len(counted)) if weight is None else weight
    return counted.select(
        "task",
        "annotator_a",
        "annotator_b",
        score=pl.Series(score, dtype=pl.Float64),
        weight=pl.Series(weight, dtype=pl.Float64),
    )


def said(side: Side, both: pl.DataFrame, plain: Callable[[pl.Expr], pl.Expr]) -> pl.DataFrame:
    """The answers of both sides of each pair as one text each, where both or one gave any."""
    told = side.rows.group_by("annotation").agg(said=plain(pl.col("label")))
    return (
        both.join(told.select(a="annotation", said_a="said"), on="a", how="left")
        .join(told.select(b="annotation", said_b="said"), on="b", how="left")
        .filter(pl.col("said_a").is_not_null() | pl.col("said_b").is_not_null())
        .sort("pair")
    )


def as_they_stand(label: pl.Expr) -> pl.Expr:
    return label.str.join("\n")


def equal(said: pl.DataFrame) -> pl.DataFrame:
    same = said.select((pl.col("said_a") == pl.col("said_b")).fill_null(False).cast(pl.Float64))
    return scored(said, same.to_series().to_numpy())
