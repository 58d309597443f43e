"""The failures of object storage, sorted into ours by what the reader should do next."""

from __future__ import annotations

import re

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)

from connector.errors import AuthError, Conflict, ConnectorError, Temporary, UsageError
from connector.io.files import MAKE_ROOM, exhausted

KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT_KEY",
    "az": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY "
    "or AZURE_STORAGE_SAS_TOKEN",
}
"""The variables of the environment that let us into each kind of storage; obstore's pages tell of more."""

# Of a listing the library tells the status only in its words, and of missing keys only what it tried.
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_NO_KEYS = re.compile(
    r"token request|/latest/(api|meta-data)/|credential error|account must be specified|invalid access key",
    re.IGNORECASE,
)
_UNWELL = (408, 425, 429)
_CLOCK = re.compile("RequestTimeTooSkewed|Request date header too|in a reasonable timeframe")

SET_CLOCK = "set this machine's clock (NTP): the storage refuses requests of another time"
"""The next step where `clock_differs`."""


def clock_differs(said: str) -> bool:
    """Whether a storage refuses a request since it was signed at another time than the storage's.

    The words are those of S3, Azure Blob Storage and Google's token service.
    """
    return bool(_CLOCK.search(said))


class Ours:
    """Turns the storage's failures into ours."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (BaseError, OSError, ValueError)):
            raise _failure(self.place, error) from error


def _failure(place: str, error: Exception) -> ConnectorError:
    said, scheme = str(error).strip(), place.partition(":")[0]
    first = (said.splitlines() or [type(error).__name__])[0][:200]
    status = int(found[1]) if (found := _STATUS.search(said)) else 0
    code = f" ({found[1]})" if (found := _CODE.search(said)) else ""
    if isinstance(error, AlreadyExistsError):
        return Conflict(f"{place} already exists", "choose another name, or check its content")
    if isinstance(error, PreconditionError):
        return Conflict(f"{place} was replaced while it was read", "run the same command again")
    if clock_differs(said):
        return Temporary(f"{place} refuses requests of another time{code}", SET_CLOCK)
    if scheme in KEYS and _NO_KEYS.search(first):
        return AuthError(f"there are no keys for {place}: {first}", f"set {KEYS[scheme]}")
    if status in (401, 403) or isinstance(
        error, (PermissionDeniedError, UnauthenticatedError, PermissionError)
    ):
        return AuthError(
            f"not allowed to use {place}{code}", "check the storage's keys, and what they permit"
        )
    if status == 404 or isinstance(error, FileNotFoundError):
        return UsageError(f"{place} is not there{code}", "check the bucket's name and the path")
    if isinstance(error, (ValueError, InvalidPathError)):
        return UsageError(
            f"{place} cannot be used: {first}",
            "rename the object: no part of a name may be empty, `.` or `..`, or have control characters",
        )
    if isinstance(error, (NotSupportedError, UnknownConfigurationKeyError)):
        return UsageError(f"{place} cannot be used: {first}", "fix its options")
    if exhausted(error):
        return Temporary(f"{place} cannot be used now: {first}", MAKE_ROOM)
    if scheme == "file":
        return UsageError(f"{place} cannot be used: {first}", "check that folder and what it permits")
    if (300 <= status < 500 and status not in _UNWELL) or "redirect without" in first:
        return UsageError(f"{place} refuses{code}: {first}", "check its address and region")
    return Temporary(f"{place} does not answer as it should: {first}")
