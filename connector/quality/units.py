"""From what was drawn and answered to the things annotators can agree or differ on.

An answer is one unit for each task and control. Drawn regions are aligned into units: one region per
annotation at most, drawn for the same thing; an annotation without one there says `ABSENT`. An answer about a
drawn region is a unit under that region's. A relation is a unit between two units;
an annotation without it says `ABSENT`. Everyone is aligned
together, whatever the role; statistics choose roles afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from connector.quality.alignment import align
from connector.quality.answers import ABSENT, deepest, joined
from connector.quality.interval import Floats, Ints
from connector.quality.kinds import CHOICE, DRAWN, MEASURED, RELATION, TAXONOMY, Shapes
from connector.quality.similarity.rows import offsets_of, place_in_row
from connector.quality.table import UNDIRECTED, Labels

WHOLE = "whole"
"""The unit of an answer about the whole task."""

ONE_WAY, BOTH_WAYS = " → ", " ↔ "
"""Between the ends in the name of a relation's unit."""

UNIT = ["task", "control", "unit"]

ANSWERS_AT_ONCE = 1 << 18
"""The tasks of about so many annotations are worked on at once."""

_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "task": pl.String,
    "control": pl.String,
    "kind": pl.String,
    "unit": pl.String,
    "annotation": pl.String,
    "annotator": pl.String,
    "role": pl.String,
    "gold": pl.Boolean,
    # Of an annotator who answered the task several times: 0 of the last answer, which counts; 1 of the one
    # before it, and so on. Null is as 0.
    "turn": pl.Int32,
    "label": pl.String,
    "region": pl.String,
    "similarity": pl.Float64,  # mean, to the unit's other regions; null for an answer, or alone
    "shape": pl.List(pl.Float64),  # as `kinds` tells; null for an answer, and where nothing was drawn
    "picture_width": pl.Float64,
    "picture_height": pl.Float64,
    # Of several things that a page shows, the one that an answer is about; of a relation, `UNDIRECTED` if it
    # has no direction; else null.
    "place": pl.String,
    "parent_control": pl.String,  # the drawn unit that an answer is about, or a relation starts at
    "parent_unit": pl.String,
    "end_control": pl.String,  # the drawn unit that a relation ends at
    "end_unit": pl.String,
}
UNITS = pl.Schema(_COLUMNS)

_PICTURE = ["picture_width", "picture_height"]
SHAPE = ["shape", *_PICTURE]

ABOUT = ["place", "parent_control", "parent_unit", "end_control", "end_unit"]
"""What a unit is about. A unit's name is to be shown, and never taken apart: controls may have any name."""

CONTENT = [
    *(pl.col("shape").list.get(n, null_on_oob=True) for n in range(6)),
    pl.col("shape").list.len(),
    pl.col("shape").list.sum(),
]
"""What shapes are sorted by; those that are equal in this are, but for strange exceptions, the same."""


