"""``unet-dask demo``."""

from __future__ import annotations

import json

import click

from .options import MODEL, PATH, common
from .terminal import fact, show


@click.command(short_help="Make a large image, segment it, show the result.")
@click.argument("folder", type=PATH, metavar="[DIR]", default="demo")
@click.option(
    "-m", "--model", type=MODEL, metavar="FILE|NAME", help="Model file, or name of a model [nuclei]."
)
@click.option("-j", "--workers", type=int, default=2, show_default=True, help="Local worker processes.")
@click.option("--side", type=int, default=4096, show_default=True, help="Side of the image in pixels.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the image.")
@common()
def demo(
    folder: str,
    model: str | None,
    *,
    workers: int,
    side: int,
    seed: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a large image of nuclei in DIR, segment it, score it against its known truth, and draw it.

    Needs no data and no network. What an earlier demo left in DIR is used again.
    """
    from unet_dask.demo.job import run_demo
    from unet_dask.model.file import DEFAULT_MODEL
    from unet_dask.run.progress import Display

    display = Display(quiet=quiet)

    def say(line: str) -> None:
        if not quiet:
            fact("demo", line, err=True)

    try:
        made = run_demo(
            folder,
            model=model or DEFAULT_MODEL,
            side=side,
            seed=seed,
            workers=workers,
            on_event=display,
            say=say,
        )
    finally:
        display.close()
    if as_json:
        show(json.dumps(made.to_json()))
        return
    for label, text in made.describe():
        fact(label, text)
    for number, command in enumerate(made.next_commands()):
        fact("" if number else "try now", command)
