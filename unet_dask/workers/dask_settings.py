"""The user's own configuration of Dask: files in ~/.config/dask or DASK_CONFIG, and variables DASK_...

It may be faulty, or meant for another cluster. Workers of this machine are ours, so they are started with the
defaults of Dask and our settings alone. For a cluster that is already running it counts: it holds how to reach that.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from unet_dask.errors import OptionError


def require_dask() -> None:
    """Import Dask, or say whose configuration keeps it from being imported.

    Raises
    ------
    OptionError
        If a file is damaged, or a setting means nothing to Dask.
    """
    try:
        for module in ("dask.config", "distributed"):
            importlib.import_module(module)
    except Exception as error:
        where = _places()
        if not where or isinstance(error, ModuleNotFoundError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OptionError(
            f"Dask cannot start with your configuration of it ({', '.join(where)}): {reason.rstrip('.')}. Mend or "
            "remove that, or let DASK_CONFIG name an empty folder."
        ) from error


def defaults() -> dict[str, Any]:
    """Return Dask's own settings, as if the user had none."""
    import dask.config

    merged: dict[str, Any] = dask.config.merge(*dask.config.defaults)
    return merged


def _places() -> list[str]:
    """Return files and variables that a configuration may come from."""
    folder = Path(os.environ.get("DASK_CONFIG") or Path.home() / ".config" / "dask")
    files = [folder] if folder.is_file() else [*folder.glob("*.yaml"), *folder.glob("*.yml")]
    return [*map(str, sorted(files)), *sorted(name for name in os.environ if name.startswith("DASK_"))]
