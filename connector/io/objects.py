"""Object storage: where raw data lives. One seam for every kind of bucket, through obstore."""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlencode
from xml.etree import ElementTree

import obstore
import requests
from obstore.exceptions import BaseError, InvalidPathError, PermissionDeniedError
from obstore.store import AzureStore, GCSStore, LocalStore, MemoryStore, ObjectStore, S3Store

from connector.errors import Reject, Temporary, UsageError
from connector.io.failures import Ours
from connector.io.retry import (
    ATTEMPTS,
    CONNECT_SECONDS,
    FIRST_WAIT_SECONDS,
    GIVE_UP_SECONDS,
    LONGEST_WAIT_SECONDS,
    READ_SECONDS,
    patient,
)

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta

SCHEMES = ("file", "s3", "gs", "az", "memory")

HANDED_OVER = 200
"""So many objects of a listing the library collects before it hands them over: fewer than any storage lists
at once, so that none waits for the page behind its own."""

BLOCK_BYTES = 8 * 2**20
"""A large object is read in such blocks. Each is a request of its own: one long answer would be cut off by
the library's time-outs, which count from its beginning."""

PART_BYTES = 8 * 2**20
"""A large object is written in such parts, as Amazon's own tools do: so the same content has the same ETag.
S3 takes none below 5 MiB."""

PARTS_AT_ONCE = 4
"""So many parts of a file are in memory while it is written."""

AT_ONCE = 16
"""So many requests are on their way when many objects are looked into."""

_CLOUDS: Mapping[str, Callable[..., ObjectStore]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}

_MEMORIES: dict[str, MemoryStore] = {}

_HASH = re.compile(r"[0-9a-f]{32}(-\d+)?", re.IGNORECASE)

UNUSABLE = (
    "the name has an empty part (`//`), `.` or `..` as a part, or a control character: rename the object"
)

OUTSIDE = "it is a symbolic link, or behind one, that leads out of the folder"
INSIDE_INSTEAD = "copy the file into the folder"

_UNUSABLE_PATH = re.compile(r'Path "(.*?)"(?:: Encountered| contained)', re.DOTALL)

_SIGNED_FOR = timedelta(minutes=5)

Rejects = list[Reject]


@dataclass(frozen=True, slots=True)
class Object:
    """One object of a bucket.

    Attributes:
        key: its URL, which names it for good.
        path: its path below the prefix.
        size: bytes.
        modified: when it was written.
        etag: what the storage itself tells contents apart by, without its quotes.
    """

    key: str
    path: str
    size: int
    modified: datetime
    etag: str | None

    @property
    def version(self) -> str:
        """Another one when the content is another: the ETag, else size and time.

        The same content written again may have another version, too:

        - s3: the MD5 of what was put in one piece, the MD5 of the MD5s of what was put in parts; so it is
          the content's. Of a write only where a KMS or customer's key encrypts, and in directory buckets.
        - gs: the MD5 of what was put in one piece without a customer's key, else of that write.
        - az: of that write.
        - file: inode, time in microseconds and size; of that write, and it survives a renaming.
        - memory: a count of the writes.
        """
        return self.etag or f"{self.size}-{self.modified.isoformat()}"

    @property
    def fingerprint(self) -> str | None:
        """The same for the same content under another name, so that a moved object is known again.

        None where nothing tells: of az and memory always, of s3 and gs where the ETag is no hash. Two that
        differ may still be the same content: an object that was moved in parts of another size or encrypted
        with a key, a file that was copied to another disk.
        """
        scheme, etag = self.key.partition(":")[0], self.etag or ""
        hashed = scheme in ("s3", "gs") and _HASH.fullmatch(etag)
        # Where a file system has no inodes, the ETag begins with a zero and is nobody's own.
        followed = scheme == "file" and not etag.startswith("0-")
        return f"{etag}/{self.size}" if hashed or followed else None


