"""Pictures say how many objects a result has and how large they are; the part with most in it is drawn larger."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import imageio.v3 as iio
import numpy as np
import pytest

import unet_dask
from tests.measuring.results import blobs, relabelled, save_image, segmented, stored
from unet_dask.io.source.received import Consent
from unet_dask.measuring import sizes
from unet_dask.picture import plane
from unet_dask.picture.preview import detail, drawn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Outcome
    from unet_dask.workers.cluster import Cluster


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, cluster: Cluster) -> Path:
    folder = tmp_path_factory.mktemp("sizes")
    image = np.random.default_rng(0).integers(0, 4000, (200, 260)).astype(np.uint16)
    save_image(folder / "s.zarr", image, "yx")
    made = segmented(folder / "s.zarr", folder / "r.zarr", tiny_model, cluster, roi="10:190,20:260")
    labels = blobs((180, 240), 2)
    classes = (labels > 0).astype(np.uint8)
    classes[100:150, 180:230] = 1
    return relabelled(made, labels, classes)


def test_histogram_holds_every_object_of_the_table(sink: Path) -> None:
    found = sizes.sizes_of(str(sink), Consent())
    assert found is not None
    table: Any = unet_dask.measure(sink).columns
    edges, counts = found.bars()
    assert counts.sum() == len(table["label"]) == found.measured.objects
    assert edges[0] == table["area_um2"].min()
    assert edges[-1] > table["area_um2"].max()
    wanted, _ = np.histogram(table["area_um2"], edges)
    assert np.array_equal(counts, wanted)
    assert found.title == f"{len(table['label'])} objects, median {np.median(table['area_um2']):.4g} um2"
    assert "per mm2 of the image" in found.text


def test_picture_has_a_panel_of_sizes(sink: Path, tmp_path: Path, call_cli: Callable[..., Outcome]) -> None:
    figure, shown = drawn(str(sink))
    last = figure.axes[-1]
    assert shown["objects"].startswith(last.get_title())
    assert sum(patch.get_data().values.sum() for patch in last.patches) == unet_dask.measure(sink).objects  # type: ignore[attr-defined] # of stairs
    outcome = call_cli("preview", sink, "-o", tmp_path / "p.png", "--json")
    assert json.loads(outcome.stdout)["objects"] == shown["objects"]
    # Every pixel that was read has one of its own in the picture, of three panels of pixels beside that of sizes.
    assert iio.imread(tmp_path / "p.png").shape[1] >= 4 * 240


def test_objects_are_not_counted_where_they_are_not_known_or_too_many(
    sink: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(sink, tmp_path / "r.zarr")
    (tmp_path / "r.zarr" / "_unet_dask" / "ledger.jsonl").unlink()
    assert drawn(str(tmp_path / "r.zarr"))[1]["objects"] == ""
    monkeypatch.setattr(sizes, "MOST_COUNTED", 180 * 240 - 1)
    assert drawn(str(sink))[1]["objects"] == ""


def test_damaged_objects_are_noted(sink: Path, tmp_path: Path) -> None:
    shutil.copytree(sink, tmp_path / "r.zarr")
    relabelled(tmp_path / "r.zarr", np.full_like(stored(sink, "instances"), np.iinfo(np.uint32).max))
    shown = drawn(str(tmp_path / "r.zarr"))[1]
    assert shown["objects"] == ""
    assert "objects are not counted: " in shown["notes"][-1]


def test_result_without_objects_says_so(sink: Path, tmp_path: Path) -> None:
    shutil.copytree(sink, tmp_path / "r.zarr")
    relabelled(tmp_path / "r.zarr", np.zeros_like(stored(sink, "instances")))
    assert drawn(str(tmp_path / "r.zarr"))[1]["objects"].startswith("0 objects")


def test_detail_is_the_part_with_most_in_it(sink: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert detail(str(sink)) is None  # all is drawn at full size
    monkeypatch.setattr(plane, "SIDE", 128)
    monkeypatch.setattr("unet_dask.picture.preview._DETAIL", 50)
    part = detail(str(sink))
    assert part is not None
    (top, bottom), (left, right) = (map(int, span.split(":")) for span in part.split(","))
    assert abs(top - 110) <= 4
    assert abs(left - 200) <= 4
    assert (bottom - top, right - left) == (50, 50)
    _, shown = drawn(str(sink), roi=part, counted=False)
    assert (shown["step"], shown["objects"]) == (1, "")
