"""How many objects a result has: only that, in a moment."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.io.sink.place import require_manifest
from unet_dask.measuring.finished import open_finished
from unet_dask.objects.runs import runs
from unet_dask.products import PRODUCTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Voxels of a label image that are gone through for a picture or a row of a table, some seconds of work; of more
#: nothing is said.
MOST_COUNTED = 1 << 26


def object_count(url: str) -> int | None:
    """Return the number of objects of a finished result; None if it has none to count, or too many voxels.

    Parameters
    ----------
    url : path or URL of a result

    Raises
    ------
    SinkError
        If it is not finished, or damaged.
    """
    manifest = require_manifest(url)
    joined = next((entry for entry in manifest.arrays if PRODUCTS[entry.name].joined), None)
    if joined is None or prod(manifest.shape(joined)) > MOST_COUNTED:
        return None
    result = open_finished(url, joined.name)
    found = [_numbers(result.read(joined.name, box)) for box in result.blocks()]
    numbers = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
    return int(np.count_nonzero(numbers))


def _numbers(labels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the numbers in a block, each once."""
    flat = labels.reshape(-1)
    return np.unique(np.concatenate([flat[part][starts] for part, starts in runs(flat)]))
