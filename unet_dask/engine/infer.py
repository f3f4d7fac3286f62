"""From the window of a region to its probabilities or classes: the overlap-tile strategy.

The outputs of tiles are cores on the lattice of the volume, each computed with its full context; nothing is blended
and nothing depends on where the tiles are cut. Without a mask all have one shape, that of `tiling.region`; within one
they are fitted to what it holds (`tiling.cover`).
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from itertools import product
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from unet_dask.engine.augment import symmetries
from unet_dask.engine.cache import network
from unet_dask.engine.finite import require_finite_logits
from unet_dask.engine.heap import give_back
from unet_dask.engine.ranges import BeyondRangesError
from unet_dask.model.cost import pass_price
from unet_dask.model.file import normalise
from unet_dask.tiling.cover import fitted
from unet_dask.tiling.valid import aligned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from unet_dask.engine.augment import Symmetry
    from unet_dask.engine.backend import Backend
    from unet_dask.engine.cache import NetworkKey
    from unet_dask.model.header import Normalisation
    from unet_dask.model.spec import Spec
    from unet_dask.products import Product
    from unet_dask.tiling.box import Interval
    from unet_dask.tiling.cover import Spans
    from unet_dask.tiling.region import AxisGrid


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the pixel-wise soft-max over the first axis (paper, section 3), in the place of the logits.

    It goes class by class: these lie side by side in memory, and numpy sums short rows ten times as slowly.
    """
    logits -= reduce(np.maximum, logits)
    np.exp(logits, out=logits)
    logits /= reduce(np.add, logits)
    return logits


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of classes that do not exclude each other, and of background, which is none of them."""
    np.negative(logits, out=logits)
    with np.errstate(over="ignore"):  # of -100 the exponential is infinite, and its probability 0
        np.exp(logits, out=logits)
    logits += 1
    return with_background(np.reciprocal(logits, out=logits))


def as_they_are(shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities that the network has made itself, within rounding."""
    return np.clip(shares, 0, 1, out=shares)


