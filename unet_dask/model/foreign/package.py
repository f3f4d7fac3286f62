"""What comes with a network: its bytes, and what its author says about input and output; none of it is run.

A package of the BioImage Model Zoo is a folder or a zip with a description, in YAML, of its weights in several formats.
Weights in ONNX are taken, no other: TorchScript and Keras files hold code. What the description says of grey values and
of the output is taken over where it is something that holds for a whole volume; what it says of halos is not believed.
Its test image is run first: what comes out must be what the author got.
"""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.errors import ModelError
from unet_dask.model.foreign.brought import DESCRIPTIONS, described_in
from unet_dask.model.foreign.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

#: Largest file of a package that is read into memory.
_MOST_BYTES = 8 << 30
#: Names of axes in descriptions of before, and now.
_BATCH, _CHANNEL = ("b", "batch"), ("c", "channel")


@dataclass(frozen=True)
class Package:
    """A network with what was said about it.

    Attributes
    ----------
    data : of the ONNX file
    head : what makes probabilities of its output, "sigmoid" or "softmax"; "" if nobody says
    declared : halo per spatial axis that its author declares, () if none
    preprocessing : what is done to grey values before it
    names : of its output channels, () if they have none
    test : an image and what the author's program makes of it, (c, *space) each; None without one
    """

    data: bytes
    head: str = ""
    declared: tuple[int, ...] = ()
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    names: tuple[str, ...] = ()
    test: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    @property
    def said(self) -> str:
        """SHA-256 of what was said, which changes what is made of the same graph."""
        said = [self.head, self.declared, self.preprocessing.record, self.names]
        digest = hashlib.sha256(json.dumps(said).encode())
        for tensor in self.test or ():
            digest.update(tensor.tobytes())
        return digest.hexdigest()


def read(path: Path) -> Package:
    """Return the network that a path stands for.

    Raises
    ------
    ModelError
        If it cannot be read, has no weights in ONNX, or does to grey values what cannot be done to a whole volume.
    """
    try:
        if path.is_file() and path.suffix == ".onnx":
            return Package(path.read_bytes())
        return _described(path)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Copy it again.") from error


def _described(path: Path) -> Package:
    open_, text = _opened(path)
    document = _document(text, path)
    weights = document.get("weights")
    onnx = weights.get("onnx") if isinstance(weights, dict) else None
    if not isinstance(onnx, dict):
        found = ", ".join(sorted(weights)) if isinstance(weights, dict) and weights else "none"
        raise ModelError(
            f"{path} has no weights in ONNX (its formats are: {found}). Those of PyTorch and Keras hold code, which is "
            "never run; convert them to ONNX, and name the .onnx file."
        )
    data = open_(_source(onnx))
    if onnx.get("sha256") not in (None, hashlib.sha256(data).hexdigest()):
        raise ModelError(
            f"{path}: {_source(onnx)} is not what the description says (SHA-256). Copy it again."
        )
    try:
        image, output = _only(document, "inputs"), _only(document, "outputs")
        axes = _axes(image)
        return Package(
            data,
            head=_head(output),
            declared=_halo(output),
            preprocessing=Preprocessing.described(_steps(image, "preprocessing"), axes),
            names=_names(output),
            test=_test(document, open_),
        )
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"The description in {path} is of an unknown form ({error}). Name its .onnx file."
        ) from error


def _opened(path: Path) -> tuple[Callable[[str], bytes], bytes]:
    """Return what reads a file of a package by its name, and the description."""
    if path.suffix == ".zip":
        name = described_in(path)
        assert name is not None

        def of_zip(name: str) -> bytes:
            with zipfile.ZipFile(path) as opened:
                _require_small(name, opened.getinfo(name).file_size)
                return opened.read(name)

        return of_zip, of_zip(name)
    described = (
        path if path.is_file() else next(path / each for each in DESCRIPTIONS if (path / each).is_file())
    )

    def of_folder(name: str) -> bytes:
        _require_small(name, (described.parent / name).stat().st_size)
        return (described.parent / name).read_bytes()

    return of_folder, described.read_bytes()


