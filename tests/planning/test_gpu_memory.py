"""The memory of a GPU in the plan: another than that of the machine, and where its size is known from."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.conftest import save_source, save_tiny_model
from tests.manifests import manifest_of
from tests.planning.test_layout import GIB, plan_of
from unet_dask.config import SegmentConfig
from unet_dask.engine.device import choose_precision, gpu_memory
from unet_dask.errors import MemoryPlanError
from unet_dask.io.sink.manifest import Manifest
from unet_dask.model.cost import largest_map, pass_bytes, tile_flop
from unet_dask.model.file import model_file
from unet_dask.model.header import NetworkSpec
from unet_dask.planning.arithmetic import Arithmetic
from unet_dask.planning.grant import default_limit
from unet_dask.planning.plan import Wanted
from unet_dask.run.prepare import open_inputs, prepare, this_machine
from unet_dask.workers.preflight import worker_gpu_memory

if TYPE_CHECKING:
    from pathlib import Path

    from unet_dask.planning.plan import Plan


def on_gpu(
    shape: tuple[int, ...],
    *,
    gpu_limit: int,
    limit: int = 32 * GIB,
    precision: str = "bfloat16",
    **network: int,
) -> Plan:
    how = Arithmetic("cuda", precision, gpu_limit=gpu_limit)
    axes = "cyx" if len(shape) == 2 else "czyx"
    return plan_of(axes, (1, *shape), limit=limit, how=how, **network)  # type: ignore[arg-type] # no Wanted among them


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(*(st.integers(1, 200_000),) * 2) | st.tuples(*(st.integers(1, 5000),) * 3),
    st.sampled_from([4, 16, 32, 64]),
    st.sampled_from([3, 8, 20, 64]),
    st.sampled_from(["float32", "bfloat16", "float16"]),
)
def test_nothing_is_planned_that_machine_or_gpu_cannot_hold_or_count(
    shape: tuple[int, ...], width: int, gpu_limit: int, precision: str
) -> None:
    try:
        plan = on_gpu(
            shape,
            gpu_limit=gpu_limit * GIB,
            precision=precision,
            dims=len(shape),
            width=width,
            depth=6 - len(shape),
        )
    except MemoryPlanError:
        assume(gpu_limit > 3)
        raise
    network = plan.header.network
    assert plan.memory.total <= plan.limit
    assert pass_bytes(network, plan.tile, item=2) < plan.memory.gpu <= plan.gpu_limit == gpu_limit * GIB
    assert network.largest(plan.tile) < 1 << 31


@pytest.mark.parametrize(
    ("shape", "network", "least"),
    [
        ((200_000, 200_000), {"width": 64, "depth": 4}, 12_000**2),
        ((4096, 8192, 8192), {"dims": 3, "width": 32, "depth": 3}, 768**3),
    ],
    ids=["2-D", "3-D"],
)
def test_a_large_gpu_is_given_large_regions(
    shape: tuple[int, ...], network: dict[str, int], least: int
) -> None:
    plan = on_gpu(shape, gpu_limit=64 * GIB, **network)  # type: ignore[arg-type] # no precision among them
    assert np.prod(plan.region) >= least


def test_feature_maps_are_not_in_the_memory_of_the_machine() -> None:
    plan = on_gpu((200_000, 200_000), gpu_limit=64 * GIB, width=64)
    assert plan.memory.activations < 1 * GIB
    assert plan.memory.gpu > 4 * GIB
    assert f"of the GPU {plan.memory.gpu / GIB:.1f} GiB (limit 64.0 GiB)" in dict(plan.describe())["memory"]
    assert plan.to_json()["card_bytes"] == plan.memory.gpu
    assert plan.to_json()["card_limit_bytes"] == 64 * GIB


def test_what_is_compared_with_float32_fits_the_gpu_beside_it() -> None:
    plan = on_gpu((20_000, 20_000), gpu_limit=64 * GIB, width=64)
    network = plan.header.network
    half_tile = pass_bytes(network, [grid.half_tile for grid in plan.spatial], item=4)
    assert plan.memory.gpu >= half_tile + (2 + 4) * network.parameters


def test_a_gpu_that_is_too_small_is_said_and_so_is_a_machine() -> None:
    with pytest.raises(MemoryPlanError, match=r"may use 128.0 MiB of its GPU, .* --device cpu"):
        on_gpu((5000, 5000), gpu_limit=128 << 20, width=64)
    with pytest.raises(MemoryPlanError, match=r"granted 1.0 GiB, but .* Use --memory [\d.]+GiB"):
        on_gpu((5000, 5000), gpu_limit=16 * GIB, limit=GIB, width=64)
    with pytest.raises(MemoryPlanError, match=r"2\*\*31 numbers or more.* smaller --tile"):
        plan_of(
            "cyx", (1, 50_000, 50_000), limit=900 * GIB, how=Arithmetic("cuda", "bfloat16"), width=64,
            wanted=Wanted(tile=(16_384, 16_384)),
        )  # fmt: skip


@pytest.mark.parametrize(
    "spec", [NetworkSpec(), NetworkSpec(classes=200, width=2), NetworkSpec(dims=3, depth=3, channels=300)]
)
def test_the_largest_map_is_that_of_a_pass(spec: NetworkSpec) -> None:
    side = 2 * spec.halo[0] + spec.slack[0] + 2 * spec.stride[0]
    sides = (side,) * spec.dims
    sizes = [spec.channels * side**spec.dims]
    with torch.device("meta"):
        from unet_dask.model.network import Network

        network = Network(spec).eval()
        for module in network.modules():
            module.register_forward_hook(lambda module, given, made: sizes.append(made.numel()))
            module.register_forward_pre_hook(lambda module, given: sizes.append(given[0].numel()))
        network(torch.empty(1, spec.channels, *sides))
    assert largest_map(spec, sides) == max(sizes)
    assert tile_flop(spec, sides) > 0


def prepared(tmp_path: Path, stored: Manifest | None, gpu_limit: int | None = None) -> Plan:
    """Return the plan of a run on a GPU that this machine need not have."""
    source = save_source(tmp_path / "source.zarr", (1024, 1024))
    with model_file(save_tiny_model(tmp_path / "tiny.safetensors")) as model:
        machine = this_machine(SegmentConfig(), "cuda")
        machine = machine if gpu_limit is None else replace(machine, gpu_limit=gpu_limit)
        inputs = open_inputs(source, model, SegmentConfig())
        return prepare(inputs, machine, stored).plan


def test_a_resumed_run_is_planned_for_the_gpu_that_it_was_begun_on(tmp_path: Path) -> None:
    begun = {"card": 5 * GIB, "memory": 6 * GIB, "precision": "bfloat16"}
    stored = Manifest.from_json(manifest_of([], ("background", "cell"), shape=(1024, 1024)) | begun)
    assert prepared(tmp_path, stored, 8 * GIB).gpu_limit == 5 * GIB


def test_of_several_gpus_the_smallest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"tcp://one": 40 * GIB, "tcp://two": 20 * GIB}
    monkeypatch.setattr("unet_dask.workers.preflight._asked", lambda *_: answers)
    foreign: Any = SimpleNamespace(local=False, client=None)
    assert worker_gpu_memory(foreign, "cuda") == 20 * GIB


def pretend(monkeypatch: pytest.MonkeyPatch, *, bfloat16: bool) -> None:
    """Let torch find a GPU of 80 GiB."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bfloat16)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 * GIB))


