"""The verb `remake_objects`: objects of a finished result made again, by another rule, of what is stored.

No network is run and no source is read. Until the new objects are there the result is one that is not complete, and
says so; whoever was interrupted calls it once more.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from unet_dask.config import SegmentConfig, configured, format_bytes
from unet_dask.engine.device import available_cores
from unet_dask.errors import MemoryPlanError, OptionError, SinkError
from unet_dask.io import remote
from unet_dask.io.sink import lock as locks
from unet_dask.io.sink import place as places
from unet_dask.io.sink import session as sessions
from unet_dask.io.sink import store as sinks
from unet_dask.io.source.volume import open_source
from unet_dask.ledger import Ledger
from unet_dask.measuring.kept import remove_table
from unet_dask.measuring.table import require_arrow
from unet_dask.objects.rule import OBJECTS, ObjectRule
from unet_dask.planning.grant import default_limit
from unet_dask.planning.objects import window_bytes
from unet_dask.run.last import complete
from unet_dask.run.making import LEVEL, joined_array, stored_source
from unet_dask.run.planned import is_planned
from unet_dask.run.prepare import in_pixels, rule_for
from unet_dask.run.recorder import Recorder
from unet_dask.run.seal import require_there
from unet_dask.run.table import make_table, of_result
from unet_dask.run.written import total_work
from unet_dask.setting import identity, nearest, read_identity
from unet_dask.verify.stored import open_stored
from unet_dask.workers import cluster as clusters

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.io.sink.store import ArraySpec
    from unet_dask.ledger import Key
    from unet_dask.run.events import Listener
    from unet_dask.tiling.region import RegionGrid
    from unet_dask.verify.stored import Stored

#: Settings that say how objects are made.
OF_OBJECTS = ("objects", "threshold", "fill_holes", "min_size", "split", "connect", "numbers")


@dataclass(frozen=True, slots=True)
class Remade:
    """What became of a result.

    Attributes
    ----------
    sink : path or URL of the result
    rule : by which its objects are made now
    regions : whose objects were written
    seconds : of wall time, workers' start included
    peak_bytes : most resident memory that any worker had
    """

    sink: str
    rule: ObjectRule
    regions: int
    seconds: float
    peak_bytes: int

    def summary(self) -> str:
        """Return one line for people."""
        return (
            f"{remote.redact_url(self.sink)}: objects of {self.regions} regions in {self.seconds:.1f} s: "
            f"{self.rule.text}"
        )

    def to_json(self) -> dict[str, object]:
        """Return the outcome for programs."""
        return {
            "sink": remote.redact_url(self.sink),
            "rule": self.rule.to_json(),
            "regions": self.regions,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
        }


@dataclass(frozen=True, slots=True)
class _Result:
    """What is written: arrays and regions of the result, that of its objects, and how these will be made."""

    arrays: tuple[ArraySpec, ...]
    objects: ArraySpec
    grid: RegionGrid
    rule: ObjectRule
    dims: int
    classes: int


def remake_objects(
    sink: str | os.PathLike[str],
    *,
    workers: int | None = None,
    memory: int | str | None = None,
    on_event: Listener | None = None,
    **settings: Any,  # fields of SegmentConfig
) -> Remade:
    """Make the objects of a finished result again, by another rule.

    Parameters
    ----------
    sink : path or URL of a result with `instances`, and with what they are made of: `probabilities` for neurites,
        `classes` for all others
    workers : local worker processes; None for one per 2 cores
    memory : that one of them may use
    on_event : called with every event
    **settings : of :class:`unet_dask.config.SegmentConfig`: see :data:`OF_OBJECTS`; what is not said stays as it
        was

    Raises
    ------
    SinkError
        If there is no such result, or it is damaged or not complete.
    OptionError
        If settings do not fit together, or the result does not hold what such objects are made of.
    """
    began, url = time.perf_counter(), remote.location(sink, "result")
    _require_of_objects(settings)
    stored, objects = _opened(url)
    manifest = stored.manifest
    config = configured(
        read_identity(SegmentConfig, manifest.fingerprint), settings | {"workers": workers, "memory": memory}
    )
    config = in_pixels(config, open_source(url, key=f"{objects.name}/0"), stored.dims)
    rule = _rule(stored, config)
    if config.measure:
        require_arrow("make objects again where it is: the result keeps a table of them")
    result = _Result(stored.arrays, objects, stored.grid, rule, stored.dims, len(manifest.classes))
    count = config.workers or clusters.default_workers("cpu")
    limit = config.memory or default_limit(available_cores(), clusters.machine_memory(), count, gpus=0)
    _require_memory(result, limit)
    with places.refusals_told(url), locks.locked(url):
        if places.read_manifest(url) != manifest:
            raise SinkError(
                f"{remote.redact_url(url)} was replaced by another run just now. Look at it again."
            )
        place = sinks.Sink(url, stored.arrays)
        with (
            clusters.local_cluster(workers=count, threads=1, limit=limit, device="cpu") as cluster,
            Ledger(place.run_folder, partial(is_planned, result)) as ledger,
        ):
            # In this order: killed in between, the result is one whose objects are not done, by either rule.
            _restart(place, ledger, manifest, config, result)
            with sessions.session(url) as own:
                at_work = replace(place, session=own.name)
                recorder = Recorder(
                    ledger, own, on_event or _silent, len(ledger.finished()), total_work(result)
                )
                look = partial(require_there, result, place, ledger)
                table = partial(make_table, cluster, url, limit, ledger, recorder, of_result)
                complete(result, cluster, at_work, ledger, recorder, look, table if config.measure else None)
    return Remade(url, result.rule, len(result.grid), time.perf_counter() - began, recorder.done.peak_bytes)


def _silent(event: object) -> None:
    """Tell nobody."""


def _require_of_objects(settings: Mapping[str, Any]) -> None:
    """Raise unless settings say how objects are made."""
    for name in settings:
        if name not in OF_OBJECTS:
            hint = nearest(name, OF_OBJECTS, f"There are: {', '.join(OF_OBJECTS)}.")
            raise OptionError(f"There is no setting {name} of objects that are made again. {hint}")


def _opened(url: str) -> tuple[Stored, ArraySpec]:
    """Return a result all of whose regions are done, and the array of its objects."""
    stored, findings = open_stored(url)
    if stored is None or findings:
        what = findings[0].text if findings else "it was never completely created"
        raise SinkError(f"The objects of {remote.redact_url(url)} cannot be made again: {what}")
    objects = joined_array(stored.arrays)
    if objects is None:
        raise SinkError(
            f"{remote.redact_url(url)} has no objects. Segment again with --products instances among them."
        )
    finished = Ledger(stored.sink.run_folder).finished()
    left = sum((0, index) not in finished for index in stored.grid.indices())
    if left:
        raise SinkError(
            f"{remote.redact_url(url)} is not complete: {left} of {len(stored.grid)} regions are not done. Go on with "
            "segment --resume first."
        )
    return stored, objects


def _rule(stored: Stored, config: SegmentConfig) -> ObjectRule:
    """Return how objects will be made, of a result that holds what they are made of."""
    before = ObjectRule.recorded(stored.manifest.fingerprint)
    if before is None and config.objects == "auto":
        raise OptionError(
            f"{remote.redact_url(stored.url)} was made by an earlier version, which said in words how its objects are "
            "made. Say it with --objects."
        )
    rule = rule_for(config, before or ObjectRule())
    if stored_source({each.name for each in stored.arrays}, rule) is None:
        needed = "probabilities" if rule.threshold else "classes"
        raise OptionError(
            f"Such objects are made of {needed}, and {remote.redact_url(stored.url)} does not hold them. Segment again "
            f"with --products {needed},instances."
        )
    return rule


def _require_memory(result: _Result, limit: int) -> None:
    needed = window_bytes(result.grid, result.rule, dims=result.dims, dtype=result.objects.dtype)
    if needed > limit:
        raise MemoryPlanError(
            f"Objects around a region take {format_bytes(needed)}, more than the {format_bytes(limit)} of a worker. "
            "Give it more with --memory."
        )


def _restart(
    place: sinks.Sink, ledger: Ledger, manifest: Manifest, config: SegmentConfig, result: _Result
) -> None:
    """Take the objects out of the record, and write down how they will be made."""
    remove_table(place.url)
    ledger.forget(set(_of_objects(result, ledger.finished())))
    sessions.end_all(place.url)
    places.sweep(place.url)
    sinks.remove_numbers(place)
    said = {name: value for name, value in manifest.fingerprint.items() if name != OBJECTS}
    said = {name: value for name, value in said.items() if not name.startswith("setting.")} | identity(config)
    if result.rule.changes:
        said[OBJECTS] = result.rule.record
    if said != manifest.fingerprint:
        sinks.restamp(place, replace(manifest, fingerprint=said).to_json())
    sinks.create_numbers(place)


def _of_objects(result: _Result, finished: set[Key]) -> set[Key]:
    """Return the work that makes objects, and the pyramid of these."""
    return {
        (level, index)
        for level, index in finished
        if level == LEVEL or (level > 0 and result.arrays[index[0]].product.joined)
    }
