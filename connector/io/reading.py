"""How to read a file of labels, what was found in it, and how its labels were written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from connector.errors import UsageError
from connector.quality.answers import ABSENT, SEVERAL, parted
from connector.quality.kinds import CHOICE, DRAWN, RELATION, TAXONOMY

ROLES = ("task", "annotator", "label", "control", "seconds", "created_at", "role")
"""What a column of a long table can be."""

REGION_ROLES = (
    *("x", "y", "width", "height", "xmin", "ymin", "xmax", "ymax", "start", "end"),
    *("image_width", "image_height"),
)
"""What a column of a table of regions can be besides."""

NUMERIC = "the labels look like numbers: give --level ordinal or interval if their order has a meaning"
"""The hint of a file whose labels are numbers."""

REPEATS = ("last", "all", "labels")

_ENCODED = {CHOICE, TAXONOMY, RELATION, *DRAWN}
"""The kinds whose label may stand for several, as `quality.answers.joined` writes them."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is to be read, where the file itself leaves it open.

    Attributes:
        columns: of each role the columns that have it, as the file names them. Only `label` and, in a wide
            table, `annotator` may have several.
        wide: the table has one column per annotator.
        multi_label: what separates several labels in one cell; the empty text: a cell is always one label.
        merge_similar: labels that differ only by case or spaces are one.
        keep_missing: `NaN`, `NA`, `None` and `null` are labels like any other.
        repeats: what several answers of one annotator to one question are: `last` (only the last is read),
            `all` (the last counts, the others show consistency) or, in a table, `labels` (several labels of
            one answer). By default what the rows of a table suggest, and `all` of an export.
        date_format: of `created_at`, as `strptime` has it; by default ISO 8601.
        decimal: the decimal sign of `seconds`, and of labels that are numbers.
        encoding: of a text file; by default detected.
    """

    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    wide: bool = False
    multi_label: str | None = None
    merge_similar: bool = False
    keep_missing: bool = False
    repeats: str | None = None
    date_format: str | None = None
    decimal: str = "."
    encoding: str | None = None


def columns_of(text: str) -> dict[str, tuple[str, ...]]:
    """The columns that `--columns` names, by role.

    >>> columns_of("task=HITId,label=a,label=b, c")
    {'task': ('HITId',), 'label': ('a', 'b, c')}

    Raises:
        UsageError: if a part is not ROLE=COLUMN, or a role is given twice that only one column can have.
    """
    roles = "|".join((*ROLES, *REGION_ROLES))
    found: dict[str, tuple[str, ...]] = {}
    for part in re.split(rf",(?=\s*(?:{roles})\s*=)", text):
        role, sign, column = part.partition("=")
        role = role.strip()
        if not sign or not column or role not in (*ROLES, *REGION_ROLES):
            raise UsageError(
                f"--columns: {part!r} is not ROLE=COLUMN",
                f"write task=COLUMN,annotator=COLUMN,label=COLUMN; the roles are {', '.join(ROLES)}",
            )
        found[role] = (*found.get(role, ()), column)
    for role, columns in found.items():
        if len(columns) > 1 and role not in ("label", "annotator"):
            raise UsageError(f"--columns names {role} twice", "name one column for it")
    return found


DECIMAL_POINT, DECIMAL_COMMA = r"^\s*[-+]?\d+\.\d+\s*$", r"^\s*[-+]?\d+,\d+\s*$"
"""A number with a decimal point, and with a comma."""


@dataclass(frozen=True, slots=True)
class Written:
    """How labels were written where they were read, so that they are written so again.

    Attributes:
        several: what stands between several labels of one answer; or `json` or `python`, for a list.
        type: of a label: `text`, `boolean`, `integer` or `number`.
        decimal: the decimal sign of labels that are numbers.
    """

    several: str = SEVERAL
    type: str = "text"
    decimal: str = "."

    def restore(self, frame: pl.DataFrame, kinds: Mapping[str, str], *columns: str) -> pl.DataFrame:
        """A table whose labels are as they were written.

        Args:
            frame: with `control` where several kinds are in it, and
            columns: which hold labels as the unit table has them.
            kinds: of each control, its kind.
        """
        encoded = [name for name, kind in kinds.items() if kind in _ENCODED]
        here = pl.col("control").is_in(encoded) if "control" in frame.columns else pl.lit(value=True)
        for name in columns:
            texts = frame.filter(here)[name].drop_nulls().unique()
            parts = {text: [text] if text == ABSENT else parted(text) for text in texts}
            # Where a label itself holds the separator, only a list can tell one label from several.
            unclear = any(self.several in label for labels in parts.values() for label in labels)
            way = "json" if unclear and self.several not in ("json", "python") else self.several
            plain = {
                text: _plain([self._local(one) for one in labels], way) for text, labels in parts.items()
            }
            changed = {text: label for text, label in plain.items() if text != label}
            if changed:
                frame = frame.with_columns(
                    pl.when(here).then(pl.col(name).replace(changed)).otherwise(pl.col(name)).alias(name)
                )
            frame = frame.with_columns(self._typed(frame[name]).alias(name))
        return frame

    def _local(self, label: str) -> str:
        is_decimal = self.decimal != "." and re.match(DECIMAL_POINT, label)
        return label.replace(".", self.decimal) if is_decimal else label

    def _typed(self, labels: pl.Series) -> pl.Series:
        """Labels in the type they had, if all of them still have it."""
        if self.type == "boolean" and labels.drop_nulls().is_in(["true", "false"]).all():
            return labels == "true"
        kind = {"integer": pl.Int64, "number": pl.Float64}.get(self.type)
        typed = labels.cast(kind, strict=False) if kind else labels
        return typed if typed.null_count() == labels.null_count() else labels


def _plain(labels: Sequence[str], several: str) -> str:
    if len(labels) == 1:
        return labels[0]
    if several == "json":
        return json.dumps(labels, ensure_ascii=False)
    return repr(list(labels)) if several == "python" else several.join(labels)


@dataclass(frozen=True, slots=True)
class Read:
    """What was found in a file.

    Attributes:
        file: its name.
        rows: how many rows it has; of an export, how many annotations.
        identical: repeated rows that say the same as another of their annotator, and were counted once.
        contradicting: repeated rows that say something else: as text, `TASK of ANNOTATOR: LABEL, then LABEL`.
        repeats: all repeated rows, whatever was done with them.
        empty: answers without a label; of an export, annotations without a region.
        empty_counted: whether these are answers, which say that nothing is there.
        similar: groups of labels that differ only by case or spaces.
        ignored: columns that were not read.
        notices: what a person should know or decide, each with the option that decides it.
    """

    file: str
    rows: int
    tasks: int
    annotators: int
    labels: int
    repeats: int = 0
    identical: int = 0
    contradicting: Sequence[str] = ()
    empty: int = 0
    empty_counted: bool = False
    similar: Sequence[Sequence[str]] = ()
    rejects: int = 0
    ignored: Sequence[str] = ()
    notices: Sequence[str] = ()

    def __str__(self) -> str:
        empty = counted(self.empty, "empty answer") + ("" if self.empty_counted else " not counted")
        parts = [
            counted(self.rows, "row"),
            counted(self.tasks, "task"),
            counted(self.annotators, "annotator"),
            counted(self.labels, "label"),
            *([counted(self.repeats, "repeat")] if self.repeats else []),
            *([empty] if self.empty else []),
            *([counted(len(self.similar), "group") + " of near-identical labels"] if self.similar else []),
            *([f"{self.rejects} rejected"] if self.rejects else []),
        ]
        return f"read {self.file}: {', '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        """As `read` in the JSON answer."""
        return {
            "file": self.file,
            "rows": self.rows,
            "tasks": self.tasks,
            "annotators": self.annotators,
            "labels": self.labels,
            "repeats": self.repeats,
            "identical_repeats": self.identical,
            "contradicting_repeats": len(self.contradicting),
            "contradictions": list(self.contradicting),
            "empty_answers": self.empty,
            "near_identical_labels": [list(group) for group in self.similar],
            "rejects": self.rejects,
            "ignored_columns": list(self.ignored),
            "notices": list(self.notices),
        }


def counted(n: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "task"), counted(2, "box"), counted(0, "empty answer")
    ('1 task', '2 boxes', '0 empty answers')
    """
    return f"{n} {noun}" + ("" if n == 1 else "es" if noun.endswith("x") else "s")


