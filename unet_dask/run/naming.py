"""The last numbers of objects: those that depend on all of them, and not on each object alone.

Regions put objects aside in their final shape and say which there are. The driver knows all of them then, and tells
each region what they are called in the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.io.sink.place import SHAPED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from unet_dask.io.sink.store import Sink
    from unet_dask.objects.rule import ObjectRule
    from unet_dask.run.making import Index, Making


@dataclass(frozen=True, slots=True)
class Present:
    """The objects of a region.

    Attributes
    ----------
    names : (n) their numbers, ascending
    """

    names: NDArray[np.uint64]


def present(sink: Sink, making: Making, index: Index) -> Present:
    """Return which objects a region has, on a worker."""
    values = sink.read_written(SHAPED, 0, making.box(index).slices)
    names = np.unique(values).astype(np.uint64)
    return Present(names[names > 0])


class LastNames:
    """What the objects of a result are called in the end.

    Parameters
    ----------
    found : the objects of each region
    rule : by which they are made
    """

    def __init__(self, found: Mapping[Index, Present], rule: ObjectRule) -> None:
        self._found = found
        self._dense = rule.dense
        every = [each.names for each in found.values()]
        self._names = np.unique(np.concatenate([np.zeros(0, np.uint64), *every]))

    def of(self, index: Index) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return the numbers of a region's objects, ascending, and what they become.

        Counted from 1, objects are in the order of their first voxels.
        """
        names = self._found[index].names
        if not self._dense:
            return names, names
        return names, (np.searchsorted(self._names, names) + 1).astype(np.uint64)
