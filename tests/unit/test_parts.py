"""Parts put together are what one part of all tasks would be, wherever each was worked on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import connector
from connector.adapters.label_studio.ontology import parse_config
from connector.config import StoreSettings
from connector.demo.server import free_port
from connector.errors import BadRecord, Temporary, UsageError
from connector.formats.label_files import read_file
from connector.io import engine
from connector.io.engine import run
from connector.model import Annotation, Ontology, Role, Task
from connector.quality.answers import ABSENT
from connector.store.label_store import Store
from connector.store.labels import Loaded, read_store
from connector.store.parts import Aligned, align, align_store
from tests.results import annotate
from tests.unit.work import die, double, refuse, slow

ROOT = Path(connector.__file__).parents[1]
NOW = datetime(2026, 3, 1, tzinfo=UTC)
PEOPLE = ["ada", "ben", "cleo"]
ROLES = {"cleo": Role.REVIEWER}
CONFIG = """<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="box" toName="image"><Label value="cat"/><Label value="dog"/></RectangleLabels>
  <PolygonLabels name="outline" toName="image"><Label value="cat"/></PolygonLabels>
  <Choices name="mood" toName="image" perRegion="true"><Choice value="calm"/><Choice value="wild"/></Choices>
  <Choices name="sky" toName="image"><Choice value="blue"/><Choice value="grey"/></Choices>
  <Relations><Relation value="near"/></Relations>
