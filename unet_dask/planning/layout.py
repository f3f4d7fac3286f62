"""The choice of regions and tiles: the cheapest that fit the memory of a worker.

Large tiles pay less redundancy at their faces, small ones fit the memory; elongated ones are looked at too, since
they are often what fits best. Along every axis a handful of ways to cut it are candidates; all their combinations
are priced at once. The number of workers plays no part, so the choice, and with it every byte of the result, is
the same for any of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.config import format_bytes
from unet_dask.engine.heap import HEAP_SHARE, MANY_SHAPES_SHARE, STRIP_SHARES
from unet_dask.errors import GeometryError, MemoryPlanError
from unet_dask.io.source import recent
from unet_dask.model.cost import (
    nnpack_bytes,
    parameter_count,
    pass_bytes,
    pass_price,
    strip_bytes,
    tile_bytes,
)
from unet_dask.tiling.region import AxisGrid, Context, RegionGrid
from unet_dask.tiling.valid import aligned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from unet_dask.engine.infer import OutputSpec
    from unet_dask.io.source.volume import Source
    from unet_dask.model.header import NetworkSpec

#: Resident bytes of a worker that has imported everything and loaded nothing, measured on Linux: 380 MiB; and 32 MiB
#: for what the heap holds beside large blocks.
PROCESS_BYTES = 412 << 20
#: Copies of a region's input at once: what was read, as the network wants it, and mirrored; of the next region, what
#: was read and mirrored.
INPUT_COPIES, NEXT_INPUT = 3, 2
#: Copies of a region's output at once: whole, and as chunks that are encoded and written; of the next region, whole.
OUTPUT_COPIES, NEXT_OUTPUT = 2, 1
#: Bytes per voxel of numbering objects, beside the numbers, as a share of OUTPUT_COPIES: pieces and their mask.
_NUMBERING = 4
#: Fixed price of a region, in FLOP that the network could have done meanwhile.
_REGION_PRICE = 5e9
#: A run should have this many regions, so that its workers end together; worth this share of its price.
_MANY_REGIONS = 16
_MANY_REGIONS_WORTH = 0.15
#: A region should keep a worker busy for a second or so, or it waits for the scheduler.
_REGION_FLOP = 60e9
#: Sides of a region in write units, and tiles along it, that are looked at (and one region for all).
_UNITS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
_TILES = (1, 2, 3, 4, 6, 8)


@dataclass(frozen=True, slots=True)
class Memory:
    """Predicted peak of one worker, in bytes.

    Attributes
    ----------
    process : interpreter and libraries
    network : weights, and once more as the kernels want them
    activations : feature maps and probabilities of one tile, with what the heap holds beyond
    regions : input, mask and output of a region, with copies, and the chunks that were read last
    """

    process: int
    network: int
    activations: int
    regions: int

    @property
    def total(self) -> int:
        """The predicted peak."""
        return self.process + self.network + self.activations + self.regions


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What multiplies, in which numbers.

    Attributes
    ----------
    device, precision, backend : of the network, each chosen already
    averaged : whether probabilities are the mean over several passes
    """

    device: str = "cpu"
    precision: str = "float32"
    backend: str = "torch"
    averaged: bool = False

    @property
    def compared(self) -> bool:
        """Whether a worker may run the network once in float32 by torch, to compare."""
        return (self.precision, self.backend) != ("float32", "torch")


