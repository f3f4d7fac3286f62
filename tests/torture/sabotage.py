"""Clusters with a saboteur in every worker, and a hunter outside."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil
from distributed.diagnostics.plugin import WorkerPlugin

from tests.killing import is_worker
from tests.torture import saboteur
from unet_dask.workers import cluster as clusters

if TYPE_CHECKING:
    import random
    from collections import Counter
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from distributed import Client

    from tests.torture.bench import Bench


class Plugin(saboteur.Saboteur, WorkerPlugin):  # type: ignore[misc] # distributed has no types
    """The saboteur as distributed knows it."""


@contextmanager
def planted(client: Client, tickets: Path, **more: Any) -> Iterator[None]:
    """Have a saboteur in every worker, those that start later too, until the block is left."""
    saboteur.order(tickets, [])
    client.register_plugin(Plugin(tickets, **more))
    try:
        yield
    finally:
        client.unregister_worker_plugin("saboteur")


@contextmanager
def sabotaged(
    bench: Bench, tickets: Path, workers: int, *, limit: int = 2 << 30, **more: Any
) -> Iterator[Bench]:
    """Yield a bench on worker processes of its own, which take tickets."""
    with (
        clusters.local_cluster(workers=workers, threads=1, limit=limit, device="cpu") as opened,
        planted(opened.client, tickets, **more),
    ):
        yield replace(bench, client=opened.client)


@contextmanager
def hunting(tickets: Path, draw: random.Random, counts: Counter[str]) -> Iterator[None]:
    """Kill workers while they start, whenever a ticket says so."""
    ended = threading.Event()

    def hunt() -> None:
        known = set(processes())
        while not ended.wait(0.02):
            now = set(processes())
            for new in now - known:
                if saboteur.take(tickets, "then-hunt"):
                    time.sleep(draw.uniform(0, 2))
                    with suppress(ProcessLookupError):
                        os.kill(new, signal.SIGKILL)
                    counts["killed_while_starting"] += 1
            known |= now

    thread = threading.Thread(target=hunt, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def processes(*, but: Collection[int] = ()) -> list[int]:
    """Return the workers that this process started and that are alive, but for those of others."""
    found = []
    for each in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if each.pid not in but and is_worker(each):
                found.append(each.pid)
    return found
