"""One step of gradient descent: forward, energy, backward, update.

In 16 bit the network runs under `torch.autocast` and the weights, their momentum and the update stay in float32.
float16 has gradients too small for it: they are scaled up, and a step whose gradients overflow is left out and the
scale halved (:class:`torch.amp.GradScaler`). bfloat16 has the range of float32 and needs none of that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from unet_dask.errors import OptionError
from unet_dask.training.loss import dice_loss, weighted_cross_entropy

if TYPE_CHECKING:
    from unet_dask.training.job import Job, State
    from unet_dask.training.sample import Patch

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def step(job: Job, state: State, patch: Patch, rate: float) -> float:
    """Descend along the gradient of one tile and return its loss.

    Raises
    ------
    OptionError
        If loss or gradient are not finite.
    """
    config, device, iteration = job.config, job.device, state.progress.iteration
    network, optimiser, scaler = state.network, state.optimiser, state.scaler
    for group in optimiser.param_groups:
        group["lr"] = rate
    # Dropout draws from torch's global generator; seeded per iteration it needs no state.
    seeds = np.random.SeedSequence([config.seed, 3, job.team.draw(iteration)])
    torch.manual_seed(int(seeds.generate_state(1)[0]))
    network.train()
    if iteration >= config.freeze_norm_after * config.iterations:
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
                module.eval()
    dtype = _DTYPES[config.precision]
    with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
        logits = network(torch.from_numpy(patch.image[np.newaxis]).to(device))
    truth = [torch.from_numpy(part[np.newaxis]).to(device) for part in (patch.target, patch.weight_map)]
    loss = weighted_cross_entropy(logits.float(), *truth)
    if config.dice:
        loss = loss + config.dice * dice_loss(logits.float(), *truth)
    value = float(loss.item())
    optimiser.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's own
    job.team.average_gradients(network)
    scaler.unscale_(optimiser)
    norm = float(torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm or math.inf))
    if not math.isfinite(value) or (not math.isfinite(norm) and not scaler.is_enabled()):
        raise OptionError(
            f"The loss is not finite in iteration {iteration + 1}: the training diverged at a learning rate "
            f"of {rate:.3g}. Use --learning-rate {rate / 10:.1g}."
        )
    scaler.step(optimiser)
    scaler.update()
    job.team.average_statistics(network)
    if state.average is not None:
        state.average.update_parameters(network)
    return value
