"""The scores of a prediction: planes are read in pairs, scored one by one, and pooled.

Of a map of probabilities the best threshold is chosen for the whole stack, after pooling, as the challenge of 2012
does; what each plane scores at that threshold is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.axes import times
from unet_dask.components import labelled
from unet_dask.errors import DataError, InputError, OptionError
from unet_dask.evaluation.result import Evaluation, summarise
from unet_dask.io.images.labels import annotate, whole_numbers
from unet_dask.io.images.planes import pair_planes, products_of
from unet_dask.metrics.scores import METRICS, MIDDLE, ONLY_MAPS, Truth, score_labels, score_map
from unet_dask.metrics.thinning import THRESHOLDS
from unet_dask.products import PRODUCTS, by_information
from unet_dask.products.classes import Classes
from unet_dask.products.instances import Instances
from unet_dask.products.probabilities import Probabilities
from unet_dask.products.sentinel import is_sentinel
from unet_dask.spacing import contradiction, shown

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from numpy.typing import NDArray

    from unet_dask.io.images.planes import Planes
    from unet_dask.metrics.ratio import Ratio
    from unet_dask.products import Product

    Plane = NDArray[Any]
    Kind = type[Product]


@dataclass(frozen=True, slots=True)
class EvaluateConfig:
    """What to score, and how to read what is scored.

    Attributes
    ----------
    metrics : of :data:`METRICS`; () for all that fit
    product : what the prediction holds, of :data:`PRODUCTS`; which product to take, of a result. None to find out
    foreground_value : value of the truth that is foreground; None for all but 0
    class_number : class that is foreground in the prediction; None for the second of two, and for all but 0 where
        classes were predicted
    ignore : value of the truth that is not scored
    key, truth_key : arrays in Zarr groups
    axes : of a prediction in Zarr that does not name them
    """

    metrics: tuple[str, ...] = ()
    product: str | None = None
    foreground_value: int | None = None
    class_number: int | None = None
    ignore: int | None = None
    key: str | None = None
    truth_key: str | None = None
    axes: str | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown:
            raise OptionError(f"There is no metric {unknown[0]!r}. Use {', '.join(METRICS)}.")
        if self.product is not None and self.product not in PRODUCTS:
            raise OptionError(
                f"There is no product {self.product!r}. Use {', '.join(kind.name for kind in by_information())}."
            )
        if self.class_number is not None and self.class_number < 0:
            raise OptionError(f"The class {self.class_number} cannot be; classes are numbered from 0.")


def evaluate(
    prediction: str | os.PathLike[str],
    truth: str | os.PathLike[str],
    config: EvaluateConfig | None = None,
    *,
    on_plane: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score a prediction against its truth, plane by plane.

    Parameters
    ----------
    prediction : a result of ours, any Zarr array, a TIFF or PNG file, or a folder of them
    truth : likewise; whole numbers
    config : what to score; all that fits by default
    on_plane : called before each plane with its number and the number of planes

    Returns
    -------
    the scores, pooled and per plane

    Raises
    ------
    InputError
        If something cannot be read, or the two do not pair.
    DataError
        If values are not what they should be, or a result has voxels that were never written.
    OptionError
        If a metric does not fit what was predicted.
    """
    config = config or EvaluateConfig()
    entry = _entry(prediction, config)
    predicted, targets, paired = pair_planes(
        prediction, truth, key=config.key, truth_key=config.truth_key, axes=config.axes, entry=entry
    )
    if not len(targets):
        raise InputError(f"The truth {targets.name} has no planes, so there is nothing to score.")
    reader = _Reader(predicted, targets, config, from_result=entry is not None)
    kind = reader.kind()
    metrics = _fitting(config.metrics, kind)
    instances = reader.truth_is_instances()
    scored: list[dict[str, tuple[Ratio, ...]]] = []
    thresholds: tuple[float, ...] = THRESHOLDS if kind.amounts else (MIDDLE,)
    for index in range(len(targets)):
        if on_plane is not None:
            on_plane(index, len(targets))
        true = reader.truth(index, instances=instances)
        found = reader.found(index, kind, true.labels.shape)
        if kind.joined:
            scored.append(score_labels(found, true, metrics))
        else:
            scored.append(score_map(found, true, metrics, thresholds=thresholds))
    return Evaluation(
        prediction=predicted.name,
        truth=targets.name,
        kind=kind.name,
        truth_kind=Instances.name if instances else "foreground",
        foreground=reader.foreground(kind),
        planes=targets.names,
        scores=summarise(scored, thresholds if kind.amounts else ()),
        notes=(*_notes(paired, predicted, targets), *_of_objects(prediction, entry, kind, instances)),
    )


