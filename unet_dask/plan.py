"""The plan: everything a run will do, decided and priced before anything runs.

`make_plan` looks at headers and metadata only. It chooses tiles and regions by what they cost (FLOP with the
redundancy paid at the faces of tiles, and a fixed price per tile and region) among those that fit the memory
of a worker. It does not look at the number of workers: the same source, model and memory give the same tiles,
and so the same bytes, on one worker and on a hundred.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.config import format_bytes
from unet_dask.errors import MemoryPlanError, ModelError, OptionError
from unet_dask.io.multiscale import pyramid
from unet_dask.io.sink import ArraySpec, shards_for
from unet_dask.model.cost import activation_bytes, parameter_count, tile_flop
from unet_dask.tiling.region import AxisGrid, Context, RegionGrid
from unet_dask.tiling.valid import aligned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unet_dask.engine.infer import OutputSpec
    from unet_dask.io.source import Source
    from unet_dask.model.header import ModelHeader, NetworkSpec

#: Resident bytes of a worker that has imported everything and loaded nothing, measured on Linux.
PROCESS_BYTES = 380 << 20
#: What the allocator holds beyond the activations that are alive, as a share of them; measured.
HEAP_SHARE = 0.4
#: Copies of a region's input that dask and the mirror hold at once: its block, the block with its context, the
#: mirrored window, and the next block, read ahead.
INPUT_COPIES = 4
#: Fixed price of a tile and of a region, in FLOP that the network could have done meanwhile.
TILE_PRICE = 1e9
REGION_PRICE = 5e9
#: A run should have at least this many regions, so that workers finish together, unless that costs more than
#: the share below.
MANY_REGIONS = 16
MANY_REGIONS_WORTH = 0.15
#: A region should take a second or more, or the scheduler is what is waited for; about that on one core.
REGION_FLOP = 60e9
#: Sides of a region in write units, and tiles along it, that are looked at (and one region for all).
_UNITS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
_TILES = (1, 2, 3, 4, 6, 8)


@dataclass(frozen=True, slots=True)
class Memory:
    """Predicted peak of one worker, in bytes.

    Attributes
    ----------
    process : interpreter and libraries
    network : weights
    activations : feature maps of one tile, with what the allocator holds beyond
    regions : input and output of a region, with copies
    """

    process: int
    network: int
    activations: int
    regions: int

    @property
    def total(self) -> int:
        """The predicted peak."""
        return self.process + self.network + self.activations + self.regions


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes
    ----------
    source : to segment
    header : of the model
    grid : regions and tiles
    outputs : what is kept of the logits
    arrays : of the sink, one per output
    memory : predicted peak of a worker
    limit : bytes granted to a worker
    precision, device : as chosen
    """

    source: Source
    header: ModelHeader
    grid: RegionGrid
    outputs: tuple[OutputSpec, ...]
    arrays: tuple[ArraySpec, ...]
    memory: Memory
    limit: int
    precision: str
    device: str

    @property
    def spatial(self) -> tuple[AxisGrid, ...]:
        """Grids of the axes along which the network looks."""
        return self.grid.grids[-self.header.network.dims :]

    @property
    def planes(self) -> int:
        """How many images the network is run on: time points, and slices of a volume for a 2-D network."""
        return math.prod(
            stop - start
            for axis, (start, stop) in zip(
                self.grid.axes[: -self.header.network.dims],
                self.grid.roi[: -self.header.network.dims],
                strict=True,
            )
            if axis != "c"
        )

    @property
    def tile(self) -> tuple[int, ...]:
        """Input size of a tile."""
        return tuple(grid.tile for grid in self.spatial)

    @property
    def core(self) -> tuple[int, ...]:
        """What a tile contributes."""
        return tuple(grid.core for grid in self.spatial)

    @property
    def region(self) -> tuple[int, ...]:
        """Size of a region that is not the last, in the axes of the grid."""
        return tuple(min(grid.step, grid.stop - grid.start) for grid in self.grid.grids)

    @property
    def tiles(self) -> int:
        """Number of tiles of the run."""
        return self.planes * math.prod(grid.tile_count for grid in self.spatial) if len(self.grid) else 0

    @property
    def flop(self) -> float:
        """Floating-point operations of the run."""
        return float(self.tiles) * tile_flop(self.header.network, self.tile)

    @property
    def redundancy(self) -> float:
        """Operations of the run, relative to one pass over the whole padded volume."""
        network = self.header.network
        whole = tuple(
            aligned(grid.stop - grid.start + grid.phase, stride) + slack + 2 * halo
            for grid, stride, slack, halo in zip(
                self.spatial, network.stride, network.slack, network.halo, strict=True
            )
        )
        one_pass = float(self.planes) * tile_flop(network, [np.float64(side) for side in whole])  # type: ignore[type-var] # a float in place of an int: volumes overflow int64
        return self.flop / one_pass if one_pass else 1.0

    @property
    def disk_bytes(self) -> int:
        """Uncompressed bytes of the sink."""
        return sum(
            math.prod(level.shape) * np.dtype(array.dtype).itemsize
            for array in self.arrays
            for level in array.levels
        )

    def fingerprint(self) -> dict[str, str]:
        """Return the part of the run's fingerprint that the plan decides."""
        return {
            "plan.roi": str(self.grid.roi),
            "plan.region": str(self.region),
            "plan.tile": str(self.tile),
            "plan.chunks": str([array.chunks for array in self.arrays]),
            "plan.shards": str([array.shards for array in self.arrays]),
            "plan.products": str([(each.name, each.dtype) for each in self.outputs]),
            "plan.precision": self.precision,
            "plan.device": self.device,
        }

    def describe(self) -> Iterator[tuple[str, str]]:
        """Yield what a user should know before she pays: label and text."""
        source, network = self.source, self.header.network
        sizes = " x ".join(f"{axis} {size}" for axis, size in zip(source.axes, source.shape, strict=True))
        yield "source", f"{sizes}, {source.dtype}; axes {source.axes} ({source.origin_of_axes})"
        if self.grid.roi != tuple((0, size) for size in self.grid.shape):
            yield "region of interest", _intervals(self.grid.axes, self.grid.roi)
        yield (
            "network",
            f"{network.dims}-D U-Net, {network.width} channels, depth {network.depth}, "
            f"{network.channels} in, {network.classes} classes; halo {network.halo[0]}, lattice {network.stride[0]}",
        )
        yield "regions", f"{len(self.grid)} of {_sides(self.region)} ({self.grid.axes})"
        yield "tiles", f"{self.tiles} of {_sides(self.tile)} in, {_sides(self.core)} out"
        yield "work", f"{self.flop / 1e12:.2f} TFLOP, {self.redundancy:.2f} x one pass over the whole volume"
        yield (
            "memory",
            f"{format_bytes(self.memory.total)} per worker (limit {format_bytes(self.limit)}): process "
            f"{format_bytes(self.memory.process)}, network {format_bytes(self.memory.network)}, activations "
            f"{format_bytes(self.memory.activations)}, regions {format_bytes(self.memory.regions)}",
        )
        yield "disk", f"at most {format_bytes(self.disk_bytes)}, before compression"
        yield "precision", f"{self.precision} on {self.device}"

    def to_json(self) -> dict[str, object]:
        """Return the plan's figures for programs."""
        return {
            "axes": self.grid.axes,
            "shape": list(self.grid.shape),
            "roi": [list(each) for each in self.grid.roi],
            "regions": len(self.grid),
            "region": list(self.region),
            "tiles": self.tiles,
            "tile": list(self.tile),
            "core": list(self.core),
            "halo": list(self.header.network.halo),
            "flop": self.flop,
            "redundancy": self.redundancy,
            "worker_bytes": self.memory.total,
            "limit_bytes": self.limit,
            "disk_bytes": self.disk_bytes,
            "precision": self.precision,
            "device": self.device,
        }


