"""What a run over many images says on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unet_dask.many.outcome import Row
    from unet_dask.many.survey import Survey
    from unet_dask.run.events import Remark


@dataclass(frozen=True, slots=True)
class Surveyed:
    """All images were looked at; work begins.

    Attributes
    ----------
    survey : of the images
    output : folder of the results
    total : images, those among them that cannot be opened
    notes : what the user should know, one line each
    """

    survey: Survey
    output: str
    total: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Segmented:
    """An image is done, or has failed."""

    row: Row
    done: int
    total: int


ManyListener = Callable[["Surveyed | Segmented | Remark"], None]
