"""What a run will do, decided from its settings: source, device, precision and plan, with nothing written yet.

Device and precision are those of whoever computes. Of a running cluster they are asked; what is faster than torch in
float32 must agree with it first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from unet_dask.engine.augment import require_turnable
from unet_dask.engine.device import (
    available_cores,
    card_memory,
    choose_device,
    choose_precision,
    require_backend,
)
from unet_dask.errors import DataError, OptionError
from unet_dask.io.source.mask import find_mask
from unet_dask.io.source.occupancy import Occupancy
from unet_dask.io.source.volume import open_source
from unet_dask.planning.arithmetic import Arithmetic
from unet_dask.planning.fit import wanted_products
from unet_dask.planning.grant import default_limit
from unet_dask.planning.plan import Wanted, make_plan
from unet_dask.run.prepared import Prepared
from unet_dask.setting import gone_on_with
from unet_dask.texts import parse_roi
from unet_dask.workers import cluster as clusters
from unet_dask.workers.agreement import MEASURED, Probed, measured_agreement, measured_ranges, telling
from unet_dask.workers.preflight import multiplies, worker_card, worker_device

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from unet_dask.config import SegmentConfig
    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.io.source.mask import Mask
    from unet_dask.io.source.volume import Source
    from unet_dask.model.file import ModelFile
    from unet_dask.model.header import ModelHeader, Normalisation
    from unet_dask.planning.plan import Plan
    from unet_dask.workers.cluster import Cluster

#: Share of voxels that reduced precision must class like float32, on a tile of the user's own data.
_AGREEMENT = 0.999


def prepare(
    source: str | os.PathLike[str],
    model: ModelFile,
    config: SegmentConfig,
    *,
    stored: Manifest | None,
    device: str | None = None,
    card: int | None = None,
) -> Prepared:
    """Open, choose and plan; nothing is written. Without a device and its memory, this machine's are taken."""
    config = gone_on_with(config, stored.recorded) if stored else config
    network = model.header.network
    opened = open_source(
        source,
        key=config.key,
        axes=config.axes,
        level=config.level,
        channels=config.channels,
        dims=network.dims,
        network_channels=network.channels,
    )
    device = device or choose_device(config.device)
    precision = choose_precision(config.precision, device, config.backend)
    require_backend(config.backend, device=device, precision=precision, dims=network.dims)
    mask = find_mask(config.mask, opened)
    limit = config.memory or _granted(config, device)
    if stored and stored.card is not None:
        card = stored.card
    if card is None:
        card = _granted_of_card(config, device)
    plan = _plan(
        opened,
        model.header,
        config,
        mask,
        limit=limit,
        precision=precision,
        device=device,
        card=card,
    )
    return Prepared(opened, model, config, plan, mask)


def prepare_there(
    source: str | os.PathLike[str],
    model: ModelFile,
    config: SegmentConfig,
    workers: Cluster,
    *,
    stored: Manifest | None,
) -> Prepared:
    """Plan for what the workers of a running cluster have, which need not be what this machine has."""
    there = replace(config, device=worker_device(workers, config.device))
    card = worker_card(workers, there.device)
    prepared = prepare(source, model, there, stored=stored, device=there.device, card=card)
    ours = config.precision == "auto" and not stored
    if ours and not multiplies(workers, prepared.plan.precision, prepared.plan.device):
        exact = replace(there, precision="float32")
        return prepare(source, model, exact, stored=stored, device=there.device, card=card)
    return prepared


def checked_arithmetic(
    prepared: Prepared, workers: Cluster, stored: Manifest | None, constants: Normalisation
) -> tuple[Prepared, tuple[str, ...]]:
    """Compare what is faster than torch in float32 with it, on the user's own data; for bytes measure that first.

    Reduced precision that was our choice falls back to float32; 8 bits or another backend were hers, and are refused.
    Bytes are compared elsewhere than their ranges were measured.
    """
    plan, backend = prepared.plan, prepared.config.backend
    chosen = plan.precision != "float32" and prepared.config.precision == "auto"
    integers = plan.precision == "int8"
    if stored and integers:
        prepared = _with_ranges(prepared, stored.ranges)
    if stored or len(plan.skipped) == len(plan.grid) or not (chosen or integers or backend != "torch"):
        return prepared, ()
    name = plan.precision if chosen or integers else backend
    dims, nan = prepared.model.header.network.dims, prepared.config.nan
    probed = Probed(prepared.source.spec, plan.grid, dims, constants, nan, prepared.mask)
    spots = telling(workers, probed, plan.skipped)
    if integers:
        ranges = measured_ranges(workers, prepared.reference(), probed, spots[:MEASURED])
        prepared, spots = _with_ranges(prepared, ranges), spots[MEASURED:] or spots
    share = measured_agreement(workers, prepared.key(), prepared.reference(), probed, spots)
    if share is not None and share >= _AGREEMENT:
        return prepared, (f"{name}: {share:.3%} of the voxels of a probe are classed as in float32 by torch",)
    agrees = "cannot be compared" if share is None else f"agrees on {share:.3%} of the voxels of a probe only"
    if not chosen:
        kind, other = ("precision", "--precision float32") if integers else ("backend", "--backend torch")
        raise OptionError(
            f"The {kind} {name} {agrees} with float32 by torch; {_AGREEMENT:.1%} are asked. Use {other}."
        )
    return _in_float32(prepared), (f"{name} {agrees} with float32, so float32 is used",)


def _with_ranges(prepared: Prepared, ranges: Sequence[Sequence[float]]) -> Prepared:
    """Return a run in bytes with the ranges of its feature maps; a run without anything to do needs none."""
    plan = prepared.plan
    if not ranges and len(plan.skipped) < len(plan.grid):
        raise DataError(
            "No part of the source could be read to measure how far the network's feature maps reach, which int8 "
            "needs. Use --precision float32, which tells what is wrong where."
        )
    return replace(prepared, ranges=tuple((float(low), float(high)) for low, high in ranges))


def _in_float32(prepared: Prepared) -> Prepared:
    """Return the same run, planned for float32."""
    plan, config = prepared.plan, replace(prepared.config, precision="float32")
    replanned = _plan(
        prepared.source,
        plan.header,
        config,
        prepared.mask,
        limit=plan.limit,
        precision="float32",
        device=plan.device,
        card=plan.card,
    )
    return replace(prepared, config=config, plan=replanned)


def _plan(
    source: Source,
    header: ModelHeader,
    config: SegmentConfig,
    mask: Mask | None,
    *,
    limit: int,
    precision: str,
    device: str,
    card: int,
) -> Plan:
    """Plan what a configuration asks for."""
    require_turnable(config.tta, header.network)
    return make_plan(
        source,
        header,
        outputs=wanted_products(config.products, config.probability_dtype, source, header),
        limit=limit,
        roi=parse_roi(config.roi, axes=source.axes, shape=source.shape) if config.roi else None,
        arithmetic=Arithmetic(device, precision, config.backend, config.tta != "none", card),
        wanted=Wanted(config.tile, config.region, config.chunks),
        occupancy=Occupancy(mask) if mask else None,
    )


def _granted(config: SegmentConfig, device: str) -> int:
    workers = clusters.default_workers(device)
    return default_limit(
        available_cores(),
        clusters.machine_memory(),
        config.workers or workers,
        cards=workers if device == "cuda" else 0,
    )


def _granted_of_card(config: SegmentConfig, device: str) -> int:
    """Return the bytes that a worker of this machine may use of its card, which several may share."""
    cards = clusters.default_workers(device)
    return card_memory(device) // -(-max(config.workers or 0, cards) // cards)
