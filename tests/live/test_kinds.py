"""Every kind of label on a real Label Studio: three people answer a task of each, and the units come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from connector.adapters.label_studio.adapter import LabelStudio, create_project
from connector.adapters.label_studio.client import Server
from connector.adapters.label_studio.ontology import parse_config
from connector.demo.server import Running
from connector.model import Item
from connector.quality.answers import ABSENT
from connector.quality.kinds import DRAWN
from connector.quality.units import units
from connector.store.label_store import Store
from connector.store.labels import read_store
from connector.sync import rounds as sync
from tests.configs import CONFIGS, MORE
from tests.results import annotate

pytestmark = pytest.mark.live

THINGS = 3


@pytest.mark.parametrize(("name", "source"), {**CONFIGS, **MORE}.items(), ids=[*CONFIGS, *MORE])
def test_what_three_people_say_of_a_task_comes_back_as_units(
    label_studio: Running, tmp_path: Path, name: str, source: str
) -> None:
    ontology = parse_config(source)
    owner = Server(label_studio.url, label_studio.owner.token)
    project = create_project(owner, f"Kind {name}", source, overlap=3)
    tool = LabelStudio(label_studio.url, label_studio.owner.token, project)
    assert tool.read_ontology() == ontology

    data, results = annotate(ontology, seed=1, annotators=3, things=THINGS, noise=0)
    results[2] = without_the_first(results[2])  # the third overlooks something
    [task] = tool.add_items([Item(key="k", data=data)])
    for user, result in zip(label_studio.annotators, results, strict=False):
        Server(label_studio.url, user.token).post(f"/api/tasks/{task.id}/annotations/", {"result": result})

    store = Store(str(tmp_path / "labels"))
    sync.pull(tool, store)
    held = {one.annotator: json.loads(one.result) for one in tool.read_task(task.id).annotations}
    for user, result in zip(label_studio.annotators, results, strict=False):
        assert held[user.email] == result, "what we write is kept as it is"
    loaded = read_store(store, {})
    assert loaded.rejects == []
    assert len(loaded.labels.answers) == 3
    table = units(loaded.labels)
    for (control,), part in table.group_by("control"):
        units_found = part.partition_by("unit")
        if loaded.labels.controls[str(control)] in DRAWN:
            assert len(units_found) == THINGS
            assert part["similarity"].drop_nulls().to_list() == pytest.approx(
                [1] * len(part.drop_nulls("similarity"))
            )
            absent = part.filter(label=ABSENT)["annotator"].to_list()
            assert absent == [label_studio.annotators[2].email]
        for one in units_found:
            assert one.filter(pl.col("label") != ABSENT)["label"].n_unique() == 1


def without_the_first(result: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is left when the first thing is overlooked, with all that is about it and all links to it."""
    first = result[0].get("id")
    ends = ("id", "from_id", "to_id")
    return [region for region in result if all(region.get(end) != first for end in ends)]
