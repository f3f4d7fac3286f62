"""What the heap of a worker keeps, and when it is given back to the kernel.

Workers keep their heap (decision 4): tiles of one shape find again the blocks that the last one left. Tiles that are
fitted to a mask have many shapes, which do not fit into each other's gaps: kept, the heap grew beyond all plans, and
emptied before every tile, a quarter of the CPU time went into faulting its pages in again. So it keeps what the plan
grants: before a feature map for which there might be no room, what is free is given back. What is alive then is
in the plan, whatever the shapes (decision 12).
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

#: What the kept heap holds beyond the feature maps that are alive, as a share of them. Measured: 0.15 to 0.65, from one
#: time to the next for the same run, as its threads happen to allocate; the most is planned for.
HEAP_SHARE = 0.7
#: The same for strips of a tile, blocks of many sizes that take turns: as a share of what they keep, and of the maps of
#: one. Measured on twelve tiles in 2-D and 3-D: most within a tenth, the worst a third below (decision 14).
STRIP_SHARES = (0.3, 1.7)
#: The same for tiles of many shapes, which hardly ever need it given back. Left to itself it came to 0.9 to 1.3.
MANY_SHAPES_SHARE = 1.5
#: What a GPU holds beyond the feature maps that are alive, gaps and workspaces of convolutions, as a share of them.
#: Not measured: as much as on a host.
GPU_SHARE = 0.7

_granted = 0


def grant(resident: int) -> None:
    """Let this process hold so many resident bytes, by its plan; 0 for as many as there are."""
    global _granted  # noqa: PLW0603 # a process has one heap
    _granted = resident


def make_room(needed: int) -> None:
    """Give back what is free, if so many bytes more might be beyond what this process was granted."""
    if _granted and resident() + needed > _granted:
        give_back()


def give_back() -> None:
    """Give unused pages back to the kernel, those in the midst of the heap too; glibc alone keeps them so."""
    trim = _trim()
    if trim is not None:
        trim(0)


def resident() -> int:
    """Return the resident bytes of this process; they are asked for before every feature map."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 # 10 times as fast as by psutil
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return int(psutil.Process().memory_info().rss)


@cache
def _trim() -> Callable[[int], object] | None:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
