"""What goes into a report: chosen from the statistics, and put into words."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from datetime import datetime

import polars as pl
from PIL import Image, UnidentifiedImageError

from connector.corrections import Correction
from connector.quality.agreement import pairs
from connector.quality.annotators import METHOD, annotators
from connector.quality.consensus import Consensus
from connector.quality.golden import Golden, golden
from connector.quality.interval import Estimate, unknown
from connector.quality.table import BOX, Labels
from connector.quality.units import ABSENT, keep_roles
from connector.report.data import (
    AgreementMatrix,
    AnnotatorRow,
    Box,
    Card,
    Choice,
    ConfusionMatrix,
    CorrectionRow,
    Figure,
    Progress,
    ReportData,
)

READABLE = 24
"""More names than this make no readable matrix: those with most answers are shown."""

POINTS = 200
PIXELS = 960

NO_GOLD = "there are no gold answers; give --gold"
NO_REVIEW = (
    "no review was given; draw a sample with `connector review draw`, then give --sample and --verdicts"
)

Pictures = Callable[[str], bytes | None]
"""The picture of a task, by the task's id."""


def content(
    title: str,
    made_at: datetime,
    source: Sequence[tuple[str, str]],
    labels: Labels,
    units: pl.DataFrame,
    merged: Consensus,
    limit: float,
    confidence: float,
    tasks: pl.DataFrame,
    pictures: Pictures,
    error_rate: Estimate | None,
    corrections: Sequence[Correction],
    cards: int,
) -> ReportData:
    """Everything a report shows.

    Args:
        source: what was read, for whoever wants to compute it again.
        units: schema `UNITS`, of `labels`.
        limit: the golden score that is demanded.
        tasks: task, key, overlap; empty where labels come from a file.
        error_rate: what a review said of the whole.
        cards: how many disagreements are drawn.

    Raises:
        ValueError: if gold answers contradict each other.
    """
    found = golden(units, limit, confidence)
    names = dict(zip(tasks["task"], (_short_key(key) for key in tasks["key"]), strict=True))
    return ReportData(
        title=title,
        made_at=made_at,
        source=source,
        figures=_figures(merged, found, limit, error_rate),
        progress=_progress(labels, len(tasks) or None),
        annotators=_rows(labels, units, limit, confidence),
        golden_limit=limit,
        agreement=[_matrix(control, part) for control, part in _by_control(keep_roles(units, ["person"]))],
        confusion=[_confusion(control, part) for control, part in _by_control(found.confusion)],
        cards=_cards(units, merged, labels, names, pictures, cards),
        corrections=[
            CorrectionRow(
                names.get(c.task, c.task),
                change.control,
                _said(change.now),
                _said(change.then),
                c.why,
                c.confidence,
            )
            for c in corrections
            for change in c.changes
        ],
    )


