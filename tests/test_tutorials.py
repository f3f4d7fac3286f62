"""Every command of the tutorials, run in its order by a shell, on the images that the tutorials name."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "tutorials"
DATA = ROOT.parent / "shared" / "data"
#: What lies in the folder that a reader stands in: its name there, and where it comes from.
HANDED: dict[str, dict[str, str]] = {
    "plate": {
        f"fields/bbbc039_{name}.png": f"nuclei_cc0/images/bbbc039_{name}.png" for name in ("A02_s1", "A06_s6")
    },
    "slide": {"slide.svs": "wsi/CMU-1-Small-Region.svs"},
    "stack": {name: f"isbi2012/{name}" for name in ("train-volume.tif", "train-labels.tif")},
}
#: Tables that are there in the end, each with the least rows.
TABLES = {
    "plate": {"results/images.csv": 2, "results/bbbc039_A02_s1.csv": 50},
    "slide": {"nuclei.csv": 1000},
    "stack": {"neurons.csv": 20},
}


def commands(page: str) -> list[str]:
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_each_page_is_run() -> None:
    assert sorted(path.stem for path in PAGES.glob("*.md")) == sorted(HANDED)
    assert all(len(commands(page)) >= 5 for page in HANDED)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", HANDED)
def test_commands_of_a_tutorial_lead_to_its_table(page: str, tmp_path: Path) -> None:
    for name, origin in HANDED[page].items():
        if not (DATA / origin).exists():
            pytest.skip(f"needs {origin}")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(DATA / origin)
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    for command in commands(page):
        done = subprocess.run(
            ["bash", "-euc", command],
            cwd=tmp_path,
            env=os.environ | {"PATH": path, "UNET_DASK_MODELS": str(ROOT / "models")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    for name, rows in TABLES[page].items():
        with (tmp_path / name).open(newline="") as file:
            assert len(list(csv.DictReader(file))) >= rows
    if page == "slide":
        assert len(json.loads((tmp_path / "nuclei.geojson").read_text())["features"]) >= 1000
