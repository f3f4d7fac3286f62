"""``unet-dask convert``."""

from __future__ import annotations

import json
from typing import Any

import click

from .options import PATH, common, of_settings
from .terminal import fact, progress, show


@click.command(short_help="Write an image of any format as OME-Zarr.")
@click.argument("image", type=PATH)
@click.argument("output", type=PATH)
@of_settings("key", "axes", "channels")
@click.option(
    "--level", type=click.IntRange(0), metavar="N", help="Level of a multiscale image to begin with [0]."
)
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Threads [one for each processor].")
@click.option("--resume", is_flag=True, help="Go on with a conversion that was stopped.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace an image that was converted before, or begin a stopped one anew.",
)
@common(printed="what was written")
def convert(image: str, output: str, *, quiet: bool, as_json: bool, **settings: Any) -> None:
    """Write IMAGE as the OME-Zarr folder OUTPUT, with a pyramid, and check every value of it.

    \b
    unet-dask convert slide.svs slide.ome.zarr
    unet-dask convert stack.tif stack.ome.zarr --resume

    For images that are opened again and again: a compressed page is decoded as a whole for every region of it.
    """  # noqa: D301 # click takes the escaped b for "keep these lines"
    from unet_dask.conversion.convert import convert as write

    found = write(image, output, on_shard=progress("shards", quiet=quiet), **settings)
    if as_json:
        show(json.dumps(found.to_json()))
    elif not quiet:
        for label, text in found.lines():
            fact(label, text, err=True)
