"""`segment` on the GPU, from store to store, against the same on the CPU."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import zarr

import unet_dask
from tests.conftest import save_source, save_tiny_model
from tests.gpu.ways import AGREEMENT, BOUND
from tests.oracle import disagreement, sure_classes_differ, write_array

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.run.outcome import Run

pytestmark = pytest.mark.gpu

#: Several regions of several tiles.
CUTS: dict[str, Any] = {"region": (256, 256), "tile": (128, 256), "chunks": (128, 128), "memory": "6GiB"}


def read(sink: Path, product: str) -> NDArray[Any]:
    return np.asarray(zarr.open_array(sink / product / "0", mode="r")[...])


def on(device: str, source: Path, model: str | Path, **settings: Any) -> tuple[Path, Run]:
    """Segment a source on a device, and return sink and run."""
    sink = source.with_name(f"{device}.zarr")
    settings = {"products": "classes,probabilities", "precision": "float32"} | settings
    return sink, unet_dask.segment_store(source, sink, model, device=device, workers=1, **settings)


def test_float32_makes_the_classes_and_probabilities_of_the_cpu(field_store: Path) -> None:
    made, _ = on("cuda", field_store, "nuclei", **CUTS)
    expected, _ = on("cpu", field_store, "nuclei", **CUTS)
    exact = read(expected, "probabilities")
    assert disagreement(read(made, "probabilities"), exact) <= BOUND
    assert sure_classes_differ(read(made, "classes"), exact, margin=2 * BOUND) == 0


def test_volumes_are_segmented_too(tmp_path: Path) -> None:
    source = save_source(tmp_path / "volume.zarr", (40, 70, 90), axes="zyx")
    model = save_tiny_model(tmp_path / "tiny.safetensors", dims=3)
    cuts = {"region": (24, 32, 48), "tile": (24, 32, 24), "chunks": (8, 16, 16), "memory": "6GiB"}
    made, _ = on("cuda", source, model, **cuts)
    expected, _ = on("cpu", source, model, **cuts)
    assert disagreement(read(made, "probabilities"), read(expected, "probabilities")) <= BOUND


def test_tiles_of_many_shapes_within_a_mask_are_right(field_store: Path, tmp_path: Path) -> None:
    rows, columns = np.indices((600, 700))
    inside = (rows - 300) ** 2 + (columns - 350) ** 2 < 260**2
    mask = write_array(tmp_path / "mask.zarr", inside.astype(np.uint8))
    made, _ = on("cuda", field_store, "nuclei", mask=str(mask), **CUTS)
    expected, _ = on("cpu", field_store, "nuclei", mask=str(mask), **CUTS)
    assert disagreement(read(made, "probabilities"), read(expected, "probabilities")) <= BOUND


def test_lazy_arrays_are_segmented_on_the_gpu(field_store: Path) -> None:
    image = da.from_zarr(str(field_store), chunks=(256, 256))
    model = unet_dask.load_model("nuclei").with_statistics(mean=[400.0], std=[200.0])
    made, expected = (
        np.asarray(unet_dask.segment(image, model, output="probabilities", device=device).compute())
        for device in ("cuda", "cpu")
    )
    assert disagreement(made, expected) <= BOUND


def test_a_run_that_is_told_nothing_takes_the_gpu_and_stays_within_its_plan(
    field_store: Path, run_cli: Callable[..., Any]
) -> None:
    sink = field_store.with_name("default.zarr")
    outcome = run_cli("segment", field_store, "-o", sink, "--json", "-q")
    assert outcome.code == 0, outcome.stderr
    told = json.loads(outcome.stdout)
    assert told["plan"]["device"] == "cuda"
    assert told["peak_bytes"] <= told["plan"]["limit_bytes"]
    expected, _ = on("cpu", field_store, "nuclei", products="classes")
    assert np.mean(read(sink, "classes") == read(expected, "classes")) >= AGREEMENT


@pytest.mark.usefixtures("_native_bfloat16")
def test_bfloat16_is_compared_with_float32_before_it_is_trusted(field_store: Path) -> None:
    _, run = on("cuda", field_store, "nuclei", precision="auto", products="classes")
    assert run.plan.precision == "bfloat16"
    assert any("bfloat16: " in note and "are classed as in float32" in note for note in run.notes)
