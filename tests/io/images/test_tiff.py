"""All pages of a TIFF are read, or it is refused in one line that names what is the matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from unet_dask.errors import InputError
from unet_dask.io.images.picture import read_picture
from unet_dask.io.images.planes import open_planes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STACK = np.random.default_rng(0).integers(1, 200, (12, 20, 30)).astype(np.uint8)


def pages(path: Path, *each: Any, **options: Any) -> Path:
    """Write pages that no metadata tie together."""
    with tifffile.TiffWriter(path) as file:
        for number, page in enumerate(each):
            file.write(page, metadata=None, contiguous=False, **(options if number == 0 else {}))
    return path


def crops(path: Path) -> Path:
    return pages(path, STACK[0], STACK[1, :10, :12], STACK[2])


def types(path: Path) -> Path:
    return pages(path, STACK[0], STACK[1].astype(np.uint16))


def hyperstack_cut_off(path: Path) -> Path:
    tifffile.imwrite(path, STACK.reshape(3, 4, 20, 30), imagej=True, metadata={"axes": "TZYX"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def hyperstack_of_fewer_pages(path: Path) -> Path:
    tifffile.imwrite(path, STACK.reshape(3, 4, 20, 30), imagej=True, metadata={"axes": "TZYX"})
    with tifffile.TiffFile(path) as file:
        description = file.pages.first.description
    return pages(path, *STACK[:7], description=description)


def ome_of_fewer_planes(path: Path) -> Path:
    tifffile.imwrite(path, STACK.reshape(3, 4, 20, 30), ome=True, metadata={"axes": "ZCYX"})
    with tifffile.TiffFile(path) as file:
        description = file.pages.first.description
    return pages(path, *STACK[:7], description=description.encode())


def ome_of_two_kinds(path: Path) -> Path:
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(STACK[:4], metadata={"axes": "ZYX"})
        file.write(STACK[:4], metadata={"axes": "CYX"})
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (crops, r"holds 2 images that differ: series 0 of 2 x 20 x 30.*series 1 of 10 x 12"),
        (types, r"differ: series 0 .*uint8; series 1 .*uint16"),
        (hyperstack_cut_off, r"describes 12 planes and holds 1: it is damaged or was cut off"),
        (hyperstack_of_fewer_pages, r"describes 12 planes and holds 7"),
        (ome_of_fewer_planes, r"describes 12 planes, of which 5 are not in it"),
        (ome_of_two_kinds, r"differ: series 0 .*ZYX.*CYX"),
    ],
)
def test_what_would_be_left_out_is_refused(
    make: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    path = make(tmp_path / "a.tif")
    for read in (lambda: read_picture(str(path)), lambda: open_planes(path)):
        with pytest.raises(InputError, match=message) as caught:
            read()
        assert "\n" not in str(caught.value)


def pyramid(path: Path) -> Path:
    with tifffile.TiffWriter(path) as file:
        file.write(STACK[0], subifds=1, metadata={"axes": "YX"})
        file.write(STACK[0, ::2, ::2], subfiletype=1)
    return path


def flat_pyramid(path: Path) -> Path:
    with tifffile.TiffWriter(path) as file:
        file.write(STACK[0], metadata=None)
        file.write(STACK[0, ::2, ::2], subfiletype=1, metadata=None)
    return path


def two_of_ome(path: Path) -> Path:
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(STACK[:6], metadata={"axes": "ZYX"})
        file.write(STACK[6:], metadata={"axes": "ZYX"})
    return path


@pytest.mark.parametrize(
    ("make", "expected"), [(pyramid, STACK[:1]), (flat_pyramid, STACK[:1]), (two_of_ome, STACK)]
)
def test_every_image_is_read_and_no_copy(make: Callable[[Path], Path], expected: Any, tmp_path: Path) -> None:
    path = make(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_picture(str(path)).images(2)[:, 0], expected)
    planes = open_planes(path)
    np.testing.assert_array_equal([planes.read(index)[0] for index in range(len(planes))], expected)


def test_planes_follow_each_other_in_time(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    values = STACK.reshape(4, 3, 20, 30)
    tifffile.imwrite(path, values, metadata={"axes": "ZTYX"})
    expected = values.transpose(1, 0, 2, 3).reshape(-1, 20, 30)
    np.testing.assert_array_equal(read_picture(str(path)).images(2)[:, 0], expected)
    planes = open_planes(path)
    np.testing.assert_array_equal([planes.read(index)[0] for index in range(12)], expected)
    np.testing.assert_array_equal(read_picture(str(path)).images(3)[:, 0], values.transpose(1, 0, 2, 3))


def test_time_is_no_depth(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, STACK, metadata={"axes": "TYX"})
    with pytest.raises(InputError, match="time is no depth"):
        read_picture(str(path)).images(3)


def test_four_samples_without_alpha_are_four_channels(tmp_path: Path) -> None:
    values = np.moveaxis(STACK[:4], 0, -1)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
    assert read_picture(str(tmp_path / "a.tif")).images(2).shape == (1, 4, 20, 30)
    assert open_planes(tmp_path / "a.tif").read(0).shape == (4, 20, 30)


def test_size_of_pixels_in_ome(tmp_path: Path) -> None:
    sizes = {
        "PhysicalSizeX": 250,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "\u00b5m",
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK[0], metadata={"axes": "YX", **sizes})
    found = read_picture(str(tmp_path / "a.ome.tif"))
    assert found.spacing == pytest.approx((500, 250))
    assert found.unit == "nanometer"
