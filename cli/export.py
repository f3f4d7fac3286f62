"""``unet-dask export``."""

from __future__ import annotations

import json
from typing import Any

import click

from .options import PATH, common, of_source
from .terminal import fact, progress, show


@click.command(short_help="Write outlines or pictures of objects for other programs.")
@click.argument("sink", type=PATH)
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="FILE",
    required=True,
    help="File to write, .geojson, .ome.tif, .tif or .png.",
)
@click.option(
    "--product",
    default="instances",
    metavar="PRODUCT",
    help="Of a picture: instances or classes [instances].",
)
@click.option("--no-source", is_flag=True, help="Do not measure grey values of the source.")
@click.option("-j", "--workers", type=int, help="Threads that read and outline [the cores].")
@of_source
@common(printed="what was written")
def export(
    sink: str,
    output: str,
    *,
    no_source: bool,
    source: str | None,
    trusted: bool,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Write the objects of the finished result SINK for other programs.

    \b
    unet-dask export big.seg.zarr -o objects.geojson     (QuPath: outlines, classes, measurements)
    unet-dask export big.seg.zarr -o objects.ome.tif     (Fiji, ImageJ: a number per object)
    unet-dask export big.seg.zarr -o classes.png --product classes

    Outlines are in pixels of the finest level of the source, along the edges of pixels.
    """  # noqa: D301 # click takes the escaped b for "keep these lines"
    from unet_dask.io.source.received import Consent
    from unet_dask.outlines.export import export as write_file

    made = write_file(
        sink,
        output,
        source=Consent(source, trusted),
        intensities=not no_source,
        on_block=progress("blocks", quiet=quiet),
        **settings,
    )
    if as_json:
        show(json.dumps(made.to_json()))
    elif not quiet:
        for label, text in made.lines():
            fact(label, text, err=True)
