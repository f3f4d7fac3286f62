"""``unet-dask segment``."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import click
from click.core import ParameterSource

from unet_dask.config import SegmentConfig

from .advice import interruptible
from .options import MODEL, PATH, common, of_settings
from .settings import read_settings
from .terminal import fact, show

#: Flags that say how to treat what is there already.
_BEGUN = ("resume", "overwrite")


@click.command(short_help="Segment an image, or many, into Zarr groups.")
@click.argument("sources", type=PATH, nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "-o",
    "--output",
    "sink",
    type=PATH,
    metavar="SINK",
    help="Zarr group to write [<source>.seg.zarr]; of many images a folder for theirs.",
)
@click.option(
    "-m",
    "--model",
    type=MODEL,
    metavar="FILE|NAME",
    help="Model file, network in ONNX, or name of a model [nuclei].",
)
@of_settings(but=("source_fixed", "part"))
@click.option("--series", type=click.IntRange(min=0), help="Series of a file that holds several [all].")
@click.option("--each", is_flag=True, help="Pictures of a folder are no planes of one stack.")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@of_settings("source_fixed")
@click.option("--overwrite", is_flag=True, help="Replace an earlier result.")
@of_settings("part")
@click.option(
    "--config",
    type=PATH,
    metavar="FILE.toml",
    callback=read_settings,
    is_eager=True,
    help="Settings; flags win.",
)
@click.option("--report", type=PATH, metavar="FILE.html", help="Write what was done, in one file to look at.")
@click.option("-v", "--verbose", is_flag=True, help="A line per region.")
@common()
@click.pass_context
def segment(
    context: click.Context, /, sources: tuple[str, ...], sink: str | None, model: str | None, **flags: Any
) -> None:
    """Segment the image SOURCE (Zarr, TIFF, a slide, a picture), seamlessly and within its memory; or many images.

    \b
    unet-dask segment big.zarr --workers 4
    unet-dask segment plate.zarr
    unet-dask segment fields/*.tif -o results/
    unet-dask segment big.zarr -m membranes.safetensors --dry-run
    unet-dask segment big.zarr --resume
    unet-dask segment big.zarr --part 3/8
    """  # noqa: D301 # click takes the escaped b for "keep these lines"
    from unet_dask.model.file import DEFAULT_MODEL

    from . import many

    settings = {
        name: flags[name] for name in SegmentConfig.__dataclass_fields__ if flags.get(name) is not None
    }
    config = SegmentConfig(**settings)
    flags["notes"] = (
        () if model else (f"model {DEFAULT_MODEL}, the bundled one; choose another with --model",)
    )
    flags |= dict(zip(_BEGUN, _begun(context, **{name: flags[name] for name in _BEGUN}), strict=True))
    asked = many.asked_for(sources, sink, config, flags)
    if asked is not None:
        many.segment_all(context, asked, model or DEFAULT_MODEL, flags)
        return
    source = many.series_of(sources[0], flags["series"])
    if flags["dry_run"]:
        _show_plan(source, model or DEFAULT_MODEL, config, as_json=flags["as_json"])
    else:
        _segment_one(context, source, sink or default_sink(source), model or DEFAULT_MODEL, config, flags)


def _segment_one(
    context: click.Context, source: str, url: str, model: str, config: SegmentConfig, flags: dict[str, Any]
) -> None:
    """Segment one image, and say what came of it."""
    from unet_dask.report.segment import Asked, segment_and_report
    from unet_dask.run.progress import Display

    asked = Asked(source, url, model, config, **{name: flags[name] for name in _BEGUN})
    display = Display(quiet=flags["quiet"], verbose=flags["verbose"], notes=flags["notes"])
    with interruptible(context, display):
        run = segment_and_report(flags["report"], asked, display)
    if flags["as_json"]:
        show(json.dumps(run.to_json()))
    elif not flags["quiet"]:
        fact("done" if run.complete else "part", run.summary(), err=True)
        if run.table:
            fact("table", run.to_json()["table"], err=True)


def _begun(context: click.Context, *, resume: bool, overwrite: bool) -> tuple[bool, bool]:
    """Return whether to resume and whether to overwrite; of the two, a flag wins over environment and file.

    Else an interrupted run could not be gone on with by --resume where overwriting is what is always set.
    """
    flag = ParameterSource.COMMANDLINE
    said = {name for name in ("resume", "overwrite") if context.get_parameter_source(name) is flag}
    if len(said) == 1:
        return resume and "resume" in said, overwrite and "overwrite" in said
    return resume, overwrite


def default_sink(source: str) -> str:
    """Return <stem>.seg.zarr beside a local source, in the working directory for a remote one.

    Of an array named by its path in a store, beside the store: nobody wants a result in her data unasked.

    Examples
    --------
    >>> default_sink("data/big.ome.zarr/"), default_sink("data/big.zarr/images/0")
    ('data/big.seg.zarr', 'data/big.images.0.seg.zarr')
    >>> default_sink("https://host/big.zarr?token=secret"), default_sink("data/slide.svs")
    ('big.seg.zarr', 'data/slide.seg.zarr')
    """
    from unet_dask.io.remote import is_local, local_path, redact_url
    from unet_dask.io.source.formats import stem as named

    local = is_local(source)
    path = PurePosixPath(local_path(source) if local else redact_url(source))
    outer = next((place for place in reversed((path, *path.parents)) if place.suffix == ".zarr"), None)
    inner = (place for place in (path, *path.parents) if named(place.name) != place.name)
    store = outer or next(inner, path)
    stem = ".".join(named(part) for part in (store.name, *path.relative_to(store).parts)) or "volume"
    name = f"{stem}.seg.zarr"
    return str(store.with_name(name)) if local and store.name else name


def _show_plan(source: str, model: str, config: SegmentConfig, *, as_json: bool) -> None:
    from unet_dask.pipeline import estimated_seconds, plan_store

    plan = plan_store(source, model, config=config)
    seconds = estimated_seconds(plan, model, config)
    if as_json:
        show(json.dumps(plan.to_json() | {"seconds": seconds}))
        return
    for label, text in plan.describe():
        fact(label, text)
    fact("time", f"about {seconds:.0f} s, from one tile on this machine")
