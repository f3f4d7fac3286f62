"""The second proof of a network of others: on the user's own data, before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unet_dask.axes import one_or_all
from unet_dask.errors import ModelError
from unet_dask.model.foreign.spec import TOLERANCE
from unet_dask.workers.agreement import ProbeInput, measured_dependence, sites_by_contrast

if TYPE_CHECKING:
    from unet_dask.model.header import Normalisation
    from unet_dask.run.prepared import Prepared
    from unet_dask.workers.cluster import Cluster


def probe_of(prepared: Prepared, constants: Normalisation) -> ProbeInput:
    """Return where tiles to measure on are taken from."""
    dims, nan = prepared.model.header.network.dims, prepared.config.nan
    return ProbeInput(prepared.source.spec, prepared.plan.grid, dims, constants, nan, prepared.mask)


def proven(prepared: Prepared, workers: Cluster, constants: Normalisation) -> tuple[str, ...]:
    """Prove that what a network makes of the user's image does not change with what lies beyond its halo.

    Returns
    -------
    what to tell the user; nothing if no tile can be read, which the regions will tell

    Raises
    ------
    ModelError
        If it changes.
    """
    plan, file = prepared.plan, prepared.model
    if len(plan.skipped) == len(plan.grid):
        return ()
    probe = probe_of(prepared, constants)
    sites = sites_by_contrast(workers, probe, plan.skipped)
    apart = measured_dependence(workers, prepared.key(), probe, sites)
    if apart is None:
        return ()
    if not apart <= TOLERANCE:
        raise ModelError(
            f"{file.name} was measured to look no further than {one_or_all(file.header.network.halo)} pixels, but on "
            f"this image its values change with what lies beyond (by {apart:.1e} of the largest): its tiles would "
            "show. Use a network without layers that look at the whole image."
        )
    said = "nothing changes with what lies beyond the measured halo"
    return (f"{file.name}: on sample tiles of the image {said} (at most {apart:.0e} of the largest value)",)
