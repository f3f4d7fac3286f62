"""One image reads the same from every format: values, windows, pixel size; and a new format is a module and a line."""

from __future__ import annotations

import itertools
import pickle
import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import imagecodecs
import numpy as np
import pytest
import tifffile

from tests.written import SIZE, SIZED, WRITERS, noise, write_all
from unet_dask.errors import InputError
from unet_dask.info import describe
from unet_dask.io.source import formats
from unet_dask.io.source.pieces import WITHOUT
from unet_dask.io.source.protocol import Found
from unet_dask.io.source.volume import levels, open_source, read_window
from unet_dask.io.source.window import read_stamped, stamp_of
from unet_dask.spacing import known_spacing, metres

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.io.source.protocol import SourceSpec, Stored, Wanted
    from unet_dask.io.source.stamps import Look
    from unet_dask.io.source.volume import Source

IMAGE = noise((131, 170), "uint16")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("written"), IMAGE)


def whole(source: Source) -> NDArray[Any]:
    return source.read(tuple(slice(0, size) for size in source.shape))


@pytest.mark.parametrize("name", WRITERS)
def test_values_axes_and_pixel_size_are_the_same(written: dict[str, Path], name: str) -> None:
    source = open_source(written[name])
    assert (source.axes, source.shape, source.dtype) == ("cyx", (1, *IMAGE.shape), IMAGE.dtype)
    found = whole(source)
    assert found.flags.c_contiguous
    assert found.dtype.isnative
    np.testing.assert_array_equal(found[0], IMAGE)
    sizes, unit = known_spacing(source.spacing, source.unit, "yx")
    said = tuple(size * (metres(unit) or 0) * 1e6 for size in sizes or ())
    assert said == (pytest.approx((SIZE, SIZE)) if name in SIZED else ())


@pytest.mark.parametrize("name", WRITERS)
def test_any_window_in_any_process_is_a_part_of_the_whole(written: dict[str, Path], name: str) -> None:
    spec = pickle.loads(pickle.dumps(open_source(written[name]).spec))
    rng = np.random.default_rng(1)
    for _ in range(25):
        (top, bottom), (left, right) = (sorted(rng.integers(0, size + 1, 2).tolist()) for size in IMAGE.shape)
        found = read_window(spec, (slice(0, 1), slice(top, bottom), slice(left, right)), run="one")
        np.testing.assert_array_equal(found[0], IMAGE[top:bottom, left:right])


@pytest.mark.parametrize("name", WRITERS)
def test_a_stamp_is_of_the_files_and_an_identity_of_the_source(written: dict[str, Path], name: str) -> None:
    source = open_source(written[name])
    window = (slice(0, 1), slice(3, 50), slice(3, 50))
    assert read_stamped(source.spec, window)[1] == stamp_of(source.spec, window) != ""
    identity = source.identity()
    assert identity == open_source(written[name]).identity()
    assert {"source.url", "source.key", "source.metadata", "source.content"} <= identity.keys()


@pytest.mark.parametrize("name", ["ome4.ome.zarr", "ome5.ome.zarr", "pyramid.ome.tif"])
def test_coarser_levels_are_read_and_are_as_much_larger(written: dict[str, Path], name: str) -> None:
    finest, coarse = levels(open_source(written[name]))
    assert (finest.level, coarse.level) == (0, 1)
    np.testing.assert_array_equal(whole(coarse)[0], IMAGE[::2, ::2])
    assert coarse.spacing["x"] == pytest.approx(2 * finest.spacing["x"])
    again = open_source(written[name], key=coarse.spec.key)
    assert again.spec == coarse.spec, "as a result names it"
    np.testing.assert_array_equal(whole(open_source(written[name], level=1))[0], IMAGE[::2, ::2])


@pytest.mark.parametrize("name", WRITERS)
def test_info_describes_every_format(written: dict[str, Path], name: str) -> None:
    found = describe(written[name])
    assert (found["kind"], found["shape"], found["dtype"]) == ("image", list(IMAGE.shape), "uint16")


@pytest.mark.parametrize("name", [name for name in WRITERS if not name.endswith("zarr")])
def test_channels_and_axes_are_said_as_of_zarr(written: dict[str, Path], name: str) -> None:
    twice = open_source(written[name], channels=(0, 0))
    np.testing.assert_array_equal(whole(twice), np.stack([IMAGE, IMAGE]))
    turned = open_source(written[name], axes="xy")
    np.testing.assert_array_equal(whole(turned)[0], IMAGE.T)
    with pytest.raises(InputError, match="--axes zyx names 3 axes"):
        open_source(written[name], axes="zyx")
    with pytest.raises(InputError, match="Channels 1 were asked"):
        open_source(written[name], channels=(1,))


