"""The command line with a network of others: from file to result, looked at again, and what is refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

import unet_dask
from tests.model.foreign.networks import exported
from tests.model.foreign.test_networks import in_one_piece
from unet_dask.engine.cache import NetworkKey, network
from unet_dask.engine.dependence import dependence
from unet_dask.engine.foreign import OnnxBackend
from unet_dask.errors import MemoryPlanError, ModelError, OptionError
from unet_dask.info import describe
from unet_dask.io.sink.place import read_manifest
from unet_dask.model.file import inspect_model
from unet_dask.model.foreign import graph
from unet_dask.model.header import Normalisation
from unet_dask.training.config import network_of

if TYPE_CHECKING:
    from pathlib import Path

NAME = "U-Net"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    path.write_bytes(exported(NAME))
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "image.zarr"
    image = zarr.create_array(path, shape=(210, 330), chunks=(64, 64), dtype="float32")
    image[:] = np.random.default_rng(2).standard_normal((210, 330))
    return path


def test_a_store_is_segmented_and_verified(net: Path, source: Path, tmp_path: Path) -> None:
    sink = tmp_path / "result.zarr"
    run = unet_dask.segment_store(
        source,
        sink,
        net,
        axes="yx",
        products="classes,probabilities",
        workers=1,
        tile="32,64",
        chunks="64,64",
        region="64,128",
    )
    assert any("measured halo" in note for note in run.notes)
    assert any("mirror images" in note for note in run.notes)
    expected = in_one_piece(NAME, np.asarray(zarr.open_array(source)[:], np.float32)[None])
    found = np.asarray(zarr.open_array(sink / "probabilities" / "0")[:]).reshape(expected.shape)
    assert np.abs(found - expected).max() <= 1e-5
    manifest = read_manifest(str(sink))
    assert manifest is not None
    assert manifest.model.name == "net.onnx"
    assert manifest.model.checksum == hashlib.sha256(net.read_bytes()).hexdigest()
    assert manifest.fingerprint["software.onnxruntime"]
    assert run.peak_bytes <= run.plan.memory.total
    report = unet_dask.verify_store(sink, model=net)
    assert report.findings == ()
    again = unet_dask.segment_store(
        source,
        sink,
        net,
        resume=True,
        axes="yx",
        products="classes,probabilities",
        workers=1,
        tile="32,64",
        chunks="64,64",
        region="64,128",
    )
    assert again.computed == 0


def test_it_says_what_it_is(net: Path) -> None:
    found = describe(str(net))
    assert (found["kind"], found["path"], found["lattice"]) == ("model", str(net), [4, 4])
    assert found["checksum"] == hashlib.sha256(net.read_bytes()).hexdigest()
    assert any("mirror" in note for note in found["notes"])
    json.dumps(found)


@pytest.mark.parametrize(
    "settings",
    [{"precision": "bfloat16"}, {"backend": "nnpack"}, {"precision": "int8"}],
)
def test_it_is_run_in_float32_by_its_own_runtime(settings: dict[str, Any], net: Path, source: Path) -> None:
    with pytest.raises(OptionError, match="ONNX Runtime, in float32 on a CPU"):
        unet_dask.plan_store(source, net, axes="yx", **settings)


def test_an_array_is_segmented_in_no_other_numbers(net: Path) -> None:
    image = np.zeros((64, 64), np.float32)
    with pytest.raises(OptionError, match="ONNX Runtime, in float32 on a CPU"):
        unet_dask.segment(image, net, precision="bfloat16")


def test_it_is_not_trained_further(net: Path) -> None:
    with pytest.raises(ModelError, match="not trained further"):
        network_of(inspect_model(net).header)
    with pytest.raises(ModelError, match="neither trained nor saved"):
        unet_dask.load_model(net).ours  # noqa: B018


def test_its_memory_is_planned(net: Path, source: Path) -> None:
    plan = unet_dask.plan_store(source, net, axes="yx", memory="1GiB")
    assert plan.precision == "float32"
    assert plan.memory.activations > 4 * plan.header.network.channels * plan.tile[0] * plan.tile[1]
    with pytest.raises(MemoryPlanError):
        unet_dask.plan_store(source, net, axes="yx", memory="300MiB")


def test_a_change_beyond_the_halo_that_was_not_seen_is_seen_on_the_data(net: Path) -> None:
    file = inspect_model(net)
    key = NetworkKey(str(file.path), file.checksum, "cpu", "float32")
    plain = Normalisation("constant", (0.0,), (1.0,))
    tile = np.random.default_rng(0).standard_normal((1, 96, 96)).astype(np.float32)
    assert dependence(key, tile, plain) <= 1e-5
    backend = network(key)
    assert isinstance(backend, OnnxBackend)
    believed = backend.spec
    try:
        backend.spec = replace(believed, halo=(0, 0), reach=(0, 0))
        assert dependence(key, tile, plain) > 1e-3
    finally:
        backend.spec = believed


def test_nothing_of_onnx_is_imported_for_other_models(source: Path) -> None:
    code = (
        "import sys, unet_dask\n"
        f"unet_dask.plan_store({str(source)!r}, 'nuclei', axes='yx')\n"
        "assert not {'onnx', 'onnxruntime'} & set(sys.modules), sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(exported("same-padded"))
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    with pytest.raises(OptionError, match=r"unet-dask\[onnx\]") as caught:
        inspect_model(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_onnx_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"this is no protocol buffer at all")
    with pytest.raises(ModelError, match=r"net\.onnx cannot be used\. It is not an ONNX file"):
        inspect_model(path)


def test_a_graph_that_needs_code_is_refused() -> None:
    from onnx import TensorProto, helper

    space = [1, 1, None, None]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, space) for name in "xy"]
    node = helper.make_node("Own", ["x"], ["y"], domain="my.own")
    model = helper.make_model(helper.make_graph([node], "net", ends[:1], ends[1:]))
    with pytest.raises(ModelError, match=r"my\.own"):
        graph.usable(model.SerializeToString())
