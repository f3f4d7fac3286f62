"""The manifest: what a run leaves of itself in its sink, for whoever goes on with it.

It holds everything that the values depend on, and what a later driver must not decide anew: memory, precision and
the normalisation's constants. How many drivers there were is not in it.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from unet_dask.errors import SinkError
from unet_dask.io.remote import redact_url
from unet_dask.io.sink import lock as locks
from unet_dask.io.sink import place as places
from unet_dask.io.sink import session as sessions
from unet_dask.io.sink import store as sinks
from unet_dask.io.sink.manifest import ArrayRecord, Manifest, ModelRecord, PlanRecord
from unet_dask.ledger import Ledger
from unet_dask.model.foreign.graph import RUNTIME
from unet_dask.run.fingerprint import compare
from unet_dask.run.making import joined_array
from unet_dask.run.written import total_work
from unet_dask.setting import identity
from unet_dask.workers.preflight import installed

if TYPE_CHECKING:
    from unet_dask.model.header import Normalisation
    from unet_dask.run.prepared import Prepared

#: Of what lies in a run's folder while it goes on; 2 since numbers that are not joined have a place of their own.
LAYOUT = 2


def open_sink(prepared: Prepared, url: str, begun: Manifest | None, constants: Normalisation) -> sinks.Sink:
    """Return the sink: the one to resume or to join if it was begun with the same, else a new one."""
    plan, header = prepared.plan, prepared.model.header
    now = fingerprint(prepared, constants)
    place = sinks.Sink(url, plan.arrays)
    if begun:
        others = "name another place with -o" if prepared.part else "start over with --overwrite"
        compare(begun.fingerprint, now, url, source_fixed=prepared.config.source_fixed, otherwise=others)
        _require_joinable(place, begun)
        if begun.fingerprint != now:
            sinks.restamp(place, replace(begun, fingerprint=now).to_json())
        if prepared.part is None:  # else others may be writing
            sessions.end_all(url)
            places.sweep(url)
            locks.sweep(url)
        sinks.create_numbers(place)
        return place
    sessions.end_all(url)
    places.remove(url)
    corner = {
        axis: prepared.source.translation.get(axis, 0.0) + start * prepared.source.spacing.get(axis, 1.0)
        for axis, (start, _) in zip(plan.grid.axes, plan.grid.roi, strict=True)
        if axis != "c"
    }
    manifest = Manifest(
        layout=LAYOUT,
        fingerprint=now,
        normalisation=(constants.offset, constants.scale),
        ranges=prepared.ranges,
        memory=plan.limit,
        card=plan.gpu_limit,
        precision=plan.precision,
        model=ModelRecord(prepared.model.name, prepared.model.checksum),
        classes=header.class_names,
        plan=PlanRecord.from_json(plan.to_json()),
        arrays=tuple(ArrayRecord(each.name, each.axes, len(each.levels)) for each in plan.arrays),
        work=total_work(plan),
        mask=_mask_of(prepared),
    )
    sinks.create(
        place,
        manifest.to_json(),
        class_names=header.class_names,
        spacing=prepared.source.spacing,
        unit=prepared.source.unit,
        translation=corner,
        name=prepared.source.name,
    )
    return place


def _mask_of(prepared: Prepared) -> str | None:
    """Return what a result says of its mask."""
    if prepared.mask is None:
        return None
    return "auto" if prepared.config.mask == "auto" else prepared.mask.address


def _require_joinable(sink: sinks.Sink, begun: Manifest) -> None:
    """Refuse to go on with a run of an earlier version, whose numbers of objects lie where those of the result do."""
    if joined_array(sink.arrays) and begun.layout != LAYOUT and not Ledger(sink.run_folder).complete():
        raise SinkError(
            f"{redact_url(sink.url)} was begun by an earlier version of unet-dask, which kept numbers of objects "
            f"elsewhere (layout {begun.layout}, now {LAYOUT}), and is not complete. Start over with "
            "--overwrite, or go on with that version."
        )


def fingerprint(prepared: Prepared, constants: Normalisation) -> dict[str, str]:
    """Return everything that the values of the result depend on, by name."""
    versions = installed()
    return {
        **prepared.source.identity(),
        **prepared.plan.fingerprint(),
        **(prepared.mask.identity() if prepared.mask else {}),
        "model.checksum": prepared.model.checksum,
        "model.network": str(prepared.model.header.network),
        "model.normalisation": f"{constants.offset} {constants.scale}",
        **({"model.ranges": str(prepared.ranges)} if prepared.ranges else {}),
        **identity(prepared.config),
        "software.unet-dask": versions["unet-dask"],
        "software.torch": versions["torch"],
        **({f"software.{RUNTIME}": version(RUNTIME)} if prepared.model.header.network.foreign else {}),
    }
