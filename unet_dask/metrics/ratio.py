"""A score as a numerator and a denominator, so that planes, regions and stacks can be added up.

Every score of this package is a quotient of two sums over pixels, pairs or objects. The mean of quotients is not
the quotient of sums; keeping the two apart leaves the choice to the end, and lets a stack of any size be scored
plane by plane.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ratio:
    """A quotient that can be pooled.

    Attributes
    ----------
    above : numerator, at least 0
    below : denominator, at least 0; 0 where there was nothing to score

    Examples
    --------
    >>> (Ratio(1, 2) + Ratio(0, 2)).value
    0.25
    """

    above: float
    below: float

    @property
    def value(self) -> float:
        """The quotient; NaN if there was nothing to score."""
        return self.above / self.below if self.below else float("nan")

    @property
    def complement(self) -> Ratio:
        """One minus the quotient, as an error of a score.

        Examples
        --------
        >>> Ratio(1, 4).complement
        Ratio(above=3, below=4)
        """
        return Ratio(self.below - self.above, self.below)

    def __add__(self, other: Ratio) -> Ratio:
        return Ratio(self.above + other.above, self.below + other.below)
