"""A result as labelled arrays: `open_result`, for notebooks.

Nothing is read when a result is opened but its documents; what is asked for is read chunk by chunk, as Dask arrays.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.axes import has_channel, is_channel
from unet_dask.errors import InputError, SinkError
from unet_dask.io import remote
from unet_dask.io.sink.place import RUN_FOLDER, exists, result_manifest
from unet_dask.io.source.volume import open_source, read_window
from unet_dask.products import product_of

if TYPE_CHECKING:
    import os

    import xarray
    from numpy.typing import NDArray

    from unet_dask.io.sink.manifest import ArrayRecord, Manifest
    from unet_dask.io.source.volume import Source
    from unet_dask.io.source.window import SourceSpec


def open_result(path: str | os.PathLike[str], *, level: int = 0) -> xarray.Dataset:
    """Open what `segment_store` or ``unet-dask segment`` has written, complete or not.

    Parameters
    ----------
    path : path or URL of the result
    level : of the pyramid: 0 is the finest, each coarser one has half of the pixels along y, x and perhaps z

    Returns
    -------
    a variable per product, as Dask arrays with dimensions such as (z, y, x); probabilities have a dimension c with
    the names of the classes. Coordinates are physical positions of pixels' centres, in the unit of `attrs["units"]` of
    each, if the source says how large a pixel is. `attrs` of the dataset say the `model`, whether the result is
    `complete`, and `classes`; `attrs["unwritten"]` of a variable is the value of what was never written.

    Raises
    ------
    SinkError
        If there is no result, or it is damaged.
    InputError
        If no product has such a level.

    Examples
    --------
    >>> opened = open_result("big.seg.zarr")  # doctest: +SKIP
    >>> int((opened.classes == 1).sum())  # doctest: +SKIP
    """
    import xarray

    url = remote.location(path, "result")
    manifest = result_manifest(url)
    if manifest is None:
        raise SinkError(
            f"{remote.redact_url(url)} is no result of unet-dask. Name what segment has written, such as big.seg.zarr."
        )
    chosen = [record for record in manifest.arrays if 0 <= level < record.levels]
    if not chosen:
        most = max(record.levels for record in manifest.arrays)
        raise InputError(f"{remote.redact_url(url)} has no level {level}. Use one from 0 to {most - 1}.")
    products = {record.name: _labelled(url, manifest, record, level) for record in chosen}
    attributes = {
        "model": manifest.model.name,
        "classes": list(manifest.classes),
        "complete": exists(f"{url.rstrip('/')}/{RUN_FOLDER}/ledger.jsonl"),
        "source": remote.redact_url(manifest.source.url),
    }
    return xarray.Dataset(products, attrs=attributes)


def _labelled(url: str, manifest: Manifest, record: ArrayRecord, level: int) -> xarray.DataArray:
    """Return a level of a product."""
    import dask.array
    import xarray
    from dask.array.core import normalize_chunks

    found = open_source(url, key=f"{record.name}/{level}", axes=record.axes)
    kept = [place for place, axis in enumerate(found.axes) if axis in record.axes]
    channel = None if has_channel(record.axes) else found.axes.index("c")
    shape, chunks = (tuple(sizes[place] for place in kept) for sizes in (found.shape, found.chunks))
    lazy = dask.array.map_blocks(
        _chunk,
        found.spec,
        channel,
        chunks=normalize_chunks(chunks, shape),
        dtype=found.dtype,
        meta=np.empty((0,) * len(shape), found.dtype),
        name=f"{record.name}-{uuid.uuid4().hex}",  # not of what it holds, which a run may still change
    )
    dims = [found.axes[place] for place in kept]
    labelled = xarray.DataArray(lazy, dims=dims, name=record.name)
    labelled.attrs["unwritten"] = product_of(record.name, found.dtype.name).unwritten
    for axis in dims:
        if is_channel(axis):
            labelled = labelled.assign_coords(c=list(manifest.classes))
        elif axis in found.spacing:
            labelled = labelled.assign_coords({axis: _positions(found, axis)})
    return labelled


def _chunk(spec: SourceSpec, channel: int | None, block_info: Any = None) -> NDArray[np.generic]:
    """Read a chunk of a product, which may be without the channels that a source always has."""
    window = [slice(*span) for span in block_info[None]["array-location"]]
    if channel is None:
        return read_window(spec, tuple(window))
    window.insert(channel, slice(0, 1))
    return read_window(spec, tuple(window)).squeeze(axis=channel)


def _positions(found: Source, axis: str) -> xarray.DataArray:
    """Return where the centres of pixels lie along an axis."""
    import xarray

    places = found.translation.get(axis, 0.0) + found.spacing[axis] * np.arange(
        found.shape[found.axes.index(axis)], dtype=np.float64
    )
    unit = found.unit.get(axis)
    return xarray.DataArray(places, dims=[axis], attrs={"units": unit} if unit else {})
