"""Writing a file so that a reader, or a crash, sees all of it or nothing, and never a part."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from connector.errors import Conflict, Temporary, UsageError

_EXHAUSTED = re.compile("No space left on device|Disk quota exceeded|Too many open files", re.IGNORECASE)


MAKE_ROOM = "make room on the disk, or raise the limit of open files (ulimit -n), then run this again"
"""The next step where `exhausted`."""


def exhausted(error: BaseException) -> bool:
    """Whether something failed because the disk is full or no file handle is left: it works again later.

    Libraries report this in the system's words, and not always as an `OSError`.
    """
    return bool(_EXHAUSTED.search(str(error)))


def no_handle_left() -> bool:
    """Whether this process can open no further file."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return True
    return False


REMOUNT = (
    "see why (dmesg; ReadWritePaths of the service; options of the volume), mount it for writing, then run "
    "this again"
)
"""The next step where `read_only`."""


def read_only(path: Path) -> bool:
    """Whether the disk of a path is mounted read-only, as systems also do by themselves when a disk fails."""
    whole = path.absolute()
    try:
        there = next(place for place in (whole, *whole.parents) if place.exists())
        return bool(os.statvfs(there).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file whole.

    Raises:
        UsageError: if its folder is not there or cannot be written.
    """
    _write(path, data, 0o666, lambda file: file.replace(path))


def write_new(path: Path, data: bytes) -> None:
    """Write a file whole where there is none, for its owner alone. Of two who try at once, one does.

    Raises:
        Conflict: if there is one.
        UsageError: if its folder is not there or cannot be written.
    """

    def link(file: Path) -> None:
        path.hardlink_to(file)
        file.unlink()

    _write(path, data, 0o600, link)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, so that their names survive a power failure.

    Raises:
        OSError: if it cannot be made.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync(folder.parent)


def sync(path: Path) -> None:
    """Return when what a file holds, or the names in a folder, would survive a power failure.

    Raises:
        OSError: if the disk does not take it.
    """
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Be the only process that does something, as long as this lasts.

    The system releases the lock with the process, however that ends. The file stays; it means nothing.

    Args:
        path: the file that is locked; it is made where there is none.
        what: what is done, for the message to whoever comes second.

    Raises:
        Temporary: if another process does it, and which; if the disk is full or mounted read-only.
        UsageError: if the file cannot be made.
    """
    try:
        held = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        what = f"{path} cannot be opened for writing: {error.strerror}"
        if exhausted(error):
            raise Temporary(what, MAKE_ROOM) from error
        if read_only(path):
            raise Temporary(what, REMOUNT) from error
        raise UsageError(what, "check that its folder exists and may be written") from error
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(held, 20).decode(errors="replace").strip()
            raise Temporary(
                f"{what} already runs in {path.parent}: process {holder or 'unknown'}",
                "stop that process first, or use a configuration in another folder",
            ) from error
        with suppress(OSError):  # a full disk is no reason not to run: the number is for people only
            os.ftruncate(held, 0)
            os.write(held, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(held)


def _write(path: Path, data: bytes, mode: int, name: Callable[[Path], object]) -> None:
    part = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        # The umask takes away from the mode what the user does not want.
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                name(part)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        sync(path.parent)  # so that the new name itself survives
    except FileExistsError as error:
        raise Conflict(f"{path} already exists", "name another file") from error
    except OSError as error:
        what = f"{path} cannot be written: {error.strerror}"
        if exhausted(error):
            raise Temporary(what, MAKE_ROOM) from error
        raise UsageError(what, "name another file") from error
