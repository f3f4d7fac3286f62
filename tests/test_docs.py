"""The documentation is in step: every command and option, every block of Python, every link, every file named."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

import unet_dask

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Python in these pages is about volumes that the reader has, and is checked for its syntax only.
NOT_RUN = {"README.md", "CONTRIBUTING.md"}


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


@pytest.mark.parametrize("command", sorted({command for command, _ in OPTIONS}))
def test_every_command_can_be_quiet_show_tracebacks_and_print_json(command: str) -> None:
    found = {name for each, option in OPTIONS if each == command for name in option.opts}
    assert {"-q", "--quiet", "--debug", "--json"} <= found


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


def test_rooms_of_the_architecture_are_the_layers_of_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = [layer.replace("unet_dask.", "") for layer in contracts["contracts"][0]["layers"]]
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = re.search(r"^## Rooms$.*?^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert picture
    assert [re.split(r" {2,}", line)[0] for line in picture[1].splitlines()] == layers


def test_every_decision_is_in_the_index_under_its_title() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "index.md").read_text(encoding="utf-8")
    for page in sorted(folder.glob("0*.md")):
        number, title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").split(". ", 1)
        assert f"| {number} | [{title}]({page.name}) |" in index
        assert page.name.startswith(f"{int(number):04}-")


def _messages(path: Path) -> Iterator[str]:
    """Yield the texts of a module, with dots for what differs."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_what_the_page_of_troubles_quotes_is_said() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    said = "\0".join(text for path in (ROOT / "unet_dask").rglob("*.py") for text in _messages(path))
    assert len(quoted) > 20
    assert [phrase for phrase in quoted if phrase.removesuffix(" …") not in said] == []


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    documented = {name.rpartition(".")[2] for name in re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)}
    assert set(unet_dask.__all__) - documented - {"__version__", "UnetDaskError"} == set()


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
