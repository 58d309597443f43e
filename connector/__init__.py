"""The connector around a labeling tool, as a notebook uses it.

    import connector

    project = connector.open_project()              # reads connector.toml
    project.pull()
    table = project.aligned().units                 # one row for each unit and annotator
    connector.consensus(table, seed=0).units        # a Polars frame: the merged answers, with confidence
    connector.golden(table, limit=0.8).annotators

What stands here is stable; each name is documented where it is made. Nothing is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connector.adapters.base import LabelingTool
    from connector.adapters.label_studio.adapter import LabelStudio
    from connector.corrections.apply import apply
    from connector.corrections.plan import Proposal, plan
    from connector.corrections.undo import undo
    from connector.errors import ConnectorError
    from connector.formats.label_files import read_file
    from connector.io.objects import Objects
    from connector.journal.journal import Journal
    from connector.model import Annotation, Annotator, Control, Item, Ontology, Role, Task
    from connector.project import Project, open_project
    from connector.quality.agreement import agreement
    from connector.quality.annotators import annotators
    from connector.quality.consensus import consensus
    from connector.quality.golden import golden
    from connector.quality.table import Labels
    from connector.quality.units import units
    from connector.regions import Region, parse_result
    from connector.review.samples import draw_sample, estimate
    from connector.store.label_store import Store
    from connector.store.labels import read_store, with_gold
    from connector.sync.rounds import pull, push

_HOMES = {
    "adapters.base": ["LabelingTool"],
    "adapters.label_studio.adapter": ["LabelStudio"],
    "io.objects": ["Objects"],
    "corrections.apply": ["apply"],
    "journal.journal": ["Journal"],
    "corrections.plan": ["Proposal", "plan"],
    "corrections.undo": ["undo"],
    "errors": ["ConnectorError"],
    "formats.label_files": ["read_file"],
    "store.labels": ["read_store", "with_gold"],
    "project": ["Project", "open_project"],
    "model": ["Annotation", "Annotator", "Control", "Item", "Ontology", "Role", "Task"],
    "regions": ["Region", "parse_result"],
    "quality.agreement": ["agreement"],
    "quality.annotators": ["annotators"],
    "quality.consensus": ["consensus"],
    "quality.golden": ["golden"],
    "quality.table": ["Labels"],
    "quality.units": ["units"],
    "review.samples": ["draw_sample", "estimate"],
    "store.label_store": ["Store"],
    "sync.rounds": ["pull", "push"],
}

__all__ = [
    "Annotation",
    "Annotator",
    "ConnectorError",
    "Control",
    "Item",
    "Journal",
    "LabelStudio",
    "LabelingTool",
    "Labels",
    "Objects",
    "Ontology",
    "Project",
    "Proposal",
    "Region",
    "Role",
    "Store",
    "Task",
    "agreement",
    "annotators",
    "apply",
    "consensus",
    "draw_sample",
    "estimate",
    "golden",
    "open_project",
    "parse_result",
    "plan",
    "pull",
    "push",
    "read_file",
    "read_store",
    "undo",
    "units",
    "with_gold",
]


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"connector.{home}"), name)
    raise AttributeError(f"module 'connector' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
