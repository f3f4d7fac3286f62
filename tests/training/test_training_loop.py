from __future__ import annotations

import json
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from unet_dask.errors import DataError, InputError, MismatchError, ModelError, OptionError, SinkError
from unet_dask.model.file import inspect_model, load_model, save_model
from unet_dask.training.config import TrainConfig
from unet_dask.training.events import Event, Saved, Started, Stepped, Validated
from unet_dask.training.loop import learning_rate, train
from unet_dask.training.validate import probabilities

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor


def interrupt_after(iteration: int) -> Callable[[Event], None]:
    """Return a listener that presses Ctrl-C once an iteration is done."""

    def listen(event: Event) -> None:
        if isinstance(event, Stepped) and event.iteration == iteration:
            signal.raise_signal(signal.SIGINT)

    return listen


def test_learns_a_toy_problem(toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path) -> None:
    config = replace(
        quick, width=8, iterations=120, validate_every=40, learning_rate=2e-3, dropout=0.0, elastic_sigma=3.0
    )
    result = train(*toy, tmp_path / "m.safetensors", config)
    assert result.scores["iou"][1] > 0.8
    assert result.scores["pixel_error"] < 0.06


def test_three_dimensions_train_too(quick: TrainConfig, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    target = (rng.random((8, 24, 24)) > 0.7).astype(np.uint8)
    tifffile.imwrite(tmp_path / "i.tif", (target * 99).astype(np.uint8), photometric="minisblack")
    tifffile.imwrite(tmp_path / "t.tif", target, photometric="minisblack")
    config = replace(quick, dims=3, tile=(4, 8, 8), iterations=2, validation=0.3)
    result = train(tmp_path / "i.tif", tmp_path / "t.tif", tmp_path / "m.safetensors", config)
    assert inspect_model(result.model).header.network.dims == 3


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_norm": True},
        {"averaging": 0.9},
        {"batch_norm": True, "averaging": 0.5},
        {"precision": "float16"},
        {"optimiser": "adam", "momentum": 0.9},
    ],
)
def test_resumed_training_makes_the_same_bytes(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path, settings: dict[str, Any]
) -> None:
    config = replace(quick, **settings)
    whole = train(*toy, tmp_path / "whole.safetensors", config)
    path = tmp_path / "parts.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(*toy, path, config, on_event=interrupt_after(3))
    assert not path.exists()
    with pytest.raises(KeyboardInterrupt):
        train(*toy, path, config, resume=True, on_event=interrupt_after(6))
    parts = train(*toy, path, config, resume=True)
    assert parts.model.read_bytes() == whole.model.read_bytes()
    assert parts.best_iteration == whole.best_iteration


