"""What stands in the ledger is on the disk, for those who come after a crash."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from connector.errors import UsageError
from connector.ledger import ROUNDS, Ledger

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_a_batch_stands_there_until_it_is_ended(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "l.sqlite", "one")) as ledger:
        first = ledger.begin(["a", "ü 'b'"], NOW)
        second = ledger.begin(["c"], NOW)
    with closing(Ledger(tmp_path / "l.sqlite", "one")) as ledger:
        assert ledger.begun() == [(first, ["a", "ü 'b'"]), (second, ["c"])]
        ledger.end(first)
        assert ledger.begun() == [(second, ["c"])]
    with closing(Ledger(tmp_path / "l.sqlite", "another project")) as ledger:
        assert ledger.begun() == []


def test_what_a_killed_process_began_is_there(tmp_path: Path) -> None:
    script = f"""
from datetime import datetime, UTC
from pathlib import Path
from connector.ledger import Ledger
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
        begun = [int(keys[0]) for _, keys in ledger.begun()]
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
        assert [keys for _, keys in one.begun()] == [["a"], ["b"]]


@pytest.mark.parametrize("name", ["no/folder.sqlite", "text.sqlite"])
def test_a_file_that_cannot_be_one_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.sqlite").write_text("this is no database, and long enough to be seen as none" * 20)
    with pytest.raises(UsageError, match=r"folder\.sqlite|text\.sqlite") as caught:
        Ledger(tmp_path / name, "one")
    assert caught.value.hint
