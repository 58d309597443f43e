"""Rejects on a real Label Studio: remembered, listed, accepted, and counted again when something changes."""

from __future__ import annotations

import json

import pytest

from connector.demo.pictures import scenes
from connector.demo.server import S3
from connector.io.objects import Objects
from tests.conftest import Line
from tests.live.test_existing import in_bucket

pytestmark = pytest.mark.live

PICTURES = [scene.png for scene in scenes(4, seed=3)]


@pytest.fixture
def bucket(line: Line, s3: S3) -> tuple[Line, Objects]:
    """Three pictures, an empty object and a text."""
    line, raw = in_bucket(line, s3)
    for n in range(3):
        raw.write(f"{n}.png", PICTURES[n])
    raw.write("empty.png", b"")
    raw.write("notes.txt", b"the second picture is blurred")
    return line, raw


def counts(line: Line, *words: str, code: int) -> tuple[int, int, int]:
    found = line.ask("push", *words, code=code)
    return found["known"] + found["new"], found["rejected"], found["accepted"]


def test_accepted_rejects_make_the_pipeline_clean_until_something_changes(
    bucket: tuple[Line, Objects],
) -> None:
    line, raw = bucket
    empty, notes = f"{raw.url}/empty.png", f"{raw.url}/notes.txt"
    assert counts(line, code=4) == (3, 2, 0)
    assert counts(line, code=4) == (3, 2, 0)
    reject_file = line.folder / "rejects-push.jsonl"
    assert [json.loads(row)["where"] for row in reject_file.read_text().splitlines()] == [empty, notes]

    before = line.ask("status")
    assert (before["agree"], before["items_in_bucket"], before["rejected"]) == (False, 3, 2)
    assert {one["where"]: one["accepted_at"] for one in before["rejects"]} == {empty: None, notes: None}
    found = line.ask("reconcile", code=4)
    assert (found["agree"], found["differences"], found["rejected"]) == (False, {}, 2)
    code, out, err = line.run("reconcile")
    assert (code, "bucket, tool and store agree" in out) == (4, False)
    assert all(text in out for text in ("empty.png", "notes.txt", "the object is empty"))
    assert "`connector reconcile --accept KEY`" in err

    # What would be, and one after the other.
    dry = line.ask("reconcile", "--accept-all", "--dry-run")
    assert (dry["agree"], dry["rejected"], dry["accepted"], dry["dry_run"]) == (True, 0, 2, True)
    assert line.ask("reconcile", "--accept", empty, code=4)["accepted"] == 1
    assert counts(line, code=4) == (3, 1, 1)
    done = line.ask("reconcile", "--accept", notes)
    assert (done["agree"], done["rejected"], done["accepted"]) == (True, 0, 2)
    assert all(one["accepted_by"] and one["accepted_at"] for one in done["rejects"])
    for words in ((), ("--dry-run",)):
        assert counts(line, *words, code=0) == (3, 0, 2)
    pushed = line.ask("sync")["push"]
    assert (pushed["found"], pushed["rejected"], pushed["accepted"]) == (5, 0, 2)
    assert line.ask("reconcile")["agree"]
    after = line.ask("status")
    assert (after["agree"], after["items_in_bucket"], after["rejected"], after["accepted"]) == (True, 3, 0, 2)
    assert line.ask("status", "--no-bucket")["agree"]

    # Another content is another reject.
    raw.write("notes.txt", b"all pictures are blurred")
    found = line.ask("reconcile", code=3)
    assert (found["agree"], found["differences"]) == (False, {"no task": 1})
    assert not line.ask("status")["agree"]
    for words in (("--dry-run",), ()):
        assert counts(line, *words, code=4) == (3, 1, 1)
    assert line.ask("reconcile", code=4)["rejected"] == 1
    assert line.ask("reconcile", "--accept-all")["agree"]
    assert line.ask("reconcile", "--unaccept", notes, code=4)["rejected"] == 1
    assert counts(line, code=4) == (3, 1, 1)

    # Another reason, and none any more.
    raw.write("notes.txt", b"")
    assert counts(line, code=4) == (3, 1, 1)
    raw.write("empty.png", PICTURES[3])
    raw.delete("notes.txt")
    assert counts(line, code=0) == (4, 0, 0)
    assert line.ask("reconcile")["agree"]
    assert line.ask("status")["rejects"] == []


def test_what_is_not_known_cannot_be_accepted(bucket: tuple[Line, Objects]) -> None:
    line, raw = bucket
    code, _, err = line.run("reconcile", "--accept", f"{raw.url}/notes.txt")
    assert code == 2  # no push has rejected it yet
    assert "is not among the rejects of this project" in err
    assert "connector push" in err
    line.ask("push", code=4)
    code, _, _ = line.run("reconcile", "--accept", f"{raw.url}/notes.txt", "--accept", f"{raw.url}/1.png")
    assert code == 2
    assert line.ask("status")["accepted"] == 0


def test_the_rejects_of_a_manifest_are_its_own(bucket: tuple[Line, Objects]) -> None:
    line, _ = bucket
    rows = "a,0.png\n,1.png\nb,notes.txt\nc,missing.png\nd,a//b.png\ne,2.png\n"
    manifest = line.folder / "m.csv"
    manifest.write_text(f"key,image\n{rows}")
    words = ("--manifest", str(manifest))
    assert counts(line, *words, code=4) == (2, 4, 0)
    listed = line.ask("status")["rejects"]
    by_manifest = {one["where"] for one in listed if one["manifest"]}
    assert by_manifest == {f"{manifest.as_uri()}:3", "b", "c", "d"}
    assert not line.ask("reconcile", *words, code=4)["agree"]
    assert line.ask("reconcile", *words, "--accept-all")["agree"]
    assert counts(line, *words, code=0) == (2, 0, 4)
    manifest.write_text(f"key,image\n{rows.replace('missing', 'empty')}")
    assert counts(line, *words, code=4) == (2, 1, 3)
    # One way to name the same file is as good as another.
    assert counts(line, "--manifest", "m.csv", code=4) == (2, 1, 3)


def test_a_folder_goes_by_the_same_rule(line: Line) -> None:
    folder = line.server.files / f"project-{line.project}"
    (folder / "1.png").write_bytes(PICTURES[0])
    notes = folder / "ü notes.txt"
    notes.write_text("no picture")
    assert counts(line, code=4) == (1, 1, 0)
    assert line.ask("reconcile", "--accept", notes.as_uri())["agree"]
    assert counts(line, code=0) == (1, 0, 1)
    notes.write_text("no picture either")
    assert counts(line, code=4) == (1, 1, 0)
    notes.unlink()
    assert counts(line, code=0) == (1, 0, 0)
