"""What a product is: the questions that the rest of the project asks of one, with the answers that most give.

It stands low in the order of imports: it takes arrays and names of classes, and knows no store, network or scheduler.
A new product sets its name and its types, says what is kept of probabilities, and overrides whatever answer does not
fit; see :class:`unet_dask.products.probabilities.Probabilities` for one that overrides several.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from unet_dask.products.coarse import averaged
from unet_dask.products.colour import Amount
from unet_dask.products.sentinel import sentinel

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from unet_dask.products.colour import Colour, Painting

#: Difference of probabilities that rounding explains in float32.
ROUNDING = 1e-5


@dataclass(frozen=True, slots=True)
class Product(ABC):
    """A product, with the type that its values have in one run.

    Attributes
    ----------
    dtype : one of `types`
    name : of the product, and of its group in a result
    types : that its values can have, the usual one first
    has_channels : whether it has a channel axis, one channel per class
    of_classes : whether it is made of the most probable class alone, which a GPU can find by itself
    joined : whether values are numbers of objects, which are joined across regions
    amounts : whether values are amounts from 0 to 1; else they are numbers that stand for something
    """

    dtype: str
    name: ClassVar[str]
    types: ClassVar[tuple[str, ...]]
    has_channels: ClassVar[bool] = False
    of_classes: ClassVar[bool] = False
    joined: ClassVar[bool] = False
    amounts: ClassVar[bool] = False

    # What a run makes

    @classmethod
    def type_for(cls, shape: Sequence[int], *, probability: str) -> str:
        """Return the type of the values of a run.

        Parameters
        ----------
        shape : of the volume, without channels
        probability : type that was asked for probabilities
        """
        del shape, probability
        return cls.types[0]

    @classmethod
    def require(cls, products: Collection[str], classes: int) -> None:
        """Raise if a run cannot make it beside these products, of so many classes.

        Raises
        ------
        OptionError
            Saying what to ask for instead.
        """
        del products, classes

    @property
    def settings(self) -> Mapping[str, str]:
        """Fields of the configuration that give it this type."""
        return {}

    @property
    def unwritten(self) -> float:
        """The fill value of its arrays: the sentinel of a voxel that was never written."""
        return sentinel(self.dtype)

    @abstractmethod
    def keep(self, probabilities: NDArray[np.float32], values: NDArray[np.generic]) -> None:
        """Write what is kept of probabilities of (classes, *space) to (*space), or (classes, *space) with channels.

        Large arrays are best gone through line by line, or slice by slice, because numpy copies what it works on.
        """

    def background(self, classes: int) -> NDArray[np.generic]:
        """Return what is kept where background is certain: () or, with channels, (classes,)."""
        certain = np.zeros((classes, 1, 1), np.float32)
        certain[0] = 1
        values = np.empty(certain.shape if self.has_channels else certain.shape[1:], self.dtype)
        self.keep(certain, values)
        return values[..., 0, 0]

    def clear(self, values: NDArray[np.generic], outside: NDArray[np.bool_]) -> None:
        """Make voxels background, in place.

        Parameters
        ----------
        values : (n, *space) or (n, classes, *space)
        outside : (n, *space)
        """
        if not self.has_channels:
            values[outside] = self.background(2)  # the same of any number of classes
            return
        # Class by class: with another axis behind them, numpy makes of voxels their places, 8 bytes for each axis.
        for number, value in enumerate(self.background(values.shape[1])):
            values[:, number][outside] = value

    # What a store holds

    def coarser(self, block: NDArray[np.generic], step: Sequence[int]) -> NDArray[np.generic]:
        """Return a block at the next coarser level of a pyramid: ceil(size / step) voxels of the same type."""
        return averaged(block, step)

    def described(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return what its OME-Zarr metadata say beside the multiscale."""
        del class_names
        return {}

    # What a verification asks

    def differences(
        self, found: NDArray[Any], probabilities: NDArray[np.float32], tolerance: float
    ) -> tuple[int, str] | None:
        """Compare stored values with probabilities that were computed again.

        Parameters
        ----------
        found : (*space), or (classes, *space) with channels
        probabilities : (classes, *space)
        tolerance : difference of probabilities that rounding explains

        Returns
        -------
        how many differ by more, and the largest difference for people; None if a part of a volume does not decide them
        """
        del found, probabilities, tolerance
        return None

    def steps(self, planes: NDArray[Any]) -> NDArray[Any]:
        """Return how much values change from each of some planes, the first axis, to the next."""
        if self.amounts:
            return np.abs(np.diff(planes.astype(np.float64), axis=0))
        return np.asarray(planes[1:] != planes[:-1])

    # What people see

    def title(self, class_names: Sequence[str]) -> str:
        """Return what stands over a picture of it."""
        del class_names
        return self.name

    def choices(self, class_names: Sequence[str]) -> list[tuple[str, str]]:
        """Return what of it can be painted, the first by default: a word for `painted`, and what people read."""
        del class_names
        return [("all", "all")]

    def amount(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return stored amounts as numbers from 0 to 1."""
        return values.astype(np.float32)

    def painted(self, plane: NDArray[Any], choice: str) -> Painting:
        """Return what a plane looks like.

        Parameters
        ----------
        plane : (y, x), or (classes, y, x) with channels
        choice : of `choices`
        """
        del choice
        return Amount(self.amount(plane))

    @classmethod
    def legend(cls, class_names: Sequence[str]) -> list[tuple[int, Colour, str]]:
        """Return the values that a colour stands for, each with it and its name."""
        del class_names
        return []

    def told(self, value: NDArray[Any], class_names: Sequence[str]) -> list[str]:
        """Return the value of a voxel that was written for people, one text for each channel."""
        del class_names
        return [f"{part:.3f}" if self.amounts else f"{part}" for part in np.atleast_1d(self._shown(value))]

    def _shown(self, value: NDArray[Any]) -> NDArray[Any]:
        return self.amount(value) if self.amounts else value
