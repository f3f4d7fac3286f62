"""One image written in every format that is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import imagecodecs
import numpy as np
import tifffile
import zarr

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

#: Micrometres of a pixel, where a format can say it.
SIZE = 0.25


def _zarr(path: Path, values: NDArray[Any]) -> Path:
    names = ["y", "x"]
    made = zarr.create_array(
        str(path), shape=values.shape, dtype=values.dtype, chunks=(40, 40), dimension_names=names
    )
    made[...] = values
    return path


def _ome_zarr(path: Path, values: NDArray[Any], version: str) -> Path:
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    for level, step in enumerate((1, 2)):
        part = values[::step, ::step]
        group.create_array(str(level), shape=part.shape, dtype=part.dtype, chunks=(32, 48))[...] = part
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [{"type": "scale", "scale": [SIZE * 2**level] * 2}],
        }
        for level in (0, 1)
    ]
    image: Any = {"axes": axes, "datasets": datasets, "name": path.name.split(".")[0]}
    if version == "0.4":
        group.attrs["multiscales"] = [image | {"version": version}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    return path


def _ome_tiff(path: Path, values: NDArray[Any]) -> Path:
    metadata = {
        "axes": "YX",
        **{f"PhysicalSize{axis}": SIZE for axis in "XY"},
        **{f"PhysicalSize{axis}Unit": "\u00b5m" for axis in "XY"},
    }
    tifffile.imwrite(path, values, ome=True, metadata=metadata, compression="zlib", rowsperstrip=9)
    return path


def _pyramid(path: Path, values: NDArray[Any]) -> Path:
    metadata = {
        "axes": "YX",
        **{f"PhysicalSize{axis}": SIZE * 1000 for axis in "XY"},
        **{f"PhysicalSize{axis}Unit": "nm" for axis in "XY"},
    }
    tiled: dict[str, Any] = {"tile": (32, 48), "compression": "zstd", "predictor": values.dtype.kind != "f"}
    with tifffile.TiffWriter(path, bigtiff=True, ome=True, byteorder=">") as file:
        file.write(values, subifds=1, metadata=metadata, **tiled)
        file.write(values[::2, ::2], subfiletype=1, **tiled)
    return path


def _imagej(path: Path, values: NDArray[Any]) -> Path:
    resolution = (1 / SIZE, 1 / SIZE)
    tifffile.imwrite(path, values, imagej=True, resolution=resolution, metadata={"unit": "um", "axes": "YX"})
    return path


def _plain_tiff(path: Path, values: NDArray[Any]) -> Path:
    tifffile.imwrite(path, values, metadata=None)
    return path


def _png(path: Path, values: NDArray[Any]) -> Path:
    path.write_bytes(imagecodecs.png_encode(values))
    return path


def _hdf5(path: Path, values: NDArray[Any]) -> Path:
    with h5py.File(path, "w") as file:
        made = file.create_dataset("raw", data=values, chunks=(40, 48), compression="gzip", shuffle=True)
        made.attrs["element_size_um"] = (SIZE, SIZE)
    return path


#: How an image of (y, x) is written in each format, by the name that it is given.
WRITERS: dict[str, Callable[[Path, NDArray[Any]], Path]] = {
    "plain.zarr": _zarr,
    "ome4.ome.zarr": lambda path, values: _ome_zarr(path, values, "0.4"),
    "ome5.ome.zarr": lambda path, values: _ome_zarr(path, values, "0.5"),
    "ome.ome.tif": _ome_tiff,
    "pyramid.ome.tif": _pyramid,
    "imagej.tif": _imagej,
    "plain.tif": _plain_tiff,
    "picture.png": _png,
    "plantseg.h5": _hdf5,
}
#: Those that say the size of a pixel.
SIZED = ("ome4.ome.zarr", "ome5.ome.zarr", "ome.ome.tif", "pyramid.ome.tif", "imagej.tif", "plantseg.h5")


def write_all(folder: Path, values: NDArray[Any]) -> dict[str, Path]:
    """Write an image of (y, x) in every format; return where, by the name of the format."""
    folder.mkdir(parents=True, exist_ok=True)
    return {name: write(folder / name, values) for name, write in WRITERS.items()}


def noise(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> NDArray[Any]:
    """Return smooth noise, so that a network has something to tell apart."""
    rng = np.random.default_rng(seed)
    values: NDArray[Any] = rng.integers(0, 256, shape).astype(np.float32)
    for axis in range(-2, 0):
        values = (values + np.roll(values, 1, axis) + np.roll(values, 2, axis)) / 3
    return values.astype(dtype)
