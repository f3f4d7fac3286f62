"""Zarr in a zip archive is read by its name alone: the archive itself, or a folder in it; a change of it is seen."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr

from tests.written import SIZE, WRITERS, noise
from unet_dask.errors import DataError, InputError
from unet_dask.io.source.formats import stem
from unet_dask.io.source.received import Consent
from unet_dask.io.source.volume import levels, open_source, read_window
from unet_dask.io.source.window import read_stamped, stamp_of

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = noise((90, 110), "uint16")
WINDOW = (slice(0, 1), slice(7, 80), slice(3, 101))


def packed(folder: Path, name: str, *, below: str = "", method: int = zipfile.ZIP_STORED) -> Path:
    """Return an archive of an OME-Zarr image, its root or a folder in it."""
    store = WRITERS["ome5.ome.zarr"](folder / "image.ome.zarr", IMAGE)
    with zipfile.ZipFile(folder / name, "w", method) as archive:
        for file in sorted(each for each in store.rglob("*") if each.is_file()):
            archive.write(file, f"{below}{file.relative_to(store).as_posix()}")
    shutil.rmtree(store)
    return folder / name


@pytest.mark.parametrize(
    ("name", "below", "method"),
    [
        ("a.zip", "", zipfile.ZIP_STORED),
        ("a.ozx", "", zipfile.ZIP_STORED),
        ("a.ome.zarr.zip", "a.ome.zarr/", zipfile.ZIP_DEFLATED),
    ],
)
def test_an_archive_is_read_as_the_store_in_it(tmp_path: Path, name: str, below: str, method: int) -> None:
    path = packed(tmp_path, name, below=below, method=method)
    source = open_source(path)
    assert (source.shape, source.spacing, stem(path.name)) == ((1, *IMAGE.shape), {"y": SIZE, "x": SIZE}, "a")
    spec = pickle.loads(pickle.dumps(source.spec))
    values, found = read_stamped(spec, WINDOW)
    np.testing.assert_array_equal(values[0], IMAGE[7:80, 3:101])
    assert found == stamp_of(spec, WINDOW) != ""
    coarse = open_source(path, level=1)
    assert coarse.spacing["x"] == 2 * SIZE
    np.testing.assert_array_equal(
        read_window(coarse.spec, (slice(0, 1), slice(0, 45), slice(0, 55)))[0], IMAGE[::2, ::2]
    )
    assert len(list(levels(source))) == 2
    np.testing.assert_array_equal(
        read_window(open_source(path / "1").spec, (slice(0, 1), slice(0, 9), slice(0, 9)))[0],
        IMAGE[:18:2, :18:2],
    )
    Consent().require(spec.url, "source")  # it lies on this machine


def test_an_archive_that_was_replaced_is_not_read(tmp_path: Path) -> None:
    path = packed(tmp_path, "a.zip")
    source = open_source(path)
    before = source.identity()
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 10**9))
    assert open_source(path).identity()["source.content"] != before["source.content"]
    with pytest.raises(DataError, match="replaced"):
        read_window(source.spec, WINDOW, run="another")


def test_several_stores_in_an_archive_are_listed(tmp_path: Path) -> None:
    with zarr.storage.ZipStore(tmp_path / "a.zip", mode="w") as store:
        for name in ("one.zarr", "two.zarr"):
            zarr.create_array(store, name=name, shape=(8, 9), dtype="uint8")[...] = 3
    with zipfile.ZipFile(tmp_path / "a.zip") as whole, zipfile.ZipFile(tmp_path / "b.zip", "w") as cut:
        for entry in whole.infolist():
            if "/" in entry.filename:
                cut.writestr(entry.filename, whole.read(entry))
    with pytest.raises(InputError, match=r"holds 2 Zarr stores: one.zarr, two.zarr. Name one as b.zip/NAME"):
        open_source(tmp_path / "b.zip")
    assert open_source(tmp_path / "b.zip" / "two.zarr").shape == (1, 8, 9)


def test_an_archive_without_a_store_is_one_line(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(InputError, match=r"a zip archive and no Zarr store\. It has no zarr.json"):
        open_source(tmp_path / "a.zip")
