"""A journal that is missing, shortened or rewritten: the store beside it shows it, and nothing is written."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from connector.adapters.base import LabelingTool
from connector.adapters.dry_run import DryRun
from connector.adapters.memory import MemoryTool, ToolProject
from connector.commands.session import Session
from connector.config import parse
from connector.corrections.plan import Plan
from connector.errors import UsageError
from connector.journal.journal import Journal
from connector.project import Project
from connector.sync import rounds as sync
from tests.conftest import run_command
from tests.unit.test_corrections import PEOPLE, PROJECT, START, Desk, contract, held, three_to_correct


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk at which the commands work too, with a store and a journal in folders."""
    clock = (START + timedelta(seconds=n) for n in itertools.count())
    tool = MemoryTool(ToolProject(people=PEOPLE, clock=lambda: next(clock)), me=PEOPLE[3])
    tool.write_ontology(tool.parse_ontology(contract.source))

    class Here(Project):
        name = PROJECT

        def tool(self, dry_run: bool = False) -> LabelingTool:
            return DryRun(tool) if dry_run else tool

    line = Here(parse('[store]\nurl = "labels"\n', tmp_path / "connector.toml"))
    monkeypatch.setattr(Session, "project", line)
    return Desk(tool, tmp_path, clock)


def corrected(desk: Desk) -> Plan:
    """Three corrections that were applied and pulled."""
    made = three_to_correct(desk, "replace")
    desk.apply(made)
    sync.pull(desk.tool, desk.store)
    return made


def segments(desk: Desk) -> list[Path]:
    return sorted((desk.folder / "labels-corrections").glob("*.jsonl"))


def missing(desk: Desk) -> None:
    shutil.rmtree(desk.folder / "labels-corrections")


def emptied(desk: Desk) -> None:
    for path in segments(desk):
        path.unlink()


def without_its_end(desk: Desk) -> None:
    segments(desk)[-1].unlink()


def without_its_last_line(desk: Desk) -> None:
    last = segments(desk)[-1]
    last.write_bytes(b"".join(last.read_bytes().splitlines(keepends=True)[:-1]))


def with_another_last_line(desk: Desk) -> None:
    last = segments(desk)[-1]
    *lines, line, _seal = last.read_bytes().splitlines(keepends=True)
    said = json.loads(line)
    said["why"] = "forged"
    last.write_bytes(b"".join([*lines, json.dumps(said, separators=(",", ":")).encode() + b"\n"]))


def relinked(folder: Path, edit: Callable[[bytes], bytes], seal: bool) -> None:
    """Rewrite all lines with hashes that fit, with the old seals or without."""
    head = "0" * 64
    for path in sorted(folder.glob("*.jsonl")):
        lines = []
        for line in edit(path.read_bytes()).splitlines():
            if not seal and b'"kind":"seal"' in line:
                continue
            rest = line.partition(b'",')[2]
            forged = b'{"prev":"' + head.encode() + b'",' + rest
            head = hashlib.sha256(forged).hexdigest()
            lines.append(forged + b"\n")
        path.write_bytes(b"".join(lines))


def rewritten(desk: Desk) -> None:
    """What stood there before is another answer, and all hashes fit."""
    relinked(desk.folder / "labels-corrections", lambda data: data.replace(b"dog", b"cow"), seal=True)


FORGERIES = [missing, emptied, without_its_end, without_its_last_line, with_another_last_line, rewritten]


