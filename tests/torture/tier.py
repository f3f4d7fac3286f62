"""How often: a few times in every test run, the full figures by ``make torture``, and what was counted.

``TORTURE_SCALE=0.05 make torture`` does a twentieth of the full figures, ``TORTURE_SEED`` another selection of
faults. Counts are written to the file that ``TORTURE_RESULTS`` names.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = int(os.environ.get("TORTURE_SEED", "0"))
SCALE = float(os.environ.get("TORTURE_SCALE", "1"))
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Tier:
    """One of two scales of a harness."""

    name: str

    def count(self, small: int, full: int) -> int:
        """Return how often something is done."""
        return small if self.name == "small" else max(small, round(full * SCALE))


#: Leaves a case to `make torture`.
full = [pytest.mark.torture, pytest.mark.timeout(3600)]
#: Runs a test at both scales.
tiers = pytest.mark.parametrize(
    "tier", [pytest.param(Tier("small"), id="small"), pytest.param(Tier("full"), id="full", marks=full)]
)


@contextmanager
def counted(bar: str, tier: Tier) -> Iterator[Counter[str]]:
    """Yield where a harness counts what it does, and keep the counts of the full tier."""
    counts: Counter[str] = Counter()
    began, passed = time.monotonic(), False
    try:
        yield counts
        passed = True
    finally:
        seconds = round(time.monotonic() - began, 1)
        where = os.environ.get("TORTURE_RESULTS")
        if where and tier.name == "full":
            _enter(Path(where), bar, {"passed": passed, "seconds": seconds, **dict(sorted(counts.items()))})


def _enter(place: Path, bar: str, counts: dict[str, Any]) -> None:
    """Replace the counts of a bar in a file of results."""
    kept = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
    bars = {**kept.get("bars", {}), bar: {"commit": _commit(), "seed": SEED, "scale": SCALE, **counts}}
    place.write_text(json.dumps({"bars": dict(sorted(bars.items()))}, indent=2) + "\n", encoding="utf-8")


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # whichever git there is
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"
