"""Random boxes recomputed from the source, on tiles that lie elsewhere than those of the run.

A checksum proves that what was written is still there, not that it was right. So a few boxes are run again through
the task of a run, each as a region of its own with one tile that begins at another point of the pooling lattice and
has another size. A result without seams does not depend on that, up to rounding.

In float32 by torch two tilings differ by rounding of the last bits: 1e-5 in a probability is the bound of the
project's own tests. In reduced precision, or by another backend, a crop is run like that as well. The stored values and
the recomputed ones lie about as far from it as each other; so stored values may lie twice as far from it as the
farthest recomputed one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from unet_dask.axes import has_channel, is_channel
from unet_dask.choices import Device, Precision
from unet_dask.engine.cache import NetworkKey
from unet_dask.engine.device import choose_device, multiplies
from unet_dask.engine.infer import Counter
from unet_dask.errors import DataError, OptionError, UnetDaskError
from unet_dask.graph import RegionTask
from unet_dask.io.source.volume import read_window
from unet_dask.model.cost import pass_bytes
from unet_dask.model.header import Normalisation
from unet_dask.planning.arithmetic import Arithmetic
from unet_dask.products.probabilities import Probabilities
from unet_dask.products.product import ROUNDING
from unet_dask.tiling.region import AxisGrid, RegionGrid
from unet_dask.tiling.valid import Context, aligned
from unet_dask.verify.finding import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.tiling.box import Box
    from unet_dask.verify.reopen import Origin
    from unet_dask.verify.stored import Stored

#: Side of a crop, as far as its feature maps fit: of 2-D and 3-D networks.
_SIDES = {2: 192, 3: 64}
_ACTIVATION_BYTES = 1 << 30

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one crop.

    Attributes
    ----------
    findings : what differs
    notes : why it was not recomputed
    recomputed : whether it was
    """

    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    recomputed: bool = False


def draw(stored: Stored, origin: Origin, random: np.random.Generator) -> RegionGrid:
    """Return a random box as a grid of one region, with one tile that is not one of the run's.

    Half of the crops lie across an edge of the run's regions, where there is one: that is where errors would be.
    """
    network = origin.model.header.network
    across = bool(random.integers(2))
    first = len(stored.grid.axes) - stored.dims
    side = _side(stored, origin)
    grids = []
    for axis, (name, whole) in enumerate(zip(stored.grid.axes, stored.grid.grids, strict=True)):
        if is_channel(name):
            grids.append(whole)
            continue
        length = min(side if axis >= first else 1, whole.stop - whole.start)
        start = int(random.integers(whole.start, whole.stop - length + 1))
        inner = whole.edges[1:-1]
        if across and axis >= first and inner:
            start = int(random.choice(inner)) - length // 2
            start = min(max(start, whole.start), whole.stop - length)
        if axis < first:
            grids.append(AxisGrid(whole.size, start, start + 1, 1, 1, Context()))
            continue
        stride = network.stride[axis - first]
        core = aligned(start % stride + length, stride)
        core += stride if core == whole.core else 0
        context = network.contexts[axis - first]
        grids.append(AxisGrid(whole.size, start, start + length, length, core, context))
    return RegionGrid(stored.grid.axes, tuple(grids))


def _side(stored: Stored, origin: Origin) -> int:
    """Return the side of a crop, halved until feature maps and probabilities of its tile fit."""
    network = origin.model.header.network
    side = _SIDES[stored.dims]
    while side > max(network.stride):
        tile = [side + context.stride + context.slack + 2 * context.halo for context in network.contexts]
        if pass_bytes(network, tile, item=4) <= _ACTIVATION_BYTES:
            break
        side //= 2
    return side


def unable(stored: Stored) -> str:
    """Return why this machine cannot recompute crops of a run, "" if it can.

    How far rounding in the run's precision may lead is measured by running it: float32 alone would not tell.
    """
    plan = stored.manifest.plan
    device, precision = _device(plan.device)[0], plan.precision
    if multiplies(precision, device):
        return ""
    what = "GPU" if device == Device.CUDA else "processor"
    return f"the run was in {precision}, which this {what} does not have; verify where there is one that has"


