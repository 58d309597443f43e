"""Simulated annotators: five habits, each labeling through the API with an account of its own.

Only the people are simulated. What each answers depends on the seed, the person and the picture alone, and
who gets which picture is drawn beforehand, so two runs say the same; the threads decide only when.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from connector.adapters.label_studio.client import Server
from connector.demo.pictures import LABELS, SCENES, Box, Scene, result
from connector.demo.server import User

SMALL_PERCENT = 6.5
"""An object narrower than this is small."""


@dataclass(frozen=True, slots=True)
class Person:
    """How somebody labels. All rates are probabilities.

    Attributes:
        slip: another scene than the right one; another label than the right one.
        miss, miss_small: overlook an object; a small one.
        invent: draw something where nothing is.
        swap: take a car for a van, and a van for a car.
        loose: how far a box's sides are off, as a share of its size.
        tires_after: from that picture on, slips and misses are this many times as frequent: `tired`.
        seconds: the median time for a picture.
    """

    name: str
    habit: str
    slip: float = 0.01
    miss: float = 0.01
    miss_small: float = 0.03
    invent: float = 0.01
    swap: float = 0.02
    loose: float = 0.03
    tires_after: int = 10**9
    tired: float = 1.0
    seconds: float = 20.0


PEOPLE = (
    Person("ann", "careful", seconds=31),
    Person("ben", "hasty", slip=0.12, miss=0.12, miss_small=0.3, invent=0.1, loose=0.09, seconds=9),
    Person("cleo", "confuses car and van", swap=0.55, seconds=22),
    Person("dan", "misses small objects", miss_small=0.75, seconds=18),
    Person("eve", "drifts after a while", tires_after=20, tired=14.0, seconds=21),
)


def assign(
    keys: Sequence[str], everyone: set[str], overlap: int, seed: int, people: Sequence[Person] = PEOPLE
) -> dict[str, list[str]]:
    """Who labels what, in what order.

    Args:
        keys: all pictures.
        everyone: the pictures that all people get: gold.
        overlap: how many people get each of the others.

    Returns:
        The keys of each person, by name.
    """
    rng = np.random.default_rng([seed, 1])
    turns: dict[str, list[str]] = {person.name: [] for person in people}
    order = [keys[at] for at in rng.permutation(len(keys))]
    start = 0
    for key in order:
        n = len(people) if key in everyone else overlap
        for step in range(n):
            turns[people[(start + step) % len(people)].name].append(key)
        start += 0 if key in everyone else 1
    return turns


def answer(person: Person, scene: Scene, nth: int, seed: int) -> tuple[str, list[Box], float]:
    """What a person says of a picture, and after how many seconds.

    Args:
        nth: how many pictures the person has seen before.
    """
    rng = np.random.default_rng([seed, 2, *person.name.encode(), *scene.key.encode()])
    worse = person.tired if nth >= person.tires_after else 1.0
    hard = 0.45 if scene.ambiguous else 0.0
    said = scene.scene
    if rng.random() < min(0.9, person.slip * worse + hard / 2):
        said = str(rng.choice([other for other in SCENES if other != said]))
    drawn = [box for box in (_seen(person, b, worse, hard, rng) for b in scene.boxes) if box]
    if rng.random() < min(0.9, person.invent * worse):
        x, y = rng.uniform(5, 80), rng.uniform(55, 85)
        drawn.append(Box(str(rng.choice(LABELS)), round(float(x), 3), round(float(y), 3), 8.0, 6.0))
    seconds = person.seconds * float(rng.lognormal(0, 0.35)) * (1.8 if scene.ambiguous else 1)
    return said, drawn, round(seconds, 2)


def _seen(person: Person, box: Box, worse: float, hard: float, rng: np.random.Generator) -> Box | None:
    overlook = person.miss_small if box.width < SMALL_PERCENT else person.miss
    missed = rng.random() < min(0.9, overlook * worse)
    label = box.label
    if label in ("car", "van") and rng.random() < max(person.swap, hard):
        label = "van" if label == "car" else "car"
    elif rng.random() < min(0.9, person.slip * worse):
        label = str(rng.choice([other for other in LABELS if other != label]))
    left, top, right, bottom = rng.normal(0, person.loose, 4)
    x = round(max(0.0, box.x + left * box.width), 3)
    y = round(max(0.0, box.y + top * box.height), 3)
    placed = replace(
        box,
        label=label,
        x=x,
        y=y,
        width=round(min(100 - x, box.width * (1 + abs(right))), 3),
        height=round(min(100 - y, box.height * (1 + abs(bottom))), 3),
    )
    return None if missed else placed


def label(
    url: str,
    users: Mapping[str, User],
    task_ids: Mapping[str, str],
    pictures: Mapping[str, Scene],
    turns: Mapping[str, Sequence[str]],
    seed: int,
) -> int:
    """Let everybody label, all at once, each in an own name; returns how many answers were given.

    Args:
        users: the account of each person, by name.
        task_ids: the task of each picture, by its key.
        pictures: by key.
        turns: from `assign`.
    """

    def work(person: Person) -> int:
        server = Server(url, users[person.name].pat)
        for nth, key in enumerate(turns[person.name]):
            scene, drawn, seconds = answer(person, pictures[key], nth, seed)
            body: dict[str, Any] = {"result": result(scene, drawn, person.name), "lead_time": seconds}
            server.post(f"/api/tasks/{task_ids[key]}/annotations/", body)
        return len(turns[person.name])

    with ThreadPoolExecutor(len(PEOPLE)) as threads:
        return sum(threads.map(work, PEOPLE))


def true_skill(
    person: Person, pictures: Mapping[str, Scene], turns: Sequence[str], seed: int, rounds: int = 40
) -> tuple[float, float]:
    """What a person's golden scores would be if all their pictures were gold, and were labeled many times.

    Returns:
        The share of right scenes; the share of right objects: right / (right + wrong label + missed +
        invented). Nothing of the quality room is used: who drew what for which object is known here.
    """
    right_scene = right = objects = 0
    for again in range(rounds):
        for nth, key in enumerate(turns):
            truth = pictures[key]
            scene, drawn, _ = answer(person, truth, nth, seed + 1 + again)
            right_scene += scene == truth.scene
            found = {nearest(box, truth.boxes): box for box in drawn}
            right += sum(box.label == truth.boxes[at].label for at, box in found.items() if at is not None)
            objects += len(truth.boxes) + (None in found)
    return right_scene / (rounds * len(turns)), right / objects


def nearest(box: Box, truth: Sequence[Box]) -> int | None:
    """Which object a box was drawn for; None for an invented one."""
    for at, real in enumerate(truth):
        inside_x = abs(box.x + box.width / 2 - real.x - real.width / 2) < real.width / 2
        inside_y = abs(box.y + box.height / 2 - real.y - real.height / 2) < real.height / 2
        if inside_x and inside_y:
            return at
    return None
