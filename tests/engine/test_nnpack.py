"""NNPACK's convolutions: the same network to four digits, only where they can run, and only if they agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from tests.oracle import write_array
from unet_dask.engine.backend import load_backend
from unet_dask.engine.device import choose_precision
from unet_dask.engine.infer import softmax
from unet_dask.engine.nnpack import NnpackConvolution
from unet_dask.errors import OptionError
from unet_dask.model.file import load_model, new_model, save_model
from unet_dask.model.header import NetworkSpec, Normalisation
from unet_dask.pipeline import plan_store, segment_store
from unet_dask.verify.store import verify_store

if TYPE_CHECKING:
    from pathlib import Path

    from unet_dask.model.file import Model
    from unet_dask.workers.cluster import Cluster

needs_nnpack = pytest.mark.skipif(
    not torch.backends.nnpack.is_available(),  # type: ignore[no-untyped-call] # torch's own
    reason="NNPACK does not know this processor",
)


def wide(*, batch_norm: bool = False) -> Model:
    """Return a network with enough channels for NNPACK below its first level."""
    spec = NetworkSpec(width=32, depth=2, batch_norm=batch_norm)
    return new_model(spec, seed=3, normalisation=Normalisation("constant", (128.0,), (64.0,)))


@needs_nnpack
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 64, 9, 12), (2, 65, 40, 51)], ids=str)
def test_a_convolution_is_torchs_to_four_digits(shape: tuple[int, ...], *, bias: bool) -> None:
    direct = nn.Conv2d(shape[1], 70, 3, bias=bias)
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for layout in (torch.contiguous_format, torch.channels_last):
        found = NnpackConvolution(direct)(image.contiguous(memory_format=layout))
        assert (found - direct(image)).abs().max() < 1e-3


@needs_nnpack
@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_network_is_torchs_to_four_digits(*, batch_norm: bool) -> None:
    model = wide(batch_norm=batch_norm)
    tile = np.random.default_rng(0).normal(size=(1, 140, 172)).astype(np.float32)
    ours, theirs = (
        softmax(load_backend(name, model, device="cpu", precision="float32").logits(tile))
        for name in ("nnpack", "torch")
    )
    assert 0 < np.abs(ours - theirs).max() < 5e-4


def test_it_is_refused_where_it_cannot_run(tmp_path: Path) -> None:
    write_array(tmp_path / "source.zarr", np.zeros((64, 64, 64), np.uint8))
    save_model(new_model(NetworkSpec(dims=3, width=2, depth=1)), tmp_path / "volume.safetensors")
    with pytest.raises(OptionError, match="2-D networks in float32 on a CPU, not 3-D"):
        plan_store(tmp_path / "source.zarr", tmp_path / "volume.safetensors", backend="nnpack")
    with pytest.raises(OptionError, match="no backend 'abacus'"):
        plan_store(tmp_path / "source.zarr", tmp_path / "volume.safetensors", backend="abacus")
    assert choose_precision("auto", "cpu", "nnpack") == "float32"


@needs_nnpack
def test_a_run_says_how_far_it_agrees_and_is_verified(cluster: Cluster, tmp_path: Path) -> None:
    save_model(wide(), tmp_path / "wide.safetensors")
    image = np.random.default_rng(1).integers(0, 256, (300, 260)).astype(np.uint8)
    write_array(tmp_path / "source.zarr", image)
    run = segment_store(
        tmp_path / "source.zarr",
        tmp_path / "out.zarr",
        load_model(tmp_path / "wide.safetensors"),
        client=cluster.client,
        backend="nnpack",
        products="classes,probabilities",
    )
    assert any("nnpack: " in note and "classed as in float32 by torch" in note for note in run.notes)
    assert verify_store(tmp_path / "out.zarr").findings == ()


@needs_nnpack
def test_a_network_that_it_cannot_serve_is_refused(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unet_dask.run.prepare.measured_agreement", lambda *_: 0.99)
    save_model(wide(), tmp_path / "wide.safetensors")
    write_array(tmp_path / "source.zarr", np.zeros((100, 100), np.uint8))
    with pytest.raises(OptionError, match=r"nnpack agrees on 99.000% .* Use --backend torch"):
        segment_store(
            tmp_path / "source.zarr",
            tmp_path / "out.zarr",
            tmp_path / "wide.safetensors",
            client=cluster.client,
            backend="nnpack",
        )
    assert not (tmp_path / "out.zarr").exists()
