"""From a map to objects: thresholds, and borders thinned to a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Thresholds of a sweep. The challenge's evaluation goes from 0.0 to 1.0 in steps of 0.1 (Arganda-Carreras et al.
#: 2015); "greater than 0" makes nearly all of a soft-max output foreground and "greater than 1" nothing, so these
#: nine are the ones that say something.
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def thinned(foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask whose borders, all that is not foreground, are thinned to lines of 1 pixel.

    The width of borders then plays no part in V_rand and V_info (Arganda-Carreras et al. 2015, Front. Neuroanat.
    9:142). Thinning by `skimage.morphology.skeletonize` keeps the 8-connected topology of the borders, so it
    joins no two 4-connected objects. Lines draw back from where they end, by half their width, and would draw back
    from the edge of the image too, which joins the objects on both sides; so the image is continued first, by
    repeating its edge, as far as the widest border that meets the edge.

    Parameters
    ----------
    foreground : (y, x)

    Examples
    --------
    >>> wide = np.array([[1, 1, 0, 0, 0, 1, 1]] * 5, bool)
    >>> (~thinned(wide)).sum(axis=1).tolist()
    [1, 1, 1, 1, 1]
    """
    from skimage.morphology import skeletonize

    if not foreground.size:
        return foreground
    border = ~foreground
    margin = min(_longest_run(border) // 2 + 2, max(border.shape))
    skeleton: NDArray[np.bool_] = skeletonize(np.pad(border, margin, mode="edge"))
    return ~skeleton[margin:-margin, margin:-margin]


def _longest_run(border: NDArray[np.bool_]) -> int:
    """Return the length of the longest piece of border along the edge of the image, around its corners too."""
    edge = np.concatenate([border[0], border[:, -1], border[-1, ::-1], border[::-1, 0]])
    gaps = np.flatnonzero(~edge)
    if not gaps.size:
        return edge.size
    return (
        int(np.diff(gaps, append=gaps[0] + edge.size).max()) - 1
    )  # the edge is a ring: its last piece goes on
