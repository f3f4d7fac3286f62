"""The choice of regions and tiles: within the memory, on write units, the same for any number of workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_dask.axes import by_axis
from unet_dask.errors import GeometryError, MemoryPlanError
from unet_dask.io.source.pieces import WITHOUT, Decoding
from unet_dask.model.header import ModelHeader, NetworkSpec, Normalisation
from unet_dask.model.strips import streams, strip_bytes
from unet_dask.planning.arithmetic import Arithmetic
from unet_dask.planning.demand import Demand, Memory, predicted
from unet_dask.planning.grant import default_limit
from unet_dask.planning.layout import choose
from unet_dask.planning.plan import Plan, Wanted, make_plan, write_units
from unet_dask.products import product_of

GIB = 1 << 30


@dataclass(frozen=True)
class Volume:
    """What the plan asks of a source."""

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    name: str = "volume"
    origin_of_axes: str = "the test"
    decoding: Decoding = WITHOUT

    @property
    def sizes(self) -> dict[str, int]:
        return by_axis(self.axes, self.shape)

    @property
    def spacing(self) -> dict[str, float]:
        return {}

    @property
    def unit(self) -> dict[str, str | None]:
        return {}


def plan_of(
    axes: str,
    shape: tuple[int, ...],
    *,
    limit: int = 3 * GIB,
    wanted: Wanted | None = None,
    how: Arithmetic | None = None,
    **network: int,
) -> Plan:
    spec = NetworkSpec(**network)  # type: ignore[arg-type] # whole numbers all
    header = ModelHeader(spec, Normalisation("constant", (0.0,), (1.0,)), ("background", "class 1"))
    volume: Any = Volume(axes, shape, np.dtype(np.uint8))
    outputs = (product_of("classes", "uint8"), product_of("probabilities", "float32"))
    return make_plan(volume, header, outputs=outputs, limit=limit, wanted=wanted, arithmetic=how)


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.just(1), st.integers(1, 20_000), st.integers(1, 20_000)),
    st.integers(1, 5),
    st.sampled_from([4, 16, 64]),
    st.sampled_from([1, 2, 8]),
)
def test_every_plan_stays_within_its_memory(shape: tuple[int, ...], depth: int, width: int, gib: int) -> None:
    try:
        plan = plan_of("cyx", shape, limit=gib * GIB, depth=depth, width=width)
    except MemoryPlanError:
        assert width == 64
        assert gib == 1
        return
    assert plan.memory.total <= plan.limit


@settings(deadline=None, max_examples=60)
@given(st.tuples(st.just(1), *(st.integers(1, 3000),) * 3), st.integers(1, 4), st.sampled_from([2, 3]))
def test_regions_own_whole_write_units(shape: tuple[int, ...], depth: int, dims: int) -> None:
    plan = plan_of("czyx", shape, limit=8 * GIB, depth=depth, width=4, dims=dims)
    for array in plan.arrays:
        unit = dict(zip(array.axes, array.write_unit, strict=True))
        for axis, grid in zip(plan.grid.axes, plan.grid.grids, strict=True):
            if axis != "c":
                assert all((edge - grid.start) % unit[axis] == 0 for edge in grid.edges[:-1])


@pytest.mark.parametrize(
    ("axes", "shape", "network", "most"),
    [
        ("cyx", (1, 8192, 8192), {"width": 32}, 1.15),
        ("cyx", (1, 100_000, 100_000), {"width": 64}, 1.2),
        ("czyx", (1, 512, 512, 512), {"width": 16, "depth": 3, "dims": 3}, 2.0),
    ],
    ids=["stack-of-slices", "slide", "volume"],
)
def test_tiles_pay_little_redundancy(
    axes: str, shape: tuple[int, ...], network: dict[str, int], most: float
) -> None:
    assert plan_of(axes, shape, limit=4 * GIB, **network).redundancy < most  # type: ignore[arg-type] # no Wanted among them


def test_a_terabyte_is_planned_with_bounded_regions() -> None:
    plan = plan_of("czyx", (1, 10_000, 10_000, 10_000), limit=4 * GIB, width=16, depth=3, dims=3)
    assert plan.memory.total <= 4 * GIB
    assert len(plan.grid) > 1000


def test_too_little_memory_says_what_would_do() -> None:
    with pytest.raises(MemoryPlanError, match=r"granted 400.0 MiB, but .* Use --memory [\d.]+GiB"):
        plan_of("cyx", (1, 5000, 5000), limit=400 << 20, width=64)


def test_what_the_message_proposes_fits() -> None:
    with pytest.raises(MemoryPlanError) as caught:
        plan_of("cyx", (1, 5000, 5000), limit=400 << 20, width=64)
    proposed = float(str(caught.value).split("--memory ")[1].split("GiB")[0])
    assert plan_of("cyx", (1, 5000, 5000), limit=int(proposed * GIB), width=64).memory.total <= proposed * GIB


def test_the_prediction_for_candidates_is_that_of_the_plan() -> None:
    plan = plan_of("cyx", (1, 3000, 4000), width=16)
    demand = Demand(
        plan.source, plan.header.network, plan.outputs, Arithmetic(), plan.grid.roi,
        write_units("cyx", 2),
    )  # fmt: skip
    least = predicted(demand, plan.grid).total
    assert choose(demand, limit=least).grids[-1].tile <= plan.grid.grids[-1].tile
    assert least == plan.memory.total


def test_what_a_network_is_compared_with_fits_beside_it() -> None:
    plan = plan_of("cyx", (1, 3000, 4000), width=16)
    network, weights = plan.header.network, 4 * plan.header.network.parameters

    def memory(**how: Any) -> Memory[int]:
        demand = Demand(
            plan.source, network, plan.outputs, Arithmetic(**how), plan.grid.roi, write_units("cyx", 2)
        )
        return predicted(demand, plan.grid)

    exact, half = memory(), memory(precision="bfloat16")
    assert streams(network)
    half_tile = sum(strip_bytes(network, [grid.half_tile for grid in plan.spatial], item=4))
    assert all(grid.core / 2 <= grid.half_tile - grid.tile + grid.core < grid.core for grid in plan.spatial)
    assert half.activations >= max(0.49 * exact.activations, half_tile)
    assert half.network >= exact.network + weights
    assert memory(backend="nnpack").network >= exact.network + weights


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(tile=(100, 100)), "multiple of 16"),
        (Wanted(region=(500, 512)), "must be multiples of 512"),
        (Wanted(region=(512,)), "region of 1 sizes"),
        (Wanted(chunks=(64, 64, 64)), "axes y, x"),
        (Wanted(chunks=(16, 16), region=(48, 64)), r"at least 96 .* Use 96"),
    ],
    ids=["tile-off-lattice", "region-off-chunks", "too-few", "too-many", "thinner-than-context"],
)
def test_wanted_sizes_that_do_not_fit_are_refused(wanted: Wanted, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        plan_of("cyx", (1, 5000, 5000), width=8, wanted=wanted)


def test_the_granted_memory_does_not_depend_on_few_workers() -> None:
    assert default_limit(16, 128 * GIB, 1) == default_limit(16, 128 * GIB, 8)


LARGE = {
    "2-D": ("cyx", (1, 200_000, 200_000), {"width": 64}),
    "stack": ("czyx", (1, 500, 30_000, 30_000), {"width": 64}),
    "3-D": ("czyx", (1, 4096, 8192, 8192), {"width": 32, "depth": 3, "dims": 3}),
}
WORKERS = {
    "float32": (Arithmetic(), 4 * GIB),
    "bfloat16": (Arithmetic(precision="bfloat16"), 4 * GIB),
    "int8": (Arithmetic(precision="int8"), 4 * GIB),
    "gpu": (Arithmetic("cuda", "bfloat16", gpu_limit=64 * GIB), 32 * GIB),
}


@pytest.mark.parametrize(("axes", "shape", "network"), LARGE.values(), ids=LARGE.keys())
@pytest.mark.parametrize(("how", "limit"), WORKERS.values(), ids=WORKERS.keys())
def test_regions_of_large_volumes_are_worth_what_they_cost(
    axes: str, shape: tuple[int, ...], network: dict[str, int], how: Arithmetic, limit: int
) -> None:
    """Twenty times the 45 ms that one costs at worst, on a core and on a GPU."""
    plan = plan_of(axes, shape, limit=limit, how=how, **network)  # type: ignore[arg-type] # no Wanted among them
    assert len(plan.grid) >= 64
    assert plan.flop / len(plan.grid) / how.rate >= 0.9


def test_small_volumes_are_cut_for_many_workers() -> None:
    """Where that costs little: not every CPU is as fast as the plan takes it to be."""
    plan = plan_of("cyx", (1, 8192, 8192), width=32, how=Arithmetic(precision="bfloat16"))
    assert len(plan.grid) >= 12
    assert plan.redundancy < 1.15


@pytest.mark.parametrize("copies", [1, 3])
def test_chunks_of_the_source_are_counted_or_refused(copies: int) -> None:
    large = Decoding((30_000, 30_000), 900_000_000, copies)
    source: Any = Volume("cyx", (1, 30_000, 30_000), np.dtype(np.uint8), decoding=large)
    spec = NetworkSpec(width=4, depth=2)
    header = ModelHeader(spec, Normalisation("constant", (0.0,), (1.0,)), ("background", "class 1"))
    outputs = (product_of("classes", "uint8"),)
    roi = ((0, 1), (0, 600), (0, 600))
    plan = make_plan(source, header, outputs=outputs, limit=8 * GIB, roi=roi)
    assert plan.memory.total > 900_000_000 * copies
    with pytest.raises(MemoryPlanError, match=r"858\.3 MiB.*smaller chunks"):
        make_plan(source, header, outputs=outputs, limit=GIB, roi=roi)
