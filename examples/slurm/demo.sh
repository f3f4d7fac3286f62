#!/bin/bash
# An array of four jobs that segment one image together, on a Slurm of this machine alone:
#
#     python examples/slurm/one_node.py bash examples/slurm/demo.sh [FOLDER]
#
# On a cluster that has Slurm, without one_node.py; FOLDER then is one that all its machines see.
set -eu

folder=${1:-slurm-demo}
mkdir -p "$folder"
cd "$folder"

python3 - <<'PYTHON'
import numpy as np
import zarr

from unet_dask.demo.synthetic import nuclei

image = nuclei((1024, 1024), seed=0)[0]
array = zarr.create_array("big.zarr", shape=image.shape, dtype=image.dtype, chunks=(256, 256), overwrite=True)
array[...] = np.asarray(image)
PYTHON

rm -rf big.seg.zarr
unet-dask batch big.zarr --parts 4 --slurm --products classes,instances --chunks 256,256 --region 256,256 > job.sh
grep '^#SBATCH' job.sh

sbatch --wait job.sh
unet-dask verify big.seg.zarr
