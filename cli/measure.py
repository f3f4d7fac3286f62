"""``unet-dask measure``."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import click

from .options import PATH, common, of_objects, refuse_beside
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
@click.option(
    "--table-in",
    "image",
    type=PATH,
    metavar="SOURCE",
    help="The OME-Zarr image that was segmented, to put the table into its tables.",
)
@click.option("--name", metavar="NAME", help="With --table-in: of the table, and of its labels [instances].")
@click.option("--overwrite", is_flag=True, help="With --table-in: replace one that was put there before.")
@of_objects
@common(printed="the numbers")
def measure(
    sink: str, output: str | None, *, image: str | None, quiet: bool, as_json: bool, **settings: Any
) -> None:
    """Write a table of the objects of the finished result SINK, a row for each.

    \b
    unet-dask measure big.seg.zarr -o objects.csv
    unet-dask measure big.seg.zarr -o objects.parquet --no-source
    unet-dask measure big.seg.zarr --table-in big.zarr

    Number, class, place, area or volume, and the grey values of every channel of the source, in pixels and micrometres.
    """  # noqa: D301 # click takes the escaped b for "keep these lines"
    from unet_dask.io.source.received import Consent
    from unet_dask.measuring.into import measure_into
    from unet_dask.measuring.measure import measure as write_table

    given = {name: settings[name] for name in ("source", "trusted", "name", "overwrite")}
    how = {
        "intensities": not settings["no_source"],
        "workers": settings["workers"],
        "on_block": progress("blocks", quiet=quiet),
    }
    if image is None:
        refuse_beside("--table-in", name=given["name"], overwrite=given["overwrite"])
        stem = PurePosixPath(sink.rstrip("/")).name.removesuffix(".zarr")
        consent = Consent(given["source"], given["trusted"])
        found = write_table(sink, output or f"{stem}.csv", source=consent, **how)
    else:
        refuse_beside(
            "a table in a file", output=output, source=given["source"], trust_source=given["trusted"]
        )
        found = measure_into(sink, image, name=given["name"], overwrite=given["overwrite"], **how)
    if as_json:
        show(json.dumps(found.to_json()))
    elif not quiet:
        for label, text in found.lines():
            fact(label, text, err=True)
