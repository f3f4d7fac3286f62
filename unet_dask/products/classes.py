"""The product `classes`: of every voxel the most probable class, 0 for background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.products.coarse import voted
from unet_dask.products.colour import class_colour, in_class_colours
from unet_dask.products.product import ROUNDING, Product

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.products.colour import Colour, Veil


class Classes(Product):
    """A label image of the most probable classes."""

    __slots__ = ()

    name = "classes"
    types = ("uint8",)
    of_classes = True

    def keep(self, probabilities: NDArray[np.float32], values: NDArray[np.generic]) -> None:
        """Write the most probable classes."""
        keep_classes(probabilities, values)

    def coarser(self, block: NDArray[np.generic], step: Sequence[int]) -> NDArray[np.generic]:
        """Return the class that most of the voxels have."""
        return voted(block, step)

    def described(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return a colour and a name per class."""
        numbered = list(enumerate(class_names))
        colours = [{"label-value": value, "rgba": list(class_colour(value))} for value, _ in numbered]
        names = [{"label-value": value, "class": name} for value, name in numbered]
        return {"image-label": {"colors": colours, "properties": names}}

    def differences(
        self, found: NDArray[Any], probabilities: NDArray[np.float32], tolerance: float
    ) -> tuple[int, str]:
        """Return how many classes are others, but where two are as good as equally probable."""
        best = np.sort(probabilities, axis=0)
        margin = best[-1] - best[-2]
        wrong = (found != probabilities.argmax(axis=0)) & (margin > 2 * tolerance - ROUNDING)
        surest = margin[wrong].max() if wrong.any() else 0.0
        return int(wrong.sum()), f"surest margin {surest:.2g}, rounding {tolerance:.1g}"

    def painted(self, plane: NDArray[Any], choice: str) -> Veil:
        """Return classes in their colours."""
        del choice
        return in_class_colours(plane)

    @classmethod
    def legend(cls, class_names: Sequence[str]) -> list[tuple[int, Colour, str]]:
        """Return the colour of every class but background."""
        return [(value, class_colour(value), name) for value, name in enumerate(class_names) if value]

    def told(self, value: NDArray[Any], class_names: Sequence[str]) -> list[str]:
        """Return the number of a class with its name."""
        number = int(value)
        return [f"{number} {class_names[number]}" if number < len(class_names) else f"{number}"]


def keep_classes(probabilities: NDArray[np.float32], classes: NDArray[np.generic]) -> None:
    """Write the classes of the largest of (classes, *space) probabilities to (*space), line by line."""
    for line in range(probabilities.shape[1]):
        _most_probable(probabilities[:, line], classes[line])


def _most_probable(probabilities: NDArray[np.float32], classes: NDArray[np.generic]) -> None:
    """Write the class of the largest probability, the first of equal ones: as numpy's arg-max does, much faster."""
    largest = probabilities[0]
    classes[...] = 0
    for number, probability in enumerate(probabilities[1:], 1):
        better = probability > largest
        np.copyto(classes, number, where=better, casting="unsafe")
        if number + 1 < len(probabilities):
            largest = np.maximum(largest, probability)
