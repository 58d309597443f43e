"""What goes into a report: chosen from the statistics, and put into words."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import polars as pl
from PIL import Image, ImageOps

from connector.corrections.timeline import in_short
from connector.errors import BadRecord
from connector.journal.correction import WRITING, Action, Correction
from connector.quality.agreement import MISSES, pairs
from connector.quality.annotators import METHOD, annotators, natural
from connector.quality.answers import ABSENT
from connector.quality.consensus import Consensus
from connector.quality.golden import LEAST, Golden, golden
from connector.quality.interval import Estimate, unknown
from connector.quality.kinds import BOX, DETECTED
from connector.quality.table import Labels
from connector.quality.units import UNIT, keep_roles
from connector.regions import Box as RectangleRegion
from connector.regions import parse_result
from connector.report.data import (
    AgreementMatrix,
    AnnotatorRow,
    BeforeAfter,
    Box,
    Card,
    Choice,
    ConfusionMatrix,
    CorrectionRow,
    Figure,
    Progress,
    ReportData,
)
from connector.report.draw import spoken
from connector.store.labels import NotCounted

READABLE = 24
"""More names than this make no readable matrix: those with the most answers, or mistakes, are shown."""

POINTS = 200
PIXELS = 960
"""The longer side of a picture in the page, at most."""

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
"""The formats of pictures that are decoded. Of the others some run programs, and some are rarely tested."""

PICTURE_BYTES, PICTURE_PIXELS = 64 << 20, 120_000_000
"""A larger picture is not decoded."""

LOOKED_AT, TRIED_FOR_EACH = 1000, 4
"""Of a plan so many corrections are looked at for pictures, and so many are read for each that is shown."""

NO_GOLD = "there are no gold answers; give --gold"
NO_GOLD_ANSWERED = "nobody answered a task with gold answers"
NO_REVIEW = "no review was given; draw a sample (connector review draw), then give --sample and --verdicts"
PERSONS_ONLY = "only persons are judged"

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
    least: int = LEAST,
    not_counted: Sequence[NotCounted] = (),
) -> ReportData:
    """Everything a report shows.

    Args:
        source: what was read, for whoever wants to compute it again.
        units: schema `UNITS`, of `labels`.
        limit: the golden score that is demanded.
        tasks: task, key, overlap; empty where labels come from a file.
        confidence: of all intervals.
        error_rate: what a review said of the whole.
        cards: how many disagreements are drawn.
        least: gold tasks that a verdict needs.
        not_counted: answers that no number counts.

    Raises:
        ValueError: if gold answers contradict each other.
    """
    found = golden(units, limit, confidence, least, scales=labels.scales)
    names = dict(zip(tasks["task"], (_short_key(key) for key in tasks["key"]), strict=True))
    said = {*units["label"]}
    has_gold = bool(units["gold"].any())
    no_gold = NO_GOLD_ANSWERED if has_gold else NO_GOLD
    by_control = _by_control(keep_roles(units, ["person"]))
    figures = _figures(merged, found, labels.controls, limit, error_rate, no_gold, not_counted)
    measured = {*found.controls, *(one.control for one in merged.controls)}
    notices = [f"{control}: {check}" for control, check in found.checks.items() if check.surprising]
    notices += [str(one) for one in not_counted if one.control not in measured]
    return ReportData(
        title=title,
        made_at=made_at,
        source=source,
        confidence=confidence,
        figures=figures,
        progress=_progress(labels, len(tasks) or None),
        annotators=_rows(labels, units, found, confidence, "answered no gold task" if has_gold else NO_GOLD),
        golden_limit=limit,
        notices=notices,
        agreement=[_matrix(control, part, both) for control, part in by_control if len(both := pairs(part))],
        confusion=[_confusion(control, part) for control, part in _by_control(found.confusion)],
        cards=_cards(units, merged, labels, names, pictures, cards),
        corrections=[
            CorrectionRow(names.get(c.task, c.task), c.action, control, now, then, c.why, c.confidence)
            for c in corrections
            for control, now, then in _changes(c, said)
        ],
        changes=_before_after(corrections, labels, names, pictures, cards),
    )


def _by_control(frame: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    parts = frame.sort("control").partition_by("control", as_dict=True, maintain_order=True)
    return [(str(control), part) for (control,), part in parts.items()]


def _short_key(key: str) -> str:
    """The end of a URL: what tells items apart."""
    return key.rsplit("/", 1)[-1] or key


def _counted(answers: str, known: set[str]) -> str:
    """`ABSENT, tree, tree` as `tree 2, nothing 1`; as it stands where a label itself holds a comma."""
    parts = answers.split(", ")
    if len(parts) == 1 or not known.issuperset(parts):
        return spoken(answers)
    count = sorted(Counter(parts).items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(f"{spoken(label)} {n}" for label, n in count)


def _figures(
    merged: Consensus,
    found: Golden,
    controls: Mapping[str, str],
    limit: float,
    error_rate: Estimate | None,
    no_gold: str,
    not_counted: Sequence[NotCounted],
) -> list[Figure]:
    def left_out(control: str) -> list[str]:
        return [one.share for one in not_counted if one.control == control]

    def counted(control: str) -> str:
        return "objects" if controls[control] == BOX else "tasks"

    figures = [
        Figure(
            f"Golden score, {control}",
            score,
            f"right answers where the answer is known; n counts answers to {counted(control)}",
            limit=limit,
            not_counted=left_out(control),
        )
        for control, score in sorted(found.controls.items())
    ] or [Figure("Golden score", unknown(0, "wilson", no_gold), limit=limit)]
    for one in merged.controls:
        n = f"n counts {counted(one.control)} with two answers or more"
        detected = one.kind in DETECTED and one.empty < one.annotations
        figures += [
            Figure(
                f"Detection agreement, {one.control}" if detected else f"Agreement, {one.control}",
                one.agreement.headline[1],
                "pairwise F1: the share of two annotators' objects that both drew; n counts each object once "
                "for every other annotator of its task"
                if detected
                else f"pairs of answers that are the same; {n}"
                if one.agreement.level == "nominal"
                else f"how alike pairs of answers are, on average; {n}",
                not_counted=left_out(one.control),
            ),
            Figure(
                f"Krippendorff's alpha, {one.control}",
                one.agreement.krippendorff_alpha,
                f"agreement beyond chance: 1 is perfect, 0 is chance; {MISSES + '; ' if detected else ''}{n}",
                percent=False,
                not_counted=left_out(one.control),
            ),
        ]
    rate = error_rate or unknown(0, "review sample", NO_REVIEW)
    comment = "tasks whose consensus an expert would change; n counts reviewed tasks"
    return [*figures, Figure("Error rate", rate, comment)]


def _progress(labels: Labels, total: int | None) -> Progress | None:
    first = (
        labels.answers.filter(pl.col("role") == "person")
        .drop_nulls("created_at")
        .group_by("task")
        .agg(at=pl.col("created_at").min())
        .sort("at")
        .with_row_index("n", 1)
    )
    if not len(first):
        return None
    shown = first.gather_every(max(1, len(first) // POINTS))
    points = [*shown.select("at", "n").iter_rows(), (first["at"][-1], len(first))]
    return Progress([(at, int(n)) for at, n in dict.fromkeys(points)], total)


def _rows(
    labels: Labels, units: pl.DataFrame, found: Golden, confidence: float, no_gold: str
) -> list[AnnotatorRow]:
    compared = _comparisons(units)
    rows = []
    for row in annotators(units, labels.answers, confidence).iter_rows(named=True):
        person = row["role"] == "person"
        score = found.together.get(row["annotator"]) if person else None
        verdict, why = _verdict(found, row["annotator"]) if score else ("", "")
        rows.append(
            AnnotatorRow(
                name=row["annotator"],
                role=row["role"],
                tasks=row["tasks"],
                annotations=row["annotations"],
                seconds_median=row["seconds_median"],
                per_hour=row["per_hour"],
                agreement=_known(
                    row["agreement"],
                    None,
                    None,
                    compared.get(row["annotator"], 0),
                    "share of the others' answers that are the same",
                    "nobody else answered the same" if person else PERSONS_ONLY,
                ),
                agreement_with_majority=_known(
                    row["agreement_with_majority"],
                    row["agreement_with_majority_low"],
                    row["agreement_with_majority_high"],
                    row["agreement_with_majority_n"],
                    METHOD,
                    row["why"] if person else PERSONS_ONLY,
                ),
                golden=score or unknown(0, "golden", no_gold if person else PERSONS_ONLY),
                verdict=verdict,
                verdict_why=why,
            )
        )
    return rows


def _verdict(found: Golden, annotator: str) -> tuple[str, str]:
    """The verdicts on all controls as one, and why: fail where one fails, pass where all pass."""
    mine = found.annotators.filter(annotator=annotator).select("control", "verdict", "why").sort("control")
    several = len(mine) > 1
    reasons = {
        verdict: "; ".join(f"{control}: {why}" if several else why for control, _, why in part.iter_rows())
        for (verdict,), part in mine.group_by("verdict")
    }
    verdict = next(one for one in ("fail", "undecided", "pass") if one in reasons)
    return verdict, reasons[verdict]


def _known(
    value: float | None, low: float | None, high: float | None, n: int | None, method: str, why: str
) -> Estimate:
    """A number of a row; why, where there is none."""
    return unknown(0, method, why) if value is None else Estimate(value, low, high, n or 0, method)


def _comparisons(units: pl.DataFrame) -> dict[str, int]:
    """How many answers of others stand beside each annotator's."""
    both = pairs(keep_roles(units, ["person"])).select("annotator_a", "annotator_b", "units")
    ends = [both.select("units", annotator=end) for end in ("annotator_a", "annotator_b")]
    return dict(pl.concat(ends).group_by("annotator").agg(pl.col("units").sum()).iter_rows())


