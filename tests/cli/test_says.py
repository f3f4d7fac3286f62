"""What the program says, and to whom: readers that leave, terminals without letters, shells that ask, advice."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = str(Path(sys.executable).with_name("unet-dask"))


def into_the_void(arguments: list[str | Path], *, error: bool) -> subprocess.CompletedProcess[str]:
    """Run a command whose standard output, and perhaps error, nobody reads."""
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(
            [SCRIPT, *map(str, arguments)],
            stdout=write,
            stderr=write if error else subprocess.PIPE,
            text=True,
            check=False,
            timeout=120,
        )
    finally:
        os.close(write)


@pytest.mark.parametrize("error", [False, True])
@pytest.mark.parametrize(
    "words", [["--version"], ["train", "-h"], ["info", "SOURCE"], ["segment", "SOURCE", "--dry-run"]]
)
def test_a_reader_who_left_is_told_nothing(words: list[str], source: Path, error: bool) -> None:
    done = into_the_void([source if word == "SOURCE" else word for word in words], error=error)
    assert done.returncode == 141
    assert not done.stderr


def test_closed_streams_are_nobodys_file(source: Path, tmp_path: Path) -> None:
    command = f"{shlex.join([SCRIPT, 'info', str(source)])} >&- 2>&- <&-"
    assert subprocess.run(command, shell=True, check=False, timeout=120).returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_output_that_is_full_is_said_and_error_that_is_full_ends_nothing(source: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [SCRIPT, "info", str(source)], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
        said = subprocess.run([SCRIPT, "nothing"], stderr=full, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "Standard output cannot be written" in done.stderr
    assert said.returncode == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [("unet-dask tr", "train"), ("unet-dask segment --tt", "--tta"), ("unet-dask segment x --tta f", "flips"),
     ("unet-dask segment x --products classes,ins", "classes,instances"), ("unet-dask info nuc", "nuclei"),
     ("unet-dask info ./a", "file")],
)  # fmt: skip
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_what_may_follow_and_nothing_else(
    words: str, expected: str, shell: str, run_cli: Callable[..., Any]
) -> None:
    last = words.rsplit(maxsplit=1)[-1]
    asked = {"COMP_WORDS": words, "COMP_CWORD": last if shell == "fish" else str(len(words.split()) - 1)}
    done = run_cli(env={"_UNET_DASK_COMPLETE": f"{shell}_complete", **asked})
    assert (done.code, done.stderr) == (0, "")
    assert expected in done.stdout


@pytest.mark.parametrize(
    ("encoding", "commands"),
    [
        ("ascii", ("info", "segment --dry-run", "preview", "evaluate")),
        ("latin-1", ("info",)),
        ("cp1252", ("preview",)),
    ],
)
def test_letters_that_a_terminal_does_not_have_are_replaced(
    encoding: str,
    commands: tuple[str, ...],
    make_source: Callable[..., Path],
    tmp_path: Path,
    run_cli: Callable[..., Any],
) -> None:
    path = make_source(tmp_path / "ядро-細胞.zarr")
    for command in commands:
        name, *flags = command.split()
        done = run_cli(
            name, path, *([path] if name == "evaluate" else flags), env={"PYTHONIOENCODING": encoding}
        )
        assert done.code in (0, 2)
        assert "itself" not in done.stderr
    assert "\\u7d30" in run_cli("info", tmp_path / "細.zarr", env={"PYTHONIOENCODING": encoding}).stderr


@pytest.mark.parametrize(
    "name", ["a\x1b[31mred.zarr", "a\u202egnp.zarr", "a\x07\x9b2J.zarr", os.fsdecode(b"a\xff.zarr")]
)
def test_what_a_terminal_would_obey_is_written_out(name: str, call_cli: Callable[..., Any]) -> None:
    outcome = call_cli("info", name)
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert outcome.lines[0].isprintable()


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [("UNET_DASK_SEGMENT_WORKRES", "2", 2), ("UNET_DASK_WORKERS", "2", 2), ("UNET_DASK_INFO_JSON", "1", 0),
     ("UNET_DASK_INFO_AS_JSON", "1", 0), ("UNET_DASK_SEGMENT_OUTPUT", "x", 0), ("UNET_DASK_INFO_JSON", "perhaps", 2)],
)  # fmt: skip
def test_variables_are_named_as_options_are(
    name: str,
    value: str,
    code: int,
    source: Path,
    call_cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, value)
    outcome = call_cli("info", source)
    assert outcome.code == code, outcome.stderr
    assert outcome.stdout.startswith("{") is ("JSON" in name and code == 0)
    if "WORK" in name:
        assert "_WORKERS?" in outcome.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [("probability-dtpye = 'uint8'", "probability_dtype"), ("[segment]\nworkers = 1", "[segment]"),
     ("workers = 1.5", "workers"), ("overwrite = 'maybe'", "overwrite"), ("workers = ", "TOML")],
)  # fmt: skip
def test_files_name_settings_as_options_are_named(
    text: str, said: str, source: Path, tmp_path: Path, call_cli: Callable[..., Any]
) -> None:
    (tmp_path / "run.toml").write_text(text)
    outcome = call_cli("segment", source, "--dry-run", "--config", tmp_path / "run.toml")
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert said in outcome.stderr


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_advice_after_an_interruption_goes_on_as_it_is(tmp_path: Path, ending: int, code: int) -> None:
    folder = tmp_path / "my data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    tifffile.imwrite(folder / "i.tif", rng.integers(0, 255, (96, 96), "u1"))
    tifffile.imwrite(folder / "t.tif", np.tri(96, dtype="u1"))
    (folder / "r.toml").write_text("validate-every = 2\nvalidation = 0.0")
    options = ["--width", "4", "--depth", "1", "--tile", "32", "--iterations", "100000", "--config", "r.toml"]
    log = folder / "log"
    with log.open("w") as file:
        child = subprocess.Popen(
            [SCRIPT, "train", "i.tif", "t.tif", "-o", "new folder/m.safetensors", *options],
            cwd=folder, stdout=file, stderr=file, env={**os.environ, "UNET_DASK_TRAIN_SEED": "3"},
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while not (folder / "new folder" / "m.checkpoint").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        child.send_signal(ending)
        try:
            assert child.wait(120) == code
        finally:
            child.kill()
    text = log.read_text()
    assert "Traceback" not in text
    advice = text.splitlines()[-1].split("Go on with: ")[1]
    assert "UNET_DASK_TRAIN_SEED=3" in advice
    with subprocess.Popen(
        ["/bin/sh", "-c", f"exec env {advice}"], cwd=folder, stderr=subprocess.PIPE, text=True
    ) as again:
        assert again.stderr
        lines = []
        for line in again.stderr:
            lines.append(line)
            if "resumed after" in line:
                break
        again.kill()
    assert "resumed after" in lines[-1], lines
