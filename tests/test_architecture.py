"""A network that is not the paper's: anisotropic, or of an architecture that the strip engine does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import torch
import zarr

import unet_dask
from tests.model.residual import residual
from tests.oracle import disagreement, whole_image, write_array
from unet_dask.engine.backend import TorchBackend
from unet_dask.engine.heap import HEAP_SHARE
from unet_dask.errors import OptionError
from unet_dask.model import layers
from unet_dask.model.cost import pass_bytes
from unet_dask.model.file import inspect_model, load_model, new_model, save_model
from unet_dask.model.header import NetworkSpec, Normalisation
from unet_dask.model.strips import streams
from unet_dask.pipeline import plan_store, segment_store
from unet_dask.training.validate import probabilities

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.model.file import Model
    from unet_dask.workers.cluster import Cluster

BOUND = 1e-5
FAR_APART = ((1, 2, 2), (2, 2, 2))


def saved(folder: Path, spec: NetworkSpec) -> Model:
    model = new_model(spec, seed=1, normalisation=Normalisation("constant", (128.0,), (64.0,)))
    save_model(model, folder / "model.safetensors")
    return load_model(folder / "model.safetensors")


def noise(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_slices_far_apart_are_segmented_verified_and_resumed(cluster: Cluster, tmp_path: Path) -> None:
    model = saved(tmp_path, NetworkSpec(dims=3, width=4, depth=2, classes=3, factors=FAR_APART))
    image = noise((27, 50, 36))
    source, sink = write_array(tmp_path / "source.zarr", image), tmp_path / "sink.zarr"

    def run(*, resume: bool) -> None:
        segment_store(
            source,
            sink,
            model,
            client=cluster.client,
            resume=resume,
            products="classes,probabilities",
            precision="float32",
            memory="1GiB",
            region=(14, 40, 36),
            chunks=(14, 20, 36),
        )

    run(resume=False)
    probabilities = zarr.open_array(sink / "probabilities/0", mode="r")
    assert disagreement(np.asarray(probabilities[...]), whole_image(model, image[None])) <= BOUND
    assert unet_dask.verify_store(sink, tmp_path / "model.safetensors", crops=1).findings == ()
    run(resume=True)  # nothing is left to do; the manifest is read again


def test_a_lazy_volume_of_slices_far_apart_equals_the_whole(tmp_path: Path) -> None:
    model = saved(tmp_path, NetworkSpec(dims=3, width=4, depth=2, factors=FAR_APART))
    image = noise((23, 60, 57))
    lazy = unet_dask.segment(da.from_array(image, chunks=(16, 32, 32)), model, output="probabilities")
    assert disagreement(lazy.compute(scheduler="threads"), whole_image(model, image[None])) <= BOUND


def test_a_training_scores_slices_far_apart_as_the_whole(tmp_path: Path) -> None:
    model = saved(tmp_path, NetworkSpec(dims=3, width=4, depth=2, factors=FAR_APART))
    image = noise((9, 40, 70))
    found = probabilities(model.network.eval(), model.normalise(image[None]))
    assert disagreement(found, whole_image(model, image[None])) <= BOUND


def test_flips_are_averaged_and_turns_refused_where_y_and_x_differ(tmp_path: Path) -> None:
    saved(tmp_path, NetworkSpec(width=4, depth=2, factors=((1, 2), (2, 2))))
    source = write_array(tmp_path / "source.zarr", noise((60, 70)))
    plan_store(source, tmp_path / "model.safetensors", tta="flips")
    with pytest.raises(OptionError, match=r"pools y and x differently \(2 and 4 in all\).*--tta flips"):
        plan_store(source, tmp_path / "model.safetensors", tta="rotations")


@pytest.fixture
def residual_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Model:
    """Return a model of the architecture that a newcomer wrote in one file and registered in one line."""
    monkeypatch.setitem(layers.ARCHITECTURES, "residual", residual)
    return saved(tmp_path, NetworkSpec(width=4, depth=2, classes=3, architecture="residual", batch_norm=True))


def test_another_architecture_is_segmented_in_whole_tiles(residual_model: Model) -> None:
    image = noise((130, 90))
    assert not streams(residual_model.header.network)
    lazy = unet_dask.segment(da.from_array(image, chunks=48), residual_model, output="probabilities")
    found = disagreement(lazy.compute(scheduler="threads"), whole_image(residual_model, image[None]))
    assert found <= 10 * BOUND  # untrained, its logits are some tens, of which rounding takes more


def test_the_memory_of_another_architecture_is_planned(residual_model: Model, tmp_path: Path) -> None:
    spec = residual_model.header.network
    source = write_array(tmp_path / "source.zarr", noise((600, 700)))
    plan = plan_store(source, str(residual_model.path), precision="float32")
    whole = int((1 + HEAP_SHARE) * pass_bytes(spec, plan.tile, item=4))
    assert plan.memory.activations == whole
    assert inspect_model(str(residual_model.path)).header.network == spec


def test_another_architecture_is_refused_as_a_network_of_bytes(residual_model: Model, tmp_path: Path) -> None:
    source = write_array(tmp_path / "source.zarr", noise((100, 100)))
    with pytest.raises(OptionError, match=r"Eight-bit integers are for U-Nets .*architecture='residual'"):
        plan_store(source, str(residual_model.path), precision="int8")


def test_another_architecture_learns(residual_model: Model) -> None:
    """Every weight has a gradient: what is added back is not written over before it is asked for."""
    network = residual_model.network.train()
    network(torch.randn(1, 1, 60, 60)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_plain_backend_runs_what_is_not_streamed(residual_model: Model) -> None:
    context = residual_model.header.network.contexts[0]
    tile = np.random.default_rng(0).standard_normal((1, *(context.input_size(8),) * 2)).astype(np.float32)
    made = TorchBackend(residual_model, device="cpu", precision="float32").logits(tile)
    with torch.inference_mode():
        expected = residual_model.network.eval()(torch.from_numpy(tile)[None])[0].numpy()
    np.testing.assert_allclose(made, expected, atol=1e-5 * float(np.abs(expected).max()))
