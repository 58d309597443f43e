"""Agreement of many labels, and alignment of many boxes, against the programs people use for that today.

The others run in an environment of their own (`requirements/peers.in`), each in a process of its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from connector.quality.agreement import agreement, agreement_of
from connector.quality.consensus import consensus
from connector.quality.counts import counts_of_codes
from connector.quality.kinds import BOX, CHOICE
from connector.quality.table import ANSWERS, REGIONS, Labels
from connector.quality.units import UNITS, units

PEERS = Path(".benchmarks/venv/bin/python")
ANNOTATORS, BOXES = 3, 5
SEED = 7
IMAGES_OF_PEERS = 2_000
"""So many images the slow ones get. Their time grows at least with the images, so it is told per image."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        alpha(Path(folder))
        boxes(Path(folder))
    many_labels()


def apart(work: Callable[..., Any], *words: Any) -> tuple[Any, float]:
    """What some work gives in a process of its own, and that process's peak memory in MB."""
    with get_context("spawn").Pool(1) as pool:
        found = pool.apply(work, words)
        peak = pool.apply(_peak)
    return found, peak


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peer(what: str, folder: Path, *words: str) -> dict[str, float]:
    """Seconds, peak memory and answer of another program."""
    done = subprocess.run(
        [PEERS, Path(__file__).with_name("peers.py"), what, folder, *words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _import_everything() -> None:
    """Before the clock runs; of the peers the same holds."""
    agreement(units(as_labels(drawn_boxes(10), 10)), SEED)


# Agreement.


def choice_labels(labels: int, folder: Path) -> None:
    """Three labels a unit by 500 annotators, eight of ten right, in any order."""
    rng = np.random.default_rng(SEED)
    unit = np.repeat(np.arange(labels // ANNOTATORS), ANNOTATORS)
    truth = rng.integers(0, 10, labels // ANNOTATORS)
    said = np.where(rng.random(len(unit)) < 0.8, truth[unit], rng.integers(0, 10, len(unit)))
    order = rng.permutation(len(unit))
    np.save(folder / "unit.npy", unit[order])
    np.save(folder / "label.npy", said[order])


def our_alpha(folder: Path) -> tuple[float, float]:
    unit, label = np.load(folder / "unit.npy"), np.load(folder / "label.npy")
    _import_everything()
    start = time.perf_counter()
    found = counts_of_codes(unit, np.zeros_like(unit), label, [str(k) for k in range(10)])
    answer = agreement_of(found, CHOICE, SEED).krippendorff_alpha.value
    return time.perf_counter() - start, answer or 0.0


def alpha(folder: Path) -> None:
    for labels in (1_000_000, 10_000_000):
        choice_labels(labels, folder)
        (ours, value), memory = apart(our_alpha, folder)
        theirs = peer("krippendorff", folder)
        assert abs(value - theirs["answer"]) < 1e-9
        print(
            f"alpha of {labels:,} labels, with kappa, AC1 and all intervals: {ours:.2f} s, {memory:.0f} MB; "
            f"krippendorff, alpha alone: {theirs['seconds']:.2f} s, {theirs['memory']:.0f} MB; "
            f"{theirs['seconds'] / ours:.0f} times as fast",
            flush=True,
        )


def our_many_labels() -> float:
    """Seconds for the consensus of 4,000 tasks × 3 answers that use 5,000 labels."""
    rng = np.random.default_rng(SEED)
    truth = rng.integers(0, 5_000, 4_000)
    said = np.where(rng.random((4_000, 3)) < 0.8, truth[:, None], rng.integers(0, 5_000, (4_000, 3)))
    rows = {
        "task": np.repeat(np.arange(4_000), 3).astype(str),
        "annotator": np.tile(np.arange(3), 4_000).astype(str),
        "label": said.ravel().astype(str),
    }
    same = {"control": pl.lit("c"), "kind": pl.lit(CHOICE), "unit": pl.lit("whole"), "role": pl.lit("person")}
    same["gold"] = pl.lit(value=False)
    table = pl.DataFrame(rows).with_columns(annotation=pl.format("{}/{}", "task", "annotator"), **same)
    table = pl.concat([pl.DataFrame(schema=UNITS), table], how="diagonal")
    start = time.perf_counter()
    consensus(table, SEED)
    return time.perf_counter() - start


def many_labels() -> None:
    seconds, memory = apart(our_many_labels)
    print(f"consensus of 4,000 tasks × 3 answers with 5,000 labels: {seconds:.1f} s, {memory:.0f} MB")
    assert seconds < 10


# Boxes.


def drawn_boxes(images: int) -> pl.DataFrame:
    """What three annotators draw on each of some images: image, annotator, label, x, y, width, height."""
    rng = np.random.default_rng(SEED)
    true = np.concatenate([rng.uniform(0, 75, (images, BOXES, 2)), rng.uniform(5, 25, (images, BOXES, 2))], 2)
    labels = rng.integers(0, 4, (images, BOXES))
    image = np.repeat(np.arange(images), ANNOTATORS * BOXES)
    who = np.tile(np.repeat(np.arange(ANNOTATORS), BOXES), images)
    thing = np.tile(np.arange(BOXES), images * ANNOTATORS)
    box = true[image, thing]
    box = np.abs(box + rng.normal(0, 0.03, box.shape) * box[:, [2, 3, 2, 3]])
    label = np.where(rng.random(len(image)) < 0.9, labels[image, thing], rng.integers(0, 4, len(image)))
    seen = rng.random(len(image)) < 0.95
    frame = pl.DataFrame({"image": image, "annotator": who, "label": label}).with_columns(
        **{name: pl.Series(box[:, at]) for at, name in enumerate(("x", "y", "width", "height"))}
    )
    return frame.filter(pl.Series(seen))


def as_labels(drawn: pl.DataFrame, images: int) -> Labels:
    who = pl.DataFrame({"image": np.arange(images)}).join(
        pl.DataFrame({"annotator": np.arange(ANNOTATORS)}), how="cross"
    )
    named = {"task": pl.format("{}", "image"), "annotation": pl.format("{}/{}", "image", "annotator")}
    answers = who.select(
        **named,
        annotator=pl.format("annotator-{}", "annotator"),
        role=pl.lit("person"),
        gold=pl.lit(value=False),
        seconds=pl.lit(None, pl.Float64),
        created_at=pl.lit(None, pl.Datetime("us", "UTC")),
    )
    regions = drawn.select(
        **named,
        control=pl.lit("objects"),
        region=pl.int_range(pl.len()).cast(pl.String),
        parent=pl.lit(None, pl.String),
        place=pl.lit("image"),
        label=pl.format("class-{}", "label"),
        shape=pl.concat_list("x", "y", "width", "height", pl.lit(0.0)),
        picture_width=pl.lit(640.0),
        picture_height=pl.lit(480.0),
    )
    return Labels(
        answers.select(ANSWERS.names()), regions.select(REGIONS.names()).cast(REGIONS), {"objects": BOX}
    )


def our_boxes(images: int) -> tuple[float, float]:
    labels = as_labels(drawn_boxes(images), images)
    _import_everything()
    start = time.perf_counter()
    found = agreement(units(labels), SEED)
    return time.perf_counter() - start, found.krippendorff_alpha.value or 0.0


def boxes(folder: Path) -> None:
    drawn_boxes(IMAGES_OF_PEERS).write_parquet(folder / "boxes.parquet")
    write_coco(drawn_boxes(IMAGES_OF_PEERS), IMAGES_OF_PEERS, folder)
    each = {
        name: peer(name, folder)["seconds"] / IMAGES_OF_PEERS
        for name in ("kalphacv", "iaa-od", "pycocotools")
    }
    before = 0.0
    for images in (100_000, 1_000_000):
        (ours, value), memory = apart(our_boxes, images)
        print(
            f"alignment and alpha of {images:,} images × {ANNOTATORS} annotators × {BOXES} boxes: "
            f"{ours:.1f} s, alpha {value:.3f}, {memory:.0f} MB"
            + (f"; {ours / before:.1f} times the time of a tenth" if before else "")
        )
        before = ours
        for name, seconds in each.items():
            print(
                f"  {name}: {seconds * images / ours:.1f} times as long ({seconds * 1e6:.0f} µs an image)",
                flush=True,
            )


def write_coco(drawn: pl.DataFrame, images: int, folder: Path) -> None:
    """The same boxes in pixels, as COCO has them: all in one file, and one file an annotator."""
    head = [
        {
            "id": n + 1,
            "file_name": f"{n}.png",
            "width": 640,
            "height": 480,
            "rater_list": [f"r{a}" for a in range(ANNOTATORS)],
        }
        for n in range(images)
    ]
    kinds = [{"id": k + 1, "name": f"class-{k}", "supercategory": ""} for k in range(4)]
    made = [
        {
            "id": n + 1,
            "image_id": row["image"] + 1,
            "category_id": row["label"] + 1,
            "bbox": [row["x"] * 6.4, row["y"] * 4.8, row["width"] * 6.4, row["height"] * 4.8],
            "rater": f"r{row['annotator']}",
        }
        for n, row in enumerate(drawn.iter_rows(named=True))
    ]
    (folder / "all.json").write_text(json.dumps({"images": head, "annotations": made, "categories": kinds}))
    for a in range(ANNOTATORS):
        mine = [one for one in made if one["rater"] == f"r{a}"]
        text = json.dumps({"images": head, "annotations": mine, "categories": kinds})
        (folder / f"r{a}.json").write_text(text)
