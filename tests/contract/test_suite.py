"""The contract suite is itself tested: it must fail on adapters that break a promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from connector.adapters.memory import MemoryTool
from tests.contract import broken

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("adapter", broken.BROKEN, ids=lambda adapter: str(adapter.__name__))
def test_an_adapter_that_breaks_a_promise_fails_the_suite(adapter: type[MemoryTool]) -> None:
    # Only the tests that open the adapter bear its name.
    words = [
        "tests/contract/broken.py::TestBroken",
        "-k",
        f"[{adapter.__name__}",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    failed = set(re.findall(r"^FAILED \S+::(\w+)", done.stdout, re.M))
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert broken.BROKEN[adapter] in failed
    assert "passed" in done.stdout.splitlines()[-1]  # it is broken in one way only