@dataclass(frozen=True)
class Objects:
    """The objects below one URL.

    Paths are the names as they are: `a b#1.png` is written so in a bucket's URL, too. Names with an empty
    part (`a//b`), with `.` or `..` for a part, or with control characters cannot be used. In a folder, a name
    that ends with `#` and digits is not seen: the library keeps those for files half written. Azure itself
    takes `\\` for `/`.

    Args:
        url: `s3://bucket/prefix`, `gs://…`, `az://container/…`, `file:///folder`, `memory://name` or a path.
        options: `endpoint`, `region`, `access_key_id`, `account_name`, … as obstore names them. What is not
            given comes from the environment, as usual for the kind of storage.

    Every method raises:
        AuthError: if the storage does not let us in.
        Temporary: if it does not answer, or not as a storage does.
        UsageError: if there is no such bucket or object, or it cannot be named so.
    """

    url: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", absolute_url(self.url))
        _endpoint(self.options)

    @property
    def _store(self) -> ObjectStore:
        # Looked at every time: of a folder that is gone the library says that it is empty.
        if self.url.startswith("file:") and not (folder := _folder(self.url)).is_dir():
            raise UsageError(f"there is no folder {folder}", "make it, or fix its name")
        return self._opened

    @cached_property
    def _opened(self) -> ObjectStore:
        with Ours(self.url):
            return _open(self.url, self.options)

    def list(self, below: str = "", unusable: Rejects | None = None) -> Iterator[Object]:
        """All objects, page by page as they are asked for, in the storage's own order.

        What is written or deleted meanwhile may be listed or not; everything else comes once.

        Args:
            below: only those whose path starts with this folder.
            unusable: objects whose names cannot be used are added here, in a folder or on S3, and the others
                are listed. Without it, and in other storages, such a name is an error.
        """
        with Ours(self.url):
            anything, links = False, _Links(self.url)
            for meta in self._metas(below or None, unusable):
                anything = True
                if links.outside(meta["path"]):
                    if unusable is None:
                        raise UsageError(f"{self.key_of(meta['path'])}: {OUTSIDE}", INSIDE_INSTEAD)
                    unusable.append(Reject(self.key_of(meta["path"]), f"{OUTSIDE}: {INSIDE_INSTEAD}"))
                elif meta["size"] or self._has(meta["path"]):
                    yield self._object(meta)
            # A web page in the place of a storage reads like an empty list; asked this, it gives itself away.
            if not (anything or unusable):
                self._has("no/such/object")

    def names(self) -> Sequence[str]:
        """The names of the objects directly in this folder; none where there is no folder."""
        if self.url.startswith("file:") and not _folder(self.url).is_dir():
            return []
        with Ours(self.url):
            found = obstore.list_with_delimiter(self._store)["objects"]
            return sorted(meta["path"] for meta in found)

    def _metas(self, below: str | None, unusable: Rejects | None) -> Iterator[ObjectMeta]:
        # One file at a time where a bad name may come: the library drops a chunk in which there is one.
        one_by_one = unusable is not None and self.url.startswith("file:")
        pages = iter(obstore.list(self._store, prefix=below, chunk_size=1 if one_by_one else HANDED_OVER))
        last = ""
        while True:
            try:
                page = next(pages, None)
            except InvalidPathError as error:
                if unusable is None or not self.url.startswith(("file:", "s3:")):
                    raise
                if not one_by_one:
                    # The library has lost the whole page, and cannot list the pages behind it.
                    yield from _pages_of_s3(self, below, last, unusable)
                    return
                found = _UNUSABLE_PATH.search(str(error))
                name = found[1].lstrip("/") if found else ""
                unusable.append(Reject(f"{self._beginning}{name}", UNUSABLE))
                continue
            if page is None:
                return
            for meta in page:
                last = meta["path"]
                yield meta

    def _has(self, path: str) -> bool:
        # Consoles mark a folder by an empty object `folder/`, which is listed as `folder` and is not there.
        try:
            return bool(path) and bool(self._meta(path))
        except FileNotFoundError:
            return False
        except PermissionDeniedError:
            return True  # who may list may not always read

    def _meta(self, path: str) -> ObjectMeta:
        return _checked(obstore.head(self._store, path), self.key_of(path))

    def _object(self, meta: ObjectMeta) -> Object:
        etag = (meta["e_tag"] or "").removeprefix("W/").strip('"')  # Azure quotes it in answers, not in lists
        return Object(
            self.key_of(meta["path"]), meta["path"], meta["size"], meta["last_modified"], etag or None
        )

    @property
    def _beginning(self) -> str:
        """What all keys begin with: the URL and one slash."""
        scheme, place = self.url.split("://", 1)
        return f"{scheme}://{place.rstrip('/')}/"

    def holds(self, key: str) -> bool:
        """Whether an object of that key would lie below our URL."""
        return key.startswith(self._beginning)

    def key_of(self, path: str) -> str:
        """The key of an object at a path below our URL, whether there is one or not."""
        return self._beginning + (quote(path) if self.url.startswith("file:") else path)

    def path_of(self, key: str) -> str:
        """The path below our URL of an object named by its key.

        Raises:
            UsageError: if the object is not below our URL.
        """
        if not self.holds(key):
            raise UsageError(
                f"{key} does not lie below {self.url}", "fix the key, or raw.url in connector.toml"
            )
        path = key.removeprefix(self._beginning)
        return unquote(path) if self.url.startswith("file:") else path

    def _refuse_outside(self, path: str) -> None:
        # Of a path that cannot be used the library says so.
        if usable(path) and _Links(self.url).outside(path):
            raise UsageError(f"{self.key_of(path)}: {OUTSIDE}", INSIDE_INSTEAD)

    def read(self, path: str) -> bytes:
        """The bytes of an object."""
        self._refuse_outside(path)
        with Ours(self.key_of(path)):
            answer = obstore.get(self._store, path)
            _checked(answer.meta, self.key_of(path))
            return bytes(answer.bytes())

    def open(self, path: str) -> io.BufferedReader:
        """A file to read an object from, however large it is: never more than a block is in memory.

        >>> bucket = Objects("memory://example")
        >>> _ = bucket.write("rows.csv", b"key\\n1\\n2\\n")
        >>> list(io.TextIOWrapper(bucket.open("rows.csv"), "utf-8"))
        ['key\\n', '1\\n', '2\\n']

        Raises:
            Conflict: while it is read, if the object was replaced meanwhile.
        """
        self._refuse_outside(path)
        with Ours(self.key_of(path)):
            store, meta = self._store, self._meta(path)
        return io.BufferedReader(_Remote(store, self.key_of(path), path, meta))

    def head(self, path: str, length: int) -> bytes:
        """The first bytes of an object, at most `length`; of an empty one, none."""
        self._refuse_outside(path)
        with Ours(self.key_of(path)):
            try:
                return bytes(obstore.get_range(self._store, path, start=0, length=length))
            except BaseError as error:
                # An empty object has no first byte to ask for.
                if "range" not in str(error).lower() or self._meta(path)["size"]:
                    raise
                return b""

    def contents(
        self, objects: Iterable[Object], length: int | None = None
    ) -> Iterator[tuple[Object, bytes | None]]:
        """The bytes of many objects, in their order, several asked for at once.

        Args:
            length: only the first bytes of each, at most so many.

        Returns:
            With each object its bytes, or None if it is gone since it was listed.
        """
        under_way: deque[tuple[Object, Future[bytes | None]]] = deque()
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            for one in objects:
                under_way.append((one, pool.submit(self._content, one.path, length)))
                if len(under_way) == 2 * AT_ONCE:
                    first, answer = under_way.popleft()
                    yield first, answer.result()
            for first, answer in under_way:
                yield first, answer.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _content(self, path: str, length: int | None) -> bytes | None:
        try:
            return self.read(path) if length is None else self.head(path, length)
        except UsageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def write(self, path: str, data: bytes | Path) -> str:
        """Store an object, or a file as one, replacing one of that path; returns its key.

        A large one is sent in parts; a file is never in memory as a whole.
        """
        with Ours(self.key_of(path)):
            obstore.put(self._store, path, data, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
        return self.key_of(path)

    def write_new(self, path: str, data: bytes) -> str:
        """Store an object where there is none; returns its key. Of two who try at once, one does.

        Raises:
            Conflict: if there is one. After an answer that was lost it may be ours: look.
        """
        with Ours(self.key_of(path)):
            obstore.put(self._store, path, data, mode="create")
        return self.key_of(path)

    def delete(self, path: str) -> None:
        """Delete an object. One that is not there is deleted already."""
        with Ours(self.key_of(path)):
            try:
                obstore.delete(self._store, path)
            except FileNotFoundError:
                # Azure says the same when the whole container is missing; who lists it will be told.
                return
            except TypeError:
                self._meta(path)  # tells why there can be no such path; `delete` does not


class _Links:
    """The symbolic links in a folder. Whoever may write there must not make us read, or show, other files."""

    def __init__(self, url: str) -> None:
        self._top = _folder(url).resolve() if url.startswith("file:") else None
        self._folders: dict[str, Path] = {}

    def outside(self, path: str) -> bool:
        """Whether a file lies elsewhere; never in storages that are no folder."""
        if self._top is None:
            return False
        folder, _, name = path.rpartition("/")
        real = self._folders.get(folder)
        if real is None:
            real = self._folders[folder] = (self._top / folder).resolve()
        file = real / name
        return not (file.resolve() if file.is_symlink() else file).is_relative_to(self._top)


class _Remote(io.RawIOBase):
    """An object as a file. Every block is asked for on condition that the object is still the same."""

    def __init__(self, store: ObjectStore, key: str, path: str, meta: ObjectMeta) -> None:
        self._store, self._key, self._path = store, key, path
        self._size, self._etag = meta["size"], meta["e_tag"]
        self._at = 0
        # Not the reader's buffer: asked for text it passes that by, and asks for a few kilobytes each time.
        self._block, self._start = memoryview(b""), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"{self._key} has no byte {start + offset}")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        if not self._start <= self._at < self._start + len(self._block) and self._at < self._size:
            end = min(self._at + BLOCK_BYTES, self._size)
            options: GetOptions = {"range": (self._at, end), "if_match": self._etag}
            self._block = memoryview(b"")  # the old one goes before the new one comes
            with Ours(self._key):
                answer = obstore.get(self._store, self._path, options=options).bytes()
            self._block, self._start = memoryview(answer), self._at
        found = self._block[self._at - self._start :][: len(buffer)]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


