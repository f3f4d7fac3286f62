"""The last numbers of objects: those that depend on all of them, and not on each object alone.

Regions put objects aside in their final shape and say which there are, and which lie over each other in neighbouring
planes. The driver knows all of them then, and tells each region what they are called in the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.io.sink.place import SHAPED
from unet_dask.objects.pieces import renumbered
from unet_dask.objects.planes import Tally, added, linked, overlaps, sizes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from unet_dask.io.sink.store import Sink
    from unet_dask.objects.rule import ObjectRule
    from unet_dask.run.making import Index, Making

#: Axis along which the planes of a stack lie.
_PLANES = "z"


@dataclass(frozen=True, slots=True)
class Present:
    """The objects of a region.

    Attributes
    ----------
    size : voxels that each has there
    over : voxels of two that lie over each other in neighbouring planes; None unless planes are linked
    """

    size: Tally
    over: Tally | None


def present(sink: Sink, making: Making, index: Index) -> Present:
    """Return which objects a region has, on a worker."""
    box = making.box(index)
    if not making.rule.linked or _PLANES not in box.axes:
        return Present(sizes(sink.read_written(SHAPED, 0, box.slices)), None)  # type: ignore[arg-type] # numbers
    axis = box.axes.index(_PLANES)
    start, stop = box.named[_PLANES]
    further = box.along(_PLANES, (start, min(stop + 1, making.shape[axis])))
    planes = np.moveaxis(sink.read_written(SHAPED, 0, further.slices), axis, 0)
    return Present(sizes(planes[: stop - start]), overlaps(planes[:-1], planes[1:]))  # type: ignore[arg-type] # as above


class LastNames:
    """What the objects of a result are called in the end.

    Parameters
    ----------
    found : the objects of each region
    rule : by which they are made
    """

    def __init__(self, found: Mapping[Index, Present], rule: ObjectRule) -> None:
        self._names = {index: each.size.names for index, each in found.items()}
        size = added([each.size for each in found.values()])
        over = [each.over for each in found.values() if each.over is not None]
        none = np.zeros(0, np.uint64)
        self._links = linked(added(over), size, rule.linked) if over else (none, none)
        self._every = np.unique(renumbered(size.names, *self._links)) if rule.dense else none
        self._dense = rule.dense

    def of(self, index: Index) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return the numbers of a region's objects, ascending, and what they become.

        Counted from 1, objects are in the order of their first voxels.
        """
        names = self._names[index]
        new = renumbered(names, *self._links).astype(np.uint64)
        return names, (np.searchsorted(self._every, new) + 1).astype(np.uint64) if self._dense else new
