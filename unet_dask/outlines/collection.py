"""All objects of a result as one file of GeoJSON: measured and outlined in one pass, block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unet_dask.durable import write
from unet_dask.measuring.measure import looks
from unet_dask.measuring.spill import Spill
from unet_dask.measuring.sums import merged
from unet_dask.outlines.corners import corners_of, merged_corners
from unet_dask.outlines.geojson import Features

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from unet_dask.measuring.columns import Columns
    from unet_dask.measuring.measure import OnBlock
    from unet_dask.measuring.sums import Rows
    from unet_dask.measuring.survey import Survey
    from unet_dask.tiling.box import Box

#: Bytes of corners that are made polygons at a time, which take ten times as much meanwhile.
_CORNERS = 16 << 20


def write_geojson(survey: Survey, path: Path, kind: str, workers: int | None, on_block: OnBlock) -> int:
    """Write the objects of a result, each of a kind that QuPath knows, and return how many there are."""
    count = 0

    def counted() -> Iterator[tuple[Columns, Rows]]:
        nonlocal count
        for rows, found in beside(sums.batches(), corners.batches()):
            count += len(rows)
            yield survey.columns(rows), found

    with (
        Spill(merged, folder=path.parent) as sums,
        Spill(merged_corners, folder=path.parent, limit=_CORNERS) as corners,
    ):
        for rows, found in looks(survey.result, _tracing(survey), workers, on_block):
            sums.put(rows)
            corners.put(found)
        write(path, Features(survey.frame, survey.result.manifest.classes, kind).pieces(counted()))
    return count


def _tracing(survey: Survey) -> Callable[[Box], tuple[Rows, Rows]]:
    """Return what measures and outlines the objects of a block."""

    def look(box: Box) -> tuple[Rows, Rows]:
        labels = survey.labels(box)
        return survey.seen(box, labels).rows, corners_of(labels, box.start, survey.frame.shape)

    return look


def beside(sums: Iterator[Rows], corners: Iterator[Rows]) -> Iterator[tuple[Rows, Rows]]:
    """Yield sums and corners of the same objects, some at a time.

    Parameters
    ----------
    sums : a record for each object, by number
    corners : some for each, by number; those of one object are never in two batches
    """
    waiting: list[Rows] = []
    for found in corners:
        last = found["label"][-1]
        while not waiting or waiting[-1]["label"][-1] < last:
            waiting.append(next(sums))
        rows = np.concatenate(waiting)
        end = int(np.searchsorted(rows["label"], last, side="right"))
        waiting = [rows[end:]] if end < len(rows) else []
        yield rows[:end], found
