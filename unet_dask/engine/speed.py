"""How fast this process runs a network: one small tile, timed."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.choices import Precision
from unet_dask.engine.cache import network
from unet_dask.engine.device import use_threads
from unet_dask.engine.ranges import count
from unet_dask.tiling.valid import aligned

if TYPE_CHECKING:
    from unet_dask.engine.cache import NetworkKey
    from unet_dask.model.spec import Spec

#: Enough work to see past the first call's set-up, little enough to wait for.
_TIMED_FLOP = 2e10
_MOST_PIXELS = 1 << 22


def flop_per_second(key: NetworkKey, spec: Spec, *, threads: int) -> float:
    """Return the rate of a small tile on this machine, the better of two after a warm-up."""
    use_threads(threads)
    if (
        key.precision == Precision.INT8
    ):  # before a run nothing was measured, and what bytes stand for takes no time
        key = replace(key, ranges=((0.0, 1e9),) * count(spec))
    periods = 1
    while spec.flop(sides := _sides(spec, periods)) < _TIMED_FLOP and math.prod(sides) < _MOST_PIXELS:
        periods += 1
    backend = network(key)
    tile = np.zeros((spec.channels, *sides), np.float32)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        backend.logits(tile)
        seconds.append(time.perf_counter() - began)
    return spec.flop(sides) / min(seconds[1:])


def _sides(spec: Spec, periods: int) -> tuple[int, ...]:
    """Return the input size of a core of about so many periods of the coarsest lattice, per spatial axis."""
    core = periods * max(spec.stride)
    return tuple(context.input_size(aligned(core, context.stride)) for context in spec.contexts)