def _of_objects(
    prediction: str | os.PathLike[str], entry: str | None, kind: Kind, instances: bool
) -> tuple[str, ...]:
    """Say that a result has objects of its own, where those of the truth were compared with pieces of a map."""
    if entry is None or kind.joined or not instances or Instances.name not in products_of(prediction):
        return ()
    return (
        (
            "SEG and object scores are of connected pieces of the map; those of the result's own objects are told by "
            f"--product {Instances.name}"
        ),
    )


def _notes(paired: str | None, predicted: Planes, targets: Planes) -> tuple[str, ...]:
    """Say how files were paired, and sizes of pixels that contradict each other."""
    found = [paired] if paired else []
    ratio = contradiction(predicted.spacing, predicted.unit, targets.spacing, targets.unit)
    if ratio and predicted.spacing and targets.spacing:
        found.append(
            f"pixels of {predicted.name} are {shown(predicted.spacing, predicted.unit)} and those of {targets.name} "
            f"{shown(targets.spacing, targets.unit)}, {max(ratio, 1 / ratio):.3g} times apart: is this its truth?"
        )
    return tuple(found)


def _entry(prediction: str | os.PathLike[str], config: EvaluateConfig) -> str | None:
    """Return the product of a result that is scored, None if the prediction is no result."""
    products = products_of(prediction) if config.key is None else ()
    if not products or config.product is not None:
        return config.product if products else None
    objects_only = config.metrics and set(config.metrics) <= {"seg", "f1"}
    found = [kind for kind in by_information() if kind.name in products]
    return next((kind.name for kind in found if objects_only and kind.joined), found[0].name)


