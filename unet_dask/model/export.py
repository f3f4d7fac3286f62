"""A model of ours as a graph of ONNX, for programs that know nothing of halos: Fiji, QuPath, ilastik.

The graph holds all that `segment` does to a tile: the constants of the normalisation, the mirror image beyond the
border, the network, the soft-max. It takes grey values of (1, c, *space) and gives probabilities of the same space. A
program that cuts an image into tiles of its own sees the mirror image at their edges: away from these, by the halo of
the model, it gives what we give.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from unet_dask import private
from unet_dask.durable import write
from unet_dask.errors import ModelError, OptionError
from unet_dask.model.convolution import Conv3d
from unet_dask.model.folding import for_inference
from unet_dask.paths import local_path

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from unet_dask.model.file import Model
    from unet_dask.model.header import Normalisation
    from unet_dask.model.network import Network

#: Version of the operations of ONNX that programs of 2022 and later know.
_OPSET = 17


class SameSize(nn.Module):
    """A network with all that is around it: grey values in, probabilities of the same size out.

    Parameters
    ----------
    network : for inference
    constants : of the normalisation
    """

    def __init__(self, network: Network, constants: Normalisation) -> None:
        super().__init__()
        self._network, spec = network, network.spec
        along = (1, -1, *(1,) * spec.dims)
        self._offset = torch.tensor(constants.offset).reshape(along)
        self._gain = torch.tensor([1 / value for value in constants.scale]).reshape(along)
        # torch begins with the last axis.
        sides = zip(reversed(spec.halo), reversed(spec.slack), strict=True)
        self._beyond = [size for halo, slack in sides for size in (halo, halo + slack)]
        self._slack = spec.slack

    def forward(self, image: Tensor) -> Tensor:
        """Return probabilities, (1, classes, *space), of grey values of (1, c, *space)."""
        image = (image - self._offset) * self._gain
        logits = self._network(functional.pad(image, self._beyond, mode="reflect"))
        whole = (slice(None), slice(None))
        logits = logits[(*whole, *(slice(None, -slack or None) for slack in self._slack))]
        return torch.softmax(logits, dim=1)


def export_onnx(model: Model, path: str | os.PathLike[str]) -> Path:
    """Write a model as an ONNX file, atomically.

    Parameters
    ----------
    model : of unet-dask, with constants
    path : to write, .onnx; replaced if it exists

    Returns
    -------
    the path

    Raises
    ------
    ModelError
        If its normalisation is that of a volume that nobody knows yet, it is a network of others, or the file cannot be
        written.
    OptionError
        If the name does not end in .onnx.
    """
    path = local_path(path)
    if path.suffix != ".onnx":
        raise OptionError(f"A model is exported to a file that ends in .onnx, but {path.name!r} does not.")
    header, network = model.header, model.ours
    if header.normalisation.of_volume:
        raise ModelError(
            "The model is normalised by mean and standard deviation of the whole volume, which a graph cannot know. "
            "Give those of a volume: --mean and --std, or model.with_statistics(mean=[...], std=[...])."
        )
    spec = network.spec
    wrapped = SameSize(_plain(for_inference(network)), header.normalisation).eval()
    least = [
        -(-(halo + slack + 1) // stride) * stride
        for halo, slack, stride in zip(spec.halo, spec.slack, spec.stride, strict=True)
    ]
    axes = dict(enumerate(header.axes[1:], 2))
    with warnings.catch_warnings(), torch.inference_mode(), private.folder() as folder:
        made = folder / "net.onnx"
        warnings.simplefilter(
            "ignore"
        )  # of torch on its own exporter, and on sizes that are constants by intention
        torch.onnx.export(
            wrapped,
            (torch.zeros(1, spec.channels, *least),),
            made,
            dynamo=False,
            input_names=["image"],
            output_names=["probabilities"],
            dynamic_axes={"image": axes, "probabilities": axes},
            opset_version=_OPSET,
        )
        content = made.read_bytes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, [content])
    except OSError as error:
        raise ModelError(f"The graph cannot be written to {path}: {error.strerror or error}.") from error
    return path


def _plain(network: Network) -> Network:
    """Let convolutions in 3-D be those that ONNX knows, in place."""
    for module in network.modules():
        if isinstance(module, Conv3d):
            module.__class__ = nn.Conv3d  # type: ignore[assignment] # the same weights; only `forward` is another
    return network