def _matrix(control: str, people: pl.DataFrame, both: pl.DataFrame) -> AgreementMatrix:
    busy = people.group_by("annotator").len().sort("len", "annotator", descending=[True, False])
    names = sorted(busy["annotator"].head(READABLE), key=natural)
    found = {(r["annotator_a"], r["annotator_b"]): r for r in both.iter_rows(named=True)}

    def of(a: str, b: str, name: str) -> float | None:
        row = found.get((min(a, b), max(a, b)))
        return row[name] if row else None

    shown = "detection_f1" if people["kind"][0] in DETECTED else "agreement"
    return AgreementMatrix(
        control,
        names,
        [[of(a, b, shown) for b in names] for a in names],
        [[int(of(a, b, "units") or 0) for b in names] for a in names],
        len(busy),
    )


def _confusion(control: str, counted: pl.DataFrame) -> ConfusionMatrix:
    count = {(gold, given): n for gold, given, n in counted.select("gold", "label", "count").iter_rows()}
    mistakes = dict.fromkeys((label for pair in count for label in pair), 0)
    totals = dict.fromkeys(mistakes, 0)
    for (gold, given), n in count.items():
        totals[gold] += n
        if gold != given:
            mistakes[gold] += n
            mistakes[given] += n
    worst = sorted(mistakes, key=lambda label: (-mistakes[label], label))[:READABLE]
    shown = sorted(worst, key=lambda label: (label == ABSENT, label))
    return ConfusionMatrix(
        control,
        shown,
        [[count.get((gold, given), 0) for given in shown] for gold in shown],
        [totals[gold] for gold in shown],
        len(mistakes),
    )


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
        # Rounded: sums in another order differ in their last digit, and tasks would change places.
        .agg(heat=(1 - pl.col("agreement")).sum().round(9))
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
    disputed = merged.filter(pl.col("agreement") < 1).sort(UNIT)
    numbers = disputed.filter(box).select(UNIT).with_row_index("object", 1)
    whole = disputed.filter(~box)
    said, merged = (frame.join(numbers, on=UNIT, how="left") for frame in (said, merged))
    told = pl.concat([said.join(whole, on=UNIT, how="semi"), said.filter(pl.col("object").is_not_null())])
    sides = [pl.col("shape").list.get(n, null_on_oob=True).alias(f"side_{n}") for n in range(4)]
    shape = [pl.col("annotator"), pl.col("label"), *sides, pl.col("object")]
    drawn = said.filter(box, pl.col("label") != ABSENT)
    agreed = merged.filter(box, pl.col("label") != ABSENT).with_columns(annotator=pl.lit("consensus"))
    return Card(
        task=name if name == task else f"{name} (task {task})",
        why=_dispute(whole, numbers, merged.filter(box, pl.col("shape").is_not_null())),
        image=image,
        choices=[
            Choice(*row)
            for row in told.sort(pl.col("object"), *UNIT, "annotator", "annotation", nulls_last=False)
            .select("control", "annotator", "label", "object")
            .iter_rows()
        ],
        boxes=[Box(*row) for row in drawn.select(shape).iter_rows()],
        consensus=[Box(*row) for row in agreed.select(shape).iter_rows()],
    )