def test_networks_may_use_most_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_memory("cuda") == 0 or torch.cuda.is_available()
    assert gpu_memory("cpu") == 0
    pretend(monkeypatch, bfloat16=True)
    assert gpu_memory("cuda") == 68 * GIB


@pytest.mark.parametrize(("workers", "each"), [(None, 68), (1, 68), (2, 34), (4, 17)])
def test_workers_share_a_gpu(
    workers: int | None, each: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, bfloat16=True)
    source = save_source(tmp_path / "source.zarr", (256, 256))
    with model_file(save_tiny_model(tmp_path / "tiny.safetensors")) as model:
        config = SegmentConfig(workers=workers, memory=8 * GIB)
        inputs = open_inputs(source, model, config)
        assert prepare(inputs, this_machine(config, "cuda"), None).plan.gpu_limit == each * GIB


@pytest.mark.parametrize(("native", "precision"), [(True, "bfloat16"), (False, "float16")])
def test_gpus_that_emulate_bfloat16_are_given_float16(
    monkeypatch: pytest.MonkeyPatch, *, native: bool, precision: str
) -> None:
    pretend(monkeypatch, bfloat16=native)
    assert choose_precision("auto", "cuda") == precision


def test_a_worker_with_a_gpu_is_granted_more_of_a_large_machine() -> None:
    assert default_limit(64, 256 * GIB, 1, gpus=1) == default_limit(64, 256 * GIB, 4, gpus=4) == 32 * GIB
    assert default_limit(64, 64 * GIB, 2, gpus=4) == default_limit(64, 64 * GIB, 4, gpus=4) < 16 * GIB
    assert default_limit(64, 256 * GIB, 1) == 4 * GIB
