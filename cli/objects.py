"""``unet-dask objects``."""

from __future__ import annotations

import json
from typing import Any

import click

from .options import PATH, common, of_settings
from .terminal import fact, show


@click.command(short_help="Make the objects of a result again, by another rule.")
@click.argument("sink", type=PATH)
@of_settings("objects", "threshold", "fill_holes", "min_size", "split", "connect", "numbers")
@of_settings("workers", "memory")
@common()
def objects(sink: str, **flags: Any) -> None:
    """Make the objects of the finished result SINK again, of what is stored: no network is run.

    \b
    unet-dask objects big.seg.zarr --threshold 0.6
    unet-dask objects big.seg.zarr --objects cells --min-size 50
    unet-dask objects big.seg.zarr --numbers dense

    What is not said stays as it was. Interrupted, the result is not complete until the command is called once more.
    """  # noqa: D301 # click takes the escaped b for "keep these lines"
    from unet_dask.remake import remake_objects
    from unet_dask.run.progress import Display

    said = {name: value for name, value in flags.items() if name not in ("quiet", "as_json")}
    display = Display(quiet=flags["quiet"])
    try:
        found = remake_objects(sink, on_event=display, **said)
    finally:
        display.close()
    if flags["as_json"]:
        show(json.dumps(found.to_json()))
    elif not flags["quiet"]:
        fact("done", found.summary(), err=True)
