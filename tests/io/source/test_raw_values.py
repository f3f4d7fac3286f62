"""MRC and NIfTI: values, sizes of voxels and scales as mrcfile and nibabel read them, whole and in windows."""

from __future__ import annotations

import gzip
import pickle
import struct
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest

from unet_dask.errors import DataError, InputError
from unet_dask.io.source import node
from unet_dask.io.source.volume import open_source, read_window

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.io.source.volume import Source

VOLUME = np.random.default_rng(0).integers(-100, 30000, (5, 30, 44)).astype(np.int16)
PART = (slice(1, 4), slice(7, 29), slice(40, 43))


def window(source: Source, *parts: slice) -> NDArray[Any]:
    spec = pickle.loads(pickle.dumps(source.spec))
    return np.asarray(read_window(spec, (slice(0, 1), *parts))[0])


def everything(source: Source) -> NDArray[Any]:
    return np.asarray(source.read(tuple(slice(0, size) for size in source.shape))[0])


def mrc(
    values: NDArray[Any], mode: int, *, order: Literal["<", ">"] = "<", extended: int = 0, group: int = 1
) -> bytes:
    """Return an MRC file of voxels of 10 x 5 x 2.5 angstrom (z, y, x), by its specification."""
    shape = (
        (1, 1, *values.shape)[-3:]
        if values.ndim < 4
        else (values.shape[0] * values.shape[1], *values.shape[2:])
    )
    depth = values.shape[1] if values.ndim == 4 else shape[0]
    nz, ny, nx = shape
    head = struct.pack(
        f"{order}4i3i3i3f", nx, ny, nz, mode, 0, 0, 0, nx, ny, depth, 2.5 * nx, 5.0 * ny, 10.0 * depth
    )
    head += bytes(88 - len(head)) + struct.pack(f"{order}2i", group, extended)
    head += bytes(208 - len(head)) + b"MAP " + (b"\x44\x44\0\0" if order == "<" else b"\x11\x11\0\0")
    return (
        head + bytes(1024 - len(head) + extended) + values.astype(values.dtype.newbyteorder(order)).tobytes()
    )


@pytest.mark.parametrize(("mode", "dtype"), [(0, "i1"), (1, "i2"), (2, "f4"), (6, "u2"), (12, "f2")])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("packed", [False, True])
def test_an_mrc_is_read(
    tmp_path: Path, mode: int, dtype: str, order: Literal["<", ">"], *, packed: bool
) -> None:
    values = VOLUME.astype(dtype)
    content = mrc(values, mode, order=order, extended=160)
    path = tmp_path / ("a.mrc.gz" if packed else "a.mrc")
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    source = open_source(path)
    assert (source.axes, source.dtype, source.name) == ("czyx", np.dtype(dtype), "a")
    assert (source.spacing, source.unit["z"]) == ({"z": 10, "y": 5, "x": 2.5}, "angstrom")
    np.testing.assert_array_equal(everything(source), values)
    np.testing.assert_array_equal(window(source, *PART), values[PART])
    assert source.decoding.chunk_bytes == (values.nbytes if packed else 30 * 44 * values.itemsize)


@pytest.mark.parametrize("group", [0, 1, 401])
@pytest.mark.parametrize("count", [1, 4])
def test_an_mrc_is_read_as_mrcfile_reads_it(tmp_path: Path, group: int, count: int) -> None:
    mrcfile = pytest.importorskip("mrcfile")
    values = VOLUME[:count].astype(np.float32)
    if group == 401:
        values = np.stack([values, values + 1])
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(values[0] if group == 0 and count == 1 else values)
        file.voxel_size = (2.0, 3.0, 4.0)
        if group == 0 and count > 1:
            file.set_image_stack()
    with mrcfile.open(tmp_path / "a.mrc") as file:
        expected, size = file.data.copy(), file.voxel_size
    source = open_source(tmp_path / "a.mrc")
    found = source.read(tuple(slice(0, size) for size in source.shape))
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)
    assert source.spacing["x"] == pytest.approx(float(size.x))
    assert source.spacing["y"] == pytest.approx(float(size.y))
    assert source.axes == {2: "cyx", 3: "czyx", 4: "tczyx"}[expected.ndim]


