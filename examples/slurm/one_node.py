"""Slurm on this machine alone: munged, slurmctld and slurmd in a temporary folder, for one command.

    python examples/slurm/one_node.py sbatch --wait job.sh
    python examples/slurm/one_node.py --cpus 8 bash

The command, and what it starts, find this Slurm by the variable SLURM_CONF; when it ends, jobs are cancelled, Slurm is
stopped and the folder removed. On Debian: apt-get install slurm-wlm munge. Daemons listen on the loopback interface
only, and run as whoever calls this. Memory is held to `--mem` without control groups: slurmd looks every second, and
kills what holds more.
"""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DAEMONS = ("munged", "slurmctld", "slurmd")
#: Where Debian keeps them, which need not be on the path of a user.
_PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
#: Seconds that they may take to be ready, and to end.
_PATIENCE = 120.0

_CONFIGURATION = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=5,sched_interval=5,batch_sched_delay=0
JobRequeue=1
KillWait=10
MinJobAge=3600
MaxArraySize=1001
ReturnToService=2
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=one Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Return the programs of Slurm that this machine does not have."""
    return [
        name for name in (*DAEMONS, "sbatch", "scontrol", "squeue") if not shutil.which(name, path=_PLACES)
    ]


@contextmanager
def one_node(*, cpus: int, memory: int) -> Iterator[dict[str, str]]:
    """Start Slurm, and stop it in the end.

    Parameters
    ----------
    cpus : that jobs may share; more than the machine has are shared by the kernel
    memory : that jobs may share, in MiB

    Yields
    ------
    the environment for commands that are to use it

    Raises
    ------
    RuntimeError
        If it does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="one-node-") as name, ExitStack() as opened:
        folder, host = Path(name), socket.gethostname().partition(".")[0]
        (folder / "state").mkdir()
        (folder / "spool").mkdir()
        controller, node = _free_ports(2)
        configuration = folder / "slurm.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                host=host,
                controller=controller,
                node=node,
                folder=folder,
                user=getpass.getuser(),
                cpus=cpus,
                memory=memory,
            ),
            encoding="ascii",
        )
        environment = os.environ | {"SLURM_CONF": str(configuration), "PATH": _PLACES}
        for command in _commands(folder):
            opened.enter_context(_running(command, environment, folder))
        _wait_until_idle(environment, folder)
        try:
            yield environment
        finally:
            _cancel_all(environment, folder)


def _free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody listens on."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _commands(folder: Path) -> list[list[str]]:
    """Return the daemons, each as a process that stays in the foreground."""
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    munge = [
        f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in ("socket", "pid-file", "log-file")
    ]
    return [
        [
            "munged",
            "--foreground",
            "--force",
            *munge,
            f"--key-file={key}",
            f"--seed-file={folder}/munge.seed",
        ],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D"],
    ]


@contextmanager
def _running(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    """Run a daemon; in the end it is asked to end, and then made to."""
    with (folder / f"{command[0]}.out").open("wb") as output:
        process = subprocess.Popen(
            [_program(command[0]), *command[1:]],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the command
        )
    try:
        if command[0] == "munged":
            _wait_for((folder / "munge.socket").exists, "munged", folder)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    def idle() -> bool:
        asked = [_program("sinfo"), "--noheader", "--format=%T"]
        answer = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
        return answer.stdout.strip() == "idle"

    _wait_for(idle, "slurmctld", folder)


def _cancel_all(environment: dict[str, str], folder: Path) -> None:
    """End all jobs: what slurmd has started goes on without it."""

    def over() -> bool:
        cancel = [_program("scancel"), "--full", f"--user={getpass.getuser()}"]
        subprocess.run(cancel, env=environment, capture_output=True, check=False)
        asked = [_program("squeue"), "--noheader"]
        return not subprocess.run(asked, env=environment, capture_output=True, check=False).stdout.strip()

    _wait_for(over, "the end of all jobs", folder)


def _program(name: str) -> str:
    return str(shutil.which(name, path=_PLACES))


def _wait_for(ready: Callable[[], bool], name: str, folder: Path) -> None:
    """Wait until something is ready, but not for ever."""
    patience = time.monotonic() + _PATIENCE
    while not ready():
        if time.monotonic() > patience:
            logs = "\n".join(each.read_text(errors="replace")[-2000:] for each in folder.glob("*.[lo]*"))
            raise RuntimeError(f"{name} is not ready after {_PATIENCE:.0f} seconds:\n{logs}")
        time.sleep(0.2)


def main() -> int:
    """Run a command beside a Slurm of its own, and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cpus", type=int, default=os.cpu_count() or 1, help="that jobs share [those here]")
    parser.add_argument("--memory", type=int, default=0, help="that jobs share, in MiB [that of the machine]")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run")
    asked = parser.parse_args()
    if lacking := missing():
        print(
            f"There is no {', '.join(lacking)} here. On Debian: apt-get install slurm-wlm munge",
            file=sys.stderr,
        )
        return 2
    memory = asked.memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    with one_node(cpus=asked.cpus, memory=memory) as environment:
        return subprocess.run(asked.command or ["bash"], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
