"""TIFF as a source: every way to store it, only what a window touches, and one line for what cannot be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from tests.written import noise
from unet_dask import axes as axes_
from unet_dask.errors import DataError, InputError
from unet_dask.io.source import segments, single_file, tiff_array
from unet_dask.io.source.headers import jpeg2000_shape, jpeg_shape
from unet_dask.io.source.stamps import ChangedError
from unet_dask.io.source.volume import open_source, read_window
from unet_dask.io.source.window import opened, read_stamped, stamp_of
from unet_dask.regular import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from unet_dask.io.source.volume import Source

DATA = Path(__file__).parents[4] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the real images are not here")
SLIDE = DATA / "wsi" / "CMU-1-Small-Region.svs"

STACK = noise((6, 90, 110), "uint16")
COLOUR = noise((90, 110, 4))
CORNER = (slice(0, 1), slice(0, 20), slice(0, 20))

#: How an array is written, and the axes that are found.
WAYS: dict[str, tuple[NDArray[Any], dict[str, Any], str]] = {
    "contiguous": (STACK, {}, "zyx"),
    "big-endian-bigtiff": (STACK, {"byteorder": ">", "bigtiff": True}, "zyx"),
    "strips": (STACK, {"compression": "zlib", "rowsperstrip": 7, "predictor": True}, "zyx"),
    "a-strip-a-page": (STACK, {"compression": "lzw", "rowsperstrip": 90}, "zyx"),
    "big-endian-predictor": (STACK, {"compression": "zlib", "predictor": True, "byteorder": ">"}, "zyx"),
    "tiles": (STACK, {"compression": "zstd", "tile": (32, 48)}, "zyx"),
    "tiles-uncompressed": (STACK, {"tile": (32, 48)}, "zyx"),
    "tiles-of-volume": (STACK, {"compression": "zlib", "tile": (2, 32, 48), "volumetric": True}, "zyx"),
    "float": (STACK.astype("f4"), {"compression": "lzma", "predictor": True}, "zyx"),
    "bits": (STACK > 128, {"compression": "packbits"}, "zyx"),
    "pages-apart": (STACK, {"contiguous": False, "metadata": None}, "zyx"),
    "colour": (COLOUR[..., :3], {"photometric": "rgb", "tile": (32, 48)}, "yxc"),
    "colour-strips": (COLOUR[..., :3], {"photometric": "rgb", "compression": "zlib"}, "yxc"),
    "colour-planes": (
        np.moveaxis(COLOUR[..., :3], -1, 0),
        {"photometric": "rgb", "planarconfig": "separate"},
        "cyx",
    ),
    "colour-plane-tiles": (
        np.moveaxis(COLOUR[..., :3], -1, 0),
        {"photometric": "rgb", "planarconfig": "separate", "compression": "zlib", "tile": (32, 48)},
        "cyx",
    ),
    "imagej-hyperstack": (
        STACK.reshape(2, 3, 90, 110),
        {"imagej": True, "metadata": {"axes": "ZCYX"}},
        "zcyx",
    ),
    "ome-hyperstack": (STACK.reshape(3, 2, 90, 110), {"ome": True, "metadata": {"axes": "TZYX"}}, "tzyx"),
    "jpeg": (COLOUR[..., :3], {"photometric": "ycbcr", "compression": "jpeg", "tile": (32, 48)}, "yxc"),
    "jpeg2000": (COLOUR[..., 0], {"compression": "jpeg2000", "tile": (32, 48)}, "yx"),
}


def whole(source: Source) -> NDArray[Any]:
    return source.read(tuple(slice(0, size) for size in source.shape))


@pytest.mark.parametrize("way", WAYS)
def test_every_window_of_every_way_to_store_it(way: str, tmp_path: Path) -> None:
    values, how, axes = WAYS[way]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, **how)
    source = open_source(path)
    assert source.spec.axes == axes
    expected = axes_.to_canonical(tifffile.imread(path), axes)
    np.testing.assert_array_equal(whole(source), expected)
    rng = np.random.default_rng(2)
    for _ in range(20):
        window = tuple(slice(*sorted(rng.integers(0, size + 1, 2).tolist())) for size in source.shape)
        np.testing.assert_array_equal(read_window(source.spec, window, run="a"), expected[window])


def test_alpha_is_no_channel(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(whole(open_source(tmp_path / "a.tif")), np.moveaxis(COLOUR[..., :3], -1, 0))


def test_channels_have_names(tmp_path: Path) -> None:
    metadata = {"axes": "CYX", "Channel": {"Name": ["DNA", "a & b", "c"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK[:3], metadata=metadata)
    assert open_source(tmp_path / "a.ome.tif").channel_names == ("DNA", "a & b", "c")
    assert open_source(tmp_path / "a.ome.tif", channels=(2, 0)).channel_names == ("c", "DNA")


def test_planes_of_unknown_meaning_are_channels_only_of_a_network_that_takes_them(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, metadata=None)
    assert open_source(tmp_path / "a.tif").axes == "czyx"
    assert open_source(tmp_path / "a.tif", dims=2, network_channels=6).axes == "cyx"
    assert open_source(tmp_path / "a.tif", dims=3, network_channels=6).axes == "czyx"


def test_equal_images_are_one_stack_and_each_can_be_named(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        for plane in STACK[:3]:
            file.write(plane, metadata={"axes": "YX"})
    source = open_source(tmp_path / "a.ome.tif")
    assert (source.axes, source.spec.key) == ("czyx", "")
    np.testing.assert_array_equal(whole(source)[0], STACK[:3])
    second = open_source(tmp_path / "a.ome.tif", key="1")
    np.testing.assert_array_equal(whole(second)[0], STACK[1])
    assert open_source(tmp_path / "a.ome.tif" / second.spec.key).spec == second.spec, "a path into the file"


def listened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which the size of everything is added that is read from now on."""
    read: list[int] = []

    def exactly(file: int, offset: int, count: int) -> bytes:
        read.append(count)
        return segments.exactly(file, offset, count)

    monkeypatch.setattr(tiff_array, "exactly", exactly)
    return read


