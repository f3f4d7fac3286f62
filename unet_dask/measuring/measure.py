"""The verb `measure`: the objects of a finished result as a table."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from unet_dask.ahead import in_order
from unet_dask.durable import write
from unet_dask.engine.device import available_cores
from unet_dask.errors import OptionError, SinkError, UnetDaskError
from unet_dask.io import remote
from unet_dask.io.source.received import consented
from unet_dask.measuring.columns import joined
from unet_dask.measuring.kept import kept_table
from unet_dask.measuring.measurement import Measurement
from unet_dask.measuring.place import require_place
from unet_dask.measuring.spill import Spill
from unet_dask.measuring.sums import merged
from unet_dask.measuring.survey import open_survey
from unet_dask.measuring.table import require_writer

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from unet_dask.io.source.received import Consent
    from unet_dask.measuring.columns import Columns
    from unet_dask.measuring.finished import Finished
    from unet_dask.measuring.sums import Rows
    from unet_dask.measuring.survey import Survey
    from unet_dask.measuring.tally import Seen, Tally
    from unet_dask.tiling.box import Box

    #: Called with the blocks that were looked at so far, and their number.
    OnBlock = Callable[[int, int], None]

Result = TypeVar("Result")


def measure(
    sink: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    source: str | os.PathLike[str] | Consent | None = None,
    intensities: bool = True,
    workers: int | None = None,
    on_block: OnBlock = lambda done, total: None,
) -> Measurement:
    """Measure the objects of a finished result: a row for each, in the order of their numbers.

    Parameters
    ----------
    sink : path or URL of a result of `segment_store` with instances
    output : file to write, .csv or .parquet; None returns the table as columns, which pandas and polars take as they
        are: ``pandas.DataFrame(measure("big.seg.zarr").columns)``
    source : path or URL of the source; None for where the result says, if that is on this machine. A
        :class:`unet_dask.io.source.received.Consent` can say more
    intensities : whether to measure the grey values of all channels of the source; without it, or if it is not at
        hand, the table has no such columns
    workers : threads that read and add up; None for one per core
    on_block : called with the blocks that were looked at so far and their number

    Returns
    -------
    how many objects there are, how large they are, and how many per area; what the columns are is in docs/objects.md

    Raises
    ------
    SinkError
        If there is no finished result with objects, it is damaged, or the table cannot be written.
    InputError
        If the source has changed since, or cannot be read.
    OptionError
        If the output is no place for a table.
    """
    url = remote.location(sink, "sink")
    require_workers(workers)
    path, consent = None if output is None else require_place(output, [url]), consented(source)
    writer = None if path is None else require_writer(path.suffix)
    with kept_table(url) if intensities and not consent.elsewhere else nullcontext() as kept:
        if kept is not None:
            if path is not None:
                require_place(path, [kept.source])
            with written(path):
                return kept.given(path, writer)
    survey = open_survey(url, consent, intensities=intensities)
    if path is not None:
        require_place(path, source_places(survey))
    tally = survey.tally()
    with written(path), tables(survey, tally, path.parent if path else None, workers, on_block) as batches:
        if path is None or writer is None:
            return summary(survey, tally, None, joined(survey.head, batches))
        write(path, writer(survey.head, batches))
    return summary(survey, tally, path, None)


def require_workers(workers: int | None) -> None:
    """Raise unless a number of threads is one.

    Raises
    ------
    OptionError
        If there are none.
    """
    if workers is not None and workers < 1:
        raise OptionError(f"Use at least one of --workers, not {workers}.")


def source_places(survey: Survey) -> list[str]:
    """Return what must not be written over: the source of a result."""
    named = survey.result.manifest.source.url
    return [named] if survey.source is None else [named, survey.source.spec.url]


def looks(
    result: Finished, look: Callable[[Box], Result], workers: int | None, on_block: OnBlock
) -> Iterator[Result]:
    """Yield what is seen in every block, in raster order, while threads look at the next ones."""
    boxes = list(result.blocks())
    count = workers or available_cores()
    for done, seen in enumerate(in_order(look, boxes, threads=count, ahead=2 * count), 1):
        yield seen
        on_block(done, len(boxes))


@contextmanager
def written(path: Path | None) -> Iterator[None]:
    """Tell in one line of a file that cannot be written; None for one that has no name.

    Raises
    ------
    SinkError
        In place of an error of the system.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, UnetDaskError):
            raise
        name = path if path is not None else "A temporary file"
        raise SinkError(f"{name} cannot be written: {error.strerror or error}.") from error


@contextmanager
def tables(
    survey: Survey, tally: Tally, folder: Path | None, workers: int | None, on_block: OnBlock
) -> Iterator[Iterator[Columns]]:
    """Go through a result, and yield its table in pieces.

    Parameters
    ----------
    survey, tally : what is measured, and counted
    folder : of what does not fit into memory; None for the usual one of the system
    workers, on_block : as in `measure`
    """
    seen = looks(survey.result, survey.look, workers, on_block)
    with gathered(survey, tally, folder, seen) as batches:
        yield batches


@contextmanager
def gathered(
    survey: Survey, tally: Tally, folder: Path | None, blocks: Iterable[Seen]
) -> Iterator[Iterator[Columns]]:
    """Yield the table of what was seen in all blocks, in raster order; the rest is as of :func:`tables`."""
    with Spill(merged, folder=folder) as spill:
        for seen in blocks:
            spill.put(seen.rows)
            tally.see(seen)
        yield _counted(survey, tally, spill.batches())


def _counted(survey: Survey, tally: Tally, batches: Iterable[Rows]) -> Iterator[Columns]:
    for rows in batches:
        tally.count(rows)
        yield survey.columns(rows)


def summary(survey: Survey, tally: Tally, path: Path | None, columns: Columns | None) -> Measurement:
    """Return what was counted, once all was."""
    frame, median = survey.frame, tally.median
    extent = tally.millimetres(int(tally.extent.sum()))
    return Measurement(
        path=path,
        objects=tally.objects,
        median=None if median is None else median * frame.pixels,
        physical=None if median is None or frame.size is None else median * frame.size,
        unit="um2" if frame.dims == 2 else "um3",
        extent=extent,
        density=tally.objects / extent if extent else None,
        masked=survey.mask is not None,
        classes=tally.by_class,
        planes=tally.by_plane,
        notes=survey.notes,
        columns=columns,
    )
