"""Who may write to the label store: told by whoever commits, and believed without looking at a clock."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from connector.io.retry import LEASE_SECONDS

LONGEST_SECONDS = LEASE_SECONDS
"""No lease is good for longer without a sign of life; who waits for another waits longer than this."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may write, as a commit tells it.

    Attributes:
        id: by chance; no two leases have the same.
        host: for people to read.
        pid: the holder's process there.
        process: what tells that process from any other of any machine; None where the system does not say.
        seconds: how long it is good for without a sign of life, which every commit of its holder is.
        version: of the commit that tells it.
        at: when that was, by the holder's clock; for people to read.
    """

    id: str
    host: str
    pid: int
    process: str | None
    seconds: float
    version: int | None = None
    at: datetime | None = None

    @classmethod
    def of_this_process(cls, seconds: float) -> Lease:
        """A new one."""
        pid = os.getpid()
        return cls(uuid.uuid4().hex, socket.gethostname(), pid, process(pid), seconds)

    @classmethod
    def told(cls, by: Mapping[str, Any], version: int, at: datetime) -> Lease:
        """The one that a commit tells.

        Whoever can write to the store can write anything here: no writer waits longer than `LONGEST_SECONDS`
        without a sign of life, whatever a commit claims.

        Raises:
            ValueError: if no program of ours wrote that.
        """
        id, host, process = by.get("id"), by.get("host"), by.get("process")
        if not (isinstance(id, str) and isinstance(host, str) and isinstance(process, str | None)):
            raise ValueError("this is no lease")
        pid, seconds = by.get("pid"), by.get("seconds")
        if type(pid) is not int or not isinstance(seconds, int | float):
            raise ValueError("this is no lease")
        capped = seconds if 0 <= seconds <= LONGEST_SECONDS else LONGEST_SECONDS
        return cls(id, host, pid, process, capped, version, at)

    def tell(self) -> dict[str, Any]:
        """What a commit tells of it."""
        return {
            "id": self.id,
            "host": self.host,
            "pid": self.pid,
            "process": self.process,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def dead(self) -> bool:
        """Whether its holder is known to run no more. Of another machine's processes nothing is known."""
        here = process(os.getpid())
        if self.process is None or here is None or self.process.split()[:2] != here.split()[:2]:
            return False
        return process(self.pid) != self.process


def process(pid: int) -> str | None:
    """What tells a process from all others: boot of the machine, namespace of process ids, id, start.

    Host names and process ids are used again, after a restart or in another container; these four are not.

    Returns:
        None if no such process runs, or the system does not tell; Linux does.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").readlink()
        # The name of the program stands in brackets, and may hold some itself.
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else f"{boot} {namespace} {pid} {rest[18]}"