def test_only_what_a_window_touches_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise((512, 512)), tile=(64, 64), compression="zlib")
    spec = open_source(tmp_path / "a.tif").spec
    read = listened(monkeypatch)
    read_window(spec, (slice(0, 1), slice(60, 70), slice(130, 190)))
    assert len(read) == 2
    read.clear()
    for _ in range(3):
        read_window(spec, (slice(0, 1), slice(0, 64), slice(0, 64)), run="kept")
    assert len(read) == 1, "what was decoded last in a run is kept"


def test_of_long_rows_only_the_columns_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = noise((40, 5000))
    tifffile.imwrite(tmp_path / "a.tif", values)
    spec = open_source(tmp_path / "a.tif").spec
    read = listened(monkeypatch)
    found = read_window(spec, (slice(0, 1), slice(5, 9), slice(1000, 1100)))
    np.testing.assert_array_equal(found[0], values[5:9, 1000:1100])
    assert read == [100] * 4


def test_tiles_that_a_scanner_left_out_are_empty(tmp_path: Path) -> None:
    path, values = tmp_path / "a.tif", noise((96, 96)) | 1
    tifffile.imwrite(path, values, tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as file:
        counts = list(file.pages.first.databytecounts)
        file.pages.first.tags["TileByteCounts"].overwrite([0, *counts[1:]])
    values[:32, :32] = 0
    np.testing.assert_array_equal(whole(open_source(path))[0], values)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scribbled(path: Path) -> None:
    with tifffile.TiffFile(path) as file:
        place, count = file.pages.first.dataoffsets[0], file.pages.first.databytecounts[0]
    content = bytearray(path.read_bytes())
    content[place : place + count] = bytes(255 - byte for byte in content[place : place + count])
    path.write_bytes(content)


@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"compression": "zlib", "tile": (32, 32)}])
def test_a_file_that_was_cut_short_is_one_line(how: dict[str, Any], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, **how)
    cut(tmp_path / "a.tif")
    with pytest.raises(InputError, match="damaged") as caught:
        open_source(tmp_path / "a.tif").read((slice(0, 1), slice(0, 6), slice(0, 90), slice(0, 110)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compression", ["zlib", "zstd", "lzw", "jpeg", "jpeg2000"])
def test_a_damaged_segment_is_one_line(compression: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise((96, 96)), tile=(32, 32), compression=compression)
    scribbled(tmp_path / "a.tif")
    source = open_source(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"Cannot decode the window c 0:1 y 0:20 x 0:20 .*damaged") as caught:
        source.read(CORNER)
    assert "\n" not in str(caught.value)
    far = (slice(0, 1), slice(64, 96), slice(64, 96))
    assert source.read(far).shape == (1, 32, 32)


def test_a_picture_that_claims_to_be_huge_is_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise((96, 96)), tile=(32, 32), compression="jpeg")
    content = path.read_bytes()
    place = content.index(b"\xff\xc0\x00\x0b\x08\x00\x20\x00\x20") + 5
    path.write_bytes(content[:place] + b"\xff\xdc\xff\xdc" + content[place + 4 :])
    with pytest.raises(DataError, match="claims 65500 x 65500"):
        open_source(path).read(CORNER)


def test_sizes_of_compressed_pictures_are_read_from_their_headers() -> None:
    import imagecodecs

    picture = noise((33, 47))
    assert jpeg_shape(bytes(imagecodecs.jpeg8_encode(picture))) == (33, 47, 1)
    for codec in ("j2k", "jp2"):
        assert jpeg2000_shape(bytes(imagecodecs.jpeg2k_encode(picture, codecformat=codec))) == (33, 47, 1)
    assert jpeg_shape(b"") is jpeg_shape(b"\xff\xd8\xff\xff\xff") is jpeg2000_shape(b"nothing") is None


def test_a_compressed_page_too_large_for_a_worker_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unet_dask.io.source.node.CHUNK_LIMIT", 4096)
    tifffile.imwrite(tmp_path / "a.tif", noise((96, 96)), compression="zlib", rowsperstrip=96)
    with pytest.raises(
        InputError, match=r"One segment of .* more than the 0 GiB that a worker decodes at once"
    ):
        open_source(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", noise((96, 96)))
    assert open_source(tmp_path / "b.tif").shape == (1, 96, 96), "what is not compressed is read row by row"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "raw"}, "'raw' names nothing in .* such as --key 0 or --key 0/2"),
        ({"key": "1"}, "There is no series 1 in .* which has 1"),
        ({"key": "0/7"}, "--level 7 was asked of .*single image without levels"),
        ({"level": 1}, "--level 1 was asked of .*single image without levels"),
        ({"axes": "yx"}, "--axes yx names 2 axes"),
    ],
)
def test_what_is_not_there_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK)
    with pytest.raises(InputError, match=message):
        open_source(tmp_path / "a.tif", **options)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise((96, 96)), tile=(32, 32), compression="zlib")
    return path


