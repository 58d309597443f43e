"""One writer at a time: who waits for whom, how long, and what one who was taken for dead can still do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from connector.errors import Conflict, Overtaken, Temporary, UsageError
from connector.model import Task
from connector.store.label_store import TASK, WAIT_SECONDS, Store
from connector.store.lease import LONGEST_SECONDS, Lease, process

NOW = datetime(2026, 3, 1, tzinfo=UTC)

HOLD = """
import sys, time
from connector.store.label_store import Store
store = Store(sys.argv[1])
with store.lease(seconds=float(sys.argv[2])):
    store.take()
    print("mine", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "labels"))


def write(store: Store, id: str) -> None:
    store.append([Task(id=id, key=id)], id, NOW)


def tasks(store: Store) -> list[str]:
    return store.current(TASK)["id"].to_list()


@contextmanager
def holding(store: Store, seconds: float = 300) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lease until it is told something."""
    command = [sys.executable, "-c", HOLD, store.url, str(seconds)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    assert holder.stdout.readline() == "mine\n"
    try:
        yield holder
    finally:
        holder.kill()
        holder.communicate()


def elsewhere(folder: Path) -> None:
    """Let the last commit say that its writer runs on another machine."""
    log = max((folder / "_delta_log").glob("*.json"))
    text = log.read_text()
    mine = json.dumps(process(os.getpid()))
    assert mine in text
    log.write_text(text.replace(mine, json.dumps("another-boot pid:[1] 7 1")))


def test_a_holder_that_was_killed_is_noticed_at_once(store: Store) -> None:
    with holding(store) as holder:
        assert str(store.holder()) == f"process {holder.pid} on {os.uname().nodename}"
        holder.kill()
        holder.wait()
        begun = time.monotonic()
        assert store.holder() is None
        with store.lease():
            write(store, "1")
        assert time.monotonic() - begun < LONGEST_SECONDS / 2
    write(store, "2")
    assert tasks(store) == ["1", "2"]


def test_who_comes_second_waits_says_for_whom_and_knows_what_the_first_wrote(store: Store) -> None:
    said: list[str] = []
    mine = replace(store, say=said.append)
    assert mine.cursor_kept is None
    with holding(store) as holder:
        with pytest.raises(Temporary, match=f"in use by process {holder.pid}") as caught, mine.lease(wait=0):
            pass
        assert caught.value.hint
        with pytest.raises(Conflict):
            write(mine, "0")
        assert holder.stdin
        holder.stdin.write("go\n")
        holder.stdin.flush()
        with mine.lease():
            write(mine, "1")
        assert said[0].endswith(f"is in use by process {holder.pid} on {os.uname().nodename}: waiting")
    assert tasks(store) == ["1"]


def test_a_holder_that_stands_still_is_overtaken_and_can_commit_no_more(store: Store) -> None:
    late = replace(store)
    with late.lease(seconds=0.4):
        write(late, "1")
        begun = time.monotonic()
        with store.lease():
            write(store, "2")
        assert 0.4 <= time.monotonic() - begun < LONGEST_SECONDS / 2
        for attempt in (lambda: write(late, "3"), late.take):
            with pytest.raises(Conflict) as caught:
                attempt()
            assert not isinstance(caught.value, Overtaken)
    assert tasks(store) == ["1", "2"]


def test_signs_of_life_keep_the_lease_longer_than_it_is_good_for(store: Store) -> None:
    other = replace(store)
    with store.lease(seconds=0.6):
        store.take()
        for _ in range(10):
            time.sleep(0.1)
            store.renew()
            with pytest.raises(Temporary), other.lease(wait=0):
                pass
        write(store, "1")
    assert tasks(store) == ["1"]


def test_a_sign_of_life_costs_a_commit_only_after_a_while(store: Store) -> None:
    with store.lease():
        store.renew()
        assert store.version is None
        for _ in range(3):
            store.take()
            store.renew()
            assert store.version == 0
    assert store.version == 1
    with store.lease():
        pass
    assert store.version == 1


@pytest.mark.parametrize("year", [1970, 2999])
def test_what_the_holder_says_of_the_time_is_not_believed(store: Store, tmp_path: Path, year: int) -> None:
    late, folder = replace(store), tmp_path / "labels"
    with late.lease(seconds=0.4):
        late.take()
        elsewhere(folder)
        log = max((folder / "_delta_log").glob("*.json"))
        actions = [json.loads(line) for line in log.read_text().splitlines()]
        for action in actions:
            if "commitInfo" in action:
                action["commitInfo"]["timestamp"] = int(datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1000)
        log.write_text("\n".join(map(json.dumps, actions)))
        with pytest.raises(Temporary), store.lease(wait=0):
            pass
        begun = time.monotonic()
        with store.lease():
            write(store, "1")
        assert time.monotonic() - begun >= 0.4
    assert tasks(store) == ["1"]


def test_a_wall_clock_that_jumps_while_we_wait_changes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = replace(store)
    with late.lease(seconds=0.5):
        late.take()
        monkeypatch.setattr(time, "time", lambda: 4e9)
        begun = time.monotonic()
        with store.lease():
            store.take()
        assert time.monotonic() - begun >= 0.5


def test_of_another_machine_nobody_knows_whether_a_process_runs(store: Store, tmp_path: Path) -> None:
    with holding(store) as holder:
        folder = tmp_path / "labels"
        log = max((folder / "_delta_log").glob("*.json"))
        log.write_text(log.read_text().replace(str(process(holder.pid)), "another-boot pid:[1] 7 1"))
        holder.kill()
        holder.wait()
        assert store.holder() is not None
        with pytest.raises(Temporary), store.lease(wait=0):
            pass


def test_what_fails_within_gives_the_lease_back(store: Store) -> None:
    def fail() -> None:
        with store.lease():
            write(store, "1")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert store.holder() is None
    assert not store.leased


def test_a_lease_within_a_lease_is_the_same(store: Store) -> None:
    with store.lease():
        with store.lease():
            store.take()
        assert store.leased
        assert store.holder() is not None
    assert store.holder() is None


def test_of_two_that_begin_at_once_the_slower_is_told_before_it_wrote(store: Store) -> None:
    other = replace(store)
    with store.lease(), other.lease():
        assert store.cursor_kept is other.cursor_kept is None
        write(store, "1")
        with pytest.raises(Overtaken, match=f"process {os.getpid()}"):
            other.take()
    with other.lease():
        write(other, "2")
    assert tasks(store) == ["1", "2"]


def test_processes_that_all_write_under_the_lease_lose_nothing(store: Store) -> None:
    script = """
