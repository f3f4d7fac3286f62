"""Workers that are forked: loaded once, with what the driver has now, and gone with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import unet_dask
from unet_dask.workers import forking
from unet_dask.workers.cluster import local_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unet_dask.workers.cluster import Cluster

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")


@contextmanager
def workers(count: int = 1) -> Iterator[Cluster]:
    with local_cluster(workers=count, threads=1, limit=2 << 30, device="cpu") as cluster:
        cluster.client.wait_for_workers(count, timeout=120)
        yield cluster


def told(cluster: Cluster, question: Callable[[], Any]) -> Any:
    """Return what all workers answer alike."""
    answers = list(cluster.client.run(question).values())
    assert all(answer == answers[0] for answer in answers)
    return answers[0]


def gone(process: int) -> bool:
    """Wait until a process is no more."""
    with suppress(psutil.NoSuchProcess):
        one = psutil.Process(process)
        with suppress(psutil.TimeoutExpired):
            one.wait(60)
        return not one.is_running() or one.status() == psutil.STATUS_ZOMBIE
    return True


def test_one_process_loads_what_all_workers_of_all_runs_need() -> None:
    def loaded() -> bool:
        return "unet_dask.engine.backend" in sys.modules

    with workers(2) as cluster:
        first = told(cluster, os.getppid)
        assert told(cluster, loaded)
        assert len(set(cluster.client.run(os.getpid).values())) == 2
    with workers() as cluster:
        assert told(cluster, os.getppid) == first != os.getpid()


def test_what_forks_has_one_thread_and_no_card_and_no_script_of_the_user() -> None:
    def state() -> tuple[int, bool, str | None]:
        import torch

        own = getattr(sys.modules["__main__"], "__file__", None)
        cuda: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return len(list(Path(f"/proc/{os.getppid()}/task").iterdir())), cuda, own

    with workers() as cluster:
        assert told(cluster, state) == (1, False, None)


def test_variables_reach_workers_of_the_same_server_or_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def variables() -> dict[str, str | None]:
        return {name: os.environ.get(name) for name in ("UNET_DASK_OF_A_TEST", "LIBRARY_SETTING")}

    with workers() as cluster:
        server = told(cluster, os.getppid)
    monkeypatch.setenv("UNET_DASK_OF_A_TEST", "1")
    with workers() as cluster:
        assert told(cluster, os.getppid) == server
        assert told(cluster, variables) == {"UNET_DASK_OF_A_TEST": "1", "LIBRARY_SETTING": None}
    monkeypatch.delenv("UNET_DASK_OF_A_TEST")
    monkeypatch.setenv("LIBRARY_SETTING", "of a library that reads it while it is imported")
    with workers() as cluster:
        assert told(cluster, os.getppid) != server
        assert told(cluster, variables) == dict(os.environ.items() & variables().items()) | {
            "UNET_DASK_OF_A_TEST": None
        }
    assert gone(server)


def test_variables_that_count_when_a_process_starts_were_there() -> None:
    def at_start() -> dict[str, str]:
        given = Path(f"/proc/{os.getppid()}/environ").read_bytes().decode().split("\0")
        return dict(each.split("=", 1) for each in given if each)

    with workers() as cluster:
        found = told(cluster, at_start)
    assert {
        name: found[name] for name in ("MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "OPENBLAS_NUM_THREADS")
    } == {
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_MAX_": "0",
        "OPENBLAS_NUM_THREADS": "1",
    }


def test_threads_are_those_of_the_run_whichever_the_server_was_started_with() -> None:
    def threads() -> int:
        import torch

        return torch.get_num_threads()

    for count in (1, 3):
        with local_cluster(workers=1, threads=count, limit=2 << 30, device="cpu") as cluster:
            assert told(cluster, threads) == count
            assert told(cluster, lambda: os.environ["OMP_NUM_THREADS"]) == str(count)


def test_folder_mask_and_cores_are_those_of_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def state() -> tuple[int, set[int]]:
        before = os.umask(0)
        os.umask(before)
        return before, os.sched_getaffinity(0)

    monkeypatch.chdir(tmp_path)
    mask, cores = os.umask(0o027), os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        with workers() as cluster:
            assert told(cluster, state) == (0o027, {min(cores)})
            assert told(cluster, os.getcwd) == str(tmp_path)
            assert not set(sys.path) - set(told(cluster, lambda: sys.path))
    finally:
        os.umask(mask)
        os.sched_setaffinity(0, cores)


def test_output_goes_where_that_of_the_driver_goes_now(capfd: pytest.CaptureFixture[str]) -> None:
    with workers():
        pass
    capfd.readouterr()
    with workers() as cluster:
        cluster.client.run(os.write, 2, b"a worker's own words\n")
    assert "a worker's own words" in capfd.readouterr().err


def test_server_that_is_killed_is_replaced_and_the_run_goes_on(
    tiny_model: Path, source: Path, tmp_path: Path
) -> None:
    first: list[int] = []

    def kill(event: Any) -> None:
        if not first and forking._server:
            first.append(forking._server.process.pid)
            os.kill(first[0], signal.SIGKILL)

    settings: dict[str, Any] = {"region": (32, 32), "tile": (32, 32), "chunks": (32, 32), "workers": 2}
    run = unet_dask.segment_store(source, tmp_path / "out.zarr", tiny_model, on_event=kill, **settings)
    assert first
    assert run.computed == 9
    assert forking._server is not None
    assert forking._server.process.pid != first[0]
    assert unet_dask.verify_store(tmp_path / "out.zarr", tiny_model).findings == ()


def test_ctrl_c_and_dead_workers_leave_the_server() -> None:
    with workers() as cluster:
        server, worker = told(cluster, os.getppid), told(cluster, os.getpid)
        os.kill(server, signal.SIGINT)
        os.kill(worker, signal.SIGKILL)
        assert gone(worker)
        cluster.client.wait_for_workers(1, timeout=120)
        deadline = time.monotonic() + 120
        while cluster.client.submit(os.getpid, pure=False).result(timeout=120) == worker:
            assert time.monotonic() < deadline
        assert told(cluster, os.getppid) == server


#: Says which processes there are, and waits to be killed.
WAITS = """
import json, os, sys, time
from unet_dask.workers.cluster import local_cluster

