r"""One pass of the network as a stream: a tile goes through it strip by strip, along its first axis.

A pass over a whole tile keeps the feature maps of the whole tile. But an output looks no further than the halo, so a
strip of lines (of rows in 2-D, of slices in 3-D) can go through all levels as soon as it is there, if every convolution
keeps the last two lines that it saw, and every skip connection what the levels below are not yet done with::

      strip  -->  [..|strip] conv  [..|..] conv -----------------> (waiting) --> [..|..] conv  [..|..] conv  -->  logits
                                            \ pool                          / up
                                             [..|..] conv ... one level lower ...

Nothing is computed twice and every sum is the same: the logits are those of the whole pass. The memory is that of a
strip, so within the same memory tiles are many times as large, and pay so much less for their context: 1.13 passes over
a cube of 512 where whole tiles made 1.56 (decision 14).

What goes from one convolution to the next is moved as little as can be. Pooling and up-convolution write into the
window that the next convolution reads. The second convolution of a level has nobody before it who could: it reads its
lines where they are, but for the first two of what it makes, which look at what was kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from unet_dask.engine.heap import make_room
from unet_dask.model.layers import margins, steps
from unet_dask.model.network import layout
from unet_dask.model.step import Kind
from unet_dask.model.strips import beside_pooling, strip_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from unet_dask.model.header import NetworkSpec
    from unet_dask.model.step import Step
    from unet_dask.tiling.valid import Context

    #: Makes pieces of pieces, which it empties.
    Stage = Callable[[list[Tensor]], list[Tensor]]

#: Lines that a convolution keeps: it is 3 wide.
_KEPT = 2


class Convolution(Protocol):
    """A convolution without padding, with what follows it: a ReLU, or nothing.

    Attributes
    ----------
    incoming, outgoing : channels that it reads, and values that it makes of a pixel
    filter_bytes : of its filters
    """

    incoming: int
    outgoing: int
    filter_bytes: int

    def __call__(self, features: Tensor) -> Tensor:
        """Return (1, outgoing, y - 2, x - 2) for (1, incoming, y, x), or as large as it was where it is 1 wide."""
        ...


@dataclass(frozen=True, slots=True)
class Layers:
    """A network, each of its convolutions with the ReLU in which it ends.

    Attributes
    ----------
    spec : of the network
    reads, holds : numbers of the image and of feature maps
    convolutions : one for each step that multiplies, in the order of a pass; an up-convolution (N2) may be one that is
        1 wide and makes all corners of a pixel, channels within corners
    """

    spec: NetworkSpec
    reads: torch.dtype
    holds: torch.dtype
    convolutions: Sequence[Convolution]


def streamed(
    layers: Layers, tile: NDArray[np.float32], watch: Callable[[Convolution, Tensor], None] | None = None
) -> NDArray[np.float32]:
    """Return float32 logits of (classes, *core) for a normalised tile that goes through the network in strips.

    Parameters
    ----------
    layers : of the network
    tile : (c, *input)
    watch : called with every convolution and what it made
    """
    spec, line = layers.spec, 0
    core = [side - 2 * halo for side, halo in zip(tile.shape[1:], spec.halo, strict=True)]
    logits = np.empty((spec.classes, *core), np.float32)
    for strip in _logits(layers, torch.from_numpy(tile)[None], watch or _look_away):
        torch.from_numpy(logits[:, line : line + strip.shape[2]]).copy_(strip[0])
        line += strip.shape[2]
    return logits


def _logits(layers: Layers, image: Tensor, watch: Callable[[Convolution, Tensor], None]) -> Iterator[Tensor]:
    """Yield the logits of an image, (1, classes, y, x), one below the other."""
    spec = layers.spec
    lines = int(strip_lines(spec, image.shape[2:], item=layers.holds.itemsize))
    # Whoever holds the stages holds what they keep: nothing may lead back to them, or it stays after the tile.
    stages = list(_Passing(watch).stages(spec, iter(layers.convolutions)))
    for start, stop in _strips(image.shape[2], lines, spec.contexts[0]):
        # The tile is there as a whole: what the first convolution saw last need not be kept.
        strip = image[:, :, max(start - _KEPT, 0) : stop]
        if strip.shape[2] > _KEPT:
            pieces = [strip.to(layers.reads).contiguous(memory_format=layout(spec.dims))]
            del strip
            yield from _through(stages, pieces)


def _through(stages: Sequence[Stage], pieces: list[Tensor]) -> list[Tensor]:
    """Return the logits that a strip completes, in pieces one below the other; empty what is given."""
    for stage in stages:
        if not pieces:
            break
        pieces = stage(pieces)
    return pieces


class _Passing:
    """What is done with a tile on its way through a network.

    Parameters
    ----------
    watch : called with every convolution and what it made
    """

    def __init__(self, watch: Callable[[Convolution, Tensor], None]) -> None:
        self._watch = watch

    def stages(self, spec: NetworkSpec, convolutions: Iterator[Convolution]) -> Iterator[Stage]:
        """Yield what is done with the pieces of a strip, one after the other."""
        yield partial(self._where_it_is, next(convolutions))
        margin, waiting = iter(margins(spec)), list[_Waiting]()
        for before, step in pairwise(step for step in steps(spec) if step.kind is not Kind.DROP):
            if step.kind is Kind.POOL:
                waiting.append(_Waiting(next(margin)))
                yield partial(self._down, step.size, waiting[-1], _Window(next(convolutions)))
            elif step.kind is Kind.JOIN:
                up = next(convolutions)
                yield partial(self._up, before, up, waiting.pop(), _Window(next(convolutions)))
            elif step.kind is Kind.HEAD:
                yield partial(self._where_it_is, next(convolutions))
            elif step.kind == before.kind:
                yield partial(self._second, _Window(next(convolutions)))

    def _made(self, convolution: Convolution, features: Tensor) -> Tensor:
        make_room(features[0, 0].nbytes * convolution.outgoing)
        made = convolution(features)
        self._watch(convolution, made)
        return made

    def _down(
        self, factors: tuple[int, ...], waiting: _Waiting, window: _Window, pieces: list[Tensor]
    ) -> list[Tensor]:
        """Return what the first convolution of the next level makes of pooled pieces, which then wait."""
        _pool(pieces, window, factors)
        waiting.put(pieces)
        return self._first(window)

    def _up(
        self, step: Step, up: Convolution, waiting: _Waiting, window: _Window, pieces: list[Tensor]
    ) -> list[Tensor]:
        """Return what the first convolution makes of what has waited and what comes from below, side by side."""
        self._join(pieces, step, up, waiting, window)
        return self._first(window)

    def _where_it_is(self, convolution: Convolution, pieces: list[Tensor]) -> list[Tensor]:
        """Return what a convolution makes of each piece by itself: of the image, and where it is 1 wide."""
        return [self._made(convolution, pieces.pop(0)) for _ in range(len(pieces))]

    def _first(self, window: _Window) -> list[Tensor]:
        """Return what the first convolution of a level makes of its window, which is full."""
        features = window.taken()
        return [] if features is None else [self._made(window.convolution, features)]

    def _second(self, window: _Window, pieces: list[Tensor]) -> list[Tensor]:
        """Return what the second convolution of a level makes of the one piece that the first made, and empty it."""
        features = pieces.pop()
        if window.small(features):
            window.opened(features.shape[2:], features)[...] = features
            del features
            return self._first(window)
        made = []
        if window.keeps:
            window.opened((_KEPT, *features.shape[3:]), features)[...] = features[:, :, :_KEPT]
            made += self._first(window)
        window.keep(features)
        return [*made, self._made(window.convolution, features)]

    def _join(
        self, pieces: list[Tensor], step: Step, up: Convolution, waiting: _Waiting, window: _Window
    ) -> None:
        """Put side by side what has waited and what comes from below, of which every pixel is many (N2); empty it."""
        lines, *across = step.size
        sides = [lines * sum(piece.shape[2] for piece in pieces)]
        sides += [factor * side for factor, side in zip(across, pieces[0].shape[3:], strict=True)]
        room, line = window.opened(sides, pieces[0]), 0
        width = window.convolution.incoming - step.outgoing
        for skipped in waiting.take(sides[0]):
            room[:, :width, line : line + skipped.shape[2]] = skipped
            line += skipped.shape[2]
        line = 0
        while pieces:
            below = line + lines * pieces[0].shape[2]
            _place(self._made(up, pieces.pop(0)), room[:, width:, line:below], step.size)
            line = below


class _Window:
    """What a convolution looks at: the last lines that it saw, and below them room for new ones.

    Parameters
    ----------
    convolution : 3 wide, without padding
    """

    def __init__(self, convolution: Convolution) -> None:
        self.convolution = convolution
        self._kept: Tensor | None = None
        self._window: Tensor | None = None

    @property
    def keeps(self) -> bool:
        """Whether lines were kept."""
        return self._kept is not None

    def opened(self, sides: Sequence[int], like: Tensor) -> Tensor:
        """Return room for new lines below those that were kept, (1, channels, *sides), to be written to."""
        channels, (lines, *across) = self.convolution.incoming, sides
        kept = 0 if self._kept is None else self._kept.shape[2]
        make_room(like.element_size() * channels * (kept + lines) * math.prod(across))
        self._window = like.new_empty((1, kept + lines, *across, channels)).movedim(-1, 1)
        if self._kept is not None:
            self._window[:, :, :kept] = self._kept
        return self._window[:, :, kept:]

    def taken(self) -> Tensor | None:
        """Return all that the convolution looks at; None where it would make nothing of it yet."""
        assert self._window is not None
        window, self._window = self._window, None
        if window.shape[2] <= _KEPT:
            self._kept = window
            return None
        self.keep(window)
        return window

    def keep(self, features: Tensor) -> None:
        """Keep the last lines for the next strip."""
        self._kept = features[:, :, -_KEPT:].clone()

    def small(self, features: Tensor) -> bool:
        """Return whether it is cheaper to move new lines than to read the filters once more for the first of them."""
        return features.shape[2] <= _KEPT or (self.keeps and features.nbytes < self.convolution.filter_bytes)


class _Waiting:
    """Lines of a skip connection that wait for those from below, which come later and are fewer (N2).

    Parameters
    ----------
    margins : lines, and pixels along the other axes, at each end that nothing comes back for
    """

    def __init__(self, margins: Sequence[int]) -> None:
        self._early, *self._across = margins
        self._pieces: list[Tensor] = []

    def put(self, pieces: list[Tensor]) -> None:
        """Let the middle of some lines wait; what is put is emptied."""
        while pieces:
            features = pieces.pop(0)
            early = min(self._early, features.shape[2])
            self._early -= early
            features = features[:, :, early:]
            for axis, margin in enumerate(self._across, 3):
                features = features.narrow(axis, margin, features.shape[axis] - 2 * margin)
            if features.shape[2]:
                self._pieces.append(features)

    def take(self, lines: int) -> Iterator[Tensor]:
        """Yield the lines that have waited longest, in pieces."""
        while lines:
            piece = self._pieces.pop(0)
            if piece.shape[2] > lines:
                self._pieces.insert(0, piece[:, :, lines:])
                piece = piece[:, :, :lines]
            lines -= piece.shape[2]
            yield piece


def _look_away(_: Convolution, __: Tensor) -> None:
    """Do nothing with what a convolution made."""


def _pool(pieces: Sequence[Tensor], window: _Window, factors: Sequence[int]) -> None:
    """Write the largest of every window of pixels (N1) where the next convolution looks."""
    lines, *across = factors
    sides = [sum(piece.shape[2] for piece in pieces) // lines]
    sides += [side // factor for factor, side in zip(across, pieces[0].shape[3:], strict=True)]
    room, line = window.opened(sides, pieces[0]), 0
    for piece in pieces:
        below = line + piece.shape[2] // lines
        _largest(piece, room[:, :, line:below], factors)
        line = below


def _largest(features: Tensor, out: Tensor, factors: Sequence[int]) -> None:
    """Write the largest of every window of pixels; torch's own pooling looks for their places too."""
    make_room(features.element_size() * beside_pooling(features.numel(), factors))
    pooled = [(axis, factor) for axis, factor in enumerate(factors, 2) if factor > 1]
    for axis, factor in pooled:
        # Of no side anything is left over: every pooling sees whole windows (N4).
        first, second, *others = (
            features[(slice(None),) * axis + (slice(start, None, factor),)] for start in range(factor)
        )
        last = axis == pooled[-1][0]
        features = torch.maximum(first, second, out=out) if last else torch.maximum(first, second)
        for other in others:
            torch.maximum(features, other, out=features)


