"""What making objects takes: the window around a region, as long as the longest object that is given a shape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.objects.rule import BASIN_BYTES, OBJECT_BYTES, REACH
from unet_dask.planning.demand import planes

if TYPE_CHECKING:
    from unet_dask.objects.rule import ObjectRule
    from unet_dask.tiling.region import RegionGrid


def window_bytes(grid: RegionGrid, rule: ObjectRule, *, dims: int, dtype: str) -> int:
    """Return the bytes that the voxels around a region take while its objects are made.

    Parameters
    ----------
    grid : of the regions
    rule : by which objects are made
    dims : axes along which the network looks
    dtype : of the numbers of objects
    """
    around = 2 * (1 + rule.grow if rule.threshold else REACH[dims] - 1 + rule.grow)
    each = BASIN_BYTES[dims] if rule.threshold else OBJECT_BYTES
    window = [min(along.longest + around, along.stop - along.start) for along in grid.grids[-dims:]]
    others = planes(grid.axes, grid.grids[:-dims], lambda along: along.longest)
    return others * math.prod(window) * (2 * np.dtype(dtype).itemsize + each)