def make_plan(
    source: Source,
    header: ModelHeader,
    *,
    outputs: tuple[OutputSpec, ...],
    limit: int,
    roi: tuple[tuple[int, int], ...] | None = None,
    precision: str = "float32",
    device: str = "cpu",
) -> Plan:
    """Choose regions and tiles for a source, a network and a memory limit.

    Parameters
    ----------
    source : to segment
    header : of the model
    outputs : products to keep
    limit : bytes that one worker may use
    roi : (start, stop) per canonical axis; None for everything
    precision, device : of the network

    Raises
    ------
    ModelError
        If the network does not fit the source's axes or channels.
    MemoryPlanError
        If not even the smallest tile fits; the message says what it would need.
    """
    network = header.network
    check_fit(source, header)
    roi = roi or tuple((0, size) for size in source.shape)
    units = write_units(source.axes, network.dims)
    best = _choose(source, network, outputs=outputs, limit=limit, roi=roi, units=units, precision=precision)
    grid = RegionGrid(source.axes, best)
    memory = _memory(network, source, grid, outputs, precision=precision)
    return Plan(
        source=source,
        header=header,
        grid=grid,
        outputs=outputs,
        arrays=tuple(_array(each, source, grid, units, network.classes) for each in outputs),
        memory=memory,
        limit=limit,
        precision=precision,
        device=device,
    )


