"""``unet-dask segment``."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .advice import once_more
from .options import BYTES, CHANNELS, MASK, MODEL, PATH, PRODUCTS, SIZES, common
from .settings import read_settings
from .terminal import fact, show

if TYPE_CHECKING:
    from unet_dask.config import SegmentConfig


@click.command(short_help="Segment a Zarr volume into a Zarr group.")
@click.argument("source", type=PATH)
@click.option(
    "-o", "--output", "sink", type=PATH, metavar="SINK", help="Zarr group to write [<source>.seg.zarr]."
)
@click.option(
    "-m", "--model", type=MODEL, metavar="FILE|NAME", help="Model file, or name of a bundled model [nuclei]."
)
@click.option("-j", "--workers", type=int, help="Local worker processes [one per GPU, else per 2 cores].")
@click.option("--threads", type=int, help="Threads of each worker's network [the cores, shared out].")
@click.option("--scheduler", metavar="ADDRESS", help="Run on a Dask cluster that is already running.")
@click.option("--scheduler-file", type=PATH, metavar="FILE", help="The same, from the scheduler's file.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), help="[auto]")
@click.option(
    "--precision", type=click.Choice(["auto", "float32", "bfloat16", "float16", "int8"]), help="[auto]"
)
@click.option("--backend", type=click.Choice(["torch", "nnpack"]), help="What runs the network.")
@click.option("--products", type=PRODUCTS, help="One or more of classes, probabilities, instances [classes].")
@click.option(
    "--probability-dtype", type=click.Choice(["float32", "uint8"]), help="uint8 is scaled to 0-254."
)
@click.option("-k", "--key", metavar="PATH", help="Array in a group.")
@click.option("--axes", help="Axes of the source, such as zyx or yxc [from its metadata].")
@click.option("--level", type=int, help="Level of a multiscale image [0].")
@click.option("--channels", type=CHANNELS, help="Channels to use, such as 0,2 [all].")
@click.option(
    "--roi", metavar="z0:z1,y0:y1,x0:x1", help="Part of the volume [all]; of some axes: 't 0:1, y 0:64'."
)
@click.option(
    "--mask", type=MASK, metavar="PATH|auto", help="What to segment; the rest is background [everything]."
)
@click.option(
    "--tta",
    type=click.Choice(["none", "flips", "rotations"]),
    help="Average over symmetries of the image [none].",
)
@click.option("--nan", type=click.Choice(["stop", "zero"]), help="What to do with NaN and infinity [stop].")
@click.option(
    "--memory", type=BYTES, metavar="8GiB", help="Memory one worker may use [up to 4GiB; with a GPU 32]."
)
@click.option("--tile", type=SIZES, metavar="512,512", help="What a tile contributes [chosen by the plan].")
@click.option("--region", type=SIZES, metavar="2048,2048", help="What a task computes [chosen by the plan].")
@click.option("--chunks", type=SIZES, metavar="512,512", help="Chunks of the result [512; in 3-D 128].")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@click.option(
    "--mended", is_flag=True, default=None, help="With --resume: the source was mended where regions failed."
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier result.")
@click.option("--part", metavar="I/N", help="Be one of N drivers that share the sink, such as 2/8.")
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
    context: click.Context, /, source: str, sink: str | None, model: str | None, **flags: Any
) -> None:
    """Segment the image SOURCE (Zarr, TIFF, a slide, a picture), seamlessly and within its memory.

    \b
    unet-dask segment big.zarr --workers 4
    unet-dask segment big.zarr -m membranes.safetensors --dry-run
    unet-dask segment big.zarr --resume
    unet-dask segment big.zarr --part 3/8
    """  # noqa: D301 # click takes the escaped b for "keep these lines"
    from unet_dask.config import SegmentConfig
    from unet_dask.model.file import DEFAULT_MODEL
    from unet_dask.report.segment import Asked, segment_and_report
    from unet_dask.run.progress import Display

    settings = {
        name: flags[name] for name in SegmentConfig.__dataclass_fields__ if flags.get(name) is not None
    }
    config = SegmentConfig(**settings)
    if flags["dry_run"]:
        _show_plan(source, model or DEFAULT_MODEL, config, as_json=flags["as_json"])
        return
    notes = () if model else (f"model {DEFAULT_MODEL}, the bundled one; choose another with --model",)
    url = sink or default_sink(source)
    resume, overwrite = _begun(context, **{name: flags[name] for name in ("resume", "overwrite")})
    asked = Asked(source, url, model or DEFAULT_MODEL, config, resume=resume, overwrite=overwrite)
    display = Display(quiet=flags["quiet"], verbose=flags["verbose"], notes=notes)
    try:
        run = segment_and_report(flags["report"], asked, display)
    except KeyboardInterrupt as stopped:
        display.close()
        how = f"{str(stopped) or 'interrupted'}; what is done is kept. Go on with: {once_more(context, resume=True)}"
        stopped.args = (how,)
        raise
    finally:
        display.close()
    if flags["as_json"]:
        show(json.dumps(run.to_json()))
    elif not flags["quiet"]:
        fact("done" if run.complete else "part", run.summary(), err=True)


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
    fact("time", f"about {seconds:.0f} s, from a probe tile on this machine")
