"""What other tools would show: by their own examples, and against their procedures written out plainly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import pytest
import shapely
from scipy.optimize import linear_sum_assignment

from connector.quality import kinds
from connector.quality.interval import Floats
from connector.quality.parity import CVAT, LABEL_STUDIO_ENTERPRISE, LABELBOX, TOOLS, parity
from connector.quality.similarity import from_pixels
from connector.quality.table import ANSWERS, REGIONS, Labels

Said = Mapping[str, Sequence[tuple[str, Sequence[float] | None]]]
"""By annotator: label and shape of each region. The annotator `gold` gives the known answers."""


def labels(kind: str, *tasks: Said) -> Labels:
    rows = [
        (str(n), f"{n}/{who}", who, "gold" if who == "gold" else "person", who == "gold", None, None)
        for n, said in enumerate(tasks)
        for who in said
    ]
    regions = [
        (
            str(n),
            f"{n}/{who}",
            "c",
            str(at),
            None,
            None,
            label,
            shape and list(map(float, shape)),
            640.0,
            480.0,
        )
        for n, said in enumerate(tasks)
        for who, given in said.items()
        for at, (label, shape) in enumerate(given)
    ]
    return Labels(
        pl.DataFrame(rows, schema=ANSWERS, orient="row"),
        pl.DataFrame(regions, schema=REGIONS, orient="row"),
        {"c": kind},
    )


def score(kind: str, tool: str, said: Said, gold: bool = False) -> float | None:
    found = parity(labels(kind, said), tool, gold)
    return found.controls["c"].value


def boxes(rng: np.random.Generator, many: int) -> list[tuple[str, list[float]]]:
    return [
        (str(rng.choice(["car", "van"])), [*rng.uniform(0, 20, 2), *rng.uniform(8, 20, 2), 0.0])
        for _ in range(many)
    ]


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    p, q = (shapely.box(x, y, x + w, y + h) for x, y, w, h, _ in (a, b))
    return float(p.intersection(q).area / p.union(q).area)


def best_of_each(mine: list[tuple[str, list[float]]], theirs: list[tuple[str, list[float]]]) -> float:
    best = [max((iou(a, b) for other, b in theirs if other == label), default=0.0) for label, a in mine]
    return float(np.mean(best)) if best else 0.0


@pytest.mark.parametrize("seed", range(15))
def test_label_studio_takes_the_best_overlap_of_each_box_and_the_lower_direction(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ann, ben = boxes(rng, int(rng.integers(1, 6))), boxes(rng, int(rng.integers(1, 6)))
    expected = min(best_of_each(ann, ben), best_of_each(ben, ann))
    assert score(kinds.BOX, LABEL_STUDIO_ENTERPRISE, {"ann": ann, "ben": ben}) == pytest.approx(expected)


def test_label_studio_does_not_mind_that_one_box_is_matched_twice() -> None:
    near = ("car", [0.0, 0, 10, 10, 0])
    said = {"ann": [near, near], "ben": [near]}
    assert score(kinds.BOX, LABEL_STUDIO_ENTERPRISE, said) == 1
    assert score(kinds.BOX, LABELBOX, said) == 0.5


def test_label_studios_examples() -> None:
    spans = {
        "ann": [("positive", (0, 14))],
        "ben": [("positive", (10, 14))],
        "cleo": [("negative", (10, 14))],
    }
    pairs = parity(labels(kinds.SPAN, spans), LABEL_STUDIO_ENTERPRISE, gold=False).pairs
    assert pairs["score"].to_list() == pytest.approx([4 / 14, 0, 0])
    same = {"ann": [("a", None), ("b", None)], "ben": [("b", None), ("a", None)], "cleo": [("a", None)]}
    assert score(kinds.CHOICE, LABEL_STUDIO_ENTERPRISE, same) == pytest.approx(1 / 3)
    texts = {"ann": [("kitten", None)], "ben": [("sitting", None)]}
    assert score(kinds.TEXT, LABEL_STUDIO_ENTERPRISE, texts) == pytest.approx(1 - 3 / 7)


def test_two_nearly_equal_masks_are_nothing_to_label_studio_and_nearly_all_to_us() -> None:
    one, other = np.zeros((480, 640), bool), np.zeros((480, 640), bool)
    one[100:200, 100:200] = other[100:200, 101:201] = True
    said = {
        who: [("cell", from_pixels(mask).ravel().tolist())] for who, mask in (("ann", one), ("ben", other))
    }
    assert score(kinds.MASK, LABEL_STUDIO_ENTERPRISE, said) == 0
    assert score(kinds.MASK, LABELBOX, said) == pytest.approx(99 / 101)
    said["ben"] = said["ann"]
    assert score(kinds.MASK, LABEL_STUDIO_ENTERPRISE, said) == 1


def greedy(mine: list[tuple[str, list[float]]], theirs: list[tuple[str, list[float]]]) -> float:
    """Labelbox: pairs in the order of their IoU, each region once; what is left over counts 0."""
    scores = []
    for label in {one for one, _ in (*mine, *theirs)}:
        a = [shape for one, shape in mine if one == label]
        b = [shape for one, shape in theirs if one == label]
        order = sorted(((iou(p, q), i, j) for i, p in enumerate(a) for j, q in enumerate(b)), reverse=True)
        done, left, right = [], set(range(len(a))), set(range(len(b)))
        for value, i, j in order:
            if i in left and j in right:
                done.append(value)
                left.remove(i)
                right.remove(j)
        scores.append(np.mean([*done, *[0.0] * (len(left) + len(right))]))
    return float(np.mean(scores))


@pytest.mark.parametrize("seed", range(15))
def test_labelbox_pairs_greedily_class_by_class(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ann, ben = boxes(rng, int(rng.integers(1, 7))), boxes(rng, int(rng.integers(1, 7)))
    found = score(kinds.BOX, LABELBOX, {"ann": ann, "ben": ben})
    assert found == pytest.approx(greedy(ann, ben))


def test_labelbox_widens_points_and_shares_labels() -> None:
    # 70 pixels apart: two circles of radius 70 whose centres lie on each other's edge.
    points = {"ann": [("eye", (50, 50))], "ben": [("eye", (50 + 100 * 70 / 640, 50))]}
    lens = 2 * 70**2 * np.arccos(0.5) - 0.5 * 70 * np.sqrt(3) * 70
    expected = lens / (2 * np.pi * 70**2 - lens)
    assert score(kinds.KEYPOINT, LABELBOX, points) == pytest.approx(expected, abs=0.01)
    choice = {"ann": [("a", None), ("b", None)], "ben": [("b", None)]}
    assert score(kinds.CHOICE, LABELBOX, choice) == 0.5
    assert score(kinds.SPAN, LABELBOX, {"ann": [("x", (0, 10))], "ben": [("x", (5, 20))]}) == 5 / 20


def two_passes(gold: list[tuple[str, list[float]]], mine: list[tuple[str, list[float]]]) -> tuple[int, int]:
    """CVAT: (right, all): regions of one label first, then the rest, each time the best assignment."""

    def match(a: list[int], b: list[int], same: bool) -> list[tuple[int, int]]:
        value: Floats = np.zeros((len(a), len(b)))
        for i, p in enumerate(a):
            for j, q in enumerate(b):
                alike = iou(gold[p][1], mine[q][1]) if not same or gold[p][0] == mine[q][0] else 0.0
                value[i, j] = alike if alike >= 0.4 else 0.0
        rows, columns = linear_sum_assignment(value, maximize=True)
        return [(a[i], b[j]) for i, j in zip(rows, columns, strict=True) if value[i, j] > 0]

    left, right = list(range(len(gold))), list(range(len(mine)))
    first = match(left, right, same=True)
    left = [i for i in left if i not in {p for p, _ in first}]
    right = [j for j in right if j not in {q for _, q in first}]
    second = match(left, right, same=False)
    valid = len(first) + sum(gold[i][0] == mine[j][0] for i, j in second)
    return valid, len(gold) + len(mine) - len(first) - len(second)


@pytest.mark.parametrize("seed", range(15))
def test_cvat_counts_right_over_right_mislabeled_missing_and_extra(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tasks, valid, total = [], 0, 0
    for _ in range(4):
        gold = boxes(rng, int(rng.integers(1, 5)))
        ann = [
            (label if rng.random() < 0.8 else "van", [x + rng.normal(0, 2), y, w, h, 0.0])
            for label, (x, y, w, h, _) in gold
            if rng.random() < 0.8
        ]
        ann += boxes(rng, 1)
        tasks.append({"gold": gold, "ann": ann})
        right, every = two_passes(gold, ann)
        valid, total = valid + right, total + every
    found = parity(labels(kinds.BOX, *tasks), CVAT, gold=True)
    assert found.controls["c"].value == found.annotators["ann"].value == pytest.approx(valid / total)
    assert found.controls["c"].n == total


def test_cvat_takes_the_picture_as_the_scale_of_a_point() -> None:
    # exp(-d^2 / (2 A 0.18^2)) reaches 0.4 at d = 0.18 sqrt(2 A ln 2.5), 135 pixels in a picture of 640 x 480.
    gold = [("x", (0.0, 0.0))]
    for apart, expected in ((134, 1.0), (137, 0.0)):
        said = {"gold": gold, "ann": [("x", (0.0, apart / 4.8))]}
        assert score(kinds.KEYPOINT, CVAT, said, gold=True) == expected


def test_what_a_tool_does_not_publish_is_unknown_and_says_so() -> None:
    said = {"ann": [("3", None)], "ben": [("4", None)]}
    for tool in TOOLS:
        found = parity(labels(kinds.RATING, said), tool, gold=False)
        assert found.controls["c"].value is None
        assert "publishes no" in str(found.controls["c"].why)
    with pytest.raises(ValueError, match="unknown tool"):
        parity(labels(kinds.RATING, said), "excel", gold=False)


def test_two_empty_annotations_agree_in_label_studio_and_are_left_out_by_labelbox() -> None:
    empty = {"ann": [], "ben": []}
    full = {"ann": [("car", [0, 0, 9, 9, 0])], "ben": []}
    found = {tool: parity(labels(kinds.BOX, empty, full), tool, gold=False) for tool in TOOLS[:2]}
    assert found[LABEL_STUDIO_ENTERPRISE].overall.value == 0.5
    assert (found[LABELBOX].overall.value, found[LABELBOX].overall.n) == (0, 1)


def test_scores_are_means_over_tasks_of_means_over_pairs() -> None:
    tasks = [
        {"ann": [("a", None)], "ben": [("a", None)], "cleo": [("b", None)]},
        {"ann": [("a", None)], "ben": [("a", None)]},
    ]
    for tool in TOOLS[:2]:
        found = parity(labels(kinds.CHOICE, *tasks), tool, gold=False)
        assert found.overall.value == pytest.approx((1 / 3 + 1) / 2)
        assert found.annotators["cleo"].value == 0
        assert found.annotators["ann"].value == pytest.approx((0.5 + 1) / 2)
