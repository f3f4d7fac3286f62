"""Which images a TIFF holds: all of its pages are accounted for, or the file is refused in one line.

A TIFF is a bag of pages. Most readers take the first series of equal ones, and what else there is (crops of other
sizes, labels of a slide, planes that were lost) is left out without a word.
"""

from __future__ import annotations

import html
import logging
import math
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from unet_dask.errors import InputError
from unet_dask.io.source import slides
from unet_dask.spacing import metres, unit_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tifffile import TiffFile, TiffPage, TiffPageSeries

#: What tifffile logs where a page or a value of the file is out of its reach.
_LOST = re.compile(
    r"invalid (page )?offset|out of (index )?range|corrupted|truncated|unexpected end|circular", re.I
)
#: Kinds of the samples of a pixel beyond its colour that are alpha, by the TIFF specification.
_ALPHA = (1, 2)


@contextmanager
def opened_tiff(path: Path) -> Iterator[TiffFile]:
    """Open a TIFF; what tifffile logs of pages that it cannot find is an error.

    Raises
    ------
    InputError
        If pages are missing.
    """
    import tifffile

    with _Listener() as heard, tifffile.TiffFile(path) as file:
        yield file
    if heard.lost:
        raise InputError(f"{path.name} is damaged or was cut off: {heard.lost[0]}. Copy it again.")


