"""What is checked and sent before the first region: one clear error beats ten thousand failures.

Workers that cannot read the model file by its path are sent its bytes, once each, by a plugin that also
reaches workers that join later. Tasks never carry a weight.
"""

from __future__ import annotations

import time
from functools import cache, partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from unet_dask.errors import ClusterError
from unet_dask.workers.running import awake

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client, Future, Worker

    from unet_dask.model.file import ModelFile
    from unet_dask.workers.cluster import Cluster

#: A difference in one of these can change results or break tasks.
PACKAGES = ("unet-dask", "torch", "numpy", "zarr", "dask", "distributed")


#: Times that workers are asked what they have if some leave meanwhile, and seconds between.
_TRIES, _PAUSE = 10, 1.0
#: Seconds that a first answer may take: workers start, and load torch from a slow disk.
PATIENCE = 600.0


class SentModel:
    """Worker plugin that keeps the bytes of a model file on each worker."""

    def __init__(self, checksum: str, data: bytes) -> None:
        self.name = f"unet-dask-model-{checksum[:16]}"
        self._checksum = checksum
        self._data = data

    def setup(self, worker: Worker) -> None:  # distributed's signature
        """Keep the bytes in this worker's process."""
        from unet_dask.engine.cache import receive

        receive(self._checksum, self._data)


@cache
def _looked_up(look: Callable[[str], str], name: str) -> str:
    """Look a version up once in a process, which is slow."""
    return look(name)


def installed() -> dict[str, str]:
    """Return the versions of the packages that matter, in this process."""
    return {name: _looked_up(version, name) for name in PACKAGES}


def check_workers(cluster: Cluster, model: ModelFile, sink: str) -> None:
    """Raise unless every worker can do the run; send the model to those that do not see its file.

    Raises
    ------
    ClusterError
        If versions differ between client and workers, a worker cannot write the sink, or workers keep leaving.
    """
    if cluster.local:
        return
    here = installed()
    for address, there in _asked(cluster.client, installed).items():
        for name in PACKAGES:
            if there[name] != here[name]:
                raise ClusterError(
                    f"The worker at {address} has {name} {there[name]}, but the client has {here[name]}. Install the "
                    "same versions on both sides."
                )
    reports = _asked(cluster.client, _sees, str(model.path), model.checksum, sink)
    for address, report in reports.items():
        if report["sink"]:
            raise ClusterError(
                f"The worker at {address} cannot write to {sink} ({report['sink']}). Use a place that all "
                "workers share."
            )
    if not all(report["model"] for report in reports.values()):
        cluster.client.register_plugin(SentModel(model.checksum, model.path.read_bytes()))


def _asked(client: Client, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Return what every worker answers, by address; those that leave meanwhile are not missed.

    Raises
    ------
    ClusterError
        If workers keep leaving.
    """
    for _ in range(_TRIES):
        answers: dict[str, Any] = client.run(function, *arguments, on_error="return")
        if not answers:  # a cluster that retires workers which have nothing to do
            awake(client)
            continue
        errors = [each for each in answers.values() if isinstance(each, Exception)]
        if not errors:
            return answers
        for error in errors:
            if not isinstance(error, OSError):
                raise error
        time.sleep(_PAUSE)
    raise ClusterError(
        f"Workers have left before they could be asked, {_TRIES} times running. See why they end; what is done is kept."
    )


def answered(future: Future) -> Any:  # whatever the task returned
    """Return what some worker computed, but do not wait for ever for a worker."""
    try:
        return future.result(timeout=PATIENCE)
    except TimeoutError as error:
        future.cancel()
        raise ClusterError(
            f"No worker has answered for {PATIENCE:.0f} seconds. What is done is kept; start workers and try again."
        ) from error


def _sees(path: str, checksum: str, sink: str) -> dict[str, Any]:
    """Return what this worker sees of the model file and the sink."""
    from unet_dask.errors import UnetDaskError
    from unet_dask.io.sink.place import why_unwritable
    from unet_dask.model.file import inspect_model

    try:
        model = inspect_model(path).checksum == checksum
    except UnetDaskError:
        model = False
    return {"model": model, "sink": why_unwritable(sink)}


def worker_device(cluster: Cluster, device: str) -> str:
    """Return the device that the workers would choose, which need not be this machine's."""
    from unet_dask.engine.device import choose_device

    chosen: str = answered(cluster.client.submit(choose_device, device, pure=False))
    return chosen


def worker_gpu_memory(cluster: Cluster, device: str) -> int:
    """Return the bytes that networks may use of the smallest GPU of the workers; 0 without one."""
    from unet_dask.engine.device import gpu_memory

    return min(_asked(cluster.client, gpu_memory, device).values(), default=0)


def multiplies(cluster: Cluster, precision: str, device: str) -> bool:
    """Return whether every worker multiplies in a precision natively, as far as that can be known."""
    from unet_dask.engine import device as devices

    if precision in ("float32", "float16"):  # every GPU has both, and no run on a CPU is in float16
        return True
    if cluster.local:
        return devices.multiplies(precision, device)
    return all(_asked(cluster.client, partial(devices.multiplies, precision, device)).values())


def require_precision(cluster: Cluster, precision: str, device: str, *, begun: bool) -> None:
    """Refuse bfloat16 and int8 on processors, and GPUs, that do not have it.

    Parameters
    ----------
    cluster : whose workers are asked
    precision, device : of the run
    begun : whether the run was begun in that precision, and cannot go on in another

    Raises
    ------
    OptionError
        If a worker would emulate it.
    """
    if not multiplies(cluster, precision, device):
        from unet_dask.engine.device import cannot_multiply

        raise cannot_multiply(precision, device, begun=begun)
