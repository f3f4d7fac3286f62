"""How many objects a result has and how large they are, for pictures: counted where that takes some seconds."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.errors import SinkError
from unet_dask.io.sink.place import require_manifest
from unet_dask.measuring.count import MOST_COUNTED
from unet_dask.measuring.measure import summary, tables
from unet_dask.measuring.survey import open_survey
from unet_dask.products import PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from unet_dask.io.source.received import Consent
    from unet_dask.measuring.measurement import Measurement

#: Bars of a histogram.
_BARS = 24


@dataclass(frozen=True, slots=True)
class Sizes:
    """The objects of a result, counted by their sizes.

    Attributes
    ----------
    counts : size -> how many, in `unit`
    unit : of sizes: pixels or voxels, um2 or um3 where the result says how large a pixel is
    measured : the same in a few numbers
    """

    counts: Mapping[float, int]
    unit: str
    measured: Measurement

    @property
    def title(self) -> str:
        """How many there are, and how large most are."""
        count = self.measured.objects
        median = self.measured.median if self.measured.physical is None else self.measured.physical
        known = "" if median is None else f", median {median:.4g} {self.unit}"
        return f"{count} object{'s' * (count != 1)}{known}"

    @property
    def text(self) -> str:
        """The same, with how many there are in a square or cubic millimetre, if that is known."""
        density, of = self.measured.density, "the mask" if self.measured.masked else "the image"
        known = "" if density is None else f", {density:.4g} per {self.unit.replace('um', 'mm')} of {of}"
        return self.title + known

    def bars(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the edges of bars, each as much larger than the one before, and the objects between them.

        Returns
        -------
        (n + 1) edges and (n) counts; none of no objects
        """
        if not self.counts:
            return np.empty(0), np.empty(0, np.int64)
        sizes, counts = np.array([*self.counts], np.float64), np.array([*self.counts.values()])
        low, high = sizes.min(), sizes.max()
        edges = np.geomspace(low, max(high, low * 1.5), _BARS + 1)
        edges[-1] = np.nextafter(max(edges[-1], high), np.inf)
        found, _ = np.histogram(sizes, edges, weights=counts)
        return edges, np.rint(found).astype(np.int64)


def sizes_of(url: str, consent: Consent) -> Sizes | None:
    """Return the objects of a result by their sizes; None if it has none yet, or is too large for that.

    Parameters
    ----------
    url : path or URL of a result
    consent : to what may be opened beyond this machine

    Raises
    ------
    SinkError
        If there is no result, or it is damaged.
    """
    manifest = require_manifest(url)
    joined = [entry for entry in manifest.arrays if PRODUCTS[entry.name].joined]
    if not joined or prod(manifest.shape(joined[0])) > MOST_COUNTED:
        return None
    try:
        survey = open_survey(url, consent, intensities=False)
    except SinkError:  # it is not finished
        return None
    tally = survey.tally()
    with tables(survey, tally, None, None, lambda done, total: None) as batches:
        for _ in batches:
            """Objects are counted as they come."""
    frame = survey.frame
    one = frame.pixels if frame.size is None else frame.size
    unit = ("pixels" if frame.dims == 2 else "voxels") if frame.size is None else frame.measure[-3:]
    counts = {area * one: number for area, number in sorted(tally.areas.items())}
    return Sizes(counts, unit, summary(survey, tally, None, None))
