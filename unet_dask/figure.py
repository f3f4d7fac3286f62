"""The panels of a picture: source, classes over it, probability; what was never written is hatched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.io.sink.multiscale import class_colour

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from unet_dask.plane import View

    Plane = NDArray[Any]

#: Colour of what was never written, and the width of its stripes in pixels.
_UNWRITTEN = (1.0, 0.0, 1.0, 1.0)
_STRIPE = 6


def draw(
    source: Plane | None,
    products: Mapping[str, Plane],
    holes: NDArray[np.bool_],
    class_names: list[str],
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
        found, name = _foreground(products["probabilities"], class_names)
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
            _legend(axes, products["classes"], class_names)
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
    shape = classes.shape
    picture = np.zeros((*shape, 3), np.float32) if grey is None else grey * np.float32(0.85)
    edge = _edges(classes)
    for value in np.unique(classes):
        if value in (0, 255):
            continue
        here = classes == value
        colour = np.array(class_colour(int(value))[:3], np.float32) / 255
        veil = np.float32(0.45 if grey is not None else 0.8)
        picture[here] = (1 - veil) * picture[here] + veil * colour
        picture[here & edge] = 0.5 + 0.5 * colour  # a lighter outline shows on dark and on bright ground
    return picture


def objects_overlay(numbers: Plane, grey: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return (y, x, 3): every object a veil of a colour of its own and an outline."""
    picture = np.zeros((*numbers.shape, 3), np.float32) if grey is None else grey * np.float32(0.85)
    inside = (numbers > 0) & (numbers < np.iinfo(numbers.dtype).max)
    # Numbers are places: those of neighbours differ by little or by a row, and the golden angle sets both apart.
    hue = numbers[inside].astype(np.float64) * 0.61803398875 % 1.0 * 6
    colour = np.stack([np.clip(np.abs((hue + shift) % 6 - 3) - 1, 0, 1) for shift in (0, 4, 2)], axis=-1)
    veil = 0.45 if grey is not None else 0.8
    lighter = _edges(numbers)[inside][:, np.newaxis]
    picture[inside] = np.where(lighter, 0.5 + 0.5 * colour, (1 - veil) * picture[inside] + veil * colour)
    return picture


def _edges(values: Plane) -> NDArray[np.bool_]:
    """Return where the next pixel down or to the right has another value."""
    edge = np.zeros(values.shape, bool)
    edge[:-1] |= values[:-1] != values[1:]
    edge[:, :-1] |= values[:, :-1] != values[:, 1:]
    return edge


def hatching(holes: NDArray[np.bool_]) -> NDArray[np.float32]:
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
