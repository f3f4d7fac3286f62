"""Packages of the BioImage Model Zoo: what is believed of them, what is not, and that nothing of them is run."""

from __future__ import annotations

import hashlib
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml

from tests.model.foreign.networks import exported, made
from unet_dask.errors import ModelError
from unet_dask.model.file import inspect_model
from unet_dask.model.foreign.spec import MeasuredSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "U-Net"
MEAN, STD = 0.3, 1.7


def old(halo: int) -> dict[str, Any]:
    """Return a description of version 0.4."""
    how = {"mode": "fixed", "axes": "yx", "mean": [MEAN], "std": [STD]}
    return {
        "format_version": "0.4.10",
        "type": "model",
        "inputs": [
            {
                "name": "raw",
                "axes": "bcyx",
                "data_type": "float32",
                "preprocessing": [{"name": "zero_mean_unit_variance", "kwargs": how}],
            }
        ],
        "outputs": [{"name": "cells", "axes": "bcyx", "halo": [0, 0, halo, halo]}],
        "test_inputs": ["in.npy"],
        "test_outputs": ["out.npy"],
    }


def new(halo: int) -> dict[str, Any]:
    """Return a description of version 0.5."""

    def axes(**more: Any) -> list[dict[str, Any]]:
        channel = {"type": "channel", "channel_names": ["cells"]}
        return [{"type": "batch"}, channel, *({"type": "space", "id": each, **more} for each in "yx")]

    how = {"mean": MEAN, "std": STD}
    steps = [{"id": "fixed_zero_mean_unit_variance", "kwargs": how}, {"id": "ensure_dtype", "kwargs": {}}]
    return {
        "format_version": "0.5.4",
        "type": "model",
        "inputs": [
            {"id": "raw", "axes": axes(), "test_tensor": {"source": "in.npy"}, "preprocessing": steps}
        ],
        "outputs": [{"id": "cells", "axes": axes(halo=halo), "test_tensor": {"source": "out.npy"}}],
    }


def packed(folder: Path, document: dict[str, Any], **onnx: Any) -> Path:
    """Write a package, with a test image and what torch makes of it."""
    folder.mkdir()
    data = exported(NAME)
    (folder / "weights.onnx").write_bytes(data)
    (folder / "code.py").write_text("raise SystemExit('code of a package was run')\n")
    image = np.random.default_rng(0).standard_normal((1, 1, 48, 64)).astype(np.float32)
    with torch.inference_mode():
        output = made(NAME)((torch.from_numpy(image) - MEAN) / STD).numpy()
    np.save(folder / "in.npy", image)
    np.save(folder / "out.npy", output)
    document["weights"] = {
        "pytorch_state_dict": {"source": "w.pt", "architecture": {"source": "code.py", "callable": "Net"}},
        "onnx": {"source": "weights.onnx", "sha256": hashlib.sha256(data).hexdigest(), **onnx},
    }
    (folder / "rdf.yaml").write_text(yaml.safe_dump(document))
    return folder


@pytest.mark.parametrize("version", [old, new])
def test_a_package_is_taken_but_its_halo_is_not(
    version: Callable[[int], dict[str, Any]], tmp_path: Path
) -> None:
    folder = packed(tmp_path / "package", version(4))
    file = inspect_model(folder)
    spec = file.header.network
    assert isinstance(spec, MeasuredSpec)
    assert spec.declared == (4, 4)
    assert min(spec.halo) > 20
    assert any("declares a halo of 4 x 4" in note for note in spec.notes)
    assert file.header.normalisation.offset == pytest.approx((MEAN,))
    assert file.header.normalisation.scale == pytest.approx((STD,))
    assert file.checksum == hashlib.sha256((folder / "weights.onnx").read_bytes()).hexdigest()
    assert file.name == "package"
    assert file.header.class_names == ("background", "cells" if version is new else "class 1")


def test_a_package_may_be_a_zip_or_its_description(tmp_path: Path) -> None:
    folder = packed(tmp_path / "package", old(4))
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for path in folder.iterdir():
            opened.write(path, path.name)
    assert (
        inspect_model(archive).path == inspect_model(folder / "rdf.yaml").path == inspect_model(folder).path
    )


def test_a_package_that_does_not_pass_its_own_test_is_refused(tmp_path: Path) -> None:
    folder = packed(tmp_path / "package", old(4))
    np.save(folder / "out.npy", np.load(folder / "out.npy") + 0.01)
    with pytest.raises(ModelError, match="test image gives something else"):
        inspect_model(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda each: each["weights"].pop("onnx"), "no weights in ONNX .*pytorch_state_dict"),
        (lambda each: each["weights"]["onnx"].update(sha256="0" * 64), "not what the description says"),
        (lambda each: each["weights"]["onnx"].update(source="../weights.onnx"), "does not lie within it"),
        (lambda each: each["weights"]["onnx"].update(source="https://x.org/w"), "nothing is fetched"),
        (lambda each: each["inputs"][0].update(axes="byxc"), "axes b, y, x, c"),
        (lambda each: each["inputs"][0]["preprocessing"][0].update(name="scale_range"), "scale_range"),
        (lambda each: each["outputs"].append({}), "2 outputs"),
        (lambda each: each["outputs"][0].update(postprocessing=[{"name": "binarize"}]), "binarize"),
        (lambda each: each.update(type="dataset"), "describes no model"),
        (lambda each: each.pop("inputs"), "cannot be read"),
    ],
)
def test_what_cannot_be_taken_over_is_refused(
    change: Callable[[dict[str, Any]], object], says: str, tmp_path: Path
) -> None:
    document = old(4)
    folder = packed(tmp_path / "package", document)
    change(document)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ModelError, match=says) as caught:
        inspect_model(folder)
    assert "\n" not in str(caught.value)


def test_an_object_in_a_test_image_is_not_unpickled(tmp_path: Path) -> None:
    folder = packed(tmp_path / "package", old(4))
    np.save(folder / "in.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ModelError):
        inspect_model(folder)
