"""What is summed up of every object, in a form that adds up: one record per object and block, merged by object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    #: Records of one type.
    Rows = NDArray[np.void]

#: How the parts of an object become its whole, by the name of the field.
_MERGED = {
    "area": np.add,
    "places": np.add,
    "low": np.minimum,
    "high": np.maximum,
    "per_class": np.add,
    "certain": np.add,
    "total": np.add,
    "square": np.add,
    "least": np.minimum,
    "most": np.maximum,
}


@dataclass(frozen=True, slots=True)
class Layout:
    """What is summed up of each object of one result.

    Attributes
    ----------
    axes : of the label image
    classes : beside background, if there are several, so that those of each object are counted; else 0
    certain : classes whose probabilities are added up; 0 where none are stored
    certain_type : of stored probabilities
    channels : of the source; 0 if it is not measured
    dtype : of the source
    """

    axes: str
    classes: int = 0
    certain: int = 0
    certain_type: str = "float32"
    channels: int = 0
    dtype: str = "uint8"

    @property
    def exact(self) -> bool:
        """Whether grey values and their squares are added up as integers.

        Sums of squares are kept modulo 2**64. That is enough for the spread of values of 16 bits in an object of less
        than 2**34 voxels, because squares are only asked for as differences from the mean.
        """
        kind = np.dtype(self.dtype)
        return kind.kind in "ui" and kind.itemsize <= 2

    @property
    def record(self) -> np.dtype[np.void]:
        """Type of the records: fields that a result does not have are left out."""
        axes, whole = (len(self.axes),), "i8" if self.exact else "f8"
        certain = "f8" if np.dtype(self.certain_type).kind == "f" else "i8"
        fields = [
            ("label", "u8", ()),
            ("area", "i8", ()),
            ("places", "i8", axes),
            ("low", "i8", axes),
            ("high", "i8", axes),
            ("per_class", "i8", (self.classes,)),
            ("certain", certain, (self.certain,)),
            ("total", whole, (self.channels,)),
            ("least", self.dtype, (self.channels,)),
            ("most", self.dtype, (self.channels,)),
            ("square", "u8", (self.channels,)) if self.exact else ("spread", "f8", (self.channels,)),
        ]
        return np.dtype([field for field in fields if field[2] != (0,)])


def merged(rows: Rows) -> Rows:
    """Return one record per object, by number, from records of its parts.

    Numbers of floating point are added in the order of the records.

    Examples
    --------
    >>> rows = np.zeros(3, Layout("yx").record)
    >>> rows["label"], rows["area"] = (7, 2, 7), (1, 5, 10)
    >>> merged(rows)[["label", "area"]].tolist()
    [(2, 5), (7, 11)]
    """
    rows = rows[np.argsort(rows["label"], kind="stable")]
    if not len(rows):
        return rows
    first = np.flatnonzero(np.append(True, rows["label"][1:] != rows["label"][:-1]))
    if len(first) == len(rows):
        return rows
    whole = rows[first]
    for name in rows.dtype.names or ():
        if name in _MERGED:
            whole[name] = _MERGED[name].reduceat(rows[name], first, axis=0)
    if "spread" in (rows.dtype.names or ()):
        whole["spread"] = np.add.reduceat(_spread_about(rows, whole, first), first, axis=0)
    return whole


def _spread_about(rows: Rows, whole: Rows, first: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the squared differences of parts from the mean of their whole, summed up over each part [1]_.

    References
    ----------
    .. [1] Chan, Golub, LeVeque: "Algorithms for computing the sample variance", The American Statistician 37(3), 1983.
    """
    counts = np.diff(np.append(first, len(rows)))
    mean = np.repeat(whole["total"] / whole["area"][:, np.newaxis], counts, axis=0)
    area = rows["area"][:, np.newaxis]
    spread: NDArray[np.float64] = rows["spread"] + area * (rows["total"] / area - mean) ** 2
    return spread


def variance(rows: Rows) -> NDArray[np.float64]:
    """Return the variance of the grey values of each object, (n, channels), of all its voxels, as numpy has it."""
    area = rows["area"][:, np.newaxis]
    if "spread" in (rows.dtype.names or ()):
        return np.asarray(rows["spread"] / area, np.float64)
    # About the whole number m below the mean: what is left, modulo 2**64, is small and so it is what it is.
    total = rows["total"]
    mean = total // area
    rest = total - mean * area
    about = rows["square"] - (mean * (total + rest)).astype(np.uint64)
    return np.asarray((about - rest.astype(np.float64) ** 2 / area) / area, np.float64)
