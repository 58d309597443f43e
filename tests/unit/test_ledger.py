"""What stands in the ledger is on the disk, for those who come after a crash."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from connector.errors import Reject, UsageError
from connector.sync.ledger import ROUNDS, Ledger

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_a_batch_stands_there_until_it_is_ended(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "l.sqlite", "one")) as ledger:
        first = ledger.begin(["a", "ü 'b'"], NOW)
        second = ledger.begin(["c"], NOW)
    with closing(Ledger(tmp_path / "l.sqlite", "one")) as ledger:
        assert ledger.begun() == [(first, ["a", "ü 'b'"], NOW), (second, ["c"], NOW)]
        ledger.end(first)
        assert ledger.begun() == [(second, ["c"], NOW)]
    with closing(Ledger(tmp_path / "l.sqlite", "another project")) as ledger:
        assert ledger.begun() == []


def test_what_a_killed_process_began_is_there(tmp_path: Path) -> None:
    script = f"""
from datetime import datetime, UTC
from pathlib import Path
from connector.sync.ledger import Ledger
ledger = Ledger(Path({str(tmp_path / "l.sqlite")!r}), "one")
for n in range(10**6):
    number = ledger.begin([str(n)], datetime.now(UTC))
    print(n, flush=True)
    ledger.end(number - 1)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    told = [process.stdout.readline() for _ in range(20)]
    process.kill()
    process.communicate()
    with closing(Ledger(tmp_path / "l.sqlite", "one")) as ledger:
        begun = [int(keys[0]) for _, keys, _ in ledger.begun()]
    assert len(begun) in (1, 2)
    assert begun[-1] >= int(told[-1])


def test_the_last_rounds_are_told_and_old_ones_forgotten(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "l.sqlite", "one")) as ledger:
        for n in range(ROUNDS + 5):
            ledger.note(NOW + timedelta(seconds=n), "away" if n % 2 else None)
        assert [(r.at - NOW).seconds for r in ledger.rounds(3)] == [ROUNDS + 4, ROUNDS + 3, ROUNDS + 2]
        assert [r.error for r in ledger.rounds(3)] == [None, "away", None]
        assert len(ledger.rounds(10 * ROUNDS)) == ROUNDS


def test_two_at_once_may_write(tmp_path: Path) -> None:
    with (
        closing(Ledger(tmp_path / "l.sqlite", "one")) as one,
        closing(Ledger(tmp_path / "l.sqlite", "one")) as two,
    ):
        one.begin(["a"], NOW)
        two.begin(["b"], NOW)
        assert [keys for _, keys, _ in one.begun()] == [["a"], ["b"]]


EMPTY, NOTES = Reject("a.png", "the object is empty", "v1"), Reject("notes.txt", "no picture", "v1")
BAD_ROW = Reject("m.csv:7", "the row has no key")


def states(ledger: Ledger) -> dict[str, bool]:
    return {one.where: one.accepted for one in ledger.rejects()}


def test_an_accepted_reject_stays_accepted_while_it_is_the_same(tmp_path: Path) -> None:
    path, later = tmp_path / "l.sqlite", NOW + timedelta(days=1)
    with closing(Ledger(path, "one")) as ledger:
        first = ledger.keep_rejects([EMPTY, NOTES], None, NOW)
        assert [(k.reject, k.since, k.accepted) for k in first] == [
            (EMPTY, NOW, False),
            (NOTES, NOW, False),
        ]
        assert ledger.accept(["a.png"], "ann@host", later) == 1
        assert ledger.accept(None, "ben@host", later) == 1  # the other one is ann's already
    with closing(Ledger(path, "one")) as ledger:
        again = ledger.keep_rejects([NOTES, EMPTY], None, later)
        assert [(k.reject, k.since, k.accepted_by, k.accepted_at) for k in again] == [
            (NOTES, NOW, "ben@host", later),
            (EMPTY, NOW, "ann@host", later),
        ]
        assert ledger.unaccept(["a.png"]) == 1
        assert ledger.unaccept(["a.png"]) == 0
        assert states(ledger) == {"a.png": False, "notes.txt": True}


@pytest.mark.parametrize(
    "changed",
    [replace(NOTES, version="v2"), replace(NOTES, why="another reason"), replace(NOTES, version="")],
)
def test_another_content_or_reason_is_not_accepted(tmp_path: Path, changed: Reject) -> None:
    later = NOW + timedelta(days=1)
    with closing(Ledger(tmp_path / "l.sqlite", "one")) as ledger:
        ledger.keep_rejects([EMPTY, NOTES], None, NOW)
        ledger.accept(None, "ann", NOW)
        [_, known] = ledger.keep_rejects([EMPTY, changed], None, later)
        assert (known.since, known.accepted) == (later, False)
        assert states(ledger) == {"a.png": True, "notes.txt": False}
        [_, back] = ledger.keep_rejects([EMPTY, NOTES], None, later)
        assert not back.accepted


