"""The page tells of an object what its row in the table says, and finds one by its number."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import unet_dask
from tests.measuring.results import blobs, relabelled, save_image, segmented
from tests.viewer.test_view import ask, serve
from unet_dask.measuring import one

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.viewer.server import Server
    from unet_dask.workers.cluster import Cluster

CORNER = (1, 10, 20)


@pytest.fixture(scope="module")
def labels() -> NDArray[Any]:
    """Return objects of planes, two of which have lost the voxel that their number says."""
    found = blobs((2, 300, 260), 2, share=0.4)
    for number in np.unique(found)[[5, 9]]:
        found.reshape(-1)[number - 1] = 0
    return found


@pytest.fixture(scope="module")
def sink(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, cluster: Cluster, labels: NDArray[Any]
) -> Path:
    folder = tmp_path_factory.mktemp("seen")
    image = np.random.default_rng(0).integers(0, 4000, (3, 320, 290)).astype(np.uint16)
    save_image(folder / "s.zarr", image, "zyx")
    made = segmented(
        folder / "s.zarr", folder / "r.zarr", tiny_model, cluster, roi="1:3,10:310,20:280", chunks=(1, 64, 64)
    )
    return relabelled(made, labels)


@pytest.fixture(scope="module")
def server(sink: Path) -> Iterator[Server]:
    yield from serve(sink)


def told(server: Server, at: tuple[int, ...]) -> Any:
    """Return what is told of a voxel of the label image."""
    z, y, x = (place + corner for place, corner in zip(at, CORNER, strict=True))
    return ask(server, f"/object.json?z={z}&y={y}&x={x}").json


def test_object_under_the_pointer_has_its_row(server: Server, sink: Path, labels: NDArray[Any]) -> None:
    table: Any = unet_dask.measure(sink).columns
    for row in (0, 7, len(table["label"]) // 2, -1):
        number = table["label"][row]
        found = told(server, tuple(np.argwhere(labels == number)[-1].tolist()))
        assert found["object"] == f"{number}, class 1"
        assert found["area"] == f"{table['area'][row]} pixels, {table['area_um2'][row]:.4g} um2"
        assert found["centroid"] == f"y {table['centroid-y'][row]:.1f}, x {table['centroid-x'][row]:.1f}"
        assert found["centroid in um"].startswith(f"y {table['centroid_um-y'][row]:.1f}")
        assert found["intensity mean"] == f"{table['intensity_mean'][row]:.4g}"
        assert ("border" in found) == table["touches_border"][row]


def test_background_is_no_object_and_a_large_one_is_not_measured(
    server: Server, labels: NDArray[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told(server, tuple(np.argwhere(labels == 0)[0].tolist())) == {}
    monkeypatch.setattr(one, "MOST_AROUND", 100)
    at = np.argwhere(labels > 0)[0]
    assert told(server, tuple(at.tolist()))["object"] == f"{labels[tuple(at)]}, too large to be measured here"


def test_box_around_a_place_grows_until_the_object_is_whole(
    server: Server, labels: NDArray[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = np.bincount(labels.ravel())[1:].argmax() + 1
    at = tuple(np.argwhere(labels == largest)[0].tolist())
    once = told(server, at)
    monkeypatch.setattr(one, "_FIRST", {2: 1})
    assert told(server, at) == once


def test_object_is_found_by_its_number(
    server: Server, labels: NDArray[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = np.unique(labels)[1:]
    for number in (numbers[0], numbers[4], numbers[8], numbers[-1]):
        voxel = ask(server, f"/object.json?number={number}").json
        at = tuple(voxel[axis] - corner for axis, corner in zip("zyx", CORNER, strict=True))
        assert labels[at] == number
    for absent in (0, int(numbers[-1]) + 1, 10**18):
        assert ask(server, f"/object.json?number={absent}").status == 404
    assert ask(server, "/object.json?number=-1").status == 404
    monkeypatch.setattr(one, "MOST_SOUGHT", 10)
    assert ask(server, f"/object.json?number={numbers[4]}").status == 404
    assert ask(server, f"/object.json?number={numbers[0]}").status == 200


def test_outlines_are_the_pixels_beside_another_value(server: Server, labels: NDArray[Any]) -> None:
    tile = ask(server, "/tile/instances/outlines/1/0/0.png?z=1").pixels
    plane = labels[0, :256, :256]
    edge = np.zeros(plane.shape, bool)
    for axis in (0, 1):
        for by in (1, -1):
            other = np.roll(plane, by, axis)
            last = tuple((0 if by == 1 else -1) if place == axis else slice(None) for place in (0, 1))
            other[last] = plane[last]
            edge |= plane != other
    assert np.array_equal(tile[..., 3] > 0, edge & (plane > 0))
    assert ask(server, "/scene.json").json["objects"] == "instances"


def test_unfinished_result_has_no_objects(sink: Path, tmp_path: Path) -> None:
    shutil.copytree(sink, tmp_path / "r.zarr")
    (tmp_path / "r.zarr" / "_unet_dask" / "ledger.jsonl").unlink()
    serving = serve(tmp_path / "r.zarr")
    server = next(serving)
    assert ask(server, "/scene.json").json["objects"] is None
    assert ask(server, "/object.json?number=1").status == 404
    assert ask(server, "/object.json?z=1&y=20&x=30").json == {}
    next(serving, None)
