"""Planes come out the same whatever stores them, and one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio.v3
import numpy as np
import pytest
import tifffile
import zarr

from unet_dask.errors import InputError
from unet_dask.io.images.planes import Planes, open_planes, pair_planes, products_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SHARED = Path(__file__).parents[4] / "shared" / "data"
STACK = np.random.default_rng(0).integers(0, 200, (5, 12, 14)).astype(np.uint16)


def everything(planes: Planes) -> NDArray[Any]:
    return np.stack([planes.read(index) for index in range(len(planes))])


def write_zarr(path: Path, values: NDArray[Any], chunks: tuple[int, ...], names: str | None) -> Path:
    array = zarr.create_array(
        str(path),
        shape=values.shape,
        dtype=values.dtype,
        chunks=chunks,
        dimension_names=list(names) if names else None,
    )
    array[...] = values
    return path


def write_tiff(path: Path, values: NDArray[Any], **options: Any) -> Path:
    tifffile.imwrite(path, values, **({"photometric": "minisblack"} | options))
    return path


def write_folder(path: Path, values: NDArray[Any]) -> Path:
    path.mkdir()
    for number, plane in enumerate(values):
        imageio.v3.imwrite(path / f"t{number:03}.png", plane)
    return path


STORES: dict[str, Callable[[Path], Path]] = {
    "tiff": lambda at: write_tiff(at / "a.tif", STACK),
    "tiff-compressed": lambda at: write_tiff(at / "a.tif", STACK, compression="zlib"),
    "tiff-one-page-for-all": lambda at: write_tiff(at / "a.tif", STACK, truncate=True),
    "tiff-big-endian": lambda at: write_tiff(at / "a.tif", STACK, byteorder=">", truncate=True),
    "tiff-imagej": lambda at: write_tiff(at / "a.tif", STACK, imagej=True, metadata={"axes": "ZYX"}),
    "tiff-ome": lambda at: write_tiff(at / "a.ome.tif", STACK, metadata={"axes": "TYX"}),
    "tiff-volumetric": lambda at: write_tiff(at / "a.tif", STACK, volumetric=True, tile=(16, 16, 16)),
    "zarr": lambda at: write_zarr(at / "a.zarr", STACK, (2, 12, 14), "zyx"),
    "zarr-planes": lambda at: write_zarr(at / "a.zarr", STACK, (1, 5, 5), "tyx"),
    "zarr-without-names": lambda at: write_zarr(at / "a.zarr", STACK, (5, 5, 5), None),
    "folder": lambda at: write_folder(at / "a", STACK),
}


@pytest.mark.parametrize("make", STORES.values(), ids=STORES)
def test_planes_are_those_of_the_stack(make: Callable[[Path], Path], tmp_path: Path) -> None:
    planes = open_planes(make(tmp_path))
    np.testing.assert_array_equal(everything(planes)[:, 0], STACK)
    assert len(set(planes.names)) == len(planes) == len(STACK)


@pytest.mark.parametrize("make", STORES.values(), ids=STORES)
def test_planes_can_be_read_in_any_order(make: Callable[[Path], Path], tmp_path: Path) -> None:
    planes = open_planes(make(tmp_path))
    for index in (4, 0, 3, 3, 1):
        np.testing.assert_array_equal(planes.read(index)[0], STACK[index])


def test_channels_stay_together(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((3, 2, 8, 9)).astype(np.float32)
    tiff = write_tiff(tmp_path / "a.ome.tif", values, metadata={"axes": "ZCYX"})
    stored = write_zarr(tmp_path / "a.zarr", values, (2, 1, 8, 9), "zcyx")
    np.testing.assert_array_equal(everything(open_planes(tiff)), values)
    np.testing.assert_array_equal(everything(open_planes(stored)), values)


def test_alpha_is_dropped(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 9, (6, 7, 4)).astype(np.uint8)
    imageio.v3.imwrite(tmp_path / "a.png", values)
    write_tiff(tmp_path / "a.tif", values, photometric="rgb")
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(
            open_planes(tmp_path / name).read(0), np.moveaxis(values[..., :3], -1, 0)
        )


def test_an_array_in_a_group(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "a.zarr"))
    write_zarr(tmp_path / "a.zarr" / "labels", STACK, (5, 5, 5), "zyx")
    write_zarr(tmp_path / "a.zarr" / "other", STACK + 1, (5, 5, 5), "zyx")
    for planes in (
        open_planes(tmp_path / "a.zarr", key="labels"),
        open_planes(tmp_path / "a.zarr" / "labels"),
    ):
        np.testing.assert_array_equal(everything(planes)[:, 0], STACK)


def test_files_of_two_folders_pair_by_number(tmp_path: Path) -> None:
    found, true = write_folder(tmp_path / "found", STACK), tmp_path / "true"
    true.mkdir()
    for number in (3, 1):
        write_tiff(true / f"man_seg{number:02}.tif", STACK[number])
    planes, targets, how = pair_planes(found, true)
    assert targets.names == ("man_seg01.tif", "man_seg03.tif")
    assert planes.names == ("t001.png", "t003.png")
    assert how == "2 files were paired by the last number in the names"
    np.testing.assert_array_equal(everything(planes), everything(targets))


def test_a_truth_without_prediction_is_named(tmp_path: Path) -> None:
    found, true = write_folder(tmp_path / "found", STACK), write_folder(tmp_path / "true", STACK)
    (found / "t002.png").unlink()
    with pytest.raises(InputError, match=r"t002\.png in true has no prediction in found \(1 of 5\)"):
        pair_planes(found, true)


def test_a_folder_pairs_with_a_stack_in_order(tmp_path: Path) -> None:
    found, true = write_folder(tmp_path / "found", STACK), write_tiff(tmp_path / "true.tif", STACK)
    planes, targets, how = pair_planes(found, true)
    assert how is None
    np.testing.assert_array_equal(everything(planes), everything(targets))


def test_different_numbers_of_planes_do_not_pair(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has 5 planes and the truth b.tif 3"):
        pair_planes(write_tiff(tmp_path / "a.tif", STACK), write_tiff(tmp_path / "b.tif", STACK[:3]))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no .*nothing.tif"):
        open_planes(tmp_path / "nothing.tif")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        open_planes(tmp_path / "empty")


def test_a_file_that_is_no_tiff_is_named(tmp_path: Path) -> None:
    (tmp_path / "no.tif").write_bytes(b"II*\0garbage")
    with pytest.raises(InputError, match=r"no\.tif.* holds no image"):
        open_planes(tmp_path / "no.tif")


def test_a_page_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", STACK, compression="zlib")
    with tifffile.TiffFile(path) as file:
        page = file.pages[3]
        start, size = page.dataoffsets[0], page.databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start : start + size] = b"\xff" * size
    path.write_bytes(content)
    planes = open_planes(path)
    np.testing.assert_array_equal(planes.read(2)[0], STACK[2])
    with pytest.raises(InputError, match=r"Cannot decode the window .*a\.tif.* is damaged"):
        planes.read(3)


def test_only_a_result_has_products(tmp_path: Path) -> None:
    place = write_zarr(tmp_path / "a.zarr", STACK, (5, 5, 5), "zyx")
    assert products_of(place) == products_of(tmp_path) == products_of(tmp_path / "nothing") == ()
    with pytest.raises(InputError, match="no result of unet-dask"):
        open_planes(place, entry="classes")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared images are not here")
def test_real_stacks_are_read() -> None:
    planes = open_planes(SHARED / "isbi2012" / "train-labels.tif")
    np.testing.assert_array_equal(
        everything(planes)[:, 0], tifffile.imread(SHARED / "isbi2012" / "train-labels.tif")
    )