def nifti(
    values: NDArray[Any], kind: int, *, slope: float = 0.0, inter: float = 0.0, units: int = 3
) -> bytes:
    """Return a NIfTI-1 file of values along (..., z, y, x) with voxels of 4 x 3 x 2, by its specification."""
    sides = values.shape[::-1]
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, len(sides), *sides, *([1] * (7 - len(sides))))
    struct.pack_into("<hh", head, 70, kind, values.itemsize * 8)
    struct.pack_into("<8f", head, 76, 1, 2, 3, 4, 5, 0, 0, 0)
    struct.pack_into("<3f", head, 108, 352, slope, inter)
    head[123], head[344:348] = units, b"n+1\0"
    return bytes(head) + values.tobytes()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("slope", "inter"), [(0.0, 0.0), (1.0, 0.0), (0.5, -3.0)])
def test_a_nifti_is_read(tmp_path: Path, slope: float, inter: float, *, packed: bool) -> None:
    content = nifti(VOLUME, 4, slope=slope, inter=inter)
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    source = open_source(path)
    expected = VOLUME * slope + inter if slope not in (0.0, 1.0) else VOLUME
    assert (source.axes, source.name, source.spacing) == ("czyx", "a", {"z": 4, "y": 3, "x": 2})
    assert source.unit["x"] == "micrometer"
    np.testing.assert_array_equal(everything(source), expected)
    np.testing.assert_array_equal(window(source, *PART), expected[PART])
    if packed:
        assert (source.chunks[1:], source.decoding.copies) == (VOLUME.shape, 3)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_nifti_is_read_as_nibabel_reads_it(tmp_path: Path, version: int, name: str) -> None:
    nibabel: Any = pytest.importorskip("nibabel")
    made = {1: nibabel.Nifti1Image, 2: nibabel.Nifti2Image}[version](VOLUME.T, np.diag([0.5, 0.25, 2, 1]))
    made.header.set_xyzt_units("mm", "sec")
    made.header.set_slope_inter(2.5, 7)
    nibabel.save(made, tmp_path / name)
    image = nibabel.load(tmp_path / name)
    source = open_source(tmp_path / name)
    np.testing.assert_array_equal(everything(source), np.asarray(image.dataobj).T)
    assert [source.spacing[axis] for axis in "xyz"] == pytest.approx(list(image.header.get_zooms()))
    assert source.unit["z"] == "millimeter"


def test_a_series_of_volumes_has_time(tmp_path: Path) -> None:
    values = np.stack([VOLUME, VOLUME + 1])
    (tmp_path / "a.nii").write_bytes(nifti(values, 4))
    source = open_source(tmp_path / "a.nii")
    assert (source.axes, source.shape) == ("tczyx", (2, 1, *VOLUME.shape))
    np.testing.assert_array_equal(source.read(tuple(slice(0, n) for n in source.shape))[:, 0], values)


@pytest.mark.parametrize("make", [lambda: mrc(VOLUME, 1), lambda: nifti(VOLUME, 4)])
def test_a_file_that_is_cut_short_is_one_line(tmp_path: Path, make: Any) -> None:
    (tmp_path / "a").write_bytes(make()[:-7])
    with pytest.raises(InputError, match="damaged or was cut off"):
        open_source(tmp_path / "a")
    (tmp_path / "b").write_bytes(gzip.compress(make()[:-7]))
    source = open_source(tmp_path / "b")
    with pytest.raises(DataError, match="Cannot decode"):
        everything(source)


def test_a_gzip_that_no_worker_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti(VOLUME, 4)))
    monkeypatch.setattr(node, "CHUNK_LIMIT", VOLUME.nbytes - 1)
    with pytest.raises(InputError, match="Save it again in smaller chunks, or without compression"):
        open_source(tmp_path / "a.nii.gz")


def test_complex_values_and_pairs_of_files_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.mrc").write_bytes(mrc(VOLUME, 4))
    with pytest.raises(InputError, match="of mode 4"):
        open_source(tmp_path / "a.mrc")
    (tmp_path / "a.hdr").write_bytes(nifti(VOLUME, 4).replace(b"n+1\0", b"ni1\0"))
    with pytest.raises(InputError, match="the header of a NIfTI image"):
        open_source(tmp_path / "a.hdr")
