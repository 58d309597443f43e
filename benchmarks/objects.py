"""Buckets against boto3 with s3transfer, and against fsspec's s3fs, on one S3 server (moto's).

Of each kind of work every contender does one round in turn, and who begins changes from round to round. The
server is a Python program and most of the time is its own: by the clock all are near each other. So the
contenders' own processor time is told, too. Each is used as its pages say, with as many requests at once.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.objects_peers import AT_ONCE, LARGE_BYTES, LISTED, PEERS, WORKS, Place, measured
from benchmarks.quality import PEERS as PYTHON
from connector.demo.server import S3, s3_server
from connector.io.objects import Objects

ROUNDS = 5

Round = Mapping[str, tuple[float, float]]


def main() -> None:
    with s3_server() as server, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "large").write_bytes(bytes(range(256)) * (LARGE_BYTES // 256))
        bucket = Objects(server.url, server.options)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda n: bucket.write(f"listed/{n % 100:02}/{n:06}", b"x"), range(LISTED)))
        for work in WORKS:
            show(work, [one_round(work, server, folder, n) for n in range(ROUNDS)])


def one_round(work: str, server: S3, folder: str, nth: int) -> Round:
    place = Place(server.endpoint, server.bucket, server.access_key, server.secret_key, folder, "")
    names = ["connector", *PEERS]
    return {
        name: taken(name, work, server, replace(place, name=f"{name}-{nth}"))
        for name in names[nth % len(names) :] + names[: nth % len(names)]
    }


def taken(name: str, work: str, server: S3, place: Place) -> tuple[float, float]:
    if name == "connector":
        return measured(Ours(Objects(server.url, server.options), place), work)
    done = subprocess.run(
        [PYTHON, Path(__file__).with_name("objects_peers.py"), name, work],
        input=json.dumps(asdict(place)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    clock, own = json.loads(done.stdout)
    return clock, own


def show(work: str, rounds: list[Round]) -> None:
    ours = statistics.median(one["connector"][0] for one in rounds)
    print(f"{work}: {ours:.2f} s", flush=True)
    for peer in PEERS:
        clock, own = (
            sorted(one[peer][which] / one["connector"][which] for one in rounds) for which in (0, 1)
        )
        print(
            f"  {statistics.median(clock):.2f} times {peer} (rounds: {clock[0]:.2f} to {clock[-1]:.2f}); "
            f"its own processor time {statistics.median(own):.1f} times ours",
            flush=True,
        )


class Ours:
    """As the connector uses a bucket."""

    def __init__(self, bucket: Objects, place: Place) -> None:
        self.bucket, self.place = bucket, place

    def list(self, below: str) -> int:
        return sum(1 for _ in self.bucket.list(below))

    def put_small(self) -> int:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return len(list(pool.map(self.bucket.write, *zip(*self.place.small.items(), strict=True))))

    def get_small(self) -> int:
        listed = self.bucket.list(f"{self.place.name}/small")
        return sum(len(data or b"") for _, data in self.bucket.contents(listed))

    def put_large(self) -> int:
        return len([self.bucket.write(path, self.place.file) for path in self.place.large])

    def get_large(self) -> int:
        size = 0
        for path in self.place.large:
            with self.bucket.open(path) as file, self.place.copy.open("wb") as copy:
                shutil.copyfileobj(file, copy, 2**20)
                size += copy.tell()
        return size
