"""What the scanners of slides write of pixels and channels: Hamamatsu, Leica, Akoya, Ventana, Philips and Aperio.

The tags of resolution are believed of these scanners alone, which write there what they measured.
"""

from __future__ import annotations

import html
import math
import re
from typing import TYPE_CHECKING

from unet_dask.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from tifffile import TiffPage, TiffPageSeries

#: Kinds of slides, by tifffile's names, and how people know them.
NAMES = {
    "svs": "SVS",
    "ndpi": "NDPI",
    "scn": "Leica SCN",
    "qpi": "QPTIFF",
    "bif": "Ventana BIF",
    "philips": "Philips TIFF",
    "avs": "Argos AVS",
}
#: Scanners that write what they measured into the tags of resolution.
_BY_TAGS = frozenset({"ndpi", "scn", "qpi"})
#: Micrometres of the units of these tags, inch and centimetre.
_UNITS = {2: 25400.0, 3: 10000.0}

Size = tuple[tuple[float, ...] | None, str | None]


def spacing_of(series: TiffPageSeries) -> Size:
    """Return height and width of a pixel in micrometres, as the scanner wrote it; None if it did not."""
    page, kind = series.keyframe, str(series.kind)
    if kind in _BY_TAGS:
        return _sound(_of_tags(page))
    if kind == "bif":
        found = re.search(r'\bScanRes\s*=\s*"([0-9.eE+-]+)"', _xmp(page))
        return _sound([_number(found[1])] * 2 if found else [])
    if kind == "philips":
        found = re.search(r'DICOM_PIXEL_SPACING"[^>]*>\s*([^<]*)<', str(page.description))
        sizes = re.findall(r"[0-9.eE+-]+", html.unescape(found[1]).replace('"', " ")) if found else []
        return _sound([1000 * _number(size) for size in sizes[:2]])
    return None, None


def aperio_spacing(description: str) -> Size:
    """Return the micrometres of a pixel that Aperio wrote, as ``|MPP = 0.499``."""
    found = re.search(r"\|\s*MPP\s*=\s*([0-9.]+)", description)
    return _sound([_number(found[1])] * 2 if found else [])


def channel_names_of(series: TiffPageSeries) -> tuple[str, ...]:
    """Return the names that Akoya gives the channels of a QPTIFF, () if it does not name every one."""
    if series.kind != "qpi":
        return ()
    found = [
        re.search(r"<Name>([^<]*)</Name>", str(getattr(page, "description", ""))) for page in series.pages
    ]
    names = tuple(html.unescape(name[1]).strip() for name in found if name)
    return names if len(names) == len(found) and all(names) else ()


def require_stitched(series: TiffPageSeries, path: Path) -> None:
    """Refuse a slide of Ventana whose tiles overlap: side by side they would show cells twice.

    Raises
    ------
    InputError
        If they overlap.
    """
    if series.kind != "bif":
        return
    text = "".join(_xmp(page) for level in series.levels[:1] for page in level.pages if page is not None)
    overlaps = re.findall(r'\bOverlap[XY]\s*=\s*"(-?[0-9.]+)"', text)
    if any(_number(each) != 0 for each in overlaps):
        raise InputError(
            f"{path.name} is a Ventana BIF whose tiles overlap, which are not stitched. Convert it with bioformats2raw "
            "and segment the OME-Zarr."
        )


def _of_tags(page: TiffPage) -> list[float]:
    tags = page.tags
    unit = _UNITS.get(int(tags.valueof("ResolutionUnit", 2)))
    sizes = []
    for name in ("YResolution", "XResolution"):
        above, below = tags.valueof(name, (0, 1))
        sizes.append(unit * below / above if unit and above and below else 0.0)
    return sizes


def _xmp(page: TiffPage) -> str:
    """Return the XMP of a page, "" if it has none; its file may be closed by now."""
    found, handle = page.tags.get(700), page.parent.filehandle
    closed = bool(handle.closed)
    if closed:
        handle.open()
    try:
        content = found.value if found is not None else b""
    finally:
        if closed:
            handle.close()
    return content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _sound(sizes: list[float]) -> Size:
    if len(sizes) != 2 or not all(0 < size < math.inf for size in sizes):
        return None, None
    return tuple(sizes), "micrometer"
