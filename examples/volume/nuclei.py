"""Train in three dimensions on a part of a volume, segment the rest, and score its objects.

    python examples/volume/nuclei.py 1135_mini.h5 [-o FOLDER] [--iterations 600]

The file is of PlantSeg's test data (nuclei of an Arabidopsis ovule): `raw` and `label` of (z, y, x). The first 70 of
its 100 rows are learnt from, the other 30 are scored: they are apart along y, so no nucleus is in both but those cut.

Planes are 2.2 times as far apart as pixels, so the network sees the mean of two by two of these: voxels are about as
long as wide then, and the noise is halved. Objects are scored at the size of the file.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import h5py
import numpy as np
from learn import arguments, learn, segmented

from unet_dask.metrics.contingency import contingency
from unet_dask.metrics.objects import match, seg
from unet_dask.training.config import RECIPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS = 70
#: Pixels along y and x that are one to the network.
BIN = 2


def binned(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the means of two by two pixels of each plane."""
    z, y, x = raw.shape
    blocks = raw.reshape(z, y // BIN, BIN, x // BIN, BIN)
    return blocks.mean(axis=(2, 4), dtype=np.float32)


def main() -> None:
    """Prepare, train, segment, score."""
    parser = arguments(__doc__, "nuclei")
    parser.set_defaults(width=12, iterations=600)
    options = parser.parse_args()
    with h5py.File(options.data, "r") as opened:
        raw, labels = opened["raw"][...], opened["label"][...].astype(np.uint16)
    config = replace(
        RECIPES["fast"],
        dims=3,
        width=options.width,
        depth=2,
        tile=(24, 24, 24),
        iterations=options.iterations,
        target_kind="instances",
        classes=3,
        core=2,  # touching nuclei are told apart by what lies within their outermost two voxels
        class_names=("background", "rim", "nucleus"),
        balance=0.3,
        dice=0.5,
        validation=0.15,
        validate_every=max(options.iterations // 6, 1),
    )
    seen = binned(raw)
    model = learn(options.output, seen[:, : ROWS // BIN], labels[:, :ROWS:BIN, ::BIN], config)
    # Split as the bundled network of nuclei does it; averaged over turned and mirrored volumes, as the paper does.
    rule = {"split": 2.0, "min_size": 20, "tta": "rotations"}
    found = segmented(options.output, seen[:, ROWS // BIN :], model, "instances", **rule)
    found = found.repeat(BIN, axis=1).repeat(BIN, axis=2)
    table = contingency(labels[:, ROWS:], found)
    score, half = seg(table), match(table, (0.5,))[0]
    print(f"{score.below} nuclei: SEG {score.value:.3f}, F1 at an overlap of a half {half.f1.value:.3f}")


if __name__ == "__main__":
    main()
