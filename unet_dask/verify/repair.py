"""Repair: what is wrong is taken out of the ledger, and the run goes on from there, as `segment --resume` does.

Nothing is written that a run would not write, and everything that could refuse is asked before the ledger is touched.
Killed before the ledger is changed, the sink is what it was; killed after, it is an unfinished run that says so, and
`segment --resume` or another repair ends it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from unet_dask.errors import SinkError
from unet_dask.io import remote
from unet_dask.io.sink import lock as locks
from unet_dask.io.sink import place as places
from unet_dask.io.source.received import mask_of, source_of
from unet_dask.ledger import Ledger
from unet_dask.measuring.kept import remove_table
from unet_dask.model.header import Normalisation
from unet_dask.pipeline import segment_store
from unet_dask.run.dependents import dependents
from unet_dask.run.fingerprint import compare
from unet_dask.run.manifest import fingerprint
from unet_dask.run.prepare import open_inputs, prepare, this_machine
from unet_dask.run.staff import require_here
from unet_dask.verify.reopen import find_model_of, require_unchanged, settings_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from distributed import Client

    from unet_dask.io.source.received import Consent
    from unet_dask.run.events import Listener
    from unet_dask.verify.finding import Key
    from unet_dask.verify.stored import Stored


def repair(
    stored: Stored,
    wrong: Iterable[Key],
    *,
    model: str | os.PathLike[str] | None,
    client: Client | None,
    workers: int | None,
    on_event: Listener | None,
    consent: Consent,
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
    if len(stored.arrays) != len(manifest.arrays):
        raise SinkError(
            f"{remote.redact_url(url)} cannot be repaired: the metadata of a product is damaged. Restore its zarr.json "
            "from a copy, or start over with segment --overwrite."
        )
    file = find_model_of(manifest, model)
    source = source_of(manifest.fingerprint, consent)
    require_unchanged(manifest, source, mask_of(manifest.mask, source, consent), url)
    address, settings = source.spec.url, settings_of(stored)
    inputs = open_inputs(address, file, settings)
    prepared = replace(prepare(inputs, this_machine(settings), None), ranges=manifest.ranges)
    if client is None:
        require_here(prepared.plan, manifest)
    constants = Normalisation("constant", *manifest.normalisation)
    compare(manifest.fingerprint, fingerprint(prepared, constants), url)
    with locks.locked(url):
        if places.read_manifest(url) != manifest:
            raise SinkError(
                f"{remote.redact_url(url)} was replaced by another run just now. Verify it again."
            )
        with Ledger(stored.sink.run_folder) as ledger:
            remove_table(url)  # the run that follows makes it again
            ledger.forget(dependents(stored.arrays, stored.grid, wrong, ledger.finished()))
    settings = replace(settings, workers=workers)
    run = segment_store(
        address, url, file.path, client=client, resume=True, config=settings, on_event=on_event
    )
    return run.computed