with local_cluster(workers=2, threads=1, limit=2 << 30, device="cpu") as cluster:
    cluster.client.wait_for_workers(2)
    print(json.dumps(sorted({*cluster.client.run(os.getpid).values(), *cluster.client.run(os.getppid).values()})))
    sys.stdout.flush()
    time.sleep(600)
"""


@pytest.mark.parametrize("whom", ["driver", "group"])
def test_nothing_is_left_of_a_driver_that_is_killed(whom: str) -> None:
    driver = subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, start_new_session=True)
    assert driver.stdout
    with driver.stdout:
        processes = json.loads(driver.stdout.readline())
    assert len(processes) == 3
    os.kill(processes[1], signal.SIGSTOP)  # one that stands still would not notice by itself
    (os.killpg if whom == "group" else os.kill)(driver.pid, signal.SIGKILL)
    driver.wait()
    assert all(gone(each) for each in processes)


def test_where_nothing_may_be_forked_workers_are_spawned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Such as with a debugger, which has a thread in every process."""
    threads = (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    (tmp_path / "sitecustomize.py").write_text(threads)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with workers() as cluster:
        assert told(cluster, os.getppid) == os.getpid()
    assert forking._server is not None
    assert forking._server.process.returncode == 1


def test_method_is_that_of_runs_alone_and_not_of_cards() -> None:
    import multiprocessing

    import dask

    from unet_dask.workers.cluster import _start_method

    setting = "distributed.worker.multiprocessing-method"
    with workers():
        within = dask.config.get(setting)
        assert within.startswith("unet-dask")
    assert dask.config.get(setting) == "spawn"
    with pytest.raises(ValueError, match="cannot find context"):
        multiprocessing.get_context(within)
    with _start_method({}, "cuda") as method:
        assert method == {setting: "spawn"}


def test_copies_of_a_process_have_no_server_of_it() -> None:
    with workers():
        pass
    ours = forking._server
    copy = os.fork()  # as multiprocessing does by default, in a user's own processes
    if not copy:
        os._exit(0 if forking._server is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 0
    assert ours is not None
    assert not ours.ended()


def test_server_ends_with_its_socket() -> None:
    with workers():
        pass
    server = forking._server
    assert server is not None
    server.end()
    assert gone(server.process.pid)
