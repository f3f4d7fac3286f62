"""Pictures as sources: all of their bits, no alpha, and one line for what is damaged."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import imagecodecs
import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from tests.written import noise
from unet_dask.errors import DataError, InputError
from unet_dask.io.source.headers import jpeg_is_whole, png_shape
from unet_dask.io.source.stamps import ChangedError
from unet_dask.io.source.volume import open_source
from unet_dask.io.source.window import read_stamped, stamp_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.io.source.volume import Source

COLOUR = noise((40, 56, 4))
GREY = noise((40, 56))
CORNER = (slice(0, 1), slice(0, 20), slice(0, 20))


def whole(source: Source) -> NDArray[Any]:
    return source.read(tuple(slice(0, size) for size in source.shape))


KINDS: dict[str, tuple[Callable[[], Image.Image], dict[str, Any], str]] = {
    "grey.png": (lambda: Image.fromarray(GREY), {}, "L"),
    "alpha.png": (lambda: Image.fromarray(COLOUR), {}, "RGB"),
    "colour.png": (lambda: Image.fromarray(COLOUR[..., :3]), {}, "RGB"),
    "grey-alpha.png": (lambda: Image.fromarray(COLOUR[..., :2], mode=None), {}, "L"),
    "palette.png": (lambda: Image.fromarray(COLOUR[..., :3]).convert("P"), {}, "RGB"),
    "palette-alpha.png": (lambda: Image.fromarray(COLOUR[..., :3]).convert("P"), {"transparency": 3}, "RGB"),
    "bits.png": (lambda: Image.fromarray(GREY > 128), {}, "L"),
    "colour.jpg": (lambda: Image.fromarray(COLOUR[..., :3]), {}, "RGB"),
    "progressive.jpg": (lambda: Image.fromarray(COLOUR[..., :3]), {"progressive": True}, "RGB"),
    "grey.jpg": (lambda: Image.fromarray(GREY), {}, "L"),
}


@pytest.mark.parametrize("name", KINDS)
def test_values_are_those_of_another_reader(name: str, tmp_path: Path) -> None:
    make, how, mode = KINDS[name]
    make().save(tmp_path / name, **how)
    with Image.open(tmp_path / name) as file:
        expected = np.asarray(file.convert(mode))
    expected = np.moveaxis(expected, -1, 0) if mode == "RGB" else expected[np.newaxis]
    source = open_source(tmp_path / name)
    np.testing.assert_array_equal(whole(source), expected)
    window = (slice(0, 1), slice(3, 30), slice(7, 9))
    np.testing.assert_array_equal(source.read(window), expected[window])


def test_sixteen_bits_stay_sixteen(tmp_path: Path) -> None:
    values = noise((40, 56), "uint16") * 250
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(values))
    np.testing.assert_array_equal(whole(open_source(tmp_path / "a.png"))[0], values)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_picture_that_is_cut_short_is_one_line(name: str, tmp_path: Path) -> None:
    iio.imwrite(tmp_path / name, noise((200, 200)))
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    source = open_source(tmp_path / name)
    with pytest.raises(DataError, match="the file is damaged or was cut short") as caught:
        source.read(CORNER)
    assert "\n" not in str(caught.value)
    (tmp_path / name).write_bytes(content[:20])
    with pytest.raises(InputError):
        open_source(tmp_path / name)


def test_the_end_of_a_preview_is_not_the_end_of_a_jpeg() -> None:
    content = bytes(imagecodecs.jpeg8_encode(noise((64, 64))))
    preview = b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content
    with_preview = content[:2] + preview + content[2:]
    assert jpeg_is_whole(content)
    assert jpeg_is_whole(with_preview)
    assert not jpeg_is_whole(with_preview[:-100])
    assert not jpeg_is_whole(b"")


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(GREY))
    content = bytearray((tmp_path / "a.png").read_bytes())
    assert png_shape(bytes(content)) == (40, 56, 1, 8)
    content[16:24] = (60000).to_bytes(4, "big") * 2
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=r"3\.4 GiB in memory, more than the 2 GiB.*tiled TIFF or as Zarr"):
        open_source(tmp_path / "a.png")


def test_a_picture_has_neither_key_nor_level(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(GREY))
    for asked in ({"key": "0"}, {"level": 0}):
        with pytest.raises(InputError, match=r"is a single picture\. Leave it out"):
            open_source(tmp_path / "a.png", **asked)


def test_colours_of_print_are_refused(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="4 colour components, as in print"):
        open_source(tmp_path / "a.jpg")


def test_a_picture_that_is_changed_is_not_read_on(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(GREY))
    spec = open_source(path).spec
    stamp = read_stamped(spec, CORNER)[1]
    shutil.copy2(path, tmp_path / "kept.png")
    path.write_bytes(imagecodecs.png_encode(GREY[::-1].copy()))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    with pytest.raises(ChangedError, match="was changed since it was opened"):
        read_stamped(spec, CORNER)
    assert stamp_of(spec, CORNER) != stamp
    shutil.copy2(tmp_path / "kept.png", path)
    assert read_stamped(spec, CORNER)[1] == stamp