def test_what_is_not_rejected_any_more_is_forgotten_and_other_sources_are_left_alone(tmp_path: Path) -> None:
    with (
        closing(Ledger(tmp_path / "l.sqlite", "one")) as one,
        closing(Ledger(tmp_path / "l.sqlite", "other project")) as other,
    ):
        one.keep_rejects([EMPTY, NOTES], None, NOW)
        one.keep_rejects([BAD_ROW, EMPTY], "file:///m.csv", NOW)
        other.keep_rejects([NOTES], None, NOW)
        one.accept(None, "ann", NOW)
        one.keep_rejects([], None, NOW)
        assert [(k.where, k.manifest) for k in one.rejects()] == [
            ("a.png", "file:///m.csv"),
            ("m.csv:7", "file:///m.csv"),
        ]
        assert states(other) == {"notes.txt": False}


def test_one_place_may_be_rejected_for_two_reasons(tmp_path: Path) -> None:
    both = [Reject("k", "one reason"), Reject("k", "another")]
    with closing(Ledger(tmp_path / "l.sqlite", "one")) as ledger:
        assert [k.reject for k in ledger.keep_rejects([*both, both[0]], None, NOW)] == [*both, both[0]]
        assert ledger.accept(["k"], "ann", NOW) == 2
        assert all(k.accepted for k in ledger.keep_rejects(both, None, NOW))


def test_what_is_unknown_is_not_accepted_and_nothing_else_either(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "l.sqlite", "one")) as ledger:
        ledger.keep_rejects([EMPTY], None, NOW)
        for change in (
            lambda: ledger.accept(["a.png", "b.png"], "ann", NOW),
            lambda: ledger.unaccept(["b.png"]),
        ):
            with pytest.raises(UsageError, match=r"b\.png is not among the rejects") as refused:
                change()
            assert "connector status" in refused.value.hint
        assert states(ledger) == {"a.png": False}


def test_a_copy_for_a_dry_run_knows_the_same_and_changes_nothing(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "l.sqlite", "one")) as ledger:
        ledger.keep_rejects([EMPTY, NOTES], None, NOW)
        ledger.accept(["a.png"], "ann", NOW)
        with closing(ledger.copy()) as copy:
            assert copy.rejects() == ledger.rejects()
            copy.accept(None, "ann", NOW)
            copy.keep_rejects([NOTES], None, NOW)
            assert states(copy) == {"notes.txt": True}
        assert states(ledger) == {"a.png": True, "notes.txt": False}


def test_an_acceptance_survives_pushes_of_another_process(tmp_path: Path) -> None:
    script = f"""
from datetime import datetime, UTC
from pathlib import Path
from connector.errors import Reject
from connector.sync.ledger import Ledger
ledger = Ledger(Path({str(tmp_path / "l.sqlite")!r}), "one")
both = [Reject("a.png", "the object is empty", "v1"), Reject("notes.txt", "no picture", "v1")]
for n in range(10**6):
    more = [Reject(f"{{n}}-{{m}}", "passing") for m in range(50)]
    ledger.keep_rejects([*both, *more], None, datetime.now(UTC))
    print(n, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    process.stdout.readline()
    with closing(Ledger(tmp_path / "l.sqlite", "one")) as ledger:
        ledger.accept(["a.png", "notes.txt"], "ann", NOW)
        for _ in range(20):
            process.stdout.readline()
        process.kill()  # in the middle of whatever it does
        process.communicate()
        known = ledger.rejects()
        assert {k.where for k in known if k.accepted} == {"a.png", "notes.txt"}
        rounds = {k.where.partition("-")[0] for k in known if k.why == "passing"}
        assert (len(rounds), len(known)) == (1, 52)


def test_a_file_of_an_older_version_is_used_on(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "l.sqlite", "one")) as ledger:
        ledger.begin(["a"], NOW)
    with closing(sqlite3.connect(tmp_path / "l.sqlite")) as db:
        db.execute("DROP TABLE reject")
    with closing(Ledger(tmp_path / "l.sqlite", "one")) as ledger:
        ledger.keep_rejects([EMPTY], None, NOW)
        assert (states(ledger), len(ledger.begun())) == ({"a.png": False}, 1)


@pytest.mark.parametrize("name", ["no/folder.sqlite", "text.sqlite"])
def test_a_file_that_cannot_be_one_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.sqlite").write_text("this is no database, and long enough to be seen as none" * 20)
    with pytest.raises(UsageError, match=r"folder\.sqlite|text\.sqlite") as caught:
        Ledger(tmp_path / name, "one")
    assert caught.value.hint
