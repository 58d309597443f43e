"""Writing a file so that a reader, or a crash, sees all of it or nothing, and never a part."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from connector.errors import Conflict, UsageError


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
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # so that the new name itself survives
        finally:
            os.close(folder)
    except FileExistsError as error:
        raise Conflict(f"{path} is there already", "name another file") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", "name another file") from error
