"""Where the samples of an augmented patch come from: shift, rotation and elastic deformation (R5).

One field of coordinates is made per patch, and image, target and weight map are all looked up in it, so
that they cannot move apart. Outside of the image the lookup mirrors, as everywhere.

References
----------
.. [1] Ronneberger, Fischer, Brox: "U-Net", MICCAI 2015, section 3.1: "random displacement vectors on a
   coarse 3 by 3 grid ... sampled from a Gaussian distribution with 10 pixels standard deviation.
   Per-pixel displacements are then computed using bicubic interpolation."
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import ndimage

from unet_dask.training.box import folded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def displacements(
    shape: Sequence[int], rng: np.random.Generator, *, sigma: float = 10.0, grid: int = 3
) -> NDArray[np.float32]:
    """Draw a smooth random displacement for every pixel of a patch [1]_.

    Parameters
    ----------
    shape : of the patch, in pixels per axis
    rng : source of randomness
    sigma : standard deviation of the vectors at the nodes, in pixels and per component
    grid : nodes per axis; the outer ones lie on the outermost pixels

    Returns
    -------
    (axes, *shape) float32, in pixels; at the nodes exactly the vectors that were drawn

    References
    ----------
    .. [1] Ronneberger et al., "U-Net", MICCAI 2015, section 3.1.

    Examples
    --------
    >>> displacements((65, 65), np.random.default_rng(0)).shape
    (2, 65, 65)
    """
    field = rng.normal(0.0, sigma, (len(shape), *(grid,) * len(shape))).astype(np.float32)
    for axis, size in enumerate(shape, start=1):
        field = np.moveaxis(np.tensordot(_spline(size, grid), field, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(field)


@lru_cache(maxsize=32)
def _spline(size: int, grid: int) -> NDArray[np.float32]:
    """Return the (size, grid) matrix of cubic interpolation between `grid` nodes, one axis."""
    at = np.linspace(0, grid - 1, size)[np.newaxis]
    columns = [ndimage.map_coordinates(node, at, order=3, mode="mirror") for node in np.eye(grid)]
    return np.stack(columns, axis=1).astype(np.float32)


def affine(dims: int, angle: float, zoom: float = 1.0) -> NDArray[np.float32]:
    """Return the matrix that rotates offsets in the y-x plane and zooms them.

    Parameters
    ----------
    dims : spatial axes; the first of three is left alone by the rotation, since stacks are seldom
        isotropic
    angle : in radians
    zoom : above 1 things appear larger

    Examples
    --------
    >>> affine(2, 0.0, zoom=2.0).diagonal().tolist()
    [0.5, 0.5]
    """
    matrix = np.eye(dims, dtype=np.float32)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix[-2:, -2:] = [[cos, -sin], [sin, cos]]
    return matrix / np.float32(zoom)


def coordinates(
    centre: Sequence[float], matrix: NDArray[np.float32], field: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return where in the image every pixel of a patch comes from.

    Parameters
    ----------
    centre : position in the image, in pixels, of the middle of the patch
    matrix : (axes, axes) applied to offsets from the middle
    field : (axes, *shape) displacements in pixels, added last

    Returns
    -------
    (axes, *shape) float32, in pixels of the image

    Examples
    --------
    >>> coordinates((5.0,), np.eye(1, dtype=np.float32), np.zeros((1, 3), np.float32))
    array([[4., 5., 6.]], dtype=float32)
    """
    shape = field.shape[1:]
    lines = [np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2) for size in shape]
    found = field.copy()
    for row in range(len(shape)):
        found[row] += np.float32(centre[row])
        for column, line in enumerate(lines):
            if matrix[row, column]:
                along = line.reshape([-1 if axis == column else 1 for axis in range(len(shape))])
                found[row] += matrix[row, column] * along
    return found


def look_up(
    array: NDArray[np.number], at: NDArray[np.float32], *, order: Literal[0, 1, 3]
) -> NDArray[np.number]:
    """Return the values of an array at coordinates, mirrored beyond its border.

    Parameters
    ----------
    array : (*spatial)
    at : (axes, *shape) in pixels
    order : 0 for the nearest pixel, 1 linear, 3 cubic

    Examples
    --------
    >>> look_up(np.array([1.0, 2.0, 3.0]), np.array([[-1.0, 0.5, 3.0]], np.float32), order=1)
    array([2. , 1.5, 2. ])
    """
    if order == 0:
        nearest: NDArray[np.number] = array[tuple(folded(np.rint(at), array.shape).astype(np.intp))]
        return nearest
    # scipy calls "mirror" what numpy calls "reflect": the edge sample is not repeated.
    return ndimage.map_coordinates(array, at, order=order, mode="mirror")
