"""Bar B1: what comes out of Dask equals one pass over the whole mirrored image, whatever the cuts.

The bound is 1e-5 on probabilities in float32: other tile shapes take other kernels, so the last bits differ; a
seam would be a thousand times larger. The negative controls plant one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import zarr

from tests.oracle import disagreement, sure_classes_differ, whole_image, write_array
from unet_dask.engine.backend import TorchBackend
from unet_dask.engine.infer import Pass, infer
from unet_dask.model.file import load_model, new_model, save_model
from unet_dask.model.header import NetworkSpec, Normalisation
from unet_dask.pipeline import segment_store
from unet_dask.products import product_of
from unet_dask.tiling.mirror import extend
from unet_dask.tiling.region import AxisGrid
from unet_dask.tiling.valid import Context

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client
    from numpy.typing import NDArray

    from unet_dask.model.file import Model
    from unet_dask.workers.cluster import Cluster

BOUND = 1e-5


@pytest.fixture
def client(cluster: Cluster) -> Client:
    return cluster.client


@dataclass(frozen=True)
class Case:
    """A volume, a network, and how both are cut."""

    shape: tuple[int, ...]
    depth: int
    width: int = 8
    dims: int = 2
    source_chunks: tuple[int, ...] | None = None
    cuts: dict[str, tuple[int, ...]] | None = None
    roi: str | None = None
    factors: tuple[tuple[int, ...], ...] = ()


CASES = {
    "plan-chooses": Case((300, 410), 4),
    "primes": Case((257, 331), 3, cuts={"region": (64, 128), "tile": (64, 32), "chunks": (32, 64)}),
    "axis-shorter-than-halo": Case(
        (37, 300), 4, cuts={"region": (37, 112), "tile": (48, 48), "chunks": (16, 16)}
    ),
    "one-row": Case((1, 500), 3, cuts={"region": (8, 96), "tile": (8, 40), "chunks": (8, 32)}),
    "ragged-end-absorbed": Case(
        (130, 229), 3, cuts={"region": (64, 64), "tile": (24, 64), "chunks": (64, 64)}
    ),
    "tile-larger-than-region": Case(
        (150, 150), 2, cuts={"region": (64, 64), "tile": (96, 96), "chunks": (32, 64)}
    ),
    "region-of-interest-off-lattice": Case(
        (300, 300), 4, roi="13:250,101:299", cuts={"region": (112, 112), "tile": (64, 48), "chunks": (16, 56)}
    ),
    "two-rows-at-the-end": Case(
        (90, 300), 2, roi="88:90,0:300", cuts={"region": (48, 96), "tile": (64, 48), "chunks": (16, 48)}
    ),
    "odd-source-chunks": Case(
        (200, 333),
        4,
        source_chunks=(77, 50),
        cuts={"region": (112, 128), "tile": (112, 64), "chunks": (56, 32)},
    ),
    "volume": Case(
        (37, 53, 41), 2, dims=3, cuts={"region": (32, 32, 24), "tile": (16, 32, 8), "chunks": (16, 8, 8)}
    ),
    "volume-depth-3": Case(
        (13, 60, 101), 3, dims=3, cuts={"region": (16, 64, 48), "tile": (16, 32, 24), "chunks": (8, 16, 16)}
    ),
    "slices-far-apart": Case(
        (19, 53, 61),
        2,
        dims=3,
        cuts={"region": (14, 32, 24), "tile": (6, 32, 12), "chunks": (2, 16, 8)},
        factors=((1, 2, 2), (2, 2, 2)),
    ),
    "slices-never-pooled": Case(
        (23, 50, 61),
        2,
        dims=3,
        roi="3:22,0:50,7:61",
        cuts={"region": (11, 32, 24), "tile": (5, 16, 24), "chunks": (1, 16, 8)},
        factors=((1, 2, 2), (1, 2, 2)),
    ),
    "slices-of-a-volume": Case(
        (5, 150, 170), 3, cuts={"region": (64, 96), "tile": (32, 96), "chunks": (2, 32, 32)}
    ),
}


def model_of(case: Case, folder: Path) -> Model:
    spec = NetworkSpec(dims=case.dims, width=case.width, depth=case.depth, classes=3, factors=case.factors)
    model = new_model(spec, seed=1, normalisation=Normalisation("constant", (128.0,), (64.0,)))
    path = folder / "model.safetensors"
    save_model(model, path)
    return load_model(path)


def image_of(case: Case) -> NDArray[np.uint8]:
    rng = np.random.default_rng(len(case.shape))
    return rng.integers(0, 256, case.shape).astype(np.uint8)


def expected_of(case: Case, model: Model, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    if image.ndim > case.dims:
        return np.stack([whole_image(model, plane[None]) for plane in image], axis=1)
    return whole_image(model, image[None])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_tiled_equals_whole(case: Case, client: Client, tmp_path: Path) -> None:
    model, image = model_of(case, tmp_path), image_of(case)
    source = zarr.create_array(
        tmp_path / "source.zarr",
        shape=image.shape,
        chunks=case.source_chunks or tuple(min(64, size) for size in image.shape),
        dtype=image.dtype,
        dimension_names=tuple("zyx"[-image.ndim :]),
    )
    source[...] = image
    settings: dict[str, Any] = {**(case.cuts or {}), "roi": case.roi}
    segment_store(
        tmp_path / "source.zarr",
        tmp_path / "sink.zarr",
        model,
        client=client,
        products="classes,probabilities",
        precision="float32",
        memory="2GiB",
        **settings,
    )
    sink = zarr.open_group(tmp_path / "sink.zarr", mode="r")
    expected = expected_of(case, model, image)
    if case.roi:
        window = tuple(slice(*map(int, part.split(":"))) for part in case.roi.split(","))
        expected = expected[(slice(None), *window)]
    probabilities, classes = sink["probabilities/0"], sink["classes/0"]
    assert isinstance(probabilities, zarr.Array)
    assert isinstance(classes, zarr.Array)
    assert disagreement(np.asarray(probabilities[...]), expected) <= BOUND
    assert sure_classes_differ(np.asarray(classes[...]), expected) == 0


# The negative controls: each plants a fault that the comparison above must see.

HALO, STRIDE, SLACK = 44, 8, 4
SIZE = 160


def planted(
    model: Model, image: NDArray[np.uint8], *, phase: int = 0, short: int = 0, dask_mirror: bool = False
) -> NDArray[np.float32]:
    """Segment an image in 2 x 2 regions with a planted fault; none by default."""
    backend = TorchBackend(model, device="cpu", precision="float32")
    grid = AxisGrid(SIZE, 0, SIZE, SIZE // 2, SIZE // 2, Context(HALO, STRIDE, SLACK))
    result = np.empty((3, SIZE, SIZE), np.float32)
    for y, x in np.ndindex(2, 2):
        index = (y, x)
        read = tuple((grid.read(each)[0] - phase, grid.read(each)[1] - phase) for each in index)
        if dask_mirror:
            padded = da.overlap.overlap(
                da.from_array(image, chunks=-1), depth=HALO + SLACK, boundary="reflect"
            ).compute()
            window = padded[tuple(slice(a + HALO + SLACK, b + HALO + SLACK) for a, b in read)]
        else:
            window = extend(image, origin=(0, 0), read=read, shape=image.shape)
        if short:
            # A halo that is too short by some pixels: what lies beyond it was never read.
            mask = np.zeros(window.shape, bool)
            mask[short:-short, short:-short] = True
            window = np.where(mask, window, 0).astype(np.uint8)
        (values,) = infer(
            window[None],
            grids=(grid, grid),
            write=(grid.write(y), grid.write(x)),
            through=Pass(backend, model.header.normalisation, model.header.network),
            outputs=(product_of("probabilities", "float32"),),
        )
        (a, b), (c, d) = grid.write(y), grid.write(x)
        result[:, a:b, c:d] = values
    if phase:
        # Undo the shift, so that only the lattice differs.
        result = np.roll(result, -phase, axis=(1, 2))
    return result


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, NDArray[np.uint8]]:
    case = Case((SIZE, SIZE), 3)
    return model_of(case, tmp_path_factory.mktemp("model")), image_of(case)


def interior(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values[:, 8:-8, 8:-8]


def test_without_a_fault_the_control_agrees(subject: tuple[Model, NDArray[np.uint8]]) -> None:
    model, image = subject
    assert disagreement(planted(model, image), whole_image(model, image[None])) <= BOUND


@pytest.mark.parametrize(
    "fault",
    [{"short": 16}, {"phase": 4}, {"dask_mirror": True}],
    ids=["halo-16-short", "lattice-shifted-by-4", "dask-reflect"],
)
def test_a_planted_fault_is_seen(subject: tuple[Model, NDArray[np.uint8]], fault: dict[str, Any]) -> None:
    model, image = subject
    found = planted(model, image, **fault)
    expected = whole_image(model, image[None])
    if "phase" in fault:
        found, expected = interior(found), interior(expected)
    assert disagreement(found, expected) > 100 * BOUND


def test_batch_norm_is_tiled_exactly(client: Client, tmp_path: Path) -> None:
    spec = NetworkSpec(width=8, depth=3, classes=2, batch_norm=True)
    model = new_model(spec, seed=2, normalisation=Normalisation("constant", (128.0,), (64.0,)))
    for name, buffer in model.network.named_buffers():
        if name.endswith("running_var"):
            buffer.fill_(1.7)
    image = image_of(Case((200, 200), 3))
    write_array(tmp_path / "source.zarr", image)
    segment_store(
        tmp_path / "source.zarr", tmp_path / "sink.zarr", model, client=client,
        products=("probabilities",), precision="float32", region=(64, 64), tile=(64, 64), chunks=(64, 64),
    )  # fmt: skip
    found = zarr.open_array(tmp_path / "sink.zarr" / "probabilities" / "0", mode="r")[...]
    assert disagreement(np.asarray(found), whole_image(model, image[None])) <= BOUND


def test_volume_statistics_are_those_of_the_whole(client: Client, tmp_path: Path) -> None:
    image = (image_of(Case((200, 230), 3)).astype(np.uint16) * 12 + 300).astype(">u2")
    model = new_model(NetworkSpec(width=8, depth=3), seed=3, normalisation=Normalisation("volume"))
    write_array(tmp_path / "source.zarr", image)
    segment_store(
        tmp_path / "source.zarr", tmp_path / "sink.zarr", model, client=client,
        products=("probabilities",), precision="float32", region=(64, 96), chunks=(32, 32),
    )  # fmt: skip
    bound = model.with_statistics(mean=[float(image.mean())], std=[float(image.std())])
    found = zarr.open_array(tmp_path / "sink.zarr" / "probabilities" / "0", mode="r")[...]
    assert disagreement(np.asarray(found), whole_image(bound, image[None])) <= BOUND


def test_scaled_probabilities_round_the_float_ones(client: Client, tmp_path: Path) -> None:
    case = Case((100, 100), 2)
    model, image = model_of(case, tmp_path), image_of(case)
    write_array(tmp_path / "source.zarr", image)
    segment_store(
        tmp_path / "source.zarr", tmp_path / "sink.zarr", model, client=client,
        products=("probabilities",), probability_dtype="uint8", precision="float32",
    )  # fmt: skip
    found = zarr.open_array(tmp_path / "sink.zarr" / "probabilities" / "0", mode="r")
    expected = whole_image(model, image[None]) * 254
    assert found.fill_value == 255
    assert np.abs(np.asarray(found[...]).astype(np.float64) - expected).max() <= 0.51


def test_rgb_with_channels_last_is_segmented(client: Client, tmp_path: Path) -> None:
    spec = NetworkSpec(width=8, depth=2, channels=3)
    model = new_model(spec, seed=4, normalisation=Normalisation("constant", (128.0,) * 3, (64.0,) * 3))
    image = np.random.default_rng(0).integers(0, 256, (90, 110, 3)).astype(np.uint8)
    write_array(tmp_path / "slide.zarr", image)
    segment_store(
        tmp_path / "slide.zarr", tmp_path / "sink.zarr", model, client=client, products=("probabilities",),
        region=(32, 64), chunks=(16, 32), precision="float32",
    )  # fmt: skip
    found = zarr.open_array(tmp_path / "sink.zarr" / "probabilities" / "0", mode="r")[...]
    expected = whole_image(model, np.ascontiguousarray(np.moveaxis(image, -1, 0)))
    assert disagreement(np.asarray(found), expected) <= BOUND


def test_the_case_table_has_its_shapes() -> None:
    """The bar asks for at least six different region, tile and chunk shapes."""
    cuts = {str(case.cuts) for case in CASES.values()}
    assert len(cuts) >= 6
