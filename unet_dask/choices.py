"""What can be chosen of how a network is run: the words of options, plans and manifests."""

from __future__ import annotations

from enum import StrEnum

#: Leaves device, precision or mask to be chosen.
AUTO = "auto"


def words(kind: type[StrEnum]) -> tuple[str, ...]:
    """Return the words to choose from, as plain texts.

    Examples
    --------
    >>> words(BackendName)
    ('torch', 'nnpack')
    """
    return tuple(each.value for each in kind)


class Device(StrEnum):
    """Where a network is run."""

    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class BackendName(StrEnum):
    """What runs a network."""

    TORCH = "torch"
    NNPACK = "nnpack"  # torch, with some convolutions of NNPACK


class Precision(StrEnum):
    """Numbers in which a network can be run."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    INT8 = "int8"


class Averaging(StrEnum):
    """Symmetries over which probabilities are averaged."""

    NONE = "none"
    FLIPS = "flips"
    ROTATIONS = "rotations"  # quarter turns of the y-x plane as well
