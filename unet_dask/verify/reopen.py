"""A run made ready once more from what its sink says of it: source, model, settings.

For crops that are recomputed, and for a repair. The source is opened by its real path or URL, without whatever
secrets were in the address; the model is the one that is named, or else the file of that name here,
or a model with a name of its own, if it has the same weights.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet_dask.config import SegmentConfig
from unet_dask.errors import MismatchError, ModelError, UnetDaskError
from unet_dask.io import remote
from unet_dask.io.source.received import changed, mask_of, source_of
from unet_dask.model.file import inspect_model, verify_model
from unet_dask.model.named import named_models
from unet_dask.setting import restored

if TYPE_CHECKING:
    import os

    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.io.source.mask import Mask
    from unet_dask.io.source.received import Consent
    from unet_dask.io.source.volume import Source
    from unet_dask.model.file import ModelFile
    from unet_dask.verify.stored import Stored


@dataclass(frozen=True)
class Origin:
    """What a sink was made from.

    Attributes
    ----------
    source : open
    model : file of the run's weights
    mask : of what was segmented, None for everything
    """

    source: Source
    model: ModelFile
    mask: Mask | None = None


def find_model_of(manifest: Manifest, model: str | os.PathLike[str] | None) -> ModelFile:
    """Return the file of a run's model.

    Raises
    ------
    ModelError
        If the named model is another one, or none is named, and the run's is neither here nor has a name of its own.
    """
    wanted, name = manifest.model.checksum, manifest.model.name
    if model is not None:
        file = inspect_model(model)
        if file.checksum != wanted:
            raise ModelError(
                f"{file.path} is not the model of the run: its weights are {file.checksum[:12]}, those of {name} were "
                f"{wanted[:12]}. Name the right file with --model."
            )
        verify_model(file)
        return file
    for path in _candidates(name):
        with suppress(ModelError):
            file = inspect_model(path)
            if file.checksum == wanted:
                return file
    raise ModelError(
        f"The run's model {name} ({wanted[:12]}) is neither here nor among the named ones. Name its file with --model."
    )


def _candidates(name: str) -> list[Path]:
    """Return where a model of a file name may lie, of which nothing but the last part is believed."""
    here = Path(Path(name).name)
    return [each for each in (here, *named_models().values()) if each.is_file()]


def require_unchanged(manifest: Manifest, source: Source, mask: Mask | None, sink: str) -> None:
    """Raise if a source is not that of the run.

    Raises
    ------
    MismatchError
        Naming the field.
    """
    different = changed(manifest, source, mask)
    if different:
        raise MismatchError(
            f"{remote.redact_url(sink)} cannot be repaired: its source has changed since the run ({different}). "
            "Restore the source, or start over with segment --overwrite."
        )


def settings_of(stored: Stored) -> SegmentConfig:
    """Return the settings of a run; its plan follows from them and the source."""
    manifest, finest = stored.manifest, stored.arrays[0]
    side = dict(zip(finest.axes, finest.chunks, strict=True))
    recorded = manifest.recorded | {
        "plan.products": tuple(array.name for array in stored.arrays),
        "plan.region": _regions(stored),
        "plan.chunks": tuple(side[axis] for axis in stored.grid.axes if axis in "zyx"),
    }
    types: dict[str, Any] = {
        name: value for array in stored.arrays for name, value in array.product.settings.items()
    }
    return replace(restored(SegmentConfig, manifest.fingerprint, recorded), **types)


def _regions(stored: Stored) -> tuple[int, ...]:
    """Return the length of regions; a single one is as long as its shard, which may be longer than the volume."""
    finest = stored.arrays[0]
    sides = dict(zip(stored.grid.axes, stored.manifest.plan.region, strict=True))
    for axis, shard in zip(finest.axes, finest.shards or (), strict=False):
        sides[axis] = max(sides[axis], shard)
    return tuple(sides[axis] for axis in stored.grid.axes[-stored.dims :])


def find_origin(
    stored: Stored, model: str | os.PathLike[str] | None, consent: Consent
) -> tuple[Origin | None, list[str], str]:
    """Return source and model of a run.

    Returns
    -------
    both, None if one of them is not at hand; why not; and in what the source has changed, "" if in nothing
    """
    notes, different, manifest = [], "", stored.manifest
    source, file, mask = None, None, None
    try:
        source = source_of(manifest.fingerprint, consent)
        mask = mask_of(manifest.mask, source, consent)
        different = changed(manifest, source, mask, elsewhere=consent.elsewhere)
    except UnetDaskError as error:
        notes.append(f"the source is not at hand: {error}")
    try:
        file = find_model_of(manifest, model)
    except ModelError as error:
        if model is not None:
            raise
        notes.append(str(error))
    if source is None or file is None or different:
        return None, notes, different
    return Origin(source, file, mask), notes, different
