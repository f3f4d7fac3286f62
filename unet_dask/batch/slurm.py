"""The script of an array of jobs for Slurm.

It is one file that needs nothing beside it, for people to read and change. What a job does when it ends too early is
in the script, since only there it is known why: the time limit, somebody's wish, or an accident.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from string import Template
from typing import TYPE_CHECKING

from unet_dask.errors import OptionError
from unet_dask.io.remote import redact
from unet_dask.printable import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unet_dask.batch.needs import Needs

#: Seconds before the time limit at which a run is told to end: a tenth of it, and within these. Slurm looks every half
#: minute, and may tell it so much earlier.
_WARNED, _WARNED_SHARE = (30, 300), 10

_SCRIPT = Template(
    r"""#!/bin/bash
# ${title}
# Submit it: sbatch job.sh
# Options before the name win over what stands here: sbatch --partition=long --account=lab --time=2-0 job.sh
# Submitted once more it goes on with what is left. To have that done where jobs were cancelled or lost for good:
#   sbatch --dependency=afternotok:JOBID job.sh
#SBATCH --job-name=${name}
#SBATCH --array=1-${parts}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=${cores}
${gpus}#SBATCH --mem=${memory}M
#SBATCH --time=${time}
#SBATCH --signal=B:USR1@${warned}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --chdir=${folder}
#SBATCH --output=${log}.%A_%a.log

program=(${program})
output=${output}

segment() {
    exec "$${program[@]}" segment \
${arguments}
        --part "$$SLURM_ARRAY_TASK_ID/${parts}" \
        -- ${sources}
}

# Some text that changes when something was finished.
finished() {
${finished}
}

# The time limit is near (USR1), or somebody wants the job to end (TERM): the run ends in order, and keeps what is done.
# One that takes too long to end is killed, which loses no more than what is in flight.
asked=
guard=
trap 'asked=time; kill -TERM "$$run" 2>/dev/null; (sleep ${patience}; kill -KILL -- "-$$run") & guard=$$!' USR1
trap 'asked=end; kill -TERM "$$run" 2>/dev/null' TERM

