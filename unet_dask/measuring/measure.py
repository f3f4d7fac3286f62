"""The verb `measure`: the objects of a finished result as a table."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from unet_dask.ahead import in_order
from unet_dask.durable import write
from unet_dask.engine.device import available_cores
from unet_dask.errors import OptionError, SinkError, UnetDaskError
from unet_dask.io import remote
from unet_dask.io.source.received import consented
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
    from unet_dask.measuring.frame import Frame
    from unet_dask.measuring.sums import Rows
    from unet_dask.measuring.survey import Survey
    from unet_dask.tiling.box import Box

    #: Called with the blocks that were looked at so far, and their number.
    OnBlock = Callable[[int, int], None]

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured, in a few numbers; the table itself if it was not written to a file.

    Attributes
    ----------
    path : of the table; None if `columns` holds it
    objects : how many there are
    median : of their areas in pixels, or volumes in voxels; None if there are none
    physical : the same in `unit`; None if the size of a pixel is not known
    unit : "um2" or "um3"
    extent : what was segmented in square or cubic millimetres, the tissue of a run with a mask; None if not known
    density : objects per square or cubic millimetre of that
    masked : whether a mask says what was segmented
    notes : what the user should know
    columns : the table, by names; None if it was written to a file
    """

    path: Path | None
    objects: int
    median: float | None
    physical: float | None
    unit: str
    extent: float | None
    density: float | None
    masked: bool
    notes: tuple[str, ...]
    columns: Columns | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, object]:
        """Return the numbers for programs."""
        said = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "columns"}
        return said | {"path": None if self.path is None else str(self.path)}

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield what was measured for people: a label and a text for each line."""
        yield "objects", f"{self.objects}"
        if self.median is not None:
            flat = self.unit == "um2"
            size = f"{self.median:g} {'pixels' if flat else 'voxels'}"
            known = "" if self.physical is None else f", {self.physical:.4g} {self.unit}"
            yield f"median {'area' if flat else 'volume'}", size + known
        if self.extent is not None and self.density is not None:
            unit, of = self.unit.replace("um", "mm"), "the mask" if self.masked else "the image"
            yield f"objects per {unit}", f"{self.density:.4g} ({self.extent:.4g} {unit} of {of})"
        if self.path is not None:
            yield "table", str(self.path)
        for note in self.notes:
            yield "note", note


@dataclass
class Tally:
    """What is counted beside the table.

    Attributes
    ----------
    extent : voxels that were segmented
    areas : of objects, as voxels -> how many; there are far fewer areas than objects
    """

    extent: int = 0
    areas: dict[int, int] = field(default_factory=dict)

    def count(self, rows: Rows) -> None:
        """Count objects of which all is known."""
        for area, number in zip(*(each.tolist() for each in np.unique_counts(rows["area"])), strict=True):
            self.areas[area] = self.areas.get(area, 0) + number

    @property
    def objects(self) -> int:
        """How many there are."""
        return sum(self.areas.values())

    @property
    def median(self) -> float | None:
        """Median area in voxels, None if there are no objects."""
        if not self.areas:
            return None
        areas = sorted(self.areas)
        ends = np.cumsum([self.areas[area] for area in areas])
        low, high = (areas[int(np.searchsorted(ends, rank))] for rank in _middle(int(ends[-1])))
        return (low + high) / 2


def _middle(count: int) -> tuple[int, int]:
    """Return the ranks, from 1, of the middle of some numbers."""
    return (count + 1) // 2, count // 2 + 1


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
    path = None if output is None else require_place(output, [url])
    writer = None if path is None else require_writer(path.suffix)
    survey = open_survey(url, consented(source), intensities=intensities)
    if path is not None:
        require_place(path, source_places(survey))
    tally = Tally()
    with Spill(merged, folder=path.parent if path else None) as spill, written(path):
        for seen in looks(survey.result, survey.look, workers, on_block):
            spill.put(seen.rows)
            tally.extent += seen.extent
        batches = _tables(survey, spill.batches(), tally)
        if path is None or writer is None:
            return _summary(survey, tally, None, _joined(survey.head, batches))
        write(path, writer(survey.head, batches))
    return _summary(survey, tally, path, None)


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


def _tables(survey: Survey, batches: Iterable[Rows], tally: Tally) -> Iterator[Columns]:
    for rows in batches:
        tally.count(rows)
        yield survey.columns(rows)


def _joined(head: Columns, batches: Iterable[Columns]) -> Columns:
    """Return a table whose parts are in memory."""
    parts = list(batches) or [head]
    return {name: np.concatenate([part[name] for part in parts]) for name in head}


def _summary(survey: Survey, tally: Tally, path: Path | None, columns: Columns | None) -> Measurement:
    frame: Frame = survey.frame
    median, unit = tally.median, "um2" if frame.dims == 2 else "um3"
    extent = None if frame.size is None else tally.extent * frame.size / 1000**frame.dims
    return Measurement(
        path=path,
        objects=tally.objects,
        median=None if median is None else median * frame.pixels,
        physical=None if median is None or frame.size is None else median * frame.size,
        unit=unit,
        extent=extent,
        density=tally.objects / extent if extent else None,
        masked=survey.mask is not None,
        notes=survey.notes,
        columns=columns,
    )
