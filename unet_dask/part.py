"""A part of a run: what one of several independent drivers does of it.

Parts are fractions of the regions in their order, so they can be compared without knowing the regions: part 2/4
and part 1/2 overlap, 3/4 and 1/2 do not, and a run without parts is part 1/1. The part of a driver decides nothing
but which regions it does: it is in no fingerprint, and the result does not tell how many parts there were.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from unet_dask.errors import OptionError


@dataclass(frozen=True, slots=True)
class Part:
    """One of several parts of a run.

    Attributes
    ----------
    number : from 1
    count : of parts
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise OptionError(
                f"There is no part {self.number} of {self.count}. The parts are numbered from 1, such as "
                f"1/{max(self.count, 1)}."
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def stretch(self, total: int) -> range:
        """Return the ranks of this part among `total` pieces in order; parts differ by one piece at most.

        Examples
        --------
        >>> [Part(number, 3).stretch(10) for number in (1, 2, 3)]
        [range(0, 3), range(3, 6), range(6, 10)]
        """
        return range((self.number - 1) * total // self.count, self.number * total // self.count)

    def overlaps(self, other: Part) -> bool:
        """Return whether two parts, perhaps of different counts, may share a piece.

        Examples
        --------
        >>> Part(2, 4).overlaps(Part(1, 2)), Part(3, 4).overlaps(Part(1, 2))
        (True, False)
        """
        return (self.number - 1) * other.count < other.number * self.count and (
            other.number - 1
        ) * self.count < self.number * other.count


#: What a driver does that was told of no parts.
WHOLE = Part()


def parse_part(text: str) -> Part:
    """Return the part in a text such as "2/8".

    Raises
    ------
    OptionError
        If it is not a number, a slash and the count of parts, or there is no such part.

    Examples
    --------
    >>> parse_part("2/8")
    Part(number=2, count=8)
    """
    found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text, re.ASCII)
    if not found:
        raise OptionError(f"{text!r} is not a part. Write the number of the part and of all parts, like 2/8.")
    return Part(int(found[1]), int(found[2]))
