"""Where a patch looks up its pixels: positions in an image, and the box that holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unet_dask.tiling.box import grown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.tiling.box import Window


def folded(at: NDArray[np.float32], shape: Sequence[int]) -> NDArray[np.float32]:
    """Mirror positions back into the image, as `tiling.mirror.mirrored` does for ranges.

    Parameters
    ----------
    at : (axes, *patch) in pixels
    shape : of the image

    Examples
    --------
    >>> folded(np.array([[-1.5, 2.0, 4.5]], np.float32), (4,))
    array([[1.5, 2. , 1.5]], dtype=float32)
    """
    found = np.empty_like(at)
    for row, line, side in zip(found, at, shape, strict=True):
        period = np.float32(max(2 * (side - 1), 1))
        position = np.abs(line) % period
        row[...] = np.minimum(position, period - position) if side > 1 else 0
    return found


def enclosing(at: NDArray[np.float32], shape: Sequence[int], *, margin: int = 0) -> Window:
    """Return the box of the pixels around positions within the image.

    Parameters
    ----------
    at : (axes, *patch) in pixels, none of them outside of the image
    shape : of the image
    margin : pixels to add on every side where the image has them

    Examples
    --------
    >>> enclosing(np.array([[1.5, 3.0]]), (9,))
    (slice(1, 4, None),)
    """
    tight = tuple(slice(int(np.floor(line.min())), int(np.ceil(line.max())) + 1) for line in at)
    return grown(tight, margin, shape)


def origin(box: Window, dims: int) -> NDArray[np.float32]:
    """Return the first pixel of a box as (axes, 1, ...), to subtract from positions of `dims` dimensions."""
    return np.array([span.start for span in box], dtype=np.float32).reshape(-1, *(1,) * dims)
