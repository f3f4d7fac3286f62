"""Every call on a file fails once: the run says so in one line, or succeeds, and then resumes to the same bytes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import SCRIPT, run_script
from tests.torture.bench import SETTINGS, Bench, content, fresh, refusal
from tests.torture.calls import KINDS, Call, watched
from tests.torture.tier import SEED, Tier, counted, tiers
from unet_dask.io.sink import session, store
from unet_dask.run import seal

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

#: What a call may fail with.
ERRORS = {
    "ENOSPC": errno.ENOSPC,
    "EIO": errno.EIO,
    "EACCES": errno.EACCES,
    "timeout": errno.ETIMEDOUT,
    "reset": errno.ECONNRESET,
}


@dataclass
class Failing:
    """Refuses the call of a number, and no other.

    Attributes
    ----------
    number : of the call, from 1; 0 refuses none
    code : of the error
    count : of calls so far
    fired : the call that was refused
    """

    number: int = 0
    code: int = errno.EIO
    count: int = 0
    fired: Call | None = None

    def before(self, call: Call) -> None:
        """Count a call, and refuse it if it is its turn."""
        if call.name not in KINDS:
            return
        self.count += 1
        if self.count == self.number:
            self.fired = call
            raise OSError(self.code, os.strerror(self.code), call.path)  # the errno chooses the class

    def after(self, call: Call) -> None:
        """Let what was done be."""


def torture(bench: Bench, folder: Path, failing: Failing, counts: Counter[str]) -> list[str]:
    """Let a call of a run fail, then resume; return what is wrong."""
    sink = fresh(folder / f"{failing.number}-{failing.code}").resolve() / "out.zarr"
    foreign: list[str] = []
    with watched(folder.resolve(), failing):
        try:
            said = refusal(lambda: bench.run(sink))
        except (
            Exception
        ) as error:  # an error that is not ours is a finding, and the run may be resumed as well
            said = f"{type(error).__name__}: {error}"
            foreign = [f"{failing.fired} failed with {os.strerror(failing.code)}: {said}"]
    bench.idle()
    if failing.fired is None:
        return []
    counts["faults"] += 1
    counts["refused" if said else "survived"] += 1
    where = f"{failing.fired} failed with {os.strerror(failing.code)}"
    if not said and bench.wrong(sink):
        return [f"{where}: false success, {bench.wrong(sink)}"]
    again = refusal(lambda: bench.run(sink, resume=True))
    wrong = [f"cannot be resumed: {again}"] if again else bench.wrong(sink)
    fresh(sink.parent).rmdir()
    return foreign + [f"{where}: {said}: {each}" for each in wrong]


def own(bench: Bench, folder: Path) -> Bench:
    """Return a bench whose source lies in the folder that is watched; reading it may fail too."""
    source = folder / "source.zarr"
    shutil.copytree(bench.source, source)
    return replace(bench, source=source, settings={**SETTINGS, "products": "classes"}).undisturbed()


def calls_of(bench: Bench, folder: Path) -> int:
    """Return how many calls an undisturbed run makes."""
    counting = Failing()
    with watched(folder.resolve(), counting):
        bench.run(fresh(folder / "counting").resolve() / "out.zarr")
    return counting.count


def turns(total: int, tier: Tier) -> Iterator[tuple[int, str]]:
    """Yield which call fails with what: all of them with one error each in turn, or a few of them.

    ``TORTURE_SCALE=5`` lets every call fail with every error.
    """
    names = list(ERRORS)
    wanted = tier.count(10, total)
    for turn in range(wanted):
        number = turn * total // wanted if wanted < total else turn
        yield 1 + number % total, names[(number + turn // total + SEED) % len(names)]


@tiers
# Where one file of an array's creation fails, Zarr never awaits the others that it had begun.
@pytest.mark.filterwarnings(
    "ignore:.*never awaited:RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_every_call_may_fail_once(tier: Tier, bench: Bench, tmp_path: Path) -> None:
    bench = own(bench, tmp_path)
    total = calls_of(bench, tmp_path)
    with counted("A3 every call fails once", tier) as counts:
        counts["calls"] = total
        findings = []
        for number, name in turns(total, tier):
            findings += torture(bench, tmp_path, Failing(number, ERRORS[name]), counts)
        assert findings == []
        assert counts["faults"] > 0
        assert counts["refused"] > 0


def test_control_writer_that_hides_an_error_is_found(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = own(bench, tmp_path)
    write = store.Sink.write

    def careless(self: store.Sink, name: str, level: int, start: tuple[int, ...], values: object) -> str:
        try:
            return write(self, name, level, start, values)  # type: ignore[arg-type] # as it came
        except OSError:
            return store.checksum(values, start)  # type: ignore[arg-type]

    @dataclass
    class Renames(Failing):
        def before(self, call: Call) -> None:
            if call.name == "rename" and "/c/" in call.path:
                super().before(call)

    place = session.Session.place

    def uncounted(self: session.Session, attempt: str, files: int) -> None:
        staged = Path(self._key, attempt)
        place(
            self,
            attempt,
            sum(path.is_file() and not path.name.endswith(".partial") for path in staged.rglob("*")),
        )

    monkeypatch.setattr(store.Sink, "write", careless)
    monkeypatch.setattr(session.Session, "place", uncounted)
    monkeypatch.setattr(store.Sink, "read_written", store.Sink.read)
    monkeypatch.setattr(seal, "_lost", lambda *_: iter(()))
    with counted("control", Tier("small")) as counts:
        assert "false success" in " ".join(torture(bench, tmp_path, Renames(2), counts))


def command(bench: Bench, sink: Path, *more: str) -> list[str]:
    sizes = "--region 24,260 --tile 24,260 --chunks 24,130 --products classes --precision float32 -j 1 -q"
    return ["segment", str(bench.source), "-o", str(sink), "-m", str(bench.model), *sizes.split(), *more]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Return the root of a file system of its own that has room for half a result."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k,nr_inodes=200", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine lets us mount nothing: {' '.join(done.stderr.split())}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.torture
def test_full_file_system_is_one_line_and_resumes_once_there_is_room(
    full_disk: Path, bench: Bench, tmp_path: Path
) -> None:
    bench = own(bench, tmp_path)
    sink = full_disk / "out.zarr"
    (full_disk / "ballast").write_bytes(b"\0" * (60 << 10))
    ended = run_script(*command(bench, sink))
    assert (ended.code, len(ended.lines)) in ((3, 1), (2, 1)), ended.stderr
    assert "No space left" in ended.stderr
    assert "Traceback" not in ended.stderr
    (full_disk / "ballast").unlink()
    assert run_script(*command(bench, sink, "--resume")).code == 0
    assert {k: v for k, v in content(sink).items() if bench.tree.get(k) != v} == {}


#: Runs a program whose files may not grow beyond a limit; Python ignores the signal that this sends.
LIMITED = (
    "import os, resource, sys\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)\n"
    "os.execv(sys.argv[2], sys.argv[2:])"
)


@pytest.mark.torture
@pytest.mark.parametrize("limit", [100, 500, 3000])
def test_file_that_may_not_grow_is_one_line_and_resumes(limit: int, bench: Bench, tmp_path: Path) -> None:
    bench = own(bench, tmp_path)
    sink = fresh(tmp_path / "limited") / "out.zarr"
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), SCRIPT, *command(bench, sink)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode in (2, 3), len(ended.stderr.splitlines())) == (True, 1), ended.stderr
    assert "File too large" in ended.stderr
    assert run_script(*command(bench, sink, "--resume")).code == 0
    assert bench.wrong(sink) == []
