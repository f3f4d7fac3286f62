"""Which chunks of a sink have files: by their names and sizes, with none of them read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.io.sink.place import is_local, locate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from unet_dask.io.sink.store import ArraySpec, Sink


def stored_chunks(sink: Sink, array: ArraySpec, path: str, level: int = 0) -> NDArray[np.bool_]:
    """Return for each chunk of an array, or shard where chunks are bundled, whether it has a file that is not empty.

    Parameters
    ----------
    sink : where it lies
    array, level : what it is
    path : of it in the sink
    """
    shape = array.levels[level].shape
    there = np.zeros([-(-size // unit) for size, unit in zip(shape, array.write_unit, strict=True)], np.bool_)
    fs, root = locate(sink.url)
    folder = f"{root}/{path}/c"
    names = _local(folder, there.ndim) if is_local(fs) else _remote(fs, folder)
    for place, size in names:
        if (
            size
            and len(place) == there.ndim
            and all(part.isascii() and part.isdigit() for part in place)
            and all(int(part) < count for part, count in zip(place, there.shape, strict=True))
        ):
            there[tuple(map(int, place))] = True
    return there


def _local(folder: str, depth: int) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield names and size of every regular file so many folders deep."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if depth > 1:
                    if entry.is_dir():
                        yield from (
                            ((entry.name, *below), size) for below, size in _local(entry.path, depth - 1)
                        )
                elif entry.is_file():
                    yield (entry.name,), entry.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return


def _remote(fs: object, folder: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield names and size of every object below a folder."""
    fs.invalidate_cache()  # type: ignore[attr-defined] # fsspec has no types
    for path, found in fs.find(folder, detail=True).items():  # type: ignore[attr-defined]
        yield tuple(str(path).removeprefix(folder).strip("/").split("/")), int(found.get("size") or 0)