def _pages_of_s3(objects: Objects, below: str | None, after: str, unusable: Rejects) -> Iterator[ObjectMeta]:
    """The objects behind one, read from S3's own listing: obstore refuses pages with a name it cannot use."""
    bucket, _, prefix = objects.url.removeprefix("s3://").partition("/")
    within = f"{prefix.rstrip('/')}/" if prefix else ""
    start = {"prefix": within + (f"{below.strip('/')}/" if below else "")}
    place: dict[str, str] | None = {"start-after": within + after} if after else {}
    while place is not None:
        answer = patient(_page_of_s3, bucket, objects.options, {**start, **place})
        for one in answer.iterfind("{*}Contents"):
            key, size = unquote(one.findtext("{*}Key", "")), int(one.findtext("{*}Size", "0"))
            path = key.removeprefix(within)
            etag = one.findtext("{*}ETag")
            if key.endswith("/") and not size:
                continue  # marks a folder
            if key.endswith("/") or path.startswith("/") or not usable(path):
                unusable.append(Reject(f"s3://{bucket}/{key}", UNUSABLE, (etag or "").strip('"')))
                continue
            modified = datetime.fromisoformat(one.findtext("{*}LastModified", ""))
            yield {"path": path, "size": size, "last_modified": modified, "e_tag": etag, "version": None}
        more = answer.findtext("{*}NextContinuationToken")
        place = {"continuation-token": more} if more else None


