"""Files are written whole or not at all."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from connector.errors import Conflict, Temporary, UsageError
from connector.io.files import only_one, write_atomic, write_new


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may become longer than this, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def without_privileges() -> Iterator[None]:
    """As somebody whom permissions concern, also where the tests run as root."""
    me = os.geteuid()
    os.seteuid(me or 65534)
    try:
        yield
    finally:
        os.seteuid(me)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_file_is_replaced_and_read_by_whom_the_umask_allows(tmp_path: Path, umask: int, mode: int) -> None:
    path = tmp_path / "ä 'x'.html"
    before = os.umask(umask)
    try:
        for data in (b"first \x00", b"", b"and second"):
            write_atomic(path, data)
            assert path.read_bytes() == data
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_written_once_is_its_owners_and_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "00000001.jsonl"
    write_new(path, b"first")
    with pytest.raises(Conflict):
        write_new(path, b"second")
    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path, seen, done = tmp_path / "x", set[bytes](), threading.Event()
    versions = {bytes([n]) * 300_000 for n in range(60)}
    write_atomic(path, b"\x00" * 300_000)

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for data in sorted(versions):
        write_atomic(path, data)
    done.set()
    reader.join()
    assert seen <= versions
    assert len(seen) > 1


def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_atomic(path, b"old")
    with full_disk(1000), pytest.raises(UsageError, match="x cannot be written: File too large"):
        write_atomic(path, b"new" * 1000)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["missing/x", "folder", "plain/x"])
def test_a_place_that_cannot_be_written_is_named_and_left_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").write_text("no folder")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=f"{name} cannot be written") as caught:
        write_atomic(tmp_path / name, b"new")
    assert caught.value.hint
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_may_be_written_and_not_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o333)
        with without_privileges(), pytest.raises(UsageError, match="x cannot be written: Permission denied"):
            write_atomic(Path(folder) / "x", b"new")


HOLD = """
import sys
from pathlib import Path
from connector.io.files import only_one
with only_one(Path(sys.argv[1]), "it"):
    print("mine", flush=True)
    sys.stdin.readline()
"""


def test_what_only_one_may_do_is_free_again_when_that_process_was_killed(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "mine\n"
        with (
            pytest.raises(Temporary, match=f"it already runs in .*: process {holder.pid}"),
            only_one(lock, "it"),
        ):
            pass
        holder.kill()
        holder.wait()
        with (
            only_one(lock, "it"),
            pytest.raises(Temporary, match=f"process {os.getpid()}"),
            only_one(lock, "it"),
        ):
            pass
    assert lock.stat().st_mode & 0o777 == 0o600
    with only_one(lock, "it"):
        pass


def test_a_lock_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="cannot be opened for writing"),
        only_one(tmp_path / "no" / "a", "it"),
    ):
        pass
