"""A crop in place of the network: what is left of a region's task is what a region costs beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from unet_dask.graph import RegionTask


@dataclass(frozen=True)
class IdentityTask(RegionTask):
    """The task of a region whose product is the last bit of its source; in a module that workers import."""

    def products(self, index: tuple[int, ...], block: Any, counter: Any = None) -> tuple[Any, ...]:
        """Return the region itself, after the same mirror as in a run."""
        from unet_dask.tiling.mirror import extend

        grid = self.grid
        read = grid.read(index)
        window = extend(
            block, origin=tuple(a for a, _ in grid.source_window(index)), read=read, shape=grid.shape
        )
        inside = tuple(slice(w[0] - r[0], w[1] - r[0]) for w, r in zip(grid.write(index), read, strict=True))
        return (np.ascontiguousarray(window[inside] & 1),)
