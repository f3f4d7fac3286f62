"""Experiment E1 of the paper: neuronal membranes, 15 slices to learn from, 5 to be scored on.

    python examples/paper/isbi2012.py DATA [-o FOLDER] [--width 64] [--iterations 20000]

DATA holds train-volume.tif and train-labels.tif of the ISBI 2012 challenge. The slices to be scored are spread over the
stack, because its two halves differ in contrast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tifffile
from reproduce import Experiment, reproduce, write_test, write_training

if TYPE_CHECKING:
    from pathlib import Path

SCORED = (3, 7, 11, 16, 18)
EXPERIMENT = Experiment(
    "isbi2012",
    "pixel,rand,warping,vrand,vinfo",
    (),
    {"pixel": 0.0611, "rand": 0.0382, "warping": 0.000353},
)


def prepare(data: Path, out: Path) -> None:
    """Split the stack."""
    volume, labels = (tifffile.imread(data / f"train-{kind}.tif") for kind in ("volume", "labels"))
    learnt = [index for index in range(len(volume)) if index not in SCORED]
    write_training(out, volume[learnt], labels[learnt])
    write_test(out, volume[list(SCORED)], labels[list(SCORED)])


if __name__ == "__main__":
    reproduce(EXPERIMENT, prepare)
