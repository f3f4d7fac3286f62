"""What a run asks of its layout, and the memory that a layout takes: of the machine, and of a GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from unet_dask.axes import is_channel
from unet_dask.choices import BackendName
from unet_dask.engine.heap import GPU_SHARE, HEAP_SHARE, MANY_SHAPES_SHARE, STRIP_SHARES
from unet_dask.io.source import chunk_cache
from unet_dask.io.source.pieces import WITHOUT, Decoding
from unet_dask.model.cost import core_sides, nnpack_bytes, pass_bytes
from unet_dask.model.step import product
from unet_dask.model.strips import streams, strip_bytes, tile_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from unet_dask.io.source.volume import Source
    from unet_dask.model.header import NetworkSpec
    from unet_dask.model.spec import Spec
    from unet_dask.planning.arithmetic import Arithmetic
    from unet_dask.products import Product
    from unet_dask.tiling.region import AxisGrid, RegionGrid

    #: A size or a number of bytes of every layout that is looked at.
    Candidates = NDArray[np.float64]

#: Resident bytes of a worker that has imported everything and loaded the smallest network, measured on Linux: 300 MiB;
#: kernels of oneDNN, as many as it keeps, and what the heap holds beside large blocks: 32 MiB. Less without AVX-512.
PROCESS_BYTES = 332 << 20
#: The same of CUDA and its libraries, once a network was run on a GPU. Not measured.
CUDA_BYTES = 3 << 30
#: Copies of a region's input at once: what was read, as the network wants it, and mirrored; of the next region, what
#: was read and mirrored.
INPUT_COPIES, NEXT_INPUT = 3, 2
#: Copies of a region's output at once: whole, and as chunks that are encoded and written; of the next region, whole.
OUTPUT_COPIES, NEXT_OUTPUT = 2, 1
#: Bytes per voxel of numbering objects, beside the numbers, as a share of OUTPUT_COPIES: pieces and their mask.
_NUMBERING = 4
#: Times that pinned memory is taken of what goes through it: torch rounds up to a power of two; and keeps what was too
#: small for a tile, where a mask makes many shapes of them.
_PINNED, _PINNED_MANY_SHAPES = 2, 4
#: Numbers in an array that kernels of CUDA count in 32 bits; of larger ones some make nonsense, and some nothing.
_COUNTED = 1 << 31

#: Bytes of one layout, or of every candidate.
Bytes = TypeVar("Bytes", int, "NDArray[np.float64]")


@dataclass(frozen=True, slots=True)
class Memory(Generic[Bytes]):
    """Predicted peak of one worker, in bytes.

    Attributes
    ----------
    process : interpreter and libraries
    network : weights, and once more as the kernels want them
    activations : feature maps and probabilities of one tile, with what the heap holds beyond; of a tile that is run
        on a GPU only what goes there and what comes back
    regions : input, mask and output of a region, with copies, chunks of the source while they are decoded, and as
        they are stored those that were read last
    gpu : of the GPU's own memory: weights and feature maps
    """

    process: int
    network: int
    activations: Bytes
    regions: Bytes
    gpu: Bytes

    @property
    def total(self) -> Bytes:
        """The predicted peak of the worker's process; the GPU's memory is another."""
        return self.process + self.network + self.activations + self.regions


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
    mask_decoding : what reading it takes beside these
    statistics_bytes : of the pass that takes the statistics of the whole volume, before anything else; 0 without one
    """

    source: Source
    network: Spec
    outputs: tuple[Product, ...]
    arithmetic: Arithmetic
    roi: tuple[tuple[int, int], ...]
    units: tuple[int, ...]
    mask_bytes: float = 0.0
    mask_decoding: Decoding = WITHOUT
    statistics_bytes: int = 0

    def memory(
        self,
        tile: Sequence[Candidates],
        half_tile: Sequence[Candidates],
        longest: Sequence[Candidates],
        context: Sequence[int],
        others: int,
        *,
        next_one: NDArray[np.bool_],
    ) -> Memory[Candidates]:
        """Return the memory of tiles and regions, each size an array of candidates.

        Parameters
        ----------
        tile : input size per spatial axis
        half_tile : the same, of the tile on which two ways to run the network are compared
        longest : size of the longest region, per spatial axis
        context : voxels read beyond a region, per spatial axis
        others : planes of a region
        next_one : whether there is another region, which a worker has in hand meanwhile, see `engine.slots`
        """
        read = product([side + more for side, more in zip(longest, context, strict=True)])
        values = sum(
            (self.network.classes if output.has_channels else 1) * np.dtype(output.dtype).itemsize
            + (_NUMBERING if output.joined else 0)
            for output in self.outputs
        )
        window = others * self.network.channels * self.source.dtype.itemsize * read
        kept = min(chunk_cache.LIMIT, math.prod(self.source.shape) * self.source.dtype.itemsize)
        reading = window + self._decoding(window)
        inputs = INPUT_COPIES * window + next_one * np.maximum(NEXT_INPUT * window, reading)
        regions = (
            inputs
            + kept
            + others
            * product(longest)
            * ((OUTPUT_COPIES + next_one * NEXT_OUTPUT) * values + (1 + next_one) * self.mask_bytes)
        )
        place = self._with_gpu if self.arithmetic.on_gpu else self._without_gpu
        memory = place(tile, half_tile, regions)
        # What is read before the network is run takes the place of feature maps.
        first = np.maximum(reading + kept, self.statistics_bytes) - memory.activations
        return replace(memory, regions=np.maximum(regions, first))

    def _decoding(self, window: Candidates) -> Candidates:
        """Return the bytes that reading a window takes beside it, of the source and then of the mask."""
        taken = self.source.decoding.beside(window)
        if self.mask_bytes:
            taken = np.maximum(taken, self.mask_decoding.beside(window))
        return taken

    @property
    def decoded_bytes(self) -> int:
        """What reading the smallest window takes: the chunk that it lies in, as it is stored and decoded."""
        return int(self.source.decoding.beside(1))

    def countable(self, tile: Sequence[Candidates]) -> NDArray[np.bool_]:
        """Return whether kernels can count the numbers of each feature map of a tile; on a CPU they always can."""
        few: NDArray[np.bool_] = self.network.largest(tile) < _COUNTED
        return few if self.arithmetic.on_gpu else np.ones_like(few)

    def _without_gpu(
        self, tile: Sequence[Candidates], half_tile: Sequence[Candidates], regions: Candidates
    ) -> Memory[Candidates]:
        """Return the memory where the network is run in that of the machine."""
        how = self.arithmetic
        activations = self._activations(tile)
        weights = 2 * self.network.parameters * how.item
        if how.backend == BackendName.NNPACK:
            weights += nnpack_bytes(self.network)
        if how.compared:
            weights += 2 * self.network.parameters * 4
            activations = np.maximum(activations, self._comparison(half_tile))
        return Memory(PROCESS_BYTES, weights, activations, regions, np.zeros_like(activations))

    def _activations(self, tile: Sequence[Candidates]) -> Candidates:
        """Return the bytes of a tile's pass, with what the heap holds beyond."""
        how, share = self.arithmetic, MANY_SHAPES_SHARE if self.mask_bytes else HEAP_SHARE
        if how.on_cpu and streams(self.network):
            return _streamed(
                self.network, tile, how.item, averaged=how.averaged, many_shapes=bool(self.mask_bytes)
            )
        return (1 + share) * pass_bytes(self.network, tile, item=how.item, averaged=how.averaged)

    def _comparison(self, half_tile: Sequence[Candidates]) -> Candidates:
        """Return the same of a pass in float32."""
        if self.arithmetic.on_cpu and streams(self.network):
            return _streamed(self.network, half_tile, 4)
        return (1 + HEAP_SHARE) * pass_bytes(self.network, half_tile, item=4)

    def _with_gpu(
        self, tile: Sequence[Candidates], half_tile: Sequence[Candidates], regions: Candidates
    ) -> Memory[Candidates]:
        """Return the memory where the network is run in that of a GPU."""
        how, network, weights = self.arithmetic, self.network, self.network.parameters
        of_logits = 4 * network.classes
        kept = of_logits if how.averaged or not all(output.of_classes for output in self.outputs) else 1
        here, maps = self._beside_gpu(tile, kept), pass_bytes(network, tile, item=how.item)
        there = weights * how.item
        if how.compared:  # each network has pinned memory of its own; the classes of both are kept
            here = here + 2 * self._beside_gpu(half_tile, of_logits + 8)
            maps = np.maximum(maps, pass_bytes(network, half_tile, item=4))
            there += weights * 4
        return Memory(
            process=PROCESS_BYTES + CUDA_BYTES,
            network=2 * weights * 4,  # while it is loaded: as in the file, and a copy that is folded
            activations=here,
            regions=regions,
            gpu=there + (1 + GPU_SHARE) * maps,
        )

    def _beside_gpu(self, tile: Sequence[Candidates], kept: int) -> Candidates:
        """Return the bytes of a tile on its way to a GPU, and of what is `kept` of each voxel on the way back."""
        network, averaged = self.network, self.arithmetic.averaged
        pinned = _PINNED_MANY_SHAPES if self.mask_bytes else _PINNED
        image = 4 * network.channels * product(tile)
        core = product(core_sides(network, tile))
        # Averaged, a turned copy of the tile and the sum over passes are there too.
        return (1 + averaged + pinned) * image + (pinned * kept + averaged * 4 * network.classes) * core


