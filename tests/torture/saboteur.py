"""A plugin that breaks workers on order: whoever runs the network next takes a ticket, and does what it says.

Tickets are files of a folder, and to take one is to rename it, so that every fault happens once, in whichever
process. Nothing of the product is changed but that its network is asked first.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Seconds for which a stopped worker stands still: a moment, and beyond the 30 s after which connections time out.
STOPPED = {"stop": 2.0, "freeze": 45.0}


def order(folder: Path, faults: list[str]) -> None:
    """Write tickets, to be taken in this order."""
    (folder / "taken").mkdir(parents=True, exist_ok=True)
    first = len(list((folder / "taken").iterdir())) + len(list(folder.glob("*.*")))
    for number, fault in enumerate(faults, first):
        (folder / f"{number:06d}.{fault}").touch()


def left(folder: Path) -> list[str]:
    """Return the faults that have not happened yet."""
    return [path.suffix[1:] for path in sorted(folder.glob("*.*"))]


def taken(folder: Path) -> list[str]:
    """Return the faults that have happened."""
    return [path.suffix[1:] for path in sorted((folder / "taken").iterdir())]


def take(folder: Path, *kinds: str) -> str:
    """Return the next fault, of these kinds if any are named; "" if there is none."""
    for path in sorted(folder.glob("*.*")):
        fault = path.suffix[1:]
        if (fault in kinds) if kinds else not fault.startswith("then-"):
            with suppress(FileNotFoundError):  # another worker was faster
                path.rename(folder / "taken" / path.name)
                return fault
    return ""


def _die(folder: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _segfault(folder: Path) -> None:
    ctypes.string_at(0)


def _stand_still(seconds: float) -> Callable[[Path], None]:
    def stop(folder: Path) -> None:
        subprocess.Popen(["sh", "-c", f"sleep {seconds}; kill -CONT {os.getpid()}"])
        os.kill(os.getpid(), signal.SIGSTOP)

    return stop


def _no_memory(folder: Path) -> None:
    raise MemoryError("planted")


def _no_device_memory(folder: Path) -> None:
    import torch

    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total of 8 GiB."
    )


def _broken_model(folder: Path) -> None:
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied\n(planted)")


def _hang(folder: Path) -> None:
    time.sleep(3600)


#: Faults of a worker. "then-" ones happen when a worker that died starts again.
FAULTS: dict[str, Callable[[Path], None]] = {
    "kill": _die,
    "segfault": _segfault,
    **{name: _stand_still(seconds) for name, seconds in STOPPED.items()},
    "memory": _no_memory,
    "cuda": _no_device_memory,
    "model": _broken_model,
    "hang": _hang,
}
#: Those after which the process is another one.
DEADLY = ("kill", "segfault")


class Saboteur:
    """Worker plugin: asks for a ticket whenever the network is run, and when a worker starts.

    Parameters
    ----------
    folder : of the tickets
    poisoned : start of a region whose worker suffers whenever it writes it; None for none
    poison : what it suffers
    leak : bytes that a worker loses with every region that it writes
    filled : share of a worker's memory that is taken when it starts
    """

    def __init__(
        self,
        folder: Path,
        *,
        poisoned: tuple[int, ...] | None = None,
        poison: str = "kill",
        leak: int = 0,
        filled: float = 0.0,
    ) -> None:
        self.name = "saboteur"
        self._folder = folder
        self._poisoned = poisoned
        self._poison = poison
        self._leak = leak
        self._filled = filled

    def setup(self, worker: Any) -> None:
        """Die if a ticket says so, else stand between the product and its network."""
        from unet_dask.engine.backend import TorchBackend
        from unet_dask.io.sink.store import Sink, checksum

        if take(self._folder, "then-exit"):
            os._exit(5)
        folder, poisoned, poison, leak = self._folder, self._poisoned, self._poison, self._leak
        taken = (
            int(self._filled * (worker.memory_manager.memory_limit or 0)) - psutil.Process().memory_info().rss
        )
        self._lost = [_resident(taken)]
        lost = self._lost
        logits, write = _original(TorchBackend, "logits"), _original(Sink, "write")

        def asked(self: TorchBackend, tile: Any) -> Any:
            fault = take(folder)
            if fault in FAULTS:
                FAULTS[fault](folder)
            return logits(self, tile)

        def written(self: Sink, name: str, level: int, start: Any, values: Any) -> str:
            if poisoned is not None and (level, tuple(start)) == (0, poisoned):
                FAULTS[poison](folder)
            if level == 0:
                lost.append(_resident(leak))
            if level == 0 and take(folder, "then-lie"):
                write(self, name, level, start, values[..., ::-1])
                return checksum(values, start)
            digest: str = write(self, name, level, start, values)
            return digest

        TorchBackend.logits = asked  # type: ignore[method-assign] # that is the point
        Sink.write = written  # type: ignore[method-assign]

    def teardown(self, worker: Any) -> None:
        """Leave the product as it was."""
        from unet_dask.engine.backend import TorchBackend
        from unet_dask.io.sink.store import Sink

        TorchBackend.logits = _original(TorchBackend, "logits")  # type: ignore[method-assign]
        Sink.write = _original(Sink, "write")  # type: ignore[method-assign]


def _resident(size: int) -> bytes:
    """Return bytes that were written, and so take memory; none for less than one."""
    return b"x" * size


def _original(kind: type, name: str) -> Any:
    """Return a method as the product has it, however often it was replaced."""
    kept = f"_undisturbed_{name}"
    if kept not in kind.__dict__:
        setattr(kind, kept, getattr(kind, name))
    return kind.__dict__[kept]