@pytest.mark.parametrize("forge", FORGERIES)
def test_a_forged_journal_is_found_and_nothing_of_it_is_written(
    desk: Desk, forge: Callable[[Desk], None]
) -> None:
    made = corrected(desk)
    made.save(desk.folder / "plan.jsonl")
    shutil.copytree(desk.folder / "labels-corrections", desk.folder / "copy")
    was, version = held(desk), desk.store.version
    forge(desk)
    Journal(desk.journal().url).chain()  # the hashes alone do not show it: they fit
    for words in (
        ["correct", "verify"],
        ["correct", "undo", made.run],
        ["correct", "undo", made.run, "--dry-run"],
        ["correct", "apply", "plan.jsonl"],
        ["correct", "log"],
    ):
        code, out, err = run_command(words, desk.folder, {})
        assert (code, out) == (2, ""), words
        # `log` needs no key, and compares the notes only.
        assert "was tampered with or damaged" in err or (words[1] != "log" and "is not authenticated" in err)
        assert "restore that folder from a copy" in err
    contract.add(desk.tool, "new")
    with pytest.raises(UsageError, match="was tampered with or damaged"):
        sync.pull(desk.tool, desk.store)  # it would note the forged one as the true one
    assert desk.store.version == version
    assert {key: said for key, said in held(desk).items() if key != "new"} == was
    shutil.rmtree(desk.folder / "labels-corrections", ignore_errors=True)
    (desk.folder / "copy").rename(desk.folder / "labels-corrections")
    assert run_command(["correct", "verify"], desk.folder, {})[0] == 0
    sync.pull(desk.tool, desk.store)
    code, out, _ = run_command(["correct", "undo", made.run, "--json"], desk.folder, {})
    assert (code, json.loads(out)["taken_back"]) == (0, 3)


def forget_marks(store: Path) -> None:
    """As the log was before the store noted how far the journal was read."""
    for path in (store / "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in path.read_text().splitlines()]
        for action in actions:
            action.get("commitInfo", {}).get("connector", {}).pop("journal", None)
        path.write_text("".join(json.dumps(action) + "\n" for action in actions))


@pytest.mark.parametrize("forge", [missing, emptied])
def test_beside_an_older_store_a_journal_without_a_run_that_its_rows_name_is_broken(
    desk: Desk, forge: Callable[[Desk], None]
) -> None:
    made = corrected(desk)
    forget_marks(desk.folder / "labels")
    assert run_command(["correct", "verify"], desk.folder, {})[0] == 0
    forge(desk)
    for words in (["correct", "verify"], ["correct", "undo", made.run]):
        code, _, err = run_command(words, desk.folder, {})
        assert code == 2
        assert f"it is missing, and the label store knows of run {made.run}" in err


def test_beside_an_older_store_a_journal_of_another_run_only_is_broken(desk: Desk) -> None:
    made = corrected(desk)
    forget_marks(desk.folder / "labels")
    for path in segments(desk):
        path.write_bytes(path.read_bytes().replace(made.run.encode(), b"0" * len(made.run)))
    # The hashes are made to fit again.
    rewritten(desk)
    code, _, err = run_command(["correct", "log"], desk.folder, {})
    assert code == 2
    assert f"it lacks run {made.run}" in err


def test_verify_says_how_much_was_compared(desk: Desk) -> None:
    def verified(*words: str) -> tuple[int, int, str]:
        code, out, err = run_command(["correct", "verify", "--json", *words], desk.folder, {})
        assert code == 0, err
        said = json.loads(out)
        return said["lines"], said["compared"], said["head"]

    assert verified()[:2] == (0, 0)
    made = three_to_correct(desk, "replace")
    desk.apply(made)
    lines, compared, first = verified()
    assert lines > 0
    assert compared == 0  # nothing was pulled since
    assert verified("--head", first)[1] == lines
    sync.pull(desk.tool, desk.store)
    assert verified()[:2] == (lines, lines)
    desk.undo(made.run)
    more, compared, _ = verified()
    assert more > lines
    assert compared == lines
    assert verified("--head", first)[1] == lines


def test_each_commit_with_rows_notes_how_far_the_journal_was_read(desk: Desk) -> None:
    corrected(desk)
    desk.store.name("first", datetime(2026, 3, 2, tzinfo=UTC))
    chain = desk.journal().chain()
    noted = [one.told.get("journal") for one in desk.store.commits() if one.kind in ("pull", "snapshot")]
    assert noted[0] == noted[1] == {"lines": chain.lines, "head": chain.head}
    assert noted[-1] == {"lines": 0, "head": "0" * 64}
