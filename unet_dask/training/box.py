"""Boxes of an image: which part of it a patch looks up, and how much around that decides what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.io.images.stack import Window


def whole(shape: Sequence[int]) -> Window:
    """Return the box of everything."""
    return tuple(slice(0, side) for side in shape)


def grown(box: Window, margin: int, shape: Sequence[int]) -> Window:
    """Return a box with `margin` pixels more on every side, as far as the image of `shape` goes.

    Examples
    --------
    >>> grown((slice(2, 5), slice(30, 40)), 8, (50, 42))
    (slice(0, 13, None), slice(22, 42, None))
    """
    return tuple(
        slice(max(span.start - margin, 0), min(span.stop + margin, side))
        for span, side in zip(box, shape, strict=True)
    )


def shifted(box: Window, outer: Window) -> Window:
    """Return a box counted from the first pixel of another that holds it."""
    return tuple(
        slice(span.start - around.start, span.stop - around.start)
        for span, around in zip(box, outer, strict=True)
    )


def overlap(one: Window, other: Window) -> Window | None:
    """Return what two boxes have in common, or None if that is nothing.

    Examples
    --------
    >>> overlap((slice(0, 5),), (slice(3, 9),)), overlap((slice(0, 5),), (slice(5, 9),))
    ((slice(3, 5, None),), None)
    """
    common = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return common if all(span.start < span.stop for span in common) else None


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
