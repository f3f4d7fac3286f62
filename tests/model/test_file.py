"""Model files: the same network comes back, or nothing does."""

from __future__ import annotations

import os
import pickle
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import unet_dask
from unet_dask.errors import ModelError
from unet_dask.model.file import find_model, inspect_model, model_file, normalise, verify_model
from unet_dask.model.header import NetworkSpec, Normalisation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unet_dask.model.file import Model

SPEC = NetworkSpec(dims=2, width=4, depth=2)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Model, Path]:
    model = unet_dask.new_model(SPEC, seed=3, normalisation=Normalisation("constant", (7.0,), (2.0,)))
    unet_dask.save_model(model, tmp_path / "net.safetensors")
    return model, tmp_path / "net.safetensors"


def test_saved_model_comes_back(saved: tuple[Model, Path]) -> None:
    model, path = saved
    found = unet_dask.load_model(path)
    assert found.header == model.header
    assert found.checksum == model.checksum
    image = torch.rand(1, 1, 60, 60)
    assert torch.equal(found.network(image), model.network(image))


def test_half_precision_file_is_half_as_large_and_loads(tmp_path: Path, saved: tuple[Model, Path]) -> None:
    model, path = saved
    unet_dask.save_model(model, tmp_path / "half.safetensors", half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * path.stat().st_size
    found = unet_dask.load_model(tmp_path / "half.safetensors")
    assert all(value.dtype == torch.float32 for value in found.network.parameters())


def test_writing_twice_gives_the_same_bytes(tmp_path: Path, saved: tuple[Model, Path]) -> None:
    model, path = saved
    unet_dask.save_model(model, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_missing_checksum_is_damage(tmp_path: Path, saved: tuple[Model, Path]) -> None:
    model, path = saved
    save_file(load_file(path), path, metadata={"unet_dask": model.header.to_json()})
    with pytest.raises(ModelError, match="does not match its checksum"):
        unet_dask.load_model(path)


def test_a_changed_digit_of_the_normalisation_is_damage(saved: tuple[Model, Path]) -> None:
    path = saved[1]
    content = path.read_bytes()
    at = content.index(b"[", content.index(b"offset")) + 1
    digit = b"7" if content[at : at + 1] != b"7" else b"8"
    path.write_bytes(content[:at] + digit + content[at + 1 :])
    with pytest.raises(ModelError, match="does not match its checksum"):
        unet_dask.load_model(path)


def test_checksum_is_verified_without_torch(saved: tuple[Model, Path]) -> None:
    verify_model(inspect_model(saved[1]))


@pytest.mark.parametrize("position", [-1, -100, -1000, -5000])
def test_flipped_bit_in_the_weights_is_damage(saved: tuple[Model, Path], position: int) -> None:
    path = saved[1]
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is damaged"):
        unet_dask.load_model(path)
    with pytest.raises(ModelError, match="is damaged"):
        verify_model(inspect_model(path))


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 5000])
def test_truncated_file_is_refused(saved: tuple[Model, Path], kept: int) -> None:
    path = saved[1]
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError):
        unet_dask.load_model(path)


def test_a_flipped_byte_of_the_header_is_an_error_or_nothing(saved: tuple[Model, Path]) -> None:
    path = saved[1]
    sound = path.read_bytes()
    rng = np.random.default_rng(0)

    def outcome() -> Model | ModelError:
        content = bytearray(sound)
        content[int(rng.integers(0, 1500))] ^= int(rng.integers(1, 256))
        path.write_bytes(content)
        try:
            return unet_dask.load_model(path)
        except ModelError as error:
            return error

    outcomes = [outcome() for _ in range(150)]
    assert sum(isinstance(each, ModelError) for each in outcomes) > 75
    assert all(each.header == saved[0].header for each in outcomes if not isinstance(each, ModelError))


def torch_checkpoint(path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, path)


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": [1, 2, 3]}))


@pytest.mark.parametrize("write", [torch_checkpoint, plain_pickle])
@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.safetensors"])
def test_pickles_are_never_opened(write: Callable[[Path], None], name: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    with pytest.raises(ModelError, match="never opened"):
        unet_dask.load_model(tmp_path / name)


def test_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(ModelError, match=r"Names are: .*nuclei.*UNET_DASK_MODELS"):
        unet_dask.load_model("mitochondria")


def test_models_in_listed_folders_have_names(
    saved: tuple[Model, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = saved
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        shutil.copy(path, folder / "mine.safetensors")
    shutil.copy(path, first / "nuclei.safetensors")
    monkeypatch.setenv("UNET_DASK_MODELS", f"{tmp_path / 'none'}{os.pathsep}{first}{os.pathsep}{second}")
    assert find_model("mine") == first / "mine.safetensors"
    assert (
        find_model("nuclei").parent.name == "bundled"
    )  # its own comes first, so that nothing can stand in for it
    assert unet_dask.load_model("mine").header == model.header


def test_unwritable_place_is_one_error(saved: tuple[Model, Path]) -> None:
    with pytest.raises(ModelError, match="cannot be written"):
        unet_dask.save_model(saved[0], saved[1] / "below" / "net.safetensors")


def test_failed_save_leaves_nothing_half_written(
    saved: tuple[Model, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ModelError, match="No space left"):
        unet_dask.save_model(saved[0], tmp_path / "full.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.safetensors"]


def test_changed_weights_are_saved_for_the_workers(saved: tuple[Model, Path]) -> None:
    model = unet_dask.load_model(saved[1])
    with torch.no_grad():
        next(iter(model.network.parameters())).add_(1)
    with model_file(model) as file:
        assert file.checksum != model.checksum
        assert file.path != saved[1]


def test_normalisation_is_a_map_of_single_values() -> None:
    image = np.arange(12, dtype=">u2").reshape(1, 3, 4)
    constants = Normalisation("constant", (4.0,), (2.0,))
    expected = ((np.arange(12).reshape(1, 3, 4) - 4) / 2).astype(np.float32)
    found = normalise(image, constants)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_volume_statistics_must_be_bound_first() -> None:
    with pytest.raises(ModelError, match="with_statistics"):
        normalise(np.zeros((1, 2, 2)), Normalisation("volume"))


def test_wrong_number_of_channels_is_named() -> None:
    with pytest.raises(ModelError, match="1 channels, but the image has 3"):
        normalise(np.zeros((3, 2, 2)), Normalisation("constant", (0.0,), (1.0,)))
