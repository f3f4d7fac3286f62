"""What a model file says about itself, without its weights and without torch.

The header is all that planning needs: sizes, halo and lattice follow from it. It is JSON inside the
metadata of a safetensors file, read field by field against an allow-list with bounds, so that a hostile
file can ask for nothing that this module does not name.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from unet_dask.errors import ModelError, OptionError
from unet_dask.model import cost, layers
from unet_dask.model.foreign.spec import ARCHITECTURE, MeasuredSpec
from unet_dask.objects.rule import AS_PIECES, ObjectRule

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from unet_dask.model.spec import Spec
    from unet_dask.model.step import Sides, Step
    from unet_dask.tiling.valid import Context

#: Version of the header; a reader refuses what it does not know.
FORMAT = "unet-dask/1"

NormalisationKind = Literal["constant", "volume"]

#: What the last step makes, by name: "softmax" are classes that exclude each other, of which each pixel has one.
HEADS = ("softmax",)
#: Largest factor of a pooling along an axis.
_LARGEST_FACTOR = 4
#: Fields that came after the first models: they are written where they are not the default, and only there, so that
#: models and runs of before keep their bytes.
_LATER = ("factors", "architecture", "head")


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """Parameters of a valid-convolution U-Net (paper, section 2).

    Attributes
    ----------
    dims : spatial dimensions, 2 or 3
    width : feature channels of the first level; they double at every pooling
    depth : number of poolings
    channels : channels of the image
    classes : classes of the output, background included
    batch_norm : batch normalisation after every 3-wide convolution
    dropout : probability of the dropout at the end of the contracting path
    factors : of each pooling along each spatial axis, such as ``((1, 2, 2), (2, 2, 2))`` for volumes whose slices are
        far apart; () for 2 everywhere, the paper's
    architecture : which steps the network has, see `model.layers`
    head : what it makes, one of :data:`HEADS`

    Examples
    --------
    >>> NetworkSpec(dims=2, width=64, depth=4).halo
    (92, 92)
    >>> NetworkSpec(dims=3, depth=2, factors=((1, 2, 2), (2, 2, 2))).stride
    (2, 4, 4)
    """

    dims: int = 2
    width: int = 64
    depth: int = 4
    channels: int = 1
    classes: int = 2
    batch_norm: bool = False
    dropout: float = 0.5
    factors: tuple[tuple[int, ...], ...] = ()
    architecture: str = "unet"
    head: str = "softmax"

    def __post_init__(self) -> None:
        for name, low, high in (
            ("dims", 2, 3),
            ("width", 1, 1024),
            ("depth", 1, 6),
            ("channels", 1, 512),
            ("classes", 2, 255),
        ):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ModelError(
                    f"A network's {name} must be a whole number from {low} to {high}, not {value!r}."
                )
        if type(self.batch_norm) is not bool:
            raise ModelError(f"A network's batch_norm must be true or false, not {self.batch_norm!r}.")
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise ModelError(f"A network's dropout must be in [0, 1), not {self.dropout!r}.")
        _require_known("architecture", self.architecture, layers.ARCHITECTURES)
        _require_known("head", self.head, HEADS)
        self._settle_factors()

    def __repr__(self) -> str:
        """Return the fields as runs keep them in their fingerprints."""
        return f"NetworkSpec({', '.join(f'{name}={value!r}' for name, value in self.record().items())})"

    def _settle_factors(self) -> None:
        """Check the factors, and let those that are 2 everywhere be the default that they are."""
        try:
            factors = tuple(map(tuple, self.factors))
        except TypeError:
            factors = ((),)
        sound = all(
            len(level) == self.dims
            and all(type(factor) is int and 1 <= factor <= _LARGEST_FACTOR for factor in level)
            and max(level) > 1
            for level in factors
        )
        if not sound or len(factors) not in (0, self.depth):
            raise ModelError(
                f"A network's factors must be {self.dims} whole numbers from 1 to {_LARGEST_FACTOR}, not all of them "
                f"1, for each of its {self.depth} poolings, not {self.factors!r}."
            )
        usual = ((2,) * self.dims,) * self.depth
        object.__setattr__(self, "factors", () if factors == usual else factors)

    def record(self) -> dict[str, object]:
        """Return the fields that are written, by name."""
        return {
            known.name: getattr(self, known.name)
            for known in fields(self)
            if known.name not in _LATER or getattr(self, known.name) != known.default
        }

    @property
    def poolings(self) -> tuple[tuple[int, ...], ...]:
        """Factor of each pooling along each spatial axis, from the image on."""
        return self.factors or ((2,) * self.dims,) * self.depth

    @property
    def contexts(self) -> tuple[Context, ...]:
        """What the network consumes along each spatial axis."""
        return layers.contexts(self)

    @property
    def halo(self) -> tuple[int, ...]:
        """Context consumed per side and spatial axis, in pixels."""
        return tuple(context.halo for context in self.contexts)

    @property
    def stride(self) -> tuple[int, ...]:
        """Period of the pooling lattice per spatial axis, in pixels."""
        return tuple(context.stride for context in self.contexts)

    @property
    def slack(self) -> tuple[int, ...]:
        """Pixels computed beyond a core on the lattice, per spatial axis."""
        return tuple(context.slack for context in self.contexts)

    @property
    def steps(self) -> tuple[Step, ...]:
        """What it does, in the order of a pass."""
        return layers.steps(self)

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return layers.parameter_count(self)

    @property
    def foreign(self) -> bool:
        """Whether it is a network of others."""
        return False

    @property
    def tells_lattice(self) -> bool:
        """Whether its halo tells its lattice: where all poolings are by 2."""
        return not self.factors

    @property
    def text(self) -> str:
        """What it is, for people."""
        return (
            f"{self.dims}-D U-Net, {self.width} channels, depth {self.depth}, {self.channels} in, "
            f"{self.classes} classes"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know before she trusts a result: nothing, it does what it says."""
        return ()

    def flop(self, sides: Sequence[Sides]) -> Sides:
        """Return the floating-point operations of one pass over a tile."""
        return cost.tile_flop(self, sides)

    def alive(self, sides: Sequence[Sides]) -> Sides:
        """Return the most numbers that are alive at once during a pass."""
        return cost.numbers_alive(self, sides)

    def largest(self, sides: Sequence[Sides]) -> Sides:
        """Return the numbers of the largest array of a pass."""
        return cost.largest_map(self, sides)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Map grey values to network input, by constants that hold for the whole volume.

    ``(value - offset) / scale`` per channel. `constant` stores both in the model file; `volume` takes
    the mean and the standard deviation of the whole volume, from one pass that the run stores. Statistics
    of a tile would make seams, so there is no such kind.

    Attributes
    ----------
    kind : "constant" or "volume"
    offset, scale : one value per channel; empty for "volume"
    """

    kind: NormalisationKind = "constant"
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(NormalisationKind):
            raise ModelError(f"A model's normalisation must be constant or volume, not {self.kind!r}.")
        if len(self.offset) != len(self.scale):
            raise ModelError("A model's normalisation needs as many offsets as scales.")
        if not all(math.isfinite(value) for value in (*self.offset, *self.scale)) or 0 in self.scale:
            raise ModelError(f"A model's normalisation must be finite and its scale not 0: {self}.")

    @property
    def of_volume(self) -> bool:
        """Whether the constants are those of the whole volume, and not known yet."""
        return self.kind == "volume"


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """All that a model file says beside its weights.

    Attributes
    ----------
    network : parameters of the network
    normalisation : grey values to network input
    class_names : one name per class, in the order of the output channels; the first is background
    spacing : pixel size of the training images, one value per spatial axis, or None if unknown
    unit : of the spacing, such as "micrometer"; None if unknown
    training : free record of recipe, data and scores; plain JSON
    objects : how objects are made of what the network says, unless a run is told otherwise
    """

    network: Spec
    normalisation: Normalisation
    class_names: tuple[str, ...]
    spacing: tuple[float, ...] | None = None
    unit: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    objects: ObjectRule = AS_PIECES

    def __post_init__(self) -> None:
        if len(self.class_names) != self.network.classes:
            raise ModelError(
                f"A model of {self.network.classes} classes needs as many names, not {len(self.class_names)}: "
                f"{', '.join(self.class_names) or 'none'}."
            )
        if self.objects.core >= self.network.classes:
            raise ModelError(
                f"Objects of the model are made of class {self.objects.core}, but it has the classes 0 to "
                f"{self.network.classes - 1}."
            )
        if not self.normalisation.of_volume and len(self.normalisation.offset) != self.network.channels:
            raise ModelError(
                f"A model of {self.network.channels} channels needs as many normalisation constants, "
                f"not {len(self.normalisation.offset)}."
            )
        if self.spacing is not None and len(self.spacing) != self.network.dims:
            raise ModelError(
                f"A model of {self.network.dims} dimensions has a spacing of {len(self.spacing)} values."
            )

    @property
    def axes(self) -> str:
        """Axes of the network's input, channel first: "cyx" or "czyx"."""
        return "c" + "zyx"[-self.network.dims :]

    def to_json(self, **more: str) -> str:
        """Return the header as JSON, with the derived sizes for other readers and `more` fields."""
        derived = {
            "format": FORMAT,
            "axes": self.axes,
            "halo": list(self.network.halo),
            "stride": list(self.network.stride),
        }
        written = {"network": self.network.record(), "objects": self.objects.to_json()}
        record = derived | more | asdict(self) | written
        if not self.objects.changes:  # models of before keep their bytes
            del record["objects"]
        return json.dumps(record, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelHeader:
        """Read a header against the allow-list.

        Raises
        ------
        ModelError
            If the text is not a header of this format, or a value is out of bounds.
        """
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"The model's header is not JSON: {error}.") from error
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            found = record.get("format") if isinstance(record, dict) else type(record).__name__
            raise ModelError(f"The model's header is of format {found!r}; this version reads {FORMAT!r}.")
        try:
            return cls._from_record(record)
        except ModelError:
            raise
        except OptionError as error:
            raise ModelError(f"The model's header is damaged: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ModelError(f"The model's header is damaged: {error}.") from error

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> ModelHeader:
        network = _network(record["network"])
        constants = _known(record["normalisation"], Normalisation)
        spacing = record.get("spacing")
        unit = record.get("unit")
        training = record.get("training", {})
        if not isinstance(training, dict) or not (unit is None or isinstance(unit, str)):
            raise ModelError("The model's header is damaged: training must be an object and unit a text.")
        header = cls(
            network=network,
            normalisation=Normalisation(
                kind=constants.get("kind", "constant"),
                offset=tuple(float(value) for value in constants.get("offset", ())),
                scale=tuple(float(value) for value in constants.get("scale", ())),
            ),
            class_names=tuple(str(name) for name in record["class_names"]),
            spacing=None if spacing is None else tuple(float(value) for value in spacing),
            unit=unit,
            training=training,
            objects=ObjectRule.from_json(record.get("objects", {})),
        )
        if tuple(record.get("halo", header.network.halo)) != header.network.halo:
            raise ModelError(
                f"The model's header declares a halo of {record['halo']}, but its network consumes "
                f"{list(header.network.halo)}. The file was edited or made by something else."
            )
        return header


def _require_known(field: str, name: str, known: Collection[str]) -> None:
    """Raise unless a name is one that this version knows."""
    if name not in known:
        raise ModelError(
            f"A network's {field} must be {' or '.join(known)}, not {name!r}, which this version does not know."
        )


def _network(record: dict[str, Any]) -> Spec:
    """Return the network of a header: ours, by its parameters, or one of others, by what was measured."""
    if record.get("architecture") == ARCHITECTURE:
        return MeasuredSpec.from_record(record)
    return NetworkSpec(**_known(record, NetworkSpec))


def _known(record: dict[str, Any], kind: type) -> dict[str, Any]:
    """Return the record if every key is a field of the dataclass `kind`."""
    unknown = set(record) - {known.name for known in fields(kind)}
    if unknown:
        raise ModelError(f"The model's header has unknown fields: {', '.join(sorted(unknown))}.")
    return record
