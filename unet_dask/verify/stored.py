"""A sink as it stands, opened for reading only: what its manifest says, and the arrays that are there.

Nothing of the source or the model is needed: the grid of regions is in the manifest, the arrays say the rest, and
where both say the same thing they must agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from unet_dask.axes import by_axis
from unet_dask.errors import SinkError
from unet_dask.io import remote
from unet_dask.io.bounded import OpenedArray, bounded_array, described_array
from unet_dask.io.sink import node, pyramid
from unet_dask.io.sink import place as places
from unet_dask.io.sink.multiscale import Level
from unet_dask.io.sink.store import ArraySpec, Sink, new_array
from unet_dask.run.dependents import region_box, within
from unet_dask.verify import agreement
from unet_dask.verify.agreement import RESTORE
from unet_dask.verify.finding import Finding, Key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.tiling.box import Box, Interval
    from unet_dask.tiling.region import RegionGrid


@dataclass(frozen=True, slots=True)
class Piece:
    """The values that one task wrote to one product.

    Attributes
    ----------
    product : name
    level : of the pyramid, 0 for a region
    index : of the region, or as in the ledger: number of the product, then index of the block
    box : in voxels of the level's array
    """

    product: str
    level: int
    index: tuple[int, ...]
    box: Box

    @property
    def key(self) -> Key:
        """Of the piece of work in the ledger."""
        return self.level, self.index

    @property
    def start(self) -> tuple[int, ...]:
        """First voxel."""
        return self.box.start


@dataclass(frozen=True)
class Stored:
    """A sink that is open for reading.

    Attributes
    ----------
    url : path or URL
    manifest : of the run
    grid : regions and tiles
    arrays : of the products whose metadata is sound
    opened : array per (product, level)
    images : OME-Zarr metadata of each of these products
    """

    url: str
    manifest: Manifest
    grid: RegionGrid
    arrays: tuple[ArraySpec, ...]
    opened: Mapping[tuple[str, int], OpenedArray]
    images: Mapping[str, Mapping[str, object]]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number of every product in the ledger's entries of pyramid blocks."""
        return {entry.name: number for number, entry in enumerate(self.manifest.arrays)}

    @cached_property
    def sink(self) -> Sink:
        """The same, as those who write it know it."""
        return Sink(self.url, self.arrays)

    @property
    def dims(self) -> int:
        """Number of axes along which the network looks."""
        return len(self.manifest.plan.halo)

    def array(self, name: str) -> ArraySpec:
        """Return the description of a product."""
        return next(each for each in self.arrays if each.name == name)

    def region_box(self, array: ArraySpec, index: tuple[int, ...]) -> Box:
        """Return the voxels of a region in level 0 of a product, channels included."""
        return region_box(self.grid, array, index)

    def pieces(self) -> Iterator[Piece]:
        """Yield all that a complete run has written: regions, then level by level the blocks of the pyramids."""
        for index in self.grid.indices() if self.arrays else ():
            for array in self.arrays:
                yield Piece(array.name, 0, index, self.region_box(array, index))
        for array in self.arrays:
            for level in range(1, len(array.levels)):
                for block in pyramid.block_indices(array, level):
                    yield self.block(array, level, block)

    @property
    def work(self) -> int:
        """Number of the pieces of work of a complete run, of all products whose metadata is sound."""
        return len(self.grid) * bool(self.arrays) + sum(
            math.prod(pyramid.block_counts(array, level))
            for array in self.arrays
            for level in range(1, len(array.levels))
        )

    def pieces_of(self, keys: Iterable[Key]) -> Iterator[Piece]:
        """Yield what pieces of work have written, regions first; those that are none of the plan are passed over."""
        regions = {index for level, index in keys if level <= 0 and within(index, self.grid.counts)}
        for index in sorted(regions) if len(self.grid) else ():
            for array in self.arrays:
                yield Piece(array.name, 0, index, self.region_box(array, index))
        named = {self.numbers[array.name]: array for array in self.arrays}
        for level, (number, *block) in sorted(key for key in keys if key[0] > 0):
            made = named.get(number)
            if made is None or level >= len(made.levels):
                continue
            if within(block, pyramid.block_counts(made, level)):
                yield self.block(made, level, tuple(block))

    def block(self, array: ArraySpec, level: int, index: tuple[int, ...]) -> Piece:
        """Return a block of a pyramid level."""
        box = pyramid.block_box(array, level, index)
        return Piece(array.name, level, (self.numbers[array.name], *index), box)

    def read(self, name: str, level: int, box: Box) -> NDArray[np.generic]:
        """Return stored values."""
        return np.asarray(self.opened[name, level][box.slices])

    def shown(self, level: int, box: Box) -> dict[str, Interval]:
        """Return a box for people: at level 0 in voxels of the source."""
        volume = self.grid.whole.in_space_and_time
        corner = {} if level else by_axis(volume.axes, volume.start)
        return {
            axis: (start + corner.get(axis, 0), stop + corner.get(axis, 0))
            for axis, (start, stop) in box.named.items()
        }


