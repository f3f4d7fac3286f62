"""What the attributes of an HDF5 data set say of its axes and pixels, in the ways of several programs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask import axes as axes_
from unet_dask.spacing import unit_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Said:
    """What is known of a data set.

    Attributes
    ----------
    axes : one letter per axis, None if nobody names them
    spacing : physical size of a pixel, of the last axes of space, or by axis
    unit : of the spacing
    translation : position of the first pixel, by axis
    origin : whose attributes these are, "" if there are none
    """

    axes: str | None = None
    spacing: Mapping[str, float] | Sequence[float] | None = None
    unit: str | None = None
    translation: Mapping[str, float] = field(default_factory=dict)
    origin: str = ""


def read(data: Any) -> Said:
    """Return what a data set says, in the ways of ilastik, plantseg, CREMI and HDF5 itself."""
    axes, by_axis, origin = _axistags(data)
    if axes is None:
        axes, origin = _labels(data), ""
    micrometres = _numbers(data, "element_size_um")
    if micrometres:
        return Said(axes, micrometres, "micrometer", origin=origin or "plantseg")
    if by_axis:
        return Said(axes, by_axis, None, origin=origin)
    sizes = _numbers(data, "resolution")
    if sizes and len(sizes) in (2, 3):
        # CREMI and its kin write nanometres, and say so in their description, not in the file.
        unit = _text(data, "units") or _text(data, "unit") or "nm"
        offset = _numbers(data, "offset") or ()
        moved = dict(zip("zyx"[-len(offset) :], offset, strict=True)) if 0 < len(offset) <= 3 else {}
        return Said(axes, sizes, unit_name(unit), moved, origin or "CREMI")
    return Said(axes, origin=origin)


def _axistags(data: Any) -> tuple[str | None, dict[str, float], str]:
    """Return the axes that vigra and ilastik write as JSON, and the sizes along those of space, where they are set."""
    text = _text(data, "axistags")
    try:
        entries = json.loads(text)["axes"] if text else []
        keys = [str(entry["key"]) for entry in entries]
        sizes = {str(each["key"]): float(each.get("resolution") or 0) for each in entries}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, {}, ""
    if (
        len(keys) != data.ndim
        or not set(keys) <= set(axes_.SYNONYMS.values())
        or not axes_.fit_an_image(keys)
    ):
        return None, {}, ""
    known = {axis: size for axis, size in sizes.items() if size > 0 and axis in "zyx"}
    return "".join(keys), known, "ilastik"


def _labels(data: Any) -> str | None:
    """Return the axes that the labels of HDF5's dimensions name."""
    names = [str(dimension.label) for dimension in data.dims]
    return axes_.from_names(names) if all(names) else None


def _numbers(data: Any, name: str) -> list[float] | None:
    try:
        found = np.asarray(data.attrs[name], np.float64).ravel()
    except (KeyError, TypeError, ValueError, OSError):
        return None
    return [float(number) for number in found] if 0 < found.size <= 5 else None


def _text(data: Any, name: str) -> str:
    try:
        found = data.attrs[name]
    except (KeyError, TypeError, OSError):
        return ""
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
