"""The choice of regions and tiles: the cheapest that fit the memory of a worker, and of its GPU.

Large tiles pay less redundancy at their faces, small ones fit the memory; elongated ones are looked at too, since
they are often what fits best. Along every axis a handful of ways to cut it are candidates; all their combinations
are priced at once. The number of workers plays no part, so the choice, and with it every byte of the result, is
the same for any of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.axes import is_channel
from unet_dask.config import format_bytes
from unet_dask.errors import GeometryError, MemoryPlanError
from unet_dask.model.cost import pass_price
from unet_dask.model.step import product
from unet_dask.planning.demand import planes
from unet_dask.tiling.region import AxisGrid, RegionGrid
from unet_dask.tiling.valid import Context, aligned

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from unet_dask.planning.demand import Demand, Memory

#: Seconds that a region costs, beside what the network takes: its task, its files and their flush; 45 ms at worst.
_REGION_PRICE = 0.035
#: A run should have this many regions, so that its workers end together; worth this share of its price.
_MANY_REGIONS = 16
_MANY_REGIONS_WORTH = 0.15
#: The same within a mask: most regions are empty, and a full one is a large part of the work. On a slide of 15 % tissue
#: with 32 regions one of two workers stood idle for a quarter of the time.
_MANY_WITHIN_MASK = 64
#: Seconds that a region should keep a worker busy where there are many of them: over 20 times that.
_REGION_SECONDS = 1.0
#: Sides of a region in write units, and tiles along it, that are looked at (and one region for all). A GPU has done
#: with 24 x 24 chunks in less than a second.
_UNITS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
_UNITS_OF_GPU = (*_UNITS, 32, 48)
_TILES = (1, 2, 3, 4, 6, 8)


def choose(
    demand: Demand, *, limit: int, tile: tuple[int, ...] | None = None, region: tuple[int, ...] | None = None
) -> RegionGrid:
    """Return the cheapest layout whose workers stay within `limit` bytes.

    Parameters
    ----------
    demand : what it is for
    limit : bytes that one worker may use
    tile, region : wanted cores and regions per spatial axis, instead of a choice

    Raises
    ------
    GeometryError
        If a wanted tile or region leaves the lattice or the write units.
    MemoryPlanError
        If nothing fits; the message says what would.
    """
    axes, network = demand.source.axes, demand.network
    others = _other_grids(demand)
    candidates = _candidates(demand, tile=tile, region=region)
    index = np.indices([len(grids) for grids in candidates]).reshape(network.dims, -1)

    def gather(value: Callable[[AxisGrid], int]) -> list[NDArray[np.float64]]:
        return [
            np.array([value(grid) for grid in grids], np.float64)[i]
            for grids, i in zip(candidates, index, strict=True)
        ]

    sides = gather(lambda grid: grid.tile)
    regions = product(gather(lambda grid: grid.count)) * math.prod(grid.count for grid in others)
    needed = demand.memory(
        sides,
        gather(lambda grid: grid.half_tile),
        gather(lambda grid: grid.longest),
        [grids[0].before + grids[0].after for grids in candidates],
        planes(axes, others, lambda grid: grid.longest),
        next_one=regions > 1,
    )
    tiles = planes(axes, others, lambda grid: grid.stop - grid.start) * product(
        gather(lambda grid: grid.tile_count)
    )
    countable = demand.countable(sides)
    on_gpu = countable & (needed.gpu <= (demand.arithmetic.gpu_limit or math.inf))
    fits = on_gpu & (needed.total <= limit)
    if not fits.any():
        raise MemoryPlanError(_too_large(demand, limit, needed, countable, on_gpu))
    price = _price(tiles * pass_price(network, sides), regions, demand)
    # Of equally cheap ones, what takes the least memory.
    cheapest = index[:, int(np.lexsort((needed.total, np.where(fits, price, np.inf)))[0])]
    return RegionGrid(axes, (*others, *(grids[i] for grids, i in zip(candidates, cheapest, strict=True))))


def _too_large(
    demand: Demand,
    limit: int,
    needed: Memory[NDArray[np.float64]],
    countable: NDArray[np.bool_],
    on_gpu: NDArray[np.bool_],
) -> str:
    """Return why no layout fits, and what would: the least of the GPU for all, then of the machine for those left."""
    gpu_limit = demand.arithmetic.gpu_limit
    if not countable.any():
        return (
            "The smallest of the tiles makes feature maps of 2**31 numbers or more, too many for a GPU's kernels. "
            "Use a smaller --tile, or --device cpu."
        )
    if not on_gpu.any():
        least = float(needed.gpu[countable].min())
        return (
            f"A worker may use {format_bytes(gpu_limit)} of its GPU, but the smallest tile of this network needs "
            f"{format_bytes(least)} there. Use --device cpu, or a narrower model."
        )
    least = float(needed.total[on_gpu].min())
    enough = f"Use --memory {math.ceil(least / 2**28) / 4:g}GiB, or"
    if demand.decoded_bytes > limit / 4:
        return (
            f"A worker was granted {format_bytes(limit)}, but needs {format_bytes(least)}, since reading chunks of "
            f"{demand.source.name} takes {format_bytes(demand.decoded_bytes)} of it: one is "
            f"{format_bytes(demand.source.decoding.chunk_bytes)}. {enough} write the source again in smaller chunks."
        )
    return (
        f"A worker was granted {format_bytes(limit)}, but the smallest tile of this network needs "
        f"{format_bytes(least)}. {enough} a narrower model."
    )


def _price(flop: NDArray[np.float64], regions: NDArray[np.float64], demand: Demand) -> NDArray[np.float64]:
    """Return what layouts cost, in FLOP: their work, and a share of it for too few or too small regions."""
    how, many = demand.arithmetic, _MANY_WITHIN_MASK if demand.mask_bytes else _MANY_REGIONS
    seconds = flop / regions / how.rate
    too_few = np.maximum(1 - regions / many, 0)
    too_small = np.maximum(1 - seconds / _REGION_SECONDS, 0) * np.maximum(1 - many / regions, 0)
    price: NDArray[np.float64] = flop + regions * _REGION_PRICE * how.least_rate
    price *= 1 + _MANY_REGIONS_WORTH * (too_few + too_small)
    return price


def _other_grids(demand: Demand) -> tuple[AxisGrid, ...]:
    """Return the grids of the axes along which the network does not look: one unit is one region."""
    grids = []
    for axis, size, (start, stop), unit in zip(
        demand.source.axes, demand.source.shape, demand.roi, demand.units, strict=True
    ):
        step = max(size, 1) if is_channel(axis) else unit
        grids.append(AxisGrid(size, start, stop, step, 1, Context()))
    return tuple(grids[: -demand.network.dims])


def _candidates(
    demand: Demand, *, tile: tuple[int, ...] | None, region: tuple[int, ...] | None
) -> list[list[AxisGrid]]:
    """Return the ways to cut each spatial axis."""
    network = demand.network
    for name, wanted in (("tile", tile), ("region", region)):
        if wanted is not None and len(wanted) != network.dims:
            raise GeometryError(
                f"A {name} of {len(wanted)} sizes was asked for, but the network looks along {network.dims} axes. "
                f"Give one size for each of {', '.join('zyx'[-network.dims :])}."
            )
    units = _UNITS_OF_GPU if demand.arithmetic.on_gpu else _UNITS
    rows = list(zip(demand.source.shape, demand.roi, demand.units, strict=True))[-network.dims :]
    return [
        _cut(
            AxisGrid(size, start, stop, math.lcm(unit, context.stride), context.stride, context),
            unit,
            units,
            core=None if tile is None else tile[axis],
            step=None if region is None else region[axis],
        )
        for axis, ((size, (start, stop), unit), context) in enumerate(
            zip(rows, network.contexts, strict=True)
        )
    ]


def _cut(
    axis: AxisGrid, unit: int, units: tuple[int, ...], *, core: int | None, step: int | None
) -> list[AxisGrid]:
    """Return the ways to cut one axis that are worth a look: of those with equal tiles, the least redundant."""
    length, stride = max(axis.stop - axis.start, 1), axis.context.stride
    quantum = math.lcm(unit, stride) if length > unit else aligned(length, stride)
    whole = -(-length // quantum)
    steps = [quantum * count for count in sorted({*units, min(whole, 2 * units[-1])}) if count <= whole]
    if step is not None:
        _check_step(step, length, quantum, axis)
        steps = [step]
    best: dict[tuple[int, int], AxisGrid] = {}
    for candidate in steps:
        trial = AxisGrid(axis.size, axis.start, axis.stop, candidate, stride, axis.context)
        if trial.count > 1 and candidate < trial.thinnest:
            continue
        cores = [aligned(-(-max(trial.longest + trial.phase, 1) // tiles), stride) for tiles in _TILES]
        for side in cores if core is None else [core]:
            grid = AxisGrid(axis.size, axis.start, axis.stop, candidate, side, axis.context)
            key = (side, grid.count)
            if key not in best or grid.tile_count < best[key].tile_count:
                best[key] = grid
    return list(best.values())


def _check_step(step: int, length: int, quantum: int, axis: AxisGrid) -> None:
    """Raise unless a wanted region owns whole write units, on the lattice, with its context next door."""
    least = aligned(axis.thinnest, quantum)
    if step < length and (step % quantum or step < axis.thinnest):
        raise GeometryError(
            f"Regions of {step} voxels do not fit: they must be multiples of {quantum} (chunks of the result and the "
            f"network's poolings) and at least {least} (the context of the network). "
            f"Use {max(aligned(step, quantum), least)}."
        )
