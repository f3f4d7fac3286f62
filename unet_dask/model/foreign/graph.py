"""A graph of ONNX, run by ONNX Runtime; looked at before, so that what it cannot be used for is said in one line."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.errors import ModelError, OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from numpy.typing import NDArray

    from unet_dask.model.foreign.spec import MeasuredSpec

#: The package that runs networks of others.
RUNTIME = "onnxruntime"
#: Name of the only array in a model file of a network of others: the bytes of its ONNX file.
GRAPH = "onnx"
#: Domains of operations that ONNX Runtime has by itself.
_KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
#: Operations whose output is another at every call.
_RANDOM = {
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
}
_FLOAT = 1  # onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class Graph:
    """A graph of one image in and one image out.

    Attributes
    ----------
    data : the bytes of the ONNX file
    spec : what was measured of it
    """

    data: bytes
    spec: MeasuredSpec

    @property
    def checksum(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.data).hexdigest()

    def session(self, threads: int = 0) -> Session:
        """Load it, to be run by so many threads; 0 for as many as there are cores."""
        return Session(usable(self.data)[0], threads=threads)


class Session:
    """A graph that is loaded.

    Parameters
    ----------
    data : of the ONNX file, whose spatial sizes are free
    threads : 0 for as many as there are cores
    optimised : whether ONNX Runtime may fuse its steps

    Attributes
    ----------
    data : the same

    Raises
    ------
    OptionError
        If ONNX Runtime is not installed.
    ModelError
        If it cannot load the graph.
    """

    def __init__(self, data: bytes, *, threads: int = 0, optimised: bool = True) -> None:
        self.data = data
        runtime = _package(RUNTIME)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # What is alive is what the plan counts: nothing is kept for the next tile but by the heap (decision 4).
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        # Threads that spin while they wait take the cores of the other workers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not optimised:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of many kinds, all of its own
            raise ModelError(f"ONNX Runtime cannot load the network: {one_line(error)}") from error
        self._input = self._session.get_inputs()[0].name

    def run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the output, (k, *space), of an image of (c, *space).

        Raises
        ------
        ModelError
            If the graph does not take an image of that size.
        """
        (output,) = self.run_all(image)
        return output

    def run_all(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return every output; the batch is taken off the first alone."""
        try:
            first, *others = self._session.run(None, {self._input: np.ascontiguousarray(image)[None]})
        except Exception as error:  # of many kinds, all of its own
            raise ModelError(f"The network cannot be run on {image.shape}: {one_line(error)}") from error
        return [first[0], *others]


def _package(name: str) -> ModuleType:
    """Return a package that only networks of others need.

    Raises
    ------
    OptionError
        If it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise OptionError(
            f"Networks in ONNX need the package {name}, which is not installed. Use: pip install 'unet-dask[onnx]'"
        ) from error


def parsed(data: bytes) -> Any:  # onnx.ModelProto, of a package that may not be there
    """Return the graph of an ONNX file as a document.

    Raises
    ------
    ModelError
        If it is no such file.
    """
    onnx = _package("onnx")
    try:
        return onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's
        raise ModelError(f"It is not an ONNX file: {one_line(error)}") from error


def usable(data: bytes) -> tuple[bytes, int, int]:
    """Return a graph whose spatial sizes are free, the spatial dimensions and the channels of its image.

    Raises
    ------
    ModelError
        If it is no network that makes one image of one.
    """
    model = parsed(data)
    graph = model.graph
    inside = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in inside]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ModelError(
            f"The network has {len(inputs)} inputs and {len(graph.output)} outputs; one image in and one out is what "
            "can be segmented with. Export it without the others."
        )
    _require_plain(model)
    channels = _shape(inputs[0])[1] if len(_shape(inputs[0])) in (4, 5) else 0
    if len(_shape(inputs[0])) not in (4, 5) or channels < 1:
        raise ModelError(
            f"The network takes an input of shape {_text(inputs[0])}; (1, channels, y, x) or (1, channels, z, y, x) is "
            "what images have here, with a fixed number of channels. Export it like that."
        )
    for value in (inputs[0], graph.output[0]):
        if value.type.tensor_type.elem_type != _FLOAT:
            raise ModelError(
                f"The network's {value.name} is not of 32-bit floating-point numbers. Export it in float32."
            )
    _free(inputs[0])
    del graph.value_info[:]
    graph.output[0].type.tensor_type.ClearField("shape")
    return model.SerializeToString(), len(_shape(inputs[0])) - 2, channels


def declared_sides(data: bytes) -> tuple[int, ...]:
    """Return the spatial size that a graph says it was made for, 0 where it is free."""
    graph = parsed(data).graph
    inside = {each.name for each in graph.initializer}
    return tuple(next(_shape(each)[2:] for each in graph.input if each.name not in inside))


def _require_plain(model: Any) -> None:
    """Raise if a graph needs code or files of others, or gives something else every time."""
    graph = model.graph
    for name in sorted({each.domain for each in graph.node} - set(_KNOWN_DOMAINS)):
        raise ModelError(
            f"The network has operations of {name!r}, which need code of their own; none is ever run. "
            "Export it with operations of ONNX."
        )
    if any(each.data_location for each in graph.initializer):
        raise ModelError(
            "The weights of the network lie in other files. Put them into one: onnx.save(onnx.load(FILE), NEW)."
        )
    for name in sorted({each.op_type for each in graph.node} & _RANDOM):
        raise ModelError(f"The network draws random numbers ({name}). Export it for inference, in eval mode.")


def _free(value: Any) -> None:
    """Let an input be of any spatial size, and of a batch of one."""
    batch, _, *space = value.type.tensor_type.shape.dim
    batch.ClearField("value")
    batch.dim_value = 1
    for number, side in enumerate(space):
        side.ClearField("value")
        side.dim_param = f"side_{number}"


def _shape(value: Any) -> list[int]:
    """Return the sizes of an input, 0 where they are free."""
    return [each.dim_value for each in value.type.tensor_type.shape.dim]


def _text(value: Any) -> str:
    sizes = (str(each.dim_value or each.dim_param or "?") for each in value.type.tensor_type.shape.dim)
    return f"({', '.join(sizes)})"


def one_line(error: Exception, most: int = 200) -> str:
    """Return what an error of a library says, on one line that is not too long."""
    text = " ".join(str(error).split()).removeprefix("[ONNXRuntimeError] : ")
    return text if len(text) <= most else f"{text[: most - 3]}..."


def sized(shape: Sequence[int], channels: int, fill: float = 0.0) -> NDArray[np.float32]:
    """Return an image of one value."""
    return np.full((channels, *shape), fill, np.float32)
