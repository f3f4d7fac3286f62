"""What the heap of a worker keeps, and when it is given back to the kernel.

Workers keep their heap (decision 4): tiles of one shape find again the blocks that the last one left. Tiles that are
fitted to a mask have many shapes, which do not fit into each other's gaps: kept, the heap grew beyond all plans. So it
is emptied before a tile for which the plan might have no room. Emptied before every tile, faulting the pages in again
took a quarter of the CPU time (decision 12).
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

#: What the kept heap holds beyond the feature maps that are alive, as a share of them. Measured: 0.15 to 0.65, from one
#: time to the next for the same run, as its threads happen to allocate; the most is planned for.
HEAP_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Heap:
    """What the process of a worker may hold, by its plan.

    Attributes
    ----------
    limit : resident bytes, at most
    item : bytes of a number within the network
    """

    limit: int
    item: int

    def make_room(self, alive: float) -> None:
        """Give back what is kept, unless there is room for a tile beside it.

        What is kept may be of use to the tile, or not: once some was given back, the heap is full of pages that are
        not resident, and nobody knows on which of them the tile will come to lie.

        Parameters
        ----------
        alive : bytes that the tile needs at once, see `model.cost.pass_bytes`
        """
        if _resident() + (1 + HEAP_SHARE) * alive > self.limit:
            give_back()


def give_back() -> None:
    """Give unused pages back to the kernel, those in the midst of the heap too; glibc alone keeps them so."""
    trim = _trim()
    if trim is not None:
        trim(0)


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


@cache
def _trim() -> Callable[[int], Any] | None:  # a function of C
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
