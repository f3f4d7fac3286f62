"""The columns of a table of objects, and their names: those of scikit-image where it has them.

`skimage.measure.regionprops_table` ends names with the number of an axis or a channel. Axes have their letter here:
``centroid-y``; channels their name, if all have one, or their number: ``intensity_mean-DAPI``, ``intensity_mean-0``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.io.remote import printable
from unet_dask.measuring.sums import variance

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from unet_dask.measuring.frame import Frame
    from unet_dask.measuring.sums import Rows

    #: Columns of one length by their names.
    Columns = dict[str, NDArray[Any]]


def columns_of(
    rows: Rows,
    frame: Frame,
    class_names: Sequence[str],
    channel_names: Sequence[str],
    *,
    scale: float = 1,
    core: int = 0,
) -> Columns:
    """Return the table of some objects.

    Parameters
    ----------
    rows : sums of each object
    frame : where they lie
    class_names : background first
    channel_names : of the channels that were measured
    scale : of stored probabilities, what a certain class has
    core : class that all objects are of, which grew into others; 0 if each has its own
    """
    fields = rows.dtype.names or ()
    kinds = kinds_of(rows, core)
    table: Columns = {"label": rows["label"], "class": np.array([*map(printable, class_names)])[kinds]}
    table |= _places(rows, frame)
    table["touches_border"] = _touching(rows, frame)
    if "certain" in fields:
        certain = rows["certain"]
        chosen = certain.sum(axis=1) if core else certain[np.arange(len(rows)), np.maximum(kinds, 1) - 1]
        table["probability_mean"] = chosen / (rows["area"] * scale)
    if "total" in fields:
        table |= _intensities(rows, channel_names)
    return table


def joined(head: Columns, batches: Iterable[Columns]) -> Columns:
    """Return a table whose parts are in memory."""
    parts = list(batches) or [head]
    return {name: np.concatenate([part[name] for part in parts]) for name in head}


def kinds_of(rows: Rows, core: int = 0) -> NDArray[np.intp]:
    """Return the class of each object.

    That is the one that most of its voxels have, background left out, the first of several; of objects that grew from
    cores it is that of the core, however much is left of it.
    """
    if core:
        return np.full(len(rows), core, np.intp)
    if "per_class" not in (rows.dtype.names or ()):
        return np.ones(len(rows), np.intp)
    counts = rows["per_class"]
    return np.where(counts.any(axis=1), counts.argmax(axis=1) + 1, 0)


def _places(rows: Rows, frame: Frame) -> Columns:
    """Return where objects lie, and how large they are."""
    first = len(frame.planes)
    inner = range(first, len(frame.axes))
    mean = rows["places"] / rows["area"][:, np.newaxis]
    table: Columns = {
        axis: frame.edges(number, rows["low"][:, number]) for number, axis in enumerate(frame.planes)
    }
    table["area"] = rows["area"] * frame.pixels
    table |= {f"centroid-{frame.axes[axis]}": frame.centres(axis, mean[:, axis]) for axis in inner}
    for name in ("low", "high"):
        bound = {"low": "min", "high": "max"}[name]
        table |= {
            f"bbox_{bound}-{frame.axes[axis]}": frame.edges(axis, rows[name][:, axis]) for axis in inner
        }
    if frame.size is not None:
        table[frame.measure] = rows["area"] * frame.size
        table |= {f"centroid_um-{frame.axes[axis]}": frame.physical(axis, mean[:, axis]) for axis in inner}
    return table


def _touching(rows: Rows, frame: Frame) -> NDArray[np.bool_]:
    """Return which objects lie at the border of what was segmented, where they may go on."""
    inner = slice(len(frame.planes), None)
    at_end = rows["high"][:, inner] == np.array(frame.shape[inner])
    return np.asarray(((rows["low"][:, inner] == 0) | at_end).any(axis=1))


def _intensities(rows: Rows, names: Sequence[str]) -> Columns:
    """Return grey values; of a source with one channel without its name."""
    plain = tuple(printable(name) for name in names)
    shown = plain if all(plain) and len(set(plain)) == len(plain) else tuple(map(str, range(len(names))))
    ends = [""] if len(names) == 1 else [f"-{name}" for name in shown]
    found = {
        "intensity_mean": rows["total"] / rows["area"][:, np.newaxis],
        "intensity_min": rows["least"],
        "intensity_max": rows["most"],
        "intensity_std": np.sqrt(np.maximum(variance(rows), 0)),
    }
    return {f"{name}{end}": found[name][:, number] for number, end in enumerate(ends) for name in found}
