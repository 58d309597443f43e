"""What was recorded lets nobody in and says nothing of where it was recorded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.contract.test_label_studio import CASSETTES, RECORDED_AT, scrubbed

RECORDED = sorted(CASSETTES.glob("*.yaml"))

FORBIDDEN = {
    "a token of forty hexadecimal digits": r"(?<!commit\": \")\b[0-9a-f]{40}\b",
    "a personal access token": r"eyJ[\w-]{8,}",
    "an authorization header": r"(?i)authorization",
    "a cookie": r"(?i)(set-)?cookie:",
    "an address of loopback or a local network": r"\b(127\.\d+|10\.\d+|192\.168)\.\d+\.\d+\b|localhost:\d",
    "an e-mail address that may be somebody's": r"[\w.+-]+@(?!example\.com)[\w-]+\.\w+",
    "a path of a machine": r"/(home|root|tmp|Users)/\w",
}


def test_there_are_cassettes() -> None:
    assert len(RECORDED) > 30


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_cassette_holds_no_secret_and_no_address(path: Path) -> None:
    text = path.read_text()
    assert RECORDED_AT in text
    assert {what: found[0] for what, rule in FORBIDDEN.items() if (found := re.search(rule, text))} == {}


def test_scrubbing_takes_out_what_the_scan_looks_for() -> None:
    url = "http://127.0.0.1:8080"
    token = "eyJhbGciOi.eyJ0b2tlbl9.dUjoDsx_G-5"
    legacy = "a1" * 20
    dirty = (
        f'{{"token": "{legacy}", "next": "{url}/api/x?page=2", "host": "127.0.0.1:8080", "pat": "{token}"}}'
    )
    clean = scrubbed(dirty, url)
    assert not any(re.search(rule, clean) for rule in FORBIDDEN.values())
    assert f"{RECORDED_AT}/api/x?page=2" in clean
