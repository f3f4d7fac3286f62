"""16-bit steps descend like those in float32; weights and what is saved stay float32."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from unet_dask.errors import MismatchError, OptionError
from unet_dask.model.file import inspect_model, load_model
from unet_dask.training.config import TrainConfig, network_of
from unet_dask.training.job import settings_of_torch
from unet_dask.training.loop import train

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.usefixtures("emulation")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_descends_like_float32(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path, precision: Any
) -> None:
    config = replace(quick, iterations=4, validation=0.0, dropout=0.0)
    exact = load_model(train(*toy, tmp_path / "exact.safetensors", config).model).network.state_dict()
    low = train(*toy, tmp_path / "low.safetensors", replace(config, precision=precision)).model
    found = load_model(low).network.state_dict()
    start = load_model(
        train(*toy, tmp_path / "start.safetensors", replace(config, learning_rate=1e-12)).model
    )
    moved = sum(
        float((value - start.network.state_dict()[name]).norm()) ** 2 for name, value in exact.items()
    )
    apart = sum(float((value - exact[name]).norm()) ** 2 for name, value in found.items())
    assert 0 < apart < 0.05 * moved
    assert all(value.dtype == torch.float32 for value in found.values())


def test_fine_tuning_begins_from_the_model(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    first = train(*toy, tmp_path / "first.safetensors", quick).model
    model = load_model(first)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    again = replace(quick, learning_rate=1e-12, seed=5, validation=0.0)
    tuned = load_model(train(*toy, tmp_path / "tuned.safetensors", again, start=model).model)
    assert all(
        torch.allclose(value, before[name], atol=1e-7) for name, value in tuned.network.state_dict().items()
    )
    assert tuned.header.training["started_from"] == model.checksum


def test_another_network_to_start_from_is_named(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    model = load_model(train(*toy, tmp_path / "first.safetensors", quick).model)
    with pytest.raises(OptionError, match="width = 4, but the training wants 8"):
        train(*toy, tmp_path / "tuned.safetensors", replace(quick, width=8), start=model)


def test_resume_from_another_start_is_refused(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    model = load_model(train(*toy, tmp_path / "first.safetensors", quick).model)
    path = tmp_path / "second.safetensors"
    train(*toy, path, quick, start=model)
    with pytest.raises(MismatchError, match="another model"):
        train(*toy, path, replace(quick, iterations=10), resume=True)


def test_settings_of_the_network_come_from_the_model(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    path = train(*toy, tmp_path / "first.safetensors", quick).model
    settings = network_of(inspect_model(path).header)
    assert TrainConfig().updated(settings).width == quick.width
    assert settings["depth"] == quick.depth


def test_adam_steps_as_its_authors_wrote(toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path) -> None:
    # Algorithm 1 of Kingma and Ba: the first step is the sign of the gradient times the rate, for every weight whose
    # gradient is well above their epsilon of 1e-8.
    rate = 1e-4
    config = replace(
        quick, optimiser="adam", momentum=0.9, iterations=1, learning_rate=rate, validation=0.0, averaging=0.0
    )
    still = replace(config, learning_rate=1e-12)
    start, found = (
        load_model(
            train(*toy, tmp_path / f"{each.learning_rate}.safetensors", each).model
        ).network.state_dict()
        for each in (still, config)
    )
    steps = torch.cat([(found[name] - start[name]).abs().flatten() for name in found])
    assert float(steps.max()) == pytest.approx(rate, rel=1e-2)
    assert float((steps > 0.99 * rate).float().mean()) > 0.5


def test_float32_is_not_cut_to_ten_bits_on_gpus_meanwhile() -> None:
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    with settings_of_torch(TrainConfig()):
        assert (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic) == (False, *before[1:])
    assert (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic) == before
