"""A labelled array in, a labelled array out: xarray on both sides of the lazy interface.

Only names are handled here. The numbers stay in whatever array the caller has, and are touched through its
own methods alone, so that nothing is computed and this package needs no dask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unet_dask import axes as axes_
from unet_dask.errors import GeometryError, InputError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import xarray

#: Attributes that describe the values of the image and would be false of a segmentation (CF 1.11).
_OF_VALUES = frozenset(
    {
        "_FillValue",
        "actual_range",
        "add_offset",
        "long_name",
        "missing_value",
        "scale_factor",
        "standard_name",
        "units",
        "valid_max",
        "valid_min",
        "valid_range",
    }
)


def axes_of(image: xarray.DataArray) -> str:
    """Return one letter for each dimension of `image`, in its order.

    Raises
    ------
    InputError
        If a dimension is called something that means no axis; the message says how to rename it.

    Examples
    --------
    >>> import numpy, xarray
    >>> axes_of(xarray.DataArray(numpy.zeros((2, 3, 4)), dims=("band", "y", "x")))
    'cyx'
    """
    found = [axes_.SYNONYMS.get(str(name).lower()) for name in image.dims]
    for name, axis in zip(image.dims, found, strict=True):
        if axis is None:
            free = next((letter for letter in "xyzct" if letter not in found), "z")
            raise InputError(
                f"The dimension {str(name)!r} of the DataArray means none of t, c, z, y, x. Rename it, such "
                f"as x.rename({{{str(name)!r}: {free!r}}})."
            )
    return axes_.validate("".join(axis for axis in found if axis))


def from_dataarray(image: xarray.DataArray) -> tuple[Any, str]:
    """Return the lazy array inside `image` in canonical order, and its axes.

    Parameters
    ----------
    image : numeric; its dimensions have names that mean axes, such as y, "row" or "band"

    Returns
    -------
    a dask array with `c` present, and its canonical axes; an image in memory becomes one chunk

    Raises
    ------
    InputError
        If a dimension means no axis, or the values are not numbers.

    Examples
    --------
    >>> import numpy, xarray
    >>> lazy, axes = from_dataarray(xarray.DataArray(numpy.zeros((4, 5, 3)), dims=("y", "x", "band")))
    >>> lazy.shape, axes
    ((3, 4, 5), 'cyx')
    """
    stored = axes_of(image)
    if image.dtype.kind not in "biuf":
        raise InputError(
            f"The DataArray holds {image.dtype} values, which are no image. Use bool, integers or floats."
        )
    lazy = (image if image.chunks is not None else image.chunk()).data
    lazy = lazy.transpose(axes_.permutation(stored))
    order = axes_.canonical(stored)
    if not axes_.has_channel(stored):
        lazy = lazy[tuple(None if axes_.is_channel(axis) else slice(None) for axis in order)]
    return lazy, order


def to_dataarray(
    result: Any,  # any array: numpy, dask; only its transpose and shape are used
    like: xarray.DataArray,
    axes_of_result: str,
    class_names: Sequence[str] | None = None,
) -> xarray.DataArray:
    """Return `result` with the dimensions, coordinates and attributes that `like` gives it.

    Dimensions come in the order of `like`; the classes of probabilities are a dimension "c" in the place
    of its channels. Coordinates of channels, and attributes that describe the values of the image, do not
    hold of a segmentation and are dropped.

    Parameters
    ----------
    result : as large as `like` along all shared axes
    like : the image that was segmented
    axes_of_result : the axes of `result`, with `c` if it holds probabilities
    class_names : names along `c`, one per class

    Raises
    ------
    GeometryError
        If the sizes of `result` do not fit `like`, or the number of names its classes.

    Examples
    --------
    >>> import numpy, xarray
    >>> image = xarray.DataArray(numpy.zeros((4, 5, 3)), dims=("row", "col", "band"))
    >>> to_dataarray(numpy.zeros((2, 4, 5)), image, "cyx", ["background", "cell"]).dims
    ('row', 'col', 'c')
    """
    import xarray

    names: dict[str, Hashable] = axes_.by_axis(axes_of(like), like.dims)
    names["c"] = "c"
    order = _order(axes_of(like), axes_of_result)
    values = result.transpose(tuple(axes_of_result.index(axis) for axis in order))
    _check(values.shape, order, like, class_names)
    dims = [names[axis] for axis in order]
    coords = {
        name: coordinate
        for name, coordinate in like.coords.items()
        if set(coordinate.dims) <= set(dims) - {"c"}
        and not axes_.is_channel(axes_.SYNONYMS.get(str(name).lower(), ""))
    }
    labelled = xarray.DataArray(values, dims=dims, coords=coords, name=like.name)
    labelled.attrs = {name: value for name, value in like.attrs.items() if name not in _OF_VALUES}
    if axes_.has_channel(order) and class_names is not None:
        labelled = labelled.assign_coords(c=list(class_names))
    return labelled


def _order(of_image: str, of_result: str) -> str:
    """Return the axes of the result in the order of the image, `c` before space if the image has none."""
    wanted = of_image
    if not axes_.has_channel(wanted):
        first = min(map(wanted.index, axes_.space_of(wanted)))
        wanted = f"{wanted[:first]}c{wanted[first:]}"
    order = "".join(axis for axis in wanted if axis in of_result)
    if sorted(order) != sorted(of_result):
        raise GeometryError(
            f"A result with the axes {of_result} does not fit an image with the axes {of_image}. Leave out "
            f"what the image does not have."
        )
    return order


def _check(
    shape: tuple[int, ...], order: str, like: xarray.DataArray, class_names: Sequence[str] | None
) -> None:
    sizes = axes_.by_axis(axes_of(like), like.shape)
    for axis, size in zip(order, shape, strict=True):
        if not axes_.is_channel(axis) and size != sizes[axis]:
            raise GeometryError(
                f"A result of {size} along {axis} does not fit an image of {sizes[axis]}. Give the whole "
                f"image."
            )
        if axes_.is_channel(axis) and class_names is not None and size != len(class_names):
            raise GeometryError(
                f"There are {len(class_names)} class names for {size} classes. Give one name per class."
            )
