"""Training on Zarr arrays that are not held in memory: from the files to the model, and what can be wrong with them."""

from __future__ import annotations

import signal
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING

import imageio.v3 as iio
import numpy as np
import pytest
import zarr

from unet_dask.errors import DataError, InputError, MismatchError, OptionError, UnetDaskError
from unet_dask.io.images.annotated_volume import open_annotated
from unet_dask.training import survey as survey_
from unet_dask.training.config import TrainConfig
from unet_dask.training.counts import class_counts
from unet_dask.training.events import Event, Stepped
from unet_dask.training.loop import train
from unet_dask.training.prepare import training_set
from unet_dask.training.sample import draw_patch

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def stored(folder: Path, image: NDArray[np.generic], target: NDArray[np.generic]) -> tuple[Path, Path]:
    paths = folder / "image.zarr", folder / "target.zarr"
    for path, array in zip(paths, (image, target), strict=True):
        zarr.create_array(path, data=array, chunks=tuple(min(side, 32) for side in array.shape))
    return paths


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Write a noisy image of stripes and its class map."""
    target = (np.indices((90, 70)).sum(axis=0) % 24 < 9).astype(np.uint8)
    image = target * 90 + np.random.default_rng(0).integers(0, 60, target.shape)
    return stored(tmp_path, image.astype(np.uint8), target)


@pytest.fixture
def lying(quick: TrainConfig) -> TrainConfig:
    """Return a quick recipe that holds nothing."""
    return replace(quick, memory="1KiB", validation=0.2)


def test_resumed_training_makes_the_same_bytes(
    pair: tuple[Path, Path], lying: TrainConfig, tmp_path: Path
) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Stepped) and event.iteration == 3:
            signal.raise_signal(signal.SIGINT)

    whole = train(*pair, tmp_path / "whole.safetensors", lying)
    path = tmp_path / "parts.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(*pair, path, lying, on_event=interrupt)
    parts = train(*pair, path, lying, resume=True)
    assert parts.model.read_bytes() == whole.model.read_bytes()


def test_one_changed_pixel_is_another_image(
    pair: tuple[Path, Path], lying: TrainConfig, tmp_path: Path
) -> None:
    train(*pair, tmp_path / "m.safetensors", lying)
    image = zarr.open_array(pair[0], mode="r+")
    image[89, 69] = 255 - int(np.asarray(image[89, 69]))
    with pytest.raises(MismatchError, match="other images or targets"):
        train(*pair, tmp_path / "m.safetensors", lying, resume=True)


def test_losses_are_those_from_memory(pair: tuple[Path, Path], lying: TrainConfig, tmp_path: Path) -> None:
    losses: dict[str, list[float]] = {}
    for memory in ("1KiB", "1GiB"):
        losses[memory] = []

        def listen(event: Event, into: list[float] = losses[memory]) -> None:
            if isinstance(event, Stepped):
                into.append(event.loss)

        train(*pair, tmp_path / f"{memory}.safetensors", replace(lying, memory=memory), on_event=listen)
    assert losses["1KiB"] == pytest.approx(losses["1GiB"], rel=1e-3)


def broken(folder: Path, what: str) -> tuple[Path, Path]:
    """Write a pair with one fault, in the last chunk where it is a fault of a value."""
    image, target = np.ones((70, 80), np.float32), np.zeros((70, 80), np.float32)
    target[:30] = 1
    if what == "shapes":
        target = target[1:]
    elif what == "nan":
        image[-1, -1] = np.nan
    elif what == "fraction":
        target[-1, -1] = 0.5
    elif what == "negative":
        return stored(folder, image, np.where(np.indices(target.shape)[0] > 68, -1, 0))
    elif what == "png":
        iio.imwrite(folder / "target.png", target.astype(np.uint8))
        return stored(folder, image, target)[0], folder / "target.png"
    elif what == "damaged":
        paths = stored(folder, image, target)
        (folder / "image.zarr" / "c" / "2" / "2").write_bytes(b"damaged")
        return paths
    elif what == "flat":
        return stored(folder, image[0], target[0])
    return stored(folder, image, target)


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("shapes", InputError, r"image\.zarr holds 1 of 70x80, but its target target\.zarr holds 1 of 69x80"),
        ("nan", DataError, r"image\.zarr has values that are not finite"),
        ("fraction", InputError, r"target target\.zarr has fractions"),
        ("negative", InputError, r"target target\.zarr has the negative value -1"),
        (
            "png",
            InputError,
            r"image\.zarr would take .* because target\.png is neither a Zarr array nor a TIFF",
        ),
        ("damaged", DataError, "a chunk is damaged or cut short"),
        ("flat", InputError, r"image\.zarr' has the shape \(80,\), and an image has both y and x"),
    ],
)
def test_fault_of_the_data_is_one_line(
    lying: TrainConfig, tmp_path: Path, what: str, kind: type[UnetDaskError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        train(*broken(tmp_path, what), tmp_path / "m.safetensors", lying)
    assert "\n" not in str(caught.value)


def test_memory_is_an_amount(pair: tuple[Path, Path], lying: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="not an amount of memory"):
        train(*pair, tmp_path / "m.safetensors", replace(lying, memory="much"))


def test_peak_is_a_fraction_of_the_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unet_dask.io.source.statistics._BLOCK_VOXELS", 1 << 18)
    monkeypatch.setattr("unet_dask.training.prepare.HELD", 1 << 16)
    monkeypatch.setattr(survey_, "PORTION", 1 << 16)
    # What is never written is read as 0 and costs no disk.
    size = (8192, 8192)
    image = zarr.create_array(tmp_path / "i.zarr", shape=size, chunks=(256, 256), dtype=np.uint16)
    target = zarr.create_array(tmp_path / "t.zarr", shape=size, chunks=(256, 256), dtype=np.uint8)
    target[:256, :4096] = np.indices((256, 4096)).sum(axis=0) % 40 < 20
    config = TrainConfig(depth=1, tile=(64,), w0=0.0)
    tracemalloc.start()
    try:
        data = training_set(open_annotated(tmp_path / "i.zarr", tmp_path / "t.zarr", memory=1 << 20), config)
        for seed in range(3):
            draw_patch(data.images, np.random.default_rng(seed), cores=(64, 64), config=config)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < image.size * 2 / 5


def test_counts_of_spread_blocks_are_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unet_dask.io.source.statistics._BLOCK_VOXELS", 1 << 10)
    target = np.random.default_rng(0).integers(0, 3, (320, 256)).astype(np.uint8)
    paths = stored(tmp_path, target, target)
    config = TrainConfig(target_kind="instances", validation=0)
    opened = open_annotated(*paths, memory=1)
    surveys, _ = survey_.survey(opened)
    decision = training_set(opened, config).decision
    exact = class_counts(opened, surveys, decision, config)
    monkeypatch.setattr("unet_dask.training.counts.MOST", target.size // 5)
    spread = class_counts(opened, surveys, decision, config)
    assert exact.sum() == target.size
    assert spread.sum() == pytest.approx(target.size / 5, rel=0.1)
    np.testing.assert_allclose(spread / spread.sum(), exact / exact.sum(), atol=0.02)
