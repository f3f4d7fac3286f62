"""Model files: safetensors with a JSON header, and nothing that can run code.

A safetensors file carries no checksum of its own (bit flips in it load as other weights), so the header
stores the SHA-256 of the tensors, and one of itself: a changed digit of a normalisation is as wrong as a changed
weight. Every load compares both. The checksum of the tensors also names the model: caches, fingerprints and
workers refer to it.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from unet_dask import private
from unet_dask.durable import write
from unet_dask.errors import ModelError
from unet_dask.kinds import BINARY, SAFETENSORS, kind_of
from unet_dask.model.foreign.brought import brought
from unet_dask.model.foreign.graph import GRAPH, Graph
from unet_dask.model.foreign.spec import MeasuredSpec
from unet_dask.model.header import ModelHeader, NetworkSpec, Normalisation
from unet_dask.model.named import FOLDERS, named_models
from unet_dask.model.sealed import KEY, SEAL, seal_of, sealed
from unet_dask.paths import local_path
from unet_dask.regular import IrregularError, open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from unet_dask.model.network import Network

#: The model that `segment` uses when none is named.
DEFAULT_MODEL = "nuclei"
#: A header larger than this is an attack or an accident.
_MAX_HEADER_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that was looked at but not loaded.

    Attributes
    ----------
    path : of the file
    header : what it says about itself
    checksum : SHA-256 of its tensors, or of the ONNX file of a network of others, as the header states it;
        `load_model` verifies it
    origin : what somebody named, if that is another file
    """

    path: Path
    header: ModelHeader
    checksum: str
    origin: Path | None = None

    @property
    def name(self) -> str:
        """The name by which its user knows it."""
        return (self.origin or self.path).name


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded network with everything needed to run it.

    Attributes
    ----------
    network : torch module in evaluation mode, (b, c, *spatial) float32 -> logits (b, classes, *spatial); of a network
        of others its `Graph`
    header : what the file says about itself
    checksum : SHA-256 of the tensors
    path : of the file, or None for a model that was never saved
    state : SHA-256 of the network's state when it was loaded, to notice weights that were changed since
    origin : what somebody named, if that is another file
    """

    network: Any  # whoever named the file knows which of the two it is; `ours` asks
    header: ModelHeader
    checksum: str
    path: Path | None = None
    state: str = ""
    origin: Path | None = None

    @property
    def ours(self) -> Network:
        """The torch module; a `ModelError` of a network of others, which can be run, and nothing else."""
        if isinstance(self.network, Graph):
            raise ModelError(
                "A network of others (ONNX) can be run, but neither trained nor saved. Use a model of unet-dask."
            )
        ours: Network = self.network
        return ours

    def state_now(self) -> str:
        """Return the SHA-256 of the network's state as it is now."""
        if isinstance(self.network, Graph):
            return self.network.checksum
        return tensor_checksum(self.network.state_dict())

    def normalise(self, array: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return network input for grey values of (c, *spatial): float32, the same for every tile.

        Raises
        ------
        ModelError
            If the model takes its constants from the whole volume, which one array cannot tell; then
            bind them first with :meth:`with_statistics`.
        """
        return normalise(array, self.header.normalisation)

    def with_statistics(self, *, mean: Sequence[float], std: Sequence[float]) -> Model:
        """Return this model with the statistics of a volume as its constants, one value per channel."""
        constants = Normalisation("constant", tuple(map(float, mean)), tuple(map(float, std)))
        return replace(self, header=replace(self.header, normalisation=constants))


def normalise(array: NDArray[np.generic], constants: Normalisation) -> NDArray[np.float32]:
    """Apply constants to grey values of (c, *spatial) in any byte order; float32 out."""
    if constants.of_volume:
        raise ModelError(
            "This model is normalised by the mean and standard deviation of the whole volume. "
            "Bind them first: model.with_statistics(mean=[...], std=[...])."
        )
    if array.shape[0] != len(constants.offset):
        raise ModelError(
            f"The model was made for {len(constants.offset)} channels, but the image has {array.shape[0]}."
        )
    per_channel = (-1, *(1,) * (array.ndim - 1))
    offset = np.asarray(constants.offset, np.float32).reshape(per_channel)
    scale = np.asarray([1 / value for value in constants.scale], np.float32).reshape(per_channel)
    normalised = array.astype(np.float32)
    normalised -= offset
    normalised *= scale
    return normalised


def find_model(name: str | os.PathLike[str]) -> Path:
    """Return the path of a model file, given its path or the name of a model, see `model.named`.

    Raises
    ------
    ModelError
        If there is neither; the message lists the names.
    """
    path = local_path(name)
    if path.is_file() or brought(path):
        return path
    named = named_models()
    if str(name) in named:
        return named[str(name)]
    kind = "is neither a model file nor the name of a model"
    if path.exists():
        kind = f"is {'a folder' if path.is_dir() else kind_of(path).name}, not a model file"
    raise ModelError(
        f"{os.fspath(name)} {kind}. Names are: {', '.join(named)}; the folders of {FOLDERS} may add more."
    )


def inspect_model(name: str | os.PathLike[str]) -> ModelFile:
    """Read the header of a model file, without torch and without the weights.

    A network of others is measured when it is seen for the first time; see `model.foreign`.

    Raises
    ------
    ModelError
        If it is not one of our model files, nor a network that can be used.
    """
    path = find_model(name)
    if brought(path):
        from unet_dask.model.foreign.kept import measured_file

        return replace(_inspected(measured_file(path)), origin=path)
    return _inspected(path)


def _inspected(path: Path) -> ModelFile:
    try:
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER_BYTES:
            raise _no_model(path)
        with safe_open(path, framework="numpy") as opened:
            metadata = opened.metadata() or {}
    except IrregularError as error:
        raise ModelError(f"{path} is {error}, not a model file.") from error
    except (SafetensorError, OSError) as error:
        raise _no_model(path, f" ({error})") from error
    if KEY not in metadata:
        raise ModelError(f"{path} is a safetensors file of another program: it has no unet_dask header.")
    header = ModelHeader.from_json(metadata[KEY])
    record = json.loads(metadata[KEY])
    if record.pop(SEAL, None) != seal_of(record):
        raise ModelError(
            f"{path} is damaged or was edited: its header does not match its checksum. Copy the file again, or save "
            "the model again with unet-dask."
        )
    checksum = record.get("checksum")
    if not isinstance(checksum, str):
        raise ModelError(
            f"{path} is damaged: its header has no checksum of its weights. Copy the file again."
        )
    return ModelFile(path, header, checksum)


def _no_model(path: Path, reason: str = "") -> ModelError:
    """Return the error for a file that is not safetensors, which calls it what it is."""
    kind = kind_of(path)
    if kind.pickled:
        why = "Pickled checkpoints (.pt, .pth) are never opened, because they can run code; train or save a model"
        return ModelError(f"{path} is {kind.name}, not a safetensors model file. {why} with unet-dask.")
    if kind in (SAFETENSORS, BINARY):
        return ModelError(
            f"{path} is {kind.name}, damaged or not a safetensors model file{reason}. Copy the file again, or "
            "name a model that unet-dask wrote."
        )
    return ModelError(
        f"{path} is {kind.name}, not a safetensors model file. Name a model that unet-dask wrote."
    )


def verify_model(file: ModelFile) -> None:
    """Raise unless the weights of a file are those that its header names; without torch.

    Raises
    ------
    ModelError
        If the file is damaged or cannot be read.
    """
    from safetensors.numpy import load_file

    try:
        arrays = load_file(file.path)
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise ModelError(f"{file.path} cannot be read: {error}.") from error
    if _checksum(arrays) != file.checksum:
        raise ModelError(
            f"{file.path} is damaged: its weights do not match its checksum. Copy the file again."
        )


def load_model(name: str | os.PathLike[str]) -> Model:
    """Load a model file, or a model by its name.

    Parameters
    ----------
    name : path of a .safetensors file, or a name such as "nuclei", see `model.named`

    Returns
    -------
    model with its network in evaluation mode, in float32, on the CPU

    Raises
    ------
    ModelError
        If the file is not ours, is damaged, or its weights do not fit its header.
    """
    from safetensors.torch import load_file

    from unet_dask.model.network import Network

    found = inspect_model(name)
    if isinstance(found.header.network, MeasuredSpec):
        return _foreign(found, found.header.network)
    assert isinstance(found.header.network, NetworkSpec)
    try:
        tensors = load_file(found.path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{found.path} cannot be read: {error}.") from error
    if tensor_checksum(tensors) != found.checksum:
        raise ModelError(
            f"{found.path} is damaged: its weights do not match its checksum. Copy the file again."
        )
    network = Network(found.header.network)
    try:
        network.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
    except RuntimeError as error:
        raise ModelError(f"{found.path}: the weights do not fit the network of its header.") from error
    return Model(
        network.eval(), found.header, found.checksum, found.path, tensor_checksum(network.state_dict())
    )


def _foreign(file: ModelFile, spec: MeasuredSpec) -> Model:
    """Load a network of others."""
    from safetensors.numpy import load_file

    verify_model(file)
    graph = Graph(load_file(file.path)[GRAPH].tobytes(), spec)
    return Model(graph, file.header, file.checksum, file.path, file.checksum, file.origin)


def save_model(model: Model, path: str | os.PathLike[str], *, half: bool = False) -> ModelFile:
    """Write a model file atomically: complete under its name, or not at all.

    Parameters
    ----------
    model : network and header
    path : to write, .safetensors; replaced if it exists
    half : store floating tensors in 16 bit, half the size; they are loaded as float32

    Returns
    -------
    the file, as :func:`inspect_model` would see it
    """
    from safetensors.torch import save

    path = local_path(path)
    tensors: dict[str, Tensor] = {}
    for key, tensor in model.ours.state_dict().items():
        kept = tensor.detach().cpu().contiguous()
        tensors[key] = kept.half() if half and kept.is_floating_point() else kept
    checksum = tensor_checksum(tensors)
    data = save(tensors, metadata=sealed(model.header, checksum))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, [data])
    except OSError as error:
        raise ModelError(f"The model cannot be written to {path}: {error.strerror or error}.") from error
    return ModelFile(path, model.header, checksum)


@contextmanager
def model_file(model: Model | str | os.PathLike[str]) -> Iterator[ModelFile]:
    """Yield the file of a model, so that workers can load it.

    A model that was never saved, or whose weights were changed since it was loaded, is saved to a temporary
    file for the time being.
    """
    if not isinstance(model, Model):
        yield inspect_model(model)
    elif model.path is not None and model.state_now() == model.state:
        yield ModelFile(model.path, model.header, model.checksum, model.origin)
    else:
        with private.folder() as folder:
            saved = save_model(model, folder / "model.safetensors")
            saved.path.chmod(0o600)
            yield saved


def new_model(
    spec: NetworkSpec,
    *,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    normalisation: Normalisation | None = None,
    training: Mapping[str, object] | None = None,
) -> Model:
    """Return an untrained model with the initial weights of the paper.

    Parameters
    ----------
    spec : parameters of the network
    seed : of the weights
    class_names : default "background", then "class 1", "class 2", ...
    normalisation : default none: offset 0, scale 1
    training : record to keep in the header
    """
    from unet_dask.model.network import Network, initialise

    names = ["background", *(f"class {index}" for index in range(1, spec.classes))]
    header = ModelHeader(
        network=spec,
        normalisation=normalisation
        or Normalisation("constant", (0.0,) * spec.channels, (1.0,) * spec.channels),
        class_names=tuple(class_names or names),
        training=dict(training or {"seed": seed, "iterations": 0}),
    )
    network = initialise(Network(spec), seed=seed).eval()
    return Model(network, header, tensor_checksum(network.state_dict()))


def tensor_checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values."""
    return _checksum({key: tensor.detach().cpu().numpy() for key, tensor in tensors.items()})


def _checksum(arrays: Mapping[str, NDArray[np.generic]]) -> str:
    """Return the SHA-256 of names, types, shapes and values; of a graph that of its file, by which others know it."""
    if set(arrays) == {GRAPH}:
        return hashlib.sha256(arrays[GRAPH].tobytes()).hexdigest()
    digest = hashlib.sha256()
    for key in sorted(arrays):
        values = arrays[key]
        digest.update(json.dumps([key, str(values.dtype), list(values.shape)]).encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