def _changes(correction: Correction, said: set[str]) -> list[tuple[str, str, str]]:
    """The control, what people said of it, and what is right; of the whole where that is all we know."""
    whole = ("", in_short(correction.now), in_short(correction.then) or correction.note or "")
    return [(one.control, _counted(one.now, said), one.then) for one in correction.changes] or [whole]


def _before_after(
    corrections: Sequence[Correction], labels: Labels, names: dict[str, str], pictures: Pictures, count: int
) -> list[BeforeAfter]:
    """The first corrections of drawn boxes whose tasks have pictures.

    A bucket that is away is not asked for every task of a long plan.
    """
    changing = [one for one in corrections[:LOOKED_AT] if one.action in {*WRITING, Action.DELETE}]
    of_people = _boxes_of_people(labels, [one.task for one in changing if not one.annotation])
    found: list[BeforeAfter] = []
    tried = 0
    for one in changing:
        after = _boxes_of(one.then)
        before = _boxes_of(one.now) if one.annotation else of_people.get(one.task, [])
        if len(found) == count or tried == TRIED_FOR_EACH * count:
            break
        if before or after:
            tried += 1
            if image := shrunk(pictures(one.task)):
                found.append(BeforeAfter(names.get(one.task, one.task), one.why, image, before, after))
    return found


