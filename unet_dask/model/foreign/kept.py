"""Networks that were measured, kept as model files of ours, so that each is measured once.

They lie in the user's cache, named by the bytes of the graph and what was said about it. The file holds the graph and
what was measured: workers load it as they load any model.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unet_dask import durable, private
from unet_dask.errors import ModelError, OptionError
from unet_dask.model.foreign import package
from unet_dask.model.foreign.graph import GRAPH, Session
from unet_dask.model.foreign.measure import measured
from unet_dask.model.foreign.spec import SIGMOID, SOFTMAX
from unet_dask.model.header import ModelHeader
from unet_dask.model.sealed import sealed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.model.foreign.package import Package
    from unet_dask.model.foreign.spec import MeasuredSpec

#: Way of measuring; another gives other files.
_VERSION = 1
#: Most that the result of a package's test image may differ from its author's, relative to the largest number.
_REPRODUCED = 1e-3


def measured_file(path: Path) -> Path:
    """Return the model file of a network of others, which is measured if nobody has done so.

    Raises
    ------
    ModelError
        If it is no network that can be cut into tiles, or does not do what its author says.
    OptionError
        If what runs it is not installed.
    """
    found = package.read(path)
    checksum = hashlib.sha256(found.data).hexdigest()
    name = f"{checksum[:32]}-{found.said[:8]}-{_VERSION}.safetensors"
    places = [folder() / name, private.lasting() / name]
    for kept in places:
        if kept.is_file():
            return kept
    try:
        content = _content(found, checksum)
    except ModelError as error:
        raise ModelError(f"{path} cannot be used. {error}") from error
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from error
    return _written(places, content)


def folder() -> Path:
    """Return the folder in the user's cache; it may not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "unet-dask" / "networks"


def _content(found: Package, checksum: str) -> bytes:
    from safetensors.numpy import save

    graph, spec = measured(found.data, head=found.head, declared=found.declared)
    if found.test is not None:
        _reproduce(found, graph, spec)
    header = ModelHeader(
        network=spec,
        normalisation=found.preprocessing.normalisation(spec.channels),
        class_names=_class_names(spec, found.names),
        training={"origin": "a network of others, in ONNX"},
    )
    return save({GRAPH: np.frombuffer(found.data, np.uint8)}, metadata=sealed(header, checksum))


def _class_names(spec: MeasuredSpec, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return a name for each class: those of the author's channels, if there are as many."""
    own = spec.classes - 1 if spec.open_ended else spec.classes
    if len(names) != own:
        first = 1 if spec.open_ended else 0
        names = tuple(f"class {number}" if number else "background" for number in range(first, first + own))
    return ("background", *names) if spec.open_ended else names


def _reproduce(found: Package, graph: bytes, spec: MeasuredSpec) -> None:
    """Raise unless the test image of a package gives what its author got."""
    assert found.test is not None
    image, wanted = found.test
    made = _after(Session(graph).run(found.preprocessing.of(image)), found.head)
    off = float("inf")
    if made.shape == wanted.shape:
        off = float(np.abs(made - wanted).max()) / max(1.0, float(np.abs(wanted).max()))
    if not off <= _REPRODUCED:
        raise ModelError(
            f"Its test image gives something else than the package says (off by {off:.1e}). Ask its author for a "
            "package that passes its own test."
        )


def _after(made: NDArray[np.float32], head: str) -> NDArray[np.float32]:
    """Return what an author's program makes of an output."""
    if head == SIGMOID:
        return np.asarray(1 / (1 + np.exp(-made)), np.float32)
    if head == SOFTMAX:
        shares = np.exp(made - made.max(axis=0))
        return np.asarray(shares / shares.sum(axis=0), np.float32)
    return made


def _written(places: list[Path], content: bytes) -> Path:
    """Write to the first place that can be written; the last is this process's own."""
    for place in places[:-1]:
        try:
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            durable.write(place, [content], mode=0o600)
        except OSError:
            continue
        return place
    private.write(places[-1], content)
    return places[-1]
