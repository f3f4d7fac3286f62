r"""Size arithmetic of the valid-convolution U-Net, one axis at a time.

Everything here follows from three facts of the paper's Fig. 1: two unpadded 3-wide convolutions per
level, pooling by two, `depth` poolings. One axis of one forward pass looks like this::

      |<----- halo ----->|<---------- core ---------->|slack|<----- halo ----->|
      |                  |  output of the network           |                  |
      |<-------------------------- input ------------------------------------>|

The network returns ``core + slack`` samples, of which the tile keeps the core. A legal output size is
never a multiple of ``2**depth`` (388 = 4 mod 16), so a tile that stepped by its whole output would leave
the pooling lattice at once and tiled would no longer equal whole. Cores *are* multiples, the slack is
computed and discarded, and every core begins on the lattice of the volume.

References
----------
.. [1] Ronneberger, Fischer, Brox: "U-Net", MICCAI 2015, Fig. 1: 572 -> 388, depth 4.
.. [2] Cicek et al.: "3D U-Net", MICCAI 2016, Fig. 2: 132 -> 44, depth 3.
"""

from __future__ import annotations

from unet_dask.errors import GeometryError


def halo(depth: int) -> int:
    """Return the context that the network consumes on each side.

    Two unpadded 3-wide convolutions per level shave 4 samples of that level [1]_. Measured in
    input samples and summed down and up again this is ``6 * 2**depth - 4``.

    Parameters
    ----------
    depth : number of poolings, at least 1

    Returns
    -------
    samples, per side

    Raises
    ------
    GeometryError
        If `depth` is less than 1.

    References
    ----------
    .. [1] Ronneberger et al., "U-Net", MICCAI 2015, Fig. 1: 572 - 388 = 2 * 92.

    Examples
    --------
    >>> halo(4), halo(3)
    (92, 44)
    """
    return 6 * stride(depth) - 4


def centre(depth: int, level: int) -> int:
    """Return the samples of a level that its skip connection crops at each end (paper, N2).

    The levels below consume ``halo(depth - level - 1)`` samples of theirs, each two of this one.

    Examples
    --------
    >>> [centre(4, level) for level in range(4)]  # 568 -> 392, 280 -> 200, 136 -> 104, 64 -> 56 in Fig. 1
    [88, 40, 16, 4]
    """
    return 6 * stride(depth - level) - 8


def stride(depth: int) -> int:
    """Return the period of the pooling lattice in samples, ``2**depth``.

    Examples
    --------
    >>> stride(4)
    16
    """
    if depth < 1:
        raise GeometryError(f"A U-Net needs at least one pooling, but depth is {depth}. Use 1 to 6.")
    return 1 << depth


def slack(depth: int) -> int:
    """Return how many samples the network computes beyond a core that is a multiple of the stride.

    Examples
    --------
    >>> slack(4), slack(3), slack(2)
    (4, 4, 0)
    """
    return (-2 * halo(depth) + 4 * (stride(depth) - 1)) % stride(depth)


def input_size(core: int, depth: int) -> int:
    """Return the samples to feed for an output of `core` samples, a multiple of the stride.

    Raises
    ------
    GeometryError
        If `core` is not a positive multiple of the stride.

    Examples
    --------
    >>> input_size(384, 4)  # the paper's tile: 572 in, 388 out, of which 384 stay on the lattice
    572
    """
    if core < 1 or core % stride(depth):
        raise GeometryError(
            f"A tile of {core} samples is not on the pooling lattice of a network of depth {depth}. "
            f"Use a multiple of {stride(depth)}, such as {aligned(max(core, 1), stride(depth))}."
        )
    return core + slack(depth) + 2 * halo(depth)


def output_size(size: int, depth: int) -> int:
    """Return the samples that come out when `size` samples are fed (paper, N4).

    Raises
    ------
    GeometryError
        If some pooling would see an odd size, or nothing would come out.

    Examples
    --------
    >>> output_size(572, 4), output_size(132, 3)
    (388, 44)
    """
    step = stride(depth)
    if (size - 4 * (step - 1)) % step or size <= 2 * halo(depth):
        lower = 2 * halo(depth) + (slack(depth) or step)
        legal = lower + aligned(max(size - lower, 0), step)
        raise GeometryError(
            f"An input of {size} samples does not pass a network of depth {depth}: every pooling must see "
            f"an even size and something must come out. Use {legal}."
        )
    return size - 2 * halo(depth)


def aligned(size: int, step: int) -> int:
    """Return the smallest multiple of `step` that is at least `size`.

    Examples
    --------
    >>> aligned(33, 16), aligned(32, 16)
    (48, 32)
    """
    return -(-size // step) * step