def test_the_average_is_that_of_the_iterations(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    config = replace(quick, iterations=6, validate_every=1, validation=0.0, learning_rate=2e-3)
    averages: list[dict[str, Tensor]] = []

    def listen(event: Event) -> None:
        if isinstance(event, Saved) and event.kind == "model":
            averages.append(load_model(event.path).network.state_dict())

    train(*toy, tmp_path / "each.safetensors", config, on_event=listen)
    each, averages[:] = list(averages), []
    train(*toy, tmp_path / "mean.safetensors", replace(config, averaging=0.75), on_event=listen)
    expected = each[0]
    for count, later in enumerate(each[1:], 1):
        kept = min(0.75, (1 + count) / (10 + count))
        expected = {key: kept * value + (1 - kept) * later[key] for key, value in expected.items()}
    found = averages[-1]
    assert all(torch.allclose(found[key], value, atol=1e-6) for key, value in expected.items())
    assert any(not torch.allclose(found[key], value, atol=1e-5) for key, value in each[-1].items())


def test_resumed_record_has_every_validation_once(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(*toy, path, quick, on_event=interrupt_after(6))
    result = train(*toy, path, quick, resume=True)
    lines = result.log.read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["iteration", "4", "8"]
    assert result.picture.read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_trains_the_same_network(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    first, second = (train(*toy, tmp_path / f"{name}.safetensors", quick).model for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_training_leaves_randomness_and_threads(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    train(*toy, tmp_path / "m.safetensors", quick)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_events_tell_the_story(toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path) -> None:
    events: list[Event] = []
    train(*toy, tmp_path / "m.safetensors", quick, on_event=events.append)
    started = events[0]
    assert isinstance(started, Started)
    assert (len(started.images), len(started.held_out)) == (4, 2)
    assert started.target_kind.startswith("classes")
    assert [event.iteration for event in events if isinstance(event, Stepped)] == list(range(1, 9))
    assert [event.iteration for event in events if isinstance(event, Validated)] == [4, 8]
    assert isinstance(events[-1], Saved)


def test_model_records_its_training(toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path) -> None:
    config = replace(quick, seed=5, spacing=(0.5, 0.5), unit="micrometer", class_names=("rest", "disc"))
    result = train(*toy, tmp_path / "m.safetensors", config)
    header = inspect_model(result.model).header
    record = header.training
    assert record["seed"] == 5
    assert record["recipe"]["momentum"] == 0.99
    assert sorted(each["name"] for each in record["files"]) == ["images.tif", "targets.tif"]
    assert record["validation"]["mean_iou"] == result.scores["mean_iou"]
    assert header.class_names == ("rest", "disc")
    assert header.spacing == (0.5, 0.5)
    assert str(tmp_path) not in header.to_json()


def test_constant_normalisation_is_that_of_the_training_images(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    result = train(*toy, tmp_path / "m.safetensors", replace(quick, validation=0))
    constants = inspect_model(result.model).header.normalisation
    stack = tifffile.imread(toy[0]).astype(np.float64)
    assert constants.offset == pytest.approx((stack.mean(),))
    assert constants.scale == pytest.approx((stack.std(),))


def test_volume_normalisation_stores_none(toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path) -> None:
    config = replace(quick, normalisation="volume")
    result = train(*toy, tmp_path / "m.safetensors", config)
    assert inspect_model(result.model).header.normalisation.kind == "volume"


def test_existing_model_is_not_overwritten(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"hours of work")
    with pytest.raises(SinkError, match=r"m\.safetensors exists already.*--resume"):
        train(*toy, path, quick)
    assert path.read_bytes() == b"hours of work"


def test_nothing_to_resume_is_said(toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="nothing to resume"):
        train(*toy, tmp_path / "m.safetensors", quick, resume=True)


def test_resume_with_another_setting_names_it(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    train(*toy, path, quick)
    with pytest.raises(MismatchError, match=r"begun with sigma = 5\.0, not 4\.0"):
        train(*toy, path, replace(quick, sigma=4.0), resume=True)


def test_resume_with_other_images_is_refused(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    train(*toy, path, quick)
    tifffile.imwrite(toy[0], 255 - tifffile.imread(toy[0]), photometric="minisblack")
    with pytest.raises(MismatchError, match="other images or targets"):
        train(*toy, path, quick, resume=True)


def test_foreign_checkpoint_is_refused(toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "m.checkpoint").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ModelError, match="not a checkpoint"):
        train(*toy, tmp_path / "m.safetensors", quick, resume=True)


def test_checkpoint_is_safetensors_and_json(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    train(*toy, tmp_path / "m.safetensors", quick)
    with safe_open(tmp_path / "m.checkpoint", framework="numpy") as opened:
        record = json.loads(opened.metadata()["unet_dask_checkpoint"])
        names = {name.replace("/", ".").split(".")[0] for name in opened.keys()}  # noqa: SIM118 not a dict
    assert record["progress"]["iteration"] == 8
    assert names == {"network", "optimiser"}


def named_as_before(record: dict[str, Any]) -> None:
    """Give a recipe the name that the setting had before."""
    record["settle"] = record.pop("freeze_norm_after")


def test_a_checkpoint_of_before_is_gone_on_with(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    quick, place = replace(quick, freeze_norm_after=0.25), tmp_path / "m.checkpoint"
    expected = train(*toy, tmp_path / "whole.safetensors", quick).model.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        train(*toy, tmp_path / "m.safetensors", quick, on_event=interrupt_after(6))
    with safe_open(place, framework="numpy") as opened:
        record = json.loads(opened.metadata()["unet_dask_checkpoint"])
    named_as_before(record["fingerprint"]["config"])
    save_file(load_file(place), place, {"unet_dask_checkpoint": json.dumps(record)})
    with pytest.raises(MismatchError, match=r"begun with freeze_norm_after = 0\.25, not 0\.5"):
        train(*toy, tmp_path / "m.safetensors", replace(quick, freeze_norm_after=0.5), resume=True)
    assert train(*toy, tmp_path / "m.safetensors", quick, resume=True).model.read_bytes() == expected


def test_a_model_of_before_keeps_the_recipe_that_its_header_says(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    model = load_model(train(*toy, tmp_path / "m.safetensors", quick).model)
    named_as_before(model.header.training["recipe"])
    save_model(model, tmp_path / "before.safetensors")
    found = load_model(tmp_path / "before.safetensors").header.training["recipe"]
    assert TrainConfig().updated(found) == quick


def test_diverging_training_stops_with_advice(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    config = replace(quick, learning_rate=100.0, clip_norm=0.0, iterations=200)
    with pytest.raises(OptionError, match=r"not finite in iteration \d+.*--learning-rate"):
        train(*toy, tmp_path / "m.safetensors", config)


def test_image_that_is_not_finite_is_refused(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    broken = np.full((6, 64, 64), np.nan, dtype=np.float32)
    tifffile.imwrite(toy[0], broken, photometric="minisblack")
    with pytest.raises(DataError, match=r"images\.tif has values that are not finite"):
        train(*toy, tmp_path / "m.safetensors", quick)


def test_only_background_is_nothing_to_learn(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    tifffile.imwrite(toy[1], np.zeros((6, 64, 64), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match=r"All annotated pixels .* are of class 0"):
        train(*toy, tmp_path / "m.safetensors", quick)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": 6.0}, "leaves none to train on"),
        ({"class_names": ("a",)}, "2 classes need as many names, not 1"),
        ({"tile": (33,)}, "off the lattice"),
        ({"device": "tpu"}, "device 'tpu' cannot be used"),
    ],
)
def test_settings_that_do_not_fit_are_named(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        train(*toy, tmp_path / "m.safetensors", quick.updated(settings))
    assert "\n" not in str(caught.value)


def test_model_must_be_safetensors(toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"ends in \.safetensors"):
        train(*toy, tmp_path / "m.pt", quick)


def test_ignored_pixels_do_not_matter(toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path) -> None:
    """Cover half of each target with the ignored value and train; no such pixel is counted or weighed."""
    targets = tifffile.imread(toy[1])
    targets[:, :, 32:] = 7
    tifffile.imwrite(toy[1], targets, photometric="minisblack")
    events: list[Event] = []
    config = replace(quick, ignore=7)
    train(*toy, tmp_path / "m.safetensors", config, on_event=events.append)
    started = events[0]
    assert isinstance(started, Started)
    assert sum(started.class_share) == pytest.approx(1)


def test_whole_image_equals_tiles(toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path) -> None:
    network = load_model(train(*toy, tmp_path / "m.safetensors", quick).model).network
    wide = np.random.default_rng(0).normal(size=(1, 20, 530)).astype(np.float32)
    found = probabilities(network, wide)
    # 530 pixels are two tiles, 518 of the same pixels are another cut; the middle must not change.
    other = probabilities(network, wide[:, :, 6:])
    np.testing.assert_allclose(found[:, :, 40:], other[:, :, 34:], atol=1e-5)


def test_learning_rate_decays_to_zero() -> None:
    config = TrainConfig(iterations=100, learning_rate=1e-3)
    rates = [learning_rate(config, iteration) for iteration in (0, 50, 100)]
    assert rates[0] == 1e-3
    assert rates[1] == pytest.approx(1e-3 * 0.5**0.9)
    assert rates[2] == 0
