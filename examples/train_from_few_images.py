"""Train a small U-Net from a few annotated images, and segment an image that it has not seen.

The images are synthetic and the training is far too short, so that this runs in a minute. With annotated images of
your own leave the configuration at its defaults, which are the paper's.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile

import unet_dask
from unet_dask.demo.synthetic import nuclei
from unet_dask.metrics.pixel import confusion, iou
from unet_dask.training.events import Validated


def write_images(folder: Path, count: int = 6) -> tuple[Path, Path]:
    """Write images and targets in which every nucleus has a number of its own."""
    places = folder / "images", folder / "targets"
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, labels = nuclei((256, 256), seed=number)
        compact = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
        tifffile.imwrite(places[0] / f"{number}.tif", image)
        tifffile.imwrite(places[1] / f"{number}.tif", compact.astype(np.uint16))
    return places


def main(folder: Path) -> None:
    """Train, load the model, use it."""
    images, targets = write_images(folder)
    config = unet_dask.TrainConfig(
        width=8,
        depth=3,
        tile=(128,),
        iterations=40,
        learning_rate=1e-2,
        validate_every=20,
        target_kind="instances",
        threads=1,
    )

    def report(event: object) -> None:
        if isinstance(event, Validated):
            print(f"iteration {event.iteration}: loss {event.loss:.3f}, mean IoU {event.score:.3f}")

    result = unet_dask.train(images, targets, folder / "small.safetensors", config, on_event=report)
    print(f"{result.model}: best of iteration {result.best_iteration}, {result.seconds:.0f} s")

    image, truth = nuclei((512, 512), seed=99)
    found = unet_dask.segment(image, result.model)
    matrix = confusion(found, (truth > 0).astype(np.uint8), count=2)
    print(f"IoU of the nuclei in an unseen image: {iou(matrix)[1]:.3f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
