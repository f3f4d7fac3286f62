"""``unet-dask view``."""

from __future__ import annotations

import json

import click

from .options import PATH, common, of_source
from .terminal import fact, show


@click.command(short_help="Look at a result in the browser.")
@click.argument("sink", type=PATH)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the page [any that is free].")
@click.option("--no-browser", is_flag=True, help="Say where the page is, and do not open it.")
@of_source
@common(quiet="Say nothing.", printed="where the page is")
def view(
    sink: str, *, port: int, no_browser: bool, source: str | None, trusted: bool, quiet: bool, as_json: bool
) -> None:
    """Look at the result SINK over its source in the browser, complete or not, until Ctrl-C.

    \b
    unet-dask view big.seg.zarr
    unet-dask view big.seg.zarr --port 8080 --no-browser

    The page is served to this machine alone, to whoever has the address with its token, and needs no network.
    """  # noqa: D301 # click takes the escaped b for "keep these lines"
    from unet_dask.io.source.received import Consent
    from unet_dask.viewer.server import view as serve

    def told(label: str, text: str) -> None:
        if as_json:
            show(json.dumps({label: text}))
        elif not quiet:
            fact(label, text, err=True)

    serve(
        sink,
        port=port,
        browser=not no_browser,
        source=Consent(source, trusted),
        say=told,
    )
