"""What is done to grey values before a network, as far as it can be done to a whole volume as to a tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.errors import ModelError
from unet_dask.model.header import Normalisation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

#: Steps that change nothing here: all is float32.
_NOTHING = ("ensure_dtype",)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Grey values to network input.

    Attributes
    ----------
    gain, offset : ``gain * value + offset``, one of each per channel, or one for all
    of_image : whether mean and standard deviation of the image come first, which here are those of the whole volume
    per_channel : whether each channel has its own
    """

    gain: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    of_image: bool = False
    per_channel: bool = True

    @property
    def record(self) -> list[object]:
        """The same as plain JSON."""
        return [self.gain, self.offset, self.of_image, self.per_channel]

    @classmethod
    def described(
        cls, steps: Iterable[tuple[str, Mapping[str, Any]]], axes: tuple[str, ...]
    ) -> Preprocessing:
        """Return what a description says.

        Raises
        ------
        ModelError
            If that cannot be done to a whole volume: ranges of percentiles, clipping, thresholds.
        """
        kept = [(name, how) for name, how in steps if name not in _NOTHING]
        if not kept:
            return cls()
        (name, how), *more = kept
        found = _step(name, how, axes) if not more else None
        if found is None:
            names = ", ".join(name for name, _ in kept)
            raise ModelError(
                f"The package does {names} to its input; constants, or mean and deviation of the whole volume, are "
                "what can be done here. Bring the image into that range, and name the package's .onnx file."
            )
        return found

    def normalisation(self, channels: int) -> Normalisation:
        """Return the same as a model of ours has it."""
        if self.of_image:
            return Normalisation("volume")
        gain, offset = (each * channels if len(each) == 1 else each for each in (self.gain, self.offset))
        pairs = list(zip(gain, offset, strict=True))
        return Normalisation("constant", tuple(0.0 - b / a for a, b in pairs), tuple(1 / a for a, _ in pairs))

    def of(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the network's input for one image of (c, *space), by its own statistics if by any."""
        if self.of_image:
            axes = tuple(range(1 if self.per_channel else 0, image.ndim))
            deviation = image.std(axis=axes, keepdims=True)
            return np.asarray((image - image.mean(axis=axes, keepdims=True)) / (deviation + 1e-6), np.float32)
        along = (-1, *(1,) * (image.ndim - 1))
        gain, offset = (np.reshape(each, along) for each in (self.gain, self.offset))
        return np.asarray(gain * image + offset, np.float32)


def _step(name: str, how: Mapping[str, Any], axes: tuple[str, ...]) -> Preprocessing | None:
    """Return one step; None if it is no other than of a single image."""
    if name == "scale_linear":
        return Preprocessing(_many(how.get("gain", 1.0)), _many(how.get("offset", 0.0)))
    fixed = name == "fixed_zero_mean_unit_variance" or how.get("mode") == "fixed"
    if name not in ("zero_mean_unit_variance", "fixed_zero_mean_unit_variance"):
        return None
    if fixed:
        mean, std = _many(how["mean"]), _many(how["std"])
        pairs = list(zip(mean, std, strict=True))
        return Preprocessing(tuple(1 / each for each in std), tuple(-a / b for a, b in pairs))
    over = how.get("axes", axes[2:])
    return Preprocessing(of_image=True, per_channel=not {"c", "channel"} & set(over))


def _many(value: Any) -> tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, list) else (float(value),)
