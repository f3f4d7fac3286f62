"""The conda environment asks for what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
#: Name on conda-forge of what has another one there.
CONDA = {"dask[array]": "dask-core", "torch": "pytorch", "matplotlib": "matplotlib-base"}


def test_environment_is_in_step_with_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = set()
    for requirement in project["dependencies"]:
        name, bound = re.fullmatch(r"([^<>=!~]+)(.*)", requirement).groups()  # type: ignore[union-attr] # no match fails the test
        wanted.add(CONDA.get(name, name) + bound)
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    listed = [each for each in environment["dependencies"] if isinstance(each, str)]
    assert set(listed) - {"python=3.11", "pip"} == wanted
    assert {"python=3.11", "pip"} <= set(listed)


def test_environment_installs_the_project_itself() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert {"pip": ["-e ."]} in environment["dependencies"]
