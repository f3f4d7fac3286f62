"""``unet-dask verify``."""

from __future__ import annotations

import json
from typing import Any

import click

from .options import MODEL, PATH, common, of_source
from .terminal import progress, show

#: Exit code of a sink that is not whole or not right.
_FINDINGS = 4


@click.command(short_help="Check that a result is whole and right.")
@click.argument("sink", type=PATH)
@click.option(
    "-m", "--model", type=MODEL, metavar="FILE|NAME", help="The run's model [its file here, or a named one]."
)
@click.option("--crops", type=int, default=4, help="Random boxes to recompute from the source [4].")
@click.option("--seed", type=int, default=0, help="Of the boxes [0].")
@click.option("-j", "--workers", type=int, help="Threads that read, and processes of a repair [the cores].")
@click.option("--repair", is_flag=True, help="Do again what is wrong.")
@of_source
@common(printed="everything")
def verify(sink: str, *, model: str | None, repair: bool, **flags: Any) -> int:
    """Check the result SINK: its record, every checksum, unwritten voxels, seams, and random crops recomputed.

    \b
    unet-dask verify big.seg.zarr
    unet-dask verify big.seg.zarr -m membranes.safetensors --crops 16
    unet-dask verify big.seg.zarr --repair

    An address beyond this machine that the result names is opened only with --source or --trust-source.

    A line per finding, then a summary; exit code 0 if there is none, else 4. Nothing is written without --repair.
    """  # noqa: D301 # click takes the escaped b for "keep these lines"
    from unet_dask.io.source.received import Consent
    from unet_dask.verify.store import repair_store, verify_store

    settings = {name: flags[name] for name in ("crops", "seed", "workers")}
    settings["source"] = Consent(flags["source"], flags["trusted"])
    if not flags["quiet"]:
        settings["on_piece"] = progress("checksums")
    if repair:
        from unet_dask.run.progress import Display

        display = Display(quiet=flags["quiet"])
        try:
            found = repair_store(sink, model, on_event=display, **settings)
        finally:
            display.close()
    else:
        found = verify_store(sink, model, **settings)
    if flags["as_json"]:
        show(json.dumps(found.to_json()))
    else:
        for line in found.lines():
            show(line)
    return 0 if found.whole else _FINDINGS
