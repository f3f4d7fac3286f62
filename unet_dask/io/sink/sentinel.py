"""The value of voxels that were never written: the fill value of every array of a sink, and one that no result has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def is_sentinel(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where values are those of voxels that were never written."""
    never: NDArray[np.bool_] = (
        np.isnan(values) if values.dtype.kind == "f" else values == np.iinfo(values.dtype).max
    )
    return never
