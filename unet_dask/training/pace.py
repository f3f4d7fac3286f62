"""How long a training will take on this machine, measured before its first iteration.

A tile is drawn, run forward and backward twice, and thrown away: weights, statistics and randomness are those of a
training that was not measured. The first run warms up; the second is timed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from unet_dask.training.loss import weighted_cross_entropy

if TYPE_CHECKING:
    from unet_dask.training.job import Job, State
    from unet_dask.training.sample import Patch

#: Share of forward, backward and update that the forward pass takes: two of the three products of a layer are of the
#: backward pass.
_FORWARD = 1 / 3


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds, expected.

    Attributes
    ----------
    iteration : of one step
    validation : of one look at all held-out images
    first_model : until there is a model file
    total : until the end
    """

    iteration: float
    validation: float
    first_model: float
    total: float


def pace(job: Job, state: State, patch: Patch, drawing: float) -> Pace:
    """Measure one step, and reckon up what is left of the training.

    Parameters
    ----------
    job, state : of the training, before its next iteration
    patch : a tile of it
    drawing : seconds that it took to draw; the next tile is drawn while one is learnt from
    """
    config, done = job.config, state.progress.iteration
    step = max(_timed(job, state, patch), drawing)
    pixels = math.prod(patch.target.shape)
    held_out = sum(math.prod(image.shape) for image in job.data.held_out)
    validation = step * _FORWARD * held_out / pixels
    first = _next(done, config.validate_every, config.iterations)
    looks = _looks(done, config.validate_every, config.iterations)
    return Pace(
        step,
        validation,
        (first - done) * step + validation,
        (config.iterations - done) * step + looks * validation,
    )


def _next(done: int, every: int, last: int) -> int:
    """Return the iteration after which there is a validation next.

    Examples
    --------
    >>> _next(0, 100, 250), _next(230, 100, 250)
    (100, 250)
    """
    return min((done // every + 1) * every, last)


def _looks(done: int, every: int, last: int) -> int:
    """Return how many validations are left; there is one at the end in any case.

    Examples
    --------
    >>> _looks(0, 100, 250), _looks(100, 100, 200)
    (3, 1)
    """
    return last // every - done // every + (last % every > 0)


def _timed(job: Job, state: State, patch: Patch) -> float:
    """Return the seconds of one run forward and backward."""
    network, device = state.network, job.device
    network.eval()  # statistics stay as they are
    image, target, weight = (
        torch.from_numpy(values[None]).to(device) for values in (patch.image, patch.target, patch.weight_map)
    )
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        # The value is waited for, so that a device that computes by itself has come to the end.
        gradients = torch.autograd.grad(
            weighted_cross_entropy(network(image).float(), target, weight), list(network.parameters())
        )
        float(gradients[0].sum())
        seconds = time.perf_counter() - began
    network.train()
    return seconds
