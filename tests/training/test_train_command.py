from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from unet_dask.errors import OptionError
from unet_dask.model.file import inspect_model
from unet_dask.training.config import RECIPES, TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    import click


# By name: the folder is mapped to this package by the build alone, which type checkers do not see.
COMMAND = importlib.import_module("unet_dask_cli.train")
train: click.Command = COMMAND.train

QUICK = ["--width=4", "--depth=1", "--tile=32", "--iterations=6", "--validate-every=3"]
QUICK += ["--threads=1", "--device=cpu"]


def arguments(toy: tuple[Path, Path], output: Path, *more: str) -> list[str]:
    return [*map(str, toy), "-o", str(output), *QUICK, *more]


def test_command_trains_and_tells(toy: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    result = CliRunner().invoke(train, arguments(toy, path, "--class-names", "rest,disc"))
    assert result.exit_code == 0, result.output
    assert "targets: classes (values 0 to 1)" in result.stderr
    assert "validation: pixel error" in result.stderr
    assert result.stdout == ""
    assert inspect_model(path).header.class_names == ("rest", "disc")


def test_json_is_all_of_standard_output(toy: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    result = CliRunner().invoke(train, arguments(toy, path, "--json", "-q"))
    assert json.loads(result.stdout)["iterations"] == 6
    assert result.stderr == ""


def test_options_win_over_the_file(toy: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("width = 2\nw0 = 3\n")
    path = tmp_path / "m.safetensors"
    CliRunner().invoke(train, arguments(toy, path, "--config", str(tmp_path / "r.toml")))
    recipe = inspect_model(path).header.training["recipe"]
    assert (recipe["width"], recipe["w0"]) == (4, 3)


def test_the_file_and_the_options_win_over_the_recipe(toy: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("momentum = 0.8\n")
    path = tmp_path / "m.safetensors"
    more = ("--recipe", "fast", "--config", str(tmp_path / "r.toml"))
    CliRunner().invoke(train, arguments(toy, path, *more))
    found, fast = inspect_model(path).header.training["recipe"], RECIPES["fast"]
    assert (found["averaging"], found["batch_norm"]) == (fast.averaging, fast.batch_norm)
    assert (found["momentum"], found["width"]) == (0.8, 4)


@pytest.mark.parametrize(("dims", "tile"), [("2", [256]), ("3", [])])
def test_a_cpu_begins_from_the_fast_recipe(dims: str, tile: list[int]) -> None:
    config = COMMAND._configured(
        None, recipe=None, config_file=None, dims=int(dims), device="cpu", iterations=2, width=None
    )
    fast = RECIPES["fast"]
    assert (config.optimiser, config.width, config.batch_norm) == ("adam", fast.width, True)
    assert list(config.tile) == tile  # a volume of a tile's side would be none


def test_it_is_said_beforehand_how_long_it_takes(toy: tuple[Path, Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(train, arguments(toy, tmp_path / "m.safetensors"))
    lines = result.stderr.splitlines()
    told = next(number for number, line in enumerate(lines) if line.startswith("time: about"))
    assert "the first usable model in" in lines[told]
    assert told < next(number for number, line in enumerate(lines) if "validation:" in line)


def test_the_model_to_start_from_says_what_the_network_is(toy: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    CliRunner().invoke(train, arguments(toy, first, "--class-names", "rest,disc"))
    short = ["--tile=32", "--iterations=2", "--threads=1", "--device=cpu", "-q"]
    result = CliRunner().invoke(train, [*map(str, toy), "-o", str(second), "--start", str(first), *short])
    assert result.exit_code == 0, result.output
    assert inspect_model(second).header.network == inspect_model(first).header.network
    assert inspect_model(second).header.class_names == ("rest", "disc")


def test_errors_pass_through_for_the_group_to_render(toy: tuple[Path, Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(train, arguments(toy, tmp_path / "m.safetensors", "--validation", "99"))
    assert isinstance(result.exception, OptionError)


def test_every_option_is_a_setting_or_of_the_command() -> None:
    own = {
        "images",
        "targets",
        "output",
        "config_file",
        "recipe",
        "start",
        "resume",
        "quiet",
        "as_json",
        "debug",
    }
    settings = {each.name for each in fields(TrainConfig)}
    assert {parameter.name for parameter in train.params} - own <= settings


def test_no_option_has_a_default_of_its_own() -> None:
    own = {"resume", "quiet", "as_json", "debug"}
    given = {
        parameter.name: parameter.default
        for parameter in train.params
        if parameter.name not in own and parameter.name not in ("partial", "hold_out")
    }
    assert not [name for name, value in given.items() if isinstance(value, str | int | float)]


def test_import_is_light() -> None:
    check = "import sys, unet_dask_cli.train; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.timeout(120)
def test_interrupt_leaves_a_training_to_resume(toy: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    program = "import sys; from unet_dask_cli.train import train; train(sys.argv[1:])"
    command = [sys.executable, "-c", program, *arguments(toy, path)]
    with subprocess.Popen([*command, "--iterations", "100000"], stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        while "validation" not in running.stderr.readline():
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        tail = running.stderr.read()
    assert running.returncode == 130
    assert "--resume" in tail
    assert path.exists()
    assert path.with_suffix(".checkpoint").exists()
    assert not list(tmp_path.glob(".*"))
