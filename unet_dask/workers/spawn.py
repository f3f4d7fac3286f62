"""Worker processes that do not run the user's script again.

Python's spawned processes import the script that started them, for functions that they may be sent. Ours are sent
none of its own, and a script without ``if __name__ == "__main__":`` would start the run anew in each of them.
"""

from __future__ import annotations

import multiprocessing
import threading
from contextlib import contextmanager
from multiprocessing import spawn
from typing import TYPE_CHECKING, Any

from unet_dask.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What distributed calls the process of a worker.
_WORKER = "Dask Worker process"
_lock = threading.Lock()
_open = 0
_before = spawn.get_preparation_data


def require_started() -> None:
    """Refuse to start processes within one that is itself only being started.

    Raises
    ------
    OptionError
        If a process that the user started imports her script, which calls us outside of the guard.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise OptionError(
            "A process of yours imports your script, and the script starts a run while it is imported. Put what it "
            'does below if __name__ == "__main__":'
        )


@contextmanager
def script_left_out() -> Iterator[None]:
    """Start workers without the user's script, now and whenever one is started again."""
    global _open  # noqa: PLW0603 # several runs of a process may overlap
    require_started()
    with _lock:
        _open += 1
        spawn.get_preparation_data = _prepared
    try:
        yield
    finally:
        with _lock:
            _open -= 1
            if not _open:
                spawn.get_preparation_data = _before


def _prepared(name: str) -> dict[str, Any]:
    """Return what a process is told as it starts; of the script nothing, if it is a worker."""
    data: dict[str, Any] = _before(name)
    if not name.startswith(_WORKER):
        return data
    return {key: value for key, value in data.items() if not key.startswith("init_main_from")}
