"""``unet-dask measure``."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import click

from .options import PATH, common, of_objects
from .terminal import fact, progress, show


@click.command(short_help="Write a table of the objects of a result.")
@click.argument("sink", type=PATH)
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="FILE",
    help="Table to write, .csv or .parquet [<sink stem>.csv].",
)
@of_objects
@common(printed="the numbers")
def measure(
    sink: str,
    output: str | None,
    *,
    no_source: bool,
    workers: int | None,
    source: str | None,
    trusted: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write a table of the objects of the finished result SINK, a row for each.

    \b
    unet-dask measure big.seg.zarr -o objects.csv
    unet-dask measure big.seg.zarr -o objects.parquet --no-source

    Number, class, place, area or volume, and the grey values of every channel of the source, in pixels and micrometres.
    """  # noqa: D301 # click takes the escaped b for "keep these lines"
    from unet_dask.io.source.received import Consent
    from unet_dask.measuring.measure import measure as write_table

    name = PurePosixPath(sink.rstrip("/")).name
    found = write_table(
        sink,
        output or f"{name.removesuffix('.zarr')}.csv",
        source=Consent(source, trusted),
        intensities=not no_source,
        workers=workers,
        on_block=progress("blocks", quiet=quiet),
    )
    if as_json:
        show(json.dumps(found.to_json()))
    elif not quiet:
        for label, text in found.lines():
            fact(label, text, err=True)
