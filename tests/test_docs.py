"""The documentation is in step: every command and option, every block of Python, every link, every file named."""

from __future__ import annotations

import re
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Python in these pages is about volumes that the reader has, and is checked for its syntax only.
NOT_RUN = {"README.md"}


def _group() -> click.Group:
    (entry,) = entry_points(group="console_scripts", name="unet-dask")
    group: Any = entry.load().__globals__["group"]
    return group  # type: ignore[no-any-return] # what the console script runs


def _options() -> list[tuple[str, click.Option]]:
    group = _group()
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += [(name, each) for each in command.params if isinstance(each, click.Option)]
    return found


def _section(command: str) -> str:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {command}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/cli.md has no section for {command}"
    return found[1]


def _blocks() -> list[Any]:
    return [
        pytest.param(page, block, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, block in enumerate(
            re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        )
    ]


OPTIONS = _options()
NAMES = [f"{command}{option.opts[-1]}" for command, option in OPTIONS]


@pytest.mark.parametrize(("command", "option"), OPTIONS, ids=NAMES)
def test_option_has_help(command: str, option: click.Option) -> None:
    assert option.help, f"{command} {option.opts[-1]}"


@pytest.mark.parametrize(("command", "option"), OPTIONS, ids=NAMES)
def test_option_is_documented(command: str, option: click.Option) -> None:
    section = _section(command)
    missing = [name for name in option.opts if not re.search(rf"[`\s]{name}(?![\w-])", section)]
    assert missing == []


def test_documented_options_exist() -> None:
    known = {name for _, option in OPTIONS for name in (*option.opts, *option.secondary_opts)} | {"--help"}
    rows = re.findall(r"^\| `([^`]*)`", (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"(?<![\w-])--[a-z][\w-]*", row)}
    assert named - known == set()


def test_every_command_has_help_and_a_section() -> None:
    group = _group()
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        assert command.help
        assert "\\b" not in command.help
        assert f"unet-dask {name}" in _section(name)


@pytest.mark.parametrize(("page", "block"), _blocks())
def test_python_in_the_documentation(page: Path, block: str) -> None:
    code = compile(block, page.name, "exec")
    if page.name not in NOT_RUN:
        exec(code, {"__name__": "documentation"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_of_the_project_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`((?:unet_dask|tests|docs|examples)/[\w./-]*)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_exit_codes_in_the_readme_are_those_of_the_errors() -> None:
    from unet_dask import errors

    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and hasattr(kind, "exit_code")
    }
    stated = {
        int(code) for code in re.findall(r"^\| (\d+) \|", PAGES[0].read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert codes | {0, 130} == stated


def test_python_of_the_project_is_the_one_that_is_documented() -> None:
    assert sys.version_info >= (3, 11)
    assert "Python 3.11" in PAGES[0].read_text(encoding="utf-8")
