"""Where a run computes: workers of this machine, or a cluster that is already running.

Local workers are forked from a process that has loaded torch and never used it, or spawned; never forked from the
driver, where a used torch would hang them. They listen on the loopback interface only, and to this run only. The
settings below were each found by a failure: a nanny that gives up on a worker killed twice in fifteen seconds, a worker
that pauses for ever because its memory is "unmanaged".
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from unet_dask import private
from unet_dask.engine.device import available_cores
from unet_dask.engine.slots import REGION_SLOTS
from unet_dask.errors import ClusterError
from unet_dask.workers.dask_settings import defaults, require_dask
from unet_dask.workers.spawn import script_left_out

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import Client

#: Distributed's settings of a local cluster, and why.
SETTINGS: dict[str, Any] = {
    # A nanny whose worker dies again within this time is closed for good; a kill loop would melt the cluster.
    "distributed.deploy.lost-worker-timeout": "1h",
    # All workers gone, and nobody to start new ones: said within two minutes.
    "distributed.scheduler.no-workers-timeout": "100s",
    "distributed.scheduler.allowed-failures": 3,
    # We manage no data in distributed: nothing to spill, and a pause would last for ever. The plan bounds memory.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 1.0,
    # The statistical profile keeps a call tree per second: 20-70 kB a second of memory, until a thousand are kept.
    "distributed.worker.profile.enabled": False,
    # Each connection keeps its last messages for developers, a thousand by default. Those to workers hold tasks, 24 kB
    # each: 24 MB a worker in the scheduler.
    "distributed.admin.low-level-log-length": 10,
    "distributed.comm.retry.count": 3,
    "distributed.comm.timeouts.connect": "30s",
}

#: On the loopback interface a refused connection is final: it is a worker that died with results not yet fetched.
#: With the patience that a network needs, the driver would wait for it for two minutes.
_LOOPBACK = {"distributed.comm.retry.count": 0, "distributed.comm.timeouts.connect": "10s"}


#: A terminal sends Ctrl-C to the workers too, and each would print a traceback. They end with the driver. And they load
#: torch while the driver still asks and plans: it takes a second. A run may be over before that, such as one that only
#: had pyramids left, and then modules are imported into an interpreter that shuts down, which fails with a traceback on
#: the user's terminal. What hinders it otherwise is met and told by the first task. What asyncio and tornado log of
#: connections that end is of no use to her either.
_PRELOAD = """
import contextlib, importlib, logging, signal, threading

def load():
    with contextlib.suppress(BaseException):
        importlib.import_module("unet_dask.engine.backend")

signal.signal(signal.SIGINT, signal.SIG_IGN)
logging.disable(logging.ERROR)
threading.Thread(target=load, daemon=True).start()
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A client and what is known of its workers.

    Attributes
    ----------
    client : connected; or what stands for one where this process does all the work
    workers : number of worker processes
    threads : of each worker's network
    local : whether the workers are ours and see this machine's files
    """

    client: Client
    workers: int
    threads: int
    local: bool


def default_workers(device: str) -> int:
    """Return one worker per GPU, else one per two cores."""
    if device == "cuda":
        import torch

        return max(torch.cuda.device_count(), 1)
    return max(available_cores() // 2, 1)


def machine_memory() -> int:
    """Return the bytes of this machine's memory, or of the control group that the process lives in."""
    limits = [psutil.virtual_memory().total]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:  # noqa: PTH123
            limits.append(int(file.read()))
    return min(limits)


