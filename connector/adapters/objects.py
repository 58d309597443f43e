"""Object storage: where raw data lives. One seam for every kind of bucket, through obstore."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)
from obstore.store import MemoryStore, ObjectStore, from_url

from connector.errors import AuthError, ConnectorError, Temporary, UsageError

SCHEMES = ("file", "s3", "gs", "az", "memory")

_MEMORIES: dict[str, MemoryStore] = {}


@dataclass(frozen=True, slots=True)
class Object:
    """One object of a bucket.

    Attributes:
        key: its URL, which names it for good.
        path: its path below the prefix.
        size: bytes.
        etag: changes when the content does, where the storage tells.
    """

    key: str
    path: str
    size: int
    modified: datetime
    etag: str | None

    @property
    def version(self) -> str:
        """Another one when the content is another: the ETag, else size and time."""
        return self.etag or f"{self.size}-{self.modified.isoformat()}"

    @property
    def fingerprint(self) -> str | None:
        """The same for the same content under another name; None where nothing tells."""
        return f"{self.etag}/{self.size}" if self.etag else None


@dataclass(frozen=True)
class Objects:
    """The objects below one URL.

    Args:
        url: `s3://bucket/prefix`, `gs://…`, `az://…`, `file:///folder`, `memory://name` or a plain path.
        options: `endpoint`, `region`, `access_key_id`, `secret_access_key`, … as obstore names them. What is
            not given comes from the environment, as usual for the kind of storage.
    """

    url: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", absolute_url(self.url))

    @property
    def _store(self) -> ObjectStore:
        scheme, name = self.url.split("://", 1)
        if scheme == "memory":
            return _MEMORIES.setdefault(name.rstrip("/"), MemoryStore())
        if scheme == "file" and not Path(unquote(name)).is_dir():
            raise UsageError(f"there is no folder {unquote(name)}", "mend raw.url in connector.toml")
        config: dict[str, Any] = dict(self.options)
        if scheme == "file":
            return from_url(self.url)
        plain = config.get("endpoint", "").startswith("http://")
        # obstore's types tell the kinds of storage apart by literals; which kind it is, the URL says.
        open_store: Callable[..., ObjectStore] = from_url
        return open_store(self.url, config=config, client_options={"allow_http": plain})

    def list(self, below: str = "") -> Iterator[Object]:
        """All objects, page by page, in the storage's own order.

        Args:
            below: only those whose path starts with this folder.

        Raises:
            AuthError: if the storage does not let us in.
            Temporary: if it does not answer.
            UsageError: if there is no such bucket.
        """
        with _Ours(self.url):
            for page in obstore.list(self._store, prefix=below or None):
                for meta in page:
                    yield Object(
                        self._key(meta["path"]),
                        meta["path"],
                        meta["size"],
                        meta["last_modified"],
                        meta["e_tag"],
                    )

    def _key(self, path: str) -> str:
        return f"{self.url.rstrip('/')}/{quote(path) if self.url.startswith('file:') else path}"

    def path_of(self, key: str) -> str:
        """The path below our URL of an object named by its key.

        Raises:
            UsageError: if the object is not below our URL.
        """
        prefix = self.url.rstrip("/") + "/"
        if not key.startswith(prefix):
            raise UsageError(
                f"{key} does not lie below {self.url}", "mend the key, or raw.url in connector.toml"
            )
        path = key.removeprefix(prefix)
        return unquote(path) if self.url.startswith("file:") else path

    def read(self, path: str) -> bytes:
        """The bytes of an object."""
        with _Ours(f"{self.url}/{path}"):
            return bytes(obstore.get(self._store, path).bytes())

    def head(self, path: str, length: int) -> bytes:
        """The first bytes of an object, at most `length`; of an empty one, none."""
        with _Ours(f"{self.url}/{path}"):
            size = obstore.head(self._store, path)["size"]
            return (
                bytes(obstore.get_range(self._store, path, start=0, end=min(length, size))) if size else b""
            )

    def write(self, path: str, data: bytes | Path) -> str:
        """Store an object, or a file as one, replacing one of that path; returns its key."""
        with _Ours(f"{self.url}/{path}"):
            obstore.put(self._store, path, data)
        return self._key(path)


def absolute_url(place: str) -> str:
    """A URL of a place that may be given as a plain path.

    Raises:
        UsageError: if it is a URL of a kind we do not know.
    """
    if "://" not in place:
        return Path(place).resolve().as_uri()
    scheme = urlsplit(place).scheme
    if scheme not in SCHEMES:
        raise UsageError(
            f"{place!r} is no storage we know",
            f"use one of {', '.join(s + '://' for s in SCHEMES)} or a folder",
        )
    return place


class _Ours:
    """Turns the storage's failures into ours."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, ConnectorError):
            return
        if isinstance(error, (NotFoundError, FileNotFoundError)):
            raise UsageError(f"{self.place} is not there", "check the bucket's name and the path") from error
        if isinstance(error, (PermissionDeniedError, UnauthenticatedError, PermissionError)):
            raise AuthError(
                f"not allowed to use {self.place}", "check the storage's keys, and what they permit"
            ) from error
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        if isinstance(error, (ValueError, InvalidPathError, NotSupportedError, UnknownConfigurationKeyError)):
            raise UsageError(
                f"{self.place} cannot be used: {first}", "mend the path or its options"
            ) from error
        if isinstance(error, BaseError):
            raise Temporary(f"{self.place} does not answer as it should: {first}") from error
