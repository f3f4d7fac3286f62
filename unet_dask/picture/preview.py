"""A picture of a result beside its source, small enough to look at, whatever the size of the volume.

Drawn from the coarsest level that still fills the panels, one plane of it, in bounded memory. A voxel that was
never written is hatched and counted: a hole must not pass for background in a picture either. The source is
found again through the run's manifest; if it is gone the result is drawn alone and the picture says so.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.errors import SinkError
from unet_dask.io import remote
from unet_dask.io.sink.place import require_manifest
from unet_dask.io.source.received import Consent, consented
from unet_dask.levels import product_levels
from unet_dask.measuring.sizes import sizes_of
from unet_dask.picture.panels import Legend, draw
from unet_dask.picture.plane import (
    class_counts,
    holes_of,
    product_plane,
    source_plane,
    view_of,
)
from unet_dask.products import PRODUCTS
from unet_dask.products.sentinel import is_sentinel, sentinel

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.measuring.sizes import Sizes

    Plane = NDArray[np.generic]


#: Side in pixels of the part of a plane that is drawn at full size.
_DETAIL = 512


@dataclass(frozen=True, slots=True)
class Preview:
    """What a picture shows.

    Attributes
    ----------
    path : of the PNG
    shown : (start, stop) along y and x, in voxels of the source
    z, t : of the plane, in voxels of the source; None without such an axis
    step : voxels per pixel of the picture
    unwritten : share of the pixels shown that were never written
    source : whether the source is beside the result
    objects : how many the whole result has, how large and how dense, for people; "" if they are not counted
    notes : what the user should know
    """

    path: Path
    shown: tuple[tuple[int, int], tuple[int, int]]
    z: int | None
    t: int | None
    step: int
    unwritten: float
    source: bool
    objects: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the same for programs."""
        return asdict(self) | {"path": str(self.path)}


def preview(
    sink: str | os.PathLike[str],
    png: str | os.PathLike[str],
    *,
    z: int | None = None,
    t: int | None = None,
    roi: str | None = None,
    source: str | os.PathLike[str] | Consent | None = None,
) -> Preview:
    """Draw a plane of a result beside the same plane of its source.

    Parameters
    ----------
    sink : path or URL of a result, complete or not
    png : file to write
    z, t : plane to draw, in voxels of the source; the middle one by default
    roi : part of the plane, "y0:y1,x0:x1" in voxels of the source; all by default
    source : path or URL of the source; None for where the result says, if that is on this machine. A
        :class:`unet_dask.io.source.received.Consent` can say more

    Raises
    ------
    SinkError
        If there is no result of ours, or the picture cannot be written.
    OptionError
        If the plane or the part lies outside of the result.
    """
    path = remote.local_path(png)
    figure, shown = drawn(remote.location(sink, "sink"), z=z, t=t, roi=roi, consent=consented(source))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi="figure")
    except OSError as error:
        raise SinkError(f"The picture {path} cannot be written: {error.strerror or error}.") from error
    return Preview(path=path, **shown)


def drawn(
    url: str,
    *,
    z: int | None = None,
    t: int | None = None,
    roi: str | None = None,
    consent: Consent | None = None,
    counted: bool = True,
) -> tuple[Figure, dict[str, Any]]:
    """Return the figure of `preview`, and what it shows: the fields of `Preview` but the path.

    Parameters
    ----------
    url : of the result
    z, t, roi, consent : as in `preview`
    counted : whether to count the objects of the whole result, if it has some
    """
    manifest = require_manifest(url)
    view = view_of(manifest, z=z, t=t, roi=roi)
    source, notes = source_plane(manifest, view, consent or Consent())
    products = {entry.name: product_plane(url, manifest, entry, view) for entry in manifest.arrays}
    holes = holes_of(products)
    if holes.any():
        notes = (*notes, f"{holes.mean():.1%} of what is shown was never written (hatched)")
    legend, more = _legend(url, manifest)
    notes = (*notes, *more)
    sizes, more = _sizes(url, consent or Consent()) if counted else (None, ())
    notes = (*notes, *more)
    figure = draw(source, products, holes, legend, view, notes, sizes)
    positions = {axis: at + view.corner[axis] for axis, at in view.planes.items()}
    return figure, {
        "shown": view.in_source,
        "z": positions.get("z"),
        "t": positions.get("t"),
        "step": view.step,
        "unwritten": float(holes.mean()),
        "source": source is not None,
        "objects": "" if sizes is None else sizes.text,
        "notes": notes,
    }


def detail(url: str) -> str | None:
    """Return the part of the plane of `preview` that has most in it, to be drawn at full size; None if all is already.

    Raises
    ------
    SinkError
        If there is no result, or it is damaged.
    """
    manifest = require_manifest(url)
    view = view_of(manifest, z=None, t=None, roi=None)
    entry = next((entry for entry in manifest.arrays if not PRODUCTS[entry.name].amounts), None)
    if view.step == 1 or entry is None:
        return None
    plane: Any = product_plane(url, manifest, entry, view)
    something = (plane > 0) & ~is_sentinel(plane)
    side = _DETAIL // view.step
    sums = np.pad(something.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    high, wide = (min(side, size) for size in something.shape)
    within = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    place = np.unravel_index(int(within.argmax()), within.shape)
    spans = []
    for first, (start, stop) in zip(place, view.in_source, strict=True):
        begin = start + int(first) * view.step
        spans.append(f"{begin}:{min(begin + _DETAIL, stop)}")
    return ",".join(spans)


def _sizes(url: str, consent: Consent) -> tuple[Sizes | None, tuple[str, ...]]:
    """Return how large objects are, None if that is not known; and why not, if it should be."""
    try:
        return sizes_of(url, consent), ()
    except SinkError as error:  # elsewhere than in what is drawn
        return None, (f"objects are not counted: {error}",)


def _legend(url: str, manifest: Manifest) -> tuple[Legend, tuple[str, ...]]:
    """Return what is said of colours, with voxels in the whole result where they are known; why not, if they should."""
    names = manifest.classes
    entry = next((entry for entry in manifest.arrays if PRODUCTS[entry.name].legend(names)), None)
    if entry is None:
        return Legend(names), ()
    try:
        finest = product_levels(url, manifest, entry)[0]
        counts = class_counts(finest)
    except SinkError as error:  # elsewhere than in what is drawn
        return Legend(names), (f"the shares of classes are not given: {error}",)
    if counts is None:
        return Legend(names), ()
    missing = int(sentinel(finest.dtype))
    return Legend(names, np.delete(counts, missing), int(counts[missing])), ()
