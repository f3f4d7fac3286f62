from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from unet_dask.errors import OptionError
from unet_dask.training.config import TrainConfig, load_config

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("momentum", 0.99, id="section-3"),
        pytest.param("w0", 10.0, id="eq-2-w0"),
        pytest.param("sigma", 5.0, id="eq-2-sigma"),
        pytest.param("elastic_sigma", 10.0, id="section-3.1-deviation"),
        pytest.param("elastic_grid", 3, id="section-3.1-grid"),
        pytest.param("width", 64, id="fig-1-width"),
        pytest.param("depth", 4, id="fig-1-depth"),
        pytest.param("batch_norm", False, id="fig-1-no-batch-norm"),
    ],
)
def test_defaults_are_the_papers(name: str, value: object) -> None:
    assert getattr(TrainConfig(), name) == value


def test_file_replaces_defaults(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('width = 16\ntile = [32, 64]\nclass_names = ["a", "b"]\nlearning_rate = 1\n')
    assert load_config(path) == TrainConfig(width=16, tile=(32, 64), class_names=("a", "b"), learning_rate=1)


def test_factors_come_from_a_file_and_are_recorded_where_they_are_used(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("dims = 3\ndepth = 2\nfactors = [[1, 2, 2], [2, 2, 2]]\n")
    config = load_config(path)
    assert config.network(channels=3).stride == (2, 4, 4)
    assert config.to_record()["factors"] == [(1, 2, 2), (2, 2, 2)]
    assert (
        not {"factors", "architecture"} & TrainConfig().to_record().keys()
    )  # records of before keep their bytes


def test_a_recipe_of_before_names_settings_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("settle = 0.25\n")
    assert load_config(path) == TrainConfig(freeze_norm_after=0.25)
    path.write_text("settle = 0.25\nfreeze_norm_after = 0.5\n")
    with pytest.raises(OptionError, match="settle is what freeze_norm_after was called before"):
        load_config(path)


def test_unknown_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("learning_rat = 1e-3\n")
    with pytest.raises(OptionError, match=r"no setting 'learning_rat'.*mean learning_rate\?"):
        load_config(path)


@pytest.mark.parametrize("text", ["width = ", "width = 16\nwidth = 32"])
def test_broken_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(OptionError, match=r"recipe\.toml cannot be read") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 1.5}, "width must be of type int"),
        ({"width": True}, "width must be of type int"),
        ({"momentum": 1.0}, "momentum must be from"),
        ({"iterations": 0}, "iterations must be from 1"),
        ({"target_kind": "masks"}, "auto or classes or instances"),
        ({"spacing": [1.0]}, "spacing of 2 values"),
        ({"tile": [1, 2, 3]}, "tile of 1 or 2 values"),
        ({"ignore": "no"}, "ignore must be of type int"),
    ],
)
def test_unusable_value_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TrainConfig().updated(settings)
