"""Train in three dimensions on a part of a volume, segment the rest, and score its objects.

    python examples/volume/nuclei.py 1135_mini.h5 [-o FOLDER] [--iterations 1000]

The file is of PlantSeg's test data (nuclei of an Arabidopsis ovule): `raw` and `label` of (z, y, x). The first 70 of
its 100 rows are learnt from, the other 30 are scored: they are apart along y, so no nucleus is in both but those cut.
"""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
from learn import arguments, learn, segmented

from unet_dask.metrics.contingency import contingency
from unet_dask.metrics.objects import match, seg
from unet_dask.training.config import RECIPES

ROWS = 70


def main() -> None:
    """Prepare, train, segment, score."""
    options = arguments(__doc__, "nuclei").parse_args()
    with h5py.File(options.data, "r") as opened:
        raw, labels = opened["raw"][...], opened["label"][...].astype(np.uint16)
    config = replace(
        RECIPES["fast"],
        dims=3,
        width=options.width,
        depth=2,
        tile=(16, 24, 24),
        iterations=options.iterations,
        target_kind="instances",
        classes=3,
        core=2,  # touching nuclei are told apart by what lies within their outermost two voxels
        class_names=("background", "rim", "nucleus"),
        balance=0.3,
        dice=0.5,
        validation=0.15,
        validate_every=max(options.iterations // 10, 1),
        threads=1,
    )
    model = learn(options.output, raw[:, :ROWS], labels[:, :ROWS], config)
    found = segmented(options.output, raw[:, ROWS:], model, "instances")
    table = contingency(labels[:, ROWS:], found)
    score, half = seg(table), match(table, (0.5,))[0]
    print(f"{score.below} nuclei: SEG {score.value:.3f}, F1 at an overlap of a half {half.f1.value:.3f}")


if __name__ == "__main__":
    main()
