"""What a report is made of, beside what the run told: gathered when the run is over."""

from __future__ import annotations

import io
import platform
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask.engine.augment import symmetries
from unet_dask.io import remote
from unet_dask.io.source.received import Consent
from unet_dask.model.file import inspect_model
from unet_dask.picture.preview import detail, drawn
from unet_dask.setting import for_people
from unet_dask.workers.preflight import installed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

    from unet_dask.config import SegmentConfig
    from unet_dask.model.file import ModelFile
    from unet_dask.planning.plan import Plan
    from unet_dask.report.journal import Journal

#: Voxels of a plane that are read for the picture of a run that has no pyramids yet.
_MOST_DRAWN = 1 << 26


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user asked for.

    Attributes
    ----------
    source, sink, model, config, resume, overwrite : of :func:`unet_dask.segment_store`
    """

    source: str
    sink: str
    model: str
    config: SegmentConfig
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes
    ----------
    line : for people
    good : whether nothing failed
    complete : whether the whole result is there, with its pyramids
    """

    line: str
    good: bool
    complete: bool


@dataclass(frozen=True, slots=True)
class Pictures:
    """What is seen of a result.

    Attributes
    ----------
    whole : a PNG of a plane; b"" if there is none
    detail : of the part that has most in it, at full size; b"" if the first one shows that, or there is none
    objects : how many there are, for people; "" if they are not counted
    note : why there is no picture, or what it shows
    """

    whole: bytes = b""
    detail: bytes = b""
    objects: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report is made of, beside what the run told.

    Attributes
    ----------
    outcome : of the run
    seconds : of wall time, workers' start included
    passes : times that the network was run on every tile
    source, sink : where they are, without secrets
    model, versions, settings : names and texts
    pictures : what is seen of the result
    """

    outcome: Outcome
    seconds: float
    passes: int
    source: str
    sink: str
    model: Mapping[str, str]
    versions: Mapping[str, str]
    settings: Mapping[str, str]
    pictures: Pictures


def gathered(asked: Asked, journal: Journal, outcome: Outcome) -> Facts:
    """Return the facts about a run whose work had begun."""
    assert journal.started is not None
    seconds = time.perf_counter() - journal.began
    file = inspect_model(asked.model)
    return Facts(
        outcome=outcome,
        seconds=seconds,
        passes=len(symmetries(asked.config.tta, file.header.network.dims)),
        source=remote.redact_url(asked.source),
        sink=remote.redact_url(asked.sink),
        model=about_model(file),
        versions=versions(),
        settings=_settings(asked),
        pictures=_pictures(asked.sink, journal.started.plan, complete=outcome.complete),
    )


def about_model(file: ModelFile) -> dict[str, str]:
    """Return what a report says of a model."""
    return {"name": file.name, "SHA-256 of its tensors": file.checksum}


def versions() -> dict[str, str]:
    """Return the versions of what was run."""
    return {"python": platform.python_version(), **installed(), "system": platform.platform()}


def _settings(asked: Asked) -> dict[str, str]:
    """Return every setting for people, without secrets."""
    flags = {name: "True" for name in ("resume", "overwrite") if getattr(asked, name)}
    return {name: remote.redact_url(text) for name, text in (for_people(asked.config) | flags).items()}


def _pictures(sink: str, plan: Plan, *, complete: bool) -> Pictures:
    """Return what is seen of a result, or why nothing is."""
    plane, roi, note = plan.grid.roi[-2:], None, ""
    (top, bottom), (left, right) = plane
    if not complete and (bottom - top) * (right - left) > _MOST_DRAWN:
        # Only the finest level tells what is there, and a report of a huge volume must not take an hour.
        half = int(_MOST_DRAWN**0.5) // 2
        roi = ",".join(
            f"{max((low + high) // 2 - half, low)}:{min((low + high) // 2 + half, high)}"
            for low, high in plane
        )
        note = "the middle of the plane"
    consent = Consent(plan.source.spec.url)
    try:
        figure, shown = drawn(sink, roi=roi, consent=consent)
        part = detail(sink) if complete else None
        closer = b"" if part is None else png(drawn(sink, roi=part, consent=consent, counted=False)[0])
        return Pictures(png(figure), closer, shown["objects"], note)
    except (
        Exception
    ) as error:  # a damaged chunk, a disk that is full: the figures are worth more than a picture
        return Pictures(note=f"there is no picture: {remote.one_line(error)}")


def png(figure: Figure) -> bytes:
    """Return a figure as a file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi="figure")
    return file.getvalue()
