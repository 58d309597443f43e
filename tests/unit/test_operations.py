"""What docs/operations.md and the Dockerfile say is what the program does and what the repository has."""

from __future__ import annotations

import re
from configparser import ConfigParser
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from connector.config import Serve
from connector.errors import AuthError, Conflict, ConnectorError, Temporary, UsageError

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "operations.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert found
    return found[1]


def service() -> dict[str, str]:
    unit = ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block("ini"))
    return dict(unit["Service"])


@pytest.mark.parametrize(
    ("error", "restarts"),
    [(ConnectorError, True), (UsageError, False), (AuthError, False), (Temporary, True), (Conflict, True)],
)
def test_the_service_restarts_where_waiting_may_help(error: type[ConnectorError], restarts: bool) -> None:
    assert service()["Restart"] == "on-failure"
    assert (str(error.exit_code) not in service()["RestartPreventExitStatus"].split()) is restarts
    row = re.search(rf"^\| {error.exit_code} \| .* \| (yes|no)\b", TEXT, re.MULTILINE)
    assert row
    assert (row[1] == "yes") is restarts


def test_the_proxy_lets_through_what_the_receiver_takes() -> None:
    limit = re.search(r"client_max_body_size (\d+)m;", block("nginx"))
    assert limit
    assert int(limit[1]) * 2**20 >= Serve().body_bytes
    assert block("nginx").count(f"http://127.0.0.1:{Serve().port}") == 2


def test_the_image_is_made_of_what_is_there_and_pinned() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[0] == "*"
    let_in = [pattern[1:] for pattern in ignored if pattern.startswith("!")]
    copied = [
        word for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.M) for word in line.split()
    ]
    assert len(copied) >= 7
    for name in copied:
        assert (ROOT / name).exists()
        assert any(fnmatchcase(name, pattern) for pattern in let_in)
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    assert len(set(bases)) == 1
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-[a-z-]+", base) for base in bases)
    for command in re.findall(r"(?:pip install|pip sync|uv build) .*?(?=&&|\n)", DOCKERFILE):
        assert "--require-hashes" in command or ("--no-deps" in command and "/wheel/" in command)
    assert re.search(r"^USER \d+$", DOCKERFILE, re.M)
