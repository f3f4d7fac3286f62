"""Objects of random boxes, made again of what is stored by the rule of the run.

A box is read with a margin, and its objects are made as those of a volume of that size. Those that lie within the
margin are whole, and their numbers must be the stored ones. Those that leave it are not: where one of them is, could
have been filled, or could grow to, nothing is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from unet_dask.ledger import Ledger
from unet_dask.objects.growth import room
from unet_dask.objects.pieces import numbered
from unet_dask.objects.region import Window, reshaped
from unet_dask.objects.rule import ObjectRule
from unet_dask.products.classes import Classes
from unet_dask.run.making import joined_array, stored_source
from unet_dask.tiling.box import Box
from unet_dask.verify import neurites
from unet_dask.verify.agreement import RESTORE
from unet_dask.verify.finding import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.io.sink.store import ArraySpec
    from unet_dask.verify.stored import Stored

#: Side of a box, and of the margin around it, of 2-D and 3-D networks. Both together are longer than the longest object
#: that is given another shape (`objects.rule.REACH`): so none can lie around all of a box and its margin.
_SIDES = {2: (384, 192), 3: (64, 48)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of some boxes.

    Attributes
    ----------
    findings : what differs
    objects : that were compared
    reason : why nothing was; empty if something was
    """

    findings: tuple[Finding, ...] = ()
    objects: int = 0
    reason: str = ""


def remade(stored: Stored, random: np.random.Generator, *, boxes: int) -> Outcome:
    """Make the objects of random boxes again, and compare them with the stored ones.

    Parameters
    ----------
    stored : a result
    random : draws the boxes
    boxes : how many
    """
    array, rule = joined_array(stored.arrays), ObjectRule.recorded(stored.manifest.fingerprint)
    if array is None or not boxes or not len(stored.grid) or not Ledger(stored.sink.run_folder).complete():
        return Outcome()
    if rule is None:
        return Outcome(reason="an earlier version recorded in words how they were made")
    if stored_source({entry.name for entry in stored.arrays}, rule) is None:
        return Outcome(
            reason="the classes that they were made of are not in the result (--products classes,instances)"
        )
    found = [compared(stored, array, rule, random) for _ in range(boxes)]
    return Outcome(
        tuple(finding for outcome in found for finding in outcome.findings),
        sum(outcome.objects for outcome in found),
    )


def compared(stored: Stored, array: ArraySpec, rule: ObjectRule, random: np.random.Generator) -> Outcome:
    """Make the objects of one random box again.

    Parameters
    ----------
    stored : a result with classes
    array : of the numbers of objects
    rule : by which they were made
    random : draws the box
    """
    shape, dims = array.levels[0].shape, stored.dims
    side, margin = _SIDES[dims]
    sides = [1] * (len(shape) - dims) + [side] * dims
    starts = [
        int(random.integers(max(whole - side, 0) + 1)) for whole, side in zip(shape, sides, strict=True)
    ]
    spans = (
        (start, min(start + side, whole)) for start, side, whole in zip(starts, sides, shape, strict=True)
    )
    box = Box(array.axes, tuple(spans))
    around = box.grown(margin + rule.grow, dims, within=shape)
    if rule.threshold:
        wrong, objects = neurites.differing(stored, array, rule, box, around)
        return _outcome(stored, array, box, wrong, objects)
    classes = stored.read(Classes.name, 0, around)
    numbers = numbered(
        classes,  # type: ignore[arg-type] # whole numbers
        start=around.start,
        shape=shape,
        dims=dims,
        dtype=array.dtype,
        core=rule.core,
    )
    cut = _leaving(numbers, around, shape, dims)
    own = box.relative_to(around).slices
    several = len(stored.manifest.classes) > 2 and not rule.core
    window = Window(numbers, around.start, own, classes if several else None)  # type: ignore[arg-type] # whole numbers
    made = reshaped(window, cut, rule, dims=dims, shape=shape)[0] if rule.shapes else numbers[own]
    sure = ~_unsure(numbers, cut, rule, dims)[own]
    there = stored.read(array.name, 0, box)
    if rule.dense:
        made = _counted(made, there, sure)
    objects = len(np.unique(made[sure & (made > 0)]))
    return _outcome(stored, array, box, sure & (made != there), objects)


def _outcome(stored: Stored, array: ArraySpec, box: Box, wrong: NDArray[np.bool_], objects: int) -> Outcome:
    """Return what became of a box in which some voxels are wrong, or none."""
    if not wrong.any():
        return Outcome(objects=objects)
    text = (
        f"{np.count_nonzero(wrong)} voxels do not belong to the object that is made again there of what is stored. "
        f"{RESTORE}"
    )
    return Outcome((Finding("objects", text, array.name, 0, stored.shown(0, box)),), objects)


def _counted(
    made: NDArray[np.unsignedinteger], there: NDArray[np.generic], sure: NDArray[np.bool_]
) -> NDArray[np.unsignedinteger]:
    """Return numbers as if they were counted: each object by the number that its first voxel has.

    Who has seen a part knows nothing of the objects before it; but numbers go up from each object to the next, and the
    count of one whose number does not is taken for wrong.
    """
    names, first = np.unique(np.where(sure, made, 0), return_index=True)
    counts = there.reshape(-1)[first].astype(made.dtype)
    counts[names == 0] = 0
    kept = counts[names > 0]
    counts[names > 0] = np.where(kept > np.append(0, np.maximum.accumulate(kept))[:-1], kept, 0)
    place = np.minimum(np.searchsorted(names, made), len(names) - 1)
    return np.where(names[place] == made, counts[place], made).astype(made.dtype)


def _leaving(
    numbers: NDArray[np.unsignedinteger], around: Box, shape: tuple[int, ...], dims: int
) -> NDArray[np.unsignedinteger]:
    """Return the numbers of pieces that may go on beyond what was read."""
    edges = [np.zeros(0, numbers.dtype)]
    for axis in range(numbers.ndim - dims, numbers.ndim):
        start, stop = around.spans[axis]
        edges += [numbers.take(0, axis).ravel()] * (start > 0)
        edges += [numbers.take(-1, axis).ravel()] * (stop < shape[axis])
    found = np.unique(np.concatenate(edges))
    return found[(found > 0) & (found < room(numbers.dtype))]


def _unsure(
    numbers: NDArray[np.unsignedinteger], cut: NDArray[np.unsignedinteger], rule: ObjectRule, dims: int
) -> NDArray[np.bool_]:
    """Return where objects that leave what was read may have a say."""
    unsure = np.isin(numbers, cut)
    if rule.fill_holes:
        label = np.where(unsure, np.searchsorted(cut, numbers) + 1, 0).astype(np.int32)
        for found in ndimage.find_objects(label):
            if found is not None:
                unsure[found] = True
    if rule.grow:
        size = (1,) * (numbers.ndim - dims) + (2 * rule.grow + 1,) * dims
        unsure = ndimage.maximum_filter(unsure, size=size)
    return unsure
