"""The packages: each imports only from below, and quality does without the outside world."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import connector

ROOT = Path(connector.__file__).parent

TABLE = (ROOT.parent / "docs" / "architecture.md").read_text()
LAYERS = [re.findall("`(.+?)`", row) for row in re.findall(r"^\| \d+ \| (.+?) \|", TABLE, re.M)]
LEVEL = {package: level for level, layer in enumerate(LAYERS) for package in layer}
"""The layer of each package, by its name after `connector.`."""

ENTRANCES = {"__init__", "__main__"}
"""What a notebook and the command line import: they import from everywhere, and no package imports them."""

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


def package_of(module: str) -> str:
    """The package of a module, or of a name in it, by its name after `connector.`; the first part else."""
    parts = module.split(".")
    return ".".join(parts[:2]) if ".".join(parts[:2]) in LEVEL else parts[0]


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def edges() -> dict[str, set[str]]:
    """Which packages each package imports."""
    found: dict[str, set[str]] = {package: set() for package in LEVEL}
    for path in ROOT.rglob("*.py"):
        here = package_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        if here not in ENTRANCES:
            named = [name for name in imported(path) if name.startswith("connector.")]
            found[here] |= {package_of(name.removeprefix("connector.")) for name in named} - {here}
    return found


def test_packages_import_only_from_below() -> None:
    up = {(a, b) for a, below in edges().items() for b in below if LEVEL[b] > LEVEL[a]}
    assert not up


def test_packages_do_not_import_each_other_in_a_circle() -> None:
    TopologicalSorter(edges()).prepare()  # raises CycleError, which names the circle


def test_the_table_of_packages_names_those_that_there_are() -> None:
    there = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there == {package.split(".")[0] for package in LEVEL} | ENTRANCES


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


@pytest.mark.parametrize("path", sorted((ROOT / "adapters").rglob("*.py")), ids=lambda path: path.name)
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
        "import connector.adapters.label_studio.adapter, connector.sync.rounds, connector.store.label_store"
    )
