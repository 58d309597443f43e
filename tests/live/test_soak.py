"""A receiver under load for two minutes: its memory stays, and so does its inbox."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.webhooks import FOLLOWED, knock, port_of, start

SECONDS = 120
AT_ONCE = 2000
KEPT_PAGES = 8 << 20
"""SQLite's log of writes grows to four megabytes before it begins anew."""


def memory_of(pid: int) -> int:
    """What a process holds in memory, in kilobytes."""
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        pytest.skip("this system does not tell what a process holds")
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS"))


def test_minutes_of_events_leave_nothing_behind(tmp_path: Path) -> None:
    process = start(tmp_path, FOLLOWED)
    try:
        port, deadline, first = port_of(process), time.monotonic() + SECONDS, 0
        memory = []
        while time.monotonic() < deadline:
            load = asyncio.run(knock(port, AT_ONCE, first))
            assert len(load.acknowledged) == AT_ONCE
            memory.append(memory_of(process.pid))
            first += AT_ONCE
        with closing(sqlite3.connect(tmp_path / "inbox.sqlite")) as db:
            until = time.monotonic() + 20
            while db.execute("SELECT count(*) FROM knock").fetchone()[0]:
                assert time.monotonic() < until, "events stay in the inbox"
                time.sleep(0.1)
    finally:
        process.kill()
        process.communicate()
    third = len(memory) // 3
    early, late = statistics.median(memory[third : 2 * third]), statistics.median(memory[2 * third :])
    assert late < 1.05 * early + 2000, memory
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < KEPT_PAGES