</View>"""
ONTOLOGY = parse_config(CONFIG)


def stored(folder: Path, tasks: int, ontology: Ontology = ONTOLOGY) -> Store:
    """A store of many tasks; only the last one has an outline, one answer cannot be read, one is gold."""
    made = []
    for number in range(1, tasks + 1):
        data, results = annotate(ontology, seed=number, annotators=len(PEOPLE), things=2)
        if number < tasks:
            results = [without_outlines(result) for result in results]
        if number == 2:
            results[0] = [{"from_name": "sky", "to_name": "image", "type": "choices", "value": {}}]
        answers = [
            Annotation(
                id=f"{number}-{who}",
                task_id=str(number),
                annotator=who,
                result=json.dumps(result),
                ground_truth=number == 3 and who == "ben",
                seconds=float(number),
                created_at=NOW + timedelta(seconds=number),
                updated_at=NOW + timedelta(seconds=number),
            )
            for who, result in zip(PEOPLE, results, strict=True)
        ]
        task = Task(id=str(number), key=f"s3://raw/{number}.png", data=data, created_at=NOW, updated_at=NOW)
        made.append(task.model_copy(update={"annotations": tuple(answers)}))
    store = Store(str(folder / "labels"), "test")
    for start in range(0, tasks, 7):
        store.append(made[start : start + 7], str(start), NOW, ontology=ontology)
    return store


def without_outlines(result: list[dict[str, Any]]) -> list[dict[str, Any]]:
    gone = {region["id"] for region in result if region.get("from_name") == "outline"}
    ends = ("id", "from_id", "to_id")
    return [region for region in result if not gone & {region.get(end) for end in ends}]


def aligned(store: Store, size: int, gold: Loaded | None = None, where: str = "serial") -> Aligned:
    settings = StoreSettings(url=store.url)
    return align_store(store, settings, ROLES, {"box": 0.4}, None, gold, where, True, size)


def assert_same(one: Aligned, other: Aligned) -> None:
    assert_frame_equal(one.units, other.units)
    assert_frame_equal(one.loaded.labels.answers, other.loaded.labels.answers)
    shapes = ["annotation", "control", "region", "label"]
    assert_frame_equal(
        one.loaded.labels.regions, other.loaded.labels.regions.sort(shapes), check_row_order=False
    )
    assert_frame_equal(one.loaded.tasks, other.loaded.tasks)
    for name in ("source", "rejects", "unmeasured"):
        assert getattr(one.loaded, name) == getattr(other.loaded, name)
    assert one.loaded.labels.controls == other.loaded.labels.controls


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return stored(tmp_path_factory.mktemp("parts"), 40)


@pytest.fixture
def gold(tmp_path: Path) -> Loaded:
    """Gold that names tasks by key and by id, and one that nobody has."""
    box = {"x": 1, "y": 1, "width": 30, "height": 30, "rotation": 0, "rectanglelabels": ["cat"]}
    region = {"id": "a", "from_name": "box", "to_name": "image", "type": "rectanglelabels", "value": box}
    tasks: list[dict[str, Any]] = [
        {"id": name, "data": {}, "annotations": [{"id": 1, "result": [region]}]}
        for name in ("s3://raw/5.png", "17", "nobody's")
    ]
    (tmp_path / "gold.json").write_text(json.dumps(tasks))
    return read_file(tmp_path / "gold.json", True)


def test_one_part_is_what_reading_and_aligning_everything_gives(store: Store) -> None:
    whole = align(read_store(store, ROLES), {"box": 0.4})
    found = aligned(store, 1000)
    assert_frame_equal(found.units, whole.units)
    assert found.loaded.rejects == whole.loaded.rejects
    assert {r.where for r in found.loaded.rejects} == {"annotation 2-ada of task 2"}
    assert found.loaded.labels.controls == dict(sorted(whole.loaded.labels.controls.items()))


@pytest.mark.parametrize("size", [1, 7, 39])
def test_many_parts_are_as_one(store: Store, gold: Loaded, size: int) -> None:
    assert_same(aligned(store, size), aligned(store, 1000))
    assert_same(aligned(store, size, gold), aligned(store, 1000, gold))


def test_processes_of_this_machine_give_the_same_answers(store: Store, gold: Loaded) -> None:
    assert_same(aligned(store, 15, gold, "local"), aligned(store, 1000, gold))


def test_gold_of_another_source_takes_the_place_of_the_stores(store: Store, gold: Loaded) -> None:
    found = aligned(store, 9, gold)
    assert sorted(found.units.filter(role="gold")["task"].unique()) == ["17", "5"]
    assert [r.where for r in found.loaded.rejects] == ["annotation 2-ada of task 2", "gold task nobody's"]


def test_a_control_that_no_annotator_used_is_empty_everywhere(tmp_path: Path) -> None:
    store = stored(tmp_path, 9)
    assert set(aligned(store, 2).units.filter(control="outline")["label"]) == {"cat", ABSENT}
    store.append([], "later", NOW, deleted_tasks=["9"])
    found = aligned(store, 2).units
    assert set(found["control"]) == {"box", "mood", "outline", "sky", "relations"}
    outlines = found.filter(control="outline")
    assert set(outlines["label"]) == {ABSENT}
    assert outlines["annotation"].sort().to_list() == found["annotation"].unique().sort().to_list()
    assert_same(aligned(store, 2), aligned(store, 100))


def test_a_control_under_a_condition_that_no_annotator_used_has_no_units(tmp_path: Path) -> None:
    hidden = '<PolygonLabels name="outline" visibleWhen="choice-selected" whenTagName="sky" '
    store = stored(tmp_path, 9, parse_config(CONFIG.replace('<PolygonLabels name="outline" ', hidden)))
    assert "outline" in set(aligned(store, 2).units["control"])
    store.append([], "later", NOW, deleted_tasks=["9"])
    assert "outline" not in set(aligned(store, 2).units["control"])
    assert_same(aligned(store, 2), aligned(store, 100))


def test_without_what_was_drawn_all_else_is_the_same(store: Store) -> None:
    settings = StoreSettings(url=store.url)
    bare = align_store(
        store, settings, ROLES, {"box": 0.4}, engine="serial", keep_regions=False, tasks_in_part=11
    )
    whole = aligned(store, 11)
    assert len(bare.loaded.labels.regions) == 0 < len(whole.loaded.labels.regions)
    assert_frame_equal(bare.units, whole.units)


def test_questions_whose_names_are_numbered_are_one_part(tmp_path: Path) -> None:
    config = parse_config(
        '<View><Repeater on="$items" indexFlag="{{i}}"><Image name="page_{{i}}" value="$items[{{i}}].page"/>'
        '<RectangleLabels name="box_{{i}}" toName="page_{{i}}"><Label value="a"/></RectangleLabels>'
        "</Repeater></View>"
    )
    store = Store(str(tmp_path / "labels"), "test")
    value = {"x": 1, "y": 1, "width": 30, "height": 30, "rotation": 0, "rectanglelabels": ["a"]}
    tasks: list[Task] = []
    for number in range(4):
        name = f"box_{number % 2}"
        region = {"id": "a", "from_name": name, "to_name": f"page_{number % 2}", "type": "rectanglelabels"}
        answer = Annotation(
            id=str(number),
            task_id=str(number),
            annotator="ada",
            result=json.dumps([{**region, "value": value}]),
        )
        data = {"items": [{"page": "1.png"}, {"page": "2.png"}]}
        tasks.append(Task(id=str(number), key=str(number), data=data, annotations=(answer,)))
    store.append(tasks, "1", NOW, ontology=config)
    assert_same(aligned(store, 1), aligned(store, 100))
    assert set(aligned(store, 1).units["control"]) == {"box_0", "box_1"}


def test_an_empty_store_is_named_and_one_without_tasks_is_empty(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "labels"), "test")
    with pytest.raises(UsageError, match="is empty"):
        aligned(store, 5)
    store.append([], "1", NOW, ontology=ONTOLOGY)
    assert len(aligned(store, 5).units) == 0


# The engine.


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(), max_size=1))
def test_a_single_part_is_worked_on_here(numbers: Sequence[int]) -> None:
    for name in ("local", "serial"):
        assert run(name, lambda n: (n, os.getpid()), numbers) == [(n, os.getpid()) for n in numbers]


def test_several_are_worked_on_in_processes_and_come_in_order() -> None:
    done: list[int] = []
    assert run("local", double, range(50), done.append) == list(range(0, 100, 2))
    assert done == [1] * 50


@pytest.mark.parametrize("parts", [[1], [1, 2]])
def test_what_work_raises_comes_as_it_is(parts: Sequence[int]) -> None:
    with pytest.raises(BadRecord) as caught:
        run("local", refuse, parts)
    assert (caught.value.what, caught.value.hint) == ("1 is refused", "take another")


def test_a_process_that_died_is_told_with_the_next_step() -> None:
    with pytest.raises(Temporary, match=r"died.*\n  next: .*--engine dask"):
        run("local", die, [1, 2, 3])


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("spark", UsageError, "there is no engine 'spark'"),
        ("dask://no port", Temporary, "no Dask scheduler answers at no port"),
        ("dask://127.0.0.1:1", Temporary, "no Dask scheduler answers at 127.0.0.1:1"),
    ],
)
def test_an_engine_that_cannot_be_used_is_named(
    name: str, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CLUSTER_SECONDS", 1.0)
    with pytest.raises(error, match=said):
        run(name, double, [1])


# A real cluster of processes.


@contextmanager
def started(*words: object, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-m", *map(str, words)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, **silent)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass
class Cluster:
    """A scheduler's address, the processes of its workers, and one who watches."""

    address: str
    workers: list[subprocess.Popen[bytes]]
    watching: Any  # Dask's client has no types

    @property
    def engine(self) -> str:
        return f"dask://{self.address}"


