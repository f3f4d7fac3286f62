"""A sound result of any kind gives no finding, and has no seams; one with seams is found."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

import unet_dask
from tests.conftest import requires_onednn_bfloat16
from tests.oracle import write_array
from tests.verify.test_verify import found, segmented
from unet_dask.verify.stored import open_stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unet_dask.workers.cluster import Cluster

CLEAN: list[tuple[tuple[int, ...], str, dict[str, Any]]] = [
    ((96, 80), "yx", {}),
    ((70, 200), "yx", {"products": "classes,probabilities", "tta": "flips"}),
    ((90, 150), "yx", {"products": "probabilities", "probability_dtype": "uint8", "roi": "7:85,13:150"}),
    ((3, 80, 90), "zyx", {"chunks": (1, 32, 32), "products": "classes,probabilities"}),
    ((40, 50, 60), "zyx", {"dims": 3, "region": (32, 32, 32), "tile": (16, 16, 32), "chunks": (16, 16, 16)}),
    ((5, 5), "yx", {}),
    ((1, 100, 600), "zyx", {"kind": "volume", "chunks": (1, 64, 64)}),
    ((0, 40), "yx", {}),
]


@pytest.mark.parametrize(
    ("shape", "axes", "settings"),
    CLEAN,
    ids=["2-D", "float32", "uint8 roi", "slices", "3-D", "tiny", "volume", "no voxels"],
)
def test_sound_result_has_no_finding(
    shape: tuple[int, ...],
    axes: str,
    settings: dict[str, Any],
    tmp_path: Path,
    make_model: Callable[..., Path],
    make_source: Callable[..., Path],
    cluster: Cluster,
    hash_tree: Callable[[Path], str],
) -> None:
    settings = dict(settings)
    model = make_model(
        tmp_path / "m.safetensors", dims=settings.pop("dims", 2), kind=settings.pop("kind", "constant")
    )
    source = make_source(tmp_path / "s.zarr", shape, axes=axes)
    sink = segmented(source, tmp_path / "o.zarr", model, cluster, **settings)
    before = hash_tree(tmp_path)
    verified = unet_dask.verify_store(sink, model, crops=3)
    assert (verified.findings, verified.notes) == ((), ())
    assert verified.crops == (3 if min(shape) else 0)
    assert hash_tree(tmp_path) == before


def test_sharded_result_is_verified(
    source: Path, tiny_model: Path, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unet_dask.io.sink.store.MANY_CHUNKS", 4)
    sink = segmented(source, tmp_path / "o.zarr", tiny_model, cluster)
    stored, _ = open_stored(str(sink))
    assert stored is not None
    assert stored.arrays[0].shards == (64, 64)
    assert unet_dask.verify_store(sink, tiny_model).findings == ()
    (sink / "classes" / "0" / "c" / "0" / "1").write_bytes(b"")
    (finding,) = found(sink)
    assert (finding.product, finding.box) == ("classes", {"y": (0, 64), "x": (64, 96)})


def test_seams_are_scored_and_found(
    tmp_path: Path, tiny_model: Path, make_source: Callable[..., Path], cluster: Cluster
) -> None:
    source = make_source(tmp_path / "s.zarr", (200, 700))
    sink = segmented(source, tmp_path / "o.zarr", tiny_model, cluster, products="probabilities")
    sound = unet_dask.verify_store(sink, crops=0)
    assert sound.findings == ()
    assert sound.seams.keys() == {"y", "x"}
    assert all(0.9 < score < 1.1 for score in sound.seams.values())
    planted(sink, period=32)
    findings = [finding for finding in found(sink) if finding.kind == "seam"]
    assert len(findings) == 1
    assert "along x" in findings[0].text


def planted(sink: Path, *, period: int) -> None:
    """Add an offset to every second stripe of the probabilities."""
    array = zarr.open_array(str(sink), path="probabilities/0", mode="r+")
    values = np.asarray(array[...])
    values[:, :, np.arange(values.shape[2]) // period % 2 == 1] += np.float32(0.5) * values.std()
    array[...] = values


@pytest.mark.parametrize("products", ["probabilities", "classes"])
def test_edge_of_a_mask_is_no_seam(
    tmp_path: Path,
    make_model: Callable[..., Path],
    make_source: Callable[..., Path],
    cluster: Cluster,
    products: str,
) -> None:
    """Its pixels are regions here, so its edges lie on faces and nowhere else."""
    source = make_source(tmp_path / "s.zarr", (640, 640))
    mask = tmp_path / "mask.zarr"
    rng = np.random.default_rng(0)
    write_array(mask, (rng.random((10, 10)) < 0.6).astype("u1"))
    settings: dict[str, Any] = {"region": (64, 64), "tile": (64, 64), "chunks": (64, 64)}
    model = make_model(tmp_path / "m.safetensors")
    sink = segmented(
        source, tmp_path / "o.zarr", model, cluster, products=products, mask=str(mask), **settings
    )
    verified = unet_dask.verify_store(sink, crops=0)
    assert verified.findings == ()
    assert verified.seams.keys() == {"y", "x"}
    assert all(0.8 < score < 1.2 for score in verified.seams.values())
    if products == "probabilities":
        planted(sink, period=64)
        assert any(finding.kind == "seam" and "along x" in finding.text for finding in found(sink))
    shutil.rmtree(mask)
    assert "seams not looked at: the mask is not at hand" in str(unet_dask.verify_store(sink, crops=0).notes)


@requires_onednn_bfloat16
@pytest.mark.usefixtures("emulation")
def test_run_in_reduced_precision_is_allowed_its_rounding_and_no_more(
    source: Path, tiny_model: Path, tmp_path: Path, cluster: Cluster
) -> None:
    wanted: dict[str, Any] = {"products": "probabilities", "precision": "bfloat16"}
    unet_dask.segment_store(source, tmp_path / "o.zarr", tiny_model, client=cluster.client, **wanted)
    assert unet_dask.verify_store(tmp_path / "o.zarr", tiny_model).findings == ()
    exact = segmented(source, tmp_path / "exact.zarr", tiny_model, cluster, products="probabilities")
    values = [
        np.asarray(zarr.open_array(str(tmp_path / name), path="probabilities/0"))
        for name in ("o.zarr", exact)
    ]
    assert np.abs(values[0] - values[1]).max() > 1e-5  # or the tolerance of float32 would have done
    zarr.open_array(str(tmp_path / "o.zarr"), path="probabilities/0", mode="r+")[...] = 1 - values[0]
    kinds = {finding.kind for finding in found(tmp_path / "o.zarr", model=tiny_model, crops=1)}
    assert "crop" in kinds


def test_masked_objects_are_verified_and_repaired_to_the_same_bytes(
    tmp_path: Path,
    tiny_model: Path,
    make_source: Callable[..., Path],
    cluster: Cluster,
    hash_tree: Callable[[Path], str],
) -> None:
    source = make_source(tmp_path / "s.zarr", (200, 260))
    values = np.zeros((50, 65), "u1")
    values[5:40, 3:60] = 1
    mask = zarr.create_array(tmp_path / "mask.zarr", shape=values.shape, chunks=(50, 65), dtype="u1")
    mask[...] = values
    products = "classes,probabilities,instances"
    sink = segmented(
        source, tmp_path / "o.zarr", tiny_model, cluster, products=products, mask=str(tmp_path / "mask.zarr")
    )
    verified = unet_dask.verify_store(sink, tiny_model, crops=8)
    assert (verified.findings, verified.notes, verified.crops) == ((), (), 8)
    sound = hash_tree(sink)
    (sink / "instances" / "0" / "c" / "1" / "1").write_bytes(b"")
    assert [finding.product for finding in found(sink)] == ["instances"]
    repaired = unet_dask.repair_store(sink, tiny_model, client=cluster.client)
    assert repaired.findings == ()
    assert hash_tree(sink) == sound
    mask[0, 0] = 1
    assert "mask.content" in str(unet_dask.verify_store(sink, tiny_model, crops=1).findings[0])
