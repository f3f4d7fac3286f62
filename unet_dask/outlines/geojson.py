"""Objects as GeoJSON, as QuPath reads it: a feature for each, with its class and its measurements.

Places are x, y in pixels of the finest level of the source, edges of pixels are whole numbers.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.io.remote import printable
from unet_dask.outlines.rings import outlines
from unet_dask.products.colour import class_colour

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from unet_dask.measuring.columns import Columns
    from unet_dask.measuring.frame import Frame
    from unet_dask.measuring.sums import Rows
    from unet_dask.outlines.rings import Outline, Ring

#: Columns of the table that are told otherwise: by the name, the class, and the outline itself.
_TOLD = ("class", "touches_border")
_BOXES = ("bbox_", "centroid")
_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True)
class Features:
    """What features of a result have in common.

    Attributes
    ----------
    frame : where its voxels lie
    class_names : background first
    kind : what QuPath calls them
    """

    frame: Frame
    class_names: Sequence[str]
    kind: str = "detection"

    def pieces(self, batches: Iterable[tuple[Columns, Rows]]) -> Iterator[bytes]:
        """Yield a collection of features.

        Parameters
        ----------
        batches : tables of some objects, by number, each with all corners of these
        """
        yield b'{"type": "FeatureCollection", "features": ['
        before = "\n"
        for table, corners in batches:
            said = self._properties(table)
            for outline in outlines(corners):
                geometry = _encode(self._geometry(outline))
                feature = (
                    f'{{"type": "Feature", "geometry": {geometry}, "properties": {said[outline.label]}}}'
                )
                yield (before + feature).encode()
                before = ",\n"
        yield b"\n]}\n"

    def _geometry(self, outline: Outline) -> dict[str, object]:
        """Return a polygon, or several; of a stack with the plane that QuPath shows it in."""
        parts = [[self._ring(ring) for ring in (each.ring, *each.holes)] for each in outline.polygons]
        single = len(parts) == 1
        found: dict[str, object] = {
            "type": "Polygon" if single else "MultiPolygon",
            "coordinates": parts[0] if single else parts,
        }
        stack, sizes = self.frame.axes[:-2], self.frame.shape[:-2]
        if stack:
            place = np.unravel_index(outline.plane, sizes)
            named = {
                axis: int(self.frame.edges(number, np.asarray(at)))
                for number, (axis, at) in enumerate(zip(stack, place, strict=True))
            }
            found["plane"] = {"c": -1, "z": named.get("z", 0), "t": named.get("t", 0)}
        return found

    def _ring(self, ring: Ring) -> list[list[float]]:
        """Return the corners of a ring as x, y, the first one again at the end."""
        (down, along), (tall, wide) = self.frame.offset[-2:], self.frame.factor[-2:]
        places = [[(x + along) * wide, (y + down) * tall] for y, x in ring]
        return [*places, places[0]]

    def _properties(self, table: Columns) -> dict[int, str]:
        """Return what is said of each object, by its number."""
        known = {
            name: json.dumps({"name": name, "color": class_colour(number)[:3]})
            for number, name in enumerate(map(printable, self.class_names))
        }
        measured = {
            name: values.tolist()
            for name, values in table.items()
            if name not in (*_TOLD, *self.frame.planes) and not name.startswith(_BOXES)
        }
        found = {}
        for row, label in enumerate(table["label"].tolist()):
            values = {name: column[row] for name, column in measured.items() if math.isfinite(column[row])}
            found[label] = (
                f'{{"objectType": "{self.kind}", "name": "{label}", '
                f'"classification": {known[str(table["class"][row])]}, "measurements": {_encode(values)}}}'
            )
        return found
