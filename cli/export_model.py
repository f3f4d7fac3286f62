"""``unet-dask export-model``."""

from __future__ import annotations

import json

import click

from .options import MODEL, PATH, common
from .terminal import say, show


@click.command(short_help="Write a model as a graph of ONNX for other programs.")
@click.argument("model", type=MODEL, metavar="MODEL")
@click.option("-o", "--output", type=PATH, required=True, metavar="FILE", help="File to write, .onnx.")
@click.option(
    "--mean", type=float, help="Grey value that becomes 0, of a model that takes it from the whole volume."
)
@click.option("--std", type=float, help="Grey values per unit, of the same.")
@common(quiet="Say nothing.", printed="what was written")
def export_model(
    model: str, output: str, *, mean: float | None, std: float | None, quiet: bool, as_json: bool
) -> None:
    """Write MODEL as an ONNX file, for programs such as Fiji, QuPath and ilastik.

    \b
    unet-dask export-model membranes.safetensors -o net.onnx
    unet-dask export-model nuclei --mean 310 --std 190 -o nuclei.onnx

    The graph takes grey values as they are stored, (1, channels, y, x) or (1, channels, z, y, x), and gives
    probabilities of the same size: constants of the normalisation, mirror image beyond the border and soft-max are
    in it.
    """  # noqa: D301 # click takes the escaped b for "keep these lines"
    from unet_dask.axes import one_or_all
    from unet_dask.model.export import export_onnx
    from unet_dask.model.file import load_model

    loaded = load_model(model)
    if mean is not None and std is not None:
        channels = loaded.header.network.channels
        loaded = loaded.with_statistics(mean=[mean] * channels, std=[std] * channels)
    path, spec = export_onnx(loaded, output), loaded.header.network
    if as_json:
        made = {"file": str(path), "model": loaded.checksum, "halo": list(spec.halo)}
        show(json.dumps(made | {"stride": list(spec.stride), "classes": list(loaded.header.class_names)}))
    elif not quiet:
        say(
            f"{path}: grey values in, probabilities of {', '.join(loaded.header.class_names)} out; sizes are "
            f"multiples of {one_or_all(spec.stride)}, tiles overlap by {one_or_all(spec.halo)}"
        )
