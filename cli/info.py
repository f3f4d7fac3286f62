"""``unet-dask info``."""

from __future__ import annotations

import json

import click

from .options import MODEL, common
from .terminal import fact, show


@click.command(short_help="Say what a store, a model file or a result is.")
@click.argument("path", type=MODEL)
@click.option("-k", "--key", metavar="PATH", help="Array in a group.")
@common(quiet="Say nothing.", printed="everything")
def info(path: str, *, key: str | None, quiet: bool, as_json: bool) -> None:
    """Say what PATH is: a Zarr store, a model file, the name of a model, or a result.

    \b
    unet-dask info big.zarr
    unet-dask info nuclei
    unet-dask info big.seg.zarr --json
    """  # noqa: D301 # click takes the escaped b for "keep these lines"
    from unet_dask.info import describe, lines

    found = describe(path, key=key)
    if as_json:
        show(json.dumps(found))
    elif not quiet:
        for label, text in lines(found):
            fact(label, text)
