"""The value of voxels that were never written: the fill value of arrays of a result, which no product makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sentinel(dtype: str | np.dtype[Any]) -> float:
    """Return what a voxel holds until it is written: NaN, or the largest whole number. No product makes it.

    Examples
    --------
    >>> sentinel("uint8"), sentinel("float32")
    (255, nan)
    """
    kind = np.dtype(dtype)
    return float("nan") if kind.kind == "f" else int(np.iinfo(kind).max)


def is_sentinel(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where values are those of voxels that were never written."""
    never = np.isnan(values) if values.dtype.kind == "f" else values == sentinel(values.dtype)
    return np.asarray(never)