def _require_small(name: str, size: int) -> None:
    if size > _MOST_BYTES:
        raise ModelError(f"{name} of the package is of {size} bytes, more than a network here may have.")


def _document(text: bytes, path: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise ModelError(f"The description in {path} is not YAML. Copy the package again.") from error
    if not isinstance(document, dict) or document.get("type") != "model":
        raise ModelError(f"{path} describes no model. Name a package of one, or an .onnx file.")
    return document


def _source(entry: Any) -> str:
    """Return the name of a file of the package; nothing is fetched from elsewhere, or looked for outside of it."""
    name = str(entry["source"] if isinstance(entry, dict) else entry)
    inner = posixpath.normpath(name)
    if "://" in name or posixpath.isabs(inner) or inner.startswith("..") or "\\" in name:
        raise ModelError(
            f"The package names {name}, which does not lie within it; nothing is fetched. Download the whole package."
        )
    return inner


def _only(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the only input or output of a description."""
    found = document[name]
    if len(found) != 1:
        raise ModelError(
            f"The package has {len(found)} {name}; one image in and one out is what can be segmented with."
        )
    entry: Mapping[str, Any] = found[0]
    return entry


def _axes(tensor: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the axes of a tensor, as "b", "c", "z", "y", "x"."""
    axes = tensor["axes"]
    if isinstance(axes, str):
        names = tuple(axes)
    else:
        names = tuple({"batch": "b", "channel": "c"}.get(each["type"], str(each.get("id"))) for each in axes)
    if names not in (("b", "c", "y", "x"), ("b", "c", "z", "y", "x")):
        raise ModelError(
            f"The package's tensor has the axes {', '.join(names)}; b, c, y, x or b, c, z, y, x is what can be used."
        )
    return names


def _steps(tensor: Mapping[str, Any], which: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return what is done before or after a network, in order: names and arguments."""
    return [
        (str(each.get("id") or each["name"]), each.get("kwargs") or {}) for each in tensor.get(which) or []
    ]


def _head(output: Mapping[str, Any]) -> str:
    """Return what makes probabilities of an output."""
    names = [name for name, _ in _steps(output, "postprocessing") if name != "ensure_dtype"]
    if names not in ([], ["sigmoid"], ["softmax"]):
        raise ModelError(
            f"The package does {', '.join(names)} to its output; a sigmoid or a softmax is what can be done. Name its "
            ".onnx file to do without."
        )
    return names[0] if names else ""


def _halo(output: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the halo that is declared, per spatial axis."""
    axes = _axes(output)
    if isinstance(output["axes"], str):
        found = list(output.get("halo") or [])[-(len(axes) - 2) :]
    else:
        found = [each.get("halo", 0) for each in output["axes"] if each["type"] == "space"]
    return tuple(int(each) for each in found) if any(found) else ()


def _names(output: Mapping[str, Any]) -> tuple[str, ...]:
    if isinstance(output["axes"], str):
        return ()
    channel = next(each for each in output["axes"] if each["type"] == "channel")
    names = channel.get("channel_names") or []
    return tuple(str(each) for each in names) if isinstance(names, list) else ()


def _test(
    document: Mapping[str, Any], open_: Callable[[str], bytes]
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return the test image and its result."""
    sources = []
    for old, new in (("test_inputs", "inputs"), ("test_outputs", "outputs")):
        entry = document[old][0] if document.get(old) else document[new][0].get("test_tensor")
        if entry is None:
            return None
        sources.append(_source(entry))
    image, made = (np.load(io.BytesIO(open_(name)), allow_pickle=False) for name in sources)
    return np.asarray(image[0], np.float32), np.asarray(made[0], np.float32)
