"""Writing a file so that a reader, or a crash, sees all of it or nothing, and never a part."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from connector.errors import Conflict, UsageError


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file whole.

    Raises:
        UsageError: if its folder is not there or cannot be written.
    """
    _write(path, data, lambda file: file.replace(path))


def write_new(path: Path, data: bytes) -> None:
    """Write a file whole where there is none. Of two who try at once, one does.

    Raises:
        Conflict: if there is one.
        UsageError: if its folder is not there or cannot be written.
    """

    def link(file: Path) -> None:
        path.hardlink_to(file)
        file.unlink()

    _write(path, data, link)


def _write(path: Path, data: bytes, name: Callable[[Path], object]) -> None:
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).chmod(0o644)  # as other files are; a temporary one is private
                name(Path(file.name))
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
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
