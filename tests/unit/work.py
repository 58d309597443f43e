"""Work for an engine, in a module that imports next to nothing: each process of an engine imports it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from connector.errors import BadRecord


def double(number: int) -> int:
    return 2 * number


def refuse(number: int) -> int:
    raise BadRecord(f"{number} is refused", "take another")


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def slow(where: tuple[str, int]) -> int:
    """Says that it has begun, waits until it may go on, and says who it was."""
    folder, number = where
    (Path(folder) / f"{number}-{os.getpid()}").touch()
    while not (Path(folder) / "go").exists():
        time.sleep(0.01)
    return number
