"""The last look before a result is called complete: all of it is there, and was made from the source as it is.

Folders are moved, disks unmounted and files rewritten while a run goes on for days. What the ledger on disk does not
hold any more, what has lost its files, and what was computed from parts of the source that have changed since, is taken
out of the record with all that was made from it; the run then ends as incomplete, and `--resume` does it again.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NoReturn

from unet_dask.dispatch import run_calls
from unet_dask.errors import IncompleteError, SinkError, UnetDaskError
from unet_dask.io.remote import redact_url
from unet_dask.io.sink import node, pyramid
from unet_dask.io.sink import place as places
from unet_dask.io.sink.files import stored_chunks
from unet_dask.io.source.volume import open_source
from unet_dask.io.source.window import stamp_of
from unet_dask.run.dependents import dependents, region_box
from unet_dask.run.making import LEVEL, joined_array, stored_source
from unet_dask.run.written import planned

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.io.sink.store import ArraySpec, Sink
    from unet_dask.io.source.window import SourceSpec
    from unet_dask.ledger import Entry, Key, Ledger
    from unet_dask.run.prepared import Prepared
    from unet_dask.run.written import Written
    from unet_dask.tiling.box import Box
    from unet_dask.workers.cluster import Cluster

#: Regions whose files are looked at by one task.
_BATCH = 64


def require_whole(prepared: Prepared, workers: Cluster, sink: Sink, ledger: Ledger) -> None:
    """Raise unless a run may be called complete.

    Parameters
    ----------
    prepared : run
    workers : that look at the files of the source
    sink : all of whose work is done
    ledger : of the run

    Raises
    ------
    SinkError
        If metadata of the sink was changed or removed; then it cannot be resumed.
    IncompleteError
        If work has to be done again.
    """
    recorded = require_there(prepared.plan, sink, ledger)
    _require_source(prepared, workers, sink, ledger, recorded)


def require_there(plan: Written, sink: Sink, ledger: Ledger) -> set[Key]:
    """Raise unless all that was recorded is there; return what was.

    Raises
    ------
    SinkError, IncompleteError
        As :func:`require_whole`.
    """
    _require_metadata(sink)
    recorded = ledger.finished()
    gone = sum(key not in recorded for key in planned(plan))
    if gone:
        raise IncompleteError(
            f"{gone} blocks are not in the record of {redact_url(sink.url)} any more: it was changed or "
            "removed while the run was going on. --resume does them again."
        )
    lost = set(_lost(plan, sink, recorded))
    if lost:
        _take_back(
            ledger, dependents(plan.arrays, plan.grid, lost, recorded),
            f"Files of {len(lost)} regions or blocks have vanished from {redact_url(sink.url)} while the run was going "
            "on. They will be made again: --resume.",
        )  # fmt: skip
    return recorded


def vanished(plan: Written, sink: Sink, recorded: set[Key]) -> set[Key]:
    """Return recorded work that is as good as not done: its files are not there, or those that it was made from."""
    if not recorded:
        return set()
    lost = {*_lost(plan, sink, recorded), *_without_numbers(plan, sink, recorded)}
    return dependents(plan.arrays, plan.grid, lost, recorded) & recorded


def _without_numbers(plan: Written, sink: Sink, recorded: set[Key]) -> set[Key]:
    """Return the regions whose own numbers are needed to join their objects, or those of others, and are not there.

    If they cannot be made of what is stored, either, regions are as good as not done. No run leaves them; a record that
    was damaged may, and so does the repair of a result whose objects have another shape than their pieces.
    """
    array = joined_array(sink.arrays)
    if array is None or stored_source({each.name for each in sink.arrays}, plan.rule) is not None:
        return set()
    waiting = [
        (0, index)
        for index in plan.grid.indices()
        if (0, index) in recorded and (LEVEL, index) not in recorded
    ]
    if (plan.rule.shapes or plan.rule.renames) and any(
        (LEVEL, index) not in recorded for index in plan.grid.indices()
    ):
        waiting = [(0, index) for index in plan.grid.indices() if (0, index) in recorded]
    if not waiting:
        return set()
    there = stored_chunks(sink, array, places.NUMBERS)
    boxes = ((key, region_box(plan.grid, array, key[1])) for key in waiting)
    return {key for key, box in boxes if not there[_files(array, box)].all()}


def require_numbers(plan: Written, sink: Sink, ledger: Ledger) -> None:
    """Raise if the objects of some regions cannot be joined.

    Raises
    ------
    IncompleteError
        Naming how many have to be done again; they are taken out of the ledger.
    """
    recorded = ledger.finished()
    wanting = _without_numbers(plan, sink, recorded)
    if wanting:
        _take_back(
            ledger, dependents(plan.arrays, plan.grid, wanting, recorded),
            f"The numbers of objects of {len(wanting)} regions have vanished from {redact_url(sink.url)}. They will be "
            "made again: --resume.",
        )  # fmt: skip


def forget_stale(prepared: Prepared, workers: Cluster, ledger: Ledger) -> None:
    """Take out of the record what was computed from what is not there any more, of a source that was repaired.

    Whoever says so says what the source is from now on, and cannot know which regions have seen what it was.
    """
    if (
        not prepared.config.source_fixed or prepared.part is not None
    ):  # others write the ledger; the last one looks
        return
    plan, stale = prepared.plan, set(_stale(prepared, workers, ledger))
    if stale:
        ledger.forget(_made_from(plan, stale, ledger.finished()))


def _made_from(plan: Written, stale: set[Key], recorded: set[Key]) -> set[Key]:
    """Return regions that will have other values, with all that was made from them.

    Objects of all regions are: what met within such a region may not meet any more, however far away its ends lie.
    """
    objects = {
        (level, index)
        for level, index in recorded
        if level == LEVEL or (level > 0 and plan.arrays[index[0]].product.joined)
    }
    return dependents(plan.arrays, plan.grid, stale, recorded) | (objects if stale else set())


def _files(array: ArraySpec, box: Box) -> tuple[slice, ...]:
    """Return which files of a level hold a box."""
    return tuple(slice(units.start, units.stop) for units in box.units(array.write_unit))


def _require_metadata(sink: Sink) -> None:
    """Raise if the manifest, or the document of any array, is not what was written."""
    for path, checksum in (_manifest(sink).nodes or {}).items():
        try:
            same = node.checksum(sink.url, path) == checksum
        except (OSError, ValueError):
            same = False
        if not same:
            raise SinkError(_damaged(sink, f"{path or '.'}/zarr.json was changed or removed"))


def _manifest(sink: Sink) -> Manifest:
    """Return the manifest, which a run had that comes to its end."""
    manifest = places.read_manifest(sink.url)
    if manifest is None:
        raise SinkError(_damaged(sink, "its manifest was removed"))
    return manifest


def _damaged(sink: Sink, what: str) -> str:
    return (
        f"{redact_url(sink.url)} is not whole: {what} while the run was going on. Restore it from a copy and --resume, "
        "or start over with --overwrite."
    )


def _lost(plan: Written, sink: Sink, recorded: set[Key]) -> Iterator[Key]:
    """Yield the recorded pieces of work some of whose files are not there, or are empty."""
    for number, array in enumerate(sink.arrays):
        for level in range(len(array.levels)):
            there = stored_chunks(sink, array, f"{array.name}/{level}", level)
            if there.all():
                continue
            boxes = _regions(plan, array) if level == 0 else _blocks(array, number, level)
            for key, box in boxes:
                if key in recorded and not there[_files(array, box)].all():
                    yield key


def _regions(plan: Written, array: ArraySpec) -> Iterator[tuple[Key, Box]]:
    """Yield the work that writes the finest level of a product: of objects, that which joins them."""
    for index in plan.grid.indices():
        yield (LEVEL if array.product.joined else 0, index), region_box(plan.grid, array, index)


def _blocks(array: ArraySpec, number: int, level: int) -> Iterator[tuple[Key, Box]]:
    for block in pyramid.block_indices(array, level):
        yield (level, (number, *block)), pyramid.block_box(array, level, block)


def _require_source(
    prepared: Prepared, workers: Cluster, sink: Sink, ledger: Ledger, recorded: set[Key]
) -> None:
    """Raise if source or mask are not what they were, or a region was computed from what has changed."""
    stale = set(_stale(prepared, workers, ledger))
    different = _differences(prepared, _manifest(sink))
    if not stale and not different:
        return
    if different and not stale:
        # Where files cannot be looked at, or a mask has changed, nobody knows which regions have seen it.
        stale = {entry.key for entry in ledger.own() if entry.level == 0 and not entry.stamp}
    what = f" ({', '.join(different)})" if different else ""
    undone = (
        f"{len(stale)} regions that were computed from what is not there any more are to be done again"
        if stale
        else "no region was computed from what is not there any more"
    )
    _take_back(
        ledger, _made_from(prepared.plan, stale, recorded),
        f"The source of {redact_url(sink.url)} was changed while it was read{what}; {undone}. Put back what it was and "
        "--resume; or, to go on with what it is now, --resume --source-fixed.",
    )  # fmt: skip


def _differences(prepared: Prepared, manifest: Manifest) -> list[str]:
    """Return the fields in which source and mask are not what the manifest says."""
    spec = prepared.source.spec
    try:
        now = open_source(spec.url, key=spec.key or None, axes=spec.axes, channels=spec.channels).identity()
        if prepared.mask:
            now |= prepared.mask.identity()
    except UnetDaskError as error:
        raise IncompleteError(
            f"The source cannot be looked at again: {error} All regions are written; bring it back and --resume."
        ) from error
    return [name for name, value in now.items() if manifest.fingerprint.get(name) != value]


def _stale(prepared: Prepared, workers: Cluster, ledger: Ledger) -> Iterator[Key]:
    """Yield the regions whose part of the source is not what they were computed from."""
    stamped = (entry for entry in ledger.unsorted() if entry.level == 0 and entry.stamp)
    batches = iter(lambda: list(itertools.islice(stamped, _BATCH)), [])
    calls = (
        ((number,), (prepared.source.spec, [_window(prepared.plan, each) for each in batch], batch))
        for number, batch in enumerate(batches)
    )
    for _, found in run_calls(workers.client, _changed, calls, in_flight=4 * workers.workers):
        if isinstance(found, str):
            raise IncompleteError(
                f"The source cannot be looked at again: {found} All regions are written; bring it back and --resume."
            )
        yield from found


def _window(plan: Written, entry: Entry) -> tuple[slice, ...]:
    """Return what a region reads of the source."""
    return tuple(slice(*each) for each in plan.grid.source_window(entry.index))


def _changed(spec: SourceSpec, windows: list[tuple[slice, ...]], entries: list[Entry]) -> list[Key]:
    """Return the regions whose files have changed, on a worker."""
    return [
        entry.key
        for window, entry in zip(windows, entries, strict=True)
        if stamp_of(spec, window) != entry.stamp
    ]


def _take_back(ledger: Ledger, wrong: Collection[Key], message: str) -> NoReturn:
    """Take work out of the record, and say so."""
    ledger.forget(wrong)
    raise IncompleteError(message)
