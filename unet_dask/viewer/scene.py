"""Everything that the page shows of one result, opened once and read tile by tile.

Places are voxels of the source. Tiles are counted from the corner of the result, so that they lie on its chunks; one
of step n shows n voxels of the finest level per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unet_dask.axes import has_time, without_channel
from unet_dask.io import remote
from unet_dask.io.sink import place as places
from unet_dask.io.source.received import Consent
from unet_dask.ledger import Ledger
from unet_dask.picture.plane import View, fitting_step, shown_source, unwritten
from unet_dask.products import in_order
from unet_dask.viewer import paint
from unet_dask.viewer.layer import Image, StoredProduct, TooFarOutError
from unet_dask.viewer.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from unet_dask.products import Product
    from unet_dask.viewer.paint import Pixels

    Plane = NDArray[np.generic]

#: Side of a tile in pixels.
TILE = 256
#: Tiles that are read at the same time; each may hold some hundred megabytes while it is.
_AT_ONCE = 2
#: Planes of products that are kept, because classes and holes of one place are asked for together.
_KEPT = 32
#: What numbers are painted as beside a veil: a word in addresses of tiles, and what people read.
_OUTLINES = ("outlines", "outlines")
#: Values of one voxel that fit a line.
_LISTED = 8


@dataclass(frozen=True, slots=True)
class Where:
    """A tile's place.

    Attributes
    ----------
    step : voxels per pixel
    row, column : of the tile, from the corner of the result
    t, z : of its plane, in voxels of the source; None without such an axis
    """

    step: int
    row: int
    column: int
    t: int | None = None
    z: int | None = None


class Layer(NamedTuple):
    """What can be shown; choices and legend are pairs of a value, or a colour, and what people call it."""

    name: str
    choices: Sequence[tuple[str, str]]
    on: bool = True  # at first
    opacity: float = 1.0
    legend: Sequence[tuple[str, str]] = ()


class NotShownError(Exception):
    """There is no such layer, choice or place in what is shown."""


class Scene:
    """A result over its source.

    Parameters
    ----------
    sink : path or URL of a result, complete or not
    consent : to what may be opened beyond this machine; None for nothing

    Raises
    ------
    SinkError
        If there is no result of ours.
    """

    def __init__(self, sink: str, consent: Consent | None = None) -> None:
        self._url = sink = remote.location(sink, "sink")
        manifest = places.require_manifest(sink)
        plan = manifest.plan
        self._extent = {axis: plan.extent[axis] for axis in without_channel(plan.axes)}
        self._classes = [remote.printable(name) for name in manifest.classes]
        self._work = manifest.work
        self._products = {entry.name: StoredProduct(sink, manifest, entry) for entry in manifest.arrays}
        source, self._notes = shown_source(manifest, consent or Consent())
        self._image = None if source is None else Image(source)
        self._complete = False
        joined = (product.kind.name for product in self._products.values() if product.kind.joined)
        self._numbered = next(joined, None)
        self._objects = Objects(sink, consent or Consent())
        self._gate = BoundedSemaphore(_AT_ONCE)
        self._product_plane = lru_cache(_KEPT)(self._read_product)
        self._contrast = lru_cache(None)(self._sampled_contrast)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, one line each; looked up anew."""
        folder = f"{self._url.rstrip('/')}/{places.RUN_FOLDER}"
        if places.exists(f"{folder}/ledger.jsonl"):
            return self._notes
        done = len(Ledger(folder).finished())
        return (*self._notes, f"not complete: {done} of {self._work} blocks are done")

    def describe(self) -> dict[str, Any]:
        """Return what the page has to know, as plain JSON; tiles are read anew from now on."""
        notes = self.notes
        self._complete = notes == self._notes
        self._product_plane.cache_clear()
        return {
            "title": PurePosixPath(remote.redact_url(self._url).rstrip("/")).name,
            "notes": notes,
            "tile": TILE,
            "coarsest": self._coarsest,
            "extent": {axis: self._extent[axis] for axis in "yx"},
            "planes": {axis: self._extent[axis] for axis in "tz" if axis in self._extent},
            "layers": [layer._asdict() for layer in self._layers()],
            "objects": self._numbered if self._complete else None,
        }

    @property
    def _coarsest(self) -> int:
        """Voxels per pixel at which one tile shows everything."""
        (top, bottom), (left, right) = self._extent["y"], self._extent["x"]
        return fitting_step(((0, bottom - top), (0, right - left)), TILE)

    def _layers(self) -> Iterator[Layer]:
        """Yield what can be shown, from below."""
        if self._image is not None:
            colour = [("colour", "in colour")] if self._image.channels == 3 else []
            each = [(str(n), f"channel {name}") for n, name in enumerate(self._image.names)]
            yield Layer("source", [*colour, *each])
        kinds = in_order(product.kind for product in self._products.values())
        for kind in sorted(kinds, key=lambda kind: not kind.amounts):
            legend = [
                ("#{:02x}{:02x}{:02x}".format(*colour), name)
                for _, colour, name in kind.legend(self._classes)
            ]
            opacity = 0.7 if kind.amounts else 0.45
            # Numbers are painted over a veil or as outlines; amounts have choices of their own.
            choices = kind.choices(self._classes) if kind.amounts else [("all", "filled"), _OUTLINES]
            yield Layer(kind.name, choices, kind is kinds[0], opacity, legend)
        yield Layer("unwritten", [("all", "all")])

    def tile(self, layer: str, choice: str, where: Where, contrast: tuple[float, float] | None) -> Pixels:
        """Return what a layer shows at a place.

        Parameters
        ----------
        layer, choice : as `describe` names them
        where : of the tile
        contrast : values of the source that are black and white; None to choose them

        Raises
        ------
        NotShownError
            If there is no such layer, choice or place.
        TooFarOutError
            If it would take too many voxels.
        """
        if choice not in {
            value for known in self._layers() if known.name == layer for value, _ in known.choices
        }:
            raise NotShownError(f"{layer}/{choice}")
        view = self._view(where)
        if layer == "source":
            low, high = contrast or self.contrast(choice)
            return paint.grey_pixels(self._source_plane(choice, view), low, high)
        if layer == "unwritten":
            planes = [self._product_plane(name, where) for name in self._products]
            return paint.hole_pixels(planes, (where.row * TILE, where.column * TILE))
        plane = self._product_plane(layer, where)
        if choice == _OUTLINES[0] and not self._products[layer].kind.amounts:
            return paint.outline_pixels(self._products[layer].kind.painted(plane, "all"), plane)
        return paint.product_pixels(self._products[layer].kind.painted(plane, choice), unwritten(plane))

    def contrast(self, choice: str) -> tuple[float, float]:
        """Return values of the source that are black and white at first, the same for every tile."""
        if self._image is None or choice not in ("colour", *map(str, range(self._image.channels))):
            raise NotShownError(choice)
        return self._contrast(choice)

    def voxel(self, y: int, x: int, *, t: int | None = None, z: int | None = None) -> dict[str, str]:
        """Return the values at a voxel of the source, for people."""
        at = self._inside({"y": y, "x": x} | self._planes(t, z))
        inner = self._inner(at)
        found = {}
        with self._gate:
            if self._image is not None:
                found["source"] = _listed(f"{value:g}" for value in self._image.voxel(at))
            for name, product in self._products.items():
                found[name] = self._told(product.kind, product.voxel(inner))
        return found

    def object_at(self, y: int, x: int, *, t: int | None = None, z: int | None = None) -> dict[str, str]:
        """Return what is measured of the object at a voxel of the source, for people; {} if there is none."""
        at = self._inside({"y": y, "x": x} | self._planes(t, z))
        with self._gate:
            return self._objects.told(self._inner(at)) if self._knows_objects else {}

    def object_of(self, number: int) -> dict[str, int]:
        """Return a voxel of the source that is of the object of a number.

        Raises
        ------
        NotShownError
            If there is no such object, or it is not found in bounded time.
        """
        with self._gate:
            found = self._objects.found(number) if self._knows_objects else None
        if found is None:
            raise NotShownError(str(number))
        return {axis: place + self._extent[axis][0] for axis, place in found.items()}

    @property
    def _knows_objects(self) -> bool:
        """Whether objects have the numbers that they will keep, as far as the page knows."""
        return self._complete and self._numbered is not None

    def _inside(self, at: dict[str, int]) -> dict[str, int]:
        """Return a voxel of the source that is one of the result."""
        if any(not self._extent[axis][0] <= place < self._extent[axis][1] for axis, place in at.items()):
            raise NotShownError(str(at))
        return at

    def _inner(self, at: dict[str, int]) -> dict[str, int]:
        """Return a voxel of the source as one of the result."""
        return {axis: place - self._extent[axis][0] for axis, place in at.items()}

    def _told(self, kind: Product, value: NDArray[np.generic]) -> str:
        """Return a product's value at a voxel for people."""
        if unwritten(value.reshape(-1, 1, 1)).any():
            return "not written"
        return _listed(kind.told(value, self._classes))

    def _view(self, where: Where) -> View:
        """Return the part of the plane that a tile shows."""
        if not 1 <= where.step <= self._coarsest or where.step & (where.step - 1):
            raise NotShownError(str(where))
        window = []
        for axis, number in (("y", where.row), ("x", where.column)):
            size = self._extent[axis][1] - self._extent[axis][0]
            start = number * TILE * where.step
            if not 0 <= start < size:
                raise NotShownError(str(where))
            window.append((start, min(start + TILE * where.step, size)))
        corner = {axis: start for axis, (start, _) in self._extent.items()}
        planes = {axis: at - corner[axis] for axis, at in self._planes(where.t, where.z).items()}
        return View((window[0], window[1]), planes, corner, where.step)

    def _planes(self, t: int | None, z: int | None) -> dict[str, int]:
        """Return the position along every axis but those of the plane, the first of those not named."""
        planes = {}
        for axis, asked in (("t", t), ("z", z)):
            if axis in self._extent:
                start, stop = self._extent[axis]
                planes[axis] = start if asked is None else asked
                if not start <= planes[axis] < stop:
                    raise NotShownError(f"{axis} {asked}")
            elif asked is not None:
                raise NotShownError(axis)
        return planes

    def _read_product(self, name: str, where: Where) -> Plane:
        with self._gate:
            return self._products[name].plane(self._view(where), complete=self._complete)

    def _source_plane(self, choice: str, view: View) -> NDArray[np.float32]:
        assert self._image is not None
        channels = (0, 3) if choice == "colour" else (int(choice), int(choice) + 1)
        with self._gate:
            return self._image.plane(view, channels)

    def _sampled_contrast(self, choice: str) -> tuple[float, float]:
        """Return percentiles of the whole middle plane, or of a few tiles where that would be too much."""
        middle = {axis: (start + stop) // 2 for axis, (start, stop) in self._extent.items()}
        t, z = self._extent["t"][0] if has_time(middle) else None, middle.get("z")
        try:
            samples = [self._source_plane(choice, self._view(Where(self._coarsest, 0, 0, t, z)))]
        except TooFarOutError:
            last = [(self._extent[axis][1] - self._extent[axis][0] - 1) // TILE for axis in "yx"]
            corners = ((2, 2), (1, 1), (3, 3), (1, 3), (3, 1))
            places = {(last[0] * down // 4, last[1] * along // 4) for down, along in corners}
            samples = [
                self._source_plane(choice, self._view(Where(1, *each, t, z))) for each in sorted(places)
            ]
        values = np.concatenate([sample.ravel() for sample in samples])
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, [0.5, 99.7]) if values.size else (0.0, 1.0)
        return float(low), float(high)


def _listed(texts: Iterable[str]) -> str:
    """Return the first of several values in a line."""
    found = list(texts)
    return ", ".join(found[:_LISTED]) + (", ..." if len(found) > _LISTED else "")
