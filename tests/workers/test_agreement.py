"""Two ways to run a network are compared on what is segmented, wherever that lies in a region."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from tests.oracle import write_array
from tests.run.test_run import make_model
from unet_dask.io.source.mask import open_mask
from unet_dask.io.source.volume import open_source, read_window
from unet_dask.model.header import Normalisation
from unet_dask.pipeline import plan_store
from unet_dask.workers.agreement import ProbeInput, _agreement, _spread, _tile, sites_by_contrast

if TYPE_CHECKING:
    from pathlib import Path

    from unet_dask.workers.cluster import Cluster

CONSTANT = Normalisation("constant", (0.0,), (1.0,))


@pytest.mark.parametrize("roi", [None, "13:300,5:338"])
@pytest.mark.parametrize("at", [(0, 0), (130, 131), (250, 300), (299, 339)], ids=str)
def test_only_what_the_mask_holds_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: tuple[int, int], roi: str | None
) -> None:
    """The source is bright where the mask is, so each tile shows what should be compared in it."""
    mask = np.zeros((300, 340), "u1")
    mask[at[0] : at[0] + 9, at[1] : at[1] + 20] = 1
    path = str(write_array(tmp_path / "mask.zarr", mask))
    source = str(write_array(tmp_path / "s.zarr", 10 + 190 * mask))
    sizes: dict[str, Any] = {"region": (128, 128), "tile": (64, 64), "chunks": (64, 64), "roi": roi}
    plan = plan_store(source, make_model(tmp_path), mask=path, memory="1GiB", **sizes)
    seen: list[tuple[Any, Any]] = []

    def look(key: Any, reference: Any, tile: Any, constants: Any, inside: Any) -> tuple[int, int]:
        seen.append((tile, inside))
        return 1, 1

    monkeypatch.setattr("unet_dask.engine.compare.agreement", look)
    opened, halo, key = open_source(source), plan.header.network.halo[0], Any
    probe = ProbeInput(opened.spec, plan.grid, 2, CONSTANT, "stop", open_mask(path, opened))
    for index in plan.grid.indices():
        shares = _agreement((index, 0.0), key, key, probe)  # type: ignore[arg-type] # nothing is run
        assert (
            shares is None
            if index in plan.skipped
            else (shares == (1, 1) or not mask[_box(plan, index)].any())
        )
    touched = bool((mask[13:300, 5:338] if roi else mask).any())
    assert bool(seen) == touched
    for tile, inside in seen:
        shown = tile[0, halo : halo + inside.shape[0], halo : halo + inside.shape[1]]
        assert inside.any()
        assert (shown[inside] == 200).all()
    assert all(index not in plan.skipped for index, _ in _spread(plan.grid, plan.skipped))
    assert len(_spread(plan.grid, plan.skipped)) >= touched


def test_what_has_contrast_is_looked_at_first(tmp_path: Path, cluster: Cluster) -> None:
    image = np.full((900, 700), 7, "u1")
    source = str(write_array(tmp_path / "s.zarr", image))
    sizes: dict[str, Any] = {"region": (128, 128), "tile": (64, 64), "chunks": (64, 64)}
    plan = plan_store(source, make_model(tmp_path), memory="1GiB", **sizes)
    looked_at = _spread(plan.grid, plan.skipped)
    assert len(looked_at) == len(set(looked_at)) > 20
    some = looked_at[7][0]
    y, x = (slice(*each) for each in plan.grid.write(some)[1:])
    image[y, x] = np.arange(y.stop - y.start)[:, None]
    zarr.open_array(source)[...] = image
    probe = ProbeInput(open_source(source).spec, plan.grid, 2, CONSTANT, "stop")
    found = sites_by_contrast(cluster, probe, plan.skipped)
    assert max(abs(a - b) for a, b in zip(found[0][0], some, strict=True)) <= 1  # its neighbours see it too
    assert set(found) == set(looked_at)


def test_one_region_is_looked_at_in_many_places(tmp_path: Path) -> None:
    """Ranges for bytes were measured in its first corner alone."""
    image = np.random.default_rng(0).integers(0, 256, (500, 500), dtype="u1")
    source = str(write_array(tmp_path / "s.zarr", image))
    plan = plan_store(source, make_model(tmp_path), region=(512, 512), tile=(64, 64), memory="1GiB")
    assert len(plan.grid) == 1
    probe = ProbeInput(open_source(source).spec, plan.grid, 2, CONSTANT, "stop")
    sites = _spread(plan.grid, plan.skipped)
    tiles = [found[0].tobytes() for site in sites if (found := _tile(site, probe, 32)) is not None]
    assert len(sites) == len(set(tiles)) > 20


@pytest.mark.parametrize("held", [range(3, 6), range(5, 6), range(0)], ids=str)
def test_the_first_plane_that_a_mask_holds_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: range
) -> None:
    """And little more than that is read: over a network the contrast of 32 whole regions would be the volume."""
    image = np.random.default_rng(0).integers(0, 256, (6, 300, 340), dtype="u1")
    mask = np.zeros(image.shape, "u1")
    mask[list(held), 140:200, 150:260] = 1
    path = str(write_array(tmp_path / "mask.zarr", mask))
    source = str(write_array(tmp_path / "s.zarr", image))
    sizes: dict[str, Any] = {"region": (256, 256), "tile": (64, 64), "chunks": (6, 64, 64)}
    plan = plan_store(source, make_model(tmp_path), mask=path, memory="1GiB", **sizes)
    opened, read = open_source(source), []

    def reading(spec: Any, window: tuple[slice, ...]) -> Any:
        read.append(window)
        return read_window(spec, window)

    monkeypatch.setattr("unet_dask.io.source.volume.read_window", reading)
    probe = ProbeInput(opened.spec, plan.grid, 2, CONSTANT, "stop", open_mask(path, opened))
    found = [each for index in plan.grid.indices() if (each := _tile((index, 0.4), probe, 32)) is not None]
    assert bool(found) == bool(held)
    halo = plan.header.network.halo[0]
    for tile, inside in found:
        assert inside.any()
        shown = tile[0, halo : halo + inside.shape[0], halo : halo + inside.shape[1]]
        assert any(
            np.array_equal(shown, image[held[0], y : y + len(shown), x : x + shown.shape[1]])
            for y in range(300)
            for x in range(340)
        )
    for window in read:
        assert window[1] == slice(held[0], held[0] + 1)
        assert max(each.stop - each.start for each in window[-2:]) <= 64 + 2 * halo + 8


def _box(plan: Any, index: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(*each) for each in plan.grid.write(index)[1:])
