"""What a pass through a network of others takes, per pixel of its tile.

Every array that it makes is asked for once, at two sizes of image: how they grow tells how large each will be, whatever
the tile. The arrays are the same on every machine, so the plan is too. What of them is alive at once follows from the
order of the steps; what the kernels take beside is a share of that, which was measured (`engine.heap`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unet_dask.errors import ModelError
from unet_dask.model.foreign.graph import Session, parsed, sized

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Shapes = Mapping[str, tuple[int, ...]]

#: How many times larger than an image its arrays may be along an axis; pixels in a row are more.
_ENLARGED = 4
#: Operations whose work is in filters, and whether their work is per pixel of what they read instead of what they make.
_WITH_FILTERS = {"Conv": False, "ConvTranspose": True}


@dataclass(frozen=True, slots=True)
class Prices:
    """What a pass takes.

    Attributes
    ----------
    flop, alive, largest : per pixel of the tile: operations, numbers that are alive at once, those of the largest array
    parameters : weights
    images : names of the arrays that have the axes of an image
    """

    flop: float
    alive: float
    largest: float
    parameters: int
    images: frozenset[str]


def prices(data: bytes, channels: int, small: Sequence[int], large: Sequence[int]) -> Prices:
    """Return what a pass takes.

    Parameters
    ----------
    data : of the ONNX file
    channels : of its image
    small, large : two sizes of image that pass, the large one longer along every axis
    """
    model = parsed(data)
    graph = model.graph
    found = [_shapes(data, channels, sides) for sides in (small, large)]
    _require_linear(found[0], found[1], max(b - a for a, b in zip(small, large, strict=True)))
    per_pixel = {name: _per_pixel(found[0][name], shape, small, large) for name, shape in found[1].items()}
    source = next(each.name for each in graph.input if each.name in per_pixel)
    return Prices(
        flop=max(_flop(graph, per_pixel, found[1]), 1.0),
        alive=max(_alive(graph, per_pixel), float(channels)),
        largest=max(per_pixel.values()),
        parameters=sum(math.prod(each.dims) for each in graph.initializer if each.data_type == 1),
        images=frozenset(
            name for name, shape in found[1].items() if len(shape) == len(large) + 2 and name != source
        ),
    )


def _require_linear(before: Shapes, after: Shapes, more: int) -> None:
    """Raise if an array has a number for every two pixels: it would fill any memory, and tells what makes it.

    Parameters
    ----------
    before, after : shapes at two sizes of image
    more : pixels that the second is longer along an axis, at most
    """
    for name, shape in after.items():
        grown = (b - a for a, b in zip(before[name], shape, strict=True))
        if sum(each > _ENLARGED * more for each in grown) > 1:
            raise ModelError(
                "What the network makes of a pixel depends on the whole image: it compares every pixel with every "
                f"other (attention, in an array of {' x '.join(map(str, shape))} numbers). Use a network without."
            )


def _per_pixel(
    before: tuple[int, ...], after: tuple[int, ...], small: Sequence[int], large: Sequence[int]
) -> float:
    """Return the numbers of an array per pixel of a large image, given its shape at two sizes."""
    if len(after) == len(large) + 2:
        grown = [b - a for a, b in zip(before[2:], after[2:], strict=True)]
        if min(grown) > 0:
            more = (d - c for c, d in zip(small, large, strict=True))
            return math.prod(after[:2]) * math.prod(
                each / step for each, step in zip(grown, more, strict=True)
            )
    return max(math.prod(after) - math.prod(before), 0) / (math.prod(large) - math.prod(small))


def _shapes(data: bytes, channels: int, sides: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every array that a pass makes, by name, the image among them."""
    import onnx

    model = parsed(data)
    inside = {each.name for each in model.graph.initializer}
    (image,) = (each.name for each in model.graph.input if each.name not in inside)
    output = model.graph.output[0].name
    constants = {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}
    others = [
        name
        for node in model.graph.node
        for name in node.output
        if name and name not in constants and name != output
    ]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in others)
    made = Session(model.SerializeToString(), optimised=False).run_all(sized(sides, channels))
    shapes = {name: tuple(values.shape) for name, values in zip(others, made[1:], strict=True)}
    return shapes | {output: (1, *made[0].shape), image: (1, channels, *sides)}


def _flop(graph: Any, per_pixel: Mapping[str, float], shapes: Shapes) -> float:
    """Return the operations of all filters, two per multiply-add."""
    filters = {each.name: math.prod(each.dims) for each in graph.initializer}
    total = 0.0
    for node in graph.node:
        if node.op_type in _WITH_FILTERS and node.input[1] in filters:
            looked = node.input[0] if _WITH_FILTERS[node.op_type] else node.output[0]
            maps = per_pixel[looked] / shapes[looked][1]
            total += 2 * filters[node.input[1]] * maps
    return total


def _alive(graph: Any, per_pixel: Mapping[str, float]) -> float:
    """Return the most numbers that are alive at once, per pixel, in the order of the steps."""
    last = {name: number for number, node in enumerate(graph.node) for name in node.input}
    alive = {name: size for name, size in per_pixel.items() if name in {each.name for each in graph.input}}
    most = sum(alive.values())
    for number, node in enumerate(graph.node):
        alive |= {name: per_pixel[name] for name in node.output if name in per_pixel}
        most = max(most, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last.get(name, len(graph.node)) > number}
    return most
