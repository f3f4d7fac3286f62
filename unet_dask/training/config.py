"""Every number of the training recipe, in one place.

The defaults are the paper's where it states one, and the section stands beside it. The command line and
the TOML file only replace fields of this class; neither has defaults of its own.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from unet_dask.errors import ModelError, OptionError
from unet_dask.model.header import NetworkSpec
from unet_dask.paths import local_path
from unet_dask.setting import by_present_names, nearest
from unet_dask.training.bounds import check

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from unet_dask.model.header import ModelHeader

TargetKind = Literal["auto", "classes", "instances"]

#: Fields that are those of the network.
_OF_NETWORK = ("dims", "width", "depth", "classes", "batch_norm", "dropout", "factors", "architecture")
#: Fields that records of before do not have, so that a training that has no use for them makes the same bytes.
_YOUNGER = (
    "factors",
    "architecture",
    "core",
    "drawn_by",
    "blur",
    "emptied",
    "object_gain",
    "dice",
    "objects",
)
#: Names of now of fields that had others before; recipes and checkpoints may still have those.
FORMER_NAMES = {"settle": "freeze_norm_after"}


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """The recipe of a training; the default is that of the paper.

    Attributes
    ----------
    dims, width, depth, classes, batch_norm, dropout, factors, architecture : of the network, see `NetworkSpec`
    class_names : one per class; empty for "background", "class 1", ...
    iterations : steps of gradient descent, each on one tile
    tile : side of the target's core in pixels per axis, multiples of its stride; one value holds for
        all axes; empty for 384 (the paper's 572 -> 388) in 2D and 40 (132 -> 44) in 3D, or less for
        smaller images
    learning_rate : of the first iteration; decays as ``(1 - iteration / iterations)**poly_power``
    optimiser : "sgd", section 3, or "adam" [1]_, which scales the step of every weight by itself
    momentum : 0.99, section 3: "many of the previously seen samples determine the update"; the decay of Adam's
        first moment, where 0.9 is usual
    freeze_norm_after : share of the iterations after which batch normalisation stops looking at the tile and uses its
        running statistics, as it will at inference; a batch of one tile would else be trained for what
        segmenting never sees
    averaging : decay per iteration of a moving average of the weights, which is then what is validated and
        kept; momentum 0.99 with one tile per step swings around a minimum, and the average lies in it.
        Not in the paper, 0 for none
    clip_norm : longest gradient; a guard that momentum 0.99 needs in the first iterations, not in the
        paper; 0 for none
    seed : of everything that is random
    memory : that images, targets and weight maps may take; a pair of Zarr arrays that would take more is not read
        into memory: patches are read from it as they are drawn
    validation : images held out: a fraction below 1 or a number of images; with a single image a part
        of it; 0 for none
    hold_out : glob patterns of the images that are held out instead, by name; empty to let the seed choose
    validate_every, checkpoint_every : in iterations
    key, target_key : arrays of images and of targets in Zarr groups
    axes : of images in Zarr, such as "zyx"; of targets without names of theirs, too, where they fit
    target_kind : what targets are: "classes", "instances", or "auto" to look at their values
    foreground_value : targets have two classes: this value is class 1 and all else class 0
    ignore : value of pixels in targets that nobody annotated; their weight is 0
    ignore_background : pixels of value 0 are not background but unknown, except within
        `trusted_ring` pixels of an annotated object
    partial : glob patterns of the images that `ignore_background` is limited to; empty for all
    trusted_ring : pixels around an annotated object that count as background all the same
    border : width in pixels of the background that is cut into each of two touching instances (R4)
    core : pixels that each instance loses all around to become its core, less where it is thin; instances then make
        three classes, background, rim and core, and touching ones differ by their cores. 0 for two classes
    w0, sigma : of the separation term, section 3: 10 and about 5 pixels
    balance : exponent of the inverse class frequency; 1 balances fully, 0 not at all
    elastic_sigma, elastic_grid : section 3.1: 10 pixels on a 3 by 3 grid
    rotation : largest angle in degrees, in the y-x plane
    scaling : standard deviation of the logarithm of the zoom; not in the paper, 0 for none
    gain, offset, gamma, noise : grey-value variation, see `augment.vary_grey`
    blur : upper end of the deviation of a Gaussian, in pixels, that half of the patches are blurred with, itself
        drawn uniformly; not in the paper, 0 for none
    emptied : share of the patches whose objects are painted over with background, which is then normalised by itself:
        what a network meets in an empty field that is normalised by its own noise; not in the paper, 0 for none
    object_gain : standard deviation of the logarithm of a factor by which each object becomes brighter or darker; not
        in the paper, 0 for none
    dice : weight of the Dice loss beside the energy, see `loss.dice_loss`; not in the paper, 0 for none
    drawn_by : what makes an image likely to be drawn from: its "pixels", or nothing, so that all "images" are alike
    objects : how the model will make objects: "components", "cells" or "neurites", see `objects.rule.METHODS`; "auto"
        makes cells where targets are instances, and else components
    normalisation : "constant" stores mean and deviation of the training images; "volume" lets each
        volume be normalised by its own
    spacing, unit : pixel size of the training images; empty to take it from the files
    half : store the model in 16 bit
    precision : of forward and backward pass; the weights and the update are float32 always
    threads : of torch; None for torch's own choice
    device : "cpu", "cuda", "cuda:1"; "auto" for CUDA where there is one

    References
    ----------
    .. [1] Kingma, Ba: "Adam: a method for stochastic optimization", ICLR 2015.

    Examples
    --------
    >>> TrainConfig(width=16).momentum
    0.99
    """

    dims: int = 2
    width: int = 64
    depth: int = 4
    classes: int = 2
    batch_norm: bool = False
    dropout: float = 0.5
    class_names: tuple[str, ...] = ()
    iterations: int = 20_000
    tile: tuple[int, ...] = ()
    learning_rate: float = 1e-3
    optimiser: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.99
    freeze_norm_after: float = 0.5
    averaging: float = 0.0
    clip_norm: float = 1.0
    poly_power: float = 0.9
    seed: int = 0
    memory: str = "2GiB"
    validation: float = 0.2
    hold_out: tuple[str, ...] = ()
    validate_every: int = 500
    checkpoint_every: int = 500
    key: str | None = None
    target_key: str | None = None
    axes: str | None = None
    target_kind: TargetKind = "auto"
    foreground_value: int | None = None
    ignore: int | None = None
    ignore_background: bool = False
    partial: tuple[str, ...] = ()
    trusted_ring: int = 10
    border: int = 1
    core: int = 0
    w0: float = 10.0
    sigma: float = 5.0
    balance: float = 1.0
    elastic_sigma: float = 10.0
    elastic_grid: int = 3
    rotation: float = 180.0
    scaling: float = 0.0
    gain: float = 0.1
    offset: float = 0.1
    gamma: float = 0.1
    noise: float = 0.0
    blur: float = 0.0
    emptied: float = 0.0
    object_gain: float = 0.0
    dice: float = 0.0
    drawn_by: Literal["pixels", "images"] = "pixels"
    objects: Literal["auto", "components", "cells", "neurites"] = "auto"
    normalisation: Literal["constant", "volume"] = "constant"
    spacing: tuple[float, ...] = ()
    unit: str | None = None
    half: bool = False
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    threads: int | None = None
    device: str = "auto"
    factors: tuple[tuple[int, ...], ...] = ()
    architecture: str = "unet"

    def __post_init__(self) -> None:
        for each in fields(self):
            check(each.name, getattr(self, each.name), each.default)
        if len(self.spacing) not in (0, self.dims):
            raise OptionError(
                f"A network of {self.dims} dimensions needs a spacing of {self.dims} values, not "
                f"{self.spacing}."
            )
        if self.core and (self.classes != 3 or self.target_kind == "classes"):
            raise OptionError(
                f"Instances with a core make three classes, background, rim and core, not {self.classes} of "
                f"{self.target_kind!r} targets. Use --classes 3 and --target-kind instances."
            )
        if self.core and self.objects in ("components", "neurites"):
            raise OptionError(f"Objects with a core are cells, not {self.objects}; leave one of the two out.")
        if len(self.tile) not in (0, 1, self.dims):
            raise OptionError(
                f"A network of {self.dims} dimensions needs a tile of 1 or {self.dims} values, not "
                f"{self.tile}."
            )

    def updated(self, settings: Mapping[str, Any]) -> TrainConfig:
        """Return this configuration with some fields replaced.

        Raises
        ------
        OptionError
            If a name is none of ours, or was said as it is and as it was before, or a value is of another type or
            out of bounds.

        Examples
        --------
        >>> TrainConfig().updated({"tile": [256]}).tile
        (256,)
        """
        known = [each.name for each in fields(self)]
        settings = by_present_names(settings, FORMER_NAMES)
        for name in settings:
            if name not in known:
                hint = nearest(name, known, f"Known are: {', '.join(known)}.")
                raise OptionError(f"The training has no setting {name!r}. {hint}")
        return replace(self, **{name: _frozen(value) for name, value in settings.items()})

    def to_record(self) -> dict[str, Any]:
        """Return the configuration as plain JSON; younger settings where they are not the default."""
        usual = {known.name: known.default for known in fields(self) if known.name in _YOUNGER}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name not in usual or value != usual[name]
        }

    def network(self, channels: int = 1) -> NetworkSpec:
        """Return the network that is trained, for images of so many channels."""
        return NetworkSpec(channels=channels, **{name: getattr(self, name) for name in _OF_NETWORK})


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a TOML file whose keys are fields of `TrainConfig`, or options of ``train``, which have the same names.

    Parameters
    ----------
    path : of the file

    Raises
    ------
    OptionError
        If the file cannot be read, or is not TOML.
    """
    try:
        settings = tomllib.loads(local_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(f"The configuration {path} cannot be read: {error}.") from error
    table = next((name for name, value in settings.items() if isinstance(value, dict)), None)
    if table is not None:
        raise OptionError(
            f"The configuration {path} has a table [{table}]; settings stand without one, such as iterations = 20000."
        )
    return {name.replace("-", "_"): value for name, value in settings.items()}


def load_config(path: str | os.PathLike[str], base: TrainConfig | None = None) -> TrainConfig:
    """Return a configuration with what a TOML file says, see :func:`read_settings`.

    Parameters
    ----------
    path : of the file
    base : what the file changes; None for the paper's recipe

    Raises
    ------
    OptionError
        If the file cannot be read, is not TOML, or has a key that is no setting.
    """
    return (base or TrainConfig()).updated(read_settings(path))


def network_of(header: ModelHeader) -> dict[str, Any]:
    """Return the settings that describe the network of a model, and what its classes are, to train it further.

    Raises
    ------
    ModelError
        If it is a network of others, of which nothing but its output is known.
    """
    if header.network.foreign:
        raise ModelError(
            "A network of others (ONNX) can be run, but not trained further. Start from a model of unet-dask."
        )
    of_network = {name: getattr(header.network, name) for name in _OF_NETWORK}
    recipe = header.training.get("recipe")
    core = recipe.get("core") if header.objects.core and isinstance(recipe, dict) else None
    cores = {"core": core, "target_kind": "instances"} if core else {}
    return of_network | {"class_names": header.class_names} | cores


def _frozen(value: Any) -> Any:  # whatever a file or a caller gives
    """Return lists, and those within, as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


#: Where a training begins from. "paper" is section 3 of the paper. "fast" is for an hour of a small computer:
#: Adam and batch normalisation learn in a tenth of the iterations, without dropout before it, which would shift the
#: variance that its statistics promise; the average of the weights takes out the swing of steps on one tile each. The
#: statistics are settled early: those of one tile tell the network what image it is looking at, which those that it is
#: used with do not.
RECIPES: dict[str, TrainConfig] = {
    "paper": TrainConfig(),
    "fast": TrainConfig(
        width=16,
        batch_norm=True,
        dropout=0.0,
        averaging=0.99,
        iterations=3000,
        tile=(256,),
        optimiser="adam",
        momentum=0.9,
        learning_rate=1e-3,
        freeze_norm_after=0.1,
        validate_every=100,
        checkpoint_every=100,
    ),
}
