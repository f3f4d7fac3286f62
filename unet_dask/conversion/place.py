"""Where an image is written: never over what is somebody else's, and never half."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import zarr

from unet_dask.errors import OptionError, SinkError
from unet_dask.io import remote

if TYPE_CHECKING:
    import os
    from pathlib import Path

#: Attribute of an image that a conversion wrote: not that of a result, which is taken for one.
MARK = "unet_dask_converted"


def required(output: str | os.PathLike[str], source: str, *, resume: bool, overwrite: bool) -> Path:
    """Return where an image can be written.

    Parameters
    ----------
    output : path
    source : of the image, which is only read
    resume, overwrite : what is to happen to something that is there

    Raises
    ------
    OptionError
        If it is a URL, has no name of a Zarr folder, or would lie in the source.
    SinkError
        If something is there.
    """
    if not remote.is_local(output):
        raise OptionError(
            f"{remote.redact_url(str(output))} is a URL. Convert to a local folder, and copy that: it is many small "
            "files less."
        )
    target = remote.local_path(output)
    if target.suffix != ".zarr":
        raise OptionError(f"{target.name} is no name of a Zarr folder. Name one that ends in .ome.zarr.")
    if remote.contains(source, str(target.absolute())) or remote.contains(str(target.absolute()), source):
        raise OptionError(f"{target} would lie in the image, or in its place. Name another folder.")
    if not target.parent.is_dir():
        raise SinkError(f"{target} cannot be written: there is no such folder. Make {target.parent} first.")
    _require_wanted(target, resume=resume, overwrite=overwrite)
    _require_ours(target)
    return target


def partial_of(target: Path) -> Path:
    """Return where an image lies until it is whole."""
    return target.with_name(f"{target.name}.partial")


def prepared(target: Path, *, overwrite: bool) -> Path:
    """Return the folder that is written to, with a group in it.

    Raises
    ------
    SinkError
        If it cannot be made.
    """
    folder = partial_of(target)
    try:
        if overwrite and folder.exists():
            shutil.rmtree(folder)
        if not (folder / "zarr.json").exists():
            zarr.create_group(folder)
    except OSError as error:
        raise SinkError(
            f"{folder} cannot be written: {error.strerror or error}. Name another folder."
        ) from error
    return folder


def _require_wanted(target: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to begin where something is, and to go on where nothing is."""
    partial = partial_of(target)
    if resume and not partial.is_dir():
        raise OptionError(f"There is no stopped conversion to {target}. Convert without --resume.")
    if resume or overwrite:
        return
    if target.exists():
        raise SinkError(f"{target} exists already. Name another folder, or replace it with --overwrite.")
    if partial.exists():
        raise SinkError(
            f"A conversion to {target} was stopped. Go on with --resume, or begin anew with --overwrite."
        )


def _require_ours(target: Path) -> None:
    """Refuse to replace what no conversion wrote."""
    if not target.exists():
        return
    try:
        said = json.loads((target / "zarr.json").read_text("utf-8"))["attributes"][MARK]
    except (OSError, ValueError, LookupError, TypeError):
        said = None
    if said is None:
        raise SinkError(
            f"{target} was not written by unet-dask convert, and is not replaced. Name another folder."
        )
