"""The int8 network: exact where it promises to be, near to float32 elsewhere, and only where it can be trusted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn
from torch.nn import functional

from tests.oracle import write_array
from unet_dask.config import SegmentConfig
from unet_dask.demo.synthetic import nuclei
from unet_dask.engine.backend import load_backend
from unet_dask.engine.cache import NetworkKey, network
from unet_dask.engine.compare import ranges
from unet_dask.engine.device import choose_precision, native_int8
from unet_dask.engine.infer import Counter, Pass, infer
from unet_dask.engine.integer import Cuts, FirstConvolution, IntegerConvolution, Quantization
from unet_dask.engine.packed import as_corners
from unet_dask.engine.ranges import BeyondRangesError, count, widest
from unet_dask.engine.stream import _largest, _place
from unet_dask.errors import DataError, OptionError
from unet_dask.io.sink.place import read_manifest
from unet_dask.lazy import segment
from unet_dask.model import strips
from unet_dask.model.file import load_model, new_model, save_model
from unet_dask.model.header import NetworkSpec, Normalisation
from unet_dask.model.network import layout
from unet_dask.pipeline import estimated_seconds, plan_store, segment_store
from unet_dask.products import product_of
from unet_dask.tiling.region import AxisGrid
from unet_dask.tiling.valid import Context
from unet_dask.verify.store import repair_store, verify_store

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from unet_dask.workers.cluster import Cluster

needs_int8 = pytest.mark.skipif(not native_int8(), reason="sums of bytes saturate on this processor")

SPECS = [
    NetworkSpec(width=4, depth=2, channels=3, classes=4, batch_norm=True),
    NetworkSpec(dims=3, width=4, depth=1),
]


def quantization(channels: int, *, zero_point: int = 0, seed: int = 0) -> Quantization:
    steps = np.random.default_rng(seed).uniform(0.01, 0.1, channels).astype(np.float32)
    return Quantization(torch.from_numpy(steps), torch.full((channels,), float(zero_point)))


def some_bytes(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return torch.from_numpy(values).contiguous(memory_format=layout(len(shape) - 2))


def by_hand(features: Tensor, weight: Tensor, bias: Tensor, incoming: Quantization) -> NDArray[np.float64]:
    """Return a convolution of what bytes stand for, with filters rounded as they are documented to be."""
    dims = weight.dim() - 2
    space = (...,) + (None,) * dims
    scaled = weight.double().numpy() * incoming.scale.double().numpy()[space]
    largest = np.abs(scaled).reshape(len(scaled), -1).max(1)[(..., None) + (None,) * dims]
    rounded = np.rint(scaled / largest * 127) * largest / 127
    values = features[0].double().numpy() - incoming.zero_point.double().numpy()[space]
    windows = sliding_window_view(values, weight.shape[2:], axis=tuple(range(1, dims + 1)))
    contracted = [0, *range(dims + 1, 2 * dims + 1)]
    made: NDArray[np.float64] = np.tensordot(rounded, windows, ([1, *range(2, dims + 2)], contracted))
    made += bias.double().numpy()[space]
    return made


@needs_int8
@pytest.mark.parametrize("zero_point", [0, 91])
@pytest.mark.parametrize("shape", [(5, 12, 9, 14), (7, 16, 5, 6, 8)], ids=["2-D", "3-D"])
def test_a_convolution_of_bytes_is_exact(shape: tuple[int, ...], zero_point: int) -> None:
    outputs, channels, *space = shape
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn((outputs, channels, *(3,) * len(space)), generator=generator)
    bias = torch.randn(outputs, generator=generator)
    incoming, features = quantization(channels, zero_point=zero_point), some_bytes((1, channels, *space))
    expected = by_hand(features, weight, bias, incoming)
    found = IntegerConvolution(weight, bias, incoming, None)(features)[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)

    scale = float(np.abs(expected).max()) / 255
    outgoing = Quantization(torch.full((outputs,), scale), torch.zeros(outputs))
    made = IntegerConvolution(weight, bias, incoming, outgoing)(features)[0].numpy()
    assert made.dtype == np.uint8
    # A ReLU, for the smallest byte stands for 0; half a step of rounding, and the filters' units are those of the step.
    assert np.abs(made * scale - np.maximum(expected, 0)).max() <= 0.51 * scale


@needs_int8
@pytest.mark.parametrize("factors", [(2, 2), (2, 2, 2), (1, 2, 2), (2, 3)], ids=str)
def test_an_up_convolution_puts_every_corner_in_its_place(factors: tuple[int, ...]) -> None:
    kinds: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
    dims = len(factors)
    torch.manual_seed(0)
    module = kinds[dims](6, 3, kernel_size=factors, stride=factors).requires_grad_(requires_grad=False)
    incoming, features = quantization(6), some_bytes((1, 6, *(3, 4, 5)[:dims]))
    expected = module(features.float() * incoming.scale.view(1, -1, *(1,) * dims))
    outgoing = Quantization.of((1.1 * float(expected.min()), 1.1 * float(expected.max())), 3, signed=True)
    both = some_bytes((1, 6, *expected.shape[2:]), seed=5)
    skip = both[:, :3].clone()
    weight, bias = as_corners(module)
    assert bias is not None
    up = IntegerConvolution(weight, bias, incoming, outgoing.repeated(math.prod(factors)))
    _place(up(features), both[:, 3:], factors)
    assert torch.equal(both[:, :3], skip)
    shape = (1, -1, *(1,) * dims)
    found = (both[:, 3:].float() - outgoing.zero_point.view(shape)) * outgoing.scale.view(shape)
    assert (found - expected).abs().max() < 2.5 * float(outgoing.scale[0])


@pytest.mark.parametrize(
    ("shape", "factors"),
    [
        ((1, 5, 8, 6), (2, 2)),
        ((1, 3, 4, 6, 2), (2, 2, 2)),
        ((1, 3, 5, 6, 2), (1, 2, 2)),
        ((1, 3, 4, 6, 3), (2, 2, 1)),
        ((1, 2, 6, 8), (3, 4)),
    ],
    ids=str,
)
def test_pooling_takes_the_largest(shape: tuple[int, ...], factors: tuple[int, ...]) -> None:
    features = some_bytes(shape)
    pool = functional.max_pool2d if len(shape) == 4 else functional.max_pool3d
    expected = pool(features.float(), factors)
    pooled = torch.empty_like(expected, dtype=torch.uint8, memory_format=layout(len(shape) - 2))
    _largest(features, pooled, factors)
    assert torch.equal(pooled.float(), expected)


@needs_int8
@pytest.mark.parametrize("dims", [2, 3])
def test_the_first_convolution_rounds_to_bytes(dims: int) -> None:
    torch.manual_seed(0)
    kinds: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
    convolution = kinds[dims](2, 4, 3).requires_grad_(requires_grad=False)
    image = torch.randn(1, 2, *(31, 17, 9)[:dims]).contiguous(memory_format=layout(dims))
    expected = convolution(image).clamp(min=0)
    outgoing = Quantization.of((0.0, float(expected.max())), 4, signed=False)
    made = FirstConvolution(convolution.weight, convolution.bias, outgoing)(image)
    assert made.dtype == torch.uint8
    scale = outgoing.scale.view(1, -1, *(1,) * dims)
    assert (made.float() * scale - expected).abs().max() < 0.51 * outgoing.scale[0]


@needs_int8
@pytest.mark.parametrize("line", range(8))
@pytest.mark.parametrize("axis", [1, 2])
def test_a_bright_line_is_seen_wherever_it_lies(axis: int, line: int) -> None:
    """Of every eighth line alone, seven of eight would slip through."""
    first = FirstConvolution(torch.zeros(4, 1, 3, 3), torch.zeros(4), quantization(4))
    made = torch.zeros(1, 4, 40, 72, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    dark, bright = Cuts(), Cuts()
    dark.look(first, made)
    dark.require_few()
    made.select(axis + 1, 10 + line).fill_(255)
    bright.look(first, made)
    with pytest.raises(BeyondRangesError):
        bright.require_few()


@needs_int8
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38])
def test_what_is_not_finite_is_refused(value: float) -> None:
    """Bytes would hold the largest or the smallest of them in its place, and say nothing."""
    spec = NetworkSpec(width=4, depth=1)
    backend = load_backend(
        "torch", new_model(spec), device="cpu", precision="int8", ranges=((-1.0, 1.0),) * count(spec)
    )
    tile = np.zeros((1, 40, 40), np.float32)
    tile[0, 20, 20] = value
    with pytest.raises(DataError, match="not finite"):
        backend.logits(tile)


@needs_int8
def test_ranges_of_another_network_are_refused() -> None:
    spec = NetworkSpec(width=4, depth=1)
    for ranges_of_another in ((), ((0.0, 1.0),) * (count(spec) + 1)):
        with pytest.raises(OptionError, match=f"{count(spec)} feature maps"):
            load_backend("torch", new_model(spec), device="cpu", precision="int8", ranges=ranges_of_another)


@needs_int8
def test_sums_that_could_overflow_are_refused() -> None:
    spec = NetworkSpec(dims=3, width=128, depth=5)
    from unet_dask.engine.integer import _require_exact_sums

    _require_exact_sums(NetworkSpec(dims=3, width=64, depth=5))
    with pytest.raises(OptionError, match="4096 channels sums 110,592 products"):
        _require_exact_sums(spec)


@needs_int8
@pytest.mark.parametrize("spec", SPECS, ids=["2-D", "3-D"])
def test_the_network_is_near_to_that_of_float32_and_knows_no_tiles(
    spec: NetworkSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_model(spec, seed=2)
    side = 2 * spec.halo[0] + 8 * spec.stride[0]
    tile = np.random.default_rng(0).normal(size=(spec.channels, *(side,) * spec.dims)).astype(np.float32)
    in_float32 = load_backend("torch", model, device="cpu", precision="float32")
    spans = widest([in_float32.ranges(tile)])  # type: ignore[attr-defined] # torch's has it
    assert len(spans) == count(spec)
    backend = load_backend("torch", model, device="cpu", precision="int8", ranges=spans)
    logits, expected = backend.logits(tile), in_float32.logits(tile)
    assert 0 < np.sqrt(np.mean((logits - expected) ** 2)) < 0.1 * expected.std()
    # Sums of bytes have no rounding that could depend on where a tile, or a strip, begins.
    moved = 2 * spec.stride[0]
    part = backend.logits(np.ascontiguousarray(tile[..., moved:]))
    assert np.array_equal(part, logits[..., moved:])
    monkeypatch.setattr(strips, "PERIODS", (1, 1))
    assert np.array_equal(backend.logits(tile), logits)


@needs_int8
@pytest.mark.parametrize("length", [60, 33, 13])
@pytest.mark.parametrize("inside", [None, "mask"])
def test_what_reaches_beyond_the_ranges_is_run_in_float32(
    tmp_path: Path, inside: str | None, length: int
) -> None:
    """Ranges of a dim image, and a bright one: bytes would cut its feature maps off, silently."""
    spec = NetworkSpec(width=4, depth=1)
    model = new_model(spec, seed=2)
    save_model(model, tmp_path / "net.safetensors")
    file = load_model(tmp_path / "net.safetensors")
    context = Context(spec.halo[0], spec.stride[0], spec.slack[0])
    grid = AxisGrid(length, 0, length, 60, 28, context)
    sides = (grid.read(0)[1] - grid.read(0)[0],) * 2
    dim = np.random.default_rng(0).normal(size=(1, 1, *sides)).astype(np.float32)
    in_float32 = NetworkKey(str(file.path), file.checksum, "cpu", "float32")
    plain = Normalisation("constant", (0.0,), (1.0,))
    found = ranges(in_float32, dim[0, :, : grid.half_tile, : grid.half_tile], plain)
    reach = tuple((1.5 * low, 1.5 * high) for low, high in found)
    key = replace(in_float32, precision="int8", ranges=reach)
    wanted = None if inside is None else np.arange(length**2).reshape(1, length, length) % length < 37
    outputs = (product_of("probabilities", "float32"),)
    made: dict[tuple[str, str], Any] = {}
    for name, window in (("dim", dim), ("bright", 10 * dim)):
        for each in (key, in_float32):
            tiles = Counter()
            through = Pass(network(each), plain, spec, "none", in_float32, tiles)
            (made[name, each.precision],) = infer(
                window,
                grids=(grid, grid),
                write=(grid.write(0),) * 2,
                through=through,
                outputs=outputs,
                inside=wanted,
            )
            assert bool(tiles.float32_fallbacks) == (name == "bright" and each is key)
    assert 1e-4 < np.abs(made["dim", "int8"] - made["dim", "float32"]).max() < 0.35
    np.testing.assert_allclose(made["bright", "int8"], made["bright", "float32"], atol=1e-5)


def nuclei_source(folder: Path) -> Path:
    image, _ = nuclei((420, 900), origin=(0, 0), seed=4)
    write_array(folder / "source.zarr", image, chunks=(128, 128))
    return folder / "source.zarr"


@needs_int8
def test_a_run_says_how_far_it_agrees_resumes_and_is_verified_and_repaired(
    cluster: Cluster, tmp_path: Path
) -> None:
    source, sink = nuclei_source(tmp_path), tmp_path / "out.zarr"
    settings: dict[str, Any] = {"precision": "int8", "region": (512, 512), "tile": (128, 128)}
    run = segment_store(source, sink, "nuclei", client=cluster.client, **settings)
    assert run.plan.precision == "int8"
    assert any("int8: " in note and "classed as in float32 by torch" in note for note in run.notes)
    in_float32 = segment_store(
        source, tmp_path / "exact.zarr", "nuclei", client=cluster.client, precision="float32"
    )
    values, expected = (
        np.asarray(each["classes"]["0"]) for each in (open_group(sink), open_group(tmp_path / "exact.zarr"))
    )
    assert in_float32.plan.precision == "float32"
    assert np.mean(values != expected) < 0.002

    manifest = read_manifest(str(sink))
    assert manifest
    assert len(manifest.ranges) == count(load_model("nuclei").header.network)
    assert verify_store(sink).findings == ()
    chunk = next(path for path in sorted((sink / "classes" / "0" / "c").rglob("*")) if path.is_file())
    chunk.unlink()
    assert verify_store(sink).findings
    assert repair_store(sink, client=cluster.client).findings == ()
    assert np.array_equal(np.asarray(open_group(sink)["classes"]["0"]), values)


@needs_int8
def test_a_network_without_margins_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    model = new_model(
        NetworkSpec(width=4, depth=1), seed=1, normalisation=Normalisation("constant", (128.0,), (64.0,))
    )
    save_model(model, tmp_path / "random.safetensors")
    noise = np.random.default_rng(0).integers(0, 256, (200, 200)).astype(np.uint8)
    write_array(tmp_path / "source.zarr", noise)
    with pytest.raises(OptionError, match=r"precision int8 agrees on 9.* Use --precision float32"):
        segment_store(
            tmp_path / "source.zarr",
            tmp_path / "out.zarr",
            tmp_path / "random.safetensors",
            client=cluster.client,
            precision="int8",
        )
    assert not (tmp_path / "out.zarr").exists()


@needs_int8
def test_how_long_it_will_take_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    plan = plan_store(nuclei_source(tmp_path), "nuclei", precision="int8")
    assert 0 < estimated_seconds(plan, "nuclei", SegmentConfig(precision="int8")) < 60


def test_it_is_refused_where_it_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = nuclei_source(tmp_path)
    with pytest.raises(OptionError, match="for CPUs, not for cuda"):
        choose_precision("int8", "cuda")
    with pytest.raises(OptionError, match="nnpack runs 2-D networks in float32"):
        plan_store(source, "nuclei", backend="nnpack", precision="int8")
    with pytest.raises(OptionError, match="measures the data before it starts"):
        segment(np.zeros((64, 64), np.uint8), "nuclei", precision="int8")
    monkeypatch.setattr("unet_dask.engine.device.native_int8", lambda: False)
    with pytest.raises(OptionError, match="saturate"):
        load_backend("torch", new_model(SPECS[0]), device="cpu", precision="int8")


def open_group(path: Path) -> Any:
    import zarr

    return zarr.open_group(path, mode="r")
