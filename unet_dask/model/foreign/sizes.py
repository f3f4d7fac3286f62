"""Which sizes of image pass a network, and how much of them comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask.errors import ModelError
from unet_dask.model.foreign.graph import sized

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from unet_dask.model.foreign.graph import Session

#: Sides of images that are tried first, and how much more each if none passes.
_TRIED, _MORE = (32, 64, 96, 128, 192, 256, 384, 512), range(1, 32)
#: The same of volumes, whose cost is cubic.
_TRIED_3D = (16, 32, 48, 64, 96, 128)
#: Sizes in a row among which one leaves no rest.
_LONGEST_LATTICE = 64
#: How much longer an image is that shows whether its output grows as it does.
_FAR = 32
#: The largest period of sizes that pass.
_LARGEST_PERIOD = 128


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes along one axis that pass a network.

    Attributes
    ----------
    period : of sizes that pass
    rest : what they are more than multiples of it
    least : the smallest that passes
    lost : pixels that do not come out, at least
    """

    period: int
    rest: int
    least: int
    lost: int

    def at_least(self, size: int) -> int:
        """Return the smallest size that passes and is no smaller."""
        return self.least + max(-(-(size - self.least) // self.period), 0) * self.period


class Trial:
    """Tries sizes of images, and remembers what comes out.

    Parameters
    ----------
    session : of the network
    channels : of its image
    """

    def __init__(self, session: Session, channels: int) -> None:
        self._session, self._channels = session, channels
        self._known: dict[tuple[int, ...], tuple[int, ...]] = {}
        self.reason = ""

    def output(self, shape: Iterable[int]) -> tuple[int, ...]:
        """Return the spatial size of what comes out; () if such an image does not pass."""
        shape = tuple(shape)
        if shape not in self._known:
            try:
                made = self._session.run(sized(shape, self._channels)).shape[1:]
            except ModelError as error:
                self.reason, made = str(error), ()
            self._known[shape] = made if len(made) == len(shape) and min(made) > 0 else ()
        return self._known[shape]

    def first(self, dims: int, hint: Sequence[int]) -> tuple[int, ...]:
        """Return a size that passes.

        Raises
        ------
        ModelError
            If there is none among those that are usual.
        """
        for shape in _candidates(dims, hint):
            if self.output(shape):
                return shape
        raise ModelError(f"No size of image was found that passes the network. {self.reason}")


def _candidates(dims: int, hint: Sequence[int]) -> Iterator[tuple[int, ...]]:
    if hint and min(hint) > 0:
        yield tuple(hint)
    tried = _TRIED if dims == 2 else _TRIED_3D
    for side in tried:
        yield (side,) * dims
    for side in tried:
        for more in _MORE:
            yield (side + more,) * dims


def sizes_along(trial: Trial, first: tuple[int, ...], axis: int) -> Sizes:
    """Return the sizes that pass along an axis, the others as they are.

    Raises
    ------
    ModelError
        If nothing else passes, or an output pixel is not one of the image.
    """

    def out(size: int) -> int:
        made = trial.output((*first[:axis], size, *first[axis + 1 :]))
        return made[axis] if made else 0

    size = first[axis]
    period = next((more for more in range(1, _LARGEST_PERIOD + 1) if out(size + more)), 0)
    if not period:
        raise ModelError(
            f"The network passes images of {' x '.join(map(str, first))} alone. Export it with dynamic axes."
        )
    least = size
    while least > period and out(least - period):
        least -= period
    far = size + max(-(-_FAR // period), 4) * period
    if abs((out(far) - out(size)) - (far - size)) > period:
        raise ModelError(
            f"The network makes {out(far)} pixels of {far}, and {out(size)} of {size}: its output does not lie on the "
            "pixels of the image. Let it end at the size that it began with."
        )
    return Sizes(period, size % period, least, _lost(size, period, out))


def _lost(size: int, period: int, out: Callable[[int], int]) -> int:
    """Return the pixels that do not come out, at least: of some sizes poolings leave a rest, which is not meant."""
    least = size - out(size)
    for near in range(size, size + _LONGEST_LATTICE, period):
        if least <= 0:
            break
        if out(near):
            least = min(least, near - out(near))
    return least
