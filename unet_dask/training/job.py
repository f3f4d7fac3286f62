"""What a training works on: its data, its network and optimiser, and the model file that it makes."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, cast

import torch
from torch.amp import GradScaler

from unet_dask.choices import AUTO, Device
from unet_dask.engine.device import require_precision
from unet_dask.errors import OptionError
from unet_dask.model.file import Model, new_model, tensor_checksum
from unet_dask.model.header import ModelHeader, NetworkSpec
from unet_dask.objects.rule import ObjectRule
from unet_dask.training.average import averaged
from unet_dask.training.checkpoint import Progress
from unet_dask.training.config import TrainConfig
from unet_dask.training.parallel import own_gpu

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch.nn import Module
    from torch.optim import Optimizer
    from torch.optim.swa_utils import AveragedModel

    from unet_dask.model.network import Network
    from unet_dask.training.curves import CurvePoint
    from unet_dask.training.parallel import Team
    from unet_dask.training.prepare import TrainingSet

#: Share of one tile in the running statistics of batch normalisation. torch's 0.1 remembers about ten tiles,
#: which with one tile per step and images of very different content is not enough to validate with.
_STATISTICS_MOMENTUM = 0.01


@dataclass(slots=True)
class State:
    """What changes while a training runs.

    Attributes
    ----------
    network, optimiser : as they are after the last iteration
    scaler : of the gradients in float16; passive in other precisions
    average : moving average of the network's weights and statistics, where the recipe asks for one
    progress : where the training is
    curves : record of the validations
    losses : of the iterations since the last validation
    saved_at : iteration of the checkpoint on disk
    """

    network: Network
    optimiser: Optimizer
    scaler: GradScaler
    average: AveragedModel | None = None
    progress: Progress = field(default_factory=Progress)
    curves: list[CurvePoint] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    saved_at: int = -1

    @property
    def kept(self) -> Network:
        """The network that is validated and kept."""
        return self.network if self.average is None else cast("Network", self.average.module)

    @property
    def modules(self) -> dict[str, Module]:
        """Everything with weights that a checkpoint must hold, by name; "network" is what is optimised."""
        found: dict[str, Module] = {"network": self.network}
        return found if self.average is None else found | {"average": self.average}


@dataclass(frozen=True, slots=True)
class Job:
    """What stays the same while a training runs.

    Attributes
    ----------
    config : recipe
    data : images, targets, weight maps
    cores : side of a tile's core per axis, in pixels
    output : model file to write
    device : that the network runs on
    team : processes that share the work
    start : model to start from, or None to draw the paper's initial weights
    """

    config: TrainConfig
    data: TrainingSet
    cores: tuple[int, ...]
    output: Path
    device: torch.device
    team: Team
    start: Model | None = None

    @property
    def fingerprint(self) -> dict[str, object]:
        """What a checkpoint must agree with."""
        return {
            "config": self.config.to_record(),
            "files": [list(pair) for pair in self.data.files],
            "processes": self.team.size,
            "start": self.start.checksum if self.start else None,
        }


@contextmanager
def settings_of_torch(config: TrainConfig) -> Iterator[None]:
    """Use the threads and the randomness of this training, and give both back afterwards.

    float32 is float32 meanwhile: by itself cuDNN multiplies it by 10 bits of mantissa.
    """
    before, cudnn = torch.get_num_threads(), torch.backends.cudnn
    try:
        if config.threads:
            torch.set_num_threads(config.threads)
        with (
            torch.random.fork_rng(),
            cudnn.flags(
                enabled=cudnn.enabled,
                benchmark=cudnn.benchmark,
                deterministic=cudnn.deterministic,
                allow_tf32=False,
            ),
        ):
            yield
    finally:
        torch.set_num_threads(before)


def device_of(config: TrainConfig) -> torch.device:
    """Return the device that a configuration names.

    Raises
    ------
    OptionError
        If torch cannot use it here, or it has no bfloat16 and that was asked for.
    """
    name = config.device
    if name == AUTO:
        name = Device.CUDA if torch.cuda.is_available() else Device.CPU
    try:
        device = own_gpu(torch.device(name))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"The device {config.device!r} cannot be used here. Use cpu or auto.") from error
    if config.precision == "bfloat16":  # float16 on a CPU is for trying out what a GPU will do
        require_precision(config.precision, device.type)
    return device


def usual_recipe(device: str) -> str:
    """Return the recipe that a training on a device begins from: on a CPU the paper's would take weeks."""
    return "fast" if device_of(TrainConfig(device=device)).type == "cpu" else "paper"


