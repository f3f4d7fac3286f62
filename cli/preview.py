"""``unet-dask preview``."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import click

from .options import PATH, common, of_source
from .terminal import fact, show


@click.command(short_help="Draw a result over its source as a PNG.")
@click.argument("sink", type=PATH)
@click.option("-o", "--output", "png", type=PATH, metavar="FILE.png", help="Picture to write [<result>.png].")
@click.option("--z", type=int, help="Slice to draw, in voxels of the source [the middle one].")
@click.option("--t", type=int, help="Time point to draw [the first].")
@click.option(
    "--roi", metavar="y0:y1,x0:x1", help="Part of the plane to draw, in voxels of the source [all]."
)
@of_source
@common(quiet="Say nothing.", printed="what is shown")
def preview(
    sink: str,
    png: str | None,
    *,
    source: str | None,
    trusted: bool,
    quiet: bool,
    as_json: bool,
    **shown: Any,
) -> None:
    """Draw one plane of the result SINK beside its source.

    \b
    unet-dask preview big.seg.zarr -o big.png
    unet-dask preview big.seg.zarr --z 120 --roi 4096:4608,0:512 -o detail.png

    What was never written is hatched in magenta and counted.
    """  # noqa: D301 # click takes the escaped b for "keep these lines"
    from unet_dask.io.source.received import Consent
    from unet_dask.picture.preview import preview as draw

    name = PurePosixPath(sink.rstrip("/")).name
    made = draw(sink, png or f"{name.removesuffix('.zarr')}.png", source=Consent(source, trusted), **shown)
    if as_json:
        show(json.dumps(made.to_json()))
    elif not quiet:
        fact("picture", made.path, err=True)
        if made.objects:
            fact("objects", made.objects, err=True)
        for note in made.notes:
            fact("note", note, err=True)
