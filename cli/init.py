"""``unet-dask init``."""

from __future__ import annotations

import json

import click

from .options import PATH, common
from .terminal import say, show


@click.command(short_help="Make an untrained network.")
@click.option(
    "-o", "--output", type=PATH, required=True, metavar="MODEL", help="Model file to write, .safetensors."
)
@click.option("--dims", type=click.IntRange(2, 3), default=2, show_default=True, help="Spatial dimensions.")
@click.option("--width", type=int, default=64, show_default=True, help="Feature channels of the first level.")
@click.option("--depth", type=int, default=4, show_default=True, help="Number of poolings.")
@click.option("--channels", type=int, default=1, show_default=True, help="Channels of the image.")
@click.option("--classes", type=int, default=2, show_default=True, help="Classes, background included.")
@click.option("--batch-norm", is_flag=True, help="Batch normalisation after every convolution.")
@click.option(
    "--dropout", type=float, default=0.5, show_default=True, help="At the end of the contracting path."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the initial weights.")
@click.option("--offset", type=float, default=127.5, show_default=True, help="Grey value that becomes 0.")
@click.option("--scale", type=float, default=64.0, show_default=True, help="Grey values per unit.")
@common(quiet="Say nothing.", printed="what was made")
def init(
    output: str,
    *,
    seed: int,
    offset: float,
    scale: float,
    quiet: bool,
    as_json: bool,
    **network: float,
) -> None:
    """Make an untrained U-Net with the initial weights of the paper.

    \b
    unet-dask init --dims 2 --width 64 --depth 4 --classes 2 --seed 0 -o net.safetensors

    The weights expect an input of about unit variance; the default offset and scale make it of 8-bit images.
    """  # noqa: D301 # click takes the escaped b for "keep these lines"
    from unet_dask.axes import one_or_all
    from unet_dask.model.file import new_model, save_model
    from unet_dask.model.header import NetworkSpec, Normalisation

    spec = NetworkSpec(**network)  # type: ignore[arg-type] # click checked the types
    constants = Normalisation("constant", (offset,) * spec.channels, (scale,) * spec.channels)
    file = save_model(new_model(spec, seed=seed, normalisation=constants), output)
    if as_json:
        made = {"model": str(file.path), "checksum": file.checksum, "halo": list(spec.halo)}
        show(json.dumps(made | {name: getattr(spec, name) for name in network}))
    elif not quiet:
        say(
            f"{file.path}: {spec.dims}-D U-Net, {spec.width} channels, depth {spec.depth}, halo "
            f"{one_or_all(spec.halo)}, untrained, checksum {file.checksum[:12]}"
        )
