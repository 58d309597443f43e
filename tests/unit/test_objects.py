"""Objects in memory and in folders; the ones in S3 are tested live, against a real server."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from connector.adapters.objects import Objects, absolute_url
from connector.errors import Temporary, UsageError

ODD = ["a b.png", "ä/ö/日本.png", "100%.png", "a%20b.png", "q?x#y&z+.png", "[x]*~.png", "'\"\\.png"]

_fresh = itertools.count()


@pytest.fixture(params=["memory", "file", "folder", "folder with an odd name"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """An empty place of each kind."""
    if request.param == "memory":
        return Objects(f"memory://test-{next(_fresh)}")
    if request.param == "file":
        return Objects(tmp_path.as_uri())
    folder = tmp_path / ("raw 100% ä#1" if "odd" in request.param else "raw")
    folder.mkdir()
    return Objects(str(folder))


def test_whatever_an_object_is_called_it_is_found_listed_and_read_by_that_name(objects: Objects) -> None:
    keys = {path: objects.write(path, path.encode()) for path in ODD}
    assert len(set(keys.values())) == len(ODD)
    listed = {one.path: one for one in objects.list()}
    assert sorted(listed) == sorted(ODD)
    for path, key in keys.items():
        assert objects.read(path) == path.encode()
        assert (listed[path].key, listed[path].size) == (key, len(path.encode()))
        assert key.startswith(f"{objects.url}/")
        assert objects.path_of(key) == path


def test_a_second_object_of_a_path_replaces_the_first_and_changes_its_etag(objects: Objects) -> None:
    objects.write("a", b"first")
    (before,) = objects.list()
    objects.write("a", b"and second")
    (after,) = objects.list()
    assert objects.read("a") == b"and second"
    assert (after.key, after.size) == (before.key, 10)
    assert after.etag != before.etag
    assert after.modified >= before.modified


@pytest.mark.parametrize("below", ["sub", "sub/"])
def test_a_folder_is_not_the_beginning_of_a_name(objects: Objects, below: str) -> None:
    for path in ("sub/a", "sub/deep/b", "subway/c", "sub.txt"):
        objects.write(path, b"x")
    assert sorted(one.path for one in objects.list(below)) == ["sub/a", "sub/deep/b"]
    assert list(objects.list("su")) == []
    assert list(objects.list("nothing")) == []


def test_a_slash_behind_the_url_changes_nothing(objects: Objects) -> None:
    key = objects.write("deep/a b", b"x")
    same = Objects(objects.url + "/")
    assert [(one.key, one.path) for one in same.list()] == [(key, "deep/a b")]
    assert same.read(same.path_of(key)) == b"x"
    assert Objects(objects.url).write("deep/a b", b"x") == key


def test_memory_lists_every_object_once_in_the_order_of_names_over_many_pages() -> None:
    objects = Objects(f"memory://test-{next(_fresh)}")
    names = [f"{n % 7}/{n:05}" for n in range(1500)]
    for name in names:
        objects.write(name, b"")
    assert [one.path for one in objects.list()] == sorted(names)


@pytest.mark.parametrize(("data", "length", "head"), [(b"abc", 2, b"ab"), (b"abc", 9, b"abc"), (b"", 3, b"")])
def test_the_head_of_an_object_is_at_most_all_of_it(
    objects: Objects, data: bytes, length: int, head: bytes
) -> None:
    objects.write("a", data)
    assert objects.head("a", length) == head


@pytest.mark.parametrize("path", ["missing", "missing/too", "../outside", "a//b"])
def test_what_is_not_there_or_cannot_be_is_named(objects: Objects, path: str) -> None:
    asked: list[Callable[[], object]] = [lambda: objects.read(path), lambda: objects.head(path, 3)]
    for ask in asked:
        with pytest.raises(UsageError) as caught:
            ask()
        assert f"{objects.url}/{path}" in caught.value.what
        assert caught.value.hint
    if "." in path or "//" in path:
        with pytest.raises(UsageError):
            objects.write(path, b"x")


def test_a_key_of_elsewhere_is_refused(objects: Objects) -> None:
    for key in ("s3://other/a", objects.url, objects.url + "er/a", "a"):
        with pytest.raises(UsageError, match="does not lie below"):
            objects.path_of(key)


def test_a_folder_that_is_not_there_is_named_and_not_made(tmp_path: Path) -> None:
    missing = Objects(str(tmp_path / "no such"))
    for ask in (lambda: list(missing.list()), lambda: missing.read("a"), lambda: missing.write("a", b"x")):
        with pytest.raises(UsageError, match=r"there is no folder .*no such"):
            ask()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "error"),
    [("ftp://x", UsageError), ("s3://b", UsageError), ("s3://127.0.0.1", Temporary)],
    ids=["of no kind we know", "with an option nobody knows", "where nobody answers"],
)
def test_a_bucket_that_cannot_be_asked_is_told_from_one_that_does_not_answer(
    url: str, error: type[Exception]
) -> None:
    options = {"nonsense": "1"} if url == "s3://b" else {"endpoint": "http://127.0.0.1:1", "region": "r"}
    keys = {} if url == "s3://b" else {"access_key_id": "a", "secret_access_key": "b"}
    with pytest.raises(error, match=url):
        list(Objects(url, {**options, **keys}).list())


def test_a_path_becomes_a_url_and_a_url_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_url("raw") == (tmp_path / "raw").as_uri()
    assert absolute_url("s3://b/p") == "s3://b/p"
    assert "secret" not in repr(Objects("memory://x", {"secret_access_key": "secret"}))
