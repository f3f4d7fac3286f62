"""The plan: everything a run will do, decided and priced before anything runs.

`make_plan` looks at headers and metadata only. The same source, model and memory give the same plan, and so the
same bytes, on one worker and on a hundred.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.axes import by_axis, has_depth, one_or_all, space_of, times, without_channel
from unet_dask.choices import Precision
from unet_dask.config import format_bytes
from unet_dask.engine.slots import REGION_SLOTS
from unet_dask.errors import GeometryError, MemoryPlanError
from unet_dask.io.sink.multiscale import pyramid
from unet_dask.io.sink.store import ArraySpec, shards_for
from unet_dask.io.source import statistics
from unet_dask.io.source.pieces import WITHOUT
from unet_dask.model.strips import require_streamed
from unet_dask.objects.rule import AS_PIECES, OBJECTS, ObjectRule
from unet_dask.planning.arithmetic import Arithmetic
from unet_dask.planning.demand import Demand, Memory, planes, predicted
from unet_dask.planning.fit import check_fit
from unet_dask.planning.layout import choose
from unet_dask.planning.masked import left
from unet_dask.planning.objects import window_bytes
from unet_dask.spacing import known_spacing, other_pixels, smallest_object
from unet_dask.tiling.valid import aligned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unet_dask.io.source.occupancy import Occupancy
    from unet_dask.io.source.volume import Source
    from unet_dask.model.header import ModelHeader
    from unet_dask.planning.masked import Left
    from unet_dask.products import Product
    from unet_dask.tiling.region import AxisGrid, RegionGrid


#: How tiles are fitted to a mask. Another way gives the same values but for rounding, so runs must not mix them.
_FITTED = "fitted 1"


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
    gpu_limit : bytes of the GPU's memory granted to a worker; 0 where there is none, or nobody knows
    skipped : regions that the mask does not touch; they are background
    left : what a mask leaves to be done; None without one
    rule : how objects are made
    """

    source: Source
    header: ModelHeader
    grid: RegionGrid
    outputs: tuple[Product, ...]
    arrays: tuple[ArraySpec, ...]
    memory: Memory[int]
    limit: int
    precision: str
    device: str
    gpu_limit: int = 0
    skipped: frozenset[tuple[int, ...]] = frozenset()
    left: Left | None = None
    rule: ObjectRule = AS_PIECES

    @property
    def dims(self) -> int:
        """Axes along which the network looks."""
        return self.header.network.dims

    @property
    def classes(self) -> int:
        """Classes of the network, background among them."""
        return self.header.network.classes

    @property
    def spatial(self) -> tuple[AxisGrid, ...]:
        """Grids of the axes along which the network looks."""
        return self.grid.grids[-self.header.network.dims :]

    @property
    def shapes(self) -> bool:
        """Whether objects are made, and are anything else than connected pieces."""
        return self.rule.changes and any(output.joined for output in self.outputs)

    @property
    def planes(self) -> int:
        """How many images the network is run on: time points, and slices of a volume for a 2-D network."""
        dims = self.header.network.dims
        return planes(self.grid.axes, self.grid.grids[:-dims], lambda along: along.stop - along.start)

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
        """Number of tiles that are run; about, if they are fitted to a mask."""
        if self.left:
            return round(self.left.tiles)
        return self.planes * math.prod(grid.tile_count for grid in self.spatial) if len(self.grid) else 0

    @property
    def flop(self) -> float:
        """Floating-point operations of the run."""
        return self.left.flop if self.left else float(self.tiles) * self.header.network.flop(self.tile)

    @property
    def redundancy(self) -> float:
        """Operations of the run, relative to one pass over the whole padded volume."""
        network = self.header.network
        whole = tuple(
            aligned(grid.stop - grid.start + grid.phase, context.stride) + context.slack + 2 * context.halo
            for grid, context in zip(self.spatial, network.contexts, strict=True)
        )
        one_pass = float(self.planes) * network.flop([np.array(side, np.float64) for side in whole])
        return self.flop / float(one_pass) if one_pass else 1.0

    @property
    def disk_bytes(self) -> int:
        """Uncompressed bytes of the sink."""
        return sum(
            math.prod(level.shape) * np.dtype(array.dtype).itemsize
            for array in self.arrays
            for level in array.levels
        )

    def within(self, occupancy: Occupancy) -> Plan:
        """Return the plan of the same regions, of which only what a mask holds is run."""
        work = left(occupancy, self.grid, self.header.network)
        return replace(self, skipped=occupancy.untouched(self.grid), left=work)

    def making(self, rule: ObjectRule) -> Plan:
        """Return the plan of a run whose objects are made by a rule.

        Raises
        ------
        MemoryPlanError
            If shaping the objects around a region takes more than a worker may use.
        """
        plan = replace(self, rule=rule)
        if not plan.shapes or not (rule.shapes or rule.threshold):
            return plan
        (dtype,) = (output.dtype for output in self.outputs if output.joined)
        needed = self.memory.process + self.memory.network
        needed += window_bytes(self.grid, rule, dims=self.dims, dtype=dtype)
        if needed > self.limit:
            raise MemoryPlanError(
                f"Objects around a region of {times(self.region)} take {format_bytes(needed)}, more than the "
                f"{format_bytes(self.limit)} of a worker. Give it more with --memory, or smaller regions with --region."
            )
        more = max(needed - self.memory.total, 0)
        return replace(plan, memory=replace(self.memory, regions=self.memory.regions + more))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know: that pixels are of another size than in training, and what is odd of a network."""
        axes = "zyx"[-self.header.network.dims :]
        found = known_spacing(self.source.spacing, self.source.unit, axes)
        return (*other_pixels((self.header.spacing, self.header.unit), found), *self.header.network.notes)

    def fingerprint(self) -> dict[str, str]:
        """Return the part of the run's fingerprint that the plan decides."""
        return {
            **({"plan.tiling": _FITTED} if self.left else {}),
            "plan.roi": str(self.grid.roi),
            "plan.region": str(self.region),
            "plan.tile": str(self.tile),
            "plan.chunks": str([array.chunks for array in self.arrays]),
            "plan.shards": str([array.shards for array in self.arrays]),
            "plan.products": str([(output.name, output.dtype) for output in self.outputs]),
            **({OBJECTS: self.rule.record} if self.shapes else {}),
            "plan.precision": self.precision,
            "plan.device": self.device,
        }

    def describe(self) -> Iterator[tuple[str, str]]:
        """Yield what a user should know before she pays: label and text."""
        source, network = self.source, self.header.network
        sizes = times(f"{axis} {size}" for axis, size in source.sizes.items())
        yield "source", f"{sizes}, {source.dtype}; axes {source.axes} ({source.origin_of_axes})"
        if self.grid.roi != tuple((0, size) for size in self.grid.shape):
            yield "region of interest", self.grid.whole.text
        yield (
            "network",
            f"{network.text}; halo {one_or_all(network.halo)}, lattice {one_or_all(network.stride)}",
        )
        yield "regions", f"{len(self.grid)} of {times(self.region)} ({self.grid.axes})"
        if self.left:
            yield (
                "mask",
                f"{len(self.skipped)} regions are background, and not run; in the others tiles are fitted to it",
            )
        most = "about {} of at most" if self.left else "{} of"
        yield "tiles", f"{most.format(self.tiles)} {times(self.tile)} in, {times(self.core)} out"
        yield "work", f"{self.flop / 1e12:.2f} TFLOP, {self.redundancy:.2f} x one pass over the whole volume"
        granted = format_bytes(self.gpu_limit) if self.gpu_limit else "unknown"
        on_gpu = f"; of the GPU {format_bytes(self.memory.gpu)} (limit {granted})" if self.memory.gpu else ""
        yield (
            "memory",
            (
                f"{format_bytes(self.memory.total)} per worker (limit {format_bytes(self.limit)}): process "
                f"{format_bytes(self.memory.process)}, network {format_bytes(self.memory.network)}, activations "
                f"{format_bytes(self.memory.activations)}, regions {format_bytes(self.memory.regions)}{on_gpu}"
            ),
        )
        yield "disk", f"at most {format_bytes(self.disk_bytes)}, before compression"
        if any(output.joined for output in self.outputs):
            yield "objects", self.rule.text
            axes = space_of(self.source.axes)[-self.header.network.dims :]
            yield from smallest_object(self.rule.min_size, self.source.spacing, self.source.unit, axes)
        yield "precision", f"{self.precision} on {self.device}"
        yield from (("note", note) for note in self.notes)

    def to_json(self) -> dict[str, object]:
        """Return the plan's figures for programs."""
        return {
            "axes": self.grid.axes,
            "shape": list(self.grid.shape),
            "roi": [list(span) for span in self.grid.roi],
            "regions": len(self.grid),
            "region": list(self.region),
            "skipped": len(self.skipped),
            "tiles": self.tiles,
            "tile": list(self.tile),
            "core": list(self.core),
            "halo": list(self.header.network.halo),
            # Where all poolings are by 2 the halo tells the lattice, and results of before are not told apart.
            **(
                {"lattice": list(self.header.network.stride)} if not self.header.network.tells_lattice else {}
            ),
            "flop": self.flop,
            "redundancy": self.redundancy,
            "worker_bytes": self.memory.total,
            "limit_bytes": self.limit,
            "card_bytes": self.memory.gpu,
            "card_limit_bytes": self.gpu_limit,
            "disk_bytes": self.disk_bytes,
            "precision": self.precision,
            "device": self.device,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Wanted:
    """Sizes that the user chose herself, in voxels; None leaves the choice to the plan.

    Attributes
    ----------
    tile : what a tile contributes, per axis along which the network looks
    region : per axis along which the network looks
    chunks : of the result, per spatial axis
    """

    tile: tuple[int, ...] | None = None
    region: tuple[int, ...] | None = None
    chunks: tuple[int, ...] | None = None


def make_plan(
    source: Source,
    header: ModelHeader,
    *,
    outputs: tuple[Product, ...],
    limit: int,
    roi: tuple[tuple[int, int], ...] | None = None,
    arithmetic: Arithmetic | None = None,
    wanted: Wanted | None = None,
    occupancy: Occupancy | None = None,
) -> Plan:
    """Choose regions and tiles for a source, a network and a memory limit.

    Parameters
    ----------
    source : to segment
    header : of the model
    outputs : products to keep
    limit : bytes that one worker may use
    roi : (start, stop) per canonical axis; None for everything
    arithmetic : of the network; None for float32 by torch on the CPU
    wanted : sizes that the user chose herself
    occupancy : of the mask; None to run everything

    Raises
    ------
    ModelError
        If the network does not fit the source's axes or channels.
    MemoryPlanError
        If not even the smallest tile fits; the message says what it would need.
    """
    check_fit(source, header)
    wanted, arithmetic = wanted or Wanted(), arithmetic or Arithmetic()
    if arithmetic.precision == Precision.INT8:
        require_streamed(header.network)
    demand = Demand(
        source,
        header.network,
        outputs,
        arithmetic,
        roi or tuple((0, size) for size in source.shape),
        write_units(source.axes, header.network.dims, wanted.chunks),
        mask_bytes=occupancy.voxel_bytes if occupancy else 0.0,
        mask_decoding=occupancy.decoding if occupancy else WITHOUT,
        statistics_bytes=REGION_SLOTS * statistics.block_bytes(source)
        if header.normalisation.of_volume
        else 0,
    )
    grid = choose(demand, limit=limit, tile=wanted.tile, region=wanted.region)
    memory = predicted(demand, grid)
    plan = Plan(
        source=source,
        header=header,
        grid=grid,
        outputs=outputs,
        arrays=tuple(
            _array(output, source, grid, demand.units, header.network.classes) for output in outputs
        ),
        memory=memory,
        limit=limit,
        precision=arithmetic.precision,
        device=arithmetic.device,
        gpu_limit=arithmetic.gpu_limit,
    )
    return plan.within(occupancy) if occupancy else plan


def write_units(axes: str, dims: int, chunks: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """Return the chunk sizes of a sink, which regions are multiples of, per canonical axis.

    Parameters
    ----------
    axes : canonical, of the source
    dims : of the network
    chunks : wanted sizes per spatial axis of the source, instead of the defaults
    """
    side = {"t": 1, "c": 1, "z": 1, "y": 512, "x": 512}
    if dims == 3:
        side |= {"z": 128, "y": 128, "x": 128}
    elif has_depth(axes):
        side |= {"z": 8, "y": 256, "x": 256}
    if chunks is not None:
        spatial = space_of(axes)
        if len(chunks) != len(spatial) or min(chunks) < 1:
            raise GeometryError(
                f"Chunks of {times(chunks)} were asked for, but the volume has the axes {', '.join(spatial)}. Give "
                "one size of at least 1 for each."
            )
        side |= by_axis(spatial, chunks)
    return tuple(side[axis] for axis in axes)


def _array(
    output: Product, source: Source, grid: RegionGrid, units: tuple[int, ...], classes: int
) -> ArraySpec:
    """Describe the array of a product; it covers the region of interest."""
    shape = by_axis(grid.axes, (stop - start for start, stop in grid.roi))
    chunk = by_axis(grid.axes, units)
    region = by_axis(grid.axes, (along.step for along in grid.grids))
    if output.has_channels:
        shape["c"], chunk["c"], region["c"] = classes, 1, classes
    axes = grid.axes if output.has_channels else without_channel(grid.axes)
    sizes = tuple(shape[axis] for axis in axes)
    chunks = tuple(max(min(chunk[axis], shape[axis]), 1) for axis in axes)
    if output.has_channels:
        region["c"] = 1
    shards = shards_for(sizes, chunks, [region[axis] for axis in axes])
    return ArraySpec(output.name, axes, output.dtype, chunks, shards, pyramid(axes, sizes, source.spacing))
