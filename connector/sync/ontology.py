"""The ontology: shown, and replaced without losing labels that are in use."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from connector.adapters.base import LabelingTool
from connector.errors import UsageError
from connector.journal.renames import uses
from connector.model import Annotation, Control, Ontology
from connector.regions.answers import SEPARATOR
from connector.regions.base import RELATIONS


def push(
    tool: LabelingTool,
    source: str | None,
    overlap: int,
    force: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Ontology:
    """Write this ontology to the tool, and set how many people label each task.

    Label Studio removes a label that is in use without a warning, and leaves annotations that use a label
    which does not exist. So the tool's own annotations are read just before, whatever the label store knows.

    Args:
        source: the ontology in the tool's own words; None leaves the tool's as it is.
        overlap: how many people label each task.
        force: remove labels that are in use, too.
        progress: called with the number of tasks read.

    Raises:
        UsageError: if labels in use would be lost, or the tool refuses the ontology.
    """
    ontology = tool.read_ontology() if source is None else tool.parse_ontology(source)
    lost = missing(ontology, in_use(tool, progress)) if source is not None and not force else {}
    if lost:
        raise UsageError(
            f"labels in use would be lost: {', '.join(f'{what} ({n})' for what, n in lost.items())}",
            "keep them in the ontology, rename them first (`connector correct plan --from ontology`), or use "
            "--force",
        )
    if source is not None:
        ontology = tool.write_ontology(ontology)
    if tool.capabilities.overlap:
        tool.set_overlap(overlap)
    return ontology


def in_use(
    tool: LabelingTool, progress: Callable[[int], None] = lambda _: None
) -> Mapping[tuple[str, str], int]:
    """How many annotations in the tool use each label of each control: (control, label).

    Skipped annotations count, and those that cannot be read otherwise.
    """
    # A task that changed while we read comes twice: the later reading counts.
    used: dict[str, list[set[tuple[str, str]]]] = {}
    for page in tool.changed_tasks(None):
        for task in page.tasks:
            used[task.id] = [set(_labels(one)) for one in task.annotations]
        progress(len(page.tasks))
    return Counter(label for annotations in used.values() for labels in annotations for label in labels)


def _labels(annotation: Annotation) -> Iterator[tuple[str, str]]:
    """The labels that stand in an annotation, whatever else is wrong with it."""
    result = json.loads(annotation.result)
    return uses(result if isinstance(result, list) else [])


def missing(ontology: Ontology, used: Mapping[tuple[str, str], int]) -> Mapping[str, int]:
    """The labels that annotations use and the ontology does not have, and how often: `control: label`."""
    lost: dict[str, int] = {}
    relations = [control for control in ontology.controls if control.kind == RELATIONS]
    for (name, label), n in sorted(used.items()):
        # A relation names no control, so its labels may be those of any control of this kind.
        asked = [ontology.control(name), *(relations if name == RELATIONS else ())]
        if not any(control is not None and _allows(control, label) for control in asked):
            lost[f"{name}: {label}"] = n
    return lost


def _allows(control: Control, label: str) -> bool:
    paths = {SEPARATOR.join(option.path) for option in control.options}
    return bool(control.dynamic) or not control.labels or label in control.labels or label in paths
