"""Stop and go on as if nothing had happened.

A checkpoint is one safetensors file with JSON in its metadata, written beside the model and atomically.
It holds the parameters, what the optimiser remembers of each, their average if there is one, and where the training is.
It holds no state of a random generator, because there is none: the randomness of an iteration is drawn from
(seed, iteration) alone, so a resumed training draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from unet_dask import private
from unet_dask.errors import MismatchError, ModelError, SinkError
from unet_dask.setting import by_present_names
from unet_dask.training.config import FORMER_NAMES, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor
    from torch.amp import GradScaler
    from torch.nn import Module
    from torch.optim import Optimizer

_FORMAT = "unet-dask-checkpoint/2"
#: Before the name of a parameter, a colon, and the name of what the optimiser remembers of it.
_OPTIMISER = "optimiser/"
#: Settings that may differ when a training is resumed: they change no iteration that is done.
_MAY_DIFFER = frozenset({"iterations", "checkpoint_every", "threads", "device", "validate_every"})


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training is.

    Attributes
    ----------
    iteration : completed
    best : highest validation score so far, or None before the first
    best_iteration : of that score
    scores : of the best validation, see `validate.Scores`
    seconds : of training so far
    """

    iteration: int = 0
    best: float | None = None
    best_iteration: int = 0
    scores: Mapping[str, object] | None = None
    seconds: float = 0.0


def checkpoint_path(output: Path) -> Path:
    """Return where the checkpoint of a model file lies.

    Examples
    --------
    >>> from pathlib import Path
    >>> checkpoint_path(Path("cells.safetensors")).name
    'cells.checkpoint'
    """
    return output.with_suffix(".checkpoint")


def save_checkpoint(
    path: Path,
    modules: Mapping[str, Module],
    optimiser: Optimizer,
    scaler: GradScaler,
    *,
    progress: Progress,
    fingerprint: Mapping[str, object],
) -> None:
    """Write a checkpoint atomically.

    Parameters
    ----------
    path : to write
    modules, optimiser, scaler : their state is stored; `modules` by name, one of them is "network"
    progress : where the training is
    fingerprint : plain JSON that must be the same at a resume: settings and data
    """
    from safetensors.torch import save

    tensors = {
        f"{name}.{key}": _stored(value)
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    for name, parameter in modules["network"].named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"{_OPTIMISER}{name}:{key}"] = _stored(value)
    record = {"format": _FORMAT, "progress": asdict(progress), "fingerprint": fingerprint}
    record["scaler"] = scaler.state_dict()  # scale and counters; empty unless it is in use
    try:
        private.write(path, save(tensors, metadata={"unet_dask_checkpoint": json.dumps(record)}))
    except OSError as error:
        raise SinkError(f"The checkpoint cannot be written to {path}: {error.strerror or error}.") from error


def load_checkpoint(
    path: Path,
    modules: Mapping[str, Module],
    optimiser: Optimizer,
    scaler: GradScaler,
    *,
    fingerprint: Mapping[str, object],
) -> Progress:
    """Put networks and optimiser into the state of a checkpoint, in place.

    Raises
    ------
    ModelError
        If the file is no checkpoint of ours, or of another network.
    MismatchError
        If the training was begun with other settings or other data; the message names them.
    """
    from safetensors.torch import load_file

    try:
        with safe_open(path, framework="numpy") as opened:
            metadata = opened.metadata() or {}
        record = json.loads(metadata["unet_dask_checkpoint"])
        tensors = load_file(path)
        progress = Progress(**record["progress"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path} is not a checkpoint of a training that can be resumed ({error})."
        ) from error
    if record.get("format") != _FORMAT:
        raise ModelError(
            f"{path} was written by another version of unet-dask ({record.get('format')}, this one reads {_FORMAT}). "
            "Finish the training with that version, or begin a new one."
        )
    _require_same(record["fingerprint"], fingerprint)
    for name, module in modules.items():
        prefix = f"{name}."
        try:
            module.load_state_dict(
                {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            )
        except RuntimeError as error:
            raise ModelError(f"{path} does not fit the {name} that it was made for.") from error
    parameters = dict(modules["network"].named_parameters())
    for name, value in tensors.items():
        if name.startswith(_OPTIMISER):
            owner, _, key = name.removeprefix(_OPTIMISER).partition(":")
            # Adam counts its steps in a scalar that stays on the CPU.
            optimiser.state[parameters[owner]][key] = (
                value.to(parameters[owner].device) if value.ndim else value
            )
    if scaler.is_enabled():
        scaler.load_state_dict(record["scaler"])
    return progress


def _require_same(before: Mapping[str, Any], now: Mapping[str, object]) -> None:
    """Compare fingerprints, setting by setting."""
    if before.get("files") != _plain(now)["files"]:
        raise MismatchError(
            "The training to resume was begun with other images or targets. Give the same files, or write to "
            "another model."
        )
    if before.get("start") != now["start"]:
        raise MismatchError(
            "The training to resume was begun from another model. Give the same --start, or write to another model."
        )
    # A setting that is younger than the checkpoint had then what is its default now.
    begun, given = (
        {**TrainConfig().to_record(), **_config(each), "processes": each.get("processes", 1)}
        for each in (before, _plain(now))
    )
    for name in {**given, **begun}:
        if name not in _MAY_DIFFER and begun.get(name) != given.get(name):
            raise MismatchError(
                f"The training to resume was begun with {name} = {begun.get(name)!r}, not {given.get(name)!r}. "
                "Give the same value, or write to another model."
            )


def _config(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a fingerprint, by the names that they have now."""
    return by_present_names(fingerprint.get("config", {}), FORMER_NAMES)


def _plain(record: Mapping[str, object]) -> dict[str, Any]:
    """Return a record as JSON gives it back: with lists for tuples."""
    return dict(json.loads(json.dumps(record)))


def _stored(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()