@dataclass(frozen=True, slots=True)
class Demand:
    """What a run asks of its layout.

    Attributes
    ----------
    source : to segment
    network : to run
    outputs : products to keep
    arithmetic : of the network
    roi : (start, stop) per axis of the source
    units : write unit per axis of the source
    mask_bytes : of a mask while it is read, per voxel of a region
    """

    source: Source
    network: NetworkSpec
    outputs: tuple[OutputSpec, ...]
    arithmetic: Arithmetic
    roi: tuple[tuple[int, int], ...]
    units: tuple[int, ...]
    mask_bytes: float = 0.0

    def memory(
        self,
        tile: Sequence[Any],
        probe: Sequence[Any],
        longest: Sequence[Any],
        context: Sequence[int],
        others: int,
        *,
        next_one: Any,
    ) -> Any:
        """Return the :class:`Memory` of tiles and regions; sizes may be arrays of candidates.

        Parameters
        ----------
        tile : input size per spatial axis
        probe : the same, of the tile on which two ways to run the network are compared
        longest : size of the longest region, per spatial axis
        context : voxels read beyond a region, per spatial axis
        others : planes of a region
        next_one : whether there is another region, which a worker has in hand meanwhile, see `engine.turns`
        """
        how = self.arithmetic
        item = {"float32": 4, "int8": 1}.get(how.precision, 2)
        activations = self._activations(tile, item)
        weights = 2 * parameter_count(self.network) * item
        if how.backend == "nnpack":
            weights += nnpack_bytes(self.network)
        if how.compared:
            weights += 2 * parameter_count(self.network) * 4
            activations = np.maximum(activations, self._comparison(probe))
        read = math.prod(side + more for side, more in zip(longest, context, strict=True))
        values = sum(
            (self.network.classes if each.has_channels else 1) * np.dtype(each.dtype).itemsize
            + (_NUMBERING if each.name == "instances" else 0)
            for each in self.outputs
        )
        return Memory(
            process=PROCESS_BYTES,
            network=weights,
            activations=activations,
            regions=others
            * (
                (INPUT_COPIES + next_one * NEXT_INPUT)
                * self.network.channels
                * self.source.dtype.itemsize
                * read
                + ((OUTPUT_COPIES + next_one * NEXT_OUTPUT) * values + (1 + next_one) * self.mask_bytes)
                * math.prod(longest)
            )
            + min(recent.LIMIT, math.prod(self.source.shape) * self.source.dtype.itemsize),
        )

    def _activations(self, tile: Sequence[Any], item: int) -> Any:
        """Return the bytes of a tile's pass, with what the heap holds beyond."""
        how, share = self.arithmetic, MANY_SHAPES_SHARE if self.mask_bytes else HEAP_SHARE
        if how.device == "cpu":
            return _streamed(
                self.network, tile, item, averaged=how.averaged, many_shapes=bool(self.mask_bytes)
            )
        return (1 + share) * pass_bytes(self.network, tile, item=item, averaged=how.averaged)

    def _comparison(self, probe: Sequence[Any]) -> Any:
        """Return the same of a pass in float32. Ranges for bytes are measured on whole feature maps."""
        if self.arithmetic.device == "cpu" and self.arithmetic.precision != "int8":
            return _streamed(self.network, probe, 4)
        return (1 + HEAP_SHARE) * pass_bytes(self.network, probe, item=4)


def _streamed(
    network: NetworkSpec, tile: Sequence[Any], item: int, *, averaged: bool = False, many_shapes: bool = False
) -> Any:
    """Return the bytes of a tile that passes in strips, with what the heap holds beyond."""
    beside = tile_bytes(network, tile, averaged=averaged)
    strips = strip_bytes(network, tile, item=item)
    if many_shapes:
        return (1 + MANY_SHAPES_SHARE) * (beside + sum(strips))
    return beside + sum((1 + share) * each for share, each in zip(STRIP_SHARES, strips, strict=True))


def predicted(demand: Demand, grid: RegionGrid) -> Memory:
    """Return the memory that a worker needs for a layout."""
    dims = demand.network.dims
    spatial = grid.grids[-dims:]
    memory = demand.memory(
        [each.tile for each in spatial],
        [each.probe for each in spatial],
        [each.longest for each in spatial],
        [each.before + each.after for each in spatial],
        _planes(grid.axes, grid.grids[:-dims], lambda each: each.longest),
        next_one=len(grid) > 1,
    )
    return Memory(memory.process, memory.network, int(memory.activations), int(memory.regions))


