"""The values of a TIFF, segment by segment: only what a window touches is read and decoded.

Nothing is mapped into memory, since a file that is cut short under a mapping kills the process. A segment (tile or
strip) is read whole if it is compressed, and decoded by tifffile; what is not compressed is read row by row. The file
is opened anew for every window, and must be of the size and time of change that it was found with, before and after.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.io.source import pieces, slides
from unet_dask.io.source.chunk_cache import LIMIT
from unet_dask.io.source.headers import jpeg2000_shape, jpeg_shape
from unet_dask.io.source.pieces import Decoding
from unet_dask.io.source.segments import BAND, Page, bands, exactly, follow, overlap
from unet_dask.io.source.single_file import SingleFile
from unet_dask.io.source.stamps import Look

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from tifffile import TiffFile, TiffPage, TiffPageSeries


#: Compressions of TIFF whose data say themselves how large they are when decoded.
_JPEG, _JPEG2000 = frozenset({6, 7, 33007, 34892}), frozenset({33003, 33004, 33005, 34712})
#: Copies of a segment at once: as it is encoded, decoded, and after its predictor.
_COPIES = 3
#: What is called a chunk of values that are read row by row: rows and columns.
_ROWS, _COLUMNS = 256, 1024
#: Pages of which the places of their segments are kept.
_PAGES = 64


@dataclass(eq=False)
class TiffArray(SingleFile):
    """The equal images of a TIFF as one array, in the order of its axes.

    Attributes
    ----------
    path : of the file
    file : closed, but for the moment in which a page is looked up
    images : series of pages, all of one shape and type
    version : size and time of change (ns) of the file when it was found
    samples : of a pixel that are kept: alpha is not
    keep : whether to keep the segments that were decoded last
    """

    path: Path
    file: TiffFile
    images: Sequence[TiffPageSeries]
    version: tuple[int, int]
    samples: int
    keep: bool = False
    _pages: OrderedDict[int, Page] = field(default_factory=OrderedDict, init=False)
    _recent: OrderedDict[tuple[int, ...], NDArray[np.generic]] = field(
        default_factory=OrderedDict, init=False
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def keyframe(self) -> TiffPage:
        """The page that all others are like."""
        return self.images[0].keyframe

    @property
    def letters(self) -> str:
        """One letter per axis, as TIFF has them; I of several images."""
        return "I" * (len(self.images) > 1) + str(self.images[0].axes)

    @property
    def page_shape(self) -> tuple[int, ...]:
        """Of one page, with alpha."""
        return tuple(self.keyframe.shape)

    @property
    def leading(self) -> tuple[int, ...]:
        """Sizes of the axes along which pages follow each other."""
        series = tuple(self.images[0].shape)
        return (len(self.images),) * (len(self.images) > 1) + series[: len(series) - len(self.page_shape)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Stored shape, without alpha."""
        page = (
            min(size, self.samples) if letter == "S" else size
            for size, letter in zip(self.page_shape, self.letters[-len(self.page_shape) :], strict=True)
        )
        return (*self.leading, *page)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the values, in native byte order."""
        stored: np.dtype[np.generic] = np.dtype(self.images[0].dtype)
        return stored.newbyteorder("=")

    @property
    def raw(self) -> bool:
        """Whether values lie in the file as they are."""
        page = self.keyframe
        plain = page.compression == 1 and page.predictor == 1 and page.fillorder == 1
        return (
            plain and page.sampleformat != 5 and page.bitspersample in (8, 16, 32, 64) and not page.is_tiled
        )

    @property
    def segment(self) -> tuple[int, ...]:
        """What is decoded as a whole, along the axes of a page; of raw values, what is well read together."""
        if not self.raw:
            stored = tuple(int(size) for size in self.keyframe.chunks)
            stored = (1,) * (len(self.page_shape) - len(stored)) + stored
            tiled = self.keyframe.is_tiled  # a strip is never longer than its page, whatever is said
            return tuple(
                side if tiled else min(side, size) for side, size in zip(stored, self.page_shape, strict=True)
            )
        inner = self.letters[-len(self.page_shape) :]
        most = {"Y": _ROWS, "X": _COLUMNS, "S": self.page_shape[-1] if inner[-1] == "S" else 1}
        return tuple(
            min(size, most.get(letter, 1)) for size, letter in zip(self.page_shape, inner, strict=True)
        )

    @property
    def unit(self) -> tuple[int, ...]:
        """What lies in one segment."""
        return (1,) * len(self.leading) + self.segment

    @property
    def decoding(self) -> Decoding:
        """What reading takes beside what is read."""
        if self.raw:
            return Decoding(self.unit, min(BAND, math.prod(self.page_shape) * self.dtype.itemsize), 1)
        return Decoding(self.unit, math.prod(self.segment) * self.dtype.itemsize, _COPIES)

    @property
    def facts(self) -> Mapping[str, object]:
        """What kind of TIFF it is, its segments and their compression."""
        file, compression = self.file, self.keyframe.compression
        kinds = (
            ("OME-TIFF", file.is_ome),
            (slides.NAMES.get(str(self.images[0].kind), ""), True),
            ("ImageJ TIFF", file.is_imagej),
            ("TIFF", True),
        )
        kind = next(name for name, is_it in kinds if name and is_it)
        return {
            "chunks": list(self.unit),
            "shards": None,
            "format": f"{kind}, BigTIFF" if file.is_bigtiff else kind,
            "compression": getattr(compression, "name", str(compression)).lower(),
        }

    def read(self, selection: tuple[slice, ...]) -> tuple[NDArray[np.generic], Look]:
        """Return a part of the values, and what the file was that it was read from."""
        sizes = [part.stop - part.start for part in selection]
        pieces.require_room(math.prod(sizes) * self.dtype.itemsize)
        values = np.empty(sizes, self.dtype)
        with self.reopened() as (file, version):
            self._fill(values, selection, file.fileno(), version)
        return values, Look({self.path.name: version}, {})

    def _fill(
        self, values: NDArray[np.generic], selection: tuple[slice, ...], file: int, version: tuple[int, ...]
    ) -> None:
        count = len(self.leading)
        lead, inner = selection[:count], selection[count:]
        for at in product(*(range(part.start, part.stop) for part in lead)):
            out = values[tuple(n - part.start for n, part in zip(at, lead, strict=True))]
            number = int(np.ravel_multi_index(at, self.leading)) if at else 0
            page = self.page(number)
            if page.raw is None:
                self._decode(out, inner, file, number, page, version)
            else:
                self._copy(out, inner, file, page.raw)

    def page(self, number: int) -> Page:
        """Return where the segments of a page lie."""
        with self._lock:
            if number not in self._pages:
                self._pages[number] = self._looked_up(number)
                while len(self._pages) > _PAGES:
                    self._pages.popitem(last=False)
            return self._pages[number]

    def _looked_up(self, number: int) -> Page:
        per_image = math.prod(self.leading) // len(self.images)
        series = self.images[number // per_image]
        within = number % per_image
        if (
            self.raw and series.dataoffset is not None
        ):  # of large stacks, ImageJ describes the first page only
            size = math.prod(self.page_shape) * self.dtype.itemsize
            return Page((), (), int(series.dataoffset) + within * size)
        if len(series.pages) != per_image:
            raise ValueError(f"{len(series.pages)} pages, but {per_image} are described")
        closed = bool(self.file.filehandle.closed)
        if closed:
            self.file.filehandle.open()
        try:
            page = series.pages[within]
            offsets, counts = tuple(page.dataoffsets), tuple(page.databytecounts)
            tables, header = getattr(page, "jpegtables", None), getattr(page, "jpegheader", None)
            decode = series.keyframe.decode  # made at its first use, which may read from the file
        finally:
            if closed:
                self.file.filehandle.close()
        raw = self.raw and follow(offsets, counts, math.prod(self.page_shape) * self.dtype.itemsize)
        return Page(offsets, counts, int(offsets[0]) if raw else None, tables, header, decode)

    def _decode(
        self,
        out: NDArray[np.generic],
        inner: tuple[slice, ...],
        file: int,
        number: int,
        page: Page,
        version: tuple[int, ...],
    ) -> None:
        """Copy what a window touches of a page, a segment at a time."""
        side, grid = self.segment, tuple(self.keyframe.chunked)
        touched = [
            range(part.start // step, -(-part.stop // step)) if part.stop > part.start else range(0)
            for part, step in zip(inner, side, strict=True)
        ]
        for place in product(*touched):
            index = int(np.ravel_multi_index(place, grid))
            corner = [at * step for at, step in zip(place, side, strict=True)]
            target, taken = overlap(inner, corner, side)
            values = self._segment(file, page, index, (number, index, *version))
            out[target] = self.keyframe.nodata if values is None else values[taken]

    def _segment(
        self, file: int, page: Page, index: int, name: tuple[int, ...]
    ) -> NDArray[np.generic] | None:
        """Return a decoded segment along the axes of a page, None of one that was left out."""
        with self._lock:
            if name in self._recent:
                self._recent.move_to_end(name)
                return self._recent[name]
        size = math.prod(self.segment) * self.dtype.itemsize
        with pieces.alone if size > pieces.LARGE else nullcontext():
            values = self._decoded(file, page, index, size)
        if values is not None and self.keep and values.nbytes <= LIMIT:
            self._keep(name, values)
        return values

    def _decoded(self, file: int, page: Page, index: int, size: int) -> NDArray[np.generic] | None:
        if index >= min(len(page.offsets), len(page.counts)):
            raise ValueError(f"segment {index} is not in the file")
        count = int(page.counts[index])
        if count == 0:  # sparse, as scanners and GDAL write them
            return None
        if count > size + size // 8 + (1 << 20):
            raise ValueError(f"a segment of {count} bytes, more than its values can need")
        encoded = exactly(file, int(page.offsets[index]), count)
        self._require_small(encoded)
        assert page.decode is not None
        decoded = np.asarray(page.decode(encoded, index, jpegtables=page.tables, jpegheader=page.header)[0])
        depth, length, width, samples = decoded.shape
        letters = self.letters[-len(self.page_shape) :]
        shape = {"Z": depth, "Y": length, "X": width, "S": samples if letters[-1] == "S" else 1}
        return decoded.reshape([shape.get(letter, depth) for letter in letters])

    def _require_small(self, encoded: bytes) -> None:
        """Refuse a compressed segment that says that it is far larger than its place."""
        compression = int(self.keyframe.compression)
        found = jpeg_shape(encoded) if compression in _JPEG else None
        found = jpeg2000_shape(encoded) if compression in _JPEG2000 else found
        if found is not None and math.prod(found) > 4 * math.prod(self.segment) + (1 << 20):
            raise ValueError(f"a segment that claims {found[0]} x {found[1]} pixels")

    def _keep(self, name: tuple[int, ...], values: NDArray[np.generic]) -> None:
        """Keep a decoded segment, and let go of the oldest."""
        with self._lock:
            self._recent[name] = values
            while sum(kept.nbytes for kept in self._recent.values()) > LIMIT:
                self._recent.popitem(last=False)

    def _copy(self, out: NDArray[np.generic], inner: tuple[slice, ...], file: int, start: int) -> None:
        """Copy a window of values that lie in the file as they are, a band of rows at a time."""
        letters = self.letters[-len(self.page_shape) :]
        rows_at = letters.index("Y")
        height, row = self.page_shape[rows_at], self.page_shape[rows_at + 1 :]
        stored = self.dtype.newbyteorder(self.file.byteorder)
        row_bytes = math.prod(row) * stored.itemsize
        outer, (rows, columns, *rest) = inner[:rows_at], inner[rows_at:]
        for at in product(*(range(part.start, part.stop) for part in outer)):
            plane = int(np.ravel_multi_index(at, self.page_shape[:rows_at])) if at else 0
            base = start + plane * height * row_bytes
            target = out[tuple(n - part.start for n, part in zip(at, outer, strict=True))]
            for first, last, left, right in bands(rows, columns, row_bytes, row[0]):
                pixel = row_bytes // max(row[0], 1)
                offset = base + first * row_bytes + left * pixel
                raw = exactly(file, offset, (last - first - 1) * row_bytes + (right - left) * pixel)
                found = np.frombuffer(raw, stored).reshape(last - first, right - left, *row[1:])
                taken = (slice(None), slice(columns.start - left, columns.stop - left), *rest)
                target[first - rows.start : last - rows.start] = found[taken]
