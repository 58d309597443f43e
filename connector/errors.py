"""Every error of ours, sorted by what the reader should do next.

ConnectorError              internal error                                        exit 1
├── UsageError              fix the command or the configuration                  exit 2
│   └── Unsupported         this tool cannot do it; see its capabilities          exit 2
├── BadRecord               one record is broken: skipped, counted, reported      exit 4
├── AuthError               fix the credentials                                   exit 5
├── Temporary               wait, then run the same command again                 exit 6
└── Conflict                the tool changed meanwhile: pull, then plan again     exit 7
    └── Overtaken           somebody else wrote to the label store: begin again   exit 7
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

EXIT_GATE = 3
EXIT_REJECTS = 4
EXIT_INTERRUPTED = 130


class ConnectorError(Exception):
    """The base of all errors of ours.

    Args:
        what: what is wrong and where, in one sentence.
        hint: the exact next step, or nothing when there is none.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  next: {self.hint}" if self.hint else self.what


@dataclass(frozen=True, slots=True)
class Reject:
    """A row, object or annotation that was not taken, and why. The others were.

    Attributes:
        version: of the object or row that was rejected, where it has one.
    """

    where: str
    why: str
    version: str = ""

    def to_json(self) -> dict[str, str]:
        """Without a version where there is none."""
        found = {"where": self.where, "why": self.why}
        return {**found, "version": self.version} if self.version else found


class UsageError(ConnectorError):
    """The command or the configuration is wrong."""

    exit_code = 2


class Unsupported(UsageError):
    """The labeling tool cannot do this; its `capabilities` say so."""


class BadRecord(ConnectorError):
    """One record cannot be used. The others can.

    Args:
        why: what is wrong, without where; the same for all records with the same fault.
    """

    exit_code = EXIT_REJECTS

    def __init__(self, what: str, hint: str = "", why: str = "") -> None:
        super().__init__(what, hint)
        self.why = why or what


class AuthError(ConnectorError):
    """The tool or the bucket does not let us in."""

    exit_code = 5


class Temporary(ConnectorError):
    """The tool or the bucket is temporarily unavailable. The same command may succeed later.

    Args:
        retry_after: seconds the other side asked us to wait, if it did.
    """

    exit_code = 6

    def __init__(self, what: str, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(what, hint or "wait a moment, then run the same command again")
        self.retry_after = retry_after


class Conflict(ConnectorError):
    """The tool holds something else than we expected."""

    exit_code = 7


class Overtaken(Conflict):
    """Somebody else wrote to the label store since we looked, and we have not written yet."""
