"""The panels of a picture: source, classes over it, probability; what was never written is hatched."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.picture.colour import UNWRITTEN, hatching
from unet_dask.picture.plane import unwritten
from unet_dask.products import in_order, product_of
from unet_dask.products.colour import Veil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from unet_dask.measuring.sizes import Sizes
    from unet_dask.picture.plane import View
    from unet_dask.products import Product
    from unet_dask.products.colour import Painting

    Plane = NDArray[np.generic]

#: Dots per inch, at least and at most.
_COARSE, _SHARP = 110, 200


@dataclass(frozen=True, slots=True)
class Legend:
    """What is said of the classes.

    Attributes
    ----------
    names : of the classes, background first
    counts : voxels of each value in the whole result, whatever part of it is drawn; None if that is not known
    missing : voxels of it that were never written
    """

    names: Sequence[str]
    counts: NDArray[np.int64] | None = None
    missing: int = 0

    def label(self, value: int) -> str:
        """Return the name of a class, with its share of all that was written."""
        if self.counts is None:
            return self.names[value]
        return f"{self.names[value]} {self.counts[value] / max(self.counts.sum(), 1):.1%}"

    @property
    def title(self) -> str | None:
        """Of what the shares are."""
        if self.counts is None:
            return None
        return "share of what is written" if self.missing else "share of the result"


def draw(
    source: NDArray[np.float32] | None,
    products: Mapping[str, Plane],
    holes: NDArray[np.bool_],
    legend: Legend,
    view: View,
    notes: tuple[str, ...],
    sizes: Sizes | None = None,
) -> Figure:
    """Lay the panels side by side: source, products, and how large objects are where that is known."""
    from matplotlib.figure import Figure

    (top, bottom), (left, right) = view.in_source
    extent = (left, right, bottom, top)
    grey = None if source is None else _grey(source)
    panels: list[tuple[str, Callable[[Axes], object]]] = []
    if grey is not None:
        shown = grey
        panels.append(("source", lambda axes: axes.imshow(shown, extent=extent, interpolation="antialiased")))
    panels += [
        (kind.title(legend.names), partial(_product, kind, products[kind.name], grey, legend, extent))
        for kind in in_order(product_of(name, str(plane.dtype)) for name, plane in products.items())
    ]
    if sizes is not None:
        panels.append((sizes.title, partial(_histogram, sizes)))
    wide = 5.2
    high = wide * min(max((bottom - top) / (right - left), 0.25), 2.0)
    size = (wide * len(panels) + 0.4, 0.94 * high + 0.85)
    # A panel has a dot for every pixel that was read for it, and words can be read.
    sharp = min(max(max(view.shape) / max(wide, high), _COARSE), _SHARP)
    figure = Figure(figsize=size, dpi=sharp, layout="constrained")
    row = np.atleast_1d(figure.subplots(1, len(panels)))
    for axes, (title, draw) in zip(row, panels, strict=True):
        draw(axes)
        if title != "source" and axes.images and holes.any():
            axes.imshow(hatching(holes), extent=extent, interpolation="nearest")
        axes.set_title(title, fontsize=10)
        axes.tick_params(labelsize=7)
    figure.supxlabel("\n".join([_place(view), *notes]), fontsize=8)
    return figure


def _place(view: View) -> str:
    (top, bottom), (left, right) = view.in_source
    planes = "".join(f"{axis} {at + view.corner[axis]}, " for axis, at in view.planes.items())
    return f"{planes}y {top}:{bottom}, x {left}:{right}; 1 pixel = {view.step} voxel{'s' * (view.step > 1)}"


def _grey(source: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (y, x, 3) in [0, 1], stretched between percentiles, the same for all channels."""
    colour = (
        np.moveaxis(source, 0, -1) if source.ndim == 3 else np.repeat(source[..., np.newaxis], 3, axis=-1)
    )
    finite = colour[np.isfinite(colour)]
    low, high = np.percentile(finite, [0.5, 99.7]) if finite.size else (0.0, 1.0)
    return np.clip((np.nan_to_num(colour) - low) / max(high - low, 1e-9), 0, 1).astype(np.float32)


def _product(
    kind: Product,
    plane: Plane,
    grey: NDArray[np.float32] | None,
    legend: Legend,
    extent: tuple[int, int, int, int],
    axes: Axes,
) -> None:
    """Draw a product, and what its colours mean."""
    painting: Painting = kind.painted(plane, kind.choices(legend.names)[0][0])
    if isinstance(painting, Veil):
        axes.imshow(overlay(painting, grey), extent=extent, interpolation="nearest")
    else:
        _scale(axes, painting.values, extent)
    if kind.legend(legend.names):
        _explain(axes, kind, plane, legend)


def overlay(painting: Veil, grey: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return (y, x, 3): colours as a veil over the source, opaque where an outline is."""
    inside, colour = painting.inside, painting.colour
    picture = np.zeros((*inside.shape, 3), np.float32) if grey is None else grey * np.float32(0.85)
    veil = np.float32(0.45 if grey is not None else 0.8)
    outline = painting.outline[:, np.newaxis]
    picture[inside] = np.where(outline, colour, (1 - veil) * picture[inside] + veil * colour)
    return picture


def _histogram(sizes: Sizes, axes: Axes) -> None:
    """Draw how many objects there are of each size, in the whole result."""
    edges, counts = sizes.bars()
    if len(edges):
        axes.set_xscale("log")
        axes.stairs(counts, edges, fill=True, color="#3949ab")
    axes.set_xlabel(f"size in {sizes.unit}", fontsize=8)
    axes.set_ylabel("objects in the whole result", fontsize=8)


def _scale(axes: Axes, found: NDArray[np.float32], extent: tuple[int, int, int, int]) -> None:
    image = axes.imshow(found, extent=extent, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.ax.tick_params(labelsize=7)


def _explain(axes: Axes, kind: Product, plane: Plane, legend: Legend) -> None:
    """Name the colours, and what was never written if some of it is drawn."""
    from matplotlib.patches import Patch

    entries = [
        Patch(color="#{:02x}{:02x}{:02x}".format(*colour), label=legend.label(value))
        for value, colour, _ in kind.legend(legend.names)
    ]
    if unwritten(plane).any():
        entries.append(Patch(facecolor=UNWRITTEN, edgecolor="black", hatch="//", label="not written"))
    axes.legend(
        handles=entries, title=legend.title, title_fontsize=7, loc="upper right", fontsize=7, framealpha=0.8
    )
