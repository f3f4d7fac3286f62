"""Every command calls a file by the same name, and a path is read by one rule."""

from __future__ import annotations

import pickle
import zipfile
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pytest
import tifffile

from unet_dask.errors import UnetDaskError
from unet_dask.info import describe
from unet_dask.io.images.picture import read_picture
from unet_dask.io.source.volume import open_source
from unet_dask.kinds import kind_of
from unet_dask.model.file import load_model
from unet_dask.paths import local_path
from unet_dask.spacing import contradiction, known_spacing

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    "a NIfTI image": b"\x5c\x01\0\0" + bytes(340) + b"n+1\0" + bytes(100),
    "a DICOM image": bytes(128) + b"DICM" + bytes(20),
    "an NRRD image": b"NRRD0004\n# a comment\n",
    "a Nikon ND2 image": b"\xda\xce\xbe\x0a" + bytes(60),
    "a Zeiss CZI image": b"ZISRAWFILE" + bytes(60),
    "a gzip archive": b"\x1f\x8b\x08" + bytes(20),
    "a PDF document": b"%PDF-1.7\n",
    "a text file": "y,x\nµ,2\n".encode(),
    "a reference store of kerchunk": b'{"version": 1, "refs": {".zgroup": "{}"}}',
    "a binary file of unknown kind": b"words and then\0\0\0a zero",
    "an empty file": b"",
    "a pickle, such as an old PyTorch checkpoint": pickle.dumps({"weight": 1}),
}


@pytest.mark.parametrize(("kind", "content"), FILES.items(), ids=FILES)
def test_all_say_the_same_kind(kind: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(content)
    assert kind_of(path).name == kind
    for command in (describe, open_source, load_model, lambda place: read_picture(str(place))):
        with pytest.raises(UnetDaskError, match=kind.replace("(", r"\(")) as caught:
            command(path)
        said = str(caught.value)
        assert "\n" not in said
        assert ("ickle" in said) == ("pickle" in kind)


@pytest.mark.parametrize(("name", "kind"), [("a.mrxs", "a MIRAX slide"), ("A.VSI", "an Olympus VSI slide")])
def test_the_small_picture_of_a_slide_is_not_taken_for_the_slide(
    name: str, kind: str, tmp_path: Path
) -> None:
    values = np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)
    if name == "a.mrxs":
        (tmp_path / name).write_bytes(imagecodecs.jpeg_encode(values))
    else:
        tifffile.imwrite(tmp_path / name, values, photometric="rgb")
    for command in (describe, open_source, lambda place: read_picture(str(place))):
        with pytest.raises(UnetDaskError, match=rf"{kind}.*") as caught:
            command(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UnetDaskError, match="the folder beside it with bioformats2raw"):
        open_source(tmp_path / name)
    (tmp_path / name).rename(tmp_path / "a.dat")
    assert open_source(tmp_path / "a.dat").shape[-2:] == (64, 80)


def test_archives_are_told_apart(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
        file.writestr("archive/data.pkl", b"")
    assert kind_of(tmp_path / "a.npz").name == "a NumPy archive (.npz)"
    assert kind_of(tmp_path / "a.pt").pickled


def test_home_and_file_urls_are_one_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in ("~/a.zarr", "file://~/a.zarr", f"file://{tmp_path}/a.zarr", f"file:{tmp_path}/a.zarr"):
        assert local_path(place) == tmp_path / "a.zarr"
    monkeypatch.chdir(tmp_path)
    assert local_path("./~") == local_path(local_path("./~")) == tmp_path / "~"
    assert local_path("~nobody-of-this-name/a").name == "a"


def test_units_are_compared_however_they_are_spelled() -> None:
    assert contradiction((0.2, 0.2), "microns", (200, 200), "nanometre") is None
    assert contradiction((0.2, 0.2), "\u00b5m", (0.2, 0.5), "\N{GREEK SMALL LETTER MU}m") == 2.5
    assert contradiction((2, 0.2, 0.2), "um", (0.1, 0.1), "micrometer") == 0.5
    assert contradiction((1.0,), None, (5.0,), "um") is contradiction(None, "um", (5.0,), "um") is None
    assert known_spacing({"y": 1.0, "x": 1.0}, {"y": None, "x": None}, "yx") == (None, None)
    sizes, unit = known_spacing({"y": 1.0, "x": 500.0}, {"y": "um", "x": "nm"}, "yx")
    assert sizes == pytest.approx((1000, 500))
    assert unit == "nanometer"
