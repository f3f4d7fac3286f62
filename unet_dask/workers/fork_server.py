"""The process that workers are forked from: it loads what they need, and then does nothing but fork.

A worker that is spawned imports torch and Dask for three seconds of a processor. One that is forked here is there at
once. What makes forking dangerous never happens in this process: it has one thread, opens no device, runs no network,
and no script of the user's is imported into it. It ends with its driver, whatever ends that, and so do its workers.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import signal
import socket
import sys
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker, spawn
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What a worker would import, from the largest to what its tasks are unpickled with.
LOADED = (
    "torch",
    "distributed.nanny",
    "unet_dask.engine.backend",
    "unet_dask.engine.cache",
    "unet_dask.engine.infer",
    "unet_dask.io.source.resolve",
    "unet_dask.model.file",
    "unet_dask.run.execute",
    "unet_dask.workers.forking",
)
#: What a driver asks for: a worker, or that the server ends once it has no workers.
FORK, RETIRE = b"f", b"r"
#: Descriptors that may come with a request.
_MOST = 64
#: Seconds without workers or requests after which the server ends; who needs one again starts another.
_IDLE = 600.0
#: Asks Linux for a signal when the parent ends.
_PR_SET_PDEATHSIG = 1


def serve(control: int) -> None:
    """Fork a worker for each request of the driver, until it has gone.

    Parameters
    ----------
    control : descriptor of a socket to the driver
    """
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a terminal sends Ctrl-C to all; workers end with the driver
    for name in LOADED:
        importlib.import_module(name)
    if not _harmless():
        sys.exit(1)
    os.chdir("/")
    gc.collect()
    gc.freeze()  # else collections in the workers would write to all pages, and each would have its own
    with socket.socket(fileno=control) as driver:
        _Server(driver).run()


def _harmless() -> bool:
    """Return whether a fork of this process is whole: it has no other thread, and has not touched a card."""
    import torch

    cuda: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return not cuda and len(list(Path("/proc/self/task").iterdir())) == 1


class _Server:
    """What is known of the driver and the workers.

    Parameters
    ----------
    driver : a socket; at its end the driver has gone
    """

    def __init__(self, driver: socket.socket) -> None:
        self._driver = driver
        self._retired = False
        #: process -> where the driver reads its number, and what became of it
        self._workers: dict[int, int] = {}

    def run(self) -> None:
        """Serve, until nobody is left who could ask."""
        with _children_heard() as heard, DefaultSelector() as selector:
            selector.register(self._driver, EVENT_READ)
            selector.register(heard, EVENT_READ)
            while self._workers or not self._retired:
                ready = [key.fileobj for key, _ in selector.select(_IDLE)]
                if not ready and not self._workers:
                    return
                if heard in ready:
                    os.read(heard, 1 << 16)
                    self._tell_of_the_dead()
                if self._driver in ready and not self._asked():
                    return

    def _asked(self) -> bool:
        """Do what the driver asks for; return whether there still is one."""
        request, descriptors, *_ = socket.recv_fds(self._driver, 1, _MOST)
        if request == FORK:
            self._fork(descriptors)
        self._retired |= request == RETIRE
        return bool(request)

    def _fork(self, descriptors: list[int]) -> None:
        server = os.getpid()
        worker = os.fork()
        if not worker:
            for inherited in self._workers.values():
                os.close(inherited)
            self._driver.close()
            _work(server, descriptors)
        fate = descriptors.pop(1)
        for each in descriptors:
            os.close(each)
        self._workers[worker] = fate
        _tell(fate, worker)

    def _tell_of_the_dead(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if fate := self._workers.pop(ended[0], None):
                    _tell(fate, os.waitstatus_to_exitcode(ended[1]))
                    os.close(fate)


def _work(server: int, descriptors: list[int]) -> NoReturn:
    """Be the worker that a driver describes."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == server:  # else it ended before it was asked to take this process along
            code = _be(*descriptors)
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(code)


def _be(orders: int, fate: int, tracker: int, output: int, error: int, *theirs: int) -> int:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(fate)
    for ours, standard in ((output, 1), (error, 2)):
        os.dup2(ours, standard)
        os.close(ours)
    # What the server of Python's own, whose protocol the two ends of this process follow, would do.
    resource_tracker._resource_tracker._fd = tracker  # type: ignore[attr-defined] # noqa: SLF001
    forkserver._forkserver._inherited_fds = list(theirs)  # type: ignore[attr-defined] # noqa: SLF001
    return spawn._main(orders, os.dup(orders))  # noqa: SLF001


@contextmanager
def _children_heard() -> Iterator[int]:
    """Yield a descriptor that can be read when a child has ended."""
    heard, says = os.pipe()
    for each in (heard, says):
        os.set_blocking(each, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # one that is ignored would not be heard
    signal.set_wakeup_fd(says)
    yield heard


def _tell(fate: int, number: int) -> None:
    with suppress(BrokenPipeError):  # whoever started the worker wants to know nothing more of it
        forkserver.write_signed(fate, number)