class _Listener(logging.Handler):
    """Keeps what tifffile says of lost pages, and keeps it from standard error."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lost: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        if _LOST.search(text):
            self.lost.append(text.rpartition("> ")[2][:120])

    def __enter__(self) -> _Listener:
        logging.getLogger("tifffile").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("tifffile").removeHandler(self)


def series_of(file: TiffFile, path: Path) -> list[TiffPageSeries]:
    """Return the images of an open TIFF, all of one shape, type and order of axes.

    Copies of lower resolution, as of a pyramid, are no images of their own.

    Raises
    ------
    InputError
        If there are images of several kinds, pages that belong to none, or pages that are missing.
    """
    every = list(file.series)
    found = [series for series in every if series.kind != "thumbnail" and not _is_reduced(series)] or every
    kinds = {(tuple(series.shape), series.dtype, str(series.axes)): series for series in found}
    if len(kinds) > 1:
        shown = "; ".join(
            f"series {found.index(series)} {_described(series)}" for series in list(kinds.values())[:3]
        )
        raise InputError(
            f"{path.name} holds {len(found)} images that differ: {shown}. Name one by its number as the key, or "
            "save each kind of image as a file of its own."
        )
    _require_own_pages(found, path)
    _require_all_pages(file, found, path)
    return found


def _is_reduced(series: TiffPageSeries) -> bool:
    return all(page is not None and bool(getattr(page, "is_reduced", False)) for page in series.pages)


def _described(series: TiffPageSeries) -> str:
    name = f" {series.name!r}" if series.name else ""
    return f"{name} of {' x '.join(map(str, series.shape))} ({series.axes}), {series.dtype}".strip()


def _require_own_pages(found: list[TiffPageSeries], path: Path) -> None:
    """Refuse a file that is one of several of an image, and one whose planes are not there."""
    pages = [page for series in found for page in series.pages]
    missing = sum(page is None for page in pages)
    if missing:
        raise InputError(
            f"{path.name} describes {len(pages)} planes, of which {missing} are not in it. Copy the file again, or all "
            "files of its set, and save them as one."
        )
    others = {page.parent.filename for page in pages} - {path.name}
    if others:
        raise InputError(
            f"{path.name} is one of {len(others) + 1} files that hold one image together, with {min(others)}. Save the "
            "image as one file."
        )


def _require_all_pages(file: TiffFile, found: list[TiffPageSeries], path: Path) -> None:
    planes = sum(_planes(series, series.shape) for series in found)
    promised = _promised(file)
    if promised is not None and promised != planes:
        raise InputError(
            f"{path.name} describes {promised} planes and holds {planes}: it is damaged or was cut off. Copy it again."
        )
    counted = sum(len(series.pages) for series in file.series)
    held = sum(
        len(level.pages) for series in file.series for level in series.levels[1:] if not _in_subifds(level)
    )
    if len(file.pages) > counted + held:
        raise InputError(
            f"{path.name} has {len(file.pages)} pages, of which {len(file.pages) - counted - held} belong to no image. "
            "Save it again as a plain stack."
        )


def _planes(series: TiffPageSeries, shape: Sequence[int]) -> int:
    return int(math.prod(shape)) // max(int(math.prod(series.keyframe.shape)), 1)


def _in_subifds(level: TiffPageSeries) -> bool:
    return all(page is not None and isinstance(page.index, tuple | list) for page in level.pages)


def _promised(file: TiffFile) -> int | None:
    """Return the number of planes that ImageJ or tifffile wrote down; None if neither did."""
    imagej = file.imagej_metadata
    if isinstance(imagej, dict):
        count = imagej.get("images", 1)
        return count if isinstance(count, int) else None
    shaped = file.shaped_metadata
    shapes = [entry.get("shape") for entry in shaped or () if isinstance(entry, dict)]
    if (
        not shapes
        or len(shapes) != len(file.series)
        or not all(isinstance(entry, list | tuple) for entry in shapes)
    ):
        return None
    return sum(
        _planes(series, shape)
        for shape, series in zip(shapes, file.series, strict=True)
        if shape and not _is_reduced(series)
    )


def samples(series: TiffPageSeries) -> int:
    """Return how many samples of a pixel are grey values or colours: alpha is none."""
    page = series.keyframe
    count = int(page.samplesperpixel)
    alpha = sum(int(kind) in _ALPHA for kind in page.extrasamples)
    return max(count - alpha, 1)


def spacing_of(file: TiffFile, series: TiffPageSeries) -> tuple[tuple[float, ...] | None, str | None]:
    """Return the pixel size that OME, ImageJ or a scanner of slides wrote, z first if it has one.

    The resolution tags of other programs are not believed: most write 72 or 96 dots per inch there.
    """
    if file.ome_metadata:
        return _ome_spacing(file.ome_metadata)
    if file.is_svs:
        return slides.aperio_spacing(str(series.keyframe.description))
    if series.kind in slides.NAMES:
        return slides.spacing_of(series)
    return _imagej_spacing(file.imagej_metadata, series.keyframe)


def channel_names_of(file: TiffFile, count: int) -> tuple[str, ...]:
    """Return the names that OME gives the channels of its first image, () if it does not name every one."""
    document = file.ome_metadata or ""
    image = document[document.find("<Pixels") : document.find("</Pixels>")]
    tags = re.findall(r"<(?:\w+:)?Channel\b[^>]*>", image)[:count]
    found = [re.search(r'\bName="([^"]*)"', tag) for tag in tags]
    names = tuple(html.unescape(name[1]) for name in found if name)
    return names if len(names) == count else ()


def _ome_spacing(document: str) -> tuple[tuple[float, ...] | None, str | None]:
    """Return the sizes of OME-XML, looked for in its text: no document of a stranger is expanded."""
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", document)
    tags = dict(re.findall(r'\b(PhysicalSize[XYZ](?:Unit)?)="([^"]*)"', pixels[0])) if pixels else {}
    sizes: list[tuple[float, str]] = []
    for axis in "ZYX":
        try:
            sizes.append((float(tags[f"PhysicalSize{axis}"]), tags.get(f"PhysicalSize{axis}Unit", "µm")))
        except (KeyError, ValueError):
            if axis != "Z":
                return None, None
    factors = [metres(unit) for _, unit in sizes]
    if not all(factors) or not all(0 < size < math.inf for size, _ in sizes):
        return None, None
    last = factors[-1] or 1.0
    unit = unit_name(sizes[-1][1])
    return tuple(
        size * (factor or last) / last for (size, _), factor in zip(sizes, factors, strict=True)
    ), unit


def _imagej_spacing(imagej: object, page: TiffPage) -> tuple[tuple[float, ...] | None, str | None]:
    tags = getattr(page, "tags", {})
    if not isinstance(imagej, dict) or "unit" not in imagej or "XResolution" not in tags:
        return None, None
    unit = unit_name(str(imagej["unit"]))
    if metres(unit) is None or unit == "inch":
        return None, None
    sides: list[float] = [float(imagej["spacing"])] if "spacing" in imagej else []
    for name in ("YResolution", "XResolution"):
        above, below = tags[name].value
        if not above or not below:
            return None, None
        sides.append(below / above)
    return tuple(sides), unit
