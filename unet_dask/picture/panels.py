"""The panels of a picture: source, classes over it, probability; what was never written is hatched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.io.sink.multiscale import class_colour
from unet_dask.picture.colour import UNWRITTEN, class_paint, edges, foreground, hatching, object_paint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from unet_dask.picture.plane import View

    Plane = NDArray[Any]

#: What classes hold that were never written.
_SENTINEL = 255


@dataclass(frozen=True, slots=True)
class Legend:
    """What is said of the classes.

    Attributes
    ----------
    names : of the classes, background first
    counts : voxels of each value in the whole result, whatever part of it is drawn; None if that is not known
    """

    names: Sequence[str]
    counts: NDArray[np.int64] | None = None

    def label(self, value: int) -> str:
        """Return the name of a class, with its share of all that was written."""
        if self.counts is None:
            return self.names[value]
        written = self.counts.sum() - self.counts[_SENTINEL]
        return f"{self.names[value]} {self.counts[value] / max(written, 1):.1%}"

    @property
    def title(self) -> str | None:
        """Of what the shares are."""
        if self.counts is None:
            return None
        return "share of what is written" if self.counts[_SENTINEL] else "share of the result"


def draw(
    source: Plane | None,
    products: Mapping[str, Plane],
    holes: NDArray[np.bool_],
    legend: Legend,
    view: View,
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
        picture = overlay(products["classes"], grey)
        panels.append(("classes", lambda axes: axes.imshow(picture, extent=extent, interpolation="nearest")))
    if "instances" in products:
        objects = objects_overlay(products["instances"], grey)
        panels.append(
            ("instances", lambda axes: axes.imshow(objects, extent=extent, interpolation="nearest"))
        )
    if "probabilities" in products:
        found = foreground(products["probabilities"])
        name = legend.names[1] if len(legend.names) == 2 else "foreground"
        panels.append((f"probability of {name}", lambda axes: _probability(axes, found, extent)))
    wide = 5.2
    high = wide * min(max((bottom - top) / (right - left), 0.25), 2.0)
    figure = Figure(figsize=(wide * len(panels) + 0.4, 0.94 * high + 0.85), layout="constrained")
    row = np.atleast_1d(figure.subplots(1, len(panels)))
    for axes, (title, draw) in zip(row, panels, strict=True):
        draw(axes)
        if title != "source" and holes.any():
            axes.imshow(hatching(holes), extent=extent, interpolation="nearest")
        axes.set_title(title, fontsize=10)
        axes.tick_params(labelsize=7)
        if title == "classes":
            _explain(axes, products["classes"], legend)
    figure.supxlabel("\n".join([_place(view), *notes]), fontsize=8)
    return figure


def _place(view: View) -> str:
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


def overlay(classes: Plane, grey: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return (y, x, 3): every class a veil of its colour and an outline."""
    return _veiled(classes, grey, *class_paint(classes))


def objects_overlay(numbers: Plane, grey: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return (y, x, 3): every object a veil of a colour of its own and an outline."""
    return _veiled(numbers, grey, *object_paint(numbers))


def _veiled(
    values: Plane,
    grey: NDArray[np.float32] | None,
    inside: NDArray[np.bool_],
    colour: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return (y, x, 3): colours as a veil over the source, opaque where an outline is."""
    picture = np.zeros((*values.shape, 3), np.float32) if grey is None else grey * np.float32(0.85)
    veil = np.float32(0.45 if grey is not None else 0.8)
    outline = edges(values)[inside][:, np.newaxis]
    picture[inside] = np.where(outline, colour, (1 - veil) * picture[inside] + veil * colour)
    return picture


def _probability(axes: Axes, found: NDArray[np.float32], extent: tuple[int, int, int, int]) -> None:
    image = axes.imshow(found, extent=extent, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.ax.tick_params(labelsize=7)


def _explain(axes: Axes, classes: Plane, legend: Legend) -> None:
    """Name the classes, and what was never written if some of it is drawn."""
    from matplotlib.patches import Patch

    entries = [
        Patch(color="#{:02x}{:02x}{:02x}".format(*class_colour(value)), label=legend.label(value))
        for value in range(1, len(legend.names))
    ]
    if (classes == _SENTINEL).any():
        entries.append(Patch(facecolor=UNWRITTEN, edgecolor="black", hatch="//", label="not written"))
    axes.legend(
        handles=entries, title=legend.title, title_fontsize=7, loc="upper right", fontsize=7, framealpha=0.8
    )
