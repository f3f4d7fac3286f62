"""A TIFF stack read page by page: the file is opened for each plane and never read whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.regular import require_regular

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Pages:
    """The first series of a TIFF.

    Attributes
    ----------
    path : of the file
    shape : of a page, (y, x) or (y, x, samples)
    dtype : of the values, with their byte order
    order : the numbers of the pages that are a plane's channels, per plane
    file : opened whenever a page is read
    pages : of the series; None where one page stands for all, as in stacks of ImageJ beyond 4 GB
    offset : of the first value in the file, in bytes, where values are contiguous
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: list[list[int]]
    file: Any
    pages: Any
    offset: int

    def read(self, plane: int) -> NDArray[Any]:
        """Return a plane as (c, y, x), without alpha."""
        planes = [self._page(number) for number in self.order[plane]]
        if len(self.shape) == 2:
            return np.stack(planes)
        colour = np.moveaxis(planes[0], -1, 0)
        return colour[:-1] if len(colour) in (2, 4) else colour

    def _page(self, number: int) -> NDArray[Any]:
        if self.pages is None:
            size = math.prod(self.shape)
            start = self.offset + number * size * self.dtype.itemsize
            return np.fromfile(self.path, self.dtype, size, offset=start).reshape(self.shape)
        self.file.filehandle.open()
        try:
            return np.asarray(self.pages[number].asarray())
        finally:
            self.file.filehandle.close()


def open_pages(path: Path) -> Pages | None:
    """Return the pages of a TIFF, or None if its planes are not its pages, as in volumetric tiles.

    Raises
    ------
    Exception
        Whatever the decoder raises for a damaged file.
    """
    import tifffile

    require_regular(path)
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        axes, shape, pages = str(series.axes), tuple(series.shape), series.pages
        dims = 3 if axes.endswith("YXS") else 2
        lead = shape[:-dims]
        if not axes.endswith(("YX", "YXS")) or "S" in axes[:-dims] or len(file.series) > 1:
            return None
        by_page = len(pages) == math.prod(lead) and tuple(series.keyframe.shape) == shape[-dims:]
        if not by_page and series.dataoffset is None:
            return None
        return Pages(
            path=path,
            shape=shape[-dims:],
            dtype=np.dtype(file.byteorder + series.dtype.char),
            order=_order(axes[:-dims], lead),
            file=file,
            pages=pages if by_page else None,
            offset=series.dataoffset or 0,
        )


def _order(axes: str, shape: tuple[int, ...]) -> list[list[int]]:
    """Return, per plane, the pages of its channels.

    Examples
    --------
    >>> _order("ZC", (2, 3)), _order("", ())
    ([[0, 1, 2], [3, 4, 5]], [[0]])
    """
    pages = np.arange(math.prod(shape)).reshape(shape)
    pages = np.moveaxis(pages, axes.index("C"), -1) if "C" in axes else pages[..., np.newaxis]
    found: list[list[int]] = pages.reshape(-1, pages.shape[-1]).tolist()
    return found
