"""The levels of a product of a result, opened as those of a source would be: a result may be a stranger's."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from unet_dask.errors import SinkError
from unet_dask.io.remote import Location, one_line, redact_url
from unet_dask.io.source import node
from unet_dask.io.source.zarr_source import open_array
from unet_dask.products import PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unet_dask.io.bounded import OpenedArray
    from unet_dask.io.sink.manifest import ArrayRecord, Manifest


def product_levels(url: str, manifest: Manifest, entry: ArrayRecord) -> list[OpenedArray]:
    """Return the levels of a product, the finest first.

    Raises
    ------
    SinkError
        If one cannot be opened, or is not what the manifest says.
    """
    name = entry.name
    try:
        opened = [_open_level(url, f"{name}/{n}") for n in range(entry.levels)]
        reason = _contradiction(opened, manifest, entry)
    except Exception as error:  # whatever Zarr makes of damaged metadata
        reason = one_line(error)
    if reason:
        raise SinkError(
            f"The {name} of {redact_url(url)} cannot be opened ({reason}). See what is wrong with unet-dask verify."
        )
    return opened


def _contradiction(levels: Sequence[OpenedArray], manifest: Manifest, entry: ArrayRecord) -> str:
    """Return in what arrays are not those of a product, "" if they can be."""
    finest, wanted = levels[0], manifest.shape(entry)
    if finest.shape != wanted:
        return f"its shape is {finest.shape}, and by the manifest {wanted}"
    if str(finest.dtype) not in PRODUCTS[entry.name].types or any(
        each.dtype != finest.dtype for each in levels
    ):
        return f"it holds {finest.dtype}"
    for finer, coarse in itertools.pairwise(levels):
        if len(coarse.shape) != len(wanted):
            return f"a level has the shape {coarse.shape}"
        if any(b not in (a, -(-a // 2)) for a, b in zip(finer.shape, coarse.shape, strict=True)):
            return f"a level of {coarse.shape} follows one of {finer.shape}"
    return ""


def _open_level(url: str, path: str) -> OpenedArray:
    """Open an array of a result as a source would be: it may be a stranger's."""
    found = node.read_node(Location(url), path)
    if found is None or not found.is_array:
        raise SinkError(f"there is no array {path}")
    return open_array(found)
