"""What a path is that holds no Zarr: told by its first bytes, with the way to make a Zarr of it."""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING

from unet_dask.errors import InputError
from unet_dask.io.remote import Location, shorten
from unet_dask.kinds import SAFETENSORS, ZIP, kind_of

if TYPE_CHECKING:
    from pathlib import Path

_MARKERS = (".zarray", ".zgroup", "zarr.json")
#: Bytes of neuroglancer's `info` that are looked at.
_INFO_BYTES = 1 << 16


def is_store(folder: Path) -> bool:
    """Tell whether a folder is a Zarr array or group."""
    return any((folder / marker).exists() for marker in _MARKERS)


def missing(path: Path) -> InputError:
    """Return the error for a path that does not exist, with the nearest name beside it."""
    try:
        beside = sorted(os.listdir(path.parent))  # noqa: PTH208  # names are wanted, not paths
    except OSError:
        return InputError(f"There is no {shorten(str(path))}, nor the folder it would be in. Check the path.")
    near = difflib.get_close_matches(path.name, beside, n=1)
    hint = f"Did you mean {str(path.parent / near[0])!r}?" if near else "Check the path."
    return InputError(f"There is no {shorten(str(path))}. {hint}")


def no_store(path: Path) -> InputError:
    """Return the error for a file or folder that exists but is no Zarr store."""
    try:
        return _folder(path) if path.is_dir() else _file(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return InputError(
            f"Cannot read {shorten(str(path))}: {reason}. Ask for access to it, or check the disk."
        )


def _folder(path: Path) -> InputError:
    names = sorted(entry.name for entry in os.scandir(path))
    stores = [name for name in names[:1000] if is_store(path / name)]
    if stores:
        shown = ", ".join(repr(str(path / name)) for name in stores[:3])
        return InputError(
            f"{shorten(str(path))} is a folder and no Zarr store, but it holds {shown}. Name one of them."
        )
    kind = _other_store(path, names)
    if kind:
        return InputError(
            f"{shorten(str(path))} is {kind}, which is not read. Convert it to Zarr, with tensorstore."
        )
    content = f"it holds {names[0]!r}" if names else "it is empty"
    return InputError(
        f"{shorten(str(path))} is a folder and no Zarr store: it has no zarr.json, .zgroup or .zarray; "
        f"{content}. Name the folder of the store itself."
    )


def _other_store(path: Path, names: list[str]) -> str | None:
    """Return what a folder is that another format keeps its chunks in."""
    if "attributes.json" in names:
        return "an N5 container"
    if "info" in names and b'"scales"' in (Location(str(path)).sample("info", _INFO_BYTES) or b""):
        return "a precomputed volume of neuroglancer"
    return None


def _file(path: Path) -> InputError:
    kind = kind_of(path)
    if path.name in _MARKERS:
        advice = f"Name its folder, {str(path.parent)!r}"
    elif kind is ZIP:
        advice = "It has no zarr.json, .zgroup or .zarray in it. Unpack it, and name the image"
    elif kind.reader:
        target = path.with_suffix(".zarr").name
        module = kind.reader.rpartition(".")[0]
        advice = (
            f"Convert it: python -c \"import zarr, {module}; zarr.save_array('{target}', "
            f"{kind.reader}('{path.name}'))\", or with bioformats2raw if it is larger than memory"
        )
    elif kind is SAFETENSORS:
        advice = "Name an image here, and the model with --model"
    elif kind.pickled:
        advice = "Pickles are never opened, because they can run code"
    elif not kind.image:
        advice = "Name an image"
    else:
        advice = kind.instead
    return InputError(f"{shorten(str(path))} is {kind.name} and no Zarr store. {advice}.")
