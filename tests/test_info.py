"""What `info` says of a store, a model and a result, and that it needs neither torch nor dask to say it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import pytest
import zarr
from click.testing import CliRunner

from tests.manifests import manifest_of
from unet_dask.errors import InputError, ModelError
from unet_dask.info import describe, lines
from unet_dask.io.sink import store as sinks
from unet_dask.io.sink.multiscale import pyramid
from unet_dask.io.sink.store import ArraySpec, Sink
from unet_dask.io.source.volume import open_source
from unet_dask.ledger import Entry, Ledger
from unet_dask.model.file import new_model, save_model
from unet_dask.model.header import NetworkSpec

if TYPE_CHECKING:
    from pathlib import Path

    import click


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "cells.safetensors"
    save_model(new_model(NetworkSpec(dims=3, width=2, depth=3), training={"iterations": 12}), path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "volume.zarr"
    zarr.create_array(
        str(path),
        shape=(4, 90, 80),
        shards=(4, 64, 64),
        chunks=(2, 32, 32),
        dtype="uint16",
        dimension_names=["z", "y", "x"],
    )
    return path


@pytest.fixture
def sink(source: Path, tmp_path: Path) -> Path:
    """Return a result of two pieces of work, of which one is done."""
    path = tmp_path / "volume.seg.zarr"
    shape = (4, 90, 80)
    place = Sink(
        str(path), (ArraySpec("classes", "zyx", "uint8", (2, 64, 64), None, pyramid("zyx", shape, {})),)
    )
    manifest = manifest_of(
        place.arrays,
        ("background", "cell"),
        shape=shape,
        roi=((0, 2), (0, 90), (0, 80)),
        identity=open_source(source).identity() | {"software.unet-dask": "0.1.0"},
        work=2,
    )
    manifest["plan"] |= {"regions": 2, "region": [1, 1, 90, 80]}
    sinks.create(place, manifest, class_names=("a", "b"), spacing={}, unit={}, translation={}, name="v")
    with Ledger(place.run_folder) as ledger:
        ledger.append(Entry((0, 0, 0, 0)))
    return path


@pytest.fixture(scope="module")
def command() -> click.Group:
    (entry,) = entry_points(group="console_scripts", name="unet-dask")
    group: Any = entry.load().__globals__["group"]
    return group  # type: ignore[no-any-return] # what the console script runs


def test_model_is_described_from_its_header(model: Path) -> None:
    found = describe(model)
    assert (found["kind"], found["halo"], found["lattice"]) == ("model", [44, 44, 44], [8, 8, 8])
    assert found["classes"] == ["background", "class 1"]
    assert dict(lines(found))["training"] == "iterations 12"


def test_parameters_are_those_of_the_network(model: Path) -> None:
    network = new_model(NetworkSpec(dims=3, width=2, depth=3)).network
    assert describe(model)["parameters"] == sum(each.numel() for each in network.parameters())


def test_model_is_described_without_torch_and_dask(model: Path) -> None:
    code = (
        "import sys; from unet_dask.info import describe; describe(sys.argv[1]); "
        "assert not {'torch', 'dask', 'distributed'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_sharded_array_is_described(source: Path) -> None:
    found = describe(source)
    assert (found["kind"], found["axes"], found["shape"]) == ("image", "zyx", [4, 90, 80])
    assert (found["chunks"], found["shards"], found["dtype"]) == ([2, 32, 32], [4, 64, 64], "uint16")
    assert found["bytes"] == 4 * 90 * 80 * 2


def test_array_without_axes_is_described_all_the_same(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(3, 5, 7, 9), dtype="uint8")
    found = describe(tmp_path / "a.zarr")
    assert found["shape"] == [3, 5, 7, 9]
    assert found["origin_of_axes"] == "not stated; say it with --axes"


def test_group_of_several_arrays_is_listed(tmp_path: Path) -> None:
    group = zarr.create_group(str(tmp_path / "g.zarr"))
    for name in ("raw", "labels"):
        group.create_array(name, shape=(5, 7), dtype="uint8")
    found = describe(tmp_path / "g.zarr")
    assert found["kind"] == "group"
    assert [child["key"] for child in found["nodes"]] == ["labels", "raw"]
    assert dict(lines(found))["raw"] == "5 x 7, uint8"
    assert describe(tmp_path / "g.zarr", key="raw")["kind"] == "image"


def test_unfinished_result_says_how_much_is_done(sink: Path) -> None:
    found = describe(sink)
    assert (found["kind"], found["complete"], found["done"], found["total"]) == ("result", False, 1, 2)
    told = dict(lines(found))
    assert told["state"] == "1 of 2 blocks done; go on with segment --resume"
    assert told["part"] == "c 0:1, z 0:2, y 0:90, x 0:80"


def test_result_is_complete_once_its_ledger_is_compacted(sink: Path) -> None:
    ledger = Ledger(f"{sink}/_unet_dask")
    ledger.append(Entry((0, 0, 1, 0)))
    ledger.compact(len(ledger.finished()))
    assert describe(sink)["state"] == "complete"


def test_product_of_a_result_is_an_image(sink: Path) -> None:
    found = describe(sink / "classes")
    assert (found["kind"], len(found["levels"]), found["axes"]) == ("image", 1, "zyx")


def test_what_is_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a path nor the name of a model"):
        describe("nosuchmodel")
    with pytest.raises(InputError, match="There is no"):
        describe(tmp_path / "none.zarr")


def test_command_prints_json(sink: Path, command: click.Group) -> None:
    done = CliRunner().invoke(command, ["info", str(sink), "--json"])
    assert json.loads(done.output)["total"] == 2


def test_command_fits_a_screen(sink: Path, command: click.Group) -> None:
    done = CliRunner().invoke(command, ["info", str(sink)])
    assert done.exit_code == 0
    assert len(done.output.splitlines()) < 24
