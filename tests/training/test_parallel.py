"""Several processes descend along the mean of their gradients, and stay one network."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from unet_dask.io.images.annotated import read_annotated
from unet_dask.model.file import inspect_model, load_model, new_model
from unet_dask.model.header import NetworkSpec
from unet_dask.training.loss import weighted_cross_entropy
from unet_dask.training.parallel import Team, own_gpu
from unet_dask.training.prepare import training_set
from unet_dask.training.sample import draw_patch

if TYPE_CHECKING:
    from pathlib import Path

    from unet_dask.training.config import TrainConfig


def test_no_two_draws_are_the_same() -> None:
    draws = [Team(rank, 3).draw(iteration) for iteration in range(50) for rank in range(3)]
    assert len(set(draws)) == len(draws)


def test_one_process_draws_as_if_there_were_no_team() -> None:
    assert [Team().draw(iteration) for iteration in range(5)] == list(range(5))


@pytest.mark.parametrize(
    ("device", "local", "expected"),
    [("cuda", "2", "cuda:2"), ("cuda:1", "2", "cuda:1"), ("cpu", "2", "cpu"), ("cuda", None, "cuda")],
)
def test_every_process_of_a_machine_has_its_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, local: str | None, expected: str
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local is not None:
        monkeypatch.setenv("LOCAL_RANK", local)
    assert str(own_gpu(torch.device(device))) == expected


def expected_weights(toy: tuple[Path, Path], config: TrainConfig, processes: int) -> dict[str, torch.Tensor]:
    """Do one step along the mean gradient of the tiles that the processes draw, in one process."""
    data = training_set(read_annotated(*toy, dims=2), config)
    network = new_model(NetworkSpec(width=config.width, depth=config.depth), seed=config.seed).network
    network.eval()  # no dropout; there is no batch normalisation
    for rank in range(processes):
        rng = np.random.default_rng([config.seed, 2, rank])
        patch = draw_patch(data.images, rng, cores=config.tile * 2, config=config)
        loss = weighted_cross_entropy(
            network(torch.from_numpy(patch.image[np.newaxis])),
            torch.from_numpy(patch.target[np.newaxis]),
            torch.from_numpy(patch.weight_map[np.newaxis]),
        )
        (loss / processes).backward()  # type: ignore[no-untyped-call]  # torch's own
    return {
        name: each.detach() - config.learning_rate * each.grad
        for name, each in network.named_parameters()
        if each.grad is not None
    }


def test_two_processes_step_along_the_mean_gradient(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    config = replace(
        quick, iterations=1, validation=0.0, dropout=0.0, clip_norm=0.0, learning_rate=0.1, momentum=0.0
    )
    recipe = tmp_path / "recipe.toml"
    changed = (
        "width",
        "depth",
        "iterations",
        "validation",
        "dropout",
        "clip_norm",
        "learning_rate",
        "momentum",
    )
    settings = config.to_record()
    lines = [f"{name} = {json.dumps(settings[name])}" for name in (*changed, "tile", "threads", "device")]
    recipe.write_text("\n".join(lines), encoding="utf-8")
    output = tmp_path / "team.safetensors"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    subprocess.run(
        [
            *(sys.executable, *launcher, "-m", "unet_dask_cli", "train", *map(str, toy)),
            *("--recipe", "paper", "--config", str(recipe), "-o", str(output), "-q"),
        ],
        check=True,
        capture_output=True,
        timeout=300,
    )
    found = dict(load_model(output).network.named_parameters())
    wanted = expected_weights(toy, config, 2)
    alone = expected_weights(toy, config, 1)
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in wanted.items())
    assert any(not torch.allclose(found[name], value, atol=1e-5) for name, value in alone.items())
    assert inspect_model(output).header.training["processes"] == 2
