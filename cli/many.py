"""``unet-dask segment`` of several images: what it asks, shows and says in the end."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from unet_dask.errors import OptionError

from .advice import interruptible
from .terminal import fact, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    import click

    from unet_dask.config import SegmentConfig
    from unet_dask.many.asked import Asked
    from unet_dask.many.outcome import ManyRun


def default_folder(sources: Sequence[str]) -> str:
    """Return <stem>.seg beside a plate or a folder, in the working directory for a remote one.

    Raises
    ------
    OptionError
        If there are several sources, or a pattern.

    Examples
    --------
    >>> default_folder(["data/plate.ome.zarr/"]), default_folder(["https://host/plate.zarr?token=secret"])
    ('data/plate.seg', 'plate.seg')
    """
    from unet_dask.io.remote import is_local, local_path, redact_url
    from unet_dask.io.source.formats import stem
    from unet_dask.many.listing import is_pattern

    if len(sources) > 1 or is_pattern(sources[0]):
        raise OptionError(
            "Several images need a folder for their results. Name one with -o, such as -o results/."
        )
    local = is_local(sources[0])
    path = PurePosixPath(local_path(sources[0]) if local else redact_url(sources[0]))
    name = f"{stem(path.name) or 'images'}.seg"
    return str(path.with_name(name)) if local and path.name else name


def asked_for(
    sources: Sequence[str], sink: str | None, config: SegmentConfig, flags: dict[str, Any]
) -> Asked | None:
    """Return what is to be done with many images; None if one is meant.

    Several sources are many, as are a plate, a folder of images, a pattern, and whatever is to go to a folder.
    """
    from unet_dask.io.remote import location
    from unet_dask.many.asked import Asked
    from unet_dask.many.listing import images_of, only

    series = flags["series"]
    found = images_of(sources, key=config.key, series=series, each=flags["each"])
    if found is None and _is_folder(sink or ""):
        found = [only(series_of(sources[0], series), config.key)]
    if found is None:
        return None
    output = location(sink or default_folder(sources), "folder of results").rstrip("/")
    return Asked(found, output, config, resume=flags["resume"], overwrite=flags["overwrite"])


def _is_folder(sink: str) -> bool:
    """Tell whether a place for a result is written as a folder; of a store, it is a shell that adds the slash."""
    return sink.endswith("/") and not sink.rstrip("/").endswith(".zarr")


def series_of(source: str, series: int | None) -> str:
    """Return the path or URL of a series of a file that holds several, or of the file."""
    from unet_dask.io.source.collection import series_key

    return source if series is None else f"{source.rstrip('/')}/{series_key(source, series)}"


def segment_all(context: click.Context, asked: Asked, model: str, flags: dict[str, Any]) -> None:
    """Segment images, say what became of them, and end with the failures by name.

    Raises
    ------
    ImagesFailedError
        If some have no result.
    """
    from unet_dask.many.outcome import ImagesFailedError
    from unet_dask.many.progress import ImagesDisplay
    from unet_dask.report.many import segment_all_and_report

    if flags["dry_run"]:
        _show_plan(asked, model, as_json=flags["as_json"])
        return
    display = ImagesDisplay(quiet=flags["quiet"], verbose=flags["verbose"], notes=flags["notes"])
    try:
        with interruptible(context, display):
            run = segment_all_and_report(flags["report"], asked, model, display)
    except ImagesFailedError as error:
        _tell(error.run, flags)
        for row in error.run.failed:
            fact("failed", f"{row.image}: {row.reason}", err=True)
        raise
    _tell(run, flags)


def _show_plan(asked: Asked, model: str, *, as_json: bool) -> None:
    """Say what a run over many images would do."""
    from unet_dask.many.segment import plan_images
    from unet_dask.pipeline import estimated_seconds

    found = plan_images(asked, model)
    largest = found.largest
    seconds = estimated_seconds(largest, model, asked.config) * found.flop / max(largest.flop, 1)
    if as_json:
        show(json.dumps(found.to_json() | {"seconds": seconds}))
        return
    for label, text in found.describe():
        fact(label, text)
    for row in found.unreadable:
        fact("unreadable", f"{row.image}: {row.reason}")
    fact("time", f"about {seconds:.0f} s, from one tile on this machine")


def _tell(run: ManyRun, flags: dict[str, Any]) -> None:
    if flags["as_json"]:
        show(json.dumps(run.to_json()))
    elif not flags["quiet"]:
        fact("done" if run.complete else "part", run.summary(), err=True)
        fact("table", run.table, err=True)