def units(
    labels: Labels, thresholds: Mapping[str, float] | None = None, same_label: bool = False
) -> pl.DataFrame:
    """The unit table of all controls, sorted.

    Args:
        labels: who said what.
        thresholds: by kind, the least similarity at which two regions may be one thing; what is not named is
            as in `kinds.DRAWN`.
        same_label: whether only regions of one label may be one thing. By default geometry decides, and
            labels are compared afterwards: a box with the wrong label is a confusion, and not a miss and an
            invention.

    Returns:
        Schema `UNITS`. The order of the input and of the annotators does not matter.
    """
    least = {kind: drawn.threshold for kind, drawn in DRAWN.items()} | dict(thresholds or {})
    people = with_turns(labels.answers).sort("task", "annotator", "annotation").with_row_index("who")
    block = people.select(pl.col("who").min().over("task") // ANSWERS_AT_ONCE).to_series().to_numpy()
    whose = labels.regions.select("annotation").join(
        people.select("annotation", "who"), on="annotation", how="left", maintain_order="left"
    )
    who = whose["who"].to_numpy()
    order = np.argsort(block[who], kind="stable")
    made = [pl.DataFrame(schema=UNITS)]
    for number in np.unique(block):
        first, last = np.searchsorted(block, [number, number + 1])
        rows = order[slice(*np.searchsorted(block[who[order]], [number, number + 1]))]
        some = people[first:last].with_columns(pl.col("who") - first)
        drawn = labels.regions[rows].with_columns(who=pl.Series(who[rows] - first))
        made.append(_units(some, drawn, labels.controls, least, same_label))
    unknown = labels.uncounted.select("annotation", "control")
    table = pl.concat(made).join(unknown, on=unknown.columns, how="anti", maintain_order="left")
    partial = unknown.filter(pl.col("control").is_null())["annotation"]
    if len(partial):
        unasked = pl.col("annotation").is_in(partial.to_list()) & (pl.col("label") == ABSENT)
        table = table.filter(~unasked)
    return table


def _units(
    people: pl.DataFrame,
    regions: pl.DataFrame,
    controls: Mapping[str, str],
    least: Mapping[str, float],
    same_label: bool,
) -> pl.DataFrame:
    """The same of some tasks; `who` numbers the rows of people, and tells whose a region is."""
    parts: dict[str, pl.DataFrame] = {}
    for control, kind in controls.items():
        if kind in DRAWN:
            drawn = regions.filter(pl.col("control") == control)
            made = _drawn(drawn, people["task"], kind, least[kind], same_label)
            parts[control] = _finished(made, people, control, kind)
    things = pl.concat([pl.DataFrame(schema=UNITS), *parts.values()])
    for control, kind in controls.items():
        if kind in DRAWN or kind not in MEASURED:
            continue
        given = regions.filter(pl.col("control") == control)
        if kind == RELATION:
            made = _relations(given, things, people)
        else:
            said = _said(kind)
            made = pl.concat([_whole(given, said), _under(given, things, said)], how="diagonal")
            if kind == TAXONOMY:
                told = made["label"].unique()
                made = made.with_columns(
                    pl.col("label").replace_strict(
                        told, [deepest(text) for text in told], return_dtype=pl.String
                    )
                )
        made = made.join(people.select("annotation", "who"), on="annotation").sort("task", "unit", "who")
        parts[control] = _finished(made, people, control, kind)
    table = pl.concat([pl.DataFrame(schema=UNITS), *(parts[control] for control in sorted(parts))])
    return table.sort("task", maintain_order=True) if len(parts) > 1 else table


def _finished(made: pl.DataFrame, people: pl.DataFrame, control: str, kind: str) -> pl.DataFrame:
    """The columns of `UNITS`; `made` has `who`, the row of each answer's annotation among people."""
    who = people.select("task", "annotation", "annotator", "role", "gold", "turn")[made["who"]]
    named = {"control": pl.lit(control), "kind": pl.lit(kind)}
    missing = {
        name: pl.lit(None, dtype)
        for name, dtype in _COLUMNS.items()
        if name not in {*made.columns, *who.columns}
    }
    return made.with_columns(who).with_columns(**missing | named).select(UNITS.names()).cast(UNITS)


def with_turns(answers: pl.DataFrame) -> pl.DataFrame:
    """Answers with `turn`, as `UNITS` has it.

    Later answers are those with a later time; where times are the same or unknown, those with the later
    number in their name.

    Args:
        answers: schema `ANSWERS`.
    """
    by, name = ["task", "annotator", "role"], pl.col("annotation")
    several = answers.group_by(by).len().filter(pl.col("len") > 1)
    if not len(several):
        return answers.with_columns(turn=pl.lit(0, pl.Int32))
    ordered = answers.join(several, on=by, how="semi").sort(*by, "created_at", name.str.len_bytes(), name)
    turns = ordered.select(name, turn=(pl.len() - 1 - pl.int_range(pl.len())).over(by).cast(pl.Int32))
    return answers.join(turns, on="annotation", how="left", maintain_order="left").with_columns(
        pl.col("turn").fill_null(0)
    )


LAST = pl.col("turn").fill_null(0) == 0
"""The last answer of each annotator to a task."""


def latest(table: pl.DataFrame) -> pl.DataFrame:
    """The last answer of each annotator to a task: no one is counted twice, or agrees with themselves."""
    return table.filter(LAST)


def keep_roles(table: pl.DataFrame, roles: Sequence[str]) -> pl.DataFrame:
    """The last answers of some roles, as `keep` has them."""
    return keep(table, pl.col("role").is_in(list(roles)) & LAST)


def keep(table: pl.DataFrame, which: pl.Expr) -> pl.DataFrame:
    """Some rows; a unit that only others drew is none among these.

    Where these drew nothing in a task at all, one unit remains and says so: agreeing on nothing is agreeing.
    """
    kept = table.filter(which)
    drawn = (pl.col("label") != ABSENT).any()
    whole = kept.with_columns(
        drawn=drawn.over(UNIT),
        any_drawn=drawn.over("task", "control"),
        first=pl.col("unit").min().over("task", "control"),
    )
    empty = ~pl.col("any_drawn") & (pl.col("unit") == pl.col("first"))
    return whole.filter(pl.col("drawn") | empty).drop("drawn", "any_drawn", "first")


def comparable(both: pl.DataFrame, theirs: str, within: Sequence[str]) -> pl.DataFrame:
    """Of answers that stand beside others, those to which at least one of the two is not `ABSENT`.

    Two annotators who both did not draw what a third drew do not agree on anything by that. Where nothing of
    a task is left, both left it empty, and one row remains that says so.

    Args:
        both: with `UNIT`, label, and the column `theirs`.
        theirs: the other answer.
        within: the columns that name a task, a control and the two who are compared.
    """
    either = (pl.col("label") != ABSENT) | (pl.col(theirs) != ABSENT)
    empty = ~either.any().over(within) & (pl.col("unit") == pl.col("unit").min().over(within))
    return both.filter(either | empty)


def shapes_of(table: pl.DataFrame) -> Shapes:
    """The shapes in a table, row by row. Where a picture's size is unknown it is taken for a square."""
    shape = table["shape"]
    offsets = offsets_of(shape.list.len().fill_null(0).to_numpy())
    values = shape.drop_nulls().explode(empty_as_null=False).to_numpy().astype(float)
    pictures = table.select(pl.col(_PICTURE).fill_null(100.0)).to_numpy()
    return Shapes(values, offsets, pictures)


def _drawn(
    regions: pl.DataFrame, task: pl.Series, kind: str, threshold: float, same_label: bool
) -> pl.DataFrame:
    """A row for each unit and each annotation of its task, in the order of tasks, units and annotations.

    Args:
        regions: of one control; `who` is the place of each region's annotation in `task`.
        task: of every annotation, ascending.
    """
    of_task = task.rle_id()
    sized = regions.with_columns(
        pl.col(_PICTURE).max().over("task", pl.col("place").fill_null("")), task=of_task[regions["who"]]
    )
    # Sorted by what was drawn, so that neither names nor arrival decide a tie.
    drawn = sized.sort("task", "place", *CONTENT, "label", "who", "region")
    first, alike = _aligned(drawn, kind, threshold, same_label)
    at, who = drawn["task"].to_numpy().astype(np.int64), drawn["who"].to_numpy().astype(np.int64)
    people = np.bincount(of_task.to_numpy())
    since = offsets_of(people)
    begins = first == np.arange(len(first))
    # Who all drew nothing agree on that: one unit says so.
    things = np.maximum(np.bincount(at[begins], minlength=len(people)), 1)
    rank = np.cumsum(begins) - 1
    number = rank[first] - rank[np.searchsorted(at, at)]
    rows = offsets_of(things * people)
    place = place_in_row(rows)
    of_row = np.repeat(np.arange(len(people)), things * people)
    source = np.full(len(place), -1)
    source[rows[at] + number * people[at] + who - since[at]] = np.arange(len(at))
    names = pl.Series(
        [f"{number:03}" for number in range(1, int(things.max(initial=0)) + 1)], dtype=pl.String
    )
    found = drawn.select("label", "region", *SHAPE).with_columns(
        similarity=pl.Series(alike, dtype=pl.Float64).fill_nan(None)
    )
    taken = found.select(pl.all().gather(pl.Series(source).replace(-1, None)))
    return taken.with_columns(
        pl.col("label").fill_null(ABSENT),
        unit=names[place // people[of_row]],
        who=pl.Series(since[of_row] + place % people[of_row]),
    )


def _aligned(drawn: pl.DataFrame, kind: str, threshold: float, same_label: bool) -> tuple[Ints, Floats]:
    shapes, how = shapes_of(drawn), DRAWN[kind]
    group = drawn.select(pl.struct("task", "place").rle_id()).to_series().to_numpy().astype(np.int64)
    return align(
        group,
        drawn["who"].to_numpy().astype(np.int64),
        lambda i, j: how.similar(shapes.of(i), shapes.of(j)),
        threshold,
        drawn["label"].rank("dense").to_numpy().astype(np.int64),
        how.bounds(shapes) if how.bounds and len(drawn) else None,
        same_label,
    )


def _said(kind: str) -> pl.Expr:
    """What one annotation says to one question, as one text."""
    label = pl.col("label")
    return joined(label) if kind in (CHOICE, TAXONOMY) else label.unique().sort().str.join("\n")


def _whole(regions: pl.DataFrame, said: pl.Expr) -> pl.DataFrame:
    """Answers about the task: one unit each; of a page that shows several things, one for each of them.

    A table does not say what its answers are about: they are about the only thing there is.
    """
    whole = regions.filter(pl.col("parent").is_null())
    several = pl.when(pl.col("place").drop_nulls().n_unique().over("task") > 1).then(pl.col("place"))
    return (
        whole.with_columns(unit=several.fill_null(WHOLE), place=several)
        .group_by("task", "unit", "annotation")
        .agg(label=said, place=pl.col("place").first())
    )


def _under(regions: pl.DataFrame, things: pl.DataFrame, said: pl.Expr) -> pl.DataFrame:
    """Answers about drawn regions: units under the regions' own.

    Who drew the thing with the same label as somebody who answered, and did not answer, says `ABSENT`; who
    labeled it otherwise was perhaps not asked.
    """
    seen = things.filter(pl.col("region").is_not_null()).select(
        "task",
        "annotation",
        "region",
        thing="label",
        unit=pl.format("{}/{}", "control", "unit"),
        parent_control="control",
        parent_unit="unit",
    )
    given = (
        regions.filter(pl.col("parent").is_not_null())
        .group_by("task", "annotation", "parent")
        .agg(label=said)
        .join(seen, left_on=["task", "annotation", "parent"], right_on=["task", "annotation", "region"])
    )
    asked = seen.join(
        given.select("task", "unit", "thing").unique(), on=["task", "unit", "thing"], how="semi"
    )
    return (
        asked.select("task", "unit", "annotation", "parent_control", "parent_unit")
        .join(
            given.select("task", "unit", "annotation", "label"), on=["task", "unit", "annotation"], how="left"
        )
        .with_columns(label=pl.col("label").fill_null(ABSENT))
    )


def _relations(regions: pl.DataFrame, things: pl.DataFrame, people: pl.DataFrame) -> pl.DataFrame:
    """Relations between units. Every annotation of the task that has not the relation says `ABSENT`.

    So a relation is missed, or invented, whatever the reason: an end that was not drawn, or a link that was
    not made. The ends of a relation without a direction are put in order, so it does not matter from which
    end it was drawn.
    """
    drawn = things.filter(pl.col("region").is_not_null()).select(
        "task", "annotation", "region", "control", thing="unit", unit=pl.format("{}/{}", "control", "unit")
    )
    seen, names = drawn.drop("control", "thing"), drawn.select("task", "unit", "control", "thing").unique()
    start = names.rename({"unit": "start", "control": "parent_control", "thing": "parent_unit"})
    end = names.rename({"unit": "end", "control": "end_control", "thing": "end_unit"})
    key = ["task", "annotation"]
    undirected = pl.col("place").eq_missing(UNDIRECTED)
    first, second = pl.min_horizontal("start", "end"), pl.max_horizontal("start", "end")
    given = (
        regions.join(seen.rename({"region": "parent", "unit": "start"}), on=[*key, "parent"])
        .join(seen.rename({"unit": "end"}), on=[*key, "region"])
        .with_columns(
            start=pl.when(undirected).then(first).otherwise("start"),
            end=pl.when(undirected).then(second).otherwise("end"),
            between=pl.when(undirected).then(pl.lit(BOTH_WAYS)).otherwise(pl.lit(ONE_WAY)),
        )
        .group_by(*key, "place", "start", "between", "end")
        .agg(label=joined(pl.col("label")))
    )
    relation = ["task", "place", "start", "between", "end"]
    asked = given.select(relation).unique().join(people.select(*key), on="task")
    return (
        asked.join(given, on=[*relation, "annotation"], how="left", nulls_equal=True)
        .join(start, on=["task", "start"])
        .join(end, on=["task", "end"])
        .select(
            *key,
            *ABOUT,
            unit=pl.concat_str("start", "between", "end"),
            label=pl.col("label").fill_null(ABSENT),
        )
    )
