"""Repair: what is wrong is taken out of the ledger, and the run goes on from there, as `segment --resume` does.

Nothing is written that a run would not write, and everything that could refuse is asked before the ledger is touched.
Killed before the ledger is changed, the sink is what it was; killed after, it is an unfinished run that says so, and
`segment --resume` or another repair ends it.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from unet_dask.errors import SinkError
from unet_dask.io import remote
from unet_dask.io.sink import lock as locks
from unet_dask.io.sink import place as places
from unet_dask.io.sink import pyramid
from unet_dask.ledger import Ledger
from unet_dask.model.header import Normalisation
from unet_dask.pipeline import require_here, segment_store
from unet_dask.run.fingerprint import compare
from unet_dask.run.manifest import fingerprint
from unet_dask.run.prepare import prepare
from unet_dask.verify.again import find_model_of, open_source_of, require_unchanged, settings_of
from unet_dask.verify.stored import ranges_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from distributed import Client

    from unet_dask.io.sink.store import ArraySpec
    from unet_dask.run.events import Listener
    from unet_dask.verify.finding import Key
    from unet_dask.verify.stored import Box, Stored


def repair(
    stored: Stored,
    wrong: Iterable[Key],
    *,
    model: str | os.PathLike[str] | None,
    client: Client | None,
    workers: int | None,
    on_event: Listener | None,
) -> int:
    """Do wrong pieces of work again, and all that was made from them; return how many that were.

    Raises
    ------
    MismatchError
        If the source, the model or the software are not those of the run.
    ModelError
        If the model is not at hand.
    OptionError
        If the run was in a precision that this machine does not have.
    SinkError
        If another run is using the sink, or has just done so.
    """
    manifest, url = stored.manifest, stored.url
    if len(stored.arrays) != len(manifest["arrays"]):
        raise SinkError(
            f"{remote.redact_url(url)} cannot be repaired: the metadata of a product is damaged. Restore its zarr.json "
            "from a copy, or start over with segment --overwrite."
        )
    file = find_model_of(manifest, model)
    source = open_source_of(manifest)
    require_unchanged(manifest, source, url)
    address, settings = manifest["fingerprint"]["source.url"], settings_of(stored)
    prepared = replace(prepare(address, file, settings, stored={}), ranges=ranges_of(manifest))
    if client is None:
        require_here(prepared, stored=manifest)
    offset, scale = manifest["normalisation"]
    constants = Normalisation("constant", tuple(offset), tuple(scale))
    compare(manifest["fingerprint"], fingerprint(prepared, constants), url)
    with locks.locked(url):
        if places.read_manifest(url) != manifest:
            raise SinkError(
                f"{remote.redact_url(url)} was replaced by another run just now. Verify it again."
            )
        with Ledger(stored.sink.run_folder) as ledger:
            ledger.forget(dependents(stored, wrong, set(ledger.entries())))
    settings = replace(settings, workers=workers)
    run = segment_store(
        address, url, file.path, client=client, resume=True, config=settings, on_event=on_event
    )
    return run.computed


def dependents(stored: Stored, wrong: Iterable[Key], recorded: set[Key]) -> set[Key]:
    """Return wrong pieces of work with all that was made from them, whether it is wrong or not.

    Parameters
    ----------
    stored : sink
    wrong : pieces of work
    recorded : all entries of the ledger; of a region every stage is taken, since later ones change what earlier ones
        wrote
    """
    doomed = set(wrong)
    regions = {index for level, index in doomed if level <= 0}
    doomed |= {key for key in recorded if key[0] <= 0 and key[1] in regions}
    for array in stored.arrays:
        for index in regions:
            doomed |= _blocks_over(stored, array, 0, stored.region_box(array, index))
    for level, index in list(doomed):
        if level > 0 and index[0] < len(stored.arrays):
            array = stored.arrays[index[0]]
            if level < len(array.levels):
                doomed |= _blocks_over(stored, array, level, stored.block(array, level, index[1:]).box)
    return doomed


def _blocks_over(stored: Stored, array: ArraySpec, level: int, box: Box) -> set[Key]:
    """Return the blocks of coarser levels that were made from a box of a level."""
    found: set[Key] = set()
    for coarser in range(level + 1, len(array.levels)):
        step = array.levels[coarser].step_from(array.levels[level])
        ranges = [
            range(start // (by * side), -(-stop // (by * side)))
            for (start, stop), by, side in zip(box, step, pyramid.block_shape(array), strict=True)
        ]
        found |= {(coarser, (stored.numbers[array.name], *index)) for index in product(*ranges)}
    return found
