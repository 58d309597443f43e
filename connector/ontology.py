"""The ontology: shown, and replaced without losing labels that are in use."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from connector.adapters.base import LabelingTool
from connector.errors import UsageError
from connector.model import Ontology


def push(
    tool: LabelingTool, source: str | None, overlap: int, in_use: pl.DataFrame, force: bool = False
) -> Ontology:
    """Give the tool this ontology, and tell it how many people label each task.

    Args:
        source: the ontology in the tool's own words; None leaves the tool's as it is.
        overlap: how many people label each task.
        in_use: control, label, n: what annotations say now. Label Studio takes away a label that is in use
            without a word, and leaves annotations that say what cannot be said.
        force: take labels away even so.

    Raises:
        UsageError: if labels in use would be lost, or the tool refuses the ontology.
    """
    ontology = tool.read_ontology() if source is None else tool.parse_ontology(source)
    lost = missing(ontology, in_use)
    if lost and not force:
        raise UsageError(
            f"labels in use would be lost: {', '.join(f'{what} ({n})' for what, n in lost.items())}",
            "keep them in the ontology, or say --force",
        )
    if source is not None:
        ontology = tool.write_ontology(ontology)
    if tool.capabilities.overlap:
        tool.set_overlap(overlap)
    return ontology


def missing(ontology: Ontology, in_use: pl.DataFrame) -> Mapping[str, int]:
    """What annotations say and the ontology does not know, and how often: `control: label`."""
    known = {(control.name, label) for control in ontology.controls for label in control.labels}
    free = {control.name for control in ontology.controls if not control.labels}
    return {
        f"{control}: {label}": n
        for control, label, n in in_use.select("control", "label", "n").sort("control", "label").iter_rows()
        if control not in free and (control, label) not in known
    }
