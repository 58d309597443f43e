"""The contract suite is itself tested: it must fail on adapters that break a promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract import broken

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "noticed_by"),
    [
        ("TestDuplicates", "test_the_same_item_twice_is_one_task"),
        ("TestOverwrites", "test_a_stale_write_is_refused_and_the_others_edit_stays"),
        ("TestForgets", "test_going_on_from_any_page_loses_nothing"),
        ("TestCleans", "test_fields_we_do_not_understand_survive"),
        ("TestLetsIn", "test_an_event_without_our_secret_is_not_let_in"),
    ],
)
def test_an_adapter_that_breaks_a_promise_fails_the_suite(name: str, noticed_by: str) -> None:
    assert name in {one.__name__ for one in broken.BROKEN}
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/contract/broken.py::{name}"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=600)
    failed = set(re.findall(r"^FAILED \S+::(\w+)", done.stdout, re.M))
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert noticed_by in failed
    assert "passed" in done.stdout.splitlines()[-1]  # it is broken in one way only


def test_all_broken_adapters_are_tried() -> None:
    marks = test_an_adapter_that_breaks_a_promise_fails_the_suite.pytestmark  # type: ignore[attr-defined]
    assert {name for name, _ in marks[0].args[1]} == {one.__name__ for one in broken.BROKEN}
