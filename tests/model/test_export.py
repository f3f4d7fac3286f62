"""Models of ours as graphs of ONNX, run by ONNX Runtime as other programs run them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import unet_dask
from tests.conftest import SCRIPT
from unet_dask.errors import ModelError, OptionError
from unet_dask.model.export import export_onnx
from unet_dask.model.file import load_model, new_model
from unet_dask.model.header import NetworkSpec, Normalisation

if TYPE_CHECKING:
    from pathlib import Path

runtime: Any = pytest.importorskip("onnxruntime")

KINDS: list[dict[str, Any]] = [
    {"width": 4, "depth": 2},
    {"width": 4, "depth": 1, "factors": ((1, 2),), "batch_norm": True, "classes": 3},
    {"width": 2, "depth": 2, "dims": 3, "factors": ((1, 2, 2), (2, 2, 2)), "channels": 2},
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_model_gives_our_probabilities(kind: dict[str, Any], tmp_path: Path) -> None:
    spec = NetworkSpec(**kind)
    constants = Normalisation("constant", (3.0,) * spec.channels, (2.0,) * spec.channels)
    model = new_model(spec, seed=1, normalisation=constants)
    session = runtime.InferenceSession(str(export_onnx(model, tmp_path / "net.onnx")))
    axes = "c" * (spec.channels > 1) + "zyx"[-spec.dims :]
    for shape in ({2: (96, 128), 3: (24, 32, 48)}[spec.dims], (48,) * spec.dims):
        image = np.random.default_rng(0).normal(3, 2, (spec.channels, *shape)).astype(np.float32)
        (made,) = session.run(None, {"image": image[None]})
        array = image if spec.channels > 1 else image[0]
        ours = np.asarray(unet_dask.segment(array, model, output="probabilities", axes=axes))
        assert ours.std() > 0.01
        assert np.abs(made[0] - ours).max() <= 1e-4


def test_an_exported_model_comes_in_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reach is ours, and so are its probabilities, border included: it mirrors as we do."""
    pytest.importorskip("onnx")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    spec = NetworkSpec(width=4, depth=2)
    model = new_model(spec, seed=1)
    path = export_onnx(model, tmp_path / "net.onnx")
    again = load_model(path)
    assert again.header.network.stride == spec.stride
    assert min(again.header.network.halo) >= max(spec.halo)
    assert again.header.network.head == "shares"
    image = np.random.default_rng(0).standard_normal((131, 90)).astype(np.float32)
    first, second = (
        np.asarray(unet_dask.segment(image, each, output="probabilities"), np.float32)
        for each in (model, again)
    )
    assert np.abs(first - second).max() <= 1e-5


def test_the_command_exports_a_named_model(tmp_path: Path) -> None:
    path = tmp_path / "nuclei.onnx"
    done = subprocess.run(
        [SCRIPT, "export-model", "nuclei", "--mean", "310", "--std", "190", "-o", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "multiples of" in done.stderr
    session = runtime.InferenceSession(str(path))
    assert session.get_outputs()[0].name == "probabilities"


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    of_volume = new_model(NetworkSpec(width=2, depth=1), normalisation=Normalisation("volume"))
    with pytest.raises(ModelError, match="cannot know"):
        export_onnx(of_volume, tmp_path / "net.onnx")
    with pytest.raises(OptionError, match=r"\.onnx"):
        export_onnx(new_model(NetworkSpec(width=2, depth=1)), tmp_path / "net.pt")
