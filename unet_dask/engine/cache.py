"""Loaded networks, kept per process.

A worker meets the same network in every task. Tasks carry a :class:`NetworkKey` of a few hundred bytes;
the first one loads the weights from the file, verifies their checksum, and all later ones find the
network here. Where workers do not see the file, its bytes are sent once to each of them, ahead of any
task, and wait in :data:`_SENT`.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from unet_dask import private
from unet_dask.choices import BackendName, Precision
from unet_dask.errors import ModelError
from unet_dask.model.file import load_model

if TYPE_CHECKING:
    from unet_dask.engine.backend import Backend
    from unet_dask.engine.ranges import Ranges
    from unet_dask.model.file import Model

#: A run needs one network, the comparison of precisions two; and a worker may serve two runs.
_CAPACITY = 4

_lock = threading.Lock()
_loaded: OrderedDict[NetworkKey, Backend] = OrderedDict()
_SENT: dict[str, Path] = {}
_loads = 0


@dataclass(frozen=True, slots=True)
class NetworkKey:
    """Names a network, and how to run it, without holding a weight.

    Attributes
    ----------
    path : of the model file
    checksum : of its tensors; a file that has another is refused
    device, precision, backend : how to run it
    ranges : of its feature maps on the data of the run, for "int8" alone
    """

    path: str
    checksum: str
    device: str
    precision: str
    backend: str = BackendName.TORCH
    ranges: Ranges = ()

    def in_float32(self) -> NetworkKey:
        """Return the name of the same network as torch runs it in float32, which anything else is compared with."""
        return replace(self, precision=Precision.FLOAT32, backend=BackendName.TORCH, ranges=())


def network(key: NetworkKey) -> Backend:
    """Return the loaded network, loading it at its first use in this process.

    Raises
    ------
    ModelError
        If the file is missing here, damaged, or not the one that the run was begun with.
    """
    global _loads  # noqa: PLW0603 # one counter per process, read by the tests and the records
    from unet_dask.engine.backend import load_backend  # torch: a driver names networks, and runs none

    with _lock:
        if key not in _loaded:
            _loaded[key] = load_backend(
                key.backend, _model(key), device=key.device, precision=key.precision, ranges=key.ranges
            )
            _loads += 1
            while len(_loaded) > _CAPACITY:
                _loaded.popitem(last=False)
        _loaded.move_to_end(key)
        return _loaded[key]


def loads() -> int:
    """Return how many networks this process has loaded so far."""
    return _loads


def receive(checksum: str, data: bytes) -> None:
    """Keep the bytes of a model file that this worker cannot read by path."""
    path = private.lasting() / f"{hashlib.sha256(data).hexdigest()}.safetensors"
    if not path.exists():
        private.write(path, data)
    _SENT[checksum] = path


def _model(key: NetworkKey) -> Model:
    model = load_model(_SENT.get(key.checksum, Path(key.path)))
    if model.checksum != key.checksum:
        raise ModelError(
            f"{key.path} holds other weights ({model.checksum[:12]}) than the run was begun with "
            f"({key.checksum[:12]}). Restore the file, or start over with --overwrite."
        )
    return model
