"""What a run will do, decided from its settings: source, device, precision and plan, with nothing written yet.

What a run is of is opened once, and whoever computes is asked once for what they have; the plan follows from both, and
from what was begun, without asking anybody. What is faster than torch in float32 must agree with it first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unet_dask.axes import space_of
from unet_dask.choices import Precision
from unet_dask.engine.augment import require_turnable
from unet_dask.engine.device import (
    available_cores,
    choose_device,
    choose_precision,
    gpu_memory,
    require_backend,
)
from unet_dask.errors import DataError, OptionError
from unet_dask.io.source.mask import find_mask
from unet_dask.io.source.occupancy import Occupancy
from unet_dask.io.source.volume import levels, open_source
from unet_dask.objects.rule import LINKED, METHODS, ObjectRule
from unet_dask.planning.arithmetic import Arithmetic
from unet_dask.planning.fit import wanted_products
from unet_dask.planning.grant import default_limit
from unet_dask.planning.plan import Wanted, make_plan
from unet_dask.run.prepared import Prepared
from unet_dask.run.proof import probe_of, proven
from unet_dask.run.table import require_table
from unet_dask.setting import gone_on_with
from unet_dask.spacing import TOLERANCE, contradiction, known_spacing, metres, pixels_of, shown
from unet_dask.texts import FIT, Extent, parse_roi
from unet_dask.workers import cluster as clusters
from unet_dask.workers.agreement import (
    MEASURED,
    measured_agreement,
    measured_ranges,
    sites_by_contrast,
)
from unet_dask.workers.preflight import multiplies, worker_device, worker_gpu_memory

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from unet_dask.config import SegmentConfig
    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.io.source.mask import Mask
    from unet_dask.io.source.volume import Source
    from unet_dask.model.file import ModelFile
    from unet_dask.model.header import ModelHeader, Normalisation
    from unet_dask.workers.cluster import Cluster

#: Share of voxels that reduced precision must class like float32, on a tile of the user's own data.
_AGREEMENT = 0.999


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run is of, opened once.

    Attributes
    ----------
    source, model, mask : open; None for no mask
    config : what was asked for
    occupancy : of the mask, which has been read for it
    """

    source: Source
    model: ModelFile
    config: SegmentConfig
    mask: Mask | None
    occupancy: Occupancy | None


@dataclass(frozen=True, slots=True)
class Machine:
    """Who computes: this machine's own workers, or those of a running cluster.

    Attributes
    ----------
    device : of their networks
    precision : in which they run those of which nobody said it
    limit, gpu_limit : bytes that each may use of its machine and of its GPU, where nobody said otherwise
    """

    device: str
    precision: str
    limit: int
    gpu_limit: int


def open_inputs(source: str | os.PathLike[str], model: ModelFile, config: SegmentConfig) -> Inputs:
    """Open what a run is of."""
    network = model.header.network
    opened = open_source(
        source,
        key=config.key,
        axes=config.axes,
        level=None if isinstance(config.level, str) else config.level,
        channels=config.channels,
        dims=network.dims,
        network_channels=network.channels,
    )
    if config.level == FIT:
        opened = fitting_level(opened, model.header)
    mask = find_mask(config.mask, opened)
    return Inputs(opened, model, config, mask, Occupancy(mask) if mask else None)


def fitting_level(source: Source, header: ModelHeader) -> Source:
    """Return the level of a pyramid whose pixels are nearest in size to those that a model learnt.

    Parameters
    ----------
    source : its finest level
    header : of the model

    Raises
    ------
    OptionError
        If somebody does not say how large pixels are, or those of no level are as large to a quarter.
    """
    axes = "zyx"[-header.network.dims :]
    wanted, found = (header.spacing, header.unit), known_spacing(source.spacing, source.unit, axes)
    if not wanted[0] or not found[0] or metres(wanted[1]) is None or metres(found[1]) is None:
        who = "the source" if wanted[0] and metres(wanted[1]) else "the model"
        raise OptionError(
            f"No level fits by its pixels, because {who} does not say how large they are. Name a level by its number."
        )
    every = list(levels(source))
    sizes = [known_spacing(each.spacing, each.unit, axes) for each in every]
    off = [contradiction(*wanted, *size, tolerance=1.0) or 1.0 for size in sizes]
    nearest = min(range(len(off)), key=lambda number: abs(math.log(off[number])))
    if max(off[nearest], 1 / off[nearest]) > TOLERANCE:
        raise OptionError(
            f"No level fits: the model learnt pixels of {shown(wanted[0], wanted[1])}, and level {nearest}, the "
            f"nearest, has {shown(sizes[nearest][0] or (), sizes[nearest][1])}. Use a model for such pixels, or bring "
            "the image to those of this one."
        )
    return every[nearest]


def this_machine(config: SegmentConfig, device: str | None = None) -> Machine:
    """Return what this machine has; a device that is named is taken at its word."""
    chosen = device or choose_device(config.device)
    return Machine(
        chosen,
        choose_precision("auto", chosen, config.backend),
        _granted(config, chosen),
        _granted_of_gpu(config, chosen),
    )


def machine_of(workers: Cluster, config: SegmentConfig) -> Machine:
    """Return what the workers of a running cluster have, which need not be what this machine has."""
    device = worker_device(workers, config.device)
    precision = choose_precision("auto", device, config.backend)
    if config.precision == "auto" and not multiplies(workers, precision, device):
        precision = Precision.FLOAT32
    return Machine(device, precision, _granted(config, device), worker_gpu_memory(workers, device))