def _place(corners: Tensor, room: Tensor, factors: Sequence[int]) -> None:
    """Write the corners of every pixel to their places: (1, 4 f, y, x) to (1, f, 2 y, 2 x); or what is there."""
    if corners.shape == room.shape:
        room.copy_(corners)
        return
    sides, dims = corners.shape[2:], corners.dim() - 2
    apart = room.movedim(1, -1)
    for axis in reversed(range(dims)):
        apart = apart.unflatten(1 + axis, (sides[axis], factors[axis]))  # type: ignore[no-untyped-call] # torch's own
    order = [0, *(1 + axis + part * dims for axis in range(dims) for part in (0, 1)), 1 + 2 * dims]
    placed = corners.movedim(1, -1).unflatten(-1, (*factors, -1))  # type: ignore[no-untyped-call] # torch's own
    apart.copy_(placed.permute(order))


def _strips(length: int, lines: int, context: Context) -> Iterator[tuple[int, int]]:
    """Yield the strips of an image: after each, every pooling has seen whole windows (N4).

    The first is as much short of a multiple of the stride as all legal inputs are; the others are multiples.
    """
    start, stop = 0, lines - -(context.slack + 2 * context.halo) % context.stride
    while start < length:
        yield start, min(stop, length)
        start, stop = stop, stop + lines
