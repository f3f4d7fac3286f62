"""The objects that the page tells of: the one at a place, with its measurements, and the one of a number."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from unet_dask.axes import by_axis
from unet_dask.errors import InputError
from unet_dask.measuring.one import find_object, one_object
from unet_dask.measuring.survey import Survey, open_survey
from unet_dask.tiling.box import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from unet_dask.io.source.received import Consent

    #: Columns of one row, by name.
    Row = Mapping[str, NDArray[np.generic]]


class Objects:
    """The objects of a finished result.

    Parameters
    ----------
    sink : path or URL
    consent : to what may be opened beyond this machine
    """

    def __init__(self, sink: str, consent: Consent) -> None:
        self._sink = sink
        self._consent = consent

    @cached_property
    def _survey(self) -> Survey:
        try:
            return open_survey(self._sink, self._consent)
        except (
            InputError
        ):  # the source is another one now: objects are what they were, and it has no grey values of them
            return open_survey(self._sink, self._consent, intensities=False)

    def told(self, at: Mapping[str, int]) -> dict[str, str]:
        """Return what is measured of the object at a voxel of the result, for people; {} if there is none."""
        result = self._survey.result
        row = one_object(self._survey, tuple(at[axis] for axis in result.axes))
        if row is None:
            voxel = Box(result.axes, tuple((at[axis], at[axis] + 1) for axis in result.axes))
            number = result.read(result.name, voxel).item()
            return {"object": f"{number}, too large to be measured here"} if number else {}
        return dict(_lines(row, self._survey))

    def found(self, number: int) -> dict[str, int] | None:
        """Return a voxel of the result, by axis, that is of the object of a number; None if none is found."""
        result = self._survey.result
        at = find_object(result, number)
        return None if at is None else by_axis(result.axes, at)


def _lines(row: Row, survey: Survey) -> Iterator[tuple[str, str]]:
    """Yield what is said of an object, pixels and micrometres together."""
    values = {name: column[0].item() for name, column in row.items()}
    frame = survey.frame
    yield "object", f"{values['label']}, {values['class']}"
    size = f"{values['area']:g} {'pixels' if frame.dims == 2 else 'voxels'}"
    unit = frame.measure[-3:]
    yield (
        frame.measure[:-4],
        size + (f", {values[frame.measure]:.4g} {unit}" if frame.measure in values else ""),
    )
    for end, of in (("", ""), ("_um", " in um")):
        place = [
            f"{axis} {values[name]:.1f}" for axis in frame.axes if (name := f"centroid{end}-{axis}") in values
        ]
        if place:
            yield f"centroid{of}", ", ".join(place)
    if values["touches_border"]:
        yield "border", "touches it"
    for name, value in values.items():
        if name.startswith(("probability_", "intensity_mean")):
            yield name.replace("_", " "), f"{value:.4g}"
