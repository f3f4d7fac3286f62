"""A window of a source that nobody has read yet: cut and joined like an array, and read where it is used.

Dask cuts a volume into blocks and `map_overlap` completes each with context from its neighbours. On values, that
moves every piece of context between tasks and workers. On windows that are not read yet it is arithmetic: what
comes out is the window that a region needs, and the worker that needs it reads it at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.errors import GeometryError
from unet_dask.io.source.window import SourceSpec, read_stamped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LazyWindow:
    """A window of a source that looks like an array.

    Attributes
    ----------
    spec : of the source
    window : (start, stop) per canonical axis
    dtype : of its values
    run : name of the run that it is read in, see `read_window`
    """

    spec: SourceSpec
    window: tuple[tuple[int, int], ...]
    dtype: np.dtype[np.generic]
    run: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size per axis."""
        return tuple(stop - start for start, stop in self.window)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.window)

    def __getitem__(self, parts: tuple[slice, ...]) -> LazyWindow:
        """Return a part of the window; nothing is read."""
        window = []
        for (start, stop), part in zip(self.window, parts, strict=True):
            first, last, _ = part.indices(stop - start)
            window.append((start + first, start + max(first, last)))
        return replace(self, window=tuple(window))

    def __array_function__(self, function: object, types: object, args: Any, kwargs: Any) -> LazyWindow:
        """Join windows where NumPy's protocol (NEP 18) asks for it, as Dask does; nothing else can be done."""
        return _join(*args, **kwargs) if function is np.concatenate else NotImplemented

    def read(self) -> NDArray[np.generic]:
        """Return the values, as `read_window` does."""
        return self.read_stamped()[0]

    def read_stamped(self) -> tuple[NDArray[np.generic], str]:
        """Return the values and a stamp of the files that hold them, as `read_stamped` does."""
        return read_stamped(self.spec, tuple(slice(start, stop) for start, stop in self.window), run=self.run)


def _join(windows: Sequence[LazyWindow], axis: int = 0) -> LazyWindow:
    """Return the window that neighbours along an axis make together.

    Raises
    ------
    GeometryError
        If they do not follow each other, or differ along another axis.
    """
    first, last = windows[0].window, windows[-1].window
    whole = (*first[:axis], (first[axis][0], last[axis][1]), *first[axis + 1 :])
    place = first[axis][0]
    for each in windows:
        if each.window != (*first[:axis], (place, each.window[axis][1]), *first[axis + 1 :]):
            raise GeometryError(
                f"The window {each.window} does not continue another at {place} of axis {axis}."
            )
        place = each.window[axis][1]
    return replace(windows[0], window=whole)
