"""Millions of objects and one through all regions: each has the number that follows from its place."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture.tier import SCALE, Tier, counted, full

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "objects_many.py"


@pytest.mark.parametrize("tier", [pytest.param(Tier("full"), id="full", marks=full)])
def test_every_number_of_millions_of_objects(tmp_path: Path, tier: Tier) -> None:
    with counted("O1 many objects, one of them through all regions", tier) as counts:
        wanted = ["--objects", str(round(3_000_000 * SCALE)), "--through", "--region", "1024"]
        done = subprocess.run(
            [sys.executable, str(SCRIPT), str(tmp_path / "many"), *wanted],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr  # also if a worker took more than its plan
        found = re.search(r"^(\d+) objects in .*, (\d+) regions, ", done.stdout)
        assert found is not None, done.stdout
        counts["objects"], counts["regions"] = int(found[1]), int(found[2])
        assert counts["regions"] > 1
        assert done.stdout.rstrip().endswith("; 0 pixels with another number")
