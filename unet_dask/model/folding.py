"""Batch normalisation, folded into the convolutions before it for inference."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.utils import fusion

from unet_dask.model.network import layout

if TYPE_CHECKING:
    from unet_dask.model.network import Network


def for_inference(network: Network) -> Network:
    """Return a copy of a network that is only to be run: batch normalisation folded, weights channels last."""
    folded = fold_batch_norm(copy.deepcopy(network)).requires_grad_(requires_grad=False)
    # Folding makes new weights; give them the layout again.
    folded.to(memory_format=layout(network.spec.dims))  # type: ignore[call-overload] # torch's stubs omit it
    return folded


def fold_batch_norm(network: Network) -> Network:
    """Fold every batch normalisation into the convolution before it, in place.

    At inference it is an affine map per channel, so the folded network computes the same function.
    """
    network.eval()
    for sequence in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for index in range(1, len(sequence)):
            before, module = sequence[index - 1], sequence[index]
            if isinstance(before, nn.Conv2d | nn.Conv3d) and isinstance(
                module, nn.BatchNorm2d | nn.BatchNorm3d
            ):
                sequence[index - 1] = fusion.fuse_conv_bn_eval(before, module)
                sequence[index] = nn.Identity()
    return network
