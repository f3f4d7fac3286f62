"""A finished result, opened to be measured or exported: its arrays, its blocks, and its source if that is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.axes import has_depth, has_time
from unet_dask.errors import InputError, SinkError, UnetDaskError
from unet_dask.io.remote import one_line, redact_url
from unet_dask.io.sink.place import RUN_FOLDER, require_manifest
from unet_dask.io.source.received import changed, source_of
from unet_dask.io.source.volume import open_source
from unet_dask.ledger import Ledger
from unet_dask.levels import product_levels
from unet_dask.objects.rule import ObjectRule
from unet_dask.products import PRODUCTS
from unet_dask.products.classes import Classes
from unet_dask.products.instances import Instances
from unet_dask.products.probabilities import Probabilities
from unet_dask.products.sentinel import is_sentinel
from unet_dask.tiling.box import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from unet_dask.io.bounded import OpenedArray
    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.io.source.received import Consent
    from unet_dask.io.source.volume import Source

#: Products that say something of objects.
_READ = (Instances.name, Classes.name, Probabilities.name)
#: Voxels of a block, if chunks are not larger: some hundred megabytes of sums and what they are made of.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Finished:
    """A finished result.

    Attributes
    ----------
    url : path or URL
    manifest : of the run
    arrays : finest level of each product, by name
    name : of the label image, the product that is gone through
    axes : of the label image
    """

    url: str
    manifest: Manifest
    arrays: Mapping[str, OpenedArray]
    name: str
    axes: str

    @property
    def labels(self) -> OpenedArray:
        """The label image."""
        return self.arrays[self.name]

    @property
    def dims(self) -> int:
        """Number of the last axes along which an object extends: those of the network, and z of connected planes."""
        linked = self.rule is not None and self.rule.linked and has_depth(self.axes)
        return len(self.manifest.plan.halo) + bool(linked)

    @property
    def core(self) -> int:
        """Class from which objects grew into others, so that they are all of it; 0 if each has a class of its own."""
        rule = self.rule
        return rule.core if rule is not None and rule.core < len(self.manifest.classes) else 0

    @property
    def rule(self) -> ObjectRule | None:
        """How objects were made; None if an earlier version recorded it in words."""
        return ObjectRule.recorded(self.manifest.fingerprint)

    @property
    def whole(self) -> Box:
        """All of the label image."""
        return Box(self.axes, tuple((0, size) for size in self.labels.shape))

    def blocks(self, most: int = _BLOCK) -> Iterator[Box]:
        """Yield parts of the label image of some whole chunks each, in raster order.

        Parameters
        ----------
        most : voxels of a block, if chunks are not larger; of more than are measured at a time it has so many
        """
        sides = block_sides(self.labels.chunks, self.labels.shape, self.dims, min(most, _BLOCK))
        return self.whole.cut(sides)

    def read(self, name: str, box: Box) -> NDArray[Any]:
        """Return a part of a product, of which a box has no channels.

        Returns
        -------
        of the shape of the box; channels first, if the product has them

        Raises
        ------
        SinkError
            If it is damaged, or was never written.
        """
        channels = PRODUCTS[name].has_channels
        place = int(has_time(self.axes))  # of the axis of channels
        selection = box.slices[:place] + (slice(None),) * channels + box.slices[place:]
        try:
            values = np.asarray(self.arrays[name][selection])
        except Exception as error:  # whatever codecs make of a damaged chunk
            raise self._damaged(name, box, one_line(error)) from error
        if is_sentinel(values).any():
            raise self._damaged(name, box, "voxels that were never written")
        return np.moveaxis(values, place, 0) if channels else values

    def _damaged(self, name: str, box: Box, reason: str) -> SinkError:
        return SinkError(
            f"The {name} of {redact_url(self.url)} cannot be read at {box.text}: {reason}. See what is wrong with "
            "unet-dask verify, and mend it with --repair."
        )

    def in_source(self, box: Box, channels: tuple[int, int]) -> tuple[slice, ...]:
        """Return the window of the source that a part of the result is made of."""
        spans, corner = box.named | {"c": channels}, self.manifest.plan.extent
        moved = {
            axis: (start + corner[axis][0], stop + corner[axis][0]) if axis in box.axes else (start, stop)
            for axis, (start, stop) in spans.items()
        }
        return tuple(slice(*moved[axis]) for axis in self.manifest.plan.axes)


def block_sides(
    chunks: tuple[int, ...], shape: tuple[int, ...], dims: int, most: int | None = None
) -> tuple[int, ...]:
    """Return the sides of blocks: some whole chunks, about as many along each axis of an object.

    Parameters
    ----------
    chunks, shape : of the array
    dims : last axes along which an object extends
    most : voxels of a block, if chunks are not larger; None for as many as are measured at a time

    Examples
    --------
    >>> block_sides((512, 512), (9000, 9000), 2), block_sides((1, 64, 64), (99, 64, 64), 2)
    ((2048, 2048), (99, 64, 64))
    """
    sides = list(chunks)
    while True:
        short = [axis for axis, size in enumerate(shape) if sides[axis] < size]
        inner = [axis for axis in short if axis >= len(shape) - dims] or short
        if not inner or 2 * prod(sides) > (most or _BLOCK):
            return tuple(min(side, max(size, 1)) for side, size in zip(sides, shape, strict=True))
        sides[min(inner, key=lambda axis: sides[axis])] *= 2


def open_finished(url: str, name: str = Instances.name) -> Finished:
    """Open a finished result.

    Parameters
    ----------
    url : path or URL
    name : of a product that it must hold

    Raises
    ------
    SinkError
        If there is none, it is not finished, or it does not hold that.
    """
    manifest = require_manifest(url)
    if name not in {record.name for record in manifest.arrays}:
        wanted = ",".join(dict.fromkeys((Classes.name, name)))
        raise SinkError(f"{redact_url(url)} holds no {name}. Run segment with --products {wanted}.")
    ledger = Ledger(f"{url.rstrip('/')}/{RUN_FOLDER}")
    if not ledger.complete():
        raise SinkError(
            f"{redact_url(url)} is not finished: {len(ledger.finished())} of {manifest.work} pieces of work are done. "
            "Go on with segment --resume."
        )
    return as_finished(url, manifest, name)


def as_finished(url: str, manifest: Manifest, name: str = Instances.name) -> Finished:
    """Open a result whose objects are done, whatever else is not.

    Raises
    ------
    SinkError
        If an array cannot be opened.
    """
    found = {record.name: record for record in manifest.arrays}
    used = [found[each] for each in _READ if each in found]
    arrays = {record.name: product_levels(url, manifest, record)[0] for record in used}
    return Finished(url, manifest, arrays, name, found[name].axes)


def source_at_hand(result: Finished, consent: Consent) -> tuple[Source | None, str]:
    """Return the source of a result with all of its channels, None and why if it is not at hand.

    Raises
    ------
    InputError
        If it has changed since, or is not where a user says.
    """
    manifest = result.manifest
    try:
        source = source_of(manifest.fingerprint, consent)
        different = changed(manifest, source, None, elsewhere=consent.elsewhere)
    except UnetDaskError as error:
        if consent.elsewhere:
            raise
        return None, f"grey values are not measured, because the source is not at hand: {error}"
    if different:
        raise InputError(
            f"The source {redact_url(source.spec.url)} is not what it was when it was segmented ({different}), so its "
            "grey values may be those of other objects. Name the right one with --source, or leave it out with "
            "--no-source."
        )
    spec = source.spec
    return open_source(spec.url, key=spec.key, axes=spec.axes), ""
