"""Models that a name stands for: the bundled one, and those in the folders of models.

A name is the stem of a file: ``isbi2012`` stands for ``isbi2012.safetensors``. Looked through are, in this order, the
package, the folders that the variable `UNET_DASK_MODELS` lists, the user's own folder of models, and the folder
``models`` of a clone that the package is installed from. What is found first counts.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

#: Variable that lists folders, as `PATH` does.
FOLDERS = "UNET_DASK_MODELS"
_SUFFIX = ".safetensors"


def folders() -> tuple[Path, ...]:
    """Return the folders that named models lie in, those that are looked at first in front; some may not exist."""
    package = Path(str(files("unet_dask")))
    listed = [Path(each).expanduser() for each in os.environ.get(FOLDERS, "").split(os.pathsep) if each]
    of_user = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "unet-dask" / "models"
    clone = [package.parent / "models"] if (package.parent / "pyproject.toml").is_file() else []
    return package / "model" / "bundled", *listed, of_user, *clone


def named_models() -> dict[str, Path]:
    """Return the file of every named model, in the order of their names.

    Examples
    --------
    >>> named_models()["nuclei"].name
    'nuclei.safetensors'
    """
    found = {path.stem: path for folder in reversed(folders()) for path in folder.glob(f"*{_SUFFIX}")}
    return dict(sorted(found.items()))
