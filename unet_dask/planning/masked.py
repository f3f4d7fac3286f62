"""What a mask leaves to be done: the regions that it touches, and the tiles that are fitted to it.

Workers fit tiles to the mask itself. Here they are fitted to the pooled mask of `io.source.occupancy`, to know ahead
what a run costs; of very many images some are looked at, and stand for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.axes import is_channel
from unet_dask.model.cost import pass_price
from unet_dask.tiling.cover import fitted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unet_dask.io.source.occupancy import Occupancy
    from unet_dask.model.spec import Spec
    from unet_dask.tiling.box import Interval
    from unet_dask.tiling.region import RegionGrid

#: Images, the planes or volumes of a region, that are looked at.
LOOKED_AT = 256


@dataclass(frozen=True, slots=True)
class Left:
    """What a mask leaves of a layout.

    Attributes
    ----------
    regions : that it touches
    tiles : that are fitted to it, about
    flop : of these tiles
    """

    regions: int
    tiles: float
    flop: float


def left(occupancy: Occupancy, grid: RegionGrid, network: Spec) -> Left:
    """Return what a mask leaves of a layout.

    Parameters
    ----------
    occupancy : of the mask
    grid : of all regions
    network : to run
    """
    if not len(grid):
        return Left(0, 0, 0)
    along = [
        *_planes(grid, network.dims),
        *(axis_grid.regions() for axis_grid in grid.grids[-network.dims :]),
    ]
    touched = np.expand_dims(occupancy.touched(along), grid.axes.index("c"))
    images = np.flatnonzero(touched)  # there may be millions
    stride = max(len(images) / LOOKED_AT, 1)
    chosen = images[(np.arange(min(len(images), LOOKED_AT)) * stride).astype(int)]
    indices = zip(*np.unravel_index(chosen, touched.shape), strict=True)
    boxes = ([spans[at] for spans, at in zip(along, index, strict=True)] for index in indices)
    sides = [tile for box in boxes for tile in _tiles(occupancy, grid, network, box)]
    return Left(
        regions=int(np.count_nonzero(occupancy.regions(grid))),
        tiles=stride * len(sides),
        flop=stride * sum(float(network.flop(tile)) for tile in sides),
    )


def _planes(grid: RegionGrid, dims: int) -> Iterator[list[Interval]]:
    """Yield the planes of a volume along each axis along which the network does not look; all channels are one."""
    for name, axis_grid in zip(grid.axes, grid.grids[:-dims], strict=False):
        yield (
            [(0, 1)] if is_channel(name) else [(at, at + 1) for at in range(axis_grid.start, axis_grid.stop)]
        )


def _tiles(
    occupancy: Occupancy, grid: RegionGrid, network: Spec, box: Sequence[Interval]
) -> Iterator[tuple[int, ...]]:
    """Yield the input size of every tile that is fitted to an image, which is a plane or volume of a region."""
    planes, spans = box[: -network.dims], box[-network.dims :]
    space = grid.grids[-network.dims :]
    lengths = [stop - start for start, stop in spans]
    cells = [
        [(start + a, start + b) for a, b in axis_grid.cells(length)]
        for axis_grid, (start, _), length in zip(space, spans, lengths, strict=True)
    ]
    wanted = occupancy.touched([*([plane] for plane in planes), *cells]).reshape(
        [len(spans) for spans in cells]
    )
    for core in fitted(wanted, space, lengths, partial(pass_price, network)):
        yield tuple(
            b - a + axis_grid.tile - axis_grid.core for (a, b), axis_grid in zip(core, space, strict=True)
        )
