"""Train in three dimensions on thick sections: membranes in serial-section TEM, ten times coarser along z.

    python examples/volume/membranes.py FOLDER [-o FOLDER] [--iterations 1000]

FOLDER holds stack1_z00-z12_raw.tif and stack1_z00-z12_membranes.tif of "Segmented anisotropic ssTEM dataset of neural
tissue" (Gerhard et al. 2013). Three quarters of every section, along x, are learnt from and the last one is scored.
The network is the same as for equal voxels and pools along z too; what that costs can be seen beside the scores of the
same network in two dimensions, `--dims 2`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tifffile
from learn import arguments, learn, segmented

from unet_dask.training.config import RECIPES

LEARNT = 768


def main() -> None:
    """Prepare, train, segment, score."""
    parser = arguments(__doc__, "membranes")
    parser.add_argument("--dims", type=int, default=3, choices=(2, 3))
    options = parser.parse_args()
    raw, membranes = (
        tifffile.imread(options.data / f"stack1_z00-z12_{kind}.tif") for kind in ("raw", "membranes")
    )
    cells = (membranes == 0).astype(np.uint8)
    config = replace(
        RECIPES["fast"],
        dims=options.dims,
        width=options.width,
        depth=2,
        tile=(12, 64, 64) if options.dims == 3 else (256,),
        iterations=options.iterations,
        target_kind="classes",
        class_names=("membrane", "cell"),
        balance=0.0,
        w0=0.0,
        elastic_sigma=3.0,  # of 13 sections; ten would mix them all
        validation=0.15,
        validate_every=max(options.iterations // 10, 1),
        threads=1,
    )
    model = learn(options.output, raw[..., :LEARNT], cells[..., :LEARNT], config)
    found = segmented(options.output, raw[..., LEARNT:], model, "probabilities")[1]
    truth = cells[..., LEARNT:].astype(bool)
    errors = {threshold: np.mean((found > threshold) != truth) for threshold in np.arange(1, 10) / 10}
    best = min(errors, key=errors.__getitem__)
    print(
        f"pixel error {errors[best]:.4f} at a threshold of {best:.1f}; {np.mean(~truth):.4f} without a network"
    )


if __name__ == "__main__":
    main()
