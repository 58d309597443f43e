"""The contract of buckets: what `Objects` promises of every kind of storage, one test each.

A kind is a subclass of a few lines. Amazon's and Google's are tested on moto, Azure's on Azurite.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import polars as pl
import pytest
import requests

from connector.config import FILE, parse
from connector.demo.server import S3, free_port
from connector.errors import AuthError, Conflict, Reject, Temporary, UsageError
from connector.io import objects as adapter
from connector.io.objects import Objects
from connector.model import Annotation, Task
from connector.store.label_store import ANNOTATION, TASK, Store
from tests.servers import Azure, Google, azure_server, google_server, put_raw, same_to_all, service_account

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ODD = (
    "a b.png",
    "ä/ö/日本 🌧.png",
    "100%.png",
    "a%20b.png",
    "q?x#y&z+=.png",
    "[x]*~.png",
    "'\"\\.png",
    "é.png",
    "e\u0301.png",  # the same to the eye, in two signs
    ".hidden",
    " both ",
    "n" * 200,
)

PREFIXES = ("a#b", "a?b", "a%20b", "a b/ö", "+&=")

ASKED: Mapping[str, Callable[[Objects], object]] = {
    "list": lambda objects: next(objects.list(), None),
    "read": lambda objects: objects.read("a"),
    "open": lambda objects: objects.open("a").read(1),
    "head": lambda objects: objects.head("a", 1),
    "write": lambda objects: objects.write("a", b"x"),
    "write_new": lambda objects: objects.write_new("b", b"x"),
    "delete": lambda objects: objects.delete("a"),
}

# Writes a file as an object and prints the object's lines, and how many bytes of memory both took.
LINES_AND_MEMORY = """
import io, json, re, sys
from pathlib import Path
from connector.io.objects import Objects
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
url, options, file = json.loads(sys.stdin.read())
objects = Objects(url, options)
objects.read("small")
before = peak()
objects.write("large", Path(file))
print(sum(1 for _ in io.TextIOWrapper(objects.open("large"), "utf-8")), peak() - before)
"""

LINES = 128_000
"""Of a thousand bytes each."""

_fresh = itertools.count()


@pytest.fixture(autouse=True)
def a_clean_and_hasty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No keys of the machine's, and failures that are tried again at once."""
    for name in os.environ:
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(adapter, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(adapter, "LONGEST_WAIT_SECONDS", 0.001)


class BucketContract:
    """What every kind of storage promises; a subclass gives an empty place of its kind."""

    odd: ClassVar[Sequence[str]] = ODD
    many: ClassVar[int] = 2500
    """More than one page of a listing."""

    def place(self) -> Objects:
        """An empty place, a new one at every call."""
        raise NotImplementedError

    @pytest.fixture
    def bucket(self) -> Objects:
        return self.place()

    @pytest.fixture
    def full(self) -> Objects:
        """Many small objects."""
        place = self.place()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: place.write(f"{n % 7}/{n:05}", b"%d" % n), range(self.many)))
        return place

    def test_whatever_an_object_is_called_it_is_listed_and_read_by_that_name(self, bucket: Objects) -> None:
        keys = {path: bucket.write(path, path.encode()) for path in self.odd}
        assert len(set(keys.values())) == len(self.odd)
        listed = {one.path: one for one in bucket.list()}
        assert sorted(listed) == sorted(self.odd)
        for path, key in keys.items():
            assert bucket.read(path) == bucket.open(path).read() == path.encode()
            assert (listed[path].key, listed[path].size) == (key, len(path.encode()))
            assert key.startswith(f"{bucket.url}/")
            assert bucket.path_of(key) == path
        assert [data for _, data in bucket.contents(listed.values(), 3)] == [
            path.encode()[:3] for path in listed
        ]

    def test_bytes_come_back_as_they_were(self, bucket: Objects, tmp_path: Path) -> None:
        data = bytes(range(256)) * 50
        bucket.write("all", data)
        bucket.write("none", b"")
        (tmp_path / "file").write_bytes(data)
        assert bucket.write("file", tmp_path / "file") == bucket.key_of("file")
        assert bucket.read("file") == data
        bucket.delete("file")
        assert bucket.read("all") == bucket.open("all").read() == data
        assert bucket.read("none") == bucket.open("none").read() == b""
        assert {one.path: one.size for one in bucket.list()} == {"all": len(data), "none": 0}

    @pytest.mark.parametrize("data", [b"abc", b"ab", b""])
    def test_the_head_of_an_object_is_at_most_all_of_it(self, bucket: Objects, data: bytes) -> None:
        bucket.write("oranges", data)
        assert bucket.head("oranges", 2) == data[:2]
        assert bucket.head("oranges", 9) == data

    def test_a_folder_is_not_the_beginning_of_a_name(self, bucket: Objects) -> None:
        for path in ("raw/a", "raw/deep/b", "raw2/c", "raw.txt"):
            bucket.write(path, b"x")
        for below in ("raw", "raw/"):
            assert sorted(one.path for one in bucket.list(below)) == ["raw/a", "raw/deep/b"]
        assert list(bucket.list("ra")) == list(bucket.list("nothing")) == []
        if not bucket.url.startswith("memory:"):
            raw = replace(bucket, url=f"{bucket.url}/raw")
            assert sorted(one.path for one in raw.list()) == ["a", "deep/b"]

    @pytest.mark.parametrize("prefix", PREFIXES)
    def test_whatever_a_prefix_is_called_its_objects_keep_their_keys(
        self, bucket: Objects, prefix: str
    ) -> None:
        if bucket.url.startswith("memory:"):
            pytest.skip("a place in memory has a name and no prefix")
        key = bucket.write(f"{prefix}/x y", b"data")
        for url in (key.rpartition("/")[0], key.rpartition("/")[0] + "/"):
            below = replace(bucket, url=url)
            assert [(one.path, one.key) for one in below.list()] == [("x y", key)]
            assert below.read(below.path_of(key)) == b"data"
            assert below.write("x y", b"data") == key

    def test_a_listing_is_read_page_by_page_and_what_changes_meanwhile_disturbs_nothing(
        self, full: Objects
    ) -> None:
        names = [one.path for one in full.list()]
        assert sorted(names) == sorted(f"{n % 7}/{n:05}" for n in range(self.many))
        listing = full.list()
        first = next(listing)
        gone, changed, *others = reversed(names)
        full.delete(gone)
        full.write(changed, b"and another")
        full.write("zzz", b"new")
        seen = {one.path: one for one in [first, *listing]}
        assert gone not in seen  # its page had not been asked for when the first object was seen
        assert seen[changed].size == len(b"and another")
        assert set(seen) - {"zzz"} == {changed, *others}

    @pytest.mark.parametrize("length", [3, None])
    def test_the_contents_of_many_come_in_order_and_what_is_gone_is_told(
        self, bucket: Objects, length: int | None
    ) -> None:
        for n in range(100):
            bucket.write(f"{n:03}", b"%03d and more" % n if n != 50 else b"")
        listed = list(bucket.list())
        bucket.delete("070")
        contents = list(bucket.contents(iter(listed), length))
        assert [one for one, _ in contents] == listed
        expected = {f"{n:03}": (b"%03d and more" % n)[:length] for n in range(100)}
        assert {one.path: data for one, data in contents} == {**expected, "050": b"", "070": None}

    def test_contents_that_cannot_be_asked_for_are_an_error(self, bucket: Objects) -> None:
        bucket.write("a", b"x")
        [one] = bucket.list()
        with pytest.raises(UsageError, match="rename"):
            list(bucket.contents([one, replace(one, path="a//b")], 3))

    def test_a_second_object_of_a_path_replaces_the_first_and_has_another_version(
        self, bucket: Objects
    ) -> None:
        bucket.write("a", b"first")
        bucket.write("b", b"stays")
        before = {one.path: one for one in bucket.list()}
        assert {one.path: one.version for one in bucket.list()} == {p: o.version for p, o in before.items()}
        assert bucket.write("a", b"other") == before["a"].key
        after = {one.path: one for one in bucket.list()}
        assert bucket.read("a") == b"other"
        assert after["a"].version != before["a"].version
        assert after["b"] == before["b"]
        assert after["a"].modified >= before["a"].modified

    def test_the_same_content_is_known_again_where_the_storage_tells(self, bucket: Objects) -> None:
        bucket.write("a", b"content")
        bucket.write("b", b"content")
        bucket.write("c", b"others!")
        self.check_fingerprints({one.path: one.fingerprint for one in bucket.list()})

    def check_fingerprints(self, found: Mapping[str, str | None]) -> None:
        """Of `a` and `b`, which are the same, and `c`."""
        assert found["a"] == found["b"] != found["c"]
        assert None not in found.values()

    def test_an_object_is_written_only_where_there_is_none(self, bucket: Objects) -> None:
        key = bucket.write_new("a", b"first")
        assert key == bucket.key_of("a")
        with pytest.raises(Conflict, match="already exists"):
            bucket.write_new("a", b"second")
        assert bucket.read("a") == b"first"
        bucket.delete("a")
        assert bucket.write_new("a", b"third") == key

    def test_of_two_writers_at_once_one_writes(self, bucket: Objects) -> None:
        both = threading.Barrier(2)

        def written(path: str, who: str) -> str:
            both.wait()
            try:
                return who * bool(bucket.write_new(path, who.encode()))
            except Conflict:
                return ""

        with ThreadPoolExecutor(2) as pool:
            for path in map(str, range(10)):
                assert "".join(pool.map(written, [path] * 2, "AB")) == bucket.read(path).decode()

    def test_what_is_gone_is_deleted_already(self, bucket: Objects) -> None:
        bucket.write("a b/c", b"x")
        bucket.delete("a b/c")
        bucket.delete("a b/c")
        bucket.delete("never/was")
        assert list(bucket.list()) == []

    @pytest.mark.parametrize("path", ["missing", "missing/too", "../outside", "a//b", "tab\there"])
    def test_what_is_not_there_or_cannot_be_is_named(self, bucket: Objects, path: str) -> None:
        bucket.write("a", b"x")
        asked: list[Callable[[], object]] = [
            lambda: bucket.read(path),
            lambda: bucket.head(path, 3),
            lambda: bucket.open(path),
        ]
        if "missing" not in path:
            asked += [lambda: bucket.write(path, b"x"), lambda: bucket.delete(path)]
        for ask in asked:
            with pytest.raises(UsageError) as caught:
                ask()
            assert bucket.key_of(path) in caught.value.what
            assert caught.value.hint
        assert [one.path for one in bucket.list()] == ["a"]

    def test_a_large_object_is_a_file_to_read_lines_and_parquet_from(
        self, bucket: Objects, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adapter, "BLOCK_BYTES", 1000)
        lines = [f"line {n} 日本\n" for n in range(2000)]
        bucket.write("lines", "".join(lines).encode())
        assert list(io.TextIOWrapper(bucket.open("lines"), "utf-8")) == lines
        frame = pl.DataFrame({"n": range(5000)})
        frame.write_parquet(parquet := io.BytesIO())
        bucket.write("parquet", parquet.getvalue())
        assert pl.read_parquet(bucket.open("parquet")).equals(frame)
        file = bucket.open("lines")
        assert file.seek(-len(lines[-1].encode()), io.SEEK_END) == file.tell()
        assert file.read().decode() == lines[-1]
        assert file.seek(10**9) == 10**9
        assert file.read() == b""
        with pytest.raises(ValueError, match="no byte -1"):
            file.seek(-1)

    def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(
        self, bucket: Objects, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adapter, "BLOCK_BYTES", 1000)
        bucket.write("a", b"first" * 1000)
        file = bucket.open("a")
        assert file.read(5) == b"first"
        bucket.write("a", b"other" * 1000)
        with pytest.raises(Conflict, match="was replaced while it was read"):
            file.read()

    def test_a_large_object_is_never_in_memory_as_a_whole(self, bucket: Objects, tmp_path: Path) -> None:
        if bucket.url.startswith("memory:"):
            pytest.skip("all of it is in memory")
        line = b"x" * 999 + b"\n"
        bucket.write("small", b"x")
        with (file := tmp_path / "large").open("wb") as out:
            out.writelines(itertools.repeat(line, LINES))
        given = json.dumps([bucket.url, dict(bucket.options), str(file)])
        run = subprocess.run(
            [sys.executable, "-c", LINES_AND_MEMORY],
            input=given,
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        lines, memory = map(int, run.stdout.split())
        assert lines == LINES
        assert memory < len(line) * lines / 2


class TestMemory(BucketContract):
    def place(self) -> Objects:
        return Objects(f"memory://contract-{next(_fresh)}")

    def check_fingerprints(self, found: Mapping[str, str | None]) -> None:
        assert set(found.values()) == {None}

    def test_a_listing_is_read_page_by_page_and_what_changes_meanwhile_disturbs_nothing(
        self, full: Objects
    ) -> None:
        """It is read at once."""
        names = sorted(f"{n % 7}/{n:05}" for n in range(self.many))
        listing = full.list()
        first = next(listing)
        full.delete(names[-1])
        assert [one.path for one in [first, *listing]] == names


class TestFolder(BucketContract):
    @pytest.fixture(autouse=True, params=["raw", "raw 100% ä#1 [x]?"])
    def folder(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        self.above, self.name = tmp_path, request.param

    def place(self) -> Objects:
        folder = self.above / f"{next(_fresh)}" / self.name
        folder.mkdir(parents=True)
        return Objects(str(folder))

    def check_fingerprints(self, found: Mapping[str, str | None]) -> None:
        assert len(set(found.values())) == 3
        assert None not in found.values()

    def test_files_whose_names_cannot_be_used_are_reported_and_the_others_listed(self, full: Objects) -> None:
        folder = Path(adapter._folder(full.url))
        bad = [folder / "0" / "tab\there", folder / "3" / "line\nend"]
        for path in bad:
            path.write_bytes(b"x")
        unusable: list[Reject] = []
        assert len({one.path for one in full.list(unusable=unusable)}) == self.many
        assert sorted(r.where.rpartition("/")[2] for r in unusable) == ["line\nend", "tab\there"]
        with pytest.raises(UsageError):
            list(full.list())

    def test_a_file_that_is_renamed_is_known_again(self, bucket: Objects) -> None:
        bucket.write("a", b"content")
        [before] = bucket.list()
        folder = adapter._folder(bucket.url)
        (folder / "elsewhere").mkdir()
        (folder / "a").rename(folder / "elsewhere" / "b")
        [after] = bucket.list()
        assert (after.path, after.fingerprint) == ("elsewhere/b", before.fingerprint)

    def test_a_folder_that_is_not_there_or_goes_away_is_named_and_not_made(self, bucket: Objects) -> None:
        folder = adapter._folder(bucket.url)
        missing = Objects(str(folder / "no such"))
        assert list(bucket.list()) == []
        folder.rmdir()
        for place in (bucket, missing):
            for ask in ASKED.values():
                with pytest.raises(UsageError, match="there is no folder"):
                    ask(place)
        assert not folder.exists()

    def test_links_that_go_round_and_names_that_are_no_text_are_named(self, bucket: Objects) -> None:
        folder = adapter._folder(bucket.url)
        (folder / "round").symlink_to(folder)
        with pytest.raises(UsageError, match=r"loop found: .*round"):
            list(bucket.list())
        (folder / "round").unlink()
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).touch()
        with pytest.raises(UsageError, match=r"%FF\.png.*\n  next: rename"):
            list(bucket.list())


class CloudContract(BucketContract):
    """What a kind of storage behind a server promises on top."""

    endpoint: ClassVar[str] = "endpoint"
    """The option that names the server."""

    secret: str
    """What must never be told."""

    @contextmanager
    def strangers(self) -> Iterator[Objects]:
        """A place seen by somebody whom the server does not know."""
        raise NotImplementedError
        yield

    @pytest.mark.parametrize("asked", ASKED)
    def test_who_is_not_let_in_is_told(self, bucket: Objects, asked: str) -> None:
        with self.strangers() as strangers, pytest.raises(AuthError, match="not allowed to use") as caught:
            ASKED[asked](strangers)
        assert self.secret not in str(caught.value)

    @pytest.mark.parametrize("asked", [name for name in ASKED if name != "delete"])
    def test_a_bucket_that_is_not_there_is_named(self, bucket: Objects, asked: str) -> None:
        nowhere = replace(bucket, url=f"{bucket.url.partition(':')[0]}://nowhere")
        with pytest.raises(UsageError, match=r"://nowhere.* is not there"):
            ASKED[asked](nowhere)

    @pytest.mark.parametrize("asked", ASKED)
    @pytest.mark.parametrize("trouble", ["away", "500", "503", "429"])
    def test_a_server_that_is_unwell_is_asked_again_and_then_named(
        self, bucket: Objects, trouble: str, asked: str
    ) -> None:
        if trouble == "away":
            self.check_unwell(bucket, f"http://127.0.0.1:{free_port()}", asked)
        else:
            with same_to_all(int(trouble), "text/plain", b"out of order") as url:
                self.check_unwell(bucket, url, asked)

    @pytest.mark.parametrize("asked", ["list", "read", "open", "head", "write", "write_new"])
    def test_a_web_page_is_no_answer(self, bucket: Objects, asked: str) -> None:
        with same_to_all(200, "text/html", b"<!DOCTYPE html><title>Welcome</title>") as url:
            self.check_unwell(bucket, url, asked)

    def test_a_server_that_says_nothing_is_not_waited_for_for_ever(
        self, bucket: Objects, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adapter, "READ_SECONDS", 0.05)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            self.check_unwell(bucket, f"http://127.0.0.1:{silent.getsockname()[1]}", "list")

    def check_unwell(self, bucket: Objects, endpoint: str, asked: str) -> None:
        unavailable = replace(bucket, options={**bucket.options, self.endpoint: endpoint})
        with pytest.raises(Temporary, match=r"does not answer as it should|is no storage") as caught:
            ASKED[asked](unavailable)
        assert bucket.url in caught.value.what
        assert self.secret not in str(caught.value)

    def test_an_address_without_its_beginning_is_refused(self, bucket: Objects) -> None:
        with pytest.raises(
            UsageError, match=r"'localhost:9000' is no address.*\n  next: begin it with https"
        ):
            replace(bucket, options={**bucket.options, self.endpoint: "localhost:9000"})

    def test_a_label_store_opens_it_with_the_same_options(self, bucket: Objects) -> None:
        self.check_store(bucket.url, bucket.options)

    def check_store(self, url: str, options: Mapping[str, str]) -> None:
        for number in (1, 2):
            store = Store(f"{url}/labels", "test", options)
            answer = Annotation(id=str(number), task_id="1", annotator="ada")
            with store.lease():
                store.append([Task(id="1", key="k", annotations=(answer,))], str(number), NOW)
        fresh = Store(f"{url}/labels", "test", options)
        assert fresh.current(ANNOTATION)["id"].to_list() == ["2"]
        assert fresh.cursor() == "2"
        late = Store(f"{url}/labels", "test", options)
        assert late.cursor_kept == "2"
        store.append([], "3", NOW)
        with pytest.raises(Conflict):
            late.append([], "4", NOW)

    def check_configured(self, bucket: Objects, more: str = "") -> None:
        """That a configuration opens the bucket, and a label store in it, with what is in the environment."""
        path = "configured"
        bucket.write(f"{path}/a", b"x")
        config = parse(f'[raw]\nurl = "{bucket.url}/{path}"\n{more}', Path(FILE))
        options = config.storage_options(config.raw)
        assert [one.path for one in Objects(config.raw.url, options).list()] == ["a"]
        self.check_store(bucket.url, options)


@pytest.mark.live
class TestS3(CloudContract):
    many = 1050

    @pytest.fixture(autouse=True)
    def server(self, s3: S3) -> None:
        self.s3, self.secret = s3, s3.secret_key

    def place(self) -> Objects:
        return Objects(f"{self.s3.url}/{next(_fresh)}", self.s3.options)

    def test_names_that_cannot_be_used_are_reported_and_all_others_listed_once(self, full: Objects) -> None:
        expected = {one.key: one for one in full.list()}
        prefix = full.url.removeprefix(f"{self.s3.url}/")
        bad = [f"{prefix}/{name}" for name in ("0//x", "3/../x", "6/tab\there", "6//", "/x", "./x")]
        for key in bad:
            put_raw(self.s3, key, b"x")
        put_raw(self.s3, f"{prefix}/6/folder/", b"")
        unusable: list[Reject] = []
        found = list(full.list(unusable=unusable))
        assert {one.key: one for one in found} == expected
        assert len(found) == len(expected) == self.many
        assert {r.where for r in unusable} == {f"{self.s3.url}/{key}" for key in bad}
        with pytest.raises(UsageError):
            list(full.list())

    @contextmanager
    def strangers(self) -> Iterator[Objects]:
        look_at_keys = f"{self.s3.endpoint}/moto-api/reset-auth"  # after so many requests
        requests.post(look_at_keys, data="0", timeout=60).raise_for_status()
        try:
            yield replace(self.place(), options={**self.s3.options, "access_key_id": "AKIASTRANGER"})
        finally:
            requests.post(look_at_keys, data="inf", timeout=60).raise_for_status()

    def test_the_environment_opens_it(self, bucket: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in self.s3.environment.items():
            monkeypatch.setenv(name, value)
        self.check_configured(bucket)

    def test_folders_that_a_console_made_are_no_objects(self, bucket: Objects) -> None:
        bucket.write("folder/a", b"x")
        bucket.write("empty", b"")
        place = bucket.url.removeprefix("s3://")
        for key in (f"{place}/", f"{place}/folder/", f"{place}/without anything/"):
            scope = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request"
            requests.put(
                f"{self.s3.endpoint}/{quote(key)}",
                headers={"Authorization": f"{scope}, SignedHeaders=host, Signature=0"},
                timeout=60,
            ).raise_for_status()
        assert [one.path for one in bucket.list()] == ["empty", "folder/a"]

    def test_without_keys_it_is_told_which(self, bucket: Objects) -> None:
        keyless = {"endpoint": self.s3.endpoint, "metadata_endpoint": f"http://127.0.0.1:{free_port()}"}
        with pytest.raises(AuthError, match=r"there are no keys .*\n  next: set AWS_ACCESS_KEY_ID"):
            list(Objects(bucket.url, keyless).list())


@pytest.fixture(scope="module")
def azure() -> Iterator[Azure]:
    with azure_server() as running:
        yield running


@pytest.mark.live
class TestAzure(CloudContract):
    odd = tuple(path for path in ODD if "\\" not in path)  # Azure itself makes it a slash
    many = 700

    @pytest.fixture(autouse=True)
    def server(self, azure: Azure) -> None:
        self.azure, self.secret = azure, azure.key

    def place(self) -> Objects:
        return Objects(f"{self.azure.url}/{next(_fresh)}", self.azure.options)

    def check_fingerprints(self, found: Mapping[str, str | None]) -> None:
        assert set(found.values()) == {None}

    @contextmanager
    def strangers(self) -> Iterator[Objects]:
        yield replace(self.place(), options={**self.azure.options, "account_key": "d3Jvbmc="})

    def check_store(self, url: str, options: Mapping[str, str]) -> None:
        """Azurite overlooks where a listing shall begin, so Delta's library finds no third commit there."""
        store = Store(f"{url}/labels", "test", options)
        store.append([Task(id="1", key="k")], "1", NOW)
        assert Store(f"{url}/labels", "test", options).current(TASK)["key"].to_list() == ["k"]

    def test_a_connection_string_opens_it(self, bucket: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", self.azure.connection_string)
        self.check_configured(bucket)

    def test_the_environment_opens_it(self, bucket: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", self.azure.account)
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", self.azure.key)
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", self.azure.endpoint)
        self.check_configured(bucket)

    def test_without_keys_it_is_told_which(self, bucket: Objects) -> None:
        nobody = f"http://127.0.0.1:{free_port()}"
        for keyless in ({}, {"account_name": "x", "endpoint": nobody, "msi_endpoint": nobody}):
            with pytest.raises(AuthError, match=r"there are no keys .*\n  next: set AZURE_STORAGE"):
                list(Objects(bucket.url, keyless).list())


@pytest.fixture(scope="module")
def google() -> Iterator[Google]:
    with google_server() as running:
        yield running


@pytest.mark.live
class TestGoogle(CloudContract):
    endpoint = "base_url"
    many = 700

    @pytest.fixture(autouse=True)
    def server(self, google: Google) -> None:
        self.google, self.secret = google, json.loads(google.service_account)["private_key"]

    def place(self) -> Objects:
        return Objects(f"{self.google.url}/{next(_fresh)}", self.google.options)

    @contextmanager
    def strangers(self) -> Iterator[Objects]:
        options = {**self.google.options, "service_account_key": service_account("stranger@example.com")}
        yield replace(self.place(), options=options)

    def test_the_environment_opens_it(self, bucket: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", self.google.service_account)
        self.check_configured(bucket, f'endpoint = "{self.google.endpoint}"')

    def test_without_keys_it_is_told_which(self, bucket: Objects) -> None:
        for keyless in ({"service_account": "/no/such.json"}, {"service_account_key": "{}"}):
            with pytest.raises(AuthError, match=r"there are no keys .*\n  next: set GOOGLE_APPL"):
                list(Objects(bucket.url, keyless).list())
