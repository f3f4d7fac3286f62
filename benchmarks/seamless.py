"""Tiled against whole on real images, many cuts, through Dask (bar B1).

    python benchmarks/seamless.py ISBI.tif OVULE.h5 [FOLDER]

The EM stack goes slice by slice through 2-D networks, the volume through 3-D ones. Every row is one run of
`segment_store` on two workers; the last two columns are the largest difference of probabilities from one pass over
the whole `np.pad(mode="reflect")` image, and the voxels of another class where the best two differ by more than 1e-5.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import h5py
import numpy as np
import tifffile
import zarr

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.oracle import disagreement, sure_classes_differ, whole_image, write_array
from unet_dask.model.file import load_model, new_model, save_model
from unet_dask.model.header import NetworkSpec, Normalisation
from unet_dask.pipeline import segment_store
from unet_dask.workers.cluster import local_cluster

FLAT_CUTS = {
    "plan": {},
    "a": {"region": (128, 256), "tile": (64, 128), "chunks": (1, 64, 64)},
    "b": {"region": (512, 96), "tile": (112, 96), "chunks": (2, 128, 48)},
    "c": {"region": (112, 512), "tile": (512, 512), "chunks": (3, 16, 128)},
    "d": {"region": (208, 208), "tile": (208, 48), "chunks": (5, 104, 104)},
    "e": {"region": (256, 160), "tile": (16, 160), "chunks": (1, 256, 80)},
    "f": {"region": (384, 384), "tile": (192, 128), "chunks": (2, 192, 96)},
}
SOLID_CUTS = {
    "plan": {},
    "a": {"region": (32, 48, 64), "tile": (16, 48, 32), "chunks": (16, 24, 32)},
    "b": {"region": (32, 128, 48), "tile": (32, 64, 48), "chunks": (32, 32, 48)},
    "c": {"region": (32, 64, 128), "tile": (32, 32, 64), "chunks": (8, 64, 128)},
    "d": {"region": (32, 96, 96), "tile": (32, 96, 48), "chunks": (32, 96, 96)},
    "e": {"region": (32, 112, 112), "tile": (32, 16, 112), "chunks": (4, 16, 112)},
    "f": {"region": (32, 128, 128), "tile": (64, 64, 128), "chunks": (32, 64, 32)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("isbi", type=Path)
    parser.add_argument("ovule", type=Path)
    parser.add_argument("folder", nargs="?", default="out/seamless", type=Path)
    parser.add_argument("--slices", type=int, default=4)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    stack = tifffile.imread(options.isbi)[: options.slices, :, :509]  # a prime side
    with h5py.File(options.ovule) as file:
        volume = np.asarray(file["raw"])[:31, :127, :]
    print(
        f"{'image':>6} {'network':>12} {'cut':>5} {'regions':>8} {'tile':>16} {'max difference':>15} {'classes':>8}"
    )
    worst = 0.0
    with local_cluster(workers=2, threads=1, limit=5 << 30, device="cpu") as cluster:
        for name, image, dims, cuts in (("EM", stack, 2, FLAT_CUTS), ("ovule", volume, 3, SOLID_CUTS)):
            source = options.folder / f"{name}.zarr"
            if not source.exists():
                write_array(source, image)
            for width, depth in ((8, 2), (16, 3), (8, 4)):
                spec = NetworkSpec(dims=dims, width=width, depth=depth)
                path = options.folder / "net.safetensors"
                constants = Normalisation("constant", (float(image.mean()),), (float(image.std()),))
                save_model(new_model(spec, seed=depth, normalisation=constants), path)
                model = load_model(path)
                if dims == 2:
                    expected = np.stack([whole_image(model, plane[None]) for plane in image], axis=1)
                else:
                    expected = whole_image(model, image[None])
                for label, cut in cuts.items():
                    sink = options.folder / "sink.zarr"
                    try:
                        run = segment_store(
                            source, sink, path, client=cluster.client, axes="zyx", memory="5GiB", overwrite=True,
                            products="classes,probabilities", **cut,
                        )  # fmt: skip
                    except ValueError as error:
                        print(f"{name:>6} {f'w{width} d{depth}':>12} {label:>5} refused: {error}", flush=True)
                        continue
                    group = zarr.open_group(sink, mode="r")
                    found = disagreement(np.asarray(group["probabilities/0"][...]), expected)
                    differ = sure_classes_differ(np.asarray(group["classes/0"][...]), expected)
                    worst = max(worst, found)
                    tile = "x".join(map(str, run.plan.tile))
                    print(
                        f"{name:>6} {f'w{width} d{depth}':>12} {label:>5} {run.regions:>8} {tile:>16} {found:>15.2e} "
                        f"{differ:>8}",
                        flush=True,
                    )
    print(f"worst: {worst:.2e}")


if __name__ == "__main__":
    main()
