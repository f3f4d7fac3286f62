"""Room for the graph of basins, which the driver puts together: how many edges fit its memory.

Regions merge what they know all edges of, so what reaches the driver grows with their surface, and it is merged
neighbours first (:mod:`unet_dask.objects.hierarchy`). If it does not fit, that is said beforehand, and nothing is
lost: a process that the system ends for its memory says nothing.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from unet_dask.config import format_bytes
from unet_dask.errors import DriverMemoryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sized

    from unet_dask.objects.adjacency import Graph

#: Bytes that an edge takes that is kept, with what is known of its ends, and a pair of numbers that are one basin.
#: `benchmarks/driver_memory.py` measures both, and the next.
PER_EDGE, PER_PAIR = 128, 128
#: Bytes that an edge takes while it is merged: at most where one basin touches all others, which are merged one by one.
PER_MERGED = 1024


#: Limit and use of the control group that the process lives in, of both versions.
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def free_memory() -> int:
    """Return the bytes that this process may take yet: what the machine has free, and its control group."""
    free = [psutil.virtual_memory().available]
    for limit, used in _GROUPS:
        with contextlib.suppress(OSError, ValueError):  # there is no such group, or no limit
            free.append(int(Path(limit).read_text("ascii")) - int(Path(used).read_text("ascii")))
    return max(min(free), 0)


@dataclass
class Room:
    """What the driver has, and what is in it.

    Attributes
    ----------
    limit : bytes
    edges : that have come in
    pairs : of numbers that are one basin
    """

    limit: int
    edges: int = 0
    pairs: int = 0

    def take(self, graphs: Iterable[Graph], pairs: Sized = ()) -> None:
        """Count what comes in.

        Raises
        ------
        DriverMemoryError
            If it cannot be kept in this memory.
        """
        self.edges += sum(len(graph) for graph in graphs)
        self.pairs += len(pairs)
        self._require(0)

    def merge(self, edges: int) -> None:
        """Ask whether so many edges can be merged at a time.

        Raises
        ------
        DriverMemoryError
            If they cannot, beside all that has come in.
        """
        self._require(edges * PER_MERGED)

    def _require(self, more: int) -> None:
        needed = self.edges * PER_EDGE + self.pairs * PER_PAIR + more
        if needed > self.limit:
            raise DriverMemoryError(
                f"Basins of neighbouring regions have {self.edges:,} edges and more, and putting them together takes "
                f"{format_bytes(needed)} of this process, for which {format_bytes(self.limit)} are free. What is done "
                "is kept: free memory, or --resume on a machine that has more; or begin again with a larger --memory, "
                "as larger regions put more together by themselves."
            )
