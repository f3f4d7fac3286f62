"""The positive twin of a network: the same paths from pixel to pixel, and nothing that hides them.

A pixel far away changes an output by less than rounding, and not at all where a ReLU is at rest: what a trained network
shows of its reach depends on the image. So filters become means over the taps that they have, biases nothing, and the
last sigmoid or softmax is left out. On an image of zeros with one bright pixel every path then adds something positive,
nothing cancels, and nothing is so small beside something else that rounding swallows it. What is not zero is what the
network could see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.model.foreign.graph import Session, parsed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

#: Operations with filters, which stand second among their inputs, and biases after them.
_WITH_FILTERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: Operations with constants, by what these become.
_NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}
#: What a batch normalisation becomes, by the place among its inputs: scale, bias, mean, variance.
_IDENTITY = {1: 1.0, 2: 0.0, 3: 0.0, 4: 1.0}
#: Operations that end a network, and squeeze large values together.
HEADS = ("Sigmoid", "Softmax", "LogSoftmax", "HardSigmoid")


def twin(data: bytes, images: Collection[str]) -> Session:
    """Return the positive twin of a network, loaded.

    Parameters
    ----------
    data : of the ONNX file
    images : names of what is made within it that has the axes of an image; constants of anything else are sizes
    """
    from onnx import numpy_helper

    model = parsed(data)
    constants = _Constants(model.graph, numpy_helper)
    for node in model.graph.node:
        if not set(node.output) & set(images):
            continue
        for place, values in _replaced(node, constants):
            node.input[place] = constants.put(values)
    _behead(model.graph)
    return Session(model.SerializeToString())


def _replaced(node: Any, constants: _Constants) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the constants of a node that become others: their place among its inputs, and what they become."""
    for place in range(len(node.input)):
        found = constants.get(node, place)
        becomes = None if found is None else _becomes(node, place, found)
        if becomes is not None:
            yield place, becomes


def _becomes(node: Any, place: int, values: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Return what a constant of a node becomes; None if it stays."""
    if node.op_type in _WITH_FILTERS:
        return _means(node, values) if place == 1 else np.zeros_like(values) if place else None
    value = _NEUTRAL.get(node.op_type)
    if node.op_type == "BatchNormalization":
        value = _IDENTITY.get(place)
    return None if value is None else np.full_like(values, value)


def _means(node: Any, filters: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return filters that are means over the taps that are not zero."""
    taps: NDArray[np.float32] = (filters != 0).astype(np.float32)
    outgoing = filters.shape[-1]
    if node.op_type == "Conv":
        outgoing = filters.shape[0]
    elif node.op_type == "ConvTranspose":
        groups = next((each.i for each in node.attribute if each.name == "group"), 1)
        outgoing = filters.shape[1] * groups
    taps *= np.float32(outgoing / max(float(taps.sum()), 1.0))
    return taps


def _behead(graph: Any) -> None:
    """Leave out what ends a network, if that squeezes large values together."""
    name = graph.output[0].name
    made = {output: node for node in graph.node for output in node.output}
    while name in made and made[name].op_type in (*HEADS, "Identity"):
        name = made[name].input[0]
    graph.output[0].name = name


class _Constants:
    """The floating-point constants of a graph: its initializers, and the nodes that are constants."""

    def __init__(self, graph: Any, helper: Any) -> None:
        self._graph, self._helper = graph, helper
        self._found = {each.name: each for each in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                self._found[node.output[0]] = node.attribute[0].t
        self._put = 0

    def get(self, node: Any, place: int) -> NDArray[np.float32] | None:
        """Return the constant at a place among the inputs of a node; None if it is none, or a whole number."""
        if place >= len(node.input) or node.input[place] not in self._found:
            return None
        values: NDArray[np.float32] = self._helper.to_array(self._found[node.input[place]])
        return values if values.dtype == np.float32 else None

    def put(self, values: NDArray[np.float32]) -> str:
        """Add a constant, and return its name."""
        self._put += 1
        name = f"unet_dask_twin_{self._put}"
        self._graph.initializer.append(self._helper.from_array(np.asarray(values, np.float32), name))
        return name
