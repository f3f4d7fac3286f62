"""A cluster that is already running: connected to by its address or by a client, woken, and waited for."""

from __future__ import annotations

import contextlib
import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from unet_dask.errors import ClusterError, OptionError
from unet_dask.paths import local_path
from unet_dask.printable import visible
from unet_dask.workers.cluster import SETTINGS, Cluster, quiet
from unet_dask.workers.dask_settings import require_dask
from unet_dask.workers.load import present

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client

#: Seconds that the first worker may take: of a cluster that is known to start them for work, which a batch system may
#: have to find a machine for; and of any other, which may be such a one to those who know only its address.
_ADAPTIVE, _STATIC = 600.0, 60.0
#: Beginnings of addresses that have no port.
_PORTLESS = ("inproc://", "ucx://")


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

    where = scheduler_file if address is None else address
    found = _address_in(str(scheduler_file)) if address is None else address
    _require_address(found, str(where))
    with dask.config.set(SETTINGS), quiet():
        try:
            client = Client(found, set_as_default=False, timeout="10s")
        except ValueError as error:
            raise OptionError(
                f"{where} is not the address of a scheduler ({error}). Write it like tcp://host:8786."
            ) from error
        except (
            OSError,
            TypeError,
        ) as error:  # the second where keys are wanted, and the user's configuration has none
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


def _require_address(address: str, where: str) -> None:
    """Refuse what cannot be an address before a client is made of it, which would try to be closed for 20 seconds.

    Raises
    ------
    OptionError
        If it has no host, no port, or a protocol that Dask does not speak.
    """
    from distributed.comm import get_address_host_port

    try:
        if not address.startswith(_PORTLESS):
            get_address_host_port(address)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise OptionError(
            f"{visible(where)!r} is not the address of a scheduler ({reason}). Write it like tcp://host:8786."
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
