"""OME-Zarr 0.6: its coordinate systems, told in the words of 0.5, which are all that the rest knows.

An image of 0.6 is in the coordinate system that its levels are transformed into. Scales, translations and sequences of
them are read; a rotation or a field of displacements would have to be resampled, and is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unet_dask.errors import InputError
from unet_dask.io.remote import printable

if TYPE_CHECKING:
    from unet_dask.io.source.node import Json, Node

#: Sequences in sequences at most.
_DEEPEST = 8


def plain(node: Node, image: Json) -> Json:
    """Return an image with axes and with scales and translations alone; one before 0.6 as it is.

    Raises
    ------
    InputError
        If a level is transformed in another way.
    """
    systems = image.get("coordinateSystems")
    datasets = image.get("datasets")
    if not isinstance(systems, list) or not isinstance(datasets, list):
        return image
    by_name = {str(each.get("name")): each for each in systems if isinstance(each, dict)}
    flat = [
        entry | {"coordinateTransformations": _steps(node, entry)}
        for entry in datasets
        if isinstance(entry, dict)
    ]
    into = _output(datasets[0]) if datasets else ""
    system = by_name.get(into) or next(iter(by_name.values()), {})
    return {
        "name": image.get("name"),
        "version": image.get("version") or node.ome.get("version"),
        "axes": system.get("axes"),
        "datasets": flat,
    }


def _output(entry: object) -> str:
    steps = entry.get("coordinateTransformations") if isinstance(entry, dict) else None
    last = steps[-1] if isinstance(steps, list) and steps and isinstance(steps[-1], dict) else {}
    output = last.get("output")
    return str(output.get("name") if isinstance(output, dict) else output)


def _steps(node: Node, entry: Json) -> list[Json]:
    steps = entry.get("coordinateTransformations")
    return _flat(node, steps, 0) if isinstance(steps, list) else []


def _flat(node: Node, steps: list[object], depth: int) -> list[Json]:
    found: list[Json] = []
    for step in steps:
        kind = step.get("type") if isinstance(step, dict) else None
        inner = step.get("transformations") if isinstance(step, dict) else None
        if kind == "sequence" and isinstance(inner, list) and depth < _DEEPEST:
            found += _flat(node, inner, depth + 1)
        elif isinstance(step, dict) and kind in ("scale", "translation"):
            found.append(step)
        elif kind != "identity":
            raise InputError(
                f"A level of {node.shown} is transformed by {printable(kind)!r}, which is not read: only scales and "
                "translations are. Name the array itself with --key and its axes with --axes."
            )
    return found
