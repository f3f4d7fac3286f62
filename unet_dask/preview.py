"""A picture of a result beside its source, small enough to look at, whatever the size of the volume.

Drawn from the coarsest level that still fills the panels, one plane of it, in bounded memory. A voxel that was
never written is hatched and counted: a hole must not pass for background in a picture either. The source is
found again through the run's manifest; if it is gone the result is drawn alone and the picture says so.
"""

from __future__ import annotations

import math
import posixpath
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from unet_dask.config import parse_roi
from unet_dask.errors import InputError, OptionError, SinkError, UnetDaskError
from unet_dask.io import remote
from unet_dask.io.multiscale import class_colour, coarser
from unet_dask.io.place import exists, read_manifest
from unet_dask.io.source import open_source

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from unet_dask.io.source import Source

    Plane = NDArray[Any]

#: Longest side of a panel in pixels.
SIDE = 1024
#: Voxels of the source that are read for one picture at most; beyond, it has to be a part of the volume.
_MOST_READ = 1 << 29
#: Colour of what was never written, and the width of its stripes in pixels.
_UNWRITTEN = (1.0, 0.0, 1.0, 1.0)
_STRIPE = 6


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
    notes : what the user should know
    """

    path: Path
    shown: tuple[tuple[int, int], tuple[int, int]]
    z: int | None
    t: int | None
    step: int
    unwritten: float
    source: bool
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the same for programs."""
        return asdict(self) | {"path": str(self.path)}


