"""A tape of what a run did to its disk, and the disks that a power cut could have left.

A power cut keeps what was flushed. Of what was not, it keeps anything: a file's bytes all, none, or some sectors of
them; a name in a folder or not, each for itself, whatever came first. That is what POSIX promises, and less than what
ext4 or XFS do; the second, kinder model keeps names in the order in which they were made, as journals do, and loses
bytes alone. A file that was renamed before it was flushed is then there, and empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from random import Random

    from tests.torture.calls import Call

#: What a disk writes at once.
SECTOR = 512

#: Path below the root -> content of a file, None for a folder.
Tree = dict[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Step:
    """One change.

    Attributes
    ----------
    kind : "data" of a file, "sync" of a file or folder, or "names" of a folder
    number : of the file or folder
    content : of the file, all of it
    gone, come : paths that are no names any more, and the path that is one now
    """

    kind: Literal["data", "sync", "names"]
    number: int
    content: bytes = b""
    gone: str = ""
    come: str = ""

    @property
    def folder(self) -> str:
        """The folder whose names change."""
        return str(Path(self.come or self.gone).parent)


@dataclass
class Tape:
    """Notes the changes below a folder, beginning with what is there, which counts as flushed.

    Attributes
    ----------
    root : the folder
    steps : the changes
    first : steps that stand for what was there at the beginning
    """

    root: Path
    steps: list[Step] = field(default_factory=list)
    first: int = 0
    _numbers: dict[str, int] = field(default_factory=dict)
    _latest: dict[int, bytes] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        self._numbers[str(self.root)] = 0
        there = sorted(self.root.rglob("*"))
        for path in there:
            self._come(str(path))
            self._data(str(path))
        for path in (*there, self.root):
            self._sync(str(path))
        self.first = len(self.steps)

    def before(self, call: Call) -> None:
        """Note the bytes that a flush or a rename finds."""
        if call.name in ("fsync", "rename", "link"):
            self._data(call.path)

    def after(self, call: Call) -> None:  # noqa: C901 # a case for each call
        """Note what a call has changed."""
        match call.name:
            case "open":
                if call.path not in self._numbers:
                    self._come(call.path)
                self._data(call.path)  # it may have been cut to nothing
            case "mkdir":
                self._come(call.path)
            case "write" | "close" | "truncate":
                self._data(call.path)
            case "fsync":
                self._sync(call.path)
            case "rename":
                _move(self._numbers, call.path, call.target)
                self.steps.append(Step("names", self._numbers[call.target], gone=call.path, come=call.target))
            case "link":
                self._numbers[call.target] = self._numbers[call.path]
                self.steps.append(Step("names", self._numbers[call.target], come=call.target))
            case "unlink" | "rmdir":
                self.steps.append(Step("names", self._numbers.pop(call.path), gone=call.path))

    def _come(self, path: str) -> None:
        self._count += 1
        self._numbers[path] = self._count
        self.steps.append(Step("names", self._count, come=path))

    def _data(self, path: str) -> None:
        number = self._numbers.get(path)
        if number is None or not Path(path).is_file():
            return
        content = Path(path).read_bytes()
        if self._latest.get(number) != content:
            self._latest[number] = content
            self.steps.append(Step("data", number, content))

    def _sync(self, path: str) -> None:
        if path in self._numbers:
            self.steps.append(Step("sync", self._numbers[path]))

    def crashed(self, at: int, draw: Random, *, journal: bool) -> Tree:
        """Return what a power cut after a number of steps could have left.

        Parameters
        ----------
        at : steps that were done
        draw : decides what is kept of what was not flushed
        journal : whether names are kept in the order in which they were made, and every flush keeps all before it
        """
        done = self.steps[:at]
        kept = self._names_in_order(done, draw) if journal else self._names_of_folders(done, draw)
        names: dict[str, int] = {}
        for step in kept:
            if step.gone and names.get(step.gone) == step.number:
                if step.come:
                    _move(names, step.gone, step.come)
                else:
                    del names[step.gone]
            if step.come:
                names[step.come] = step.number
        files = {step.number for step in self.steps if step.kind == "data"}
        contents = _contents(done, draw)
        tree: Tree = {}
        for path, number in names.items():
            above = Path(path).parents
            if all(str(each) in names for each in above if each != self.root and self.root in each.parents):
                there = contents.get(number, b"") if number in files else None
                tree[str(Path(path).relative_to(self.root))] = there
        return tree

    @staticmethod
    def _names_in_order(done: list[Step], draw: Random) -> list[Step]:
        flushed = max((place for place, step in enumerate(done) if step.kind == "sync"), default=-1)
        return [step for step in done[: draw.randint(flushed + 1, len(done))] if step.kind == "names"]

    def _names_of_folders(self, done: list[Step], draw: Random) -> list[Step]:
        files = {step.number for step in self.steps if step.kind == "data"}
        folders = {0: str(self.root)} | {
            step.number: step.come for step in self.steps if step.come and step.number not in files
        }
        flushed = {folders[step.number]: i for i, step in enumerate(done) if step.number in folders}
        share = draw.choice((0.0, 0.5, 0.9, 1.0))
        return [
            step
            for place, step in enumerate(done)
            if step.kind == "names" and (place < flushed.get(step.folder, -1) or draw.random() < share)
        ]


def _move(numbers: dict[str, int], gone: str, come: str) -> None:
    """Give a file another name, or a folder with all that lies in it."""
    for path in [each for each in numbers if f"{each}/".startswith(f"{gone}/")]:
        numbers[come + path.removeprefix(gone)] = numbers.pop(path)


def _contents(done: list[Step], draw: Random) -> dict[int, bytes]:
    """Return what is left of every file."""
    flushed: dict[int, bytes] = {}
    latest: dict[int, bytes] = {}
    for step in done:
        if step.kind == "data":
            latest[step.number] = step.content
        elif step.kind == "sync" and step.number in latest:
            flushed[step.number] = latest[step.number]
    return {number: _torn(flushed.get(number, b""), new, draw) for number, new in latest.items()}


def _torn(old: bytes, new: bytes, draw: Random) -> bytes:
    """Return one of the ways in which a disk may be between two contents of a file."""
    if old == new:
        return new
    match draw.choice(("old", "new", "shorter", "sectors")):
        case "old":
            return old
        case "new":
            return new
        case "shorter":
            return new[: draw.randrange(0, len(new) + SECTOR) // SECTOR * SECTOR]
    padded = old.ljust(len(new), b"\0")  # a sector that was never written reads as nought
    sectors = range(0, len(new), SECTOR)
    return b"".join(draw.choice((padded, new))[i : i + SECTOR] for i in sectors)[: len(new)]


def materialise(tree: Tree, root: Path) -> None:
    """Write a tree to a real disk."""
    for path, content in sorted(tree.items()):
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            place.mkdir(exist_ok=True)
        else:
            place.write_bytes(content)