def _streamed(
    network: NetworkSpec,
    tile: Sequence[Candidates],
    item: int,
    *,
    averaged: bool = False,
    many_shapes: bool = False,
) -> Candidates:
    """Return the bytes of a tile that passes in strips, with what the heap holds beyond."""
    beside = tile_bytes(network, tile, averaged=averaged)
    kept, alive = strip_bytes(network, tile, item=item)
    if many_shapes:
        return (1 + MANY_SHAPES_SHARE) * (beside + (kept + alive))
    of_kept, of_alive = STRIP_SHARES
    return beside + ((1 + of_kept) * kept + (1 + of_alive) * alive)


def predicted(demand: Demand, grid: RegionGrid) -> Memory[int]:
    """Return the memory that a worker needs for a layout."""
    dims = demand.network.dims
    spatial = grid.grids[-dims:]
    memory = demand.memory(
        [np.array(along.tile, np.float64) for along in spatial],
        [np.array(along.half_tile, np.float64) for along in spatial],
        [np.array(along.longest, np.float64) for along in spatial],
        [along.before + along.after for along in spatial],
        planes(grid.axes, grid.grids[:-dims], lambda along: along.longest),
        next_one=np.array(len(grid) > 1),
    )
    return Memory(
        memory.process, memory.network, int(memory.activations), int(memory.regions), int(memory.gpu)
    )


def planes(axes: str, grids: Sequence[AxisGrid], length: Callable[[AxisGrid], int]) -> int:
    """Return the product of a length over the axes that are neither channels nor seen by the network."""
    return math.prod(length(grid) for axis, grid in zip(axes, grids, strict=False) if not is_channel(axis))