@contextmanager
def local_cluster(*, workers: int, threads: int, limit: int, device: str) -> Iterator[Cluster]:
    """Start workers on this machine, and stop them in the end.

    Parameters
    ----------
    workers : processes
    threads : of each worker's network
    limit : bytes that one worker may use; a worker beyond it is restarted
    device : with "cuda", each worker sees one GPU
    """
    require_dask()
    import dask
    from distributed import Client, Nanny, SpecCluster

    from unet_dask.workers import door

    key = door.new_key()
    environment = worker_environment(threads)
    spec = {
        index: {
            "cls": Nanny,
            "options": {
                "nthreads": REGION_SLOTS,
                "memory_limit": limit,
                "host": "127.0.0.1",
                "security": key,
                "worker_class": door.SilentWorker,
                "silence_logs": logging.CRITICAL,
                "preload": [_PRELOAD],
                "env": environment | _one_gpu(index, device),
            },
        }
        for index in range(workers)
    }
    scheduler = {
        "cls": door.SilentScheduler,
        "options": {
            "host": "127.0.0.1",
            "port": 0,
            "protocol": "tls://",
            "security": key,
            "dashboard": False,
        },
    }
    with (
        _scratch() as scratch,
        _start_method(environment, device) as method,
        dask.config.set(_local_settings(environment, scratch) | method),
        quiet(),
        script_left_out(),
        _start_told(),
        SpecCluster(
            workers=spec, scheduler=scheduler, security=key, silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield Cluster(client, workers, threads, local=True)


@contextmanager
def _start_told() -> Iterator[None]:
    """Say in a line what keeps workers from being started, such as a disk that has no room for their keys.

    Raises
    ------
    ClusterError
        If they cannot be started.
    """
    try:
        yield
    except RuntimeError as error:
        what, _, reason = str(error).partition(": ")
        if what != "Cluster failed to start":
            raise
        reason = " ".join(reason.split()).rstrip(".") or type(error.__cause__).__name__
        raise ClusterError(
            f"Workers cannot be started on this machine: {reason}. Mend the cause (room in the folder of temporary "
            "files, limits of the shell), then resume."
        ) from error


@contextmanager
def _start_method(environment: dict[str, str], device: str) -> Iterator[dict[str, str]]:
    """Yield distributed's setting of how workers are started.

    A card is shown to a worker, and torch told how to use it, before torch is loaded: such workers are spawned.
    """
    name = "distributed.worker.multiprocessing-method"
    if sys.platform != "linux" or device == "cuda":
        yield {name: "spawn"}
        return
    from unet_dask.workers import forking

    with forking.start_method(environment) as method:
        yield {name: method}


@contextmanager
def _scratch() -> Iterator[Path]:
    """Make a folder for what distributed writes.

    Distributed puts it first among the folders that modules are imported from, and takes one of a known name that
    anybody may have made. Nor may the name be imported from once the folder is gone.
    """
    with private.folder() as folder:
        try:
            yield folder
        finally:
            sys.path[:] = [each for each in sys.path if not each.startswith(str(folder))]


def _local_settings(environment: dict[str, str], scratch: Path) -> dict[str, Any]:
    """Return distributed's settings of a local cluster."""
    from unet_dask.workers import door

    return (
        defaults()
        | SETTINGS
        | _LOOPBACK
        | door.SETTINGS
        | {"temporary-directory": str(scratch)}
        | {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in environment.items()}
    )


def worker_environment(threads: int) -> dict[str, str]:
    """Return the environment of a worker process, which must be set before it starts."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
        # An idle thread of the network's pool sleeps instead of spinning through the serial parts.
        "OMP_WAIT_POLICY": "passive",
        # Keep the heap: by default glibc returns every large feature map to the kernel and faults it in again,
        # a fifth of the CPU time.
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
        # What oneDNN keeps of its kernels lies in the heap's gaps, by default of 1024 of them. The deepest network
        # has a hundred: each convolution for the first strip of a tile, the others, and the last.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    }


def _one_gpu(index: int, device: str) -> dict[str, str]:
    """Show a worker one of the GPUs that this process sees, in turn, and let it grow into the memory of that."""
    if device != "cuda":
        return {}
    import torch

    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = [name for name in seen if name] or [str(each) for each in range(torch.cuda.device_count())]
    return {
        "CUDA_VISIBLE_DEVICES": names[index % len(names)],
        # Tiles of many shapes would leave gaps in pieces of fixed sizes, until the GPU is full of them.
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Keep distributed's own log lines off the user's terminal; we report what matters to her."""
    # Distributed gives many of its loggers a level of their own, which that of their parent does not change.
    theirs = [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    loggers = [logging.getLogger(name) for name in (*theirs, "tornado.application", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
