"""The reproductions of the paper's experiments run on the real images, here with a tiny network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PAPER = Path(__file__).parents[1] / "examples" / "paper"
DATA = Path(__file__).parents[2] / "shared" / "data"
EXPERIMENTS = {
    "isbi2012": ("isbi2012", ["pixel", "rand", "warping", "vrand", "vinfo"]),
    "phc_u373": ("PhC-C2DH-U373", ["seg", "iou", "f1"]),
    "dic_hela": ("DIC-C2DH-HeLa", ["seg", "iou", "f1"]),
}


def test_every_experiment_is_tested() -> None:
    assert {path.stem for path in PAPER.glob("*.toml")} == set(EXPERIMENTS)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "phc_u373")) for name in EXPERIMENTS]
)
def test_experiment_goes_from_the_data_to_scores_and_a_picture(name: str, tmp_path: Path) -> None:
    folder, metrics = EXPERIMENTS[name]
    if not (DATA / folder).exists():
        pytest.skip("the images of the experiment are not here")
    small = ["--width", "2", "--iterations", "2", "--tile", "32", "--tta", "none"]
    done = subprocess.run(
        [sys.executable, str(PAPER / f"{name}.py"), str(DATA / folder), "-o", str(tmp_path), *small],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "scores.json").read_text(encoding="utf-8")
    assert all(f'"{metric}' in text for metric in metrics)
    assert json.loads(text)
    assert (tmp_path / "result.png").stat().st_size > 1000


@pytest.mark.timeout(600)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "data", "told"),
    [("nuclei", "plantseg_ovule/1135_mini.h5", "nuclei: SEG"), ("membranes", "vnc_sstem", "pixel error")],
)
def test_training_in_three_dimensions_goes_from_the_volume_to_scores(
    script: str, data: str, told: str, tmp_path: Path
) -> None:
    if not (DATA / data).exists():
        pytest.skip("the volume is not here")
    small = ["--width", "2", "--iterations", "2"]
    done = subprocess.run(
        [
            sys.executable,
            str(PAPER.parent / "volume" / f"{script}.py"),
            str(DATA / data),
            "-o",
            str(tmp_path),
            *small,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert told in done.stdout


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_nuclei_of_a_slide_are_learnt_scored_and_counted(tmp_path: Path) -> None:
    if not (DATA / "monuseg").exists():
        pytest.skip("the tiles are not here")
    script = PAPER.parent / "histology" / "nuclei.py"
    done = subprocess.run(
        [sys.executable, str(script), str(DATA / "monuseg"), "-o", str(tmp_path), "--iterations", "2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert "object F1" in done.stdout
