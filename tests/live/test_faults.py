"""What goes wrong: processes killed in the middle, a server that is away or talks nonsense, bad input."""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import pytest

from connector.adapters.base import LabelingTool
from connector.demo.pictures import result, scenes
from connector.demo.server import Running, label_studio
from connector.errors import Reject
from connector.model import Item
from connector.store.label_store import ANNOTATION, IDENTITY, TASK, Store
from connector.sync import rounds as sync
from connector.sync.items import Listed
from tests.conftest import Line, new_line
from tests.live.test_line import put_pictures, store_of
from tests.servers import same_to_all
from tests.unit.sources import Given, synced

pytestmark = pytest.mark.live

MANY = 6_000


def kill_when(line: Line, begun: object, *words: str) -> None:
    """Start a command and kill it, as a power failure would, once `begun` says that it is in the middle."""
    process = line.start(*words)
    deadline = time.monotonic() + 300
    assert callable(begun)
    while not begun():
        assert process.poll() is None, f"it ended before it could be killed: {process.communicate()}"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_killed_push_lets_others_in_and_two_at_once_double_nothing(line: Line) -> None:
    rows = "".join(f"key-{n:06},s3://raw/{n}.png\n" for n in range(MANY))
    (line.folder / "manifest.csv").write_text("key,image\n" + rows)
    words, store = ("push", "--manifest", "manifest.csv"), store_of(line)
    kill_when(line, store.holder, *words)
    assert store.holder() is None
    both = [line.start(*words, "--json") for _ in range(2)]
    ended = [process.communicate(timeout=180) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    answers = [json.loads(out) for out, _ in ended]
    assert min(one["new"] for one in answers) == 0
    assert max(one["known"] for one in answers) == MANY
    assert line.tool.count_tasks() == len(line.tool.known_keys()) == MANY
    with store.lease():
        store.take()
        assert line.ask("status", "--no-bucket")["writing"] == str(store.holder())
    assert line.ask("status", "--no-bucket")["writing"] is None


def test_a_push_that_is_killed_and_run_again_is_as_if_undisturbed(line: Line) -> None:
    rows = "".join(f"key-{n:06},s3://raw/{n}.png\n" for n in range(MANY))
    (line.folder / "manifest.csv").write_text("key,image\n" + rows)
    for _ in range(2):
        before = line.tool.count_tasks()
        kill_when(
            line, lambda before=before: line.tool.count_tasks() > before, "push", "--manifest", "manifest.csv"
        )
        assert before < line.tool.count_tasks() < MANY
    pushed = line.ask("push", "--manifest", "manifest.csv")
    assert 0 < pushed["new"] < MANY
    assert pushed["new"] + pushed["known"] == MANY
    assert line.tool.count_tasks() == MANY
    assert sorted(line.tool.known_keys()) == [f"key-{n:06}" for n in range(MANY)]


def test_a_pull_that_is_killed_and_run_again_is_as_if_undisturbed(line: Line) -> None:
    items = (Item(key=f"k{n}", data={"image": f"s3://raw/{n}.png"}) for n in range(3500))
    list(line.tool.add_items(items))
    for task in list(line.tool.known_keys().values())[::700]:
        line.answer(0, task, result("field", [], "a"))
    log = line.folder / "labels" / "_delta_log"
    for commits in (1, 2):
        kill_when(line, lambda commits=commits: len(list(log.glob("*.json"))) >= commits, "pull")
        assert len(store_of(line).current(TASK)) < 3500
    line.ask("pull")

    undisturbed = Store(str(line.folder / "undisturbed"))
    sync.pull(line.tool, undisturbed)
    for record in (TASK, ANNOTATION):
        found, clean = (
            store.current(record).drop("pull", "pulled_at") for store in (store_of(line), undisturbed)
        )
        assert found.equals(clean)
    rows = store_of(line).rows().filter(pl.col("record") != "cursor").collect()
    assert not rows.select(IDENTITY).is_duplicated().any()


@pytest.fixture(scope="module")
def fragile() -> Iterator[Running]:
    """A server of its own, to be stopped and started."""
    with label_studio() as running:
        yield running


def test_a_server_that_is_killed_in_the_middle_loses_and_doubles_nothing(
    fragile: Running, tmp_path: Path
) -> None:
    line = new_line(fragile, tmp_path)
    rows = "".join(f"key-{n:06},s3://raw/{n}.png\n" for n in range(MANY))
    (tmp_path / "manifest.csv").write_text("key,image\n" + rows)
    process = line.start("push", "--manifest", "manifest.csv")
    while not line.tool.count_tasks():
        assert process.poll() is None, process.communicate()
    fragile.kill()
    assert process.wait(timeout=200) == 6, process.communicate()
    fragile.start()
    line.ask("push", "--manifest", "manifest.csv")
    assert sorted(line.tool.known_keys()) == [f"key-{n:06}" for n in range(MANY)]
    assert line.tool.count_tasks() == MANY


def elsewhere(line: Line, url: str) -> Line:
    config = (line.folder / "connector.toml").read_text()
    (line.folder / "connector.toml").write_text(config.replace(line.server.url, url))
    return dataclasses.replace(line, environment={"LABEL_STUDIO_API_KEY": "a" * 40})


def test_a_web_page_instead_of_an_answer_is_a_wrong_address(line: Line) -> None:
    with same_to_all(200, "text/html", b"<!DOCTYPE html><title>Welcome</title>") as url:
        for command in (("push",), ("pull",), ("status",), ("ontology", "show")):
            code, out, err = elsewhere(line, url).run(*command)
            assert (code, out) == (2, "")
            assert "a web page" in err
            assert "tool.url" in err
            elsewhere(line, line.server.url)
            (line.folder / "connector.toml").write_text(
                (line.folder / "connector.toml").read_text().replace(url, line.server.url)
            )
    assert not (line.folder / "labels").exists()


def test_a_server_that_is_unwell_is_asked_again_and_then_named(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    from connector.io.retry import patient

    monkeypatch.setattr(patient, "sleep", lambda _: None)
    with same_to_all(500, "application/json", b'{"detail": "out of order"}') as url:
        code, _, err = elsewhere(line, url).run("pull")
    assert code == 6
    assert "answered 500: out of order" in err
    assert not (line.folder / "labels").exists()


@pytest.mark.parametrize("body", [b"", b'{"id": 7, "label_con'])
def test_an_answer_that_broke_off_is_asked_for_again_and_then_named(
    line: Line, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    from connector.io.retry import patient

    monkeypatch.setattr(patient, "sleep", lambda _: None)
    with same_to_all(200, "application/json", body) as url:
        code, _, err = elsewhere(line, url).run("pull")
    assert code == 6
    assert "broke off" in err
    assert not (line.folder / "labels").exists()


@pytest.mark.parametrize(
    ("setting", "instead", "code", "said"),
    [
        ("project = ", "project = 999999", 2, "has no project 999999"),
        ("overlap = ", "overlap = 0", 2, "tool.overlap"),
        ("[roles]", '[roles]\ntoken = "abc"', 2, "looks like a secret"),
        ("[raw]", '[raw]\nurl = "nowhere://x"', 2, "nowhere"),
    ],
)
def test_a_configuration_that_is_wrong_is_named(
    line: Line, setting: str, instead: str, code: int, said: str
) -> None:
    path = line.folder / "connector.toml"
    lines = [text.strip() for text in path.read_text().splitlines()]
    if "[raw]" in instead:
        lines = [text for text in lines if "project-" not in text]
    path.write_text("\n".join(instead if text.startswith(setting) else text for text in lines))
    found, _, err = line.run("push")
    assert found == code, err
    assert said in err
    assert "next:" in err
    assert line.tool.count_tasks() == 0


def test_a_wrong_token_is_told_from_other_troubles(line: Line) -> None:
    put_pictures(line, 1)
    stranger = dataclasses.replace(line, environment={"LABEL_STUDIO_API_KEY": "0" * 40})
    code, _, err = stranger.run("pull")
    assert code == 5
    assert "LABEL_STUDIO_API_KEY" in err
    answer = stranger.ask("doctor", code=5)
    assert [c["name"] for c in answer["checks"] if not c["ok"]] == ["token is accepted"]


def test_rows_without_a_key_and_pictures_that_are_none_are_rejected_and_the_others_taken(line: Line) -> None:
    [first] = put_pictures(line, 1)
    picture = Path(first.removeprefix("file://"))
    rows = "".join(f"{key},{picture.name}\n" for key in ("a", "", "a", "d"))
    (line.folder / "m.csv").write_text(f"key,image\n{rows}e,missing.png\n")
    pushed = line.ask("push", "--manifest", "m.csv", code=4)
    assert (pushed["found"], pushed["new"], pushed["rejected"]) == (5, 2, 3)
    told = [json.loads(text) for text in (line.folder / "rejects-push.jsonl").read_text().splitlines()]
    assert [(Path(r["where"]).name, r["why"].split(":")[0]) for r in told] == [
        ("m.csv:3", "the row has no key"),
        ("m.csv:4", "the key a stands in an earlier row"),
        ("e", "there is no object file"),
    ]
    assert sorted(line.tool.known_keys()) == ["a", "d"]

    raw = line.server.files / f"project-{line.project}"
    (raw / "good.png").write_bytes(scenes(1, seed=1)[0].png)
    (raw / "text.png").write_bytes(b"this is no picture")
    (raw / "empty.png").write_bytes(b"")
    pushed = line.ask("push", code=4)
    assert (pushed["new"], pushed["rejected"]) == (2, 2)


def test_a_task_that_the_tool_refuses_does_not_take_its_batch_along(line: Line) -> None:
    # The config shows `image`, so Label Studio refuses a task without one; the key is there all the same.
    class Odd(Given):
        def items(self, listed: Sequence[Listed], tool: LabelingTool) -> Iterator[Item]:
            for one in listed:
                data = {"text": "x"} if one.key == "k700" else {"image": "s3://raw/x.png"}
                yield Item(key=one.key, data=data)

    rejects: list[Reject] = []
    source = Odd({f"k{n}": "" for n in range(1500)})
    _, done = synced(line.tool, source, line.folder, rejects=rejects)
    assert (done.new, [reject.where for reject in rejects]) == (1499, ["k700"])
    assert line.tool.count_tasks() == 1499


def test_two_pulls_at_once_do_not_spoil_the_store(line: Line) -> None:
    list(line.tool.add_items(Item(key=f"k{n}", data={"image": "s3://raw/x.png"}) for n in range(2500)))
    processes = [line.start("pull") for _ in range(2)]
    codes = [process.wait(timeout=120) for process in processes]
    assert set(codes) <= {0, 7}
    assert 0 in codes
    line.ask("pull")
    assert len(store_of(line).current(TASK)) == 2500