def _boxes_of(result: str | None) -> list[Box]:
    """The boxes of a result; none of one that cannot be read."""
    try:
        regions = parse_result(json.loads(result or "[]"))
    except BadRecord:
        return []
    drawn = [region for region in regions if isinstance(region, RectangleRegion)]
    return [_box("", ", ".join(map(str, one.labels)), one.geometry()) for one in drawn]


def _box(annotator: str, label: str, shape: Sequence[float]) -> Box:
    x, y, width, height, *_ = shape
    return Box(annotator, label, x, y, width, height)


def _boxes_of_people(labels: Labels, tasks: Sequence[str]) -> dict[str, list[Box]]:
    """What people drew, by task."""
    controls = [control for control, kind in labels.controls.items() if kind == BOX]
    people = labels.answers.filter(pl.col("task").is_in(tasks), pl.col("role") == "person")
    drawn = labels.regions.filter(pl.col("control").is_in(controls)).join(
        people, on="annotation", how="inner"
    )
    found: dict[str, list[Box]] = {}
    for row in drawn.sort("annotation", "region").iter_rows(named=True):
        found.setdefault(row["task"], []).append(_box(str(row["annotator"]), row["label"], row["shape"]))
    return found


def _dispute(whole: pl.DataFrame, numbers: pl.DataFrame, objects: pl.DataFrame) -> str:
    """What people differ on: `scene; 2 of 5 objects`."""
    told = [*whole["control"]]
    if len(numbers):
        told.append(f"{len(numbers)} of {len(objects)} objects")
    return f"In dispute: {', '.join(told)}."


def shrunk(image: bytes | None) -> bytes | None:
    """A picture small enough to stand in a page, encoded anew; None if it is none, or too large to decode.

    Nothing but its pixels remains: no metadata, and nothing behind its end.
    """
    if image is None or len(image) > PICTURE_BYTES:
        return None
    try:
        with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
            if opened.width * opened.height > PICTURE_PIXELS:
                return None
            opened.draft("RGB", (PIXELS, PIXELS))
            lossless = opened.format in ("PNG", "GIF") and max(opened.size) <= PIXELS
            upright = ImageOps.exif_transpose(opened)
            small = upright.convert("RGBA" if lossless and upright.has_transparency_data else "RGB")
    except Exception:
        # What a decoder raises for broken data differs by format; one bad picture must not end the report.
        return None
    small.thumbnail((PIXELS, PIXELS))
    small.info.clear()
    out = io.BytesIO()
    if lossless:
        small.save(out, "PNG")
    else:
        small.save(out, "JPEG", quality=85)
    return out.getvalue()