def choose(
    demand: Demand,
    *,
    limit: int,
    tile: tuple[int, ...] | None = None,
    region: tuple[int, ...] | None = None,
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
    index = np.indices([len(each) for each in candidates]).reshape(network.dims, -1)

    def gather(value: Callable[[AxisGrid], int]) -> list[Any]:
        return [
            np.array([value(grid) for grid in each], np.float64)[i]
            for each, i in zip(candidates, index, strict=True)
        ]

    sides = gather(lambda grid: grid.tile)
    regions = math.prod(gather(lambda grid: grid.count)) * math.prod(each.count for each in others)
    used = demand.memory(
        sides,
        gather(lambda grid: grid.probe),
        gather(lambda grid: grid.longest),
        [each[0].before + each[0].after for each in candidates],
        _planes(axes, others, lambda each: each.longest),
        next_one=regions > 1,
    ).total
    tiles = _planes(axes, others, lambda each: each.stop - each.start) * math.prod(
        gather(lambda grid: grid.tile_count)
    )
    fits = used <= limit
    if not fits.any():
        least = float(used.min())
        raise MemoryPlanError(
            f"A worker was granted {format_bytes(limit)}, but the smallest tile of this network needs "
            f"{format_bytes(least)}. Use --memory {math.ceil(least / 2**28) / 4:g}GiB, or a narrower model."
        )
    price = np.where(fits, _price(tiles * pass_price(network, sides), regions), np.inf)
    cheapest = index[
        :, int(np.lexsort((used, price))[0])
    ]  # of equally cheap ones, what takes the least memory
    return RegionGrid(axes, (*others, *(each[i] for each, i in zip(candidates, cheapest, strict=True))))


def _price(flop: Any, regions: Any) -> Any:  # arrays of candidates
    """Return what layouts cost: their work, and a share of it for too few or too small regions."""
    price = flop + regions * _REGION_PRICE
    each = price / regions
    too_few = np.maximum(1 - regions / _MANY_REGIONS, 0) * (each > _REGION_FLOP)
    too_small = np.maximum(1 - each / _REGION_FLOP, 0) * (regions > 1)
    return price * (1 + _MANY_REGIONS_WORTH * (too_few + too_small))


def _other_grids(demand: Demand) -> tuple[AxisGrid, ...]:
    """Return the grids of the axes along which the network does not look: one unit is one region."""
    grids = []
    for axis, size, (start, stop), unit in zip(
        demand.source.axes, demand.source.shape, demand.roi, demand.units, strict=True
    ):
        step = max(size, 1) if axis == "c" else unit
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
    context = Context(network.halo[0], network.stride[0], network.slack[0])
    rows = list(zip(demand.source.shape, demand.roi, demand.units, strict=True))[-network.dims :]
    return [
        _cut(
            AxisGrid(size, start, stop, math.lcm(unit, context.stride), context.stride, context),
            unit,
            core=None if tile is None else tile[axis],
            step=None if region is None else region[axis],
        )
        for axis, (size, (start, stop), unit) in enumerate(rows)
    ]


def _cut(axis: AxisGrid, unit: int, *, core: int | None, step: int | None) -> list[AxisGrid]:
    """Return the ways to cut one axis that are worth a look: of those with equal tiles, the least redundant."""
    length, stride = max(axis.stop - axis.start, 1), axis.context.stride
    quantum = math.lcm(unit, stride) if length > unit else aligned(length, stride)
    whole = -(-length // quantum)
    steps = [quantum * units for units in sorted({*_UNITS, min(whole, 2 * _UNITS[-1])}) if units <= whole]
    if step is not None:
        _check_step(step, length, quantum, axis)
        steps = [step]
    best: dict[tuple[int, int], AxisGrid] = {}
    for each in steps:
        probe = AxisGrid(axis.size, axis.start, axis.stop, each, stride, axis.context)
        if probe.count > 1 and each < probe.thinnest:
            continue
        cores = [aligned(-(-max(probe.longest + probe.phase, 1) // tiles), stride) for tiles in _TILES]
        for side in cores if core is None else [core]:
            grid = AxisGrid(axis.size, axis.start, axis.stop, each, side, axis.context)
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
            f"pooling lattice) and at least {least} (the context of the network). "
            f"Use {max(aligned(step, quantum), least)}."
        )


def _planes(axes: str, grids: Sequence[AxisGrid], length: Callable[[AxisGrid], int]) -> int:
    """Return the product of a length over the axes that are neither channels nor seen by the network."""
    return math.prod(length(grid) for axis, grid in zip(axes, grids, strict=False) if axis != "c")
