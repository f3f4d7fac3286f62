"""What is asked for of many images, and whether their results may lie where they are to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unet_dask.errors import OptionError, SinkError
from unet_dask.io import remote
from unet_dask.io.remote import redact_url
from unet_dask.io.sink import place as places
from unet_dask.io.source import formats
from unet_dask.many.one import Order
from unet_dask.many.table import require_place as require_place_of_table
from unet_dask.part import parse_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unet_dask.config import SegmentConfig
    from unet_dask.many.listing import Image
    from unet_dask.model.file import ModelFile
    from unet_dask.part import Part


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be done with which images.

    Attributes
    ----------
    images : all of them, those of other parts too
    output : folder of the results
    config, resume, overwrite : of :func:`unet_dask.segment_many`
    """

    images: Sequence[Image]
    output: str
    config: SegmentConfig
    resume: bool = False
    overwrite: bool = False

    @property
    def part(self) -> Part | None:
        """Which of the images are done, None for all."""
        return None if self.config.part is None else parse_part(self.config.part)

    def orders(self, model: ModelFile) -> list[Order]:
        """Return what is to be done with each image of the part."""
        config, part, images = replace(self.config, part=None), self.part, self.images
        own = images if part is None else [images[rank] for rank in part.stretch(len(images))]
        return [
            Order(image, f"{self.output}/{image.name}.zarr", model, config, self.overwrite) for image in own
        ]


def require_place(asked: Asked, orders: Sequence[Order], table: str) -> None:
    """Refuse a folder of results that would do harm, or cannot be written.

    Raises
    ------
    OptionError
        If what is asked does not fit together.
    SinkError
        If results are there already, or something else is in their place.
    """
    shown = redact_url(asked.output)
    if asked.resume and asked.overwrite:
        raise OptionError("A run is either resumed or started over. Use --resume or --overwrite, not both.")
    if asked.config.mask not in (None, "auto") and len(asked.images) > 1:
        raise OptionError(
            "A mask is of one image, and there are several. Use --mask auto, or segment that image by itself."
        )
    if remote.is_local(asked.output):
        _require_folder(asked.output)
    if not (asked.resume or asked.overwrite):
        _require_none(orders, shown)
    reason = places.why_unwritable(asked.output)
    if reason:
        raise SinkError(
            f"The folder {shown} cannot be written: {reason}. Name a place that can be written with -o."
        )
    require_place_of_table(table)
    if remote.is_local(asked.output):
        remote.local_path(asked.output).mkdir(parents=True, exist_ok=True)


def _require_folder(output: str) -> None:
    """Refuse a file, a store, or a place in one."""
    path = remote.local_path(output).absolute()
    if path.exists() and not path.is_dir():
        raise SinkError(
            f"{path} is a file, and many images need a folder for their results. Name one with -o."
        )
    there = next(above for above in (path, *path.parents) if above.exists())
    if formats.in_store(there):
        raise SinkError(
            f"The folder {path} is a Zarr store or lies in one, which is left as it is. Name another with -o."
        )


def _require_none(orders: Sequence[Order], shown: str) -> None:
    """Refuse to begin where there are results already."""
    there = [order for order in orders if places.exists(order.sink)]
    if there:
        raise SinkError(
            f"{len(there)} of the results exist already in {shown}, such as {there[0].image.name}.zarr. Go on with "
            "them by --resume, replace them by --overwrite, or name another folder with -o."
        )