import sys
from datetime import datetime, UTC
from connector.errors import Overtaken
from connector.model import Task
from connector.store.label_store import Store
store = Store(sys.argv[1])
for n in range(4):
    while True:
        try:
            with store.lease(seconds=20):
                store.append([Task(id=f"{sys.argv[2]}{n}", key="k")], f"{sys.argv[2]}{n}", datetime.now(UTC))
            break
        except Overtaken:
            pass
"""
    writers = [subprocess.Popen([sys.executable, "-c", script, store.url, who]) for who in "abc"]
    assert [one.wait(300) for one in writers] == [0, 0, 0]
    assert tasks(store) == [f"{who}{n}" for who in "abc" for n in range(4)]


def test_a_process_is_told_from_all_others_and_from_itself_when_it_has_ended() -> None:
    child = subprocess.Popen(["sleep", "60"])
    running = process(child.pid)
    assert running is not None
    assert running != process(os.getpid())
    assert process(child.pid) == running
    lease = Lease("id", "host", child.pid, running, 1)
    assert not lease.dead
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, though its parent has not looked yet
    assert process(child.pid) is None
    assert lease.dead
    child.wait()
    assert lease.dead


@pytest.mark.parametrize("there", [None, "another-boot pid:[1] 7 1"])
def test_of_a_process_that_says_nothing_or_is_elsewhere_nothing_is_known(there: str | None) -> None:
    assert not Lease("id", "host", 2**22 + 1, there, 1).dead


def test_a_lease_reads_back_as_it_was_told() -> None:
    lease = Lease.of_this_process(5)
    told = Lease.told(json.loads(json.dumps(lease.tell())), 7, NOW)
    assert told == replace(lease, version=7, at=NOW)
    assert lease != Lease.of_this_process(5)


def forge(folder: Path, **by: object) -> None:
    """Let the last commit claim something else of its writer."""
    log = max((folder / "_delta_log").glob("*.json"))
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    [info] = [action["commitInfo"] for action in actions if "commitInfo" in action]
    at = by.pop("timestamp", info["timestamp"])
    info |= {"timestamp": at, "connector": {**info["connector"], "by": {**info["connector"]["by"], **by}}}
    log.write_text("\n".join(map(json.dumps, actions)))


@pytest.mark.parametrize("seconds", [1e300, -1])
def test_a_forged_lease_blocks_no_longer_than_an_honest_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    late = replace(store)
    monkeypatch.setattr("connector.store.lease.LONGEST_SECONDS", 0.5)
    with late.lease(seconds=0.4):
        late.take()
        forge(tmp_path / "labels", seconds=seconds, process="another-boot pid:[1] 7 1", timestamp=10**15)
        with pytest.raises(Temporary), store.lease(wait=0):
            pass
        begun = time.monotonic()
        with store.lease(wait=20):
            write(store, "1")
        assert 0.5 <= time.monotonic() - begun < 10
    assert tasks(store) == ["1"]


def test_who_waits_for_another_waits_longer_than_any_lease_is_good_for() -> None:
    assert WAIT_SECONDS > LONGEST_SECONDS


@pytest.mark.parametrize(
    "by", [{"pid": "1"}, {"pid": True}, {"seconds": "9"}, {"id": None}, {"host": 7}, {"process": 1}]
)
def test_what_only_looks_like_a_lease_keeps_nobody_from_writing(
    store: Store, tmp_path: Path, by: dict[str, object]
) -> None:
    late = replace(store)
    with late.lease():
        late.take()
        forge(tmp_path / "labels", **by)
        assert store.holder() is None
        with store.lease(wait=0):
            write(store, "1")
    assert tasks(store) == ["1"]


@pytest.mark.parametrize("at", [10**18, -(10**18), "soon", None])
def test_a_commit_of_no_time_at_all_is_still_read(store: Store, tmp_path: Path, at: object) -> None:
    write(store, "1")
    forge(tmp_path / "labels", timestamp=at)
    write(replace(store), "2")
    assert [commit.version for commit in store.commits()] == [1, 0]


def test_no_lease_longer_than_others_would_believe_is_taken(store: Store) -> None:
    with pytest.raises(UsageError, match="a lease of 301 s"), store.lease(seconds=301):
        pass


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 301])
def test_no_claim_is_believed_for_longer_than_the_longest(seconds: float) -> None:
    forged = {**Lease.of_this_process(5).tell(), "seconds": seconds}
    assert Lease.told(forged, 1, NOW).seconds == LONGEST_SECONDS
