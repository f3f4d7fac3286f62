"""Experiment E2 of the paper: glioblastoma cells in phase contrast, PhC-C2DH-U373 of the cell tracking challenge.

    python examples/paper/phc_u373.py DATA [-o FOLDER] [--width 64] [--iterations 20000]

DATA holds 01/tNNN.tif and 01_GT/SEG/man_segNNN.tif. Cells at the border of a frame are not annotated, so a margin of it
is unknown rather than background.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from reproduce import Experiment, planes, reproduce, write_test, write_training

if TYPE_CHECKING:
    from pathlib import Path

SCORED = (92, 96, 100, 102, 112)  # the last of the sequence: no frame to learn from is close to them
MARGIN = 30
UNKNOWN = 65535
EXPERIMENT = Experiment("phc_u373", "seg,iou,f1", (), {"seg": 0.9203})


def prepare(data: Path, out: Path) -> None:
    """Split the annotated frames."""
    frames = sorted(int(path.stem[-3:]) for path in (data / "01_GT" / "SEG").glob("man_seg*.tif"))
    learnt = [frame for frame in frames if frame not in SCORED]
    images, truth = (
        {frame: planes([data / pattern.format(frame)])[0] for frame in frames}
        for pattern in ("01/t{:03}.tif", "01_GT/SEG/man_seg{:03}.tif")
    )
    write_training(out, [images[frame] for frame in learnt], [with_margin(truth[frame]) for frame in learnt])
    write_test(
        out, np.stack([images[frame] for frame in SCORED]), np.stack([truth[frame] for frame in SCORED])
    )


def with_margin(cells: np.ndarray) -> np.ndarray:
    """Mark the margin of a frame as unknown where no cell is annotated."""
    inside = np.zeros(cells.shape, bool)
    inside[MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    return np.where(inside | (cells > 0), cells, UNKNOWN).astype(np.uint16)


if __name__ == "__main__":
    reproduce(EXPERIMENT, prepare)