def _page_of_s3(bucket: str, options: Mapping[str, str], query: Mapping[str, str]) -> ElementTree.Element:
    region = options.get("region") or "us-east-1"
    server = (options.get("endpoint") or f"https://s3.{region}.amazonaws.com").rstrip("/")
    # Keys may hold what XML cannot.
    asked = urlencode({"list-type": "2", "encoding-type": "url", **query}, quote_via=quote)
    # obstore finds the keys wherever they are and signs an address; S3 ignores what it gets as `x-id`.
    place = {"endpoint": f"{server}/{bucket}?{asked}&x-id=", "virtual_hosted_style_request": "true"}
    store = S3Store(
        bucket,
        config={**options, "region": region, **place},  # type: ignore[arg-type]
        client_options={"allow_http": server.startswith("http://")},
    )
    address = obstore.sign(store, "GET", "listing", _SIGNED_FOR)
    try:
        answer = requests.get(address, timeout=(CONNECT_SECONDS, READ_SECONDS))
    except requests.RequestException as error:
        raise Temporary(f"s3://{bucket} cannot be reached: {type(error).__name__}") from None
    if answer.status_code != requests.codes.ok:
        said = f"s3://{bucket} cannot be listed: {answer.status_code}"
        if answer.status_code >= 500:
            raise Temporary(said)
        raise UsageError(said, "check the bucket's name, and what the storage's keys permit")
    try:
        return ElementTree.fromstring(answer.content)
    except ElementTree.ParseError as error:
        raise Temporary(f"s3://{bucket}: the listing is not XML: {error}") from error