def _fitting(metrics: tuple[str, ...], kind: Kind) -> tuple[str, ...]:
    """Return the metrics to compute, in their order."""
    misfits = [name for name in metrics if kind.joined and name in ONLY_MAPS]
    if misfits:
        raise OptionError(
            f"The metric {misfits[0]} needs a map of foreground, but the prediction holds instances, which can touch. "
            "Score its probabilities or classes, with --product if the prediction has them, or leave it out."
        )
    fit = [name for name in METRICS if not kind.joined or name not in ONLY_MAPS]
    return tuple(name for name in fit if not metrics or name in metrics)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Planes as the scores want them: labels, and maps in [0, 1]."""

    predicted: Planes
    targets: Planes
    config: EvaluateConfig
    from_result: bool

    def truth(self, index: int, *, instances: bool) -> Truth:
        whole, known = self._whole_truth(index)
        if instances:
            return Truth(whole, known)
        value = self.config.foreground_value
        foreground = whole > 0 if value is None else whole == value
        return Truth(labelled(foreground if known is None else foreground & known), known)

    def _whole_truth(self, index: int) -> tuple[NDArray[np.integer], NDArray[np.bool_] | None]:
        """Return a truth, 0 where it is ignored, and where it is not; None if nothing is."""
        name, ignore = self._of_truth(index), self.config.ignore
        found = annotate(self.targets.read(index), name, ignore=ignore, what="truth")
        return found.target, None if ignore is None else found.known

    def _of_truth(self, index: int) -> str:
        name = self.targets.names[index]
        return name if name.startswith(self.targets.name) else f"{self.targets.name} ({name})"

    def truth_is_instances(self) -> bool:
        """Whether the truth numbers objects: it has several values beside 0 and none was said to be foreground."""
        if self.config.foreground_value is not None:
            return False
        seen: set[int] = set()
        for index in range(len(self.targets)):
            seen |= set(np.unique(self._whole_truth(index)[0]).tolist()) - {0}
            if len(seen) > 1:
                return True
        return False

    def kind(self) -> Kind:
        """Return what the prediction holds."""
        if self.config.product is not None:
            return PRODUCTS[self.config.product]
        if self.from_result:
            return PRODUCTS[self.predicted.name.rsplit("/", 1)[-1]]
        first = self.predicted.read(0)
        if np.isdtype(first.dtype, "real floating"):
            return Probabilities
        seen: set[int] = set()
        for index in range(len(self.predicted)):
            seen |= set(np.unique(self._whole_found(index)).tolist()) - {0}
            if len(seen) > 1:
                return Instances
        return Classes

    def _whole_found(self, index: int) -> NDArray[np.integer]:
        return whole_numbers(self.predicted.read(index), self._shown(index), what="prediction")

    def _shown(self, index: int) -> str:
        return f"{self.predicted.name} ({self.predicted.names[index]})"

    def foreground(self, kind: Kind) -> str:
        """Say what counts as foreground in the prediction."""
        if kind.joined:
            return "every instance"
        number = self.config.class_number
        if not kind.amounts and number is None:
            return "every class but 0"
        if kind.amounts:
            count = self.predicted.read(0).shape[0]
            number = self._channel(count)
            if count == 1:
                return "what the map says"
        names = self.predicted.classes
        return f"class {number}" + (
            f", {names[number]}" if number is not None and number < len(names) else ""
        )

    def _channel(self, count: int) -> int:
        """Return the channel of a map that is the foreground."""
        number = self.config.class_number
        if number is None and count > 2:
            raise OptionError(
                f"The prediction {self.predicted.name} has {count} classes. Say with --class which of them is "
                f"foreground, 0 to {count - 1}."
            )
        channel = count - 1 if number is None else number
        if channel >= count:
            raise OptionError(
                f"--class {channel} was asked of {self.predicted.name}, which has {count}. Use 0 to {count - 1}."
            )
        return channel

    def found(self, index: int, kind: Kind, shape: tuple[int, ...]) -> Plane:
        """Return labels, or a map in [0, 1], of the truth's shape."""
        if kind.amounts:
            channels = self.predicted.read(index)
            plane = self._probability(channels[self._channel(len(channels))], index)
        else:
            plane = self._whole_found(index)
            self._refuse_unwritten(self.from_result and bool(is_sentinel(plane).any()), index)
            if not kind.joined:
                number = self.config.class_number
                plane = (plane > 0 if number is None else plane == number).astype(np.float32)
        if plane.shape != shape:
            raise InputError(
                f"{self._shown(index)} is {times(plane.shape)} pixels and its truth {self.targets.names[index]} "
                f"{times(shape)}. Give the truth of just what was predicted."
            )
        return plane

    def _probability(self, values: Plane, index: int) -> Plane:
        """Return a map in [0, 1], of floats or of integers scaled to their largest value."""
        if np.isdtype(values.dtype, "real floating"):
            self._refuse_unwritten(bool(is_sentinel(values).any()), index)
            if values.size and not (values.min() >= 0 and values.max() <= 1 + 1e-6):
                raise DataError(
                    f"{self._shown(index)} has values from {values.min():g} to {values.max():g}, and probabilities "
                    "lie in 0 to 1. Apply the soft-max first; if these are numbers of objects, use --product instances."
                )
            return values
        if np.isdtype(values.dtype, "bool"):
            return values.astype(np.float32)
        scale = np.iinfo(values.dtype).max
        if self.from_result:
            self._refuse_unwritten(bool(is_sentinel(values).any()), index)
            scale = Probabilities(str(values.dtype)).scale
        return values / scale

    def _refuse_unwritten(self, holes: bool, index: int) -> None:
        if holes:
            cause = "were never written" if self.from_result else "are not a number"
            remedy = "Finish the run with segment --resume" if self.from_result else "Replace them"
            raise DataError(f"Pixels of {self._shown(index)} {cause}, and a hole is no background. {remedy}.")
