"""OME-Zarr, as written by others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr

from unet_dask.errors import InputError
from unet_dask.io.source.volume import Source, open_source

REAL = Path(__file__).resolve().parents[4] / "shared" / "data"
SLIDE = REAL / "ome_zarr" / "CMU-1-Small-Region.ome.zarr"
STACK = REAL / "ome_zarr" / "isbi2012_z00-z09_v0.5.ome.zarr"
real = pytest.mark.skipif(not STACK.exists(), reason="the shared real images are not here")


def whole(source: Source) -> Any:
    return source.read(tuple(slice(0, size) for size in source.shape))


@real
def test_bioformats2raw_collection_opens_at_its_first_image() -> None:
    source = open_source(SLIDE)
    assert (source.spec.key, source.axes, source.shape) == ("0/0", "tczyx", (1, 3, 1, 2967, 2220))
    assert (source.level, source.origin_of_axes) == (0, "OME-Zarr metadata")
    assert source.spacing == {"t": 1.0, "z": 1.0, "y": 0.499, "x": 0.499}
    assert source.unit == {"t": None, "z": None, "y": "micrometer", "x": "micrometer"}


@real
def test_key_chooses_another_image_of_a_collection() -> None:
    assert open_source(SLIDE, key="1").spec.key == "1/0"


@real
def test_pixels_of_04_equal_zarrs_own() -> None:
    window = (slice(0, 1), slice(1, 3), slice(0, 1), slice(1000, 1100), slice(1000, 1100))
    expected = zarr.open_array(str(SLIDE), path="0/0", mode="r")[0:1, 1:3, 0:1, 1000:1100, 1000:1100]
    assert np.array_equal(open_source(SLIDE).read(window), expected)


@real
@pytest.mark.parametrize(("level", "shape"), [(0, (1, 10, 512, 512)), (2, (1, 10, 128, 128))])
def test_level_of_05(level: int, shape: tuple[int, ...]) -> None:
    source = open_source(STACK, level=level)
    assert (source.shape, source.level, source.axes) == (shape, level, "czyx")
    assert source.spacing == {"z": 50.0, "y": 4.0 * 2**level, "x": 4.0 * 2**level}
    assert source.translation == {"z": 0.0, "y": 2.0 * (2**level - 1), "x": 2.0 * (2**level - 1)}
    assert set(source.unit.values()) == {"nanometer"}
    assert source.name == "isbi2012 train-volume z00-z09"


@real
def test_pixels_of_05_equal_the_tiff_they_were_made_of() -> None:
    tifffile = pytest.importorskip("tifffile")
    truth = tifffile.imread(REAL / "isbi2012" / "train-volume.tif")[:10]
    assert np.array_equal(whole(open_source(STACK))[0], truth)


@real
def test_array_named_directly_knows_its_image() -> None:
    source = open_source(STACK / "s1")
    assert (source.level, source.spacing["x"], source.origin_of_axes) == (1, 8.0, "OME-Zarr metadata")


@real
def test_labels_group_names_its_children() -> None:
    with pytest.raises(InputError, match=r"group of labels.*labels/cells"):
        open_source(STACK, key="labels")


@real
def test_label_image_opens_by_key() -> None:
    assert open_source(STACK, key="labels/cells").spec.key == "labels/cells/s0"


def image(
    path: Path, shape: tuple[int, ...], *, axes: list[Any] | None, zarr_format: Literal[2, 3] = 2, **more: Any
) -> None:
    entry: dict[str, Any] = {"version": "0.4", "datasets": [{"path": "0"}]}
    entry |= {"axes": axes} if axes is not None else {}
    group = zarr.open_group(
        str(path), mode="w", zarr_format=zarr_format, attributes={"multiscales": [entry | more]}
    )
    group.create_array("0", shape=shape, dtype="u1")


@pytest.mark.parametrize(
    ("axes", "shape", "expected"),
    [
        pytest.param(None, (1, 2, 3, 8, 8), "tczyx", id="0.1-without-axes"),
        pytest.param(["z", "y", "x"], (3, 8, 8), "zyx", id="0.3-strings"),
        pytest.param(
            [{"name": "stain", "type": "channel"}, {"name": "y"}, {"name": "x"}],
            (2, 8, 8),
            "cyx",
            id="by-type",
        ),
        pytest.param([{"name": n} for n in ("Y", "X")], (8, 8), "yx", id="upper-case"),
    ],
)
def test_axes_of_old_and_odd_versions(
    tmp_path: Path, axes: list[Any] | None, shape: tuple[int, ...], expected: str
) -> None:
    image(tmp_path / "a.zarr", shape, axes=axes)
    assert open_source(tmp_path / "a.zarr").spec.axes == expected


def test_axes_that_are_not_ours_are_asked_for(tmp_path: Path) -> None:
    image(tmp_path / "a.zarr", (2, 3, 8, 8), axes=[{"name": n} for n in ("angle", "z", "y", "x")])
    with pytest.raises(InputError, match=r"does not say what they are.*--axes"):
        open_source(tmp_path / "a.zarr")


def test_transformations_compose_in_order(tmp_path: Path) -> None:
    inner = [{"type": "scale", "scale": [2, 3]}, {"type": "translation", "translation": [10, 20]}]
    outer = [{"type": "scale", "scale": [5, 7]}]
    datasets = [{"path": "0", "coordinateTransformations": inner}]
    axes = [{"name": "y", "unit": "micrometer"}, {"name": "x"}]
    image(tmp_path / "a.zarr", (8, 8), axes=axes, datasets=datasets, coordinateTransformations=outer)
    source = open_source(tmp_path / "a.zarr")
    assert source.spacing == {"y": 10.0, "x": 21.0}
    assert source.translation == {"y": 50.0, "x": 140.0}
    assert source.unit == {"y": "micrometer", "x": None}


def test_axes_given_keep_the_spacing_by_position(tmp_path: Path) -> None:
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [9, 2, 3]}]}]
    image(tmp_path / "a.zarr", (3, 8, 8), axes=[{"name": n} for n in "zyx"], datasets=datasets)
    source = open_source(tmp_path / "a.zarr", axes="cxy")
    assert (source.spacing, source.origin_of_axes) == ({"x": 2.0, "y": 3.0}, "--axes")


def test_only_image_in_a_group_is_found(tmp_path: Path) -> None:
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    image(tmp_path / "a.zarr" / "cells", (8, 8), axes=["y", "x"])
    assert open_source(tmp_path / "a.zarr").spec.key == "cells/0"


def test_name_of_the_image_is_one_line(tmp_path: Path) -> None:
    image(tmp_path / "a.zarr", (8, 8), axes=["y", "x"], name="two\nlines")
    assert open_source(tmp_path / "a.zarr").name == "two lines"
