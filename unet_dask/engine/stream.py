r"""One pass of the network as a stream: a tile goes through it strip by strip, along its first axis.

A pass over a whole tile keeps the feature maps of the whole tile. But an output looks no further than the halo, so a
strip of lines (of rows in 2-D, of slices in 3-D) can go through all levels as soon as it is there, if every convolution
keeps the last two lines that it saw, and every skip connection what the levels below are not yet done with::

      strip  -->  [..|strip] conv  [..|..] conv -----------------> (waiting) --> [..|..] conv  [..|..] conv  -->  logits
                                            \ pool                          / up
                                             [..|..] conv ... one level lower ...

Nothing is computed twice and every sum is the same: the logits are those of the whole pass, bit for bit where the
kernels are. The memory is that of a strip, so within the same memory tiles are many times as large, and pay so much
less for their context: 1.13 passes over a cube of 512 where whole tiles made 1.56 (decision 14).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unet_dask.engine.heap import make_room
from unet_dask.model.cost import strip_lines
from unet_dask.model.unet import layout
from unet_dask.tiling.valid import centre

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from unet_dask.model.unet import UNet

#: Lines that a convolution keeps: it is 3 wide.
_KEPT = 2


class StreamedUNet:
    """A U-Net that takes tiles of any height in the memory of a strip.

    Parameters
    ----------
    network : on the CPU, batch normalisation folded, in evaluation mode
    """

    def __init__(self, network: UNet) -> None:
        self.spec = network.spec
        self.contracting = [_convolutions(each) for each in network.contracting]
        self.pooling = network.pooling
        self.up = [_up_convolution(each) for each in network.up]
        self.expansive = [_convolutions(each) for each in network.expansive]
        self.classify = _convolution(network.classify, relu=False)
        self._dtype = network.classify.weight.dtype

    def logits(self, image: Tensor) -> Iterator[Tensor]:
        """Yield the logits of strips, (1, classes, y, x), one below the other.

        Parameters
        ----------
        image : (1, channels, y, x), or z before y; a legal input of the network, in float32
        """
        lines = int(strip_lines(self.spec, image.shape[2:], item=self._dtype.itemsize))
        passing = _Passing(self)
        for start, stop in _strips(image.shape[2], lines, self.spec.stride[0]):
            strip = image[:, :, start:stop].to(self._dtype)
            made = passing.push(strip.contiguous(memory_format=layout(self.spec.dims)))
            if made is not None:
                yield made


class _Passing:
    """A tile on its way through a network.

    Parameters
    ----------
    through : the network
    """

    def __init__(self, through: StreamedUNet) -> None:
        depth = through.spec.depth
        self._through = through
        self._contracting = [[_Window(each) for each in double] for double in through.contracting]
        self._expansive = [[_Window(each) for each in double] for double in through.expansive]
        self._waiting = [_Waiting(centre(depth, level)) for level in range(depth)]

    def push(self, strip: Tensor) -> Tensor | None:
        """Return the logits that a strip completes; None if there are none."""
        # Whatever is done with is in no variable here: the next convolution needs its memory.
        beside = [[strip]]
        del strip
        for level, double in enumerate(self._contracting):
            features = _through(double, beside)
            if features is None:
                return None
            if level < len(self._waiting):
                self._waiting[level].put(features)
                features = self._through.pooling(features)
            beside = [[features]]
            del features
        for up, double, waiting in zip(
            self._through.up, self._expansive, reversed(self._waiting), strict=True
        ):
            corners = up(beside.pop().pop())
            beside = [waiting.take(corners.shape[2]), [corners]]
            del corners
            features = _through(double, beside)
            if features is None:
                return None
            beside = [[features]]
            del features
        return self._through.classify(beside.pop().pop())


class _Window:
    """What a convolution looks at: the last lines that it saw, and new ones below.

    Parameters
    ----------
    convolution : 3 wide, without padding
    """

    def __init__(self, convolution: Callable[[Tensor], Tensor]) -> None:
        self._convolution = convolution
        self._kept: Tensor | None = None

    def push(self, beside: list[list[Tensor]]) -> Tensor | None:
        """Return the lines of the convolution that new lines complete; None if there are none.

        Parameters
        ----------
        beside : channels side by side, each in pieces that lie one below the other; emptied, for their memory is needed
        """
        window = self._window(beside)
        beside.clear()
        if window.shape[2] <= _KEPT:
            self._kept = window
            return None
        self._kept = window[:, :, -_KEPT:].clone()
        return self._convolution(window)

    def _window(self, beside: Sequence[Sequence[Tensor]]) -> Tensor:
        """Return what was kept and what is new, in one piece."""
        kept = 0 if self._kept is None else self._kept.shape[2]
        like = beside[-1][0]
        if not kept and len(beside) == len(beside[0]) == 1:
            return like
        channels = sum(pieces[0].shape[1] for pieces in beside)
        lines = kept + sum(piece.shape[2] for piece in beside[0])
        across = like.shape[3:]
        make_room(like.element_size() * channels * lines * across.numel())
        # torch.cat takes up to three times as long to put channels last side by side.
        window = like.new_empty((1, lines, *across, channels)).movedim(-1, 1)
        if self._kept is not None:
            window[:, :, :kept] = self._kept
        first = 0
        for pieces in beside:
            line, after = kept, first + pieces[0].shape[1]
            for piece in pieces:
                window[:, first:after, line : line + piece.shape[2]] = piece
                line += piece.shape[2]
            first = after
        return window


class _Waiting:
    """Lines of a skip connection that wait for those from below, which come later and are fewer (N2).

    Parameters
    ----------
    margin : lines, and columns, at each end that nothing comes back for
    """

    def __init__(self, margin: int) -> None:
        self._margin = self._early = margin
        self._pieces: list[Tensor] = []

    def put(self, features: Tensor) -> None:
        """Let the middle of some lines wait."""
        early = min(self._early, features.shape[2])
        self._early -= early
        features = features[:, :, early:]
        for axis in range(3, features.dim()):
            features = features.narrow(axis, self._margin, features.shape[axis] - 2 * self._margin)
        if features.shape[2]:
            self._pieces.append(features)

    def take(self, lines: int) -> list[Tensor]:
        """Return the lines that have waited longest, in pieces."""
        taken = []
        while lines:
            piece = self._pieces.pop(0)
            if piece.shape[2] > lines:
                self._pieces.insert(0, piece[:, :, lines:])
                piece = piece[:, :, :lines]
            taken.append(piece)
            lines -= piece.shape[2]
        return taken


def _through(double: Sequence[_Window], beside: list[list[Tensor]]) -> Tensor | None:
    """Return what two convolutions make of new lines; None if it is nothing. What they are given is emptied."""
    first, second = double
    made = first.push(beside)
    if made is None:
        return None
    beside.append([made])
    del made
    return second.push(beside)


def _strips(length: int, lines: int, stride: int) -> Iterator[tuple[int, int]]:
    """Yield the strips of an image: after each, every pooling has seen an even number of lines (N4).

    The first is 4 lines short of a multiple of the stride, as are all legal inputs; the others are multiples.
    """
    start, stop = 0, lines - 4 % stride
    while start < length:
        yield start, min(stop, length)
        start, stop = stop, stop + lines


def _convolutions(double: nn.Module) -> list[Callable[[Tensor], Tensor]]:
    """Return the two convolutions of a level with their ReLUs."""
    return [
        _convolution(each, relu=True)
        for each in double.children()
        if not isinstance(each, nn.ReLU | nn.Identity)
    ]


def _convolution(module: nn.Module, *, relu: bool) -> Callable[[Tensor], Tensor]:
    """Return a convolution, with its ReLU within it where oneDNN is there.

    Its filters are put in the order of the kernels once; by itself torch does so for every strip.
    """
    channels = len(module.weight)  # type: ignore[arg-type] # the weights of a convolution are a tensor
    if not (isinstance(module, nn.Conv2d | nn.Conv3d) and _onednn()):

        def plain(features: Tensor) -> Tensor:
            _make_room(features, channels)
            made: Tensor = module(features)
            return made.relu_() if relu else made

        return plain
    none, one = [0] * (module.weight.dim() - 2), [1] * (module.weight.dim() - 2)
    weight = torch.ops.mkldnn._reorder_convolution_weight(module.weight, none, one, one, 1)  # noqa: SLF001 # its only name
    bias, unary = module.bias, "relu" if relu else "none"

    def packed(features: Tensor) -> Tensor:
        _make_room(features, channels)
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(  # noqa: SLF001 # its only name
            features, weight, bias, none, one, one, 1, unary, [], ""
        )
        return made

    return packed


def _up_convolution(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return an up-convolution (N1), packed in the same way."""
    assert isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d)
    dims = module.weight.dim() - 2
    channels = module.out_channels << dims
    if not _onednn():

        def plain(features: Tensor) -> Tensor:
            _make_room(features, channels)
            made: Tensor = module(features)
            return made

        return plain
    none, one, two = [0] * dims, [1] * dims, [2] * dims
    weight = torch.ops.mkldnn._reorder_convolution_transpose_weight(module.weight, none, none, two, one, 1)  # noqa: SLF001 # its only name
    bias = module.bias

    def packed(features: Tensor) -> Tensor:
        _make_room(features, channels)
        made: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(  # noqa: SLF001 # its only name
            features, weight, bias, none, none, two, one, 1, "none", [], ""
        )
        return made

    return packed


def _make_room(features: Tensor, channels: int) -> None:
    """See that there is room for what so many channels make of feature maps."""
    make_room(features[0, 0].nbytes * channels)


def _onednn() -> bool:
    """Return whether oneDNN is there, with the convolutions whose weights are put in order beforehand."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")  # type: ignore[no-untyped-call] # torch has no type for it
