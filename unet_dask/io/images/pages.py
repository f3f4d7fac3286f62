"""A TIFF stack read page by page: the file is opened for each plane and never read whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.io.source.tiff_layout import opened_tiff, samples, series_of, spacing_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Pages:
    """The images of a TIFF, all of one kind.

    Attributes
    ----------
    path : of the file
    shape : of a page, (y, x) or (y, x, samples)
    dtype : of the values, with their byte order
    order : the numbers of the pages that are a plane's channels, per plane
    file : opened whenever a page is read
    samples : of a pixel that are kept: alpha is not
    pages : of all images; None where one page stands for all, as in stacks of ImageJ beyond 4 GB
    offset : of the first value in the file, in bytes, where values are contiguous
    spacing, unit : pixel size along y and x, if the file states it
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: list[list[int]]
    file: Any
    samples: int
    pages: Any
    offset: int
    spacing: tuple[float, ...] | None
    unit: str | None

    def read(self, plane: int) -> NDArray[Any]:
        """Return a plane as (c, y, x), without alpha."""
        planes = [self._page(number) for number in self.order[plane]]
        if len(self.shape) == 2:
            return np.stack(planes)
        return np.moveaxis(planes[0], -1, 0)[: self.samples]

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
    InputError
        If it holds images of several kinds, or pages are missing.
    Exception
        Whatever the decoder raises for a damaged file.
    """
    with opened_tiff(path) as file:
        every = series_of(file, path)
        series = every[0]
        axes, shape = str(series.axes), tuple(series.shape)
        dims = 3 if axes.endswith("YXS") else 2
        lead = shape[:-dims]
        if not axes.endswith(("YX", "YXS")) or "S" in axes[:-dims]:
            return None
        pages = [page for each in every for page in each.pages]
        count = len(every) * math.prod(lead)
        by_page = len(pages) == count and tuple(series.keyframe.shape) == shape[-dims:]
        if not by_page and (series.dataoffset is None or len(every) > 1):
            return None
        spacing, unit = spacing_of(file, series)
        return Pages(
            path=path,
            shape=shape[-dims:],
            dtype=np.dtype(file.byteorder + series.dtype.char),
            order=_order("I" + axes[:-dims], (len(every), *lead)),
            file=file,
            samples=samples(series),
            pages=pages if by_page else None,
            offset=series.dataoffset or 0,
            spacing=spacing and spacing[-2:],
            unit=unit,
        )


def _order(axes: str, shape: tuple[int, ...]) -> list[list[int]]:
    """Return, per plane, the pages of its channels; planes of one time follow each other.

    Examples
    --------
    >>> _order("ZC", (2, 3)), _order("", ()), _order("ZT", (2, 2))
    ([[0, 1, 2], [3, 4, 5]], [[0]], [[0], [2], [1], [3]])
    """
    pages = np.arange(math.prod(shape)).reshape(shape)
    places = sorted(range(len(axes)), key=lambda at: (axes[at] == "C", "TZ".find(axes[at])))
    pages = pages.transpose(places) if "C" in axes else pages.transpose(places)[..., np.newaxis]
    found: list[list[int]] = pages.reshape(-1, pages.shape[-1]).tolist()
    return found