def with_background(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities of classes that do not exclude each other, and first of background.

    It is as probable as the most probable of them is not: so it is the class of a pixel where all are below a half.
    """
    probabilities = as_they_are(probabilities)
    return np.concatenate([1 - probabilities.max(axis=0, keepdims=True), probabilities])


#: What makes probabilities of what the network makes, by its head.
ACTIVATIONS = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "shares": as_they_are,
    "independent": with_background,
}


@runtime_checkable
class Classifier(Protocol):
    """A backend that also makes of logits what is kept of them, where they are: less has to come back from a GPU.

    Both raise a `DataError` if logits are not finite, and what they return is the caller's until the next call.
    """

    def probabilities(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities of (classes, *core) for a normalised tile of (c, *input)."""
        ...

    def classes(self, tile: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the classes of the largest of these probabilities, (*core), the first of equal ones."""
        ...


@dataclass(slots=True)
class Counter:
    """Counts tiles.

    Attributes
    ----------
    float32_fallbacks : that were run in float32 because they reach beyond what bytes can say
    """

    float32_fallbacks: int = 0


@dataclass(frozen=True, slots=True)
class Pass:
    """How a tile of grey values becomes probabilities.

    Attributes
    ----------
    backend : the loaded network
    normalisation : constants of the whole volume
    spec : of the network
    tta : symmetries to average over, see `engine.augment`
    fallback : the network in float32, for tiles that are not for bytes; None if there is none
    counter : of what was run otherwise than was asked
    """

    backend: Backend
    normalisation: Normalisation
    spec: Spec
    tta: str = "none"
    fallback: NetworkKey | None = None
    counter: Counter = field(default_factory=Counter)


def infer(
    window: NDArray[np.generic],
    *,
    grids: tuple[AxisGrid, ...],
    write: tuple[Interval, ...],
    through: Pass,
    outputs: tuple[Product, ...],
    inside: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.generic], ...]:
    """Segment one region.

    Parameters
    ----------
    window : (*planes, c, *space), everything the region reads, mirrored where it lies beyond the volume
    grids : of the spatial axes
    write : voxels of the region along the spatial axes
    through : what to do with each tile
    outputs : products to make
    inside : (*planes, *space), what to segment; the rest becomes background, and is not run where tiles can be
        cut around it. None for everything

    Returns
    -------
    one array per product: (*planes, *space) for classes, (*planes, classes, *space) for probabilities
    """
    dims = len(grids)
    planes = window.shape[: -dims - 1]
    lengths = tuple(stop - start for start, stop in write)
    flat = window.reshape(-1, *window.shape[-dims - 1 :])
    results = [
        np.empty((len(flat), *((through.spec.classes,) if each.has_channels else ()), *lengths), each.dtype)
        for each in outputs
    ]
    chosen = symmetries(through.tta, dims)
    wanted = None if inside is None else inside.reshape(-1, *lengths)
    every = list(product(*(grid.cores(n) for grid, n in zip(grids, lengths, strict=True))))

    def run(plane: int, core: Spans, through: Pass) -> None:
        source, target = _kept(core, grids, lengths)
        tile = _tile(flat[plane], core, grids, through.normalisation)
        rooms = [result[plane][(..., *target)] for result in results]
        _keep(through, tile, source, chosen, list(zip(outputs, rooms, strict=True)))

    for plane in range(len(flat)):
        for core in every if wanted is None else _around(wanted[plane], grids, through.spec):
            _as_it_can(partial(run, plane), core, through, grids, lengths)
    if wanted is not None:
        for output, result in zip(outputs, results, strict=True):
            output.clear(result, ~wanted)
    return tuple(result.reshape(*planes, *result.shape[1:]) for result in results)


def _keep(
    through: Pass,
    tile: NDArray[np.float32],
    part: tuple[slice, ...],
    chosen: tuple[Symmetry, ...],
    wanted: list[tuple[Product, NDArray[np.generic]]],
) -> None:
    """Run a tile, and write what is kept of a part of its core to where it is wanted."""
    backend = through.backend
    if (
        isinstance(backend, Classifier)
        and len(chosen) == 1
        and all(output.of_classes for output, _ in wanted)
    ):
        classes = backend.classes(tile)[part]
        for _, room in wanted:
            room[...] = classes
        return
    probabilities = _probabilities(through, tile, chosen)[(slice(None), *part)]
    for output, room in wanted:
        output.keep(probabilities, room)


def _probabilities(
    through: Pass, tile: NDArray[np.float32], chosen: tuple[Symmetry, ...]
) -> NDArray[np.float32]:
    """Return the mean probabilities of a tile over symmetries."""
    if len(chosen) == 1:
        return _of_one_pass(through, tile)
    core = [side - 2 * halo for side, halo in zip(tile.shape[1:], through.spec.halo, strict=True)]
    # Made before the first pass: later, it would lie in the midst of what the next one wants again.
    total = np.zeros((through.spec.classes, *core), np.float32)
    for symmetry in chosen:
        total += symmetry.turn_back(_of_one_pass(through, symmetry.turn(tile)))
    total /= np.float32(len(chosen))
    return total


def _of_one_pass(through: Pass, tile: NDArray[np.float32]) -> NDArray[np.float32]:
    backend = through.backend
    if isinstance(backend, Classifier):
        return backend.probabilities(tile)
    logits = backend.logits(tile)
    require_finite_logits(finite=bool(np.isfinite(logits).all()))
    return ACTIVATIONS[through.spec.head](logits)


def _as_it_can(
    run: Callable[[Spans, Pass], None],
    core: Spans,
    through: Pass,
    grids: tuple[AxisGrid, ...],
    lengths: tuple[int, ...],
) -> None:
    """Run a tile; in smaller ones in float32 where its feature maps reach beyond what bytes can say."""
    with suppress(BeyondRangesError):
        run(core, through)
        return
    # Out of reach of the exception, which holds the maps of bytes.
    assert through.fallback is not None
    give_back()
    through.counter.float32_fallbacks += 1
    in_float32 = replace(through, backend=network(through.fallback))
    for piece in _pieces(core, grids, lengths):
        run(piece, in_float32)


def _pieces(core: Spans, grids: tuple[AxisGrid, ...], lengths: tuple[int, ...]) -> Iterator[Spans]:
    """Yield parts of a core that fit the memory of a comparison, in which float32 was planned for.

    Where the core reaches beyond the region there are none.
    """
    cuts = []
    for (start, stop), grid, length in zip(core, grids, lengths, strict=True):
        side = grid.half_tile - (grid.tile - grid.core)
        end = min(stop, aligned(grid.phase + length, grid.context.stride))
        cuts.append([(at, min(at + side, end)) for at in range(start, end, side)])
    yield from product(*cuts)


def _around(wanted: NDArray[np.bool_], grids: tuple[AxisGrid, ...], spec: Spec) -> list[Spans]:
    """Return the cores of tiles around what is wanted of a plane, or a volume.

    The largest come first: each finds room in the heap where one before it lay.
    """
    cells = wanted
    for axis, grid in enumerate(grids):
        starts = [start for start, _ in grid.cells(wanted.shape[axis])]
        cells = _any_between(cells, starts, axis)
    cores = fitted(cells, grids, wanted.shape, partial(pass_price, spec))
    return sorted(cores, key=lambda core: -math.prod(stop - start for start, stop in core))


def _any_between(wanted: NDArray[np.bool_], starts: Sequence[int], axis: int) -> NDArray[np.bool_]:
    """Return whether anything is wanted from each start to the next, along an axis."""
    if axis == wanted.ndim - 1 or wanted.shape[-1] % 8:
        return np.logical_or.reduceat(wanted, starts, axis=axis)
    eight = np.ascontiguousarray(wanted).view(np.uint64)  # booleans are bytes of 0 or 1
    return np.bitwise_or.reduceat(eight, starts, axis=axis).view(np.bool_)


def _tile(
    plane: NDArray[np.generic], core: Spans, grids: tuple[AxisGrid, ...], normalisation: Normalisation
) -> NDArray[np.float32]:
    """Return the network input of a core.

    Where the region is shorter than the tile, the rest is zero: no voxel that is kept looks there.
    """
    whole = tuple(
        stop - start + grid.tile - grid.core for (start, stop), grid in zip(core, grids, strict=True)
    )
    inside = tuple(slice(start, start + side) for (start, _), side in zip(core, whole, strict=True))
    part = normalise(plane[(slice(None), *inside)], normalisation)
    if part.shape[1:] == whole:
        return part
    tile = np.zeros((len(part), *whole), np.float32)
    tile[(slice(None), *map(slice, part.shape[1:]))] = part
    return tile


def _kept(
    core: Spans, grids: tuple[AxisGrid, ...], lengths: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the part of a tile's output that belongs to the region, and its place there."""
    source, target = [], []
    for each, grid, length in zip(core, grids, lengths, strict=True):
        start, stop = grid.kept(each, length)
        target.append(slice(start, stop))
        source.append(slice(start - each[0] + grid.phase, stop - each[0] + grid.phase))
    return tuple(source), tuple(target)
