"""What the heap keeps is given back to the kernel where it would not fit what comes next.

Workers keep their heap (decision 4): tiles of one shape find again the blocks that the last one left. Tiles that are
fitted to a mask have many shapes, whose feature maps do not fit into each other's gaps: kept, the heap grew beyond
all plans. So between two shapes it is emptied; what that costs, faulting pages in again, is up to a fifth of the time.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def give_back() -> None:
    """Give unused pages back to the kernel, those in the midst of the heap too; glibc alone keeps them so."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], Any] | None:  # a function of C
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
