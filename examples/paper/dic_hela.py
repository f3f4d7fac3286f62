"""Experiment E3 of the paper: HeLa cells in differential interference contrast, DIC-C2DH-HeLa of the same challenge.

    python examples/paper/dic_hela.py DATA [-o FOLDER] [--width 64] [--iterations 20000]

DATA holds 01/tNNN.tif, 01_GT/SEG/man_segNNN.tif and 01_ST/SEG/man_segNNN.tif. Learnt is from the gold truth where it
has every cell, else from the silver truth; scored is against gold truth only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reproduce import Experiment, planes, reproduce, write_test, write_training

if TYPE_CHECKING:
    from pathlib import Path

SCORED = (31, 33, 34)  # neighbours in time: none of them is almost a frame to learn from
PARTIAL = (39, 67)  # gold truth without all cells
EXPERIMENT = Experiment("dic_hela", "seg,iou,f1", (), {"seg": 0.7756})


def prepare(data: Path, out: Path) -> None:
    """Split the annotated frames."""
    gold = {int(path.stem[-3:]): path for path in (data / "01_GT" / "SEG").glob("man_seg*.tif")}
    silver = {int(path.stem[-3:]): path for path in (data / "01_ST" / "SEG").glob("man_seg*.tif")}
    best = silver | {frame: path for frame, path in gold.items() if frame not in PARTIAL}
    learnt = sorted(frame for frame in best if frame not in SCORED)
    images = {frame: data / "01" / f"t{frame:03}.tif" for frame in (*learnt, *SCORED)}
    write_training(
        out, planes([images[frame] for frame in learnt]), planes([best[frame] for frame in learnt])
    )
    write_test(out, planes([images[frame] for frame in SCORED]), planes([gold[frame] for frame in SCORED]))


if __name__ == "__main__":
    reproduce(EXPERIMENT, prepare)
