"""What make checks before it sets anything up. The Pythons that lack something are shell scripts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "requirements" / "prerequisites.sh"


def checked(python: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", SCRIPT, str(python)], capture_output=True, text=True, check=False)


def python_that(folder: Path, answers: str) -> Path:
    script = folder / "python3"
    script.write_text(f'#!/bin/sh\ncase "$2" in\n{answers}\nesac\n')
    script.chmod(0o755)
    return script


def test_a_complete_python_passes_in_silence() -> None:
    done = checked(sys.executable)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ("*print*) echo 3.9 ;;\n*exit*) exit 1 ;;", "is Python 3.9; 3.11 or newer is needed"),
        ("*print*) echo 3.11 ;;\n*ensurepip*) exit 1 ;;", "lacks the modules venv and ensurepip"),
    ],
)
def test_what_a_python_lacks_is_named_in_one_line(tmp_path: Path, answers: str, said: str) -> None:
    done = checked(python_that(tmp_path, answers))
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_python_that_is_not_there_is_named() -> None:
    done = checked("no-such-python")
    assert done.returncode == 1
    assert "no-such-python is not installed. Install Python 3.11 or newer" in done.stderr
