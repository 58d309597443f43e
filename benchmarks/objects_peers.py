"""Runs under the Python of the peers: what one of them takes for one kind of work with a bucket.

`python objects_peers.py boto3|s3fs WORK`, with the place as JSON on stdin; prints seconds as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

AT_ONCE = 16
"""So many requests are on their way, of everybody."""

LISTED = 20_000
SMALL, SMALL_BYTES = 1_000, 10_000
LARGE, LARGE_BYTES = 3, 64 * 2**20


@dataclass(frozen=True)
class Place:
    """A bucket, and a folder on disk with the file `large`. Below `listed/` are many objects."""

    endpoint: str
    bucket: str
    key: str
    secret: str
    folder: str
    name: str

    @property
    def small(self) -> dict[str, bytes]:
        return {f"{self.name}/small/{n:05}": n.to_bytes(4) * (SMALL_BYTES // 4) for n in range(SMALL)}

    @property
    def large(self) -> list[str]:
        return [f"{self.name}/large/{n}" for n in range(LARGE)]

    @property
    def file(self) -> Path:
        return Path(self.folder) / "large"

    @property
    def copy(self) -> Path:
        return Path(self.folder) / f"{self.name}-copy"


class Contender(Protocol):
    """Somebody who works with a bucket; each answers with how many objects or bytes there were."""

    def list(self, below: str) -> int: ...
    def put_small(self) -> int: ...
    def get_small(self) -> int: ...
    def put_large(self) -> int: ...
    def get_large(self) -> int: ...


WORKS: Mapping[str, tuple[Callable[[Contender], int], int]] = {
    f"list {LISTED}": (lambda contender: contender.list("listed/"), LISTED),
    f"put {SMALL} small": (lambda contender: contender.put_small(), SMALL),
    f"get {SMALL} small": (lambda contender: contender.get_small(), SMALL * SMALL_BYTES),
    f"put {LARGE} large": (lambda contender: contender.put_large(), LARGE),
    f"get {LARGE} large": (lambda contender: contender.get_large(), LARGE * LARGE_BYTES),
}
"""Each kind of work, and what it must answer. What is got must have been put before."""


def measured(contender: Contender, work: str) -> tuple[float, float]:
    """The seconds that a kind of work took, by the clock and of this process's own."""
    contender.list("nothing/")  # so that the first connection is not counted
    does, expected = WORKS[work]
    clock, own = time.perf_counter(), time.process_time()
    found = does(contender)
    taken = time.perf_counter() - clock, time.process_time() - own
    if found != expected:
        raise ValueError(f"{work}: {found} instead of {expected}")
    return taken


class Boto:
    """boto3; of large objects it makes parts by s3transfer."""

    def __init__(self, place: Place) -> None:
        import boto3
        from botocore.config import Config

        self.place = place
        self.client = boto3.client(
            "s3",
            endpoint_url=place.endpoint,
            aws_access_key_id=place.key,
            aws_secret_access_key=place.secret,
            region_name="us-east-1",
            config=Config(max_pool_connections=AT_ONCE),
        )

    def list(self, below: str) -> int:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.place.bucket, Prefix=below)
        return sum(1 for page in pages for _ in page.get("Contents", ()))

    def put_small(self) -> int:
        def put(one: tuple[str, bytes]) -> object:
            return self.client.put_object(Bucket=self.place.bucket, Key=one[0], Body=one[1])

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return len(list(pool.map(put, self.place.small.items())))

    def get_small(self) -> int:
        def get(path: str) -> int:
            return len(self.client.get_object(Bucket=self.place.bucket, Key=path)["Body"].read())

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return sum(pool.map(get, self.place.small))

    def put_large(self) -> int:
        for path in self.place.large:
            self.client.upload_file(str(self.place.file), self.place.bucket, path)
        return LARGE

    def get_large(self) -> int:
        size = 0
        for path in self.place.large:
            self.client.download_file(self.place.bucket, path, str(self.place.copy))
            size += self.place.copy.stat().st_size
        return size


class S3fs:
    """fsspec's file system on S3."""

    def __init__(self, place: Place) -> None:
        import s3fs

        self.place = place
        self.files = s3fs.S3FileSystem(
            key=place.key,
            secret=place.secret,
            endpoint_url=place.endpoint,
            client_kwargs={"region_name": "us-east-1"},
            config_kwargs={"max_pool_connections": AT_ONCE},
            use_listings_cache=False,
        )

    def list(self, below: str) -> int:
        return len(self.files.find(f"{self.place.bucket}/{below}", detail=True))

    def put_small(self) -> int:
        small = {f"{self.place.bucket}/{path}": data for path, data in self.place.small.items()}
        self.files.pipe(small, batch_size=AT_ONCE)
        return len(small)

    def get_small(self) -> int:
        paths = [f"{self.place.bucket}/{path}" for path in self.place.small]
        return sum(map(len, self.files.cat(paths, batch_size=AT_ONCE).values()))

    def put_large(self) -> int:
        for path in self.place.large:
            self.files.put_file(str(self.place.file), f"{self.place.bucket}/{path}")
        return LARGE

    def get_large(self) -> int:
        size = 0
        for path in self.place.large:
            self.files.get_file(f"{self.place.bucket}/{path}", str(self.place.copy))
            size += self.place.copy.stat().st_size
        return size


PEERS = {"boto3": Boto, "s3fs": S3fs}

if __name__ == "__main__":
    peer, work = sys.argv[1:]
    print(json.dumps(measured(PEERS[peer](Place(**json.load(sys.stdin))), work)))