@contextmanager
def cluster(size: int, **environment: str) -> Iterator[Cluster]:
    address = f"127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        here = ("--host", "127.0.0.1", "--no-dashboard", "--port", address.rpartition(":")[2])
        stack.enter_context(started("distributed.cli.dask_scheduler", *here, **environment))
        alone = ("--nthreads", 1, "--no-nanny", "--no-dashboard")
        workers = [
            stack.enter_context(started("distributed.cli.dask_worker", f"tcp://{address}", *alone))
            for _ in range(size)
        ]
        watching: Any = stack.enter_context(Client(f"tcp://{address}", timeout=300, set_as_default=False))
        while len(watching.nthreads()) < size:
            time.sleep(0.05)
        yield Cluster(address, workers, watching)


def begun(folder: Path) -> dict[int, int]:
    """Which part each process is at work on."""
    found = (path.name.split("-") for path in folder.glob("*-*"))
    return {int(process): int(part) for part, process in found}


def test_a_cluster_of_which_a_worker_is_killed_gives_the_same_answers(
    store: Store, gold: Loaded, tmp_path: Path
) -> None:
    with cluster(3) as running:
        assert_same(aligned(store, 3, gold, running.engine), aligned(store, 1000, gold))
        victim, killed = running.workers[0], list[int]()

        def kill_one_at_work() -> None:
            while victim.pid not in (at_work := begun(tmp_path)):
                time.sleep(0.01)
            victim.kill()
            killed.append(at_work[victim.pid])
            while len(running.watching.nthreads()) > 2:
                time.sleep(0.01)
            (tmp_path / "go").touch()

        killer = Thread(target=kill_one_at_work)
        killer.start()
        parts = [(str(tmp_path), number) for number in range(9)]
        assert run(running.engine, slow, parts) == list(range(9))
        killer.join()
        # Another worker did the part again that was lost.
        assert len(list(tmp_path.glob(f"{killed[0]}-*"))) == 2
        assert_same(aligned(store, 3, gold, running.engine), aligned(store, 1000, gold))


def test_what_work_raises_or_that_it_kills_its_workers_is_told() -> None:
    with cluster(1, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as running:
        with pytest.raises(BadRecord) as caught:
            run(running.engine, refuse, [1])
        assert (caught.value.what, caught.value.hint) == ("1 is refused", "take another")
        with pytest.raises(Temporary, match="die of this job"):
            run(running.engine, die, [1])


def test_a_cluster_without_workers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "WORKERS_SECONDS", 0.5)
    with cluster(0) as running, pytest.raises(Temporary, match="has no workers"):
        run(running.engine, double, [1])
