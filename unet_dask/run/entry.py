"""Whether a run may begin at a place, or go on there: what stands there, who holds it, whether it can be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unet_dask.errors import OptionError, SinkError
from unet_dask.io import remote
from unet_dask.io.sink import lock as locks
from unet_dask.io.sink import place as places
from unet_dask.part import WHOLE, Part

if TYPE_CHECKING:
    from unet_dask.io.sink.manifest import Manifest


def check_place(
    source: str, sink: str, part: Part | None, *, resume: bool, overwrite: bool
) -> Manifest | None:
    """Return the manifest of a run to resume, None for a new one; refuse a sink that would do harm."""
    if part is not None and overwrite:
        raise OptionError(
            f"Part {part} cannot overwrite {remote.redact_url(sink)}: its siblings may be at work there. Remove it "
            "before the parts are started, or name another place with -o."
        )
    if resume and overwrite:
        raise OptionError("A run is either resumed or started over. Use --resume or --overwrite, not both.")
    if remote.contains(source, sink) or remote.contains(sink, source):
        raise SinkError(
            f"The sink {remote.redact_url(sink)} is the source, lies in it or holds it; writing there could destroy "
            "the data. Name another place with -o."
        )
    manifest = None
    if places.exists(sink):
        places.require_ours(sink)
        locks.require_free(sink, part or WHOLE)
        if resume or part is not None:  # a sibling may have begun it
            manifest = places.read_manifest(sink)
        elif overwrite:
            places.require_replaceable(sink)
        else:
            raise SinkError(
                f"{remote.redact_url(sink)} exists already. Go on with it by --resume, replace it by --overwrite, or "
                "name another place with -o."
            )
    reason = places.why_unwritable(sink)
    if reason:
        raise SinkError(
            f"The sink {remote.redact_url(sink)} cannot be written: {reason}. Name a place that can be written with -o."
        )
    return manifest
