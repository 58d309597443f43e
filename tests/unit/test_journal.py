"""The journal of corrections: written once, chained, and found out when somebody has touched it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from connector.errors import Conflict, UsageError
from connector.io.objects import Objects
from connector.journal.actions import Held
from connector.journal.correction import Action, Correction
from connector.journal.journal import Begun, Intent, Journal, Outcome, State
from connector.model import Annotation
from tests.conftest import JOURNAL_KEYS

AT = datetime(2026, 3, 1, tzinfo=UTC)

CORRECTION = Correction(task="7", key="k", action=Action.ADD, expect="e", then="[]", why="because ✓")


def filled(url: str, segments: int = 3) -> Journal:
    """A journal of one run of one correction a segment."""
    journal = Journal(url, keys=JOURNAL_KEYS)
    journal.append([Begun(run="r", at=AT, project="p", by="me"), intent(0)])
    for number in range(1, segments):
        journal.append([outcome(number - 1), intent(number)])
    return journal


def intent(number: int) -> Intent:
    return Intent(run="r", at=AT, number=number, correction=CORRECTION, before=Held(ids=("1",)))


def outcome(number: int, state: State = State.WRITTEN) -> Outcome:
    ours = Annotation(id=str(number), task_id="7", annotator="me", ground_truth=True, updated_at=AT)
    return Outcome(run="r", at=AT, number=number, state=state, after=Held(annotations=(ours,)))


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_what_was_written_is_read_back_by_another(tmp_path: Path, place: str) -> None:
    url = str(tmp_path / "deep" / "labels-corrections") if place == "folder" else f"memory://{tmp_path.name}"
    mine = filled(url)
    other = Journal(url, keys=JOURNAL_KEYS)
    assert [run.states for run in other.runs()] == [{"written": 2, "sent": 1}]
    assert other.entries("r") == mine.entries("r")
    assert other.entries("nobody's") == {}
    mine.append([outcome(2)])
    assert [run.states for run in other.runs()] == [{"written": 3}]
    chain = other.chain()
    assert (chain.segments, chain.lines) == (4, 11)
    assert other.chain(chain.head) == replace(chain, proven=11)


def test_each_line_bears_the_hash_of_the_one_before(tmp_path: Path) -> None:
    filled(str(tmp_path))
    last = "0" * 64
    for segment in sorted(tmp_path.iterdir()):
        for line in segment.read_bytes().splitlines():
            assert json.loads(line)["prev"] == last
            last = hashlib.sha256(line).hexdigest()
    assert Journal(str(tmp_path), keys=JOURNAL_KEYS).chain().head == last


def test_of_two_who_write_the_same_segment_the_second_is_refused(tmp_path: Path) -> None:
    journal, other = filled(str(tmp_path)), Journal(str(tmp_path), keys=JOURNAL_KEYS)
    other.runs()
    journal.append([outcome(2)])
    with pytest.raises(Conflict, match="another run is writing"):
        other.append([outcome(2, State.CONFLICT)])
    assert other.chain().segments == 4


def test_a_write_whose_answer_was_lost_is_found_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"memory://{tmp_path.name}"
    journal = filled(url)
    real = Objects.write_new

    def tried_twice(self: Objects, path: str, data: bytes) -> str:
        real(self, path, data)
        return real(self, path, data)

    monkeypatch.setattr(Objects, "write_new", tried_twice)
    journal.append([outcome(2)])
    assert Journal(url, keys=JOURNAL_KEYS).chain().segments == 4


def edit(text: str, replacement: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(path.read_text().replace(text, replacement, 1))


def without_line(number: int) -> Callable[[Path], object]:
    def cut(path: Path) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))

    return cut


@pytest.mark.parametrize(
    ("segment", "harm", "found"),
    [
        (1, edit("because", "be cause"), "00000001.jsonl:3 does not follow"),
        (2, edit('"written"', '"conflict"'), "00000002.jsonl:2 does not follow"),
        (2, without_line(0), "00000002.jsonl:1 does not follow"),
        (2, without_line(1), "00000002.jsonl:2 does not follow"),
        (3, lambda path: path.write_bytes(path.read_bytes()[:-20]), "00000003.jsonl:3 was cut off"),
        (3, lambda path: path.write_bytes(b""), "00000003.jsonl:1 was cut off"),
        (3, edit('"kind":"intent"', '"kind":"invent"'), "00000003.jsonl:2 cannot be read"),
        (2, Path.unlink, "00000002.jsonl is missing"),
        (1, Path.unlink, "00000001.jsonl is missing"),
        (2, lambda path: path.rename(path.with_name("notes.txt")), "00000002.jsonl is missing"),
    ],
)
def test_what_somebody_did_to_it_is_named_and_nothing_goes_on(
    tmp_path: Path, segment: int, harm: Callable[[Path], object], found: str
) -> None:
    filled(str(tmp_path))
    harm(tmp_path / f"0000000{segment}.jsonl")
    for use in (Journal.chain, Journal.runs, lambda journal: journal.entries("r")):
        with pytest.raises(UsageError, match=found):
            use(Journal(str(tmp_path), keys=JOURNAL_KEYS))


def test_an_end_that_was_cut_off_is_found_by_whoever_kept_its_hash(tmp_path: Path) -> None:
    head = filled(str(tmp_path)).chain().head
    (tmp_path / "00000003.jsonl").unlink()
    shorter = Journal(str(tmp_path), keys=JOURNAL_KEYS).chain()
    assert shorter.segments == 2
    with pytest.raises(UsageError, match="no line of it has the hash"):
        Journal(str(tmp_path), keys=JOURNAL_KEYS).chain(head)


def test_a_reader_that_has_read_more_than_is_left_says_so(tmp_path: Path) -> None:
    journal = filled(str(tmp_path))
    (tmp_path / "00000003.jsonl").unlink()
    with pytest.raises(UsageError, match=r"00000003.jsonl is missing"):
        journal.runs()


def test_what_a_crash_left_half_written_is_no_segment(tmp_path: Path) -> None:
    filled(str(tmp_path))
    (tmp_path / ".00000004.jsonl-x7d").write_bytes(b'{"prev":"')
    assert Journal(str(tmp_path), keys=JOURNAL_KEYS).chain().segments == 3


def test_an_empty_journal_is_whole(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "none"), keys=JOURNAL_KEYS)
    assert (journal.runs(), journal.chain().lines) == ([], 0)
    assert not (tmp_path / "none").exists()


def test_a_plan_is_known_by_what_it_wrote_and_until_then_by_what_it_meant_to_write(tmp_path: Path) -> None:
    journal = filled(str(tmp_path), segments=1)
    [wanted] = [Annotation(task_id="7", annotator="me", ground_truth=True)]
    there = wanted.model_copy(update={"id": "9", "updated_at": AT})
    assert journal.plans().of("7", "9", there.revision) == "r"
    assert journal.plans().of("8", "9", there.revision) is None
    journal.append([outcome(0)])
    assert journal.plans().of("7", "9", there.revision) is None
    assert journal.plans().of("7", "0", there.revision) == "r"
