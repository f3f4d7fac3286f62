"""Where the voxels of a result lie: in pixels of the finest level of its source, and in micrometres.

A result may be of a part of its source, and of a coarser level of it. Whoever opens the source in another program sees
its finest level from its first pixel on; so that is what pixels are counted in.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.axes import space_of
from unet_dask.io.source.volume import open_source
from unet_dask.spacing import metres

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.io.source.volume import Source
    from unet_dask.measuring.finished import Finished


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the voxels of a label image lie.

    Attributes
    ----------
    axes : of the label image
    dims : last axes along which an object extends
    shape : of the label image
    offset : of its first voxel, in pixels of the level of the source that it was made of
    factor : pixels of the finest level per pixel of that level; whole numbers where these fit
    micrometres : size of a voxel along the last axes of space, at least those of an object, () if these are not known
    origin : where the centre of the first voxel lies, in micrometres likewise
    """

    axes: str
    dims: int
    shape: tuple[int, ...]
    offset: tuple[int, ...]
    factor: tuple[float, ...]
    micrometres: tuple[float, ...] = ()
    origin: tuple[float, ...] = ()

    @property
    def planes(self) -> str:
        """Axes that count planes, each with objects of its own."""
        return self.axes[: len(self.axes) - self.dims]

    def centres(self, axis: int, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where centres of voxels, or means of them, lie in pixels of the finest level.

        Examples
        --------
        >>> Frame("yx", 2, (9, 9), (10, 0), (4, 1)).centres(0, np.array([0.0, 1.0])).tolist()
        [41.5, 45.5]
        """
        factor = self.factor[axis]
        return np.asarray(places * factor + (self.offset[axis] * factor + (factor - 1) / 2))

    def edges(self, axis: int, places: NDArray[np.int64]) -> NDArray[np.generic]:
        """Return where edges before voxels lie in pixels of the finest level: whole numbers, if factors are."""
        return np.asarray((places + self.offset[axis]) * self.factor[axis])

    def physical(self, axis: int, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where centres of voxels lie in micrometres."""
        at = axis - (len(self.axes) - len(self.micrometres))
        return np.asarray(self.origin[at] + places * self.micrometres[at])

    @property
    def pixels(self) -> float:
        """Pixels, or voxels, of the finest level per voxel of the label image."""
        return _product(self.factor[-self.dims :])

    @property
    def size(self) -> float | None:
        """Area or volume of a voxel in square or cubic micrometres; None if it is not known."""
        return _product(self.micrometres[-self.dims :]) if self.micrometres else None

    @property
    def measure(self) -> str:
        """What the size of an object is called in micrometres."""
        return "area_um2" if self.dims == 2 else "volume_um3"


def frame_of(result: Finished, source: Source | None) -> Frame:
    """Return where the voxels of a result lie; its source is asked for its finest level.

    Parameters
    ----------
    result : that is measured
    source : None if it is not at hand: pixels are then those of the level that was segmented
    """
    axes, extent = result.axes, result.manifest.plan.extent
    factors = {} if source is None else _factors(source)
    found = open_source(result.url, key=posixpath.join(result.name, "0"), axes=axes)
    known = _micrometres(found, result.dims)
    return Frame(
        axes,
        result.dims,
        result.labels.shape,
        tuple(extent[axis][0] for axis in axes),
        tuple(factors.get(axis, 1) for axis in axes),
        tuple(found.spacing[axis] * each for axis, each in known.items()),
        tuple(found.translation[axis] * each for axis, each in known.items()),
    )


def _micrometres(found: Source, dims: int) -> dict[str, float]:
    """Return the micrometres of a unit along the last axes of space that have one; {} unless all of an object have."""
    known: dict[str, float] = {}
    for axis in reversed(space_of(found.axes)):
        metre = metres(found.unit.get(axis))
        if metre is None:
            break
        known = {axis: 1e6 * metre} | known
    return known if len(known) >= dims else {}


def _factors(source: Source) -> dict[str, float]:
    """Return how many pixels of the finest level lie along one of a level."""
    if not source.level or not source.spec.key:
        return {}
    spec, group = source.spec, posixpath.dirname(source.spec.key)
    finest = open_source(spec.url, key=group or None, axes=spec.axes, level=0)
    return {axis: _factor(finest.sizes[axis], size) for axis, size in source.sizes.items()}


def _factor(fine: int, coarse: int) -> float:
    """Return by how much an axis is coarser: the whole number that it was divided by, if there is one.

    Examples
    --------
    >>> _factor(1001, 250), _factor(1001, 501), _factor(100, 40)
    (4, 2, 2.5)
    """
    whole = round(fine / max(coarse, 1))
    return whole if abs(whole * coarse - fine) < whole else fine / coarse


def _product(numbers: Sequence[float]) -> float:
    found: float = 1
    for number in numbers:
        found *= number
    return found
