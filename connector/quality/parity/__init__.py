"""The scores that other tools show, by their own published definitions: for a team that moves, to compare.

None of them corrects for chance or has an interval; the intervals here are ours. What a tool does not publish
is unknown, and says so. Where our own measures differ and why is told in `docs/parity.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from connector.quality.interval import CONFIDENCE, Estimate, clustered, mean_of, unknown
from connector.quality.parity import cvat, label_studio_enterprise, labelbox
from connector.quality.parity.base import side_of
from connector.quality.table import Labels
from connector.quality.units import LAST, with_turns

LABEL_STUDIO_ENTERPRISE, LABELBOX, CVAT = "label-studio-enterprise", "labelbox", "cvat"
TOOLS = (LABEL_STUDIO_ENTERPRISE, LABELBOX, CVAT)

NOT_PUBLISHED = "the tool publishes no definition for answers of this kind"
NO_CONSENSUS = "CVAT publishes no score of agreement; it compares with known answers only"
NO_PAIRS = "no two answers to compare"


@dataclass(frozen=True, slots=True)
class Parity:
    """What another tool would show.

    Attributes:
        overall: of all questions together, as the tool puts them together.
        controls: of each question.
        annotators: of each annotator, all questions together.
        pairs: task, control, annotator_a, annotator_b, score: what the numbers are means of.
    """

    tool: str
    overall: Estimate
    controls: Mapping[str, Estimate]
    annotators: Mapping[str, Estimate]
    pairs: pl.DataFrame


def parity(labels: Labels, tool: str, gold: bool, confidence: float = CONFIDENCE) -> Parity:
    """What another tool would say of these labels.

    Args:
        tool: one of `TOOLS`.
        gold: compare everyone with the gold answers; else every two persons with each other.
        confidence: of the intervals, tasks as clusters.

    Raises:
        ValueError: if the tool is unknown.

    References:
        Label Studio Enterprise: "Built-in agreement metrics" and "Task agreement" of its guide; where these
        leave something open, HumanSignal's package label-studio-evalme. Labelbox: `labelbox.data.metrics.iou`
        of its Python SDK. CVAT: `cvat/apps/quality_control`, and "Automated QA, review & honeypots" of its
        manual.
    """
    if tool not in TOOLS:
        raise ValueError(f"unknown tool {tool!r}; one of {', '.join(TOOLS)}")
    if tool == CVAT and not gold:
        nothing = unknown(0, tool, NO_CONSENSUS)
        return Parity(tool, nothing, dict.fromkeys(labels.controls, nothing), {}, _pairs_frame([]))
    compare = {LABEL_STUDIO_ENTERPRISE: label_studio_enterprise, LABELBOX: labelbox, CVAT: cvat}[tool].score
    both = both_of(labels, gold)
    controls: dict[str, Estimate] = {}
    parts = []
    for control, kind in sorted(labels.controls.items()):
        scored = compare(side_of(labels, control), both, str(kind))
        if scored is None:
            controls[control] = unknown(0, tool, NOT_PUBLISHED)
            continue
        found = scored.with_columns(control=pl.lit(control))
        controls[control] = _mean(found, tool, confidence)
        parts.append(found)
    scored = pl.concat(parts) if parts else _pairs_frame([])
    whole = _overall(scored, both, tool)
    sides = [whole.with_columns(annotator=name) for name in ("annotator_a", "annotator_b")]
    people = pl.concat(sides).filter(pl.col("annotator").is_in(_persons(labels))).sort("annotator")
    annotators = {
        str(who): _mean(part, tool, confidence)
        for (who,), part in people.group_by("annotator", maintain_order=True)
    }
    pairs = scored.select(_PAIRS).sort(_PAIRS[:4])
    return Parity(tool, _mean(whole, tool, confidence), controls, annotators, pairs)


_PAIRS = ["task", "control", "annotator_a", "annotator_b", "score"]


def _pairs_frame(rows: list[tuple[object, ...]]) -> pl.DataFrame:
    schema = dict.fromkeys(_PAIRS[:4], pl.String) | {"score": pl.Float64, "weight": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _persons(labels: Labels) -> list[str]:
    return labels.answers.filter(pl.col("role") == "person")["annotator"].unique().sort().to_list()


def both_of(labels: Labels, gold: bool) -> pl.DataFrame:
    """Every two annotations that are compared: pair, task, a, b and their annotators."""
    said = with_turns(labels.answers).select("task", "annotation", "annotator", "role", "gold", "turn")
    person = (pl.col("role") == "person") & LAST
    left = said.filter(person).select("task", a="annotation", annotator_a="annotator")
    right = said.filter("gold" if gold else person)
    both = left.join(right.select("task", b="annotation", annotator_b="annotator"), on="task")
    both = both.filter(pl.col("annotator_a") != pl.col("annotator_b"))
    if not gold:
        both = both.filter(pl.col("a") < pl.col("b"))
    return both.sort("task", "a", "b").with_row_index("pair")


def _mean(scored: pl.DataFrame, tool: str, confidence: float) -> Estimate:
    """The mean over tasks of the mean over a task's pairs; of CVAT, right over all there is."""
    by_task = scored.group_by("task").agg(
        score=pl.col("score").mean(), k=(pl.col("score") * pl.col("weight")).sum(), n=pl.col("weight").sum()
    )
    by_task = by_task.filter(pl.col("n") > 0).sort("task")
    if not len(by_task):
        return unknown(0, tool, NO_PAIRS)
    if tool == CVAT:
        found = clustered(by_task["k"].to_numpy(), by_task["n"].to_numpy(), confidence)
    else:
        found = mean_of(by_task["score"].to_numpy(), np.ones(len(by_task)), confidence)
    return Estimate(found.value, found.low, found.high, found.n, f"{tool}; {found.method}", found.why)


def _overall(scored: pl.DataFrame, both: pl.DataFrame, tool: str) -> pl.DataFrame:
    """Each pair's score of all questions together."""
    pair = ["task", "annotator_a", "annotator_b"]
    if tool == CVAT:
        return scored
    # Labelbox means over classes, of which a question has as many as its weight; Label Studio over questions.
    weight = pl.col("weight") if tool == LABELBOX else pl.lit(1.0)
    shares = scored.with_columns(weight=weight)
    mean = (pl.col("score") * pl.col("weight")).sum() / pl.col("weight").sum()
    whole = shares.group_by(pair).agg(score=mean, weight=pl.lit(1.0))
    if tool == LABEL_STUDIO_ENTERPRISE:
        # Two annotations that are empty altogether agree.
        empty = both.select(pair).unique().join(whole, on=pair, how="anti")
        whole = pl.concat([whole, empty.with_columns(score=pl.lit(1.0), weight=pl.lit(1.0))])
    return whole.sort(pair)
