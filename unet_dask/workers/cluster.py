"""Where a run computes: workers of this machine, or a cluster that is already running.

Local workers are spawned processes, never forked (a forked torch hangs), listening on the loopback interface
only, and to this run only. The settings below were each found by a failure: a nanny that gives up on a worker
killed twice in fifteen seconds, a worker that pauses for ever because its memory is "unmanaged".
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from unet_dask import private
from unet_dask.engine.device import available_cores
from unet_dask.engine.turns import IN_HAND
from unet_dask.errors import ClusterError, OptionError
from unet_dask.paths import local_path
from unet_dask.workers.foreign import defaults, require_dask
from unet_dask.workers.homes import present
from unet_dask.workers.spawn import script_left_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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

#: Seconds that the first worker may take: of a cluster that is known to start them for work, which a batch system may
#: have to find a machine for; and of any other, which may be such a one to those who know only its address.
_ADAPTIVE, _STATIC = 600.0, 60.0

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
    client : connected
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
                "nthreads": IN_HAND,
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
        dask.config.set(_local_settings(environment, scratch)),
        _quiet(),
        script_left_out(),
        SpecCluster(
            workers=spec, scheduler=scheduler, security=key, silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield Cluster(client, workers, threads, local=True)


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


@contextmanager
def running_cluster(
    *,
    address: str | None = None,
    scheduler_file: str | None = None,
    threads: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Iterator[Cluster]:
    """Connect to a cluster that is already running.

    Parameters
    ----------
    address, scheduler_file : of its scheduler, one of them
    threads : of each worker's network
    say : is told what is waited for

    Raises
    ------
    OptionError
        If the address is none, or the user's configuration of Dask forbids the connection.
    ClusterError
        If nothing answers, or it has no workers.
    """
    require_dask()
    import dask
    from distributed import Client

    where = address or scheduler_file
    with dask.config.set(SETTINGS), _quiet():
        try:
            client = Client(address or _address_in(str(scheduler_file)), set_as_default=False, timeout="10s")
        except (ValueError, TypeError) as error:
            raise OptionError(
                f"{where} is not the address of a scheduler ({error}). Write it like tcp://host:8786."
            ) from error
        except OSError as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ClusterError(
                f"No scheduler answers at {where} ({reason}). Check the address and that it runs."
            ) from error
        except (RuntimeError, AssertionError) as error:  # as of a setting that asks for encryption
            reason = " ".join(str(error).split()) or type(error).__name__
            raise OptionError(
                f"The scheduler at {where} cannot be connected to: {reason.rstrip('.')}. Look at the address and at "
                "your configuration of Dask."
            ) from error
        with client:
            yield connected(client, threads=threads, say=say)


def _address_in(scheduler_file: str) -> str:
    """Return the address in a scheduler's file; distributed itself would wait for a missing one for ever.

    Raises
    ------
    ClusterError
        If it is missing after ten seconds, or no such file.
    """
    file, patience = local_path(scheduler_file), time.monotonic() + 10
    while not file.exists() and time.monotonic() < patience:
        time.sleep(0.1)
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["address"])
    except OSError as error:
        raise ClusterError(
            f"The scheduler file {scheduler_file} cannot be read: {error.strerror or error}. Check the path and that "
            "the scheduler runs."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ClusterError(
            f"{scheduler_file} is not the file of a Dask scheduler. Start one with --scheduler-file, and name its file."
        ) from error


def require_usable(client: Any) -> None:  # whatever a user passed
    """Refuse what is no client that can be worked with.

    Raises
    ------
    OptionError
        If it is something else, closed, or asynchronous.
    ClusterError
        If its scheduler has gone.
    """
    require_dask()
    from distributed import Client

    if not isinstance(client, Client):
        raise OptionError(
            f"The client is a {type(client).__name__}, not a client of Dask. Pass "
            "distributed.Client(cluster or address)."
        )
    if client.asynchronous:
        raise OptionError("The client is asynchronous. Pass one that is not: distributed.Client(address).")
    if client.status in ("closed", "closing", "newly-created"):
        raise OptionError(f"The client is {client.status}. Open a new one: distributed.Client(address).")
    if client.status != "running":
        raise ClusterError("The client has lost its scheduler. Start one, connect a new client, then resume.")


def connected(
    client: Client, *, threads: int | None = None, say: Callable[[str], None] | None = None
) -> Cluster:
    """Return a client's cluster; one that has no workers is woken, and waited for.

    Parameters
    ----------
    client : connected
    threads : of each worker's network; None for as many as the widest worker has
    say : is told what is waited for

    Raises
    ------
    OptionError, ClusterError
        If the client cannot be used, or no worker joins it.
    """
    require_usable(client)
    workers = awake(client, say)
    widest = max(int(worker["nthreads"]) for worker in workers.values())
    return Cluster(client, len(workers), threads or widest, local=False)


def awake(client: Client, say: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Return the workers of a cluster; one that starts them for work alone is given some.

    Raises
    ------
    ClusterError
        If none comes.
    """
    workers = present(client)
    if workers:
        return workers
    adaptive = getattr(client.cluster, "_adaptive", None) is not None
    patience = _ADAPTIVE if adaptive else _STATIC
    if say:
        say(f"the cluster has no workers; waiting up to {patience:.0f} s for one")
    with contextlib.suppress(OSError):  # a time-out too
        work = client.submit(os.getpid, pure=False)
        try:
            work.result(timeout=patience)
        finally:
            work.cancel()
    workers = present(client)
    if not workers:
        raise ClusterError(
            f"The cluster at {client.scheduler.address} has no workers. Start some, then --resume."
        )
    return workers


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
        # Tiles of many shapes would leave gaps in pieces of fixed sizes, until the card is full of them.
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }


@contextmanager
def _quiet() -> Iterator[None]:
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