def merged_spelling(
    rows: pl.DataFrame, kinds: Mapping[str, str], merge: bool
) -> tuple[pl.DataFrame, list[list[str]]]:
    """The labels of a control that differ only by case or spaces: in groups, and, if asked, made one.

    Args:
        rows: control, label.
        kinds: of each control, its kind; only chosen and drawn labels are compared.
        merge: give each group its most frequent spelling, without the spaces around it; of equally many the
            first.
    """
    chosen = [name for name, kind in kinds.items() if kind in _ENCODED]
    given = rows.filter(pl.col("control").is_in(chosen), pl.col("label") != ABSENT)
    counted = given.group_by("control", "label").len()
    plain = pl.col("label").str.strip_chars().str.replace_all(r"\s+", " ").str.to_lowercase()
    spelled = pl.col("label").str.strip_chars()
    alike = (
        counted.with_columns(plain=plain, spelled=spelled)
        .filter(pl.len().over("control", "plain") > 1)
        .with_columns(n=pl.col("len").cast(pl.Int64).sum().over("control", "spelled"))
        .sort("control", "plain", -pl.col("n"), "spelled", "label")
    )
    groups = alike.group_by("control", "plain", maintain_order=True).agg("label")["label"].to_list()
    if not merge or not groups:
        return rows, groups
    best = alike.select("control", "label", best=pl.col("spelled").first().over("control", "plain"))
    joined = rows.join(best, on=["control", "label"], how="left", maintain_order="left")
    return joined.with_columns(label=pl.coalesce("best", "label")).drop("best"), groups


def similar_notices(groups: Sequence[Sequence[str]], merged: bool) -> list[str]:
    """What to report of labels that differ only by case or spaces."""
    if not groups:
        return []
    shown = "; ".join(", ".join(group) for group in groups[:5])
    how = "merged into the first" if merged else "--merge-similar makes them one"
    return [f"labels differ only by case or spaces: {shown} ({how})"]