def _by_control(frame: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    parts = frame.sort("control").partition_by("control", as_dict=True, maintain_order=True)
    return [(str(control), part) for (control,), part in parts.items()]


def _short_key(key: str) -> str:
    """The end of a URL: what tells items apart."""
    return key.rsplit("/", 1)[-1] or key


def _said(labels: str) -> str:
    return labels.replace(ABSENT, "not drawn")


def _figures(merged: Consensus, found: Golden, limit: float, error_rate: Estimate | None) -> list[Figure]:
    figures = [
        Figure(
            f"Golden score, {control}", score, "everybody's answers to tasks with known answers", limit=limit
        )
        for control, score in sorted(found.controls.items())
    ] or [Figure("Golden score", unknown(0, "wilson", NO_GOLD), limit=limit)]
    for one in merged.controls:
        figures += [
            Figure(
                f"Agreement, {one.control}", one.agreement.observed, "share of pairs of answers that agree"
            ),
            Figure(
                f"Krippendorff's alpha, {one.control}",
                one.agreement.krippendorff_alpha,
                "agreement beyond chance; 1 is perfect, 0 is chance",
                percent=False,
            ),
        ]
    rate = error_rate or unknown(0, "review sample", NO_REVIEW)
    return [*figures, Figure("Error rate", rate, "tasks whose consensus an expert would change")]


def _progress(labels: Labels, total: int | None) -> Progress | None:
    first = (
        labels.answers.filter(pl.col("role") == "person")
        .drop_nulls("created_at")
        .group_by("task")
        .agg(at=pl.col("created_at").min())
        .sort("at")
        .with_row_index("n", 1)
    )
    if len(first) < 2:
        return None
    shown = first.gather_every(max(1, len(first) // POINTS))
    points = [*shown.select("at", "n").iter_rows(), (first["at"][-1], len(first))]
    return Progress([(at, int(n)) for at, n in dict.fromkeys(points)], total)


def _rows(labels: Labels, units: pl.DataFrame, limit: float, confidence: float) -> list[AnnotatorRow]:
    # One golden score a person: all questions as one, tasks as clusters.
    together = units.with_columns(
        control=pl.lit("all"), unit=pl.format("{}/{}", "control", "unit"), kind=pl.lit(BOX)
    )
    scores = {
        row["annotator"]: row for row in golden(together, limit, confidence).annotators.iter_rows(named=True)
    }
    return [
        AnnotatorRow(
            name=row["annotator"],
            role=row["role"],
            tasks=row["tasks"],
            annotations=row["annotations"],
            seconds_median=row["seconds_median"],
            per_hour=row["per_hour"],
            agreement=row["agreement"],
            accuracy=_estimate(row, "accuracy", METHOD),
            golden=_golden_of(scores.get(row["annotator"]) if row["role"] == "person" else None),
            verdict=scores[row["annotator"]]["verdict"]
            if row["role"] == "person" and row["annotator"] in scores
            else "",
        )
        for row in annotators(units, labels.answers, confidence).iter_rows(named=True)
    ]


def _estimate(row: dict[str, object], name: str, method: str) -> Estimate:
    value, low, high, n = (row[f"{name}{end}"] for end in ("", "_low", "_high", "_n"))
    if not isinstance(value, float):
        return unknown(0, method, "there is nothing to judge by")
    return Estimate(value, _float(low), _float(high), int(n) if isinstance(n, int) else 0, method)


def _float(value: object) -> float | None:
    return value if isinstance(value, float) else None


def _golden_of(row: dict[str, object] | None) -> Estimate:
    method = "all questions together; wilson, tasks as clusters (Rao and Scott 1992)"
    if row is None:
        return unknown(0, method, "answered no gold task")
    low, high, n = _float(row["low"]), _float(row["high"]), row["n"]
    return Estimate(_float(row["score"]), low, high, int(n) if isinstance(n, int) else 0, method)


def _matrix(control: str, people: pl.DataFrame) -> AgreementMatrix:
    busy = people.group_by("annotator").len().sort("len", "annotator", descending=[True, False])
    names = sorted(busy["annotator"].head(READABLE))
    found = {(r["annotator_a"], r["annotator_b"]): r for r in pairs(people).iter_rows(named=True)}

    def of(a: str, b: str, name: str) -> float | None:
        row = found.get((min(a, b), max(a, b)))
        return row[name] if row else None

    return AgreementMatrix(
        control,
        names,
        [[of(a, b, "agreement") for b in names] for a in names],
        [[int(of(a, b, "units") or 0) for b in names] for a in names],
    )


def _confusion(control: str, counted: pl.DataFrame) -> ConfusionMatrix:
    seen = sorted({*counted["gold"], *counted["label"]}, key=lambda label: (label == ABSENT, label))
    count = {(gold, label): n for gold, label, n in counted.select("gold", "label", "count").iter_rows()}
    return ConfusionMatrix(control, seen, [[count.get((gold, given), 0) for given in seen] for gold in seen])


def _cards(
    units: pl.DataFrame,
    merged: Consensus,
    labels: Labels,
    names: dict[str, str],
    pictures: Pictures,
    count: int,
) -> list[Card]:
    disputed = merged.units.filter(pl.col("agreement") < 1)
    worst = (
        disputed.group_by("task")
        .agg(heat=(1 - pl.col("agreement")).sum())
        .sort("heat", "task", descending=[True, False])
        .head(count)
    )
    people = keep_roles(units, ["person"])
    return [
        _card(
            task,
            names.get(task, task),
            people.filter(pl.col("task") == task),
            merged.units.filter(pl.col("task") == task),
            labels,
            shrunk(pictures(task)),
        )
        for task in worst["task"]
    ]


def _card(
    task: str, name: str, said: pl.DataFrame, merged: pl.DataFrame, labels: Labels, image: bytes | None
) -> Card:
    box = pl.col("control").is_in([control for control, kind in labels.controls.items() if kind == BOX])
    drawn = said.filter(box, pl.col("label") != ABSENT)
    shape = ("annotator", "label", "x", "y", "width", "height")
    agreed = merged.filter(box, pl.col("label") != ABSENT).with_columns(annotator=pl.lit("consensus"))
    return Card(
        task=name if name == task else f"{name} (task {task})",
        why=_dispute(said, merged),
        image=image,
        choices=[
            Choice(*row) for row in said.filter(~box).select("control", "annotator", "label").iter_rows()
        ],
        boxes=[Box(*row) for row in drawn.select(shape).iter_rows()],
        consensus=[Box(*row) for row in agreed.select(shape).iter_rows()],
    )


def _dispute(said: pl.DataFrame, merged: pl.DataFrame) -> str:
    """Who is against whom, unit by unit: `objects: van 2, car 1; boat 1, not drawn 2`."""
    told: dict[str, list[str]] = {}
    for control, unit in merged.filter(pl.col("agreement") < 1).select("control", "unit").iter_rows():
        one = said.filter(pl.col("control") == control, pl.col("unit") == unit)
        counted = one.group_by("label").len().sort("len", "label", descending=[True, False])
        told.setdefault(control, []).append(
            ", ".join(f"{_said(label)} {n}" for label, n in counted.iter_rows())
        )
    return ". ".join(f"{control}: {'; '.join(units)}" for control, units in told.items())


def shrunk(image: bytes | None) -> bytes | None:
    """A picture small enough to stand in a page; None if it is none."""
    if image is None:
        return None
    try:
        with Image.open(io.BytesIO(image)) as opened:
            if opened.format in ("PNG", "JPEG", "GIF", "WEBP") and max(opened.size) <= PIXELS:
                return image
            small = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return None
    small.thumbnail((PIXELS, PIXELS))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=85)
    return out.getvalue()