def usable(path: str) -> bool:
    """Whether obstore takes a path; it is asked itself, of a storage that is empty."""
    try:
        obstore.head(_NOTHING, path)
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


_NOTHING = MemoryStore()


def _checked(meta: ObjectMeta, key: str) -> ObjectMeta:
    if not meta["e_tag"]:
        raise Temporary(
            f"{key}: what answers is no storage: it sends no ETag",
            "check the endpoint; where it is right, run the same command again",
        )
    return meta


def absolute_url(place: str) -> str:
    """A URL of a place that may be given as a plain path.

    Raises:
        UsageError: if it is a URL of a kind we do not know, or names no bucket.
    """
    if "://" not in place:
        return Path(place).resolve().as_uri()
    scheme, name = place.split("://", 1)
    if scheme not in SCHEMES:
        raise UsageError(
            f"{place!r} is no storage we know",
            f"use one of {', '.join(s + '://' for s in SCHEMES)} or a folder",
        )
    if scheme in _CLOUDS and not name.partition("/")[0]:
        raise UsageError(f"{place!r} names no bucket", f"write {scheme}://bucket/prefix")
    return place


def placed(place: str, options: Mapping[str, str]) -> tuple[Objects, str]:
    """The folder that one object lies in, and the object's path there.

    >>> folder, path = placed("s3://bucket/lists/may 1.csv", {})
    >>> folder.url, path
    ('s3://bucket/lists', 'may 1.csv')

    Args:
        place: the object's URL, or a plain path.

    Raises:
        UsageError: if it names no object.
    """
    url = absolute_url(place)
    above, _, name = url.rpartition("/")
    if not name or above.endswith(":/"):
        raise UsageError(f"{place!r} names no object", "write the whole name, folder/name")
    folder = Objects(above, options)
    return folder, folder.path_of(url)


def delta_options(url: str, options: Mapping[str, str]) -> dict[str, str]:
    """What deltalake and polars need to open the place that `Objects` opens with these options."""
    if url.partition("://")[0] not in _CLOUDS:
        return {}
    # Delta's commits need "write only if absent", which S3 servers offer by ETag.
    more = {"conditional_put": "etag"} if url.startswith("s3://") else {}
    plain = {"allow_http": "true"} if _endpoint(options).startswith("http://") else {}
    return {**options, **more, **plain}


def _endpoint(options: Mapping[str, str]) -> str:
    """The address of the server, if it is not the cloud's own."""
    endpoint = options.get("endpoint") or options.get("base_url") or ""
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise UsageError(f"{endpoint!r} is no address of a server", "begin it with https:// or http://")
    return endpoint


def _folder(url: str) -> Path:
    return Path(unquote(url.removeprefix("file://")) or "/")


def _open(url: str, options: Mapping[str, str]) -> ObjectStore:
    scheme, place = url.split("://", 1)
    if scheme == "memory":
        return _MEMORIES.setdefault(place.rstrip("/"), MemoryStore())
    if scheme == "file":
        return LocalStore(_folder(url))
    # Not from_url: it takes a prefix for a piece of a URL, and cuts `a#b` off after `a`.
    bucket, _, prefix = place.partition("/")
    return _CLOUDS[scheme](
        bucket,
        prefix=prefix or None,
        config=dict(options),
        client_options={
            "allow_http": _endpoint(options).startswith("http://"),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "read_timeout": timedelta(seconds=READ_SECONDS),
            # For the whole of an answer; by default half a minute, which cuts off slow lines at work.
            "timeout": timedelta(days=1),
        },
        retry_config={
            "max_retries": ATTEMPTS - 1,
            "retry_timeout": timedelta(seconds=GIVE_UP_SECONDS),
            "backoff": {
                "init_backoff": timedelta(seconds=FIRST_WAIT_SECONDS),
                "max_backoff": timedelta(seconds=LONGEST_WAIT_SECONDS),
            },
        },
    )
