"""Writing a file so that a reader, or a crash, sees the old one or the new one and never a part."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from connector.errors import UsageError


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file whole.

    Raises:
        UsageError: if its folder is not there or cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).chmod(0o644)  # as other files are; a temporary one is private
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # so that the new name itself survives
        finally:
            os.close(folder)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", "name another file") from error
