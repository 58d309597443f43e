"""Runs under the Python of the peers: one of them on what was written for it; prints what that took."""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np


def krippendorff(folder: Path) -> tuple[float, float]:
    from krippendorff import alpha

    unit, label = np.load(folder / "unit.npy"), np.load(folder / "label.npy")
    start = time.perf_counter()
    counted = np.bincount(unit * 10 + label, minlength=10 * (int(unit.max()) + 1)).reshape(-1, 10)
    answer = alpha(value_counts=counted, level_of_measurement="nominal")
    return time.perf_counter() - start, float(answer)


def kalphacv(folder: Path) -> tuple[float, float]:
    from kalphacv import calculate_iaa_from_annotations

    start = time.perf_counter()
    answer = calculate_iaa_from_annotations(
        mode="bbox",
        source_annotation_path=str(folder / "all.json"),
        images_rater_key="rater_list",
        annotations_rater_key="rater",
        iou_thresholds=[0.5],
        silent=True,
    )
    return time.perf_counter() - start, float(answer[0.5])


def iaa_od(folder: Path) -> tuple[float, float]:
    from iaa_od.metrics.alpha import alpha
    from iaa_od.models import GroundTruth

    start = time.perf_counter()
    answer = alpha([GroundTruth.from_file(str(folder / f"r{a}.json"), name=f"r{a}") for a in range(3)])
    return time.perf_counter() - start, float(answer.alpha)


def pycocotools(folder: Path) -> tuple[float, float]:
    """IoU of every two boxes of different annotators, and nothing more."""
    from pycocotools import mask

    boxes: dict[tuple[int, str], list[list[float]]] = {}
    for one in json.loads((folder / "all.json").read_text())["annotations"]:
        boxes.setdefault((one["image_id"], one["rater"]), []).append(one["bbox"])
    arrays = {key: np.array(value) for key, value in boxes.items()}
    images = {image for image, _ in arrays}
    start = time.perf_counter()
    total = 0.0
    for image in images:
        mine = [arrays[image, rater] for rater in ("r0", "r1", "r2") if (image, rater) in arrays]
        for n, one in enumerate(mine):
            for other in mine[:n]:
                total += mask.iou(one, other, [0] * len(other)).sum()
    return time.perf_counter() - start, total


PEERS = {"krippendorff": krippendorff, "kalphacv": kalphacv, "iaa-od": iaa_od, "pycocotools": pycocotools}

if __name__ == "__main__":
    seconds, answer = PEERS[sys.argv[1]](Path(sys.argv[2]))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "answer": answer, "memory": memory}))
