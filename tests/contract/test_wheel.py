"""What people install: the wheel, with the packages it declares and nothing of this checkout.

All that is installed is in uv's cache since the checkout itself was; nothing is downloaded unless that was
emptied.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest

from connector.demo.server import PACKAGES

ROOT = Path(__file__).parents[2]
UV = ROOT / ".uv" / "bin" / "uv"
REQUIREMENTS = ROOT / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

LABELS = "task,annotator,label\n1,ann,cat\n1,ben,cat\n2,ann,dog\n2,ben,cat\n3,ann,dog\n3,ben,dog\n"


def run(*command: object, folder: Path) -> subprocess.CompletedProcess[str]:
    ours = ("PYTHON", "CONNECTOR", "COV")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=folder, env=clean, capture_output=True, text=True, timeout=120, check=False
    )


def uv(*words: object, folder: Path) -> None:
    if not UV.exists():
        pytest.fail("there is no uv: run `make .uv/bin/uv`")
    for where in (["--offline"], []):
        done = run(UV, *words, "--quiet", *where, folder=folder)
        if done.returncode == 0:
            return
    pytest.fail(done.stderr)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pinned = ("--build-constraints", REQUIREMENTS / "build.txt", "--require-hashes")
    uv("build", "--wheel", *pinned, "--out-dir", folder, ROOT, folder=folder)
    [made] = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel: Path) -> Path:
    """The programs of an environment in which the wheel is installed."""
    folder = wheel.parent / "environment"
    made = run(sys.executable, "-m", "venv", "--without-pip", folder, folder=wheel.parent)
    assert made.returncode == 0, made.stderr
    python = folder / "bin" / "python"
    locked = ("--require-hashes", REQUIREMENTS / "run.txt")
    uv("pip", "sync", "--python", python, *locked, folder=folder)
    uv("pip", "install", "--no-deps", "--python", python, wheel, folder=folder)
    home = run(python, "-c", "import connector; print(connector.__file__)", folder=folder).stdout
    assert Path(home.strip()).is_relative_to(folder)
    return folder / "bin"


def test_the_wheel_carries_its_license_and_all_that_the_commands_read(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [license] = [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
        assert archive.read(license) == (ROOT / "LICENSE").read_bytes()
        [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
        assert f"License-Expression: {PROJECT['license']}\n" in archive.read(metadata).decode()
    listed = run("git", "ls-files", "connector", folder=ROOT).stdout.splitlines()
    assert set(listed) <= set(names)


def test_the_installed_command_shows_its_help(environment: Path, tmp_path: Path) -> None:
    shown = run(environment / "connector", "--help", folder=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "quality" in shown.stdout


def test_the_installed_command_computes_and_reports(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(LABELS)
    command = (environment / "connector", "quality", "consensus", "--labels", "labels.csv", "--json")
    asked = run(*command, folder=tmp_path)
    assert asked.returncode == 0, asked.stderr
    [control] = json.loads(asked.stdout)["controls"]
    assert (control["tasks"], control["annotators"]) == (3, 2)

    report = (environment / "connector", "report", "--labels", "labels.csv", "--out", "report.html")
    written = run(*report, folder=tmp_path)
    assert written.returncode == 0, written.stderr
    assert "ben" in (tmp_path / "report.html").read_text()


def test_the_installed_demo_names_the_commands_that_prepare_its_server(
    environment: Path, tmp_path: Path
) -> None:
    shown = run(environment / "connector", "demo", folder=tmp_path)
    assert shown.returncode == 2
    commands = [line.strip() for line in shown.stderr.splitlines() if ".server" in line][-3:]
    python = environment / "python"
    assert commands == [
        f"{python} -m venv .server/venv",
        ".server/venv/bin/python -m pip install " + " ".join(f"'{name}'" for name in PACKAGES),
        f"{python} -m connector.demo.server .server",
    ]
    # The first and the last need no network, so they are followed as far as possible without the second.
    assert run("sh", "-c", commands[0], folder=tmp_path).returncode == 0
    prepared = run("sh", "-c", commands[2], folder=tmp_path)
    assert "label_studio" in prepared.stderr


def test_the_demo_asks_for_the_server_that_the_tests_use() -> None:
    assert list(PACKAGES) == (REQUIREMENTS / "server.in").read_text().split()


def test_what_runs_is_locked_to_what_is_tested() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^\S+==\S+", (REQUIREMENTS / name).read_text(), re.MULTILINE))

    assert pins("run.txt") < pins("dev.txt")
    assert any(pin.startswith("hatchling==") for pin in pins("build.txt"))


def imported() -> Iterator[tuple[str, Path]]:
    """The modules of others that the package imports, and where."""
    for file in (ROOT / "connector").rglob("*.py"):
        if file.name == "_prepare.py":
            continue  # runs in the server's environment, with the server's packages
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in (name.partition(".")[0] for name in names):
                if name not in sys.stdlib_module_names and name != "connector":
                    yield name, file


def test_every_package_that_is_imported_is_declared() -> None:
    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    wanted = list(chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()))
    declared = {normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in wanted}
    brought_by = packages_distributions()
    missing = {
        f"{name} in {file.relative_to(ROOT)}"
        for name, file in imported()
        if not declared & {normal(package) for package in brought_by[name]}
    }
    assert not missing
