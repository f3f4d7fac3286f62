"""A product as a label image in the image that it was made of, where viewers look for it.

It has the levels of the image, each with the same voxels: so a result of a part of the image lies in its place, with
background around it, and one of a coarser level is in the finer ones too, where every voxel has the value of the one
that it is a part of. The level that was segmented is copied, and the others are made from it, one from the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from unet_dask.ahead import in_order
from unet_dask.engine.device import available_cores
from unet_dask.errors import InputError, OptionError
from unet_dask.io import remote
from unet_dask.measuring.finished import block_sides, open_finished
from unet_dask.measuring.into import image_of
from unet_dask.measuring.measure import require_workers
from unet_dask.outlines.export import Exported
from unet_dask.products import PRODUCTS, product_of
from unet_dask.products.instances import Instances
from unet_dask.shelves.shelf import Shelf
from unet_dask.tiling.box import Box

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.measuring.finished import Finished
    from unet_dask.measuring.measure import OnBlock
    from unet_dask.products import Product
    from unet_dask.shelves.host import Host, HostLevel

#: Voxels of a block that is made of the next level, of which it reads up to eight times as many.
_BLOCK = 1 << 20
#: Voxels of the largest chunk, or shard, of the image that labels are stored in, too.
_MOST_IN_CHUNK = 1 << 22


def export_labels(
    sink: str | os.PathLike[str],
    image: str | os.PathLike[str],
    *,
    product: str = Instances.name,
    name: str | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    on_block: OnBlock = lambda done, total: None,
) -> Exported:
    """Put a product of a finished result into the ``labels/`` group of the OME-Zarr image that it was made of.

    The label image has the version, the levels and the sizes of voxels of the image, and the numbers of the result. It
    appears when it is whole; nothing else in the image changes.

    Parameters
    ----------
    sink : path or URL of a result of `segment_store`
    image : path of the source, a local OME-Zarr image of version 0.4 or 0.5
    product : "instances" or "classes"
    name : of the label image; None for that of the product
    overwrite : whether to replace a label image of that name, if it was made by this function
    workers, on_block : as in :func:`unet_dask.measure`

    Raises
    ------
    SinkError
        If there is no finished result that holds it, it is damaged, or the image cannot be written.
    InputError
        If the image is not what was segmented, or none that labels can be put into.
    OptionError
        If the product is none of numbers, or the name none.
    """
    require_workers(workers)
    _require_numbers(product)
    url = remote.location(sink, "sink")
    result = open_finished(url, product)
    host = image_of(result, remote.location(image, "source"))
    if host.axes != result.axes:
        raise InputError(
            f"The image {host.folder} has the axes {host.axes}, and the result {result.axes}, so the labels do not "
            "fit it. Write a file with -o."
        )
    shelf, named = Shelf(host, "labels"), name or product
    with shelf.put(named, overwrite=overwrite) as place:
        made = _Levels(result, host, product_of(product, result.labels.dtype.name), place, workers)
        made.write(named, on_block)
    return Exported(shelf.folder / named, None)


def _require_numbers(product: str) -> None:
    kind = PRODUCTS.get(product)
    if kind is None or kind.amounts:
        fitting = " or ".join(name for name, each in PRODUCTS.items() if not each.amounts)
        raise OptionError(f"{product} are no label image. Use {fitting}.")


@dataclass(frozen=True)
class _Levels:
    """The levels of a label image, while they are made.

    Attributes
    ----------
    result : finished
    host : the image
    product : what is written
    place : of the group
    workers : threads; None for one per core
    """

    result: Finished
    host: Host
    product: Product
    place: Path
    workers: int | None

    def write(self, name: str, on_block: OnBlock) -> None:
        """Write all levels: the one that was segmented, then the finer and the coarser ones."""
        group = zarr.create_group(
            str(self.place), zarr_format=self.host.zarr_format, attributes=self._attributes(name)
        )
        arrays = [self._array(group, number, level) for number, level in enumerate(self.host.levels)]
        chosen, last = self.host.chosen, len(arrays)
        order = [chosen, *range(chosen - 1, -1, -1), *range(chosen + 1, last)]
        blocks = {number: list(self._blocks(arrays[number], number)) for number in order}
        total, done = sum(map(len, blocks.values())), 0
        threads = self.workers or available_cores()
        for number in order:

            def make(box: Box, number: int = number) -> None:
                values = self._values(arrays, number, box)
                if values.any():  # background is what was never written
                    arrays[number][box.slices] = values

            for _ in in_order(make, blocks[number], threads=threads, ahead=2 * threads):
                done += 1
                on_block(done, total)

    def _array(self, group: zarr.Group, number: int, level: HostLevel) -> Any:
        shards = level.shards if level.shards and prod(level.shards) <= _MOST_IN_CHUNK else None
        chunks = level.chunks if prod(level.chunks) <= _MOST_IN_CHUNK else self.result.labels.chunks
        kind: dict[str, Any] = (
            {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
            if self.host.zarr_format == 2
            else {"dimension_names": tuple(self.host.axes), "shards": shards}
        )
        return group.create_array(
            str(number), shape=level.shape, chunks=chunks, dtype=self.product.dtype, fill_value=0, **kind
        )

    def _blocks(self, array: Any, number: int) -> Iterator[Box]:
        """Yield the parts of a level in which there is something of the result, each of some whole chunks."""
        sides = block_sides(array.shards or array.chunks, array.shape, self.result.dims, _BLOCK)
        units = self._about(number).units(sides)
        touched = tuple(
            (side * unit.start, min(side * unit.stop, size))
            for side, unit, size in zip(sides, units, array.shape, strict=True)
        )
        yield from Box(self.host.axes, touched).cut(sides)

    @property
    def _segmented(self) -> Box:
        """What was segmented of its level."""
        extent = self.result.manifest.plan.extent
        return Box(self.host.axes, tuple(extent[axis] for axis in self.host.axes))

    def _about(self, number: int) -> Box:
        """Return what was segmented in another level, with a margin for sizes that were rounded."""
        spans = []
        sizes = zip(self.host.levels[number].shape, self.host.levels[self.host.chosen].shape, strict=True)
        for (start, stop), (size, of) in zip(self._segmented.spans, sizes, strict=True):
            margin = size // of + 2
            spans.append((max(start * size // of - margin, 0), min(-(-stop * size // of) + margin, size)))
        return Box(self.host.axes, tuple(spans))

    def _values(self, arrays: Sequence[Any], number: int, box: Box) -> NDArray[Any]:
        """Return a block of a level, made of the result or of the level next to it."""
        chosen = self.host.chosen
        if number == chosen:
            return self._copied(box)
        other = arrays[number + 1 if number < chosen else number - 1]
        steps = [_step(here, there) for here, there in zip(arrays[number].shape, other.shape, strict=True)]
        if None in steps:
            return _nearest(other, arrays[number].shape, box)
        by = [step or 1 for step in steps]
        window = tuple(
            slice(start * step, min(stop * step, size))
            for (start, stop), step, size in zip(box.spans, by, other.shape, strict=True)
        )
        return self.product.coarser(np.asarray(other[window]), by)

    def _copied(self, box: Box) -> NDArray[Any]:
        """Return a block of the level that was segmented: what is outside of the result is background."""
        values, segmented = np.zeros(box.shape, self.product.dtype), self._segmented
        if box.meets(segmented):
            pairs = zip(box.spans, segmented.spans, strict=True)
            common = Box(box.axes, tuple((max(a, c), min(b, d)) for (a, b), (c, d) in pairs))
            found = self.result.read(self.result.name, common.relative_to(segmented))
            values[common.relative_to(box).slices] = found
        return values

    def _attributes(self, name: str) -> dict[str, Any]:
        """Return what the label image says of itself, as OME-Zarr of the image's version has it."""
        host, old = self.host, self.host.zarr_format == 2
        version = {"version": host.version}
        datasets = [
            {
                "path": str(number),
                "coordinateTransformations": [
                    {"type": "scale", "scale": list(level.scale)},
                    {"type": "translation", "translation": list(level.translation)},
                ],
            }
            for number, level in enumerate(host.levels)
        ]
        multiscale = {"name": name, "axes": list(host.described), "datasets": datasets}
        label = self.product.described(self.result.manifest.classes).get("image-label", {})
        label = label | {"source": {"image": "../../"}} | (version if old else {})
        ome = {"multiscales": [multiscale | (version if old else {})], "image-label": label}
        return ome if old else {"ome": version | ome}


def _step(coarse: int, fine: int) -> int | None:
    """Return how many voxels of a finer axis one of a coarser covers, None unless that is a whole number.

    Examples
    --------
    >>> _step(250, 500), _step(250, 501), _step(251, 501), _step(500, 250), _step(100, 250)
    (2, 2, 2, None, None)
    """
    step = round(fine / coarse)
    return step if step >= 1 and abs(fine - coarse * step) < step else None


def _nearest(other: Any, shape: Sequence[int], box: Box) -> NDArray[Any]:
    """Return a block of an array of some shape, whose voxels have the values of those of another in which they lie."""
    places = [
        _within(np.arange(start, stop), size, there)
        for (start, stop), size, there in zip(box.spans, shape, other.shape, strict=True)
    ]
    window = tuple(slice(int(place[0]), int(place[-1]) + 1) for place in places)
    values = np.asarray(other[window])
    return values[np.ix_(*(place - place[0] for place in places))]


def _within(places: NDArray[np.intp], size: int, other: int) -> NDArray[np.intp]:
    """Return in which voxels of another axis those of an axis of some size lie, with their centres."""
    step = _step(other, size)
    found = places // step if step else (2 * places + 1) * other // (2 * size)
    return np.minimum(found, other - 1)
