"""Where the parts of a large job are worked on: in this process, in processes of this machine, or on a Dask
cluster. The results are the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TYPE_CHECKING, TypeVar

from connector.errors import Temporary, UsageError
from connector.io.retry import CLUSTER_SECONDS, WORKERS_SECONDS

if TYPE_CHECKING:
    from distributed import Client, Future

LOCAL, SERIAL, DASK = "local", "serial", "dask://"

P = TypeVar("P")
R = TypeVar("R")


def run(
    engine: str, work: Callable[[P], R], parts: Sequence[P], progress: Callable[[int], None] = lambda _: None
) -> list[R]:
    """What `work` makes of each part, in their order.

    Args:
        engine: `serial`: in this process, one part after the other; `local`: in as many processes as there
            are processors, but a single part in this one; or `dask://host:port`, the address of a Dask
            scheduler.
        work: a function of a module, that depends on nothing but its part.
        progress: told of every part that is done.

    Raises:
        UsageError: if there is no such engine, or it cannot be used here.
        Temporary: if the cluster does not answer, or the processes die.
        ConnectorError: what `work` raises.
    """
    if engine.startswith(DASK):
        done = _on_dask(engine.removeprefix(DASK), work, parts)
    elif engine not in (LOCAL, SERIAL):
        raise UsageError(f"there is no engine {engine!r}", f"use {LOCAL}, {SERIAL} or {DASK}host:port")
    elif engine == LOCAL and len(parts) > 1:
        done = _in_processes(work, parts)
    else:
        done = map(work, parts)
    results = []
    for result in done:
        results.append(result)
        progress(1)
    return results


def _in_processes(work: Callable[[P], R], parts: Sequence[P]) -> Iterator[R]:
    # Not forked: the libraries have threads, and a fork of those may hang.
    processes = min(os.cpu_count() or 1, len(parts))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(work, parts)
        except BrokenProcessPool as error:
            raise Temporary(
                "a process that worked on the labels died, perhaps for want of memory",
                f"end other programs and run it again, or use a cluster: --engine {DASK}host:port",
            ) from error


def _on_dask(address: str, work: Callable[[P], R], parts: Sequence[P]) -> Iterator[R]:
    with _client(address) as client:
        from distributed import KilledWorker

        # A part whose worker died is worked on by another.
        under_way = client.map(work, parts, pure=False)
        try:
            for future in under_way:
                yield _waited_for(future, client, address)
        except KilledWorker as error:
            raise Temporary(
                f"the workers of the Dask cluster {address} die of this job",
                "look at their logs; if they ran out of memory, give them more",
            ) from error
        except ImportError as error:
            raise UsageError(
                f"the workers of the Dask cluster {address} lack something: {error}",
                "install labeling-connector on them, in the same version as here",
            ) from error


def _waited_for(future: Future[R], client: Client, address: str) -> R:
    """The result; a cluster that has lost all its workers is not waited for."""
    while True:
        try:
            return future.result(timeout=WORKERS_SECONDS)
        except TimeoutError as error:
            if future.status == "pending" and not client.nthreads():  # type: ignore[no-untyped-call]
                raise Temporary(
                    f"the Dask cluster {address} has no workers", "start some, then run this again"
                ) from error
            if future.status == "error":
                raise  # the work's own


def _client(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(
            "Dask is not installed", "install it with: pip install 'labeling-connector[dask]'"
        ) from error
    try:
        return Client(  # type: ignore[no-untyped-call]
            f"tcp://{address}", timeout=CLUSTER_SECONDS, set_as_default=False
        )
    except (OSError, ValueError) as error:
        raise Temporary(f"no Dask scheduler answers at {address}: {error}") from error
