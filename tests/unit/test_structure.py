"""The floors of the house: a room imports only from below, and quality knows no outside world."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import connector

ROOT = Path(connector.__file__).parent

FLOORS = [
    ["errors", "model"],
    ["regions"],
    ["quality", "quality.table", "quality.interval", "quality.similarity"],
    ["quality.answers", "quality.kinds", "quality.resampling", "quality.sampling"],
    ["quality.alignment", "quality.units", "quality.counts", "quality.merge", "quality.graded"],
    ["quality.agreement", "quality.truth"],
    ["quality.golden", "quality.consensus", "quality.review", "quality.annotators", "quality.parity"],
    [
        "config",
        "scales",
        "retry",
        "files",
        "sqlite",
        "adapters.base",
        "adapters.label_studio_config",
        "adapters.objects_failures",
        "adapters.signatures",
    ],
    ["adapters.label_studio_server", "adapters.objects"],
    ["lease", "index", "ledger", "inbox", "engine"],
    ["adapters.label_studio", "adapters.memory", "adapters.dry_run", "adapters.contract"],
    ["adapters", "delta"],
    ["corrections", "corrections.plan"],
    ["corrections.actions", "corrections.keys"],
    ["corrections.journal"],
    ["store", "items"],
    [
        "labels",
        "label_files",
        "reading",
        "tables",
        "foreign",
        "exported",
        "history",
        "sync",
        "ontology",
        "review",
        "reconcile",
        "watch",
        "export",
        "predictions",
        "eventlog",
    ],
    ["events"],
    ["parts"],
    ["corrections.merged", "corrections.sources"],
    ["corrections.apply", "corrections.history"],
    ["corrections.undo"],
    ["line", "report.data", "report.draw", "report", "report.content"],
    ["callbacks", "connections", "webhooks", "outgoing", "rules", "ask"],
    ["live"],
    ["connector"],
    ["demo.server", "demo.pictures", "demo.people", "demo.line", "demo._prepare", "demo"],
    ["commands.session", "commands.inputs"],
    ["commands"],
    ["__main__"],
]
"""From the ground up. Within a floor anybody may import anybody; from above, nobody."""

LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}

PURE = {
    "numpy",
    "polars",
    "scipy",
    "dataclasses",
    "collections",
    "types",
    "typing",
    "statistics",
    "itertools",
    "functools",
    "datetime",
    "re",
    "json",
    "unicodedata",
    "shapely",
    "rapidfuzz",
    "__future__",
}


def room_of(path: Path) -> str:
    parts = [part for part in path.relative_to(ROOT).with_suffix("").parts if part != "__init__"]
    return known(parts) or (parts[0] if parts else "connector")


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_named(module: str) -> str | None:
    """The room of a module of ours, or of a name in it."""
    if not module.startswith("connector."):
        return "connector" if module == "connector" else None
    return known(module.removeprefix("connector.").split("."))


def known(parts: Sequence[str]) -> str | None:
    """The longest beginning of a module's name that has a floor."""
    return next((".".join(parts[:n]) for n in (2, 1) if ".".join(parts[:n]) in LEVEL), None)


MODULES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    here = room_of(path)
    assert here in LEVEL, f"{here} has no floor yet: give it one in FLOORS"
    for module in imported(path):
        there = room_named(module)
        if module.startswith("connector."):
            assert there, f"{module} has no floor yet: give it one in FLOORS"
            assert LEVEL[there] <= LEVEL[here], f"{here} must not import {there}"


@pytest.mark.parametrize("path", sorted((ROOT / "quality").rglob("*.py")), ids=lambda path: path.name)
def test_quality_knows_no_outside_world(path: Path) -> None:
    for module in imported(path):
        first = module.split(".")[0]
        assert first in PURE or module.startswith("connector.quality"), f"{path.name} imports {module}"
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"open", "print", "input"}


@pytest.mark.parametrize("path", sorted((ROOT / "adapters").glob("*.py")), ids=lambda path: path.name)
def test_adapters_know_nothing_of_quality(path: Path) -> None:
    assert not [module for module in imported(path) if module.startswith("connector.quality")]


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    return set(
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_help_imports_nothing_heavy() -> None:
    heavy = {
        "polars",
        "numpy",
        "scipy",
        "pydantic",
        "deltalake",
        "obstore",
        "requests",
        "label_studio_sdk",
        "rich",
    }
    found = loaded_by("from connector.commands import run\nassert run(['--help']) == 0")
    assert not found & heavy


def test_the_public_names_are_there_and_nothing_is_loaded_before_it_is_used() -> None:
    assert {name for names in connector._HOMES.values() for name in names} == set(connector.__all__)
    for name in connector.__all__:
        assert getattr(connector, name).__name__ == name
    loaded = loaded_by("import connector; connector.ConnectorError")
    assert not loaded & {"polars", "numpy", "pydantic", "deltalake", "label_studio_sdk"}


def test_a_pull_does_without_the_sdk_until_it_is_needed() -> None:
    assert "label_studio_sdk" not in loaded_by(
        "import connector.adapters.label_studio, connector.sync, connector.store"
    )
