"""What tiles of the user's own data say of the network, asked of workers.

How far its feature maps reach, and whether a faster way to run it classes the tiles as torch in float32 does.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.errors import DataError
from unet_dask.tiling.valid import aligned
from unet_dask.workers.preflight import answered

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from unet_dask.engine.cache import NetworkKey
    from unet_dask.engine.ranges import Ranges
    from unet_dask.io.source.mask import Mask
    from unet_dask.io.source.volume import SourceSpec
    from unet_dask.model.header import Normalisation
    from unet_dask.tiling.box import Interval
    from unet_dask.tiling.region import RegionGrid
    from unet_dask.workers.cluster import Cluster

    Index = tuple[int, ...]
    #: A region, and the share of its voxels that lie before a tile.
    ProbeSite = tuple[Index, float]


#: Places at which feature maps are measured for bytes.
MEASURED = 8
#: Places whose contrast is looked at; those of them at which two ways to run the network are compared.
_LOOKED_AT, _COMPARED = 32, 4
#: Side of the core of tiles that are looked at or measured, by the network's dimensions: seconds, and little memory.
_SIDE = {2: 384, 3: 64}
#: The same of tiles on which the halo of a network of others is proven: they are run with more around them.
_SMALL = 32
#: Side of the patches whose contrast is looked at.
_PATCH = {2: 64, 3: 32}
#: The golden ratio less 1.
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class ProbeInput:
    """What tiles to compare on are taken from.

    Attributes
    ----------
    source : to read
    grid : of all regions
    dims : of the network
    constants : of the normalisation
    nan : "stop" or "zero"
    mask : outside of which nothing is compared
    """

    source: SourceSpec
    grid: RegionGrid
    dims: int
    constants: Normalisation
    nan: str
    mask: Mask | None = None


def sites_by_contrast(
    cluster: Cluster, probe: ProbeInput, skipped: Collection[Index] = ()
) -> list[ProbeSite]:
    """Return places to look at, the one with the most contrast first: empty ones say little of a network.

    Parameters
    ----------
    cluster : whose workers are asked
    probe : where tiles are taken from
    skipped : regions that the mask does not touch
    """
    from distributed import KilledWorker

    sites = _spread(probe.grid, skipped)
    waited = [cluster.client.submit(_contrast, site, probe, pure=False) for site in sites]
    contrasts = dict.fromkeys(sites, -1.0)
    for site, future in zip(sites, waited, strict=True):
        with suppress(DataError, KilledWorker):
            contrasts[site] = answered(future)
    return sorted(sites, key=lambda site: -contrasts[site])


def measured_agreement(
    cluster: Cluster, key: NetworkKey, reference: NetworkKey, probe: ProbeInput, sites: Sequence[ProbeSite]
) -> float | None:
    """Return the share of voxels that two ways to run the network class alike, on tiles of the user's data.

    Parameters
    ----------
    cluster : whose workers are asked
    key, reference : two ways to run a network
    probe : where tiles are taken from
    sites : the places, a few of which are looked at; others if these cannot be

    Returns
    -------
    None if no tile that was tried can be read or be done in bytes, or their worker died: the regions will tell why

    Raises
    ------
    UnetDaskError
        If the source cannot be reached, or the network cannot be run at all.
    """
    alike = looked_at = 0
    for first in range(0, len(sites), _COMPARED):
        for found in _asked(cluster, _agreement, sites[first : first + _COMPARED], key, reference, probe):
            alike, looked_at = alike + found[0], looked_at + found[1]
        if looked_at:
            return alike / looked_at
    return None


def measured_ranges(
    cluster: Cluster, reference: NetworkKey, probe: ProbeInput, sites: Sequence[ProbeSite]
) -> Ranges:
    """Return the smallest and largest value of every feature map, over tiles of the user's data.

    Parameters
    ----------
    cluster : whose workers are asked
    reference : the network in float32 by torch
    probe : where tiles are taken from
    sites : the places

    Returns
    -------
    empty if no tile can be read: the regions will tell why

    Raises
    ------
    UnetDaskError
        If the source cannot be reached, or the network cannot be run at all.
    """
    from unet_dask.engine.ranges import widest

    return widest(_asked(cluster, _ranges, sites, reference, probe))


def measured_dependence(
    cluster: Cluster, key: NetworkKey, probe: ProbeInput, sites: Sequence[ProbeSite]
) -> float | None:
    """Return how far values of a network of others change with what lies beyond their halo, at most.

    Parameters
    ----------
    cluster : whose workers are asked
    key : of the network
    probe : where tiles are taken from
    sites : the places, a few of which are looked at; others if these cannot be

    Returns
    -------
    relative to the largest value; None if no tile that was tried can be read

    Raises
    ------
    UnetDaskError
        If the source cannot be reached, or the network cannot be run at all.
    """
    for first in range(0, len(sites), _COMPARED):
        found = list(_asked(cluster, _dependence, sites[first : first + _COMPARED], key, probe))
        if found:
            return float(max(found))
    return None


def _asked(
    cluster: Cluster, question: Callable[..., Any], sites: Sequence[ProbeSite], *others: Any
) -> Iterator[Any]:
    """Yield what workers answer at each place, but where there is nothing to see, or it cannot be read."""
    from distributed import KilledWorker

    for future in [cluster.client.submit(question, site, *others, pure=False) for site in sites]:
        with suppress(DataError, KilledWorker):
            found = answered(future)
            if found is not None:
                yield found


def _contrast(site: ProbeSite, probe: ProbeInput) -> float:
    """Return the standard deviation of the grey values of a patch; -1 if the mask holds nothing of its region.

    It begins where a tile does, and is small: of most sources it is one chunk.
    """
    from unet_dask.io.source.volume import read_window

    index, within = site
    found = _wanted(probe, index)
    if found is None:
        return -1.0
    window = [slice(*each) for each in found[0]]
    for at, (start, stop) in zip(
        _place(found[1], within), probe.grid.write(index)[len(window) :], strict=True
    ):
        end = min(start + at + _PATCH[probe.dims], stop)
        window.append(slice(max(end - _PATCH[probe.dims], start), end))
    contrast = float(read_window(probe.source, tuple(window)).astype(np.float32).std())
    return contrast if math.isfinite(contrast) else -1.0


def _place(wanted: NDArray[np.bool_], within: float) -> tuple[int, ...]:
    """Return the voxel of what is wanted of a region before which so large a share of it lies."""
    voxels = np.flatnonzero(wanted)
    return tuple(map(int, np.unravel_index(int(voxels[int(within * len(voxels))]), wanted.shape)))


def _spread(grid: RegionGrid, skipped: Collection[Index]) -> list[ProbeSite]:
    """Return places from all over, the middle region first; of regions that a mask leaves, where it skips some.

    Multiples of the golden ratio fall evenly, and not along rows or columns. Few regions are looked at in several
    places.
    """
    count = len(grid) - len(skipped)
    places = [
        divmod(count * ((0.5 + number * _GOLDEN) % 1), 1) for number in range(_LOOKED_AT if count else 0)
    ]
    if not skipped:
        return [(tuple(map(int, np.unravel_index(int(at), grid.counts))), within) for at, within in places]
    left = (index for index in grid.indices() if index not in skipped)
    wanted = {int(at) for at, _ in places}
    found = {place: index for place, index in enumerate(left) if place in wanted}
    return [(found[int(at)], within) for at, within in places if int(at) in found]


def _agreement(
    site: ProbeSite, key: NetworkKey, reference: NetworkKey, probe: ProbeInput
) -> tuple[int, int] | None:
    """Run both on a tile: voxels within the mask that they class alike, and all; None if its region has none."""
    from unet_dask.engine.compare import agreement

    found = _tile(site, probe, _SIDE[probe.dims])
    return None if found is None else agreement(key, reference, found[0], probe.constants, found[1])


def _ranges(site: ProbeSite, reference: NetworkKey, probe: ProbeInput) -> Ranges | None:
    """Return the ranges of the feature maps on a tile; None if the mask holds nothing of its region."""
    from unet_dask.engine.compare import ranges

    found = _tile(site, probe, _SIDE[probe.dims])
    return None if found is None else ranges(reference, found[0], probe.constants)


def _dependence(site: ProbeSite, key: NetworkKey, probe: ProbeInput) -> float | None:
    """Return how far a tile changes with what lies beyond it; None if the mask holds nothing of its region."""
    from unet_dask.engine.dependence import dependence

    found = _tile(site, probe, _SMALL)
    return None if found is None else dependence(key, found[0], probe.constants)


def _tile(
    site: ProbeSite, probe: ProbeInput, most: int | None = None
) -> tuple[NDArray[np.generic], NDArray[np.bool_]] | None:
    """Return grey values of a tile of a region, and what the mask holds of it; None if that is nothing.

    Its core is half of that of the plan's tiles, and at most so long. It begins with the voxel before which so large a
    share of those within the mask lies.
    """
    from unet_dask.engine.finite import check_finite
    from unet_dask.io.source.volume import read_window
    from unet_dask.tiling.mirror import extend, mirrored

    (index, within), grid, dims = site, probe.grid, probe.dims
    first = len(grid.grids) - dims
    found = _wanted(probe, index)
    if found is None:
        return None
    plane, wanted = found
    place = _place(wanted, within)
    read, part = [*plane, *grid.read(index)[first:]], []
    for axis, (each, at) in enumerate(zip(grid.grids[first:], place, strict=True), first):
        start, stop = read[axis]
        offset = (int(at) + each.phase) // each.context.stride * each.context.stride
        side = each.half_tile
        if most is not None:
            side = min(side, aligned(most, each.context.stride) + each.tile - each.core)
        offset = min(offset, max(stop - start - side, 0))
        read[axis] = start + offset, min(start + offset + side, stop)
        length = read[axis][1] - read[axis][0] - 2 * each.context.halo
        part.append((offset - each.phase, offset - each.phase + length))
    shown = [mirrored(start, stop, size) for (start, stop), size in zip(read, grid.shape, strict=True)]
    origin = tuple(int(each.min()) for each in shown)
    block = read_window(
        probe.source,
        tuple(slice(start, int(each.max()) + 1) for start, each in zip(origin, shown, strict=True)),
    )
    block = check_finite(block, origin=origin, axes=grid.axes, nan=probe.nan)
    window = extend(block, origin=origin, read=tuple(read), shape=grid.shape)
    tile = np.moveaxis(window, grid.axes.index("c"), first - 1)
    return tile.reshape(tile.shape[-dims - 1 :]), _shifted(wanted, part)


def _wanted(probe: ProbeInput, index: Index) -> tuple[list[Interval], NDArray[np.bool_]] | None:
    """Return the first plane of a region of which something is segmented, channels and all, and what of it.

    Of a network in 3-D that is the region; None if it is nothing.
    """
    write, names = probe.grid.write(index), probe.grid.axes
    first = len(write) - probe.dims
    for planes in product(
        *([write[axis][0]] if names[axis] == "c" else range(*write[axis]) for axis in range(first))
    ):
        plane = [write[axis] if names[axis] == "c" else (at, at + 1) for axis, at in enumerate(planes)]
        if probe.mask is None:
            return plane, np.ones([stop - start for start, stop in write[first:]], np.bool_)
        inside = probe.mask.inside([*((at, at + 1) for at in planes), *write[first:]])
        if inside.any():
            return plane, inside.reshape(inside.shape[-probe.dims :])
    return None


def _shifted(wanted: NDArray[np.bool_], part: list[Interval]) -> NDArray[np.bool_]:
    """Return a part of an array that may begin before it and end after it, False there."""
    result = np.zeros([stop - start for start, stop in part], np.bool_)
    ends = [(max(start, 0), min(stop, size)) for (start, stop), size in zip(part, wanted.shape, strict=True)]
    target = tuple(slice(a - start, b - start) for (a, b), (start, _) in zip(ends, part, strict=True))
    result[target] = wanted[tuple(slice(a, b) for a, b in ends)]
    return result
