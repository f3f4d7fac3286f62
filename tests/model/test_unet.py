"""The network, row by row of the paper's section 2 and 3 (N1-N6)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from unet_dask.engine.backend import TorchBackend
from unet_dask.errors import ModelError
from unet_dask.model.cost import activation_bytes, tile_flop
from unet_dask.model.file import new_model
from unet_dask.model.folding import fold_batch_norm
from unet_dask.model.header import NetworkSpec
from unet_dask.model.layers import parameter_count
from unet_dask.model.network import Network, centre_crop, initialise

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def test_the_paper_network_has_23_convolutional_layers() -> None:
    network = Network(NetworkSpec(width=64, depth=4))
    assert sum(isinstance(module, CONVOLUTIONS) for module in network.modules()) == 23


def test_channels_double_to_1024() -> None:
    network = Network(NetworkSpec(width=64, depth=4))
    widths = [
        module.out_channels
        for module in network.get_submodule("contracting").modules()
        if isinstance(module, nn.Conv2d)
    ]
    assert widths == [64, 64, 128, 128, 256, 256, 512, 512, 1024, 1024]


def test_the_lowest_level_sees_32_and_leaves_28() -> None:
    network = Network(NetworkSpec(width=1, depth=4))
    seen: list[tuple[int, int]] = []
    network.get_submodule("contracting.4").register_forward_hook(
        lambda _module, arguments, output: seen.append((arguments[0].shape[-1], output.shape[-1]))
    )
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert seen == [(32, 28)]


@pytest.mark.parametrize("dims", [2, 3])
def test_output_and_channels_follow_the_spec(dims: int) -> None:
    spec = NetworkSpec(dims=dims, width=2, depth=2, channels=3, classes=5, batch_norm=True)
    with torch.inference_mode():
        output = Network(spec).eval()(torch.zeros(1, 3, *(44 + 4 * axis for axis in range(dims))))
    assert output.shape == (1, 5, *(4 + 4 * axis for axis in range(dims)))


def test_no_convolution_is_padded() -> None:
    convolutions = [
        module for module in Network(NetworkSpec(width=2)).modules() if isinstance(module, nn.Conv2d)
    ]
    assert all(module.padding == (0, 0) for module in convolutions)


def test_dropout_stands_at_the_end_of_the_contracting_path() -> None:
    network = Network(NetworkSpec(width=2, depth=3, dropout=0.5)).train()
    calls: list[int] = []
    network.get_submodule("dropout").register_forward_hook(
        lambda _module, arguments, _output: calls.append(arguments[0].shape[1])
    )
    network(torch.zeros(1, 1, 92 + 8, 92 + 8))
    assert calls == [8, 16]


def test_initial_weights_have_the_deviation_of_the_paper() -> None:
    network = initialise(Network(NetworkSpec(width=64, depth=2)), seed=1)
    second = network.get_submodule("contracting.0.2")
    assert isinstance(second, nn.Conv2d)
    assert second.weight.std().item() == pytest.approx(math.sqrt(2 / 576), rel=0.02)  # 9 * 64 = 576


def test_an_up_convolution_neuron_has_one_connection_per_channel() -> None:
    network = initialise(Network(NetworkSpec(width=32, depth=2)), seed=1)
    up = network.get_submodule("up.0")
    assert isinstance(up, nn.ConvTranspose2d)
    assert up.weight.std().item() == pytest.approx(math.sqrt(2 / up.in_channels), rel=0.02)


def test_the_same_seed_gives_the_same_bytes() -> None:
    one, other = (new_model(NetworkSpec(width=2, depth=2), seed=7).checksum for _ in range(2))
    assert one == other
    assert one != new_model(NetworkSpec(width=2, depth=2), seed=8).checksum


def test_the_centre_is_cropped() -> None:
    features = torch.arange(6.0)[None, None, :, None].expand(1, 1, 6, 6)
    assert centre_crop(features, torch.zeros(1, 1, 2, 2))[0, 0, :, 0].tolist() == [2, 3]


@pytest.mark.parametrize("dims", [2, 3])
def test_folding_batch_norm_keeps_the_function(dims: int) -> None:
    torch.manual_seed(0)
    network = Network(NetworkSpec(dims=dims, width=4, depth=2, batch_norm=True))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type] # tracked, hence a tensor
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type] # tracked, hence a tensor
    image = torch.randn(1, 1, *(48,) * dims)
    with torch.inference_mode():
        before = network.eval()(image)
        after = fold_batch_norm(network)(image)
    assert torch.allclose(before, after, atol=1e-4 * float(before.abs().max()))
    assert not any(isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) for module in network.modules())


@pytest.mark.parametrize(("side", "gflop"), [(572, 301), (1084, 1359)], ids=["design-572", "design-1084"])
def test_the_cost_is_that_of_the_design(side: int, gflop: int) -> None:
    assert round(tile_flop(NetworkSpec(), (side, side)) / 1e9) == gflop


@pytest.mark.parametrize("dims", [2, 3])
def test_the_parameters_are_counted(dims: int) -> None:
    spec = NetworkSpec(dims=dims, width=3, depth=2, channels=2, classes=4)
    assert parameter_count(spec) == sum(each.numel() for each in Network(spec).parameters())


def test_activations_are_at_least_the_largest_pair_of_maps() -> None:
    spec = NetworkSpec(width=8, depth=3)
    assert activation_bytes(spec, (200, 200), item=4) >= 4 * 8 * (198**2 + 196**2)


def test_a_backend_leaves_the_model_alone() -> None:
    model = new_model(NetworkSpec(width=2, depth=2, batch_norm=True))
    TorchBackend(model, device="cpu", precision="float32").logits(np.zeros((1, 44, 44), np.float32))
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.network.modules())


@pytest.mark.parametrize("sizes", [{"width": 1024, "depth": 6}, {"dims": 3, "width": 512, "depth": 5}])
def test_layers_that_no_memory_holds_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ModelError, match="smaller width or depth"):
        Network(NetworkSpec(**sizes))  # type: ignore[arg-type] # whole numbers all
