"""Segment whole held-out images while training, by tiles and mirroring like everything else."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unet_dask.metrics import pixel
from unet_dask.objects.basins import foreground
from unet_dask.objects.rule import AS_PIECES
from unet_dask.tiling.mirror import mirrored
from unet_dask.tiling.valid import aligned
from unet_dask.training.neurites import best_threshold
from unet_dask.training.objects import best_rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.model.network import Network
    from unet_dask.objects.rule import ObjectRule
    from unet_dask.training.neurites import NeuriteScores
    from unet_dask.training.objects import ObjectScores
    from unet_dask.training.sample import TrainingImage

#: Largest core of a validation tile, in pixels per axis.
_LARGEST = {2: 512, 3: 64}
#: What makes probabilities of logits, by the head of the network.
_ACTIVATIONS = {"softmax": partial(torch.softmax, dim=1)}


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores over all held-out images together.

    Attributes
    ----------
    pixel_error : share of wrong pixels
    iou : per class; NaN for one that neither occurs nor was found
    mean_iou : of the classes that occur
    score : the same with every pixel counted by its weight; the network with the highest is kept
    objects : of the objects that are made; None unless targets are instances, or objects neurites
    """

    pixel_error: float
    iou: tuple[float, ...]
    mean_iou: float
    score: float
    objects: ObjectScores | NeuriteScores | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the scores by name; those of objects where there are any."""
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "objects"}
        return plain | ({"objects": self.objects.to_json()} if self.objects else {})


def probabilities(
    network: Network, image: NDArray[np.float32], *, device: str | torch.device = "cpu"
) -> NDArray[np.float32]:
    """Return the class probabilities of a whole image.

    Parameters
    ----------
    network : in evaluation mode
    image : (c, *spatial) float32, normalised
    device : of the network

    Returns
    -------
    (classes, *spatial) float32 in [0, 1]
    """
    spec, shape = network.spec, image.shape[1:]
    cores = [
        aligned(min(side, _LARGEST[spec.dims]), context.stride)
        for side, context in zip(shape, spec.contexts, strict=True)
    ]
    found = np.empty((spec.classes, *shape), dtype=np.float32)
    grid = [range(0, side, core) for side, core in zip(shape, cores, strict=True)]
    for starts in product(*grid):
        tile: NDArray[np.float32] = image
        for axis, (start, core, context) in enumerate(zip(starts, cores, spec.contexts, strict=True)):
            first = start - context.halo
            position = mirrored(first, first + context.input_size(core), shape[axis])
            tile = np.take(tile, position, axis=axis + 1)
        with torch.inference_mode():
            logits = network(torch.from_numpy(tile[np.newaxis]).to(device))
            out = _ACTIVATIONS[spec.head](logits.float())[0].cpu().numpy()
        into = [slice(start, start + core) for start, core in zip(starts, cores, strict=True)]
        room = found[(slice(None), *into)]
        room[...] = out[(slice(None), *(slice(0, side) for side in room.shape[1:]))]
    return found


def validate(
    network: Network,
    images: Sequence[TrainingImage],
    *,
    rules: Sequence[ObjectRule] = (AS_PIECES,),
    device: str | torch.device = "cpu",
) -> Scores:
    """Score the network on held-out images; pixels of weight 0 are not counted.

    Parameters
    ----------
    network : to score
    images : held out
    rules : how objects can be made, but for how they are split; all are tried
    device : of the network

    The paper gives no rule for when to stop. Where targets are instances, the pixels between touching
    ones are few and decide whether objects merge: plain scores do not see them, and would prefer a network
    from before it learned to separate. So the score that is compared counts pixels as the energy does.

    The network is left in the mode it came in.
    """
    count = network.spec.classes
    plain = np.zeros((count, count), dtype=np.float64)
    weighted = np.zeros_like(plain)
    training = network.training
    network.eval()
    neurites = bool(rules[0].threshold)
    every: list[NDArray[np.uint8]] = []
    for each in images:
        found = probabilities(network, each.image, device=device)
        classes = np.argmax(found, axis=0)
        every.append(foreground(found[0]) if neurites else classes.astype(np.uint8))
        known = (each.weight_map > 0).astype(np.float32)
        plain += pixel.confusion(classes, each.target, count=count, weight=known)
        weighted += pixel.confusion(classes, each.target, count=count, weight=each.weight_map)
    network.train(training)
    return Scores(
        pixel.pixel_error(plain),
        pixel.iou(plain),
        pixel.mean_iou(plain),
        pixel.mean_iou(weighted),
        (best_threshold if neurites else best_rule)(images, every, rules),
    )
