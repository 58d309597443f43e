"""What was acknowledged is on the disk, whenever the process dies."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.webhooks import CONNECTIONS, knock, port_of, start
from connector.adapters.base import WakeUp
from connector.errors import Temporary
from connector.serve.inbox import DELETED_AT_ONCE, Inbox


def put(inbox: Inbox, *ids: str) -> None:
    async def all_at_once() -> None:
        await asyncio.gather(*(inbox.put(WakeUp(id, "X")) for id in ids))

    asyncio.run(all_at_once())


def kill_when(process: subprocess.Popen[str], inbox: Path, kept: int) -> None:
    """Kill the receiver as soon as its inbox holds so many events; each connection waits for one of them."""
    with closing(sqlite3.connect(f"file:{inbox}?mode=ro", uri=True)) as db:
        while process.poll() is None and db.execute("SELECT count(*) FROM knock").fetchone()[0] < kept:
            time.sleep(0.002)
    process.kill()


@pytest.mark.parametrize("seed", range(3))
def test_every_acknowledged_event_is_there_after_a_kill_at_a_random_moment(tmp_path: Path, seed: int) -> None:
    process = start(tmp_path)
    port = port_of(process)
    kept_at_least = 51 + CONNECTIONS + random.Random(seed).randrange(1000)
    threading.Thread(target=kill_when, args=(process, tmp_path / "inbox.sqlite", kept_at_least)).start()
    load = asyncio.run(knock(port, 1_000_000))
    assert process.wait() != 0
    process.communicate()
    assert len(load.acknowledged) > 50
    with closing(sqlite3.connect(tmp_path / "inbox.sqlite")) as db:
        kept = {id for (id,) in db.execute("SELECT id FROM knock")}
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not set(load.acknowledged) - kept
    with closing(Inbox(tmp_path / "inbox.sqlite", "one")) as inbox:
        assert inbox.waiting() == len(kept)


def test_what_came_before_a_pull_goes_and_what_came_after_stays(tmp_path: Path) -> None:
    with closing(Inbox(tmp_path / "i.sqlite", "one")) as inbox:
        assert inbox.last() == 0
        put(inbox, "a", "b")
        upto = inbox.last()
        put(inbox, "c")
        inbox.followed(upto)
        assert inbox.waiting() == 1
        inbox.followed(inbox.last())
        assert (inbox.waiting(), inbox.last()) == (0, 0)
        put(inbox, "d")
        assert inbox.last() > upto


def test_an_event_that_comes_again_during_a_pull_is_followed_by_another(tmp_path: Path) -> None:
    with closing(Inbox(tmp_path / "i.sqlite", "one")) as inbox:
        put(inbox, "a")
        upto = inbox.last()
        put(inbox, "a")
        inbox.followed(upto)
        assert inbox.waiting() == 1


def test_projects_do_not_see_each_others_events(tmp_path: Path) -> None:
    with (
        closing(Inbox(tmp_path / "i.sqlite", "one")) as one,
        closing(Inbox(tmp_path / "i.sqlite", "two")) as two,
    ):
        put(one, "a")
        assert (one.waiting(), two.waiting()) == (1, 0)
        two.followed(10)
        assert one.waiting() == 1


def test_the_file_does_not_grow_with_what_went_through(tmp_path: Path) -> None:
    path = tmp_path / "i.sqlite"
    sizes = []
    with closing(Inbox(path, "one")) as inbox:
        for n in range(40):
            put(inbox, *(f"{n}/{m}" for m in range(2 * DELETED_AT_ONCE + 1)))
            inbox.followed(inbox.last())
            assert inbox.waiting() == 0
            sizes.append(sum(file.stat().st_size for file in tmp_path.iterdir()))
    # The log beside the file is as long as the largest commit, more or less.
    assert max(sizes[20:]) <= 1.1 * max(sizes[:20])


def test_senders_that_knock_together_share_a_commit(tmp_path: Path) -> None:
    def commits(at_once: int) -> int:
        asked: list[str] = []
        with closing(Inbox(tmp_path / f"{at_once}.sqlite", "one", at_once)) as inbox:
            inbox._file._db.set_trace_callback(asked.append)
            put(inbox, *map(str, range(1000)))
        return sum("INSERT" in statement for statement in asked)  # each is a transaction of its own

    assert (commits(1), commits(100), commits(1000)) == (1000, 10, 1)


def test_what_comes_while_the_disk_works_is_the_next_commit(tmp_path: Path) -> None:
    async def at_intervals(inbox: Inbox) -> None:
        async with asyncio.TaskGroup() as group:
            with inbox._file.read():  # this thread has the file: the first commit waits for it
                for n in range(50):
                    group.create_task(inbox.put(WakeUp(str(n), "X")))
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)

    asked: list[str] = []
    with closing(Inbox(tmp_path / "i.sqlite", "one")) as inbox:
        inbox._file._db.set_trace_callback(asked.append)
        asyncio.run(at_intervals(inbox))
        inbox._file._db.set_trace_callback(None)
        assert inbox.waiting() == 50
    assert sum("INSERT" in statement for statement in asked) == 2


def test_the_event_loop_goes_on_while_the_disk_does_not(tmp_path: Path) -> None:
    path, rounds = tmp_path / "i.sqlite", 0

    async def put_into(inbox: Inbox) -> None:
        nonlocal rounds
        putting = asyncio.create_task(inbox.put(WakeUp("a", "X")))
        while not putting.done():
            rounds += 1
            await asyncio.sleep(0)
        with pytest.raises(Temporary, match="in use by another process"):
            await putting

    with closing(Inbox(path, "one")) as inbox, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        asyncio.run(put_into(inbox))
        other.execute("ROLLBACK")
        assert rounds > 20
        put(inbox, "b")
        assert inbox.waiting() == 1
