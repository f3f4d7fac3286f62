"""A run that is planned but not begun: all that it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask.engine.cache import NetworkKey
from unet_dask.part import Part, parse_part

if TYPE_CHECKING:
    from unet_dask.config import SegmentConfig
    from unet_dask.engine.ranges import Ranges
    from unet_dask.io.source.mask import Mask
    from unet_dask.io.source.occupancy import Occupancy
    from unet_dask.io.source.volume import Source
    from unet_dask.model.file import ModelFile
    from unet_dask.planning.plan import Plan


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is planned but not begun.

    Attributes
    ----------
    source, model, mask, occupancy : open, and where the mask holds something
    config : what was asked for, and what a run that goes on takes from the one that was begun
    plan : for whoever computes
    ranges : of feature maps, of an int8 network
    """

    source: Source
    model: ModelFile
    config: SegmentConfig
    plan: Plan
    mask: Mask | None = None
    ranges: Ranges = ()
    occupancy: Occupancy | None = None

    @property
    def part(self) -> Part | None:
        """Part of the regions that this driver does; None for all, pyramids included."""
        return None if self.config.part is None else parse_part(self.config.part)

    def key(self) -> NetworkKey:
        """Return the name by which workers know the network."""
        return NetworkKey(
            str(self.model.path.resolve()),
            self.model.checksum,
            self.plan.device,
            self.plan.precision,
            self.config.backend,
            self.ranges,
        )

    def reference(self) -> NetworkKey:
        """Return the name of the same network as torch runs it in float32, which anything else is compared with."""
        return self.key().in_float32()
