"""Nuclei in H&E: learn from two annotated tiles, score the third, count those of a slide in its tissue.

    python examples/histology/nuclei.py MONUSEG [--slide CMU-1-Small-Region.svs] [-o FOLDER]

MONUSEG holds images/*.tif at 40x and labels/*.tif of the same names. Slides are often scanned at 20x, so tiles are
brought to half a micrometre a pixel; each is of another patient and organ. Their licence (CC BY-NC-SA 4.0) goes with
what is learnt from them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tifffile

import unet_dask
from unet_dask.training.config import RECIPES, load_config
from unet_dask.training.events import Validated

#: Tile that is scored, in the order of names.
SCORED = 2


def halved(source: Path, out: Path) -> list[Path]:
    """Write tiles and labels at half the resolution, and return the tiles."""
    written = []
    for path in sorted((source / "images").glob("*.tif")):
        image, labels = tifffile.imread(path), tifffile.imread(source / "labels" / path.name)
        rows, columns = (side // 2 * 2 for side in labels.shape)
        pairs = image[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2, 3).astype(float)
        for folder, values in (
            ("images", pairs.mean((1, 3)).round().astype(np.uint8)),
            ("labels", labels[:rows:2, :columns:2]),
        ):
            (out / folder).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(out / folder / path.name, values)
        written.append(out / "images" / path.name)
    return written


def main() -> None:
    """Prepare, train, score, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--slide", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/histology"))
    parser.add_argument("--iterations", type=int)
    options = parser.parse_args()
    out: Path = options.output
    tiles = halved(options.data, out / "all")
    scored = tiles[SCORED]
    for folder in ("images", "labels"):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for tile in tiles:
            if tile != scored:
                (out / folder / tile.name).write_bytes((out / "all" / folder / tile.name).read_bytes())
    config = load_config(Path(__file__).with_name("nuclei.toml"), RECIPES["fast"])
    if options.iterations:
        config = config.updated({"iterations": options.iterations})
    model = out / "he_nuclei.safetensors"
    again = model.with_suffix(".checkpoint").exists()
    if not model.exists() or again:
        unet_dask.train(out / "images", out / "labels", model, config, resume=again, on_event=_told)
    wanted = {"products": "classes,instances", "min_size": "5um2", "overwrite": True}
    unet_dask.segment_store(scored, out / "scored.seg.zarr", model, **(wanted | {"min_size": 20}))
    scores = unet_dask.evaluate(
        out / "scored.seg.zarr/instances", out / "all/labels" / scored.name,
        unet_dask.EvaluateConfig(metrics=("iou", "seg", "f1")),
    )  # fmt: skip
    print("\n".join(scores.lines()))
    if options.slide:
        sink = out / "slide.seg.zarr"
        unet_dask.segment_store(options.slide, sink, model, mask="auto", **wanted)
        counted = unet_dask.measure(sink, out / "nuclei.csv")
        print("\n".join(f"{label}: {text}" for label, text in counted.lines()))


def _told(event: object) -> None:
    if isinstance(event, Validated):
        print(f"iteration {event.iteration}: loss {event.loss:.3f}", flush=True)


if __name__ == "__main__":
    main()
