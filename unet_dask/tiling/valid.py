r"""Size arithmetic of valid convolutions on a pooling lattice, one axis at a time.

What a network consumes along an axis follows from its list of steps (`model.layers`): a context on each side, and a
lattice, because poolings look at whole windows. One axis of one forward pass looks like this::

      |<----- halo ----->|<---------- core ---------->|slack|<----- halo ----->|
      |                  |  output of the network           |                  |
      |<-------------------------- input ------------------------------------>|

The network returns ``core + slack`` samples, of which the tile keeps the core. A legal output size need not be a
multiple of the stride (388 = 4 mod 16 in [1]_), so a tile that stepped by its whole output would leave the pooling
lattice at once and tiled would no longer equal whole. Cores *are* multiples, the slack is computed and discarded, and
every core begins on the lattice of the volume.

References
----------
.. [1] Ronneberger, Fischer, Brox: "U-Net", MICCAI 2015, Fig. 1: 572 -> 388, four poolings.
.. [2] Cicek et al.: "3D U-Net", MICCAI 2016, Fig. 2: 132 -> 44, three poolings.
"""

from __future__ import annotations

from dataclasses import dataclass

from unet_dask.errors import GeometryError


@dataclass(frozen=True, slots=True)
class Context:
    """What a network consumes along one axis.

    Attributes
    ----------
    halo : samples of context per side
    stride : period of the pooling lattice, in samples
    slack : samples computed beyond a core on the lattice

    Examples
    --------
    >>> paper = Context(halo=92, stride=16, slack=4)
    >>> paper.input_size(384)  # 572 in, 388 out, of which 384 stay on the lattice
    572
    >>> paper.output_size(572)
    388
    """

    halo: int = 0
    stride: int = 1
    slack: int = 0

    def input_size(self, core: int) -> int:
        """Return the samples to feed for an output of `core` samples, a multiple of the stride.

        Raises
        ------
        GeometryError
            If `core` is not a positive multiple of the stride.
        """
        if core < 1 or core % self.stride:
            raise GeometryError(
                f"A tile of {core} samples does not fit the network's poolings. "
                f"Use a multiple of {self.stride}, such as {aligned(max(core, 1), self.stride)}."
            )
        return core + self.slack + 2 * self.halo

    def output_size(self, size: int) -> int:
        """Return the samples that come out when `size` samples are fed (paper, N4).

        Raises
        ------
        GeometryError
            If some pooling would see a part of a window, or nothing would come out.
        """
        core = size - self.slack - 2 * self.halo
        if core % self.stride or size <= 2 * self.halo:
            lower = 2 * self.halo + (self.slack or self.stride)
            legal = lower + aligned(max(size - lower, 0), self.stride)
            raise GeometryError(
                f"An input of {size} samples does not pass the network: every pooling must see whole windows and "
                f"something must come out. Use {legal}."
            )
        return size - 2 * self.halo


def aligned(size: int, step: int) -> int:
    """Return the smallest multiple of `step` that is at least `size`.

    Examples
    --------
    >>> aligned(33, 16), aligned(32, 16)
    (48, 32)
    """
    return -(-size // step) * step
