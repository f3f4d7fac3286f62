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
from unet_dask.picture.preview import drawn
from unet_dask.setting import for_people
from unet_dask.workers.preflight import installed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unet_dask.config import SegmentConfig
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
class Facts:
    """What a report is made of, beside what the run told.

    Attributes
    ----------
    outcome : of the run
    seconds : of wall time, workers' start included
    passes : times that the network was run on every tile
    source, sink : where they are, without secrets
    model, versions, settings : names and texts
    picture : a PNG; b"" if there is none
    picture_note : why not, or what it shows
    """

    outcome: Outcome
    seconds: float
    passes: int
    source: str
    sink: str
    model: Mapping[str, str]
    versions: Mapping[str, str]
    settings: Mapping[str, str]
    picture: bytes
    picture_note: str


def gathered(asked: Asked, journal: Journal, outcome: Outcome) -> Facts:
    """Return the facts about a run whose work had begun."""
    assert journal.started is not None
    seconds = time.perf_counter() - journal.began
    file = inspect_model(asked.model)
    picture, note = _picture(asked.sink, journal.started.plan, complete=outcome.complete)
    return Facts(
        outcome=outcome,
        seconds=seconds,
        passes=len(symmetries(asked.config.tta, file.header.network.dims)),
        source=remote.redact_url(asked.source),
        sink=remote.redact_url(asked.sink),
        model={"name": file.path.name, "SHA-256 of its tensors": file.checksum},
        versions={"python": platform.python_version(), **installed(), "system": platform.platform()},
        settings=_settings(asked),
        picture=picture,
        picture_note=note,
    )


def _settings(asked: Asked) -> dict[str, str]:
    """Return every setting for people, without secrets."""
    flags = {name: "True" for name in ("resume", "overwrite") if getattr(asked, name)}
    return {name: remote.redact_url(text) for name, text in (for_people(asked.config) | flags).items()}


def _picture(sink: str, plan: Plan, *, complete: bool) -> tuple[bytes, str]:
    """Return a small preview as PNG, or b"" and why there is none."""
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
    try:
        figure, _ = drawn(sink, roi=roi, consent=Consent(plan.source.spec.url))
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=80)
    except (
        Exception
    ) as error:  # a damaged chunk, a disk that is full: the figures are worth more than a picture
        return b"", f"there is no picture: {remote.one_line(error)}"
    return file.getvalue(), note
