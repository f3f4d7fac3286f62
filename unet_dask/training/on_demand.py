"""Training images whose target and weight map are made when somebody asks, box by box.

What a box of a target becomes depends on its surroundings: on touching instances, on the cells that the weight map
sees. So a box is prepared with a margin as wide as these reach, which is cut off again, and what is left is what
preparing the whole image would have given.

There is one approximation. Cells are the connected components of what was read: a cell that leaves the box with
its margin and comes back counts as two, and the gap between the two is weighted like one between cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.components import labelled
from unet_dask.model.file import normalise
from unet_dask.tiling.box import grown, shifted, whole
from unet_dask.training.sample import TrainingImage
from unet_dask.training.target import prepare, surroundings
from unet_dask.training.weight_map import reach, weight_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.io.images.annotated_volume import Annotated
    from unet_dask.model.header import Normalisation
    from unet_dask.tiling.box import Window
    from unet_dask.training.config import TrainConfig
    from unet_dask.training.target import Decision


@dataclass(frozen=True, slots=True)
class OnDemand:
    """An image to draw patches from that is prepared box by box.

    Attributes
    ----------
    annotated : image and target, in memory or where they lie
    constants : of the normalisation
    decision : what the values of the target mean
    class_weight : (classes,) w_c of the weight map; None for weights that only say what is known
    config : recipe
    """

    annotated: Annotated
    constants: Normalisation
    decision: Decision
    class_weight: NDArray[np.float32] | None
    config: TrainConfig

    @property
    def name(self) -> str:
        """For messages."""
        return self.annotated.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels per spatial axis."""
        return self.annotated.shape

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return self.annotated.channels

    def grey(self, box: Window) -> NDArray[np.float32]:
        """Return the normalised image in a box: (c, *box)."""
        return normalise(self.annotated.read_image(box), self.constants)

    def truth(self, box: Window) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return classes and weight map in a box."""
        config = self.config
        margin = surroundings(self.decision, config)
        if self.class_weight is not None:
            margin += reach(config.w0, config.sigma)
        outer = grown(box, margin, self.shape)
        target = prepare(self.annotated.read_annotation(outer), self.decision, config)
        inside = shifted(box, outer)
        if self.class_weight is None:
            return target.classes[inside], target.known[inside].astype(np.float32)
        weights = weight_map(
            target.classes,
            target.cells,
            class_weight=self.class_weight,
            known=target.known,
            w0=config.w0,
            sigma=config.sigma,
            inside=inside,
        )
        return target.classes[inside], weights

    def loaded(self, box: Window | None = None, *, with_objects: bool = False) -> TrainingImage:
        """Return a box, or all of it, in memory; with the objects as they were annotated, if these are instances."""
        chosen = whole(self.shape) if box is None else box
        objects = None
        if with_objects and self.decision.of_instances:
            annotation = self.annotated.read_annotation(chosen)
            objects = labelled(np.where(annotation.known, annotation.target, 0))
        return TrainingImage(self.name, self.grey(chosen), *self.truth(chosen), objects)
