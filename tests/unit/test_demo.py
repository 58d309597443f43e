"""The demo's pictures and people: the same seed is the same show, and each habit is what its name says."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from connector.demo.people import PEOPLE, SMALL_PERCENT, Person, answer, assign, nearest, true_skill
from connector.demo.pictures import HEIGHT, LABELS, SCENES, WIDTH, Box, Scene, scenes, truth_result

MANY = scenes(120, seed=3)
BY_NAME = {person.name: person for person in PEOPLE}
CAREFUL = BY_NAME["ann"]


def test_the_same_seed_draws_the_same_pictures_byte_for_byte_and_another_seed_others() -> None:
    assert scenes(4, seed=3) == MANY[:4]  # also however many are drawn
    other = scenes(4, seed=4)
    assert all(here.png != there.png for here, there in zip(MANY, other, strict=False))
    assert len({scene.png for scene in MANY}) == len(MANY)


def test_every_object_lies_inside_its_picture_and_has_a_name_that_is_asked_for() -> None:
    for scene in MANY:
        assert Image.open(io.BytesIO(scene.png)).size == (WIDTH, HEIGHT)
        assert scene.scene in SCENES
        assert scene.boxes
        for box in scene.boxes:
            assert box.label in LABELS
            assert box.x >= 0
            assert box.y >= 0
            assert min(box.width, box.height) > 0
            assert max(box.x + box.width, box.y + box.height) <= 100


def test_cars_and_vans_stand_where_the_truth_says() -> None:
    # Nothing but their wheels is so dark, and of far ones little is left.
    for scene in (scene for scene in MANY if not scene.ambiguous):
        dark = np.asarray(Image.open(io.BytesIO(scene.png)).convert("RGB")).max(axis=2) < 56
        for box in scene.boxes:
            left, right = (round((box.x + share * box.width) * WIDTH / 100) for share in (0, 1))
            top, foot = (round((box.y + share * box.height) * HEIGHT / 100) for share in (0.5, 1))
            if box.label in ("car", "van") and box.width > SMALL_PERCENT:
                for half in (slice(left, (left + right) // 2), slice((left + right) // 2, right)):
                    assert dark[top:foot, half].any()
            dark[top : foot + 1, left : right + 1] = False
        assert not dark.any()


def test_the_truth_as_an_answer_has_one_scene_and_every_box() -> None:
    scene = MANY[0]
    first, *boxes = truth_result(scene)
    assert first["value"] == {"choices": [scene.scene]}
    assert [box["value"]["rectanglelabels"] for box in boxes] == [[box.label] for box in scene.boxes]
    assert [box["value"]["x"] for box in boxes] == [box.x for box in scene.boxes]
    assert len({region["id"] for region in (first, *boxes)}) == 1 + len(boxes)


@pytest.mark.parametrize("person", PEOPLE, ids=lambda person: person.habit)
def test_people_answer_the_same_again_other_with_another_seed_and_inside_the_picture(person: Person) -> None:
    said = [answer(person, scene, nth, seed=5) for nth, scene in enumerate(MANY)]
    assert said == [answer(person, scene, nth, seed=5) for nth, scene in enumerate(MANY)]
    assert said != [answer(person, scene, nth, seed=6) for nth, scene in enumerate(MANY)]
    assert said != [answer(replace(person, name="x"), scene, nth, seed=5) for nth, scene in enumerate(MANY)]
    for scene, drawn, seconds in said:
        assert scene in SCENES
        assert seconds > 0
        for box in drawn:
            assert box.label in LABELS
            assert min(box.x, box.y) >= 0
            assert min(box.width, box.height) > 0
            assert max(box.x + box.width, box.y + box.height) <= 100.001


Counted = Callable[[Scene, list[Box]], tuple[int, int]]


def found(scene: Scene, drawn: list[Box]) -> dict[int, Box]:
    by_object = {nearest(box, scene.boxes): box for box in drawn}
    return {at: box for at, box in by_object.items() if at is not None}


def missed(small: bool) -> Counted:
    def count(scene: Scene, drawn: list[Box]) -> tuple[int, int]:
        asked = [at for at, box in enumerate(scene.boxes) if (box.width < SMALL_PERCENT) == small]
        return len(set(asked) - set(found(scene, drawn))), len(asked)

    return count


def swapped(scene: Scene, drawn: list[Box]) -> tuple[int, int]:
    pairs = [(scene.boxes[at].label, box.label) for at, box in found(scene, drawn).items()]
    return sum({a, b} == {"car", "van"} for a, b in pairs), sum(a in ("car", "van") for a, _ in pairs)


def invented(scene: Scene, drawn: list[Box]) -> tuple[int, int]:
    return sum(nearest(box, scene.boxes) is None for box in drawn), 1


def rate(name: str, count: Counted, pictures: range = range(len(MANY)), rounds: int = 8) -> float:
    """How often somebody does it, over clear pictures seen again and again."""
    pairs = [
        count(MANY[nth], answer(BY_NAME[name], MANY[nth], nth, seed)[1])
        for seed in range(rounds)
        for nth in pictures
        if not MANY[nth].ambiguous
    ]
    return sum(k for k, _ in pairs) / sum(n for _, n in pairs)


def test_each_habit_does_what_its_name_says() -> None:
    small, large = missed(small=True), missed(small=False)
    assert rate("dan", small) == pytest.approx(0.75, abs=0.08)  # misses small objects
    assert rate("dan", large) < 0.05
    assert rate("cleo", swapped) == pytest.approx(0.55, abs=0.08)  # confuses car and van
    assert max(rate("dan", swapped), rate("ann", swapped)) < 0.1
    for habit in (small, large, invented):  # hasty
        assert rate("ben", habit) > 3 * rate("ann", habit)
    assert max(rate("ann", habit) for habit in (small, large, swapped, invented)) < 0.08  # careful
    early, late = range(20), range(20, len(MANY))
    assert rate("eve", large, late) > 3 * max(rate("eve", large, early), 0.01)  # drifts after a while
    assert rate("ann", large, late) < 0.05


def test_the_hasty_are_fast_and_what_is_ambiguous_takes_longer() -> None:
    def seconds(name: str, ambiguous: bool) -> float:
        took = [answer(BY_NAME[name], scene, 0, 1)[2] for scene in MANY if scene.ambiguous == ambiguous]
        return sum(took) / len(took)

    assert seconds("ben", False) < 0.5 * seconds("ann", False)
    assert seconds("ann", True) > 1.3 * seconds("ann", False)


def test_everybody_gets_gold_the_others_as_many_as_overlap_says_and_nobody_a_picture_twice() -> None:
    keys = [scene.key for scene in MANY]
    gold = set(keys[::10])
    turns = assign(keys, gold, overlap=3, seed=1)
    assert turns == assign(keys, gold, overlap=3, seed=1) != assign(keys, gold, overlap=3, seed=2)
    for key in keys:
        assert sum(mine.count(key) for mine in turns.values()) == (5 if key in gold else 3)
    assert all(len(set(mine)) == len(mine) for mine in turns.values())
    counts = [len(mine) for mine in turns.values()]
    assert max(counts) - min(counts) <= 3


def test_who_makes_no_error_has_full_skill() -> None:
    perfect = Person("p", "perfect", slip=0, miss=0, miss_small=0, invent=0, swap=0, loose=0)
    clear = {scene.key: scene for scene in MANY if not scene.ambiguous}
    assert true_skill(perfect, clear, list(clear), seed=1, rounds=1) == (1, 1)
    blind = replace(perfect, miss=0.9, miss_small=0.9, slip=0.9)
    scene, objects = true_skill(blind, clear, list(clear), seed=1, rounds=3)
    assert scene == pytest.approx(0.1, abs=0.07)
    assert objects < 0.05