def recompute(stored: Stored, origin: Origin, grid: RegionGrid) -> Outcome:
    """Run the network on a crop again, and compare what is stored there."""
    plan = stored.manifest.plan
    box = grid.whole
    device, notes = _device(plan.device)
    try:
        theirs = Arithmetic(device, plan.precision, stored.manifest.settings.backend)
        counter = Counter()
        made = in_float32 = _probabilities(stored, origin, grid, theirs, counter)
        if counter.float32_fallbacks:
            # Whether a tile is for bytes is decided tile by tile, and the run's were others.
            return Outcome(
                notes=(f"crop {box.in_space_and_time.text} not recomputed: bytes cannot say what it holds",)
            )
        if theirs != Arithmetic(device):
            in_float32 = _probabilities(stored, origin, grid, Arithmetic(device))
    except (DataError, OptionError, RuntimeError) as error:
        reason = str(error) if isinstance(error, UnetDaskError) else type(error).__name__
        return Outcome(notes=(f"crop {box.in_space_and_time.text} not recomputed: {reason}",))
    tolerance = ROUNDING + 2 * float(np.abs(made - in_float32).max())
    probabilities = _classes_first(in_float32, stored.grid.axes)
    findings = []
    for array in stored.arrays:
        place = array.box(box.relative_to(stored.grid.whole))
        try:
            found = stored.read(array.name, 0, place)
        except Exception:  # noqa: S112 # the checksums have said so
            continue
        different = array.product.differences(_classes_first(found, array.axes), probabilities, tolerance)
        if different and different[0]:
            wrong, what = different
            text = (
                f"{wrong} of {found.size} values are not those that the network gives on other tiles ({what})"
            )
            keys = tuple((0, index) for index in _regions(stored, box))
            findings.append(Finding("crop", text, array.name, 0, stored.shown(0, place), keys))
    return Outcome(tuple(findings), notes, recomputed=True)


def _device(wished: str) -> tuple[str, tuple[str, ...]]:
    """Return the run's device, or the one that is there."""
    try:
        return choose_device(wished), ()
    except OptionError:
        return "cpu", (f"the run used {wished}, which is not there; crops are recomputed on the CPU",)


def _probabilities(
    stored: Stored, origin: Origin, grid: RegionGrid, by: Arithmetic, counter: Counter | None = None
) -> NDArray[np.float32]:
    """Return float32 probabilities of a crop, in the axes of the grid, with a channel per class."""
    settings, model = stored.manifest.settings, origin.model
    ranges = stored.manifest.ranges if by.precision == Precision.INT8 else ()
    task = RegionTask(
        grid=grid,
        outputs=(Probabilities("float32"),),
        network=NetworkKey(
            str(model.path.resolve()), model.checksum, by.device, by.precision, by.backend, ranges
        ),
        normalisation=Normalisation("constant", *stored.manifest.normalisation),
        spec=model.header.network,
        threads=0,
        nan=settings.nan,
        tta=settings.tta,
        mask=origin.mask,
    )
    index = (0,) * len(grid.axes)
    block = read_window(origin.source.spec, tuple(slice(a, b) for a, b in grid.source_window(index)))
    (values,) = task.products(index, block, counter)
    return np.asarray(values, np.float32)


def _classes_first(values: NDArray[Scalar], axes: str) -> NDArray[Scalar]:
    """Return values with the channel axis, if they have one, before all others."""
    return np.moveaxis(values, axes.index("c"), 0) if has_channel(axes) else values


def _regions(stored: Stored, box: Box) -> list[tuple[int, ...]]:
    """Return the regions that a box of the source has a part of."""
    return [index for index in stored.grid.indices() if stored.grid.box(index).meets(box)]