def prepare(inputs: Inputs, machine: Machine, manifest: Manifest | None) -> Prepared:
    """Plan; nothing is asked, opened or written."""
    source, header, config = inputs.source, inputs.model.header, inputs.config
    if manifest:
        config = gone_on_with(config, manifest.recorded)
    config = in_pixels(config, source, header.network.dims)
    require_table(config)
    device, backend = machine.device, config.backend
    own = Precision.FLOAT32 if header.network.foreign else machine.precision
    wished = own if config.precision == "auto" else config.precision
    precision = choose_precision(wished, device, backend)
    require_backend(backend, device=device, precision=precision, network=header.network)
    require_turnable(config.tta, header.network)
    gpu_limit = machine.gpu_limit if manifest is None or manifest.card is None else manifest.card
    rule = rule_for(config, header.objects)
    plan = make_plan(
        source,
        header,
        outputs=wanted_products(config.products, config.probability_dtype, source, header, rule),
        limit=config.memory or machine.limit,
        roi=parse_roi(config.roi, axes=source.axes, shape=source.shape) if config.roi else None,
        arithmetic=Arithmetic(device, precision, backend, config.tta != "none", gpu_limit),
        wanted=Wanted(config.tile, config.region, config.chunks),
        occupancy=inputs.occupancy,
    )
    plan = plan.making(rule)
    return Prepared(source, inputs.model, config, plan, inputs.mask, occupancy=inputs.occupancy)


def in_pixels(config: SegmentConfig, source: Source, dims: int) -> SegmentConfig:
    """Return the configuration with the pixels of a source in place of an area or a volume."""
    size, axes = config.min_size, space_of(source.axes)[-dims:]
    if not isinstance(size, Extent):
        return config
    return replace(config, min_size=pixels_of(size, source.spacing, source.unit, axes))


def rule_for(config: SegmentConfig, own: ObjectRule) -> ObjectRule:
    """Return how objects are made: by a rule of their own, or by a method of that name, but for what is said otherwise.

    Parameters
    ----------
    config : that says it
    own : rule of the model, or of a result whose objects are made again

    Raises
    ------
    OptionError
        If what is said does not fit together.
    """
    # What its cores are a model knows alone.
    rule = METHODS.get(config.objects, own)
    if own.core and not rule.threshold:
        rule = replace(rule, core=own.core, grow=own.grow)
    assert not isinstance(config.min_size, Extent)
    said = {name: getattr(config, name) for name in ("min_size", "split", "threshold")}
    if config.fill_holes is not None:
        said["fill_holes"] = config.fill_holes == "yes"
    given = {name: value for name, value in said.items() if value is not None}
    if config.connect is not None:
        given["linked"] = (rule.linked or LINKED) if config.connect == "z" else 0.0
    return replace(rule, **given, dense=config.numbers == "dense")


def checked_arithmetic(
    prepared: Prepared,
    workers: Cluster,
    manifest: Manifest | None,
    constants: Normalisation,
    *,
    compared: bool = False,
) -> tuple[Prepared, tuple[str, ...]]:
    """Compare what is faster than torch in float32 with it, on the user's own data; for bytes measure that first.

    Reduced precision that was our choice falls back to float32, unless it was compared on other images of the same run;
    8 bits or another backend were hers, and are refused. Bytes are compared elsewhere than their ranges were measured.
    """
    plan, backend = prepared.plan, prepared.config.backend
    chosen = plan.precision != "float32" and prepared.config.precision == "auto" and not compared
    integers = plan.precision == "int8"
    if prepared.model.header.network.foreign:
        return prepared, () if manifest else proven(prepared, workers, constants)
    if manifest and integers:
        prepared = _with_ranges(prepared, manifest.ranges)
    if manifest or len(plan.skipped) == len(plan.grid) or not (chosen or integers or backend != "torch"):
        return prepared, ()
    name = plan.precision if chosen or integers else backend
    probe = probe_of(prepared, constants)
    sites = sites_by_contrast(workers, probe, plan.skipped)
    if integers:
        ranges = measured_ranges(workers, prepared.reference(), probe, sites[:MEASURED])
        prepared, sites = _with_ranges(prepared, ranges), sites[MEASURED:] or sites
    share = measured_agreement(workers, prepared.key(), prepared.reference(), probe, sites)
    if share is not None and share >= _AGREEMENT:
        return prepared, (
            f"{name}: {share:.3%} of the voxels of sample tiles are classed as in float32 by torch",
        )
    agrees = (
        "cannot be compared" if share is None else f"agrees on {share:.3%} of the voxels of sample tiles only"
    )
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
    inputs = Inputs(prepared.source, prepared.model, config, prepared.mask, prepared.occupancy)
    return prepare(inputs, Machine(plan.device, "float32", plan.limit, plan.gpu_limit), None)


def _granted(config: SegmentConfig, device: str) -> int:
    workers = clusters.default_workers(device)
    return default_limit(
        available_cores(),
        clusters.machine_memory(),
        config.workers or workers,
        gpus=workers if device == "cuda" else 0,
    )


def _granted_of_gpu(config: SegmentConfig, device: str) -> int:
    """Return the bytes that a worker of this machine may use of its GPU, which several may share."""
    gpus = clusters.default_workers(device)
    return gpu_memory(device) // -(-max(config.workers or 0, gpus) // gpus)
