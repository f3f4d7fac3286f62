"""What a training reports while it runs. Nothing here prints; the command line and notebooks do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from unet_dask.training.pace import Pace


@dataclass(frozen=True, slots=True)
class Started:
    """The data is read and the network is ready.

    Attributes
    ----------
    images, held_out : names of the images trained on and validated on
    target_kind : what the targets were taken for: "classes" or "instances", and why
    class_share : share of each class among the annotated pixels
    parameters : of the network
    input_size, output_size : of a tile, in pixels per axis
    iteration : completed before, above 0 after a resume
    notes : how files were paired, sizes of pixels that contradict each other
    pace : how long it will take here; None if there is nothing left to do
    """

    images: tuple[str, ...]
    held_out: tuple[str, ...]
    target_kind: str
    class_share: tuple[float, ...]
    parameters: int
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    iteration: int
    iterations: int
    notes: tuple[str, ...] = ()
    pace: Pace | None = None


@dataclass(frozen=True, slots=True)
class Stepped:
    """One iteration is done.

    Attributes
    ----------
    iteration : that was completed, from 1
    loss : of its tile
    learning_rate : that it used
    seconds : that it took
    """

    iteration: int
    iterations: int
    loss: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Validated:
    """The held-out images were segmented as a whole.

    Attributes
    ----------
    loss : mean of the training loss since the validation before
    pixel_error : share of wrong pixels among the annotated ones
    iou : intersection over union per class
    score : mean IoU with pixels counted by their weight; the network with the highest is kept
    best : whether it is the highest so far
    f1 : of objects at an overlap of 0.5; None unless targets are instances
    v_rand : of neurites; None unless objects are such
    """

    iteration: int
    loss: float
    pixel_error: float
    iou: tuple[float, ...]
    score: float
    best: bool
    f1: float | None = None
    v_rand: float | None = None


@dataclass(frozen=True, slots=True)
class Saved:
    """A file was written: the best model, or a checkpoint."""

    path: Path
    kind: str


Event = Started | Stepped | Validated | Saved
