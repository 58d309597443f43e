"""The receiver under load: it loses nothing, whatever goes wrong at once, and it does not grow."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import statistics
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.soak import MOST_BYTES, memory_of, soak
from benchmarks.webhooks import FOLLOWED, knock, port_of, start
from connector.demo.server import S3, Running

pytestmark = pytest.mark.live

if not Path("/proc/self/status").is_file():
    pytest.skip("this system does not report what a process holds", allow_module_level=True)

SOAK_SECONDS, KILLED_EVERY_SECONDS = 35, 5
FULL_SPEED_SECONDS = 20
AT_ONCE = 2000
KEPT_BYTES = 8 << 20
"""SQLite's log of writes grows to four megabytes before it begins anew."""


def test_whatever_goes_wrong_at_once_no_acknowledged_event_is_lost(
    label_studio: Running, s3: S3, tmp_path: Path
) -> None:
    seed = int(os.environ.get("CONNECTOR_CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    sys.stdout.write(f"CONNECTOR_CHAOS_SEED={seed}\n")
    found = soak(label_studio, s3, tmp_path, SOAK_SECONDS, KILLED_EVERY_SECONDS, seed)
    sys.stdout.write(f"{found}\n")
    assert found.lost == set()
    assert len(found.acknowledged) == found.sent
    assert found.looked_for > 0  # in the inbox, after a kill or a stop while no pull could end
    assert found.saved
    assert found.waiting == 0
    assert found.most_bytes < MOST_BYTES
    assert found.file_bytes < KEPT_BYTES
    assert found.stop_status == 0


def test_events_at_full_speed_leave_nothing_behind(tmp_path: Path) -> None:
    process = start(tmp_path, FOLLOWED)
    try:
        port, deadline, first = port_of(process), time.monotonic() + FULL_SPEED_SECONDS, 0
        memory = []
        while time.monotonic() < deadline or len(memory) < 6:
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
    assert late < 1.05 * early + 2_000_000, memory
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < KEPT_BYTES