def check_fit(source: Source, header: ModelHeader) -> None:
    """Raise unless the network can be run on the source."""
    network = header.network
    channels = source.shape[source.axes.index("c")]
    if channels != network.channels:
        raise ModelError(
            f"The model takes {network.channels} channel(s), but {source.name} has {channels}. Choose with "
            f"--channels, such as --channels {','.join(map(str, range(network.channels)))}, or say with --axes which "
            "axis the channels are."
        )
    if network.dims == 3 and "z" not in source.axes:
        raise ModelError(
            f"The model is three-dimensional, but {source.name} has the axes {source.axes}, without z. Use a 2-D model, "
            "or name the axes with --axes."
        )


def write_units(axes: str, dims: int) -> tuple[int, ...]:
    """Return the chunk sizes of a sink, which regions are multiples of, per canonical axis."""
    side = {"t": 1, "c": 1, "z": 1, "y": 512, "x": 512}
    if dims == 3:
        side |= {"z": 128, "y": 128, "x": 128}
    elif "z" in axes:
        side |= {"z": 8, "y": 256, "x": 256}
    return tuple(side[axis] for axis in axes)


def _choose(
    source: Source,
    network: NetworkSpec,
    *,
    outputs: tuple[OutputSpec, ...],
    limit: int,
    roi: tuple[tuple[int, int], ...],
    units: tuple[int, ...],
    precision: str,
) -> tuple[AxisGrid, ...]:
    """Return the cheapest grids that fit the memory."""
    context = Context(network.halo[0], network.stride[0], network.slack[0])
    first_spatial = len(source.axes) - network.dims
    plain = [
        AxisGrid(size, start, stop, size if axis == "c" else unit, 1, Context())
        if size
        else AxisGrid(0, 0, 0, 1, 1, Context())
        for axis, size, (start, stop), unit in zip(source.axes, source.shape, roi, units, strict=True)
    ][:first_spatial]
    candidates = [
        _axis_candidates(size, start, stop, unit=unit, context=context)
        for size, (start, stop), unit in list(zip(source.shape, roi, units, strict=True))[first_spatial:]
    ]
    index = np.indices([len(each) for each in candidates]).reshape(network.dims, -1)
    sides, tiles, regions, longest = (
        [
            np.array([value(grid) for grid in each], np.int64)[i]
            for each, i in zip(candidates, index, strict=True)
        ]
        for value in (
            lambda grid: grid.tile,
            lambda grid: grid.tile_count,
            lambda grid: grid.count,
            lambda grid: grid.longest,
        )
    )
    others = math.prod(grid.longest for axis, grid in zip(source.axes, plain, strict=False) if axis != "c")
    planes = math.prod(
        grid.stop - grid.start for axis, grid in zip(source.axes, plain, strict=False) if axis != "c"
    )
    batches = math.prod(grid.count for grid in plain)
    item = 4 if precision == "float32" else 2
    read = [side + grids[0].before + grids[0].after for side, grids in zip(longest, candidates, strict=True)]
    used = (
        PROCESS_BYTES
        + 2 * parameter_count(network) * item
        + (1 + HEAP_SHARE) * activation_bytes(network, sides, item=item)
        + others * _region_bytes(source, network, outputs, np.prod(read, axis=0), np.prod(longest, axis=0))
    )
    flop = tile_flop(network, [side.astype(np.float64) for side in sides])
    count = np.prod(regions, axis=0, dtype=np.float64) * batches
    price = planes * np.prod(tiles, axis=0) * (flop + TILE_PRICE) + count * REGION_PRICE
    too_few = np.maximum(1 - count / MANY_REGIONS, 0) * (price / np.maximum(count, 1) > REGION_FLOP)
    too_small = np.maximum(REGION_FLOP - price / np.maximum(count, 1), 0) * (count > 1) / REGION_FLOP
    price = price * (1 + MANY_REGIONS_WORTH * (too_few + too_small))
    if not (used <= limit).any():
        raise MemoryPlanError(
            f"A worker was granted {format_bytes(limit)}, but the smallest tile of this network needs "
            f"{format_bytes(float(used.min()))}. Grant more with --memory {_round_up(float(used.min()))}, or use a "
            "narrower model."
        )
    winner = int(np.where(used <= limit, price, np.inf).argmin())
    return (*plain, *(each[i] for each, i in zip(candidates, index[:, winner], strict=True)))