@dataclass(frozen=True, slots=True)
class _View:
    """The part of a sink that is drawn, in voxels of its finest level.

    Attributes
    ----------
    window : (start, stop) along y and x
    planes : position along every other axis but c
    corner : of the sink in the source, per axis
    """

    window: tuple[tuple[int, int], tuple[int, int]]
    planes: Mapping[str, int]
    corner: Mapping[str, int]

    @property
    def step(self) -> int:
        """Voxels per pixel, a power of two as in pyramids, so that the longer side fits the panel."""
        longest = max(stop - start for start, stop in self.window)
        return 1 << max(-(-longest // SIDE) - 1, 0).bit_length()

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels of a panel, (y, x)."""
        (top, bottom), (left, right) = self.window
        return -(-(bottom - top) // self.step), -(-(right - left) // self.step)

    def fit(self, plane: Plane) -> Plane:
        """Return a plane of exactly the panel's pixels: ragged ends of levels differ by a pixel."""
        plane = plane[..., : self.shape[0], : self.shape[1]]
        missing = [(0, wanted - got) for wanted, got in zip(self.shape, plane.shape[-2:], strict=True)]
        return np.pad(plane, [(0, 0)] * (plane.ndim - 2) + missing, mode="edge")

    @property
    def in_source(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The window in voxels of the source."""
        (top, bottom), (left, right) = self.window
        down, along = self.corner["y"], self.corner["x"]
        return (top + down, bottom + down), (left + along, right + along)


def preview(
    sink: str | os.PathLike[str],
    png: str | os.PathLike[str],
    *,
    z: int | None = None,
    t: int | None = None,
    roi: str | None = None,
) -> Preview:
    """Draw a plane of a result beside the same plane of its source.

    Parameters
    ----------
    sink : path or URL of a result, complete or not
    png : file to write
    z, t : plane to draw, in voxels of the source; the middle one by default
    roi : part of the plane, "y0:y1,x0:x1" in voxels of the source; all by default

    Raises
    ------
    SinkError
        If there is no result of ours, or the picture cannot be written.
    OptionError
        If the plane or the part lies outside of the result.
    """
    url = str(sink)
    manifest = _manifest(url)
    view = _view(manifest, z=z, t=t, roi=roi)
    source, notes = _source_plane(manifest, view)
    products = {
        each["name"]: _product(url, each, view) for each in manifest["arrays"] if each["name"] != "instances"
    }
    holes = _holes(products)
    if holes.any():
        notes = (*notes, f"{holes.mean():.1%} of what is shown was never written (hatched)")
    figure = _figure(source, products, holes, manifest["classes"], view, notes)
    path = Path(png)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=110)
    except OSError as error:
        raise SinkError(f"The picture {path} cannot be written: {error.strerror or error}.") from error
    corner = view.corner
    positions = {axis: at + corner[axis] for axis, at in view.planes.items()}
    return Preview(
        path=path,
        shown=view.in_source,
        z=positions.get("z"),
        t=positions.get("t"),
        step=view.step,
        unwritten=float(holes.mean()),
        source=source is not None,
        notes=notes,
    )


def _manifest(url: str) -> dict[str, Any]:
    if not exists(url):
        raise SinkError(f"There is nothing at {remote.redact_url(url)}. Name a result of unet-dask segment.")
    manifest = read_manifest(url)
    if manifest is None:
        raise SinkError(
            f"{remote.redact_url(url)} was never completely created, so there is nothing to draw. Run segment again."
        )
    return manifest


def _view(manifest: Mapping[str, Any], *, z: int | None, t: int | None, roi: str | None) -> _View:
    """Return the part to draw, from what was asked, in voxels of the source."""
    axes: str = manifest["plan"]["axes"]
    extent = {axis: tuple(each) for axis, each in zip(axes, manifest["plan"]["roi"], strict=True)}
    corner = {axis: start for axis, (start, _) in extent.items()}
    planes = {}
    for axis, asked in (("t", t), ("z", z)):
        if axis not in axes:
            if asked is not None:
                raise OptionError(f"The result has no axis {axis}, only {axes}. Leave out --{axis}.")
            continue
        start, stop = extent[axis]
        position = (start + stop) // 2 if asked is None and axis == "z" else start if asked is None else asked
        if not start <= position < max(stop, start + 1):
            raise OptionError(f"--{axis} {position} is outside of the result. Use {start} to {stop - 1}.")
        planes[axis] = position - start
    shape = tuple(manifest["plan"]["shape"][axes.index(axis)] for axis in "yx")
    whole = (extent["y"], extent["x"])
    part = parse_roi(roi, axes="yx", shape=shape) if roi else whole
    clipped = [
        (max(a, low) - low, min(b, high) - low) for (a, b), (low, high) in zip(part, whole, strict=True)
    ]
    if any(a >= b for a, b in clipped):
        raise OptionError(
            "There is nothing to draw: the result covers "
            f"{', '.join(f'{low}:{high}' for low, high in whole)} (y,x) of the source."
        )
    return _View((clipped[0], clipped[1]), planes, corner)


def _product(url: str, entry: Mapping[str, Any], view: _View) -> Plane:
    """Return the plane of a product, (y, x) or (c, y, x), of unwritten voxels the sentinel."""
    levels = [zarr.open_array(url, path=f"{entry['name']}/{n}", mode="r") for n in range(entry["levels"])]
    axes: str = entry["axes"]
    finest = levels[0].shape
    chosen = levels[0]
    for level in levels:
        if _factor(finest, level.shape, axes) <= view.step:
            chosen = level
    plane = _read_level(chosen, axes, view, factors=_factors(finest, chosen.shape))
    if chosen is not levels[0] and _unwritten(plane).any():
        # Coarser levels are made last; in a run that is not complete only the finest tells what is there.
        plane = _read_level(levels[0], axes, view, factors=(1,) * len(axes))
    return view.fit(plane)


def _factors(finest: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the power of two by which each axis of a level is coarser."""
    return tuple(1 << round(math.log2(a / b)) if a and b else 1 for a, b in zip(finest, shape, strict=True))


def _factor(finest: tuple[int, ...], shape: tuple[int, ...], axes: str) -> int:
    factors = _factors(finest, shape)
    return max(factors[axes.index("y")], factors[axes.index("x")])


def _read_level(array: zarr.Array[Any], axes: str, view: _View, *, factors: tuple[int, ...]) -> Plane:
    """Read every n-th pixel of a level's plane, a band of rows at a time."""
    size = dict(zip(axes, array.shape, strict=True))
    factor = dict(zip(axes, factors, strict=True))
    (top, bottom), (left, right) = (
        (start // factor[axis], max(-(-stop // factor[axis]), start // factor[axis] + 1))
        for axis, (start, stop) in zip("yx", view.window, strict=True)
    )
    take = max(view.step // factor["y"], 1)

    def read(first: int, last: int) -> Plane:
        at: dict[str, int | slice] = {
            **{a: min(p // factor[a], size[a] - 1) for a, p in view.planes.items() if a in axes},
            "y": slice(first, min(last, size["y"])),
            "x": slice(left, min(right, size["x"])),
        }
        values = np.asarray(array[tuple(at.get(axis, slice(None)) for axis in axes)])
        return values[..., take // 2 :: take, take // 2 :: take]

    rows = (array.shards or array.chunks)[axes.index("y")]
    return _bands(read, top, bottom, band=max(rows // take, 1) * take)


def _bands(read: Callable[[int, int], Plane], top: int, bottom: int, *, band: int) -> Plane:
    """Put together what was read band by band."""
    return np.concatenate(
        [read(first, min(first + band, bottom)) for first in range(top, bottom, band)], axis=-2
    )


def _unwritten(plane: Plane) -> NDArray[np.bool_]:
    """Return where a plane holds the sentinel, (y, x)."""
    missing: NDArray[np.bool_] = np.isnan(plane) if plane.dtype.kind == "f" else plane == 255
    return np.logical_or.reduce(missing, axis=0) if plane.ndim == 3 else missing


def _holes(products: Mapping[str, Plane]) -> NDArray[np.bool_]:
    first, *others = (_unwritten(plane) for plane in products.values())
    for other in others:
        first = first | other
    return first


def _source_plane(manifest: Mapping[str, Any], view: _View) -> tuple[Plane | None, tuple[str, ...]]:
    """Return the source's plane, (y, x) or (c, y, x), or None and why not."""
    identity = manifest["fingerprint"]
    chosen = identity["source.channels"]
    channels = None if chosen == "all" else [int(channel) for channel in chosen.split(",")]
    try:
        source = open_source(
            identity["source.url"],
            key=identity["source.key"] or None,
            axes=identity["source.axes"],
            channels=channels,
        )
        if list(source.shape) != manifest["plan"]["shape"]:
            return None, ("the source has another shape now, so it is not shown",)
        coarse = _coarse_source(source, view, channels)
        factors = _factors(source.shape, coarse.shape)
        to_read = math.prod((stop - start) // factors[-2 + i] for i, (start, stop) in enumerate(view.window))
        if to_read > _MOST_READ:
            return None, ("the source has no coarser level and is too large to draw; use --roi y0:y1,x0:x1",)
        return view.fit(_read_source(coarse, view, factors)), ()
    except UnetDaskError as error:
        return None, (f"the source is not shown: {error}",)


def _coarse_source(source: Source, view: _View, channels: list[int] | None) -> Source:
    """Return the coarsest level of the source's own pyramid that fills the panel."""
    best = source
    if source.level is None or source.spec.key == "":
        return best
    group = posixpath.dirname(source.spec.key)
    for level in range(source.level + 1, source.level + 32):
        try:
            next_one = open_source(
                source.spec.url, key=group or None, axes=source.spec.axes, level=level, channels=channels
            )
        except InputError:
            break
        if _factor(source.shape, next_one.shape, source.axes) > view.step:
            break
        best = next_one
    return best


def _read_source(source: Source, view: _View, factors: tuple[int, ...]) -> Plane:
    """Read a plane of the source, averaged to the panel's pixels."""
    axes = source.axes
    factor = dict(zip(axes, factors, strict=True))
    size = dict(zip(axes, source.shape, strict=True))
    (top, bottom), (left, right) = (
        (start // factor[axis], min(max(-(-stop // factor[axis]), start // factor[axis] + 1), size[axis]))
        for axis, (start, stop) in zip("yx", view.in_source, strict=True)
    )
    take = max(view.step // factor["y"], 1)

    def read(first: int, last: int) -> Plane:
        window = {"y": slice(first, last), "x": slice(left, right), "c": slice(0, size["c"])}
        for axis, position in view.planes.items():
            at = min((position + view.corner[axis]) // factor[axis], size[axis] - 1)
            window[axis] = slice(at, at + 1)
        values = source.read(tuple(window[axis] for axis in axes))
        plane = values.reshape(size["c"], *values.shape[-2:])
        return coarser(plane.astype(np.float32), (1, take, take), vote=False)

    rows = source.chunks[axes.index("y")]
    plane = _bands(read, top, bottom, band=max(rows // take, 1) * take)
    return plane if plane.shape[0] == 3 else plane[0]


def _figure(
    source: Plane | None,
    products: Mapping[str, Plane],
    holes: NDArray[np.bool_],
    class_names: list[str],
    view: _View,
    notes: tuple[str, ...],
) -> Figure:
    """Lay the panels side by side."""
    from matplotlib.figure import Figure

    (top, bottom), (left, right) = view.in_source
    extent = (left, right, bottom, top)
    grey = None if source is None else _grey(source)
    panels: list[tuple[str, Callable[[Axes], object]]] = []
    if grey is not None:
        shown = grey
        panels.append(("source", lambda axes: axes.imshow(shown, extent=extent, interpolation="antialiased")))
    if "classes" in products:
        picture = _overlay(products["classes"], grey)
        panels.append(("classes", lambda axes: axes.imshow(picture, extent=extent, interpolation="nearest")))
    if "probabilities" in products:
        found, name = _foreground(products["probabilities"], class_names)
        panels.append((f"probability of {name}", lambda axes: _probability(axes, found, extent)))
    wide = 5.2
    high = wide * min(max((bottom - top) / (right - left), 0.25), 2.0)
    figure = Figure(figsize=(wide * len(panels) + 0.4, 0.94 * high + 0.85), layout="constrained")
    row = np.atleast_1d(figure.subplots(1, len(panels)))
    for axes, (title, draw) in zip(row, panels, strict=True):
        draw(axes)
        if title != "source" and holes.any():
            axes.imshow(_hatching(holes), extent=extent, interpolation="nearest")
        axes.set_title(title, fontsize=10)
        axes.tick_params(labelsize=7)
        if title == "classes":
            _legend(axes, products["classes"], class_names)
    figure.supxlabel("\n".join([_place(view), *notes]), fontsize=8)
    return figure


def _place(view: _View) -> str:
    (top, bottom), (left, right) = view.in_source
    planes = "".join(f"{axis} {at + view.corner[axis]}, " for axis, at in view.planes.items())
    return f"{planes}y {top}:{bottom}, x {left}:{right}; 1 pixel = {view.step} voxel{'s' * (view.step > 1)}"


def _grey(source: Plane) -> NDArray[np.float32]:
    """Return (y, x, 3) in [0, 1], stretched between percentiles, the same for all channels."""
    colour = (
        np.moveaxis(source, 0, -1) if source.ndim == 3 else np.repeat(source[..., np.newaxis], 3, axis=-1)
    )
    finite = colour[np.isfinite(colour)]
    low, high = np.percentile(finite, [0.5, 99.7]) if finite.size else (0.0, 1.0)
    return np.clip((np.nan_to_num(colour) - low) / max(high - low, 1e-9), 0, 1).astype(np.float32)


def _overlay(classes: Plane, grey: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return (y, x, 3): every class a veil of its colour and an outline."""
    shape = classes.shape
    picture = np.zeros((*shape, 3), np.float32) if grey is None else grey * np.float32(0.85)
    edge = np.zeros(shape, bool)
    edge[:-1] |= classes[:-1] != classes[1:]
    edge[:, :-1] |= classes[:, :-1] != classes[:, 1:]
    for value in np.unique(classes):
        if value in (0, 255):
            continue
        here = classes == value
        colour = np.array(class_colour(int(value))[:3], np.float32) / 255
        veil = np.float32(0.45 if grey is not None else 0.8)
        picture[here] = (1 - veil) * picture[here] + veil * colour
        picture[here & edge] = 0.5 + 0.5 * colour  # a lighter outline shows on dark and on bright ground
    return picture


def _hatching(holes: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return (y, x, 4): magenta stripes over holes, transparent elsewhere."""
    y, x = np.indices(holes.shape)
    stripes = (y + x) // _STRIPE % 2 == 0
    picture = np.zeros((*holes.shape, 4), np.float32)
    picture[holes] = (0, 0, 0, 1)
    picture[holes & stripes] = _UNWRITTEN
    return picture


def _foreground(probabilities: Plane, class_names: list[str]) -> tuple[NDArray[np.float32], str]:
    """Return the probability of all that is not background, (y, x) in [0, 1]."""
    scale = 254 if probabilities.dtype.kind == "u" else 1
    found = 1 - probabilities[0].astype(np.float32) / scale
    return found, class_names[1] if len(class_names) == 2 else "foreground"


def _probability(axes: Axes, found: NDArray[np.float32], extent: tuple[int, int, int, int]) -> None:
    image = axes.imshow(found, extent=extent, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.ax.tick_params(labelsize=7)


def _legend(axes: Axes, classes: Plane, class_names: list[str]) -> None:
    """Name every class with its share of what was written."""
    from matplotlib.patches import Patch

    written = max(int((classes != 255).sum()), 1)
    entries = [
        Patch(
            color="#{:02x}{:02x}{:02x}".format(*class_colour(value)),
            label=f"{name} {(classes == value).sum() / written:.1%}",
        )
        for value, name in enumerate(class_names)
        if value
    ]
    if (classes == 255).any():
        entries.append(Patch(facecolor=_UNWRITTEN, edgecolor="black", hatch="//", label="not written"))
    axes.legend(handles=entries, loc="upper right", fontsize=7, framealpha=0.8)
