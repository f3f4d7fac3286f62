"""A product that a newcomer adds: one class and one line, and everything knows it.

The workers of the cluster are threads of this process, which has registered it; a product of the package is known to
every process, as the text of `PRODUCTS` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v05.image import Image

from unet_dask import segment, segment_store
from unet_dask.config import SegmentConfig
from unet_dask.errors import OptionError
from unet_dask.info import describe
from unet_dask.picture.preview import preview
from unet_dask.products import PRODUCTS
from unet_dask.products.product import Product
from unet_dask.verify.store import verify_store
from unet_dask.viewer.scene import Scene, Where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray


class Certainty(Product):
    """By how much the most probable class is more probable than the next."""

    __slots__ = ()

    name = "certainty"
    types = ("float32",)
    amounts = True

    def keep(self, probabilities: NDArray[np.float32], values: NDArray[np.generic]) -> None:
        *_, second, first = np.sort(probabilities, axis=0)
        values[...] = first - second

    def differences(
        self, found: NDArray[Any], probabilities: NDArray[np.float32], tolerance: float
    ) -> tuple[int, str]:
        expected = np.empty_like(found)
        self.keep(probabilities, expected)
        distance = np.abs(found - expected)
        return int((~(distance <= 2 * tolerance)).sum()), f"largest difference {distance.max():.2g}"


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRODUCTS, Certainty.name, Certainty)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as opened,
    ):
        yield opened


@pytest.fixture
def made(client: Client, tmp_path: Path, tiny_model: Path, make_source: Callable[..., Path]) -> Path:
    """Return a result of the new product beside an old one, of several regions and a pyramid."""
    source, sink = make_source(tmp_path / "image.zarr", (600, 64)), tmp_path / "out.zarr"
    segment_store(
        source, sink, tiny_model, client=client, products="certainty,probabilities", memory="1GiB",
        region=(128, 64), chunks=(64, 64), tile=(64, 64),
    )  # fmt: skip
    return sink


def stored(sink: Path, path: str) -> NDArray[Any]:
    return np.asarray(zarr.open_array(sink, path=path, mode="r")[...])


def test_it_is_segmented_verified_and_shown(made: Path, tiny_model: Path, tmp_path: Path) -> None:
    low, high = np.sort(stored(made, "probabilities/0"), axis=0)
    np.testing.assert_allclose(stored(made, "certainty/0"), high - low, rtol=0, atol=1e-6)
    assert stored(made, "certainty/1").shape == (300, 32)
    assert open_ome_zarr(made / "certainty").__class__ is Image
    checked = verify_store(made, tiny_model)
    assert (checked.findings, checked.crops) == ((), 4)
    assert [product["name"] for product in describe(made)["products"]] == ["certainty", "probabilities"]
    scene = Scene(str(made))
    assert "certainty" in [layer["name"] for layer in scene.describe()["layers"]]
    assert scene.tile("certainty", "all", Where(1, 0, 0), None).any()
    assert scene.voxel(3, 5)["certainty"] == f"{stored(made, 'certainty/0')[3, 5]:.3f}"
    assert preview(made, tmp_path / "p.png").unwritten == 0


def test_what_is_not_its_value_is_found(made: Path, tiny_model: Path) -> None:
    array = zarr.open_array(made, path="certainty/0", mode="r+")
    array[:] = 0.5
    assert {finding.kind for finding in verify_store(made, tiny_model).findings} >= {"values", "crop"}


def test_it_is_made_lazily(tiny_model: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    both = segment(image, tiny_model, output="probabilities")
    certainty: NDArray[Any] = segment(image, tiny_model, output="certainty")  # type: ignore[arg-type] # known since it was registered
    np.testing.assert_allclose(certainty, np.abs(both[1] - both[0]), rtol=0, atol=1e-6)


def test_background_of_a_mask_is_certain() -> None:
    values = np.full((1, 4, 4), np.nan, np.float32)
    Certainty("float32").clear(values, np.ones((1, 4, 4), bool))
    assert (values == 1).all()


def test_help_and_shell_know_it(call_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    told = " ".join(call_cli("segment", "--help").stdout.split())
    assert "One or more of classes, probabilities, instances, certainty [classes]." in told
    assert "[probabilities|certainty|classes|instances]" in call_cli("evaluate", "--help").stdout
    monkeypatch.setenv("_UNET_DASK_COMPLETE", "fish_complete")
    monkeypatch.setenv("COMP_WORDS", "unet-dask segment --products classes,c")
    monkeypatch.setenv("COMP_CWORD", "classes,c")
    offered = call_cli().stdout
    assert "classes,certainty\tBy how much the most probable class is more probable than the next." in offered


def test_it_is_run_and_scored_by_the_commands(
    client: Client,
    tmp_path: Path,
    tiny_model: Path,
    make_source: Callable[..., Path],
    call_cli: Callable[..., Any],
) -> None:
    source, sink = make_source(tmp_path / "image.zarr", (64, 64)), tmp_path / "out.zarr"
    truth = make_source(tmp_path / "truth.zarr", (64, 64))
    where = ("--scheduler", client.scheduler.address)
    made = call_cli("segment", source, "-o", sink, "-m", tiny_model, "--products", "certainty", "-q", *where)
    assert (made.code, made.stderr) == (0, "")
    scored = call_cli("evaluate", sink, truth, "--product", "certainty", "--metrics", "pixel", "-q")
    assert scored.code == 0, scored.stderr
    assert "no product" in call_cli("segment", source, "-m", tiny_model, "--products", "doubt").stderr


def test_it_is_named_where_products_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SegmentConfig(products=("certainty",)).products == ("certainty",)
    monkeypatch.delitem(PRODUCTS, "certainty")
    with pytest.raises(OptionError, match="Use one or more of: classes, probabilities, instances"):
        SegmentConfig(products=("certainty",))
