"""The paper's extrapolation at the border of the image: mirroring (section 2, Fig. 2).

*Mirror* means, here and everywhere in this project, numpy's ``"reflect"``: the edge sample is not
repeated, as in the authors' released code. dask's ``boundary="reflect"`` is numpy's ``"symmetric"``,
which repeats it; it would shift the mirror image by one sample and must not be used.

A worker receives a window of the volume that was clipped at the border. It extends the window by looking
up mirrored positions in it, which equals padding the whole volume, also where an axis is shorter than
the halo and the mirror image has to be mirrored again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unet_dask.errors import GeometryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def mirrored(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Return the position within ``[0, size)`` that each position of ``[start, stop)`` mirrors.

    Parameters
    ----------
    start, stop : window in samples, which may extend beyond the axis on both sides
    size : length of the axis, at least 1

    Returns
    -------
    positions, as many as the window is long

    Examples
    --------
    >>> mirrored(-3, 5, 3)
    array([1, 2, 1, 0, 1, 2, 1, 0])
    """
    if size < 1:
        raise GeometryError(f"An axis of {size} samples cannot be mirrored. Use at least 1.")
    period = max(2 * (size - 1), 1)
    position = np.abs(np.arange(start, stop, dtype=np.intp)) % period
    return np.minimum(position, period - position) if size > 1 else np.zeros_like(position)


def extend(
    window: NDArray[np.generic],
    *,
    origin: Sequence[int],
    read: Sequence[tuple[int, int]],
    shape: Sequence[int],
) -> NDArray[np.generic]:
    """Return the read windows of a volume, of which `window` is the part inside the volume.

    Parameters
    ----------
    window : array, the part of the volume that was read
    origin : position of the window's first sample in the volume, per axis
    read : wanted (start, stop) per axis, in samples of the volume; may lie outside it
    shape : of the whole volume

    Returns
    -------
    array of the wanted size; `window` itself where nothing had to be mirrored

    Raises
    ------
    GeometryError
        If a mirrored sample lies outside of what was read.

    Examples
    --------
    >>> extend(np.arange(3), origin=(0,), read=((-2, 5),), shape=(3,))
    array([2, 1, 0, 1, 2, 1, 0])
    """
    for axis, (first, (start, stop), size) in enumerate(zip(origin, read, shape, strict=True)):
        if (start, stop) == (first, first + window.shape[axis]):
            continue
        position = mirrored(start, stop, size) - first
        if position.min() < 0 or position.max() >= window.shape[axis]:
            raise GeometryError(
                f"Samples {start}:{stop} along axis {axis} of length {size} mirror samples outside of the "
                f"{window.shape[axis]} that were read from {first} on. This is an error of the plan."
            )
        window = np.take(window, position, axis=axis)
    return window
