"""Label images as pictures for Fiji, ImageJ and QuPath: tiled OME-TIFF of any size, and PNG of a small plane.

Objects are numbered from 1 in the order of the table's rows, so that 16 bits are enough for 65 535 of them: ImageJ
makes floating-point numbers of longer ones, which do not tell large numbers apart.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.ahead import in_order
from unet_dask.axes import space_of
from unet_dask.durable import sync_file, sync_folder, write
from unet_dask.engine.device import available_cores
from unet_dask.errors import OptionError
from unet_dask.measuring.measure import looks
from unet_dask.products import PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.measuring.finished import Finished
    from unet_dask.measuring.frame import Frame
    from unet_dask.measuring.measure import OnBlock
    from unet_dask.tiling.box import Box

#: Pixels of the largest PNG, which is made in memory.
_MOST_IN_PNG = 1 << 26
#: Objects that 16 bits number.
_SHORT = (1 << 16) - 1
#: Bytes from which a TIFF has long addresses: what is compressed is smaller, but nobody knows by how much.
_LONG = 1 << 31
#: Sides of tiles of a TIFF are multiples of this.
_UNIT = 16


@dataclass(frozen=True)
class Numbers:
    """How values become those of a picture.

    Attributes
    ----------
    labels : numbers of objects, ascending, 0 before them; None to keep values as they are
    dtype : of the picture
    """

    labels: NDArray[np.unsignedinteger] | None
    dtype: np.dtype[np.generic]

    def __call__(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the values of a picture."""
        if self.labels is None:
            return values
        return np.searchsorted(self.labels, values).astype(self.dtype)

    @property
    def objects(self) -> int | None:
        """How many objects there are, if these are numbers of some."""
        return None if self.labels is None else len(self.labels) - 1


def numbers_of(result: Finished, workers: int | None, on_block: OnBlock) -> Numbers:
    """Return how values of a product become those of a picture; all objects are looked for, block by block."""
    dtype = result.labels.dtype
    if not PRODUCTS[result.name].joined:
        return Numbers(None, dtype)
    found = np.zeros(1, dtype)
    for seen in looks(result, lambda box: np.unique(result.read(result.name, box)), workers, on_block):
        found = np.union1d(found, seen)
    return Numbers(found, np.dtype(np.uint16 if len(found) - 1 <= _SHORT else np.uint32))


def write_png(
    result: Finished, frame: Frame, path: Path, workers: int | None, on_block: OnBlock
) -> int | None:
    """Write a plane, and return the number of its objects.

    Raises
    ------
    OptionError
        If it is more than one plane, or too large, or has more objects than 16 bits number.
    """
    import imagecodecs

    del frame  # a PNG says no sizes
    shape = result.labels.shape
    if prod(shape) > _MOST_IN_PNG or prod(shape[:-2]) != 1:
        size = " x ".join(map(str, shape))
        raise OptionError(
            f"{size} pixels are too many, or too many planes, for a PNG (at most {_MOST_IN_PNG >> 20} Mpixel of one "
            "plane). Write .ome.tif."
        )
    numbers = numbers_of(result, workers, on_block)
    if numbers.dtype.itemsize > 2:
        raise OptionError(f"A PNG cannot number {numbers.objects} objects, only {_SHORT}. Write .ome.tif.")
    plane = numbers(result.read(result.name, result.whole)).reshape(shape[-2:])
    write(path, [bytes(imagecodecs.png_encode(np.ascontiguousarray(plane)))])
    return numbers.objects


def write_tiff(
    result: Finished, frame: Frame, path: Path, workers: int | None, on_block: OnBlock
) -> int | None:
    """Write a tiled OME-TIFF, tile by tile, and return the number of its objects."""
    import tifffile

    numbers = numbers_of(result, workers, on_block)
    shape = result.labels.shape
    sides = tuple(-(-min(side, 512) // _UNIT) * _UNIT for side in result.labels.chunks[-2:])
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        long = prod(shape) * numbers.dtype.itemsize > _LONG
        with tifffile.TiffWriter(partial, bigtiff=long, ome=True) as file:
            file.write(
                _tiles(result, numbers, sides, workers),
                shape=shape,
                dtype=numbers.dtype,
                tile=sides,
                compression="zlib",
                photometric="minisblack",
                metadata={"axes": result.axes.upper(), "Name": result.name, **_sizes(frame)},
                **_resolution(frame),
            )
        sync_file(partial)
        os.replace(partial, path)  # noqa: PTH105
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)
    return numbers.objects


def _tiles(
    result: Finished, numbers: Numbers, sides: tuple[int, ...], workers: int | None
) -> Iterator[NDArray[np.generic]]:
    """Yield tiles in the order of a TIFF: plane by plane, and rows of tiles; those at the border are filled up."""
    planes = (1,) * (len(result.axes) - len(sides))

    def tile(box: Box) -> NDArray[np.generic]:
        values = numbers(result.read(result.name, box)).reshape(box.shape[-2:])
        whole = np.zeros(sides, numbers.dtype)
        whole[tuple(slice(0, size) for size in values.shape)] = values
        return whole

    threads = workers or available_cores()
    return in_order(tile, result.whole.cut((*planes, *sides)), threads=threads, ahead=2 * threads)


def _sizes(frame: Frame) -> dict[str, Any]:
    """Return the sizes of voxels, as OME says them."""
    known = space_of(frame.axes).upper()[-len(frame.micrometres) :] if frame.micrometres else ""
    found: dict[str, Any] = {}
    for axis, size in zip(known, frame.micrometres, strict=True):
        found |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "\N{MICRO SIGN}m"}
    return found


def _resolution(frame: Frame) -> dict[str, Any]:
    """Return the pixels of a centimetre, as every TIFF says them."""
    if not frame.micrometres:
        return {}
    down, along = (10_000 / size for size in frame.micrometres[-2:])
    return {"resolution": (along, down), "resolutionunit": "CENTIMETER"}