def open_stored(url: str) -> tuple[Stored | None, list[Finding]]:
    """Open a sink and check its metadata.

    Returns
    -------
    the sink, None if it cannot be known what it should hold; and what is wrong with its metadata

    Raises
    ------
    SinkError
        If there is no sink of ours.
    """
    if not places.exists(url):
        raise SinkError(f"There is nothing at {remote.redact_url(url)}. Name a result of unet-dask segment.")
    manifest, findings = _manifest(url)
    if manifest is None:
        return None, findings
    grid = manifest.plan.grid()
    names = [entry.name for entry in manifest.arrays]
    findings += agreement.within_manifest(manifest, grid)
    if not findings and not _root_is_whole(url, manifest):
        findings.append(
            Finding("metadata", f"zarr.json of the root group is not what was written. {RESTORE}")
        )
    arrays: list[ArraySpec] = []
    opened: dict[tuple[str, int], OpenedArray] = {}
    images: dict[str, Mapping[str, object]] = {}
    for number, name in enumerate(names):
        try:
            spec, levels, ome = _product(url, manifest, number, grid)
        except Exception as error:  # whatever Zarr makes of damaged metadata
            text = f"the metadata is damaged: {remote.one_line(error)}. {RESTORE}"
            findings.append(Finding("metadata", text, product=name))
            continue
        arrays.append(spec)
        opened |= {(name, level): array for level, array in enumerate(levels)}
        images[name] = ome
    findings += agreement.among_products(images)
    if len(arrays) == len(names):
        findings += agreement.work_of(manifest, grid, tuple(arrays))
    return Stored(url, manifest, grid, tuple(arrays), opened, images), findings


def _manifest(url: str) -> tuple[Manifest | None, list[Finding]]:
    """Return the manifest, and what is wrong with it or with the root."""
    findings = []
    try:
        places.require_ours(url)
    except SinkError:
        manifest = _bare_manifest(url)
        if manifest is None:
            raise
        text = f"zarr.json of the root group is damaged. {RESTORE}"
        return manifest, [Finding("metadata", text)]
    manifest = None
    try:
        manifest = places.read_manifest(url)
        if manifest is None:
            text = "the sink was never completely created. Run segment again, with --resume"
            findings.append(Finding("ledger", text))
    except SinkError as error:
        findings.append(Finding("metadata", str(error)))
    return manifest, findings


def _bare_manifest(url: str) -> Manifest | None:
    """Return the manifest of a sink whose root is damaged, None if it is no sink."""
    try:
        return places.bare_manifest(url)
    except SinkError:
        return None


def _product(
    url: str, manifest: Manifest, number: int, grid: RegionGrid
) -> tuple[ArraySpec, list[OpenedArray], Mapping[str, Any]]:
    """Open a product; raise if its metadata is not that which a run writes."""
    entry, identity = manifest.arrays[number], manifest.fingerprint
    name, axes = entry.name, entry.axes
    described = [described_array(url, f"{name}/{n}") for n in range(entry.levels)]
    levels = [bounded_array(array) for array in described]
    finest = levels[0]
    _require(finest.shape == manifest.shape(entry), f"level 0 has the shape {finest.shape}")
    dtype = str(np.dtype(finest.dtype))
    spec = ArraySpec(name, axes, dtype, finest.chunks, finest.shards, _levels(levels, name))
    for field, value in (("chunks", spec.chunks), ("shards", spec.shards), ("products", (name, spec.dtype))):
        # The fingerprint holds one for each product, as a text.
        _require(str(value) in identity.get(f"plan.{field}", ""), f"{field} are {value}")
    for level, array in enumerate(described):
        expected = new_array({}, spec, level)
        _require(
            array.metadata.to_dict() == expected.metadata.to_dict(),
            f"zarr.json of level {level} is not what was written",
        )
    ome: Any = zarr.open_group(url, path=name, mode="r").attrs["ome"]
    wrong = agreement.image_text(ome, spec, manifest.classes)
    _require(not wrong, wrong)
    for path in (name, *(f"{name}/{level}" for level in range(len(levels)))):
        _require(_as_written(url, path, manifest), f"zarr.json of {path} is not what was written")
    return spec, levels, ome


def _root_is_whole(url: str, manifest: Manifest) -> bool:
    """Return whether the document of the root group is that which was written."""
    try:
        return _as_written(url, "", manifest)
    except (OSError, ValueError, KeyError):
        return False


def _as_written(url: str, path: str, manifest: Manifest) -> bool:
    """Return whether the document of a node is that which was written."""
    return manifest.nodes is None or bool(node.checksum(url, path) == manifest.nodes[path])


def _levels(levels: list[OpenedArray], name: str) -> tuple[Level, ...]:
    """Return the pyramid that arrays form: each axis is halved or not from level to level."""
    made = [Level(tuple(levels[0].shape), (1,) * levels[0].ndim)]
    for number, (finer, array) in enumerate(pairwise(levels), 1):
        step = [1 if a == b else 2 for a, b in zip(finer.shape, array.shape, strict=True)]
        halved = tuple(-(-a // by) for a, by in zip(finer.shape, step, strict=True))
        _require(halved == array.shape, f"level {number} has the shape {array.shape}")
        made.append(
            Level(tuple(array.shape), tuple(a * by for a, by in zip(made[-1].factor, step, strict=True)))
        )
    return tuple(made)


def _require(condition: bool, text: str) -> None:  # reads like an assertion
    if not condition:
        raise ValueError(text)