def _axis_candidates(size: int, start: int, stop: int, *, unit: int, context: Context) -> list[AxisGrid]:
    """Return the ways to cut one axis that are worth a look: few per tile size, the least redundant."""
    length = max(stop - start, 1)
    if stop == start:
        return [AxisGrid(size, start, stop, unit, context.stride, context)]
    best: dict[tuple[int, int], AxisGrid] = {}
    whole = -(-length // unit)
    for units in sorted({*(each for each in _UNITS if each < whole), min(whole, 2 * _UNITS[-1])}):
        probe = AxisGrid(size, start, stop, units * unit, context.stride, context)
        if units < whole and units * unit < probe.thinnest:
            continue
        for tiles in _TILES:
            core = aligned(-(-(probe.longest + probe.phase) // tiles), context.stride)
            grid = AxisGrid(size, start, stop, units * unit, core, context)
            key = (core, grid.count)
            if key not in best or grid.tile_count < best[key].tile_count:
                best[key] = grid
    return list(best.values())


def _memory(
    network: NetworkSpec,
    source: Source,
    grid: RegionGrid,
    outputs: tuple[OutputSpec, ...],
    *,
    precision: str,
) -> Memory:
    """Predict the peak of a worker."""
    item = 4 if precision == "float32" else 2
    spatial = grid.grids[-network.dims :]
    others = math.prod(
        each.longest
        for axis, each in zip(grid.axes, grid.grids[: -network.dims], strict=False)
        if axis != "c"
    )
    read = math.prod(each.longest + each.before + each.after for each in spatial)
    write = math.prod(each.longest for each in spatial)
    return Memory(
        process=PROCESS_BYTES,
        network=2 * parameter_count(network) * item,
        activations=int(
            (1 + HEAP_SHARE) * activation_bytes(network, [each.tile for each in spatial], item=item)
        ),
        regions=int(others * _region_bytes(source, network, outputs, read, write)),
    )


def _region_bytes(
    source: Source, network: NetworkSpec, outputs: tuple[OutputSpec, ...], read: float, write: float
) -> float:
    """Return the bytes of input and output per plane of a region, copies included."""
    values = sum(
        (network.classes if each.has_channels else 1) * np.dtype(each.dtype).itemsize for each in outputs
    )
    # Each output exists once whole and once more as encoded and copied chunks on their way to disk.
    return INPUT_COPIES * network.channels * source.dtype.itemsize * read + 2 * values * write


def _array(
    output: OutputSpec, source: Source, grid: RegionGrid, units: tuple[int, ...], classes: int
) -> ArraySpec:
    """Describe the array of a product; it covers the region of interest."""
    shape = {axis: stop - start for axis, (start, stop) in zip(grid.axes, grid.roi, strict=True)}
    chunk = dict(zip(grid.axes, units, strict=True))
    region = {axis: each.step for axis, each in zip(grid.axes, grid.grids, strict=True)}
    if output.has_channels:
        shape["c"], chunk["c"], region["c"] = classes, 1, classes
    axes = grid.axes if output.has_channels else grid.axes.replace("c", "")
    sizes = tuple(shape[axis] for axis in axes)
    chunks = tuple(max(min(chunk[axis], shape[axis]), 1) for axis in axes)
    if output.has_channels:
        region["c"] = 1
    shards = shards_for(sizes, chunks, [region[axis] for axis in axes])
    return ArraySpec(
        output.name,
        axes,
        output.dtype,
        output.unwritten,
        chunks,
        shards,
        pyramid(axes, sizes, source.spacing),
    )


def default_limit(cores: int, memory: int, workers: int) -> int:
    """Return the bytes a worker is granted when nobody said so.

    At most 4 GiB, where larger tiles gain little, and a fair share of the machine. The share is that of one
    worker per two cores, so that the plan stays the same for any smaller number of workers.
    """
    share = 0.8 * memory / max(cores // 2, workers, 1)
    return int(min(share, 4 << 30))


def require(*, workers: int, limit: int, memory: int) -> None:
    """Raise if the workers together were granted more than the machine has."""
    if workers * limit > memory:
        raise OptionError(
            f"{workers} workers of {format_bytes(limit)} need {format_bytes(workers * limit)}, but this machine has "
            f"{format_bytes(memory)}. Use fewer --workers or a smaller --memory."
        )


def _round_up(number: float) -> str:
    return f"{math.ceil(number / 2**28) / 4:g}GiB"


def _sides(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides))


def _intervals(axes: str, roi: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(f"{axis} {start}:{stop}" for axis, (start, stop) in zip(axes, roi, strict=True))