set -m # a process group for each run, which is ended with it
idle=0 # runs in succession that finished nothing
while true; do
    before=$$(finished)
    segment &
    run=$$!
    [ -z "$$asked" ] || kill -TERM "$$run" # it was asked for in between
    wait "$$run"
    while kill -0 "$$run" 2>/dev/null; do wait "$$run"; done # a signal ends waiting, not the run
    wait "$$run"
    code=$$?
    kill -KILL -- "-$$run" 2>/dev/null # what a driver leaves behind that was killed
    [ -z "$$guard" ] || kill -KILL -- "-$$guard" 2>/dev/null

    case "$$asked/$$code" in
        */0 | */1 | */2 | */4) exit "$$code" ;; # done, or nothing that another try would change
        end/*) exit "$$code" ;;                # Slurm itself requeues a job that it preempts
    esac
    [ "$$(finished)" = "$$before" ] && idle=$$((idle + 1)) || idle=0
    if [ "$$asked" = time ]; then
        if [ "$$idle" -gt 0 ] && [ "$${SLURM_RESTART_COUNT:-0}" -ge ${starts} ]; then
            echo "Nothing was finished within the time limit. Give jobs more: sbatch --time=... job.sh" >&2
            exit "$$code"
        fi
        echo "The time limit is near. What is done is kept, and the job goes back into the queue." >&2
        # By this name: the number of one job of an array is that of the whole array too.
        scontrol requeue "$${SLURM_ARRAY_JOB_ID}_$$SLURM_ARRAY_TASK_ID"
        exit "$$code"
    fi
    [ "$$idle" -lt ${tries} ] || exit "$$code"
    echo "The run has ended with $$code before it was done, and is gone on with." >&2
    sleep ${pause} # whatever befell it may be over by then
done
"""
)
#: Sizes of ledgers, without a look at the chunks of arrays; of an object store, what the result says of itself.
_FINISHED = """\
    find "$output" -name c -prune -o -path '*/_unet_dask/ledger*' -type f -printf '%p %s\\n' 2>/dev/null |
        sort | cksum"""
_FINISHED_REMOTELY = """\
    "${program[@]}" info "$output" --json 2>/dev/null | cksum"""
#: Starts of a job after which it is not put back into the queue if a run until the time limit finished nothing; runs
#: in succession that finished nothing before a job gives up; seconds between two.
_STARTS, _TRIES, _PAUSE = 2, 3, 5


@dataclass(frozen=True, slots=True)
class Array:
    """What an array of jobs does.

    Attributes
    ----------
    program : words of the command that is unet-dask
    sources : as `segment` takes them
    arguments : other options of `segment`, each with its value: all but its part
    output : sink, or folder of the results of many images
    parts : number of jobs
    folder : in which jobs run, to which relative paths refer
    remote : whether the output is in an object store
    """

    program: Sequence[str]
    sources: Sequence[str]
    arguments: Sequence[Sequence[str]]
    output: str
    parts: int
    folder: str
    remote: bool = False

    def script(self, needs: Needs) -> str:
        """Return the script for jobs that ask for so much.

        Raises
        ------
        OptionError
            If a name has a letter that ends a line, which no script can say to Slurm.
        """
        warned = min(max(needs.seconds // _WARNED_SHARE, _WARNED[0]), _WARNED[1])
        stem = re.sub(r"[^\w.-]+", "-", self.output.rstrip("/").rpartition("/")[2].removesuffix(".zarr"))
        return _SCRIPT.substitute(
            title=visible(
                redact(f"{' '.join(self.sources)} in {self.parts} parts, as an array of jobs of Slurm.")
            ),
            name=f"unet-dask-{stem}",
            parts=self.parts,
            cores=needs.cores,
            gpus=f"#SBATCH --gres=gpu:{needs.gpus}\n" if needs.gpus else "",
            memory=-(-needs.memory >> 20),
            time=as_time(needs.seconds),
            warned=warned,
            patience=warned // 2,
            folder=_for_slurm(self.folder),
            log=stem,
            program=shlex.join(self.program),
            output=shlex.quote(self.output),
            arguments="\n".join(f"        {shlex.join(each)} \\" for each in self.arguments),
            sources=shlex.join(self.sources),
            finished=_FINISHED_REMOTELY if self.remote else _FINISHED,
            starts=_STARTS,
            tries=_TRIES,
            pause=_PAUSE,
        )


def _for_slurm(folder: str) -> str:
    """Return a folder as a line of options takes it, which is read without a shell."""
    if not folder.isprintable():
        raise OptionError(
            f"{visible(folder)!r} is no name of a folder that Slurm can be told. Go to another one."
        )
    return '"' + folder.replace("\\", "\\\\").replace('"', '\\"') + '"'


def as_time(seconds: int) -> str:
    """Return seconds as Slurm takes a time.

    Examples
    --------
    >>> as_time(1800), as_time(100_000)
    ('00:30:00', '1-03:46:40')
    """
    days, rest = divmod(seconds, 86_400)
    return f"{days}-" * bool(days) + f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def parse_time(text: str) -> int:
    """Return the seconds of a time as Slurm takes it: minutes, 4:00:00 with hours, 1-12 with days.

    Raises
    ------
    OptionError
        If it is none, or none at all.

    Examples
    --------
    >>> parse_time("30"), parse_time("30:30"), parse_time("4:00:00"), parse_time("1-12"), parse_time("1-0:30")
    (1800, 1830, 14400, 129600, 88200)
    """
    found = re.fullmatch(r"\s*(?:(\d{1,4})-)?(\d{1,6})(?::(\d{1,2}))?(?::(\d{1,2}))?\s*", text, re.ASCII)
    days, *numbers = [int(each or 0) for each in found.groups()] if found else [0]
    seconds = days * 86_400
    if found:
        first = 3600 if found[1] or found[4] else 60  # what the first number counts
        seconds += sum(number * first // 60**place for place, number in enumerate(numbers))
    if seconds < 60:
        raise OptionError(
            f"{visible(text)!r} is no time limit of Slurm. Write minutes, like 30, or hours like 4:00:00, or days like "
            "1-12:00:00; a minute at least."
        )
    return seconds
