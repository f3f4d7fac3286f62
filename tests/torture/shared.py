"""A cluster that several drivers share, whose workers may be suspended or stalled in a write, and come back.

Workers and drivers are forked from a server that has loaded what they need, so that a hundred of them start in the
time of a few. A ticket (:mod:`tests.torture.saboteur`) says what the next write of a chunk suffers.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from tests.torture import saboteur

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.context import ForkServerProcess

    from distributed import Client

#: What a write can suffer: its process stands still, or it waits, before Zarr writes or before a file gets its name.
WRITES = ("suspend", "set", "replace")
#: Seconds of silence after which the scheduler gives a worker up.
SILENCE = 3.0
#: What chunks are written of.
_WRITTEN = ("classes", "probabilities", "instances", "numbers")
#: Seconds that a write may wait for whoever lets it go on.
_LONGEST = 120.0

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["unet_dask.pipeline", "unet_dask.engine.backend", "distributed", __name__])


class Shared:
    """A scheduler of this process, its workers, and where they take their tickets.

    Parameters
    ----------
    client : of the scheduler
    folder : of the tickets
    """

    def __init__(self, client: Client, folder: Path) -> None:
        self.client = client
        self.folder = folder
        self.workers: list[ForkServerProcess] = []
        saboteur.order(folder, [])

    def staff(self, count: int) -> None:
        """Start workers until there are so many, and wait for them; those that were given up are ended."""
        known = {each["id"] for each in self.client.scheduler_info(n_workers=-1)["workers"].values()}
        for each in [one for one in self.workers if str(one.pid) not in known or not one.is_alive()]:
            self.dismiss(each)
        for _ in range(count - len(self.workers)):
            self._start()
        self.client.wait_for_workers(count, timeout=120)

    def _start(self) -> None:
        process = _processes.Process(target=_work, args=(self.client.scheduler.address, str(self.folder)))
        process.start()
        self.workers.append(process)

    @contextmanager
    def manned(self) -> Iterator[None]:
        """Start another worker whenever there is none: on a busy machine those in health are given up, too."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(SILENCE):
                if not self.client.scheduler_info(n_workers=-1)["workers"]:
                    self._start()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def dismiss(self, worker: ForkServerProcess) -> None:
        """End a worker, whatever it is at."""
        worker.kill()
        worker.join()
        self.workers.remove(worker)

    def order(self, *faults: str) -> None:
        """Let the next writes suffer."""
        self._sign("go").unlink(missing_ok=True)
        for sign in self.folder.glob("*-held"):
            sign.unlink()
        saboteur.order(self.folder, list(faults))

    def withdraw(self) -> int:
        """Take back what no write has suffered yet, and return how many those were."""
        tickets = list(self.folder.glob("*.*"))
        for ticket in tickets:
            ticket.unlink(missing_ok=True)
        return len(tickets)

    def held(self) -> list[Path]:
        """Return the writes that stand still; the name of each begins with its process."""
        return sorted(self.folder.glob("*-held"))

    def release(self) -> None:
        """Let all writes and workers go on, and wait until whatever comes late has come."""
        self._sign("go").touch()
        for each in self.workers:
            with suppress(ProcessLookupError):
                os.kill(each.pid or 0, signal.SIGCONT)
        until(lambda: not self._unlanded(), 60)

    def _unlanded(self) -> list[Path]:
        """Return the held writes of living processes that are not over yet."""
        living = {str(each.pid) for each in self.workers if each.is_alive()}
        return [each for each in self.held() if each.name.partition("-")[0] in living]

    def _sign(self, name: str) -> Path:
        return self.folder / name


@contextmanager
def shared(folder: Path) -> Iterator[Shared]:
    """Open a cluster whose scheduler gives up a silent worker soon."""
    import dask
    from distributed import Client, LocalCluster

    settings = {
        "distributed.scheduler.worker-ttl": f"{SILENCE}s",
        "distributed.scheduler.allowed-failures": 20,
        "distributed.comm.timeouts.connect": "20s",
    }
    with (
        dask.config.set(settings),
        mock.patch("distributed.scheduler.heartbeat_interval", return_value=SILENCE / 15),
        LocalCluster(
            n_workers=0,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        opened = Shared(client, folder)
        try:
            yield opened
        finally:
            for each in list(opened.workers):
                opened.dismiss(each)


def drive(shared: Shared, *arguments: str, plant: str = "", **settings: Any) -> ForkServerProcess:
    """Start a run in a process of its own, to be killed: source, sink and model, then settings."""
    process = _processes.Process(
        target=_drive, args=(shared.client.scheduler.address, arguments, plant, settings)
    )
    process.start()
    return process


def until(true: Callable[[], object], seconds: float) -> bool:
    """Wait until something is true; return whether it is."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def no_sessions() -> Any:
    """Plant the bug that this is all about: workers write where results lie, whoever waits for them."""
    return mock.patch("unet_dask.run.execute.replace", lambda sink, **_: sink)


def _drive(address: str, arguments: tuple[str, ...], plant: str, settings: dict[str, Any]) -> None:
    from contextlib import nullcontext

    from distributed import Client

    import unet_dask

    logging.disable(logging.CRITICAL)
    with no_sessions() if plant else nullcontext(), Client(address, set_as_default=False) as client:
        unet_dask.segment_store(*arguments, client=client, **settings)


def _work(address: str, folder: str) -> None:
    from distributed import Worker

    logging.disable(logging.CRITICAL)
    _slow(Path(folder))

    async def run() -> None:
        async with Worker(
            address,
            nthreads=3,
            name=str(os.getpid()),
            host="127.0.0.1",
            dashboard=False,
            memory_limit=0,
            death_timeout=30,
        ) as worker:
            await worker.finished()

    asyncio.run(run())
    until(lambda: not list(Path(folder).glob(f"{os.getpid()}-*-held")), _LONGEST)  # what is late is to come
    os._exit(0)


def _slow(folder: Path) -> None:
    """Have this process ask for a ticket whenever it writes a chunk."""
    from zarr.storage import LocalStore

    real_set, real_replace = LocalStore.set, os.replace

    def hold(fault: str) -> Path:
        sign = folder / f"{os.getpid()}-{time.monotonic_ns()}-held"
        sign.touch()
        if fault == "suspend":
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            until((folder / "go").exists, _LONGEST)
        return sign

    async def set_(self: LocalStore, key: str, *more: Any, **named: Any) -> None:
        fault = _suffers(folder, key, "set")
        sign = await asyncio.to_thread(hold, fault) if fault else None
        try:
            await real_set(self, key, *more, **named)
        finally:
            if sign:
                sign.unlink(missing_ok=True)

    def replace(source: Any, target: Any, **more: Any) -> None:
        fault = _suffers(folder, str(target), "replace", "suspend")
        sign = hold(fault) if fault else None
        try:
            real_replace(source, target, **more)
        finally:
            if sign:
                sign.unlink(missing_ok=True)

    LocalStore.set = set_  # type: ignore[method-assign] # that is the point
    os.replace = replace  # type: ignore[assignment]


def _suffers(folder: Path, path: str, *kinds: str) -> str:
    """Take the next ticket if a chunk is written and it is of these kinds; "" if nothing happens."""
    if "/c/" not in path or not any(f"{name}/" in path for name in _WRITTEN):
        return ""
    following = saboteur.left(folder)[:1]
    fault = saboteur.take(folder, *following) if following and following[0] in (*kinds, "none") else ""
    return "" if fault == "none" else fault