def test_a_file_that_is_changed_is_not_read_on(stored: Path) -> None:
    spec = open_source(stored).spec
    values, stamp = read_stamped(spec, CORNER)
    found, content = stored.stat(), stored.read_bytes()
    tifffile.imwrite(stored, noise((96, 96), seed=9), tile=(32, 32), compression="zlib")
    with pytest.raises(
        ChangedError, match=r"was changed since it was opened\. Put back what it was, and resume"
    ):
        read_stamped(spec, CORNER)
    assert stamp_of(spec, CORNER) != stamp
    opened.cache_clear()
    with pytest.raises(DataError, match="was replaced since it was opened"):
        read_stamped(spec, CORNER)
    stored.write_bytes(content)
    os.utime(stored, ns=(found.st_atime_ns, found.st_mtime_ns))
    again, same = read_stamped(spec, CORNER)
    np.testing.assert_array_equal(again, values)
    assert same == stamp, "put back as it was, time of change and all"
    stored.unlink()
    with pytest.raises(InputError, match="is no longer there"):
        read_stamped(spec, CORNER)


def test_another_file_for_the_moment_of_a_read_is_seen(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = open_source(stored).spec
    opened(spec)
    other, away = stored.with_name("b.tif"), stored.with_name("away.tif")
    shutil.copy2(stored, other)
    tries: list[int] = []
    plain = open_regular

    def swapped(path: Path) -> Any:
        tries.append(1)
        stored.rename(away)
        other.rename(stored)
        file = plain(path)
        stored.rename(other)
        away.rename(stored)
        return file

    monkeypatch.setattr(single_file, "open_regular", swapped)
    with pytest.raises(ChangedError):
        read_stamped(spec, CORNER)
    assert len(tries) == 3, "it is read again before it is given up"


def test_an_identity_is_of_the_content_and_not_of_the_place(stored: Path) -> None:
    before = open_source(stored).identity()
    moved = stored.with_name("moved.tif")
    shutil.copy2(stored, moved)
    now = open_source(moved).identity()
    assert {name for name in now if now[name] != before[name]} == {"source.url"}
    scribbled(moved)
    now = open_source(moved).identity()
    assert "source.content" in {name for name in now if now[name] != before[name]}


def pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [pipe, lambda path: path.symlink_to("nowhere")])
def test_something_else_than_a_file_is_not_waited_for(make: Callable[[Path], None], stored: Path) -> None:
    spec = open_source(stored).spec
    stored.unlink()
    make(stored)
    with pytest.raises(InputError):
        open_source(stored)
    with pytest.raises(InputError):
        read_stamped(spec, CORNER)


@needs_data
def test_a_slide_is_its_ome_zarr_voxel_for_voxel() -> None:
    slide, other = open_source(SLIDE), open_source(DATA / "ome_zarr" / "CMU-1-Small-Region.ome.zarr")
    np.testing.assert_array_equal(whole(slide), whole(other).squeeze())
    assert slide.spacing == {"y": 0.499, "x": 0.499}
    assert set(slide.unit.values()) == {"micrometer"}
    assert slide.spec.key == "0/0"
    assert open_source(SLIDE, key="1").shape == (3, 768, 574), "its overview"


@needs_data
@pytest.mark.parametrize("path", sorted(DATA.glob("*/*.tif")), ids=lambda path: path.name)
def test_real_stacks(path: Path) -> None:
    np.testing.assert_array_equal(whole(open_source(path))[0], tifffile.imread(path))
