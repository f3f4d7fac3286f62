"""The product `probabilities`: of every voxel and class a probability, as float32 or in bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.products.colour import Amount, class_colour
from unet_dask.products.product import Product

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

#: What a byte holds of a certain class; the next one is the sentinel.
_CERTAIN = 254
_FOREGROUND = "foreground"


class Probabilities(Product):
    """Probabilities with a channel per class; in bytes they are scaled to 0-254."""

    __slots__ = ()

    name = "probabilities"
    types = ("float32", "uint8")
    has_channels = True
    amounts = True

    @classmethod
    def type_for(cls, shape: Sequence[int], *, probability: str) -> str:
        """Return the type that was asked for."""
        del shape
        return probability

    @property
    def settings(self) -> Mapping[str, str]:
        """The type is a setting."""
        return {"probability_dtype": self.dtype}

    @property
    def scale(self) -> int:
        """What a certain class has."""
        return 1 if np.dtype(self.dtype).kind == "f" else _CERTAIN

    def keep(self, probabilities: NDArray[np.float32], values: NDArray[np.generic]) -> None:
        """Write probabilities as they are, or scaled and rounded."""
        if self.scale == 1:
            values[...] = probabilities
            return
        for line in range(probabilities.shape[1]):
            values[:, line] = np.rint(probabilities[:, line] * np.float32(self.scale))

    def described(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return how viewers shall show the channels: each by its class, from impossible to certain."""
        window = {"min": 0, "max": self.scale, "start": 0, "end": self.scale}
        channels = [
            {
                "label": name,
                "color": "{:02X}{:02X}{:02X}".format(*class_colour(value)[:3]) if value else "808080",
                "window": window,
                "active": value > 0,
            }
            for value, name in enumerate(class_names)
        ]
        return {"omero": {"channels": channels}}

    def differences(
        self, found: NDArray[Any], probabilities: NDArray[np.float32], tolerance: float
    ) -> tuple[int, str]:
        """Return how many probabilities differ, and the largest difference."""
        allowed = tolerance if self.scale == 1 else tolerance + 1 / self.scale
        distance = np.abs(self.amount(found) - probabilities)
        outside = ~(distance <= allowed)  # NaN is outside
        worst = np.nan_to_num(distance, nan=np.inf).max() if distance.size else 0.0
        return int(outside.sum()), f"largest difference {worst:.2g}, rounding {allowed:.1g}"

    def title(self, class_names: Sequence[str]) -> str:
        """Return of what it is the probability by default."""
        return f"probability of {class_names[1] if len(class_names) == 2 else _FOREGROUND}"

    def choices(self, class_names: Sequence[str]) -> list[tuple[str, str]]:
        """Return all but background, of several classes, and every class."""
        single = [(str(number), f"of {name}") for number, name in enumerate(class_names)]
        if len(class_names) > 2:
            return [(_FOREGROUND, "of all but background"), *single]
        return single[::-1]

    def amount(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return probabilities as they are, or scaled back."""
        return values.astype(np.float32) / np.float32(self.scale)

    def painted(self, plane: NDArray[Any], choice: str) -> Amount:
        """Return the probability of a class, or of all that is not background."""
        if choice == _FOREGROUND:
            return Amount(1 - self.amount(plane[0]))
        return Amount(self.amount(plane[int(choice)]))
