"""Objects and rows of manifests as items."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from connector.adapters.memory import MemoryTool
from connector.config import parse
from connector.errors import AuthError, Reject, UsageError
from connector.io.objects import Object, Objects
from connector.model import Item
from connector.sync import items
from connector.sync.items import BucketItems, ManifestItems, Source

PNG = b"\x89PNG\r\n\x1a\n..."
TOOL = MemoryTool()


def bucket(
    folder: Path, files: dict[str, bytes], settings: str = "", images: tuple[str, ...] = ()
) -> BucketItems:
    """The items of a folder with these files."""
    raw = Objects(str(folder))
    for path, content in files.items():
        raw.write(path, content)
    config = parse(f"[raw]\n{settings}", folder / "connector.toml").raw
    return BucketItems(raw, config, [], frozenset(images))


def ready(source: Source) -> dict[str, dict[str, Any]]:
    """The data of every item, by key."""
    made = list(source.items(list(source), TOOL))
    assert all(one.version for one in made)
    return {one.key: one.data for one in made}


def test_every_object_is_an_item_named_by_its_url(tmp_path: Path) -> None:
    source = bucket(tmp_path, {"a/1.png": PNG, "ü b.png": PNG, "empty.png": b""})
    base = tmp_path.as_uri()
    assert ready(source) == {
        f"{base}/{name}": {"image": f"{base}/{name}"} for name in ("a/1.png", "%C3%BC%20b.png")
    }
    assert [(r.where, r.why) for r in source.rejects] == [(f"{base}/empty.png", "the object is empty")]
    assert source.holds(f"{base}/gone.png")
    assert not source.holds(f"{base}2/1.png")
    assert not source.holds("key of a manifest")


def test_only_what_is_included_and_not_excluded_is_an_item(tmp_path: Path) -> None:
    files = dict.fromkeys(["a.jpg", "b/c.jpg", "b/d.txt", "thumbs/a.jpg"], b"x")
    source = bucket(tmp_path, files, 'include = ["*.jpg"]\nexclude = ["thumbs/*"]\nkey = "{path}"')
    assert sorted(ready(source)) == ["a.jpg", "b/c.jpg"]


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("{path}", "x/y/cat.01.png"),
        ("{stem}", "cat.01"),
        ("{folder}{stem}", "x/y/cat.01"),
        ("{name}", "cat.01.png"),
        ("site-{stem}{suffix}", "site-cat.01.png"),
    ],
)
def test_a_key_is_made_of_the_parts_of_a_name(tmp_path: Path, template: str, key: str) -> None:
    assert list(ready(bucket(tmp_path, {"x/y/cat.01.png": PNG}, f'key = "{template}"'))) == [key]


@pytest.mark.parametrize("template", ["{nothing}", "{", "{0}", "{path.x}"])
def test_a_key_of_other_parts_is_refused(tmp_path: Path, template: str) -> None:
    with pytest.raises(UsageError, match=r"raw\.key: .*url, path, folder, name, stem, suffix"):
        bucket(tmp_path, {}, f'key = "{template}"')


PAIRS = """
[raw.fields.video]
match = ["*.mp4", "*.webm"]
[raw.fields.transcript]
match = ["text/*.txt", "*.txt"]
content = "text"
[raw.fields.notes]
match = ["*.json"]
content = "json"
optional = true
"""


def test_several_objects_of_one_key_are_one_item(tmp_path: Path) -> None:
    files = {"a.mp4": b"film", "a.txt": "Grüß Gott".encode(), "a.json": b'{"site": "Linz"}'}
    source = bucket(tmp_path, {**files, "b.webm": b"film", "c.txt": b"alone", "d.pdf": b"?"}, PAIRS)
    base = tmp_path.as_uri()
    assert ready(source) == {"a": {"video": f"{base}/a.mp4", "transcript": "Grüß Gott", "site": "Linz"}}
    told = sorted((r.where, r.why) for r in source.rejects)
    assert told == [("b", "there is no object for transcript"), ("c", "there is no object for video")]


def test_an_item_changes_with_any_of_its_objects_and_two_for_one_field_are_refused(tmp_path: Path) -> None:
    files = {"a.mp4": b"film", "a.txt": b"one"}
    [before] = bucket(tmp_path, files, PAIRS)
    [again] = bucket(tmp_path, {}, PAIRS)
    [changed] = bucket(tmp_path, {"a.txt": b"other"}, PAIRS)
    assert before.version == again.version != changed.version
    source = bucket(tmp_path, {"a.webm": b"second"}, PAIRS)
    assert len(list(source)) == 1
    assert "is the video of a already" in source.rejects[0].why


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ('key = "{url}"', False),
        ('key = "{path}"', False),
        ('key = "{folder}{stem}"', False),
        ('key = "URL/{folder}{stem}"', False),
        ('key = "{stem}"', True),
        ('key = "{stem}"\ncontent = "text"', False),
    ],
)
def test_an_object_that_moved_is_known_again_or_changed_where_its_key_stays(
    tmp_path: Path, settings: str, changed: bool
) -> None:
    source = bucket(tmp_path, {"a/1.png": PNG}, settings.replace("URL", tmp_path.as_uri()))
    [before] = source
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "1.png").rename(tmp_path / "b" / "1.png")
    [after] = source
    assert (before.key != after.key) is ("stem}" not in settings or "folder" in settings)
    assert (before.version != after.version) is changed
    assert after.tells_content
    assert source.holds(before.key) is ("url" in settings.lower())


@pytest.mark.parametrize(
    ("content", "said"),
    [("text", "not UTF-8 text"), ("json", "not JSON")],
)
def test_what_cannot_be_shown_is_refused_when_it_is_made_ready(
    tmp_path: Path, content: str, said: str
) -> None:
    source = bucket(tmp_path, {"a.bin": b"\xff\xfe{", "b.bin": b"{}"}, f'content = "{content}"')
    assert [key[-5:] for key in ready(source)] == ["b.bin"]
    assert [(r.where[-5:], said in r.why) for r in source.rejects] == [("a.bin", True)]


def test_json_that_is_no_object_is_refused(tmp_path: Path) -> None:
    source = bucket(tmp_path, {"a.json": b"[1]"}, 'content = "json"')
    assert ready(source) == {}
    assert "one JSON object" in source.rejects[0].why


def test_what_is_shown_as_a_picture_must_be_one(tmp_path: Path) -> None:
    source = bucket(tmp_path, {"a.png": PNG, "c.txt": b"hello"}, images=("image",))
    assert [key[-5:] for key in ready(source)] == ["a.png"]
    assert "c.txt is not a picture" in source.rejects[0].why


@pytest.mark.parametrize("content", ["url", "text"])
def test_what_is_gone_before_it_is_looked_into_is_no_item(tmp_path: Path, content: str) -> None:
    source = bucket(tmp_path, {"a.png": PNG[1:], "b.png": PNG[1:]}, f'content = "{content}"', ("image",))
    listed = sorted(source, key=lambda one: one.key)
    source.objects.delete("a.png")
    source.objects.write("b.png", b"BM, a picture")
    assert [one.key[-5:] for one in source.items(listed, TOOL)] == ["b.png"]
    assert "is gone since it was listed" in source.rejects[0].why


def test_many_pictures_are_looked_into_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = bucket(tmp_path, {f"{n}.png": PNG for n in range(8)}, images=("image",))
    together, head = threading.Barrier(4, timeout=60), Objects.head

    def met(objects: Objects, path: str, length: int) -> bytes:
        together.wait()  # breaks unless three others are asked for meanwhile
        return head(objects, path, length)

    monkeypatch.setattr(Objects, "head", met)
    assert len(ready(source)) == 8


def test_the_objects_of_a_bucket_are_listed_as_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bucket(tmp_path, {f"{n}.png": PNG for n in range(3)})
    given: list[Object] = []

    def counted(objects: Objects, unusable: list[Reject]) -> Iterator[Object]:
        for one in real(objects, unusable=unusable):
            given.append(one)
            yield one

    real = Objects.list
    monkeypatch.setattr(Objects, "list", counted)
    next(iter(source))
    assert len(given) == 1


@pytest.mark.parametrize(
    ("start", "shown"),
    [
        (b"\x89PNG\r\n\x1a\n", True),
        (b"\xff\xd8\xff\xe0", True),
        (b"RIFF\x00\x00\x00\x00WEBP", True),
        (b"\x00\x00\x00\x20ftypavif", True),
        (b"RIFF\x00\x00\x00\x00WAVE", False),
        (b"%PDF-1.7", False),
        (b"", False),
    ],
)
def test_pictures_are_known_by_their_first_bytes(start: bytes, shown: bool) -> None:
    assert items.is_image(start) is shown


# Manifests.


@pytest.fixture(params=["folder", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """Where a manifest lies."""
    return Objects(str(tmp_path) if request.param == "folder" else f"memory://{tmp_path.name}/lists")


def manifest(
    folder: Objects, name: str, content: str | bytes, plain: bool = False
) -> tuple[list[Item], list[Reject]]:
    folder.write(name, content.encode() if isinstance(content, str) else content)
    raw = Objects("memory://raw")
    for path in ("a", "b", "007", "b.png", "c.png", *(f"{n:03}" for n in range(8))):
        raw.write(path, PNG)
    source = ManifestItems(folder, name, raw, "image", [], plain, pictures=True)
    return list(source.items(list(source), TOOL)), source.rejects


def test_a_manifest_names_what_it_shows_by_url_by_path_or_by_key(folder: Objects) -> None:
    text = "\ufeffkey,image,site\na,s3://x/a.png,\nb,b.png,Linz\n"
    found, rejects = manifest(folder, "m.csv", text)
    found += manifest(folder, "keys.csv", "key,site\nc.png,\n")[0]
    assert [(i.key, i.data["image"]) for i in found] == [
        ("a", "s3://x/a.png"),
        ("b", "memory://raw/b.png"),
        ("c.png", "memory://raw/c.png"),
    ]
    assert found[1].data["site"] == "Linz"
    assert found[0].data["site"] == ""  # a tool may ask for the column
    assert rejects == []


def test_a_manifest_of_json_lines_keeps_types_and_names_torn_lines(folder: Objects) -> None:
    found, rejects = manifest(folder, "m.jsonl", '{"key": "007", "n": 3}\n{"key": "b"\n[1]\n\n{"n": 1}\n')
    assert [(i.key, i.data["n"]) for i in found] == [("007", 3)]
    assert [r.where.rsplit(":", 1)[1] for r in rejects] == ["2", "3", "5"]


def test_a_manifest_may_be_one_json_list(folder: Objects) -> None:
    found, rejects = manifest(folder, "m.json", '[{"key": "a", "n": [1]}, 7, {"key": "a"}]')
    assert [(i.key, i.data["n"]) for i in found] == [("a", [1])]
    assert [r.where.rsplit(":", 1)[1] for r in rejects] == ["2", "3"]


def test_a_manifest_in_parquet_holds_what_a_task_can(
    folder: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "ROWS_AT_ONCE", 3)
    table = pl.DataFrame(
        {
            "key": [f"{n:03}" for n in range(8)],
            "taken": [datetime(2026, 3, 1, n, tzinfo=UTC) for n in range(8)],
            "size": [[n, n + 1] for n in range(8)],
            "note": ["two\nlines,\u2028a third\x85"] * 8,
            "empty": pl.Series([None] * 8, dtype=pl.String),
        }
    )
    table.write_parquet(file := io.BytesIO())
    found, _ = manifest(folder, "m.parquet", file.getvalue())
    assert [i.key for i in found] == table["key"].to_list()
    assert found[7].data["size"] == [7, 8]
    assert found[7].data["note"] == table["note"][7]
    assert found[7].data["taken"].startswith("2026-03-01")
    assert "empty" not in found[7].data
    json.dumps([i.data for i in found])


def test_a_text_in_a_manifest_stays_a_text(folder: Objects) -> None:
    text = 'key,image,note\na,"hello, world",x\nb,s3://x/a.png,\nc,,\n'
    found, rejects = manifest(folder, "m.csv", text, plain=True)
    assert [i.data for i in found] == [
        {"image": "hello, world", "note": "x"},
        {"image": "s3://x/a.png", "note": ""},
        {"image": "", "note": ""},
    ]
    assert rejects == []
    found, rejects = manifest(folder, "m.jsonl", '{"key": "a", "image": null}\n', plain=True)
    assert (found, [r.where for r in rejects]) == ([], ["a"])


def test_a_list_of_objects_in_a_manifest_stays_a_list(folder: Objects) -> None:
    rows = [{"key": "a", "image": ["b.png", "s3://x/a.png"]}, {"key": "b", "image": ["b.png", 7]}]
    rows += [{"key": "c", "image": []}, {"key": "d", "image": ["b.png", "missing.png"]}]
    found, rejects = manifest(folder, "m.json", json.dumps(rows))
    assert [i.data["image"] for i in found] == [["memory://raw/b.png", "s3://x/a.png"]]
    assert [(r.where, "missing.png" in r.why) for r in rejects] == [("b", False), ("c", False), ("d", True)]


def test_a_row_without_an_object_or_with_one_that_is_not_there_is_rejected(folder: Objects) -> None:
    rows: list[dict[str, object]] = [{"key": "b.png", "image": None}, {"key": "b", "image": " "}]
    rows += [{"key": "c", "image": "missing.png"}, {"key": "d", "image": "a//b.png"}, {"key": "a"}]
    found, rejects = manifest(folder, "m.json", json.dumps(rows))
    assert [(i.key, i.data["image"]) for i in found] == [("a", "memory://raw/a")]
    assert [(r.where, r.why.split(":")[0]) for r in rejects] == [
        ("b.png", "the row names no object in image"),
        ("b", "the row names no object in image"),
        ("c", "there is no object memory"),
        ("d", "there is no object memory"),
    ]


def test_objects_outside_the_bucket_are_looked_for_where_its_settings_open_them(folder: Objects) -> None:
    Objects("memory://elsewhere").write("deep/there.png", PNG)
    Objects("memory://elsewhere").write("notes.txt", b"no picture")
    urls = {
        "a": "memory://elsewhere/deep/there.png",
        "b": "memory://elsewhere/missing.png",
        "c": "memory://elsewhere/notes.txt",
        "d": "memory://no-such-bucket/x.png",
        "e": "memory://elsewhere/a//b.png",
        "f": "s3://another-kind-of-storage/x.png",
        "g": "https://example.com/x.png",
    }
    rows = [{"key": key, "image": url} for key, url in urls.items()]
    found, rejects = manifest(folder, "m.json", json.dumps(rows))
    assert {i.key: i.data["image"] for i in found} == {key: urls[key] for key in "afg"}
    assert {r.where: r.why for r in rejects} == {
        "b": f"there is no object {urls['b']}",
        "c": f"{urls['c']} is not a picture that a browser shows",
        "d": f"there is no object {urls['d']}",
        "e": f"there is no object {urls['e']}",
    }


def test_files_outside_the_folder_are_looked_for(tmp_path: Path) -> None:
    for name in ("raw/in.png", "ü out.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(PNG)
    rows = {"a": tmp_path / "raw/in.png", "b": tmp_path / "ü out.png", "c": tmp_path / "missing.png"}
    text = "".join(f"{key},{path.as_uri()}\n" for key, path in rows.items())
    (tmp_path / "m.csv").write_text(f"key,image\n{text}d,in.png\n")
    source = ManifestItems(Objects(str(tmp_path)), "m.csv", Objects(str(tmp_path / "raw")), "image", [])
    assert [i.key for i in source.items(list(source), MemoryTool())] == ["a", "b", "d"]
    assert [(r.where, r.why) for r in source.rejects] == [("c", f"there is no object {rows['c'].as_uri()}")]


def test_what_may_not_be_read_elsewhere_is_left_to_the_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.csv").write_text("key,image\na,memory://secret/x.png\n")
    contents = Objects.contents

    def refused(bucket: Objects, *words: Any, **more: Any) -> Any:
        if bucket.url == "memory://secret":
            raise AuthError("not allowed to use memory://secret")
        return contents(bucket, *words, **more)

    monkeypatch.setattr(Objects, "contents", refused)
    source = ManifestItems(Objects(str(tmp_path)), "m.csv", Objects("memory://raw"), "image", [])
    assert [i.key for i in source.items(list(source), MemoryTool())] == ["a"]
    assert source.rejects == []


def test_a_row_changes_with_its_content_or_as_its_version_says(folder: Objects) -> None:
    def versions(text: str) -> list[str]:
        return [item.version for item in manifest(folder, "m.csv", text)[0]]

    assert versions("key,site\na,Linz\nb,Wels\n") == versions("site,key\nLinz,a\nWels,b\n")
    assert versions("key,site\na,Linz\n") != versions("key,site\na,Wels\n")
    assert versions("key,site,version\na,Linz,7\nb,Wels,7\n") == ["7", "7"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent.csv", None, "is not there"),
        ("m.txt", b"key\na\n", "is no manifest we read"),
        ("torn.json", b"[{", "is not JSON"),
        ("object.json", b"{}", "must hold a list"),
        ("torn.parquet", b"PAR1", "is not Parquet"),
        ("latin.csv", "key\nä".encode("latin-1"), "is not UTF-8"),
        ("latin.jsonl", b'{"key": "\xff"}', "is not UTF-8"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_a_usage_error(
    folder: Objects, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        folder.write(name, content)
    with pytest.raises(UsageError, match=f"{re.escape(folder.key_of(name))} {said}") as caught:
        list(ManifestItems(folder, name, Objects("memory://raw"), "image", []))
    assert caught.value.hint


def test_the_objects_of_a_manifest_are_named_as_a_listing_names_them(tmp_path: Path) -> None:
    raw = Objects(str(tmp_path))
    key = raw.write("ä b#1 100%.png", PNG)
    raw.write("m.csv", "key\nä b#1 100%.png\n".encode())
    source = ManifestItems(raw, "m.csv", raw, "image", [])
    [item] = source.items(list(source), TOOL)
    assert item.data["image"] == key
