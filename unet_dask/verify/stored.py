"""A sink as it stands, opened for reading only: what its manifest says, and the arrays that are there.

Nothing of the source or the model is needed: the grid of regions is in the manifest, the arrays say the rest, and
where both say the same thing they must agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from unet_dask.errors import SinkError
from unet_dask.io import remote
from unet_dask.io.bounded import stored_array
from unet_dask.io.sink import node, pyramid
from unet_dask.io.sink import place as places
from unet_dask.io.sink.multiscale import Level
from unet_dask.io.sink.store import ArraySpec, Sink, array_settings
from unet_dask.run.dependents import region_box
from unet_dask.tiling.region import AxisGrid, Context, RegionGrid
from unet_dask.verify.finding import Finding, Key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from unet_dask.engine.ranges import Ranges
    from unet_dask.tiling.region import Interval

    Box = tuple[Interval, ...]

#: What to do about damage that no recomputation mends.
_RESTORE = "Restore it from a copy, or start over with segment --overwrite"


@dataclass(frozen=True, slots=True)
class Piece:
    """The values that one task wrote to one product.

    Attributes
    ----------
    product : name
    level : of the pyramid, 0 for a region
    index : of the region, or as in the ledger: number of the product, then index of the block
    box : (start, stop) in voxels of the level's array
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
        return tuple(start for start, _ in self.box)


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
    """

    url: str
    manifest: Mapping[str, Any]
    grid: RegionGrid
    arrays: tuple[ArraySpec, ...]
    opened: Mapping[tuple[str, int], zarr.Array[Any]]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number of every product in the ledger's entries of pyramid blocks."""
        return {each["name"]: number for number, each in enumerate(self.manifest["arrays"])}

    @cached_property
    def sink(self) -> Sink:
        """The same, as those who write it know it."""
        return Sink(self.url, self.arrays)

    @property
    def dims(self) -> int:
        """Number of axes along which the network looks."""
        return len(self.manifest["plan"]["halo"])

    def array(self, name: str) -> ArraySpec:
        """Return the description of a product."""
        return next(each for each in self.arrays if each.name == name)

    def region_box(self, array: ArraySpec, index: tuple[int, ...]) -> Box:
        """Return the voxels of a region in level 0 of a product, channels included."""
        return region_box(self.grid, array, index)

    def pieces(self) -> Iterator[Piece]:
        """Yield all that a complete run has written: regions, then level by level the blocks of the pyramids."""
        for index, array in product(self.grid.indices(), self.arrays):
            yield Piece(array.name, 0, index, self.region_box(array, index))
        for array in self.arrays:
            for level in range(1, len(array.levels)):
                for block in pyramid.block_indices(array, level):
                    yield self.block(array, level, block)

    def block(self, array: ArraySpec, level: int, index: tuple[int, ...]) -> Piece:
        """Return a block of a pyramid level."""
        box = pyramid.block_box(array, level, index)
        return Piece(array.name, level, (self.numbers[array.name], *index), box)

    def read(self, name: str, level: int, box: Box) -> NDArray[np.generic]:
        """Return stored values."""
        return np.asarray(self.opened[name, level][tuple(slice(a, b) for a, b in box)])

    def shown(self, name: str, level: int, box: Box) -> dict[str, Interval]:
        """Return a box for people: at level 0 in voxels of the source."""
        array = self.array(name)
        corner = {axis: a for axis, (a, _) in zip(self.grid.axes, self.grid.roi, strict=True) if level == 0}
        return {
            axis: (a + corner.get(axis, 0), b + corner.get(axis, 0)) if axis != "c" else (a, b)
            for axis, (a, b) in zip(array.axes, box, strict=True)
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
    try:
        grid = _grid(manifest)
        findings += _contradictions(manifest, grid)
        names = [each["name"] for each in manifest["arrays"]]
    except (KeyError, TypeError, ValueError) as error:
        text = f"the manifest is damaged ({type(error).__name__}: {error}). {_RESTORE}"
        return None, [*findings, Finding("metadata", text)]
    if not findings and not _root_is_whole(url, manifest):
        findings.append(
            Finding("metadata", f"zarr.json of the root group is not what was written. {_RESTORE}")
        )
    arrays: list[ArraySpec] = []
    opened: dict[tuple[str, int], zarr.Array[Any]] = {}
    for number, name in enumerate(names):
        try:
            spec, levels = _product(url, manifest, number, grid)
        except Exception as error:  # whatever Zarr makes of damaged metadata
            text = f"the metadata is damaged: {remote.one_line(error)}. {_RESTORE}"
            findings.append(Finding("metadata", text, product=name))
            continue
        arrays.append(spec)
        opened |= {(name, level): array for level, array in enumerate(levels)}
    return Stored(url, manifest, grid, tuple(arrays), opened), findings


def _manifest(url: str) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Return the manifest, and what is wrong with it or with the root."""
    findings = []
    try:
        places.require_ours(url)
    except SinkError:
        manifest = _bare_manifest(url)
        if manifest is None:
            raise
        text = f"zarr.json of the root group is damaged. {_RESTORE}"
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


def _bare_manifest(url: str) -> dict[str, Any] | None:
    """Return the manifest of a sink whose root is damaged, None if it is no sink."""
    try:
        manifest = stored_array(url, places.RUN_FOLDER).attrs[places.MARK]
    except Exception:  # whatever Zarr makes of what is no sink
        return None
    return dict(manifest) if places.is_whole(manifest) else None  # type: ignore[arg-type] # a dictionary, as was just seen


def _grid(manifest: Mapping[str, Any]) -> RegionGrid:
    """Return the run's grid of regions and tiles."""
    plan = manifest["plan"]
    first = len(plan["axes"]) - len(plan["halo"])
    grids = []
    for axis, (size, (start, stop), step) in enumerate(
        zip(plan["shape"], plan["roi"], plan["region"], strict=True)
    ):
        core, context = 1, Context()
        if axis >= first:
            core, halo = plan["core"][axis - first], plan["halo"][axis - first]
            # The halo of a network of depth d is 6 * 2**d - 4, its lattice 2**d (tiling.valid).
            context = Context(halo, (halo + 4) // 6, plan["tile"][axis - first] - core - 2 * halo)
        grids.append(AxisGrid(size, start, stop, max(step, 1), core, context))
    return RegionGrid(plan["axes"], tuple(grids))


def ranges_of(manifest: Mapping[str, Any]) -> Ranges:
    """Return the ranges of feature maps that a run of bytes measured, of another nothing."""
    return tuple((float(low), float(high)) for low, high in manifest.get("ranges", ()))


def _contradictions(manifest: Mapping[str, Any], grid: RegionGrid) -> list[Finding]:
    """Compare what the manifest says twice."""
    plan, identity = manifest["plan"], manifest["fingerprint"]
    offset, scale = (tuple(each) for each in manifest["normalisation"])
    twice = {
        "plan.roi": str(grid.roi),
        "plan.region": str(tuple(plan["region"])),
        "plan.tile": str(tuple(plan["tile"])),
        "plan.precision": plan["precision"],
        "plan.device": plan["device"],
        "model.checksum": manifest["model"]["checksum"],
        "model.normalisation": f"{offset} {scale}",
        **({"model.ranges": str(ranges_of(manifest))} if "ranges" in manifest else {}),
    }
    wrong = [name for name, value in twice.items() if identity.get(name) != value]
    wrong += ["plan.precision"] if manifest["precision"] != plan["precision"] else []
    wrong += ["regions"] if plan["regions"] != len(grid) else []
    text = f"the manifest contradicts itself about {', '.join(wrong)}. {_RESTORE}"
    return [Finding("metadata", text)] if wrong else []


def _product(
    url: str, manifest: Mapping[str, Any], number: int, grid: RegionGrid
) -> tuple[ArraySpec, list[zarr.Array[Any]]]:
    """Open a product; raise if its metadata is not that which a run writes."""
    entry, identity = manifest["arrays"][number], manifest["fingerprint"]
    name, axes = entry["name"], entry["axes"]
    levels = [stored_array(url, f"{name}/{n}") for n in range(entry["levels"])]
    finest = levels[0]
    sizes = {axis: b - a for axis, (a, b) in zip(grid.axes, grid.roi, strict=True)}
    sizes["c"] = len(manifest["classes"])
    _require(finest.shape == tuple(sizes[axis] for axis in axes), f"level 0 has the shape {finest.shape}")
    dtype = np.dtype(finest.dtype)
    spec = ArraySpec(
        name, axes, str(dtype), sentinel(dtype), finest.chunks, finest.shards, _levels(levels, name)
    )
    for field, value in (("chunks", spec.chunks), ("shards", spec.shards), ("products", (name, spec.dtype))):
        # The fingerprint holds one for each product, as a text.
        _require(str(value) in identity[f"plan.{field}"], f"{field} are {value}")
    for level, array in enumerate(levels):
        expected = zarr.create_array({}, **array_settings(spec, level))
        _require(
            array.metadata.to_dict() == expected.metadata.to_dict(),
            f"zarr.json of level {level} is not what was written",
        )
    _check_image(url, spec)
    for path in (name, *(f"{name}/{level}" for level in range(len(levels)))):
        _require(_as_written(url, path, manifest), f"zarr.json of {path} is not what was written")
    return spec, levels


def _root_is_whole(url: str, manifest: Mapping[str, Any]) -> bool:
    """Return whether the document of the root group is that which was written."""
    try:
        return _as_written(url, "", manifest)
    except (OSError, ValueError, KeyError):
        return False


def _as_written(url: str, path: str, manifest: Mapping[str, Any]) -> bool:
    """Return whether the document of a node is that which was written."""
    return "nodes" not in manifest or bool(node.checksum(url, path) == manifest["nodes"][path])


def _levels(levels: list[zarr.Array[Any]], name: str) -> tuple[Level, ...]:
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


def _check_image(url: str, spec: ArraySpec) -> None:
    """Raise unless the OME-Zarr metadata of a product describes its arrays."""
    ome: Any = zarr.open_group(url, path=spec.name, mode="r").attrs["ome"]
    (image,) = ome["multiscales"]
    _require(ome["version"] == "0.5", f"OME-Zarr version is {ome['version']}")
    _require("".join(axis["name"] for axis in image["axes"]) == spec.axes, "OME-Zarr axes are others")
    paths = [dataset["path"] for dataset in image["datasets"]]
    _require(paths == [str(n) for n in range(len(spec.levels))], f"OME-Zarr levels are {paths}")
    scales = [dataset["coordinateTransformations"][0]["scale"] for dataset in image["datasets"]]
    for level, scale in zip(spec.levels, scales, strict=True):
        fits = (math.isclose(a * by, b) for a, by, b in zip(scales[0], level.factor, scale, strict=True))
        _require(all(fits), f"OME-Zarr scale {scale} does not fit the level")


def _require(condition: bool, text: str) -> None:  # reads like an assertion
    if not condition:
        raise ValueError(text)


def sentinel(dtype: np.dtype[Any]) -> float:
    """Return what a voxel holds until it is written: NaN, or the largest whole number."""
    return float("nan") if dtype.kind == "f" else int(np.iinfo(dtype).max)
