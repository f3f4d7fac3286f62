"""Workers forked from a server of this process, which has loaded torch and Dask once for all of them.

Distributed starts workers by a method of :mod:`multiprocessing`; here is one more. Its server is started with the
first worker, and kept for later runs of the process. A spawned worker would have the environment, the limits and the
rights that the driver has at that moment. A forked one has them of the server, so a server is used as long as they are
the same, and else another is started. Where there can be none, workers are spawned. All of this is of Linux.
"""

from __future__ import annotations

import atexit
import io
import itertools
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import (
    context,
    forkserver,
    popen_forkserver,
    popen_spawn_posix,
    reduction,
    resource_tracker,
    spawn,
    util,
)
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet_dask.workers import fork_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: What torch is told by a call, too.
_THREADS = "OMP_NUM_THREADS"
#: Beginnings of variables that need not be there while libraries are imported; they reach a worker of any server.
_LATE = (_THREADS, "MKL_NUM_THREADS", "UNET_DASK_", "PYTEST_CURRENT_TEST")
#: How often a server that has been killed is replaced for one worker.
_TRIES = 3
_numbers = itertools.count()


class _NoServerError(Exception):
    """Workers cannot be forked here."""


@contextmanager
def start_method(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the name of the method that distributed is to start workers by.

    Parameters
    ----------
    environment : of the workers, beside the variables of this process
    """
    name = f"unet-dask-{next(_numbers)}"
    known: dict[str, context.BaseContext] = context._concrete_contexts  # type: ignore[attr-defined] # noqa: SLF001 # there is no other way to make one known
    known[name] = _Context(environment)
    try:
        yield name
    finally:
        del known[name]
        with _lock:
            _bury()


class _Context(context.ForkServerContext):
    """Makes processes that are forked; it is asked for by name."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def Process(self, *arguments: Any, **options: Any) -> _Process:  # type: ignore[override] # noqa: N802 # multiprocessing's name
        """Return a process that is not started yet."""
        process = _Process(*arguments, **options)
        process.environment = self._environment
        return process


class _Process(context.ForkServerProcess):
    #: What a worker itself starts is spawned.
    _start_method = "spawn"
    environment: Mapping[str, str]

    @staticmethod
    def _Popen(process: Any) -> Any:  # noqa: N802 # multiprocessing's name
        process.environment = {**os.environ, **process.environment}
        try:
            return _Started(process)
        except _NoServerError:
            return popen_spawn_posix.Popen(process)

    def run(self) -> None:
        os.environ.clear()
        os.environ.update(self.environment)
        if "torch" in sys.modules and _THREADS in os.environ:
            import torch

            torch.set_num_threads(int(os.environ[_THREADS]))
        super().run()


class _Started(popen_forkserver.Popen):
    """A process that was forked, as its driver knows it."""

    _fds: list[int]

    def _launch(self, process: Any) -> None:
        described = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            reduction.dump(spawn.get_preparation_data(process.name), described)
            reduction.dump(process, described)
        finally:
            context.set_spawning_popen(None)
        self.sentinel, orders, self.pid = _forked(process.environment, self._fds)
        # As long as one end is open, the worker knows that this process lives.
        kept = os.dup(orders)
        self.finalizer = util.Finalize(self, _close, (kept, self.sentinel))
        with suppress(BrokenPipeError), open(orders, "wb") as file:  # noqa: PTH123
            file.write(described.getbuffer())


def _close(*descriptors: int) -> None:
    for each in descriptors:
        os.close(each)


@dataclass(frozen=True)
class _Server:
    """A server at work.

    Attributes
    ----------
    process : of the server
    control : socket to it; at its end the server ends, and its workers do
    inherited : what its workers inherit
    """

    process: subprocess.Popen[bytes]
    control: socket.socket
    inherited: tuple[object, ...]

    def ended(self) -> bool:
        return self.process.poll() is not None

    def retire(self) -> None:
        """Let it end once it has no workers."""
        with suppress(OSError):
            self.control.send(fork_server.RETIRE)

    def end(self) -> None:
        """Let it end now."""
        self.control.close()
        self.process.wait()


_lock = threading.Lock()
_server: _Server | None = None
#: Servers whose workers inherited something else, as long as they have any.
_retired: list[_Server] = []


def _forked(environment: Mapping[str, str], descriptors: list[int]) -> tuple[int, int, int]:
    """Have a worker forked; return where its fate is read, where its orders are written, and its number.

    Raises
    ------
    _NoServerError
        If it cannot be.
    """
    with _lock:
        for _ in range(_TRIES):
            server = _right_server(environment)
            with suppress(OSError, EOFError):  # it has just been killed
                return _asked(server, descriptors)
            server.process.wait()
    raise _NoServerError


def _asked(server: _Server, descriptors: list[int]) -> tuple[int, int, int]:
    fate, fate_end = os.pipe()
    orders_end, orders = os.pipe()
    try:
        tracker = resource_tracker.getfd()
        assert tracker is not None
        sent = [orders_end, fate_end, tracker, 1, 2, *descriptors]
        socket.send_fds(server.control, [fork_server.FORK], sent)
        os.close(fate_end)
        fate_end = -1
        return fate, orders, forkserver.read_signed(fate)
    except (OSError, EOFError):
        server.process.kill()
        os.close(fate)
        os.close(orders)
        raise
    finally:
        os.close(orders_end)
        if fate_end >= 0:
            os.close(fate_end)


def _right_server(environment: Mapping[str, str]) -> _Server:
    """Return a server whose workers inherit what those of this process would.

    Raises
    ------
    _NoServerError
        If the last one gave up by itself: another would, too.
    """
    global _server  # noqa: PLW0603 # one for all runs of a process
    inherited = _inherited(environment)
    _bury()
    if _server and _server.inherited != inherited:
        _server.retire()
        _retired.append(_server)
        _server = None
    if _server and _server.ended():
        if _server.process.returncode > 0:
            raise _NoServerError
        _server.end()
        _server = None
    if not _server:
        _server = _start(environment, inherited)
    return _server


def _start(environment: Mapping[str, str], inherited: tuple[object, ...]) -> _Server:
    """Start a server, which is ready some seconds later; what it is asked for waits."""
    ours, theirs = socket.socketpair()
    path = spawn.get_preparation_data("server")["sys_path"]
    code = (
        f"import sys; sys.path[:] = {path!r}; from unet_dask.workers.fork_server import serve; "
        f"serve({theirs.fileno()})"
    )
    with theirs:
        process = subprocess.Popen(
            [spawn.get_executable(), *util._args_from_interpreter_flags(), "-c", code],  # type: ignore[attr-defined] # noqa: SLF001
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # it may outlive what these are now, and whoever reads them would wait for it
            stderr=subprocess.DEVNULL,
        )
    return _Server(process, ours, inherited)


def _inherited(environment: Mapping[str, str]) -> tuple[object, ...]:
    """Return what a process has of the one that starts it, and cannot be given later."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return (
        tuple(sorted(each for each in environment.items() if not each[0].startswith(_LATE))),
        next((line for line in status.splitlines() if line.startswith("Umask:")), None),
        os.getresuid(),
        os.getresgid(),
        frozenset(os.sched_getaffinity(0)),
        os.getpriority(os.PRIO_PROCESS, 0),
        tuple(
            resource.getrlimit(getattr(resource, name))
            for name in dir(resource)
            if name.startswith("RLIMIT_")
        ),
        frozenset(each for each in signal.valid_signals() if signal.getsignal(each) is signal.SIG_IGN),
    )


def _bury() -> None:
    """Let go of the servers that have ended since they were retired."""
    for each in [server for server in _retired if server.ended()]:
        each.end()
        _retired.remove(each)


def _forget() -> None:
    """Have no servers: this process is a copy of the one that has."""
    global _lock, _server  # noqa: PLW0603
    for each in (*_retired, *([_server] if _server else ())):
        each.control.close()
    _lock = threading.Lock()
    _server = None
    _retired.clear()


def _end() -> None:
    with _lock:
        for each in (*_retired, *([_server] if _server else ())):
            each.end()


os.register_at_fork(after_in_child=_forget)
atexit.register(_end)