def test_a_folder_of_numbered_images_is_a_stack(tmp_path: Path) -> None:
    stack = noise((11, 40, 50), "uint16")
    for number, plane in enumerate(stack):
        path = tmp_path / f"slice_{number}.{'png' if number % 2 else 'tif'}"
        if number % 2:
            path.write_bytes(imagecodecs.png_encode(plane))
        else:
            tifffile.imwrite(path, plane)
    source = open_source(tmp_path)
    assert (source.axes, source.shape) == ("czyx", (1, *stack.shape))
    np.testing.assert_array_equal(whole(source)[0], stack)
    window = (slice(0, 1), slice(2, 9), slice(5, 30), slice(7, 50))
    values, stamp = read_stamped(source.spec, window)
    np.testing.assert_array_equal(values[0], stack[2:9, 5:30, 7:50])
    assert stamp == stamp_of(source.spec, window)
    assert describe(tmp_path)["format"].startswith("11 files")
    (tmp_path / "slice_10.tif").unlink()
    tifffile.imwrite(tmp_path / "slice_10.tif", stack[0, :20])
    with pytest.raises(InputError, match="so they are no planes of one stack"):
        open_source(tmp_path)


def test_images_without_numbers_are_no_stack(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, IMAGE)
    with pytest.raises(InputError, match="not numbered"):
        open_source(tmp_path)


class Ramp:
    """Values that count up from 0: the array of a format that has only a header."""

    unit = (8, 8)
    decoding = WITHOUT
    dtype = np.dtype("u1")

    def __init__(self, side: int) -> None:
        self.shape = (side, side)
        self.facts = {"chunks": [8, 8], "shards": None, "format": "a ramp"}

    def look(self, selection: tuple[slice, ...]) -> Look | None:
        return None

    def read(self, selection: tuple[slice, ...]) -> tuple[NDArray[Any], Look | None]:
        rows, columns = (np.arange(part.start, part.stop) for part in selection)
        return (rows[:, np.newaxis] + columns).astype(np.uint8), None

    def refuse(self, window: str, error: BaseException) -> NoReturn:
        raise InputError(window) from error


def toy_format() -> ModuleType:
    """Return the module of a format whose files say "ramp" and the length of a side."""

    def side(path: str) -> int:
        return int(Path(path).read_bytes().removeprefix(b"ramp"))

    def holds(path: Path) -> bool:
        return path.is_file() and path.read_bytes().startswith(b"ramp")

    def find(place: str, wanted: Wanted) -> Found:
        said = {
            "url": place,
            "key": "",
            "zarr_format": 0,
            "metadata": sha256(b"ramp").hexdigest(),
            "written": 0,
        }
        return Found(
            **said,  # type: ignore[arg-type] # of several types
            axes="yx",
            origin="a ramp",
            stored=Ramp(side(place)),
            name="ramp",
            shown=place,
        )

    def opened(spec: SourceSpec, *, keep: bool) -> Stored:
        return Ramp(side(spec.url))

    made = ModuleType("toy")
    made.__dict__.update(SUFFIXES=(".ramp",), holds=holds, find=find, opened=opened)
    made.__dict__.update(digest=lambda spec: "none", levels=lambda spec: [])
    return made


def test_a_new_format_is_a_module_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "toy", toy_format())
    monkeypatch.setitem(formats.FORMATS, "toy", "toy")
    (tmp_path / "a.ramp").write_bytes(b"ramp20")
    source = open_source(tmp_path / "a.ramp")
    expected = np.add.outer(np.arange(20), np.arange(20))
    np.testing.assert_array_equal(whole(source)[0], expected)
    np.testing.assert_array_equal(source.read((slice(0, 1), slice(4, 9), slice(1, 3)))[0], expected[4:9, 1:3])
    assert source.identity()["source.content"] == "none"
    assert describe(tmp_path / "a.ramp")["format"] == "a ramp"
    assert formats.stem("a.ramp") == "a"


def test_every_format_is_found_by_what_lies_there_and_not_by_its_name(tmp_path: Path) -> None:
    for number, (name, write) in enumerate(itertools.islice(WRITERS.items(), 3, None)):
        path = write(tmp_path / f"{number}.dat", IMAGE)
        np.testing.assert_array_equal(whole(open_source(path))[0], IMAGE, err_msg=name)
