"""The house rules that a linter does not know."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType

import pytest

import unet_dask
from unet_dask.products import PRODUCTS

ROOT = Path(__file__).parent.parent
SOURCES = [
    path
    for folder in ("unet_dask", "cli", "tests", "benchmarks", "examples")
    for path in (ROOT / folder).rglob("*.py")
]
HEAVY = ("torch", "dask", "distributed", "zarr", "scipy", "skimage", "numpy", "matplotlib")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_nothing_is_called_utils() -> None:
    banned = {"utils", "helpers", "common", "misc"}
    assert not [path for path in SOURCES if banned & set(path.with_suffix("").parts)]


@pytest.mark.parametrize("module", ["unet_dask", "unet_dask_cli"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, atexit\n"
        "from importlib.metadata import entry_points\n"
        "(entry,) = entry_points(group='console_scripts', name='unet-dask')\n"
        f"import os; os._exit = lambda code: print([n for n in {HEAVY!r} if n in sys.modules], file=sys.stderr)\n"
        "entry.load()(['--help'])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stderr.strip() == "[]"
    assert "segment" in found.stdout


def test_public_names_are_there() -> None:
    assert all(getattr(unet_dask, name) is not None for name in unet_dask.__all__)
    # Asked again: importing a package of that name would have put itself in its place.
    assert [name for name in unet_dask.__all__ if isinstance(getattr(unet_dask, name), ModuleType)] == []


def test_the_packages_of_the_project_are_its_folders() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {
        ".".join(("unet_dask_cli" if part == "cli" else part) for part in path.parent.relative_to(ROOT).parts)
        for top in ("unet_dask", "cli")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert declared == folders


def test_the_distribution_pollutes_no_top_level_name() -> None:
    names = (distribution("unet-dask").read_text("top_level.txt") or "").split()
    assert set(names) == {"unet_dask", "unet_dask_cli"}


def calls(name: str, kind: type[ast.expr]) -> list[str]:
    """Return the product's files that call a function (`ast.Name`) or a method (`ast.Attribute`) of this name."""
    return [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] in ("unet_dask", "cli")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, kind)
        and name == getattr(node.func, "attr", getattr(node.func, "id", ""))
    ]


def test_there_is_one_map_overlap() -> None:
    assert calls("map_overlap", ast.Attribute) == ["unet_dask/graph.py"]


@pytest.mark.parametrize("name", ["eval", "exec", "__import__"])
def test_nothing_runs_code_from_data(name: str) -> None:
    assert calls(name, ast.Name) == []


def test_nothing_forks_but_the_process_that_is_there_for_it() -> None:
    assert [place.partition(":")[0] for place in calls("fork", ast.Attribute)] == [
        "unet_dask/workers/fork_server.py"
    ]


def test_nothing_unpickles() -> None:
    imports = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] in ("unet_dask", "cli")
        and any(
            word in path.read_text(encoding="utf-8")
            for word in ("import pickle", "torch.load(", "yaml.load(")
        )
    ]
    assert imports == []


def compared(path: Path, words: set[str]) -> list[str]:
    """Return where a file compares something with one of some words, alone or among others."""
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
        for part in getattr(side, "elts", [side])
        if isinstance(part, ast.Constant) and part.value in words
    ]


def test_products_are_asked_and_never_compared_by_name() -> None:
    # What targets of a training are is another question, whose answers have the same names.
    others = ("products", "training")
    found = [
        place
        for path in (ROOT / "unet_dask").rglob("*.py")
        if path.relative_to(ROOT / "unet_dask").parts[0] not in others
        for place in compared(path, set(PRODUCTS))
    ]
    assert found == []


def test_the_sentinel_is_decided_in_one_place() -> None:
    # The largest number of a type, or not a number, as what an array is filled with.
    deciding = re.compile(r"fill_value.{0,20}(255|nan|iinfo)|_(SENTINEL|UNWRITTEN) *=|def sentinel")
    found = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "unet_dask").rglob("*.py")
        if deciding.search(path.read_text(encoding="utf-8"))
    ]
    assert found == ["unet_dask/products/sentinel.py"]
