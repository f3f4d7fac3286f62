"""How long a training will take, measured without a trace."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from unet_dask.training import loop
from unet_dask.training.events import Event, Started
from unet_dask.training.loop import train

if TYPE_CHECKING:
    from pathlib import Path

    from unet_dask.training.config import TrainConfig


@pytest.mark.parametrize("settings", [{"batch_norm": True, "averaging": 0.9}, {"dropout": 0.5}])
def test_measuring_leaves_no_trace(
    toy: tuple[Path, Path],
    quick: TrainConfig,
    tmp_path: Path,
    settings: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = quick.updated(settings)
    measured = train(*toy, tmp_path / "measured.safetensors", config)
    monkeypatch.setattr(loop, "_pace", lambda *_: None)
    plain = train(*toy, tmp_path / "plain.safetensors", config)
    assert measured.model.read_bytes() == plain.model.read_bytes()


def test_it_adds_up(toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path) -> None:
    found: list[Started] = []

    def listen(event: Event) -> None:
        if isinstance(event, Started):
            found.append(event)

    config = replace(quick, iterations=5, validate_every=2, validation=1)
    train(*toy, tmp_path / "m.safetensors", config, on_event=listen)
    pace = found[0].pace
    assert pace is not None
    assert pace.iteration > 0
    assert pace.first_model == pytest.approx(2 * pace.iteration + pace.validation)
    assert pace.total == pytest.approx(5 * pace.iteration + 3 * pace.validation)


def test_nothing_is_left_of_a_training_that_is_done(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    found: list[Event] = []
    train(*toy, tmp_path / "m.safetensors", quick)
    train(*toy, tmp_path / "m.safetensors", quick, resume=True, on_event=found.append)
    assert isinstance(found[0], Started)
    assert found[0].pace is None
    assert torch.is_grad_enabled()
