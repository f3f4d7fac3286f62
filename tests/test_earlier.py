"""Results of an earlier version are read, verified, shown and gone on with.

`earlier/stores.tar.xz` was written by commit 74c9657, before products had classes of their own: one result that is
complete, one in shards with probabilities of 8 bits, and two that were interrupted, while regions were computed and
while objects were joined. The weights of its model are 0 and 1 but for the last layer's, so that the logits are whole
numbers on any processor, and an image of 0, 64 and 128 is segmented into the classes 0, 1 and 2.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from unet_dask import segment_store
from unet_dask.evaluation.evaluate import EvaluateConfig, evaluate
from unet_dask.info import describe
from unet_dask.io.sink import place as places
from unet_dask.io.source.received import Consent
from unet_dask.io.source.volume import open_source
from unet_dask.picture.preview import preview
from unet_dask.verify.store import verify_store
from unet_dask.viewer.scene import Scene, Where
from unet_dask.workers.preflight import installed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.workers.cluster import Cluster

ARCHIVE = Path(__file__).parent / "earlier" / "stores.tar.xz"
COMPLETE = ("complete", "sharded")
UNFINISHED = ("regions", "objects")
#: Those that the results were made with.
SETTINGS: dict[str, Any] = {
    "products": "classes,instances,probabilities",
    "memory": 1 << 30,
    "tile": (48, 40),
    "region": (96, 40),
    "chunks": (32, 40),
}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the results, their source and their model."""
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def classes_of(source: Path) -> NDArray[np.uint8]:
    """Return what the model says of the image: its weights were set so by hand."""
    return np.asarray(zarr.open_array(source, mode="r")[...]) // np.uint8(64)


def finest(sink: Path, product: str) -> NDArray[Any]:
    return np.asarray(zarr.open_array(sink, path=f"{product}/0", mode="r")[...])


def moved(sink: Path, source: Path) -> None:
    """Let a result say that it was begun here, with these packages: it was packed elsewhere."""
    document = sink / places.RUN_FOLDER / "zarr.json"
    node = json.loads(document.read_bytes())
    manifest = node["attributes"][places.MARK]
    versions = installed()
    manifest["fingerprint"] |= {
        "source.url": open_source(source).identity()["source.url"],
        "software.unet-dask": versions["unet-dask"],
        "software.torch": versions["torch"],
    }
    node["attributes"][places.MARK] = places.sealed(manifest)
    document.write_text(json.dumps(node))


@pytest.mark.parametrize("name", COMPLETE)
def test_result_is_verified(earlier: Path, name: str) -> None:
    found = verify_store(
        earlier / f"{name}.zarr", earlier / "exact.safetensors", source=earlier / "image.zarr"
    )
    assert (found.findings, found.crops) == ((), 4)


@pytest.mark.parametrize("name", COMPLETE)
def test_result_is_read(earlier: Path, name: str) -> None:
    sink = earlier / f"{name}.zarr"
    classes = classes_of(earlier / "image.zarr")
    told = describe(sink)
    assert (told["complete"], [product["name"] for product in told["products"]]) == (
        True,
        ["classes", "instances", "probabilities"],
    )
    assert np.array_equal(finest(sink, "classes"), classes)
    assert np.array_equal(finest(sink, "instances") > 0, classes > 0)
    assert np.array_equal(finest(sink, "probabilities").argmax(axis=0), classes)
    scores = evaluate(sink, earlier / "image.zarr", EvaluateConfig(metrics=("pixel",), product="classes"))
    assert [score.value for score in scores.scores if score.name == "pixel"] == [0.0]


@pytest.mark.parametrize("name", COMPLETE)
def test_result_is_shown(earlier: Path, name: str, tmp_path: Path) -> None:
    sink, consent = earlier / f"{name}.zarr", Consent(str(earlier / "image.zarr"))
    scene = Scene(str(sink), consent)
    layers = {layer["name"]: layer["choices"] for layer in scene.describe()["layers"]}
    assert list(layers) == ["source", "probabilities", "classes", "instances", "unwritten"]
    for layer, choices in layers.items():
        pixels = scene.tile(layer, choices[0][0], Where(1, 0, 0), None)
        assert pixels.shape == (256, 40, 4)
    told = scene.voxel(0, 0)
    number = int(classes_of(earlier / "image.zarr")[0, 0])
    assert told["classes"] == f"{number} {('background', 'membrane', 'cell')[number]}"
    assert preview(sink, tmp_path / "p.png", source=consent).unwritten == 0


@pytest.mark.parametrize("name", UNFINISHED)
def test_unfinished_run_is_gone_on_with(earlier: Path, name: str, cluster: Cluster, tmp_path: Path) -> None:
    sink, source, model = (earlier / file for file in (f"{name}.zarr", "image.zarr", "exact.safetensors"))
    assert not describe(sink)["complete"]
    moved(sink, source)
    segment_store(source, sink, model, resume=True, client=cluster.client, **SETTINGS)
    for product in ("classes", "instances"):
        assert np.array_equal(finest(sink, product), finest(earlier / "complete.zarr", product))
    here, before = (finest(place, "probabilities") for place in (sink, earlier / "complete.zarr"))
    np.testing.assert_allclose(here, before, rtol=0, atol=1e-6)
    found = verify_store(sink, model)
    assert (found.findings, found.crops) == ((), 4)