def initial(job: Job) -> State:
    """Return the network as the training begins, and its optimiser.

    Raises
    ------
    OptionError
        If the model to start from is another network than the recipe's.
    """
    config = job.config
    spec = config.network(job.data.channels)
    if config.class_names and len(config.class_names) != config.classes:
        raise OptionError(
            f"{config.classes} classes need as many names, not {len(config.class_names)}: "
            f"{', '.join(config.class_names)}."
        )
    network = (job.start or new_model(spec, seed=config.seed)).ours.to(job.device)
    _require_same(spec, network.spec)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 the common base has no other name
            module.momentum = _STATISTICS_MOMENTUM
    optimiser = _optimiser(config, network)
    average = averaged(network, config.averaging) if config.averaging else None
    scaler = GradScaler(job.device.type, enabled=config.precision == "float16")
    return State(network, optimiser, scaler, average)


def _optimiser(config: TrainConfig, network: Network) -> Optimizer:
    """Return what turns gradients into steps."""
    if config.optimiser == "adam":
        return torch.optim.Adam(network.parameters(), lr=config.learning_rate, betas=(config.momentum, 0.999))
    return torch.optim.SGD(network.parameters(), lr=config.learning_rate, momentum=config.momentum)


def _require_same(wanted: NetworkSpec, found: NetworkSpec) -> None:
    """Compare the network of the recipe with that of the model to start from; dropout has no weights."""
    for name, value in asdict(wanted).items():
        if name != "dropout" and getattr(found, name) != value:
            raise OptionError(
                f"The model to start from has {name} = {getattr(found, name)!r}, but the training wants {value!r}. "
                "Give both the same, or start from nothing."
            )


def model_of(job: Job, state: State) -> Model:
    """Return the network that is kept as it is now, with its record.

    No date and no duration: a model file is a function of data, recipe and seed, so that a training that was
    killed and resumed ends with the bytes of one that was not. The CSV beside it has the seconds.
    """
    config, data, progress = job.config, job.data, state.progress
    names = config.class_names or ("background", *(f"class {index}" for index in range(1, config.classes)))
    header = ModelHeader(
        network=state.kept.spec,
        normalisation=data.normalisation,
        class_names=names,
        spacing=data.spacing,
        unit=data.unit,
        objects=_objects(data.objects[0], progress),
        training={
            "recipe": config.to_record(),
            "seed": config.seed,
            "processes": job.team.size,
            "started_from": job.start.checksum if job.start else None,
            "iterations": progress.iteration,
            "target_kind": data.decision.kind,
            "images": len(data.images),
            "held_out": [image.name for image in data.held_out],
            "validation": {key: _finite(value) for key, value in (progress.scores or {}).items()},
            "files": [{"name": name, "sha256": digest} for name, digest in data.files],
            "torch": str(torch.__version__),
        },
    )
    return Model(state.kept, header, tensor_checksum(state.kept.state_dict()))


def _objects(usual: ObjectRule, progress: Progress) -> ObjectRule:
    """Return how objects are made: as was best on the held-out images, where there were any."""
    found = (progress.scores or {}).get("objects")
    return ObjectRule.from_json(found["rule"]) if isinstance(found, dict) else usual


def _finite(value: object) -> object:
    """Replace NaN, which JSON does not know, by None."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
