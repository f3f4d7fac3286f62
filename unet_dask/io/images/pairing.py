"""Which files of two folders belong together: by equal names, by names without a common affix, by their last number.

Never by their order: that of ``ctrl.tif``, ``ctrl_drug.tif`` and of ``ctrl_mask.tif``, ``ctrl_drug_mask.tif`` differs.
Whatever is left ambiguous, or contradicts itself, is an error that names the files.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask.errors import InputError
from unet_dask.io.source.not_zarr import is_store
from unet_dask.io.source.numbered import NUMBER, listed, number_of, stem
from unet_dask.paths import is_local, local_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

#: What the suffix of a target says, where images and targets lie in one folder.
_TARGET = re.compile(r"mask|label|lbl|seg|truth|target|annot|instance|(?<![a-z])gt(?![a-z])", re.IGNORECASE)
#: What is before and after the common part, of a name on the left and of one on the right.
_Affixes = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Pairing:
    """Files that belong together.

    Attributes
    ----------
    pairs : of the left and the right folder, in the order of the names on the right
    how : they were paired, for people
    """

    pairs: tuple[tuple[Path, Path], ...]
    how: str


def is_zarr(place: str) -> bool:
    """Tell whether a place is a Zarr store, or lies in one, where it may be a key without a document of its own."""
    if not is_local(place):
        return True
    path = local_path(place)
    return path.is_dir() and any(is_store(folder) for folder in (path, *path.absolute().parents))


def is_folder(place: str) -> bool:
    """Tell whether a place is a folder of images, which a Zarr store is not."""
    return is_local(place) and local_path(place).is_dir() and not is_zarr(place)


def pair_folders(left: Path, right: Path, *, spare: bool = False, words: tuple[str, str]) -> Pairing:
    """Return which files of two folders belong together.

    One folder given twice is one of images and of targets that have the same names and a suffix, such as ``_mask``.

    Parameters
    ----------
    left, right : folders of images
    spare : whether files on the left may be left over
    words : what the files on the left and on the right are, for messages

    Raises
    ------
    InputError
        If the names do not say it, or contradict each other; the message names files.
    """
    if left.samefile(right):
        return _within(left, words)
    files = {stem(path): path for path in _unique(left)}, {stem(path): path for path in _unique(right)}
    for how, pairs in _ways(*files, spare=spare):
        if pairs is not None:
            found = tuple((files[0][one], files[1][other]) for one, other in pairs)
            return Pairing(found, how)
    raise _unpaired(files, left, right, spare=spare, words=words)


def _unique(folder: Path) -> list[Path]:
    """Return the images in a folder, of which no two may have the same name but for their suffixes."""
    files = listed(folder)
    (name, count), *_ = Counter(map(stem, files)).most_common(1)
    if count > 1:
        twins = " and ".join(path.name for path in files if stem(path) == name)
        raise InputError(f"{folder} holds {twins}, and it is unknown which of them is meant. Move one away.")
    return files


_Pairs = list[tuple[str, str]]


def _ways(
    left: dict[str, Path], right: dict[str, Path], *, spare: bool
) -> Iterator[tuple[str, _Pairs | None]]:
    """Yield ways to pair, and the pairs that they give; a way that pairs a part only gives none."""
    equal = left.keys() & right.keys()
    if equal:
        whole = len(equal) == len(right) and (spare or len(equal) == len(left))
        yield "by equal names", [(name, name) for name in right] if whole else None
        return  # a name that both have means itself, so no other way can be right
    affixes = _affixes(left, right, spare=spare)
    if affixes is not None:
        one, other = affixes[:2], affixes[2:]
        yield f"by names{_without(one, other)}", _by(left, right, *(_strip(affix) for affix in (one, other)))
        return
    yield "by the last number in the names", _numbered(left, right, spare=spare)


def _affixes(left: dict[str, Path], right: dict[str, Path], *, spare: bool) -> _Affixes | None:
    """Return what to take away from all names on either side so that they are equal; the least that does.

    Raises
    ------
    InputError
        If two ways that take away as much give different pairs.
    """
    first = next(iter(right))
    fitting: dict[tuple[tuple[str, str], ...], _Affixes] = {}
    for affixes in {found for name in left for found in _common(name, first)}:
        pairs = _by(left, right, _strip(affixes[:2]), _strip(affixes[2:]))
        if pairs is not None and (spare or len(pairs) == len(left)):
            key = tuple(pairs)
            fitting[key] = min(fitting.get(key, affixes), affixes, key=_length)
    if not fitting:
        return None
    least = min(map(_length, fitting.values()))
    best = [pairs for pairs, affixes in fitting.items() if _length(affixes) == least]
    if len(best) > 1:
        one, other = ((pairs[0]) for pairs in best[:2])
        raise InputError(
            f"{one[1]} may belong to {one[0]} or to {other[0]}: their names fit both ways. Give pairs the same name."
        )
    return fitting[best[0]]


def _length(affixes: _Affixes) -> int:
    return sum(map(len, affixes))


def _common(one: str, other: str) -> Iterator[_Affixes]:
    """Yield what two names have before and after a common part: their beginning, their end, or one in the other."""
    start = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    end = next(
        (i for i, (a, b) in enumerate(zip(one[::-1], other[::-1], strict=False)) if a != b),
        min(len(one), len(other)),
    )
    found = [("", one[start:], "", other[start:]), (one[: len(one) - end], "", other[: len(other) - end], "")]
    inner, outer = sorted((one, other), key=len)
    at = outer.find(inner)
    if at >= 0:
        around = (outer[:at], outer[at + len(inner) :])
        found.append(("", "", *around) if outer == other else (*around, "", ""))
    for affixes in found:
        if not _tells_apart(affixes):
            yield affixes


def _tells_apart(affixes: _Affixes) -> bool:
    """Tell whether both affixes hold numbers, which may be what tells files apart, as in img1 and img2."""
    return all(any(letter.isdigit() for letter in "".join(pair)) for pair in (affixes[:2], affixes[2:]))


def _strip(affix: tuple[str, str]) -> Callable[[str], str | None]:
    before, after = affix

    def strip(name: str) -> str | None:
        kept = name[len(before) : len(name) - len(after)]
        if not kept or name != before + kept + after:
            return None
        # No number is cut: t1 is no part of t10.
        cut = _digits(before[-1:], kept[0]) or _digits(kept[-1], after[:1])
        return None if cut else kept

    return strip


def _digits(*letters: str) -> bool:
    return all(letter.isdigit() for letter in letters)


def _by(
    left: dict[str, Path],
    right: dict[str, Path],
    left_key: Callable[[str], str | None],
    right_key: Callable[[str], str | None],
) -> _Pairs | None:
    """Return pairs of names with the same key; None if a name on the right has no partner, or two have one key."""
    own = [(left_key(name), name) for name in left]
    keys = {key: name for key, name in own if key is not None}
    if len(keys) < sum(key is not None for key, _ in own):
        return None
    found: _Pairs = []
    for name in right:
        key = right_key(name)
        if key is None or key not in keys:
            return None
        found.append((keys.pop(key), name))
    return found


def _without(*affixes: tuple[str, str]) -> str:
    named = [repr(part) for affix in affixes for part in affix if part]
    return f" without {' and '.join(named)}" if named else ""


def _numbered(left: dict[str, Path], right: dict[str, Path], *, spare: bool) -> _Pairs | None:
    """Return pairs of the same last number, where the rest of the names does not tell files apart as well."""
    rests = [{NUMBER.sub("#", name) for name in names} for names in (left, right)]
    if all(len(rest) > 1 for rest in rests):
        return None
    pairs = _by(left, right, number_of, number_of)
    return pairs if pairs is not None and (spare or len(pairs) == len(left)) else None


def _within(folder: Path, words: tuple[str, str]) -> Pairing:
    """Pair images and targets that lie in one folder: each target has the name of its image and a suffix more."""
    files = {stem(path): path for path in _unique(folder)}
    affixes = {
        (name[:at], name[at + len(base) :])
        for base in files
        for name in files
        if name != base and (at := name.find(base)) >= 0 and _TARGET.search(name.replace(base, " ", 1))
    }
    found: dict[tuple[tuple[str, str], ...], tuple[str, str]] = {}
    for before, after in sorted(affixes, key=lambda pair: len("".join(pair))):
        pairs = tuple((base, before + base + after) for base in files if before + base + after in files)
        # No target is the image of another: a_mask_mask would be one of a_mask.
        if len({name for pair in pairs for name in pair}) == len(files) == 2 * len(pairs):
            found.setdefault(pairs, (before, after))
    if len(found) != 1:
        raise InputError(
            f"{folder} was given as the {words[0]}s and as the {words[1]}s, and it is not a folder of pairs such as "
            f"a.tif and a_mask.tif. Move {words[0]}s and {words[1]}s into folders of their own."
        )
    ((pairs, affix),) = found.items()
    how = f"within one folder, by names{_without(affix)}"
    return Pairing(tuple((files[one], files[other]) for one, other in pairs), how)


def _unpaired(
    files: tuple[dict[str, Path], dict[str, Path]],
    left: Path,
    right: Path,
    *,
    spare: bool,
    words: tuple[str, str],
) -> InputError:
    """Return the error for folders that do not pair, which names what is left over if anything pairs."""
    for key in (str, number_of):
        keys = [{key(name) for name in names} - {None} for names in files]
        if not keys[0] & keys[1]:
            continue
        for side, (folder, other) in enumerate(((left, right), (right, left))):
            alone = [path.name for name, path in files[side].items() if key(name) not in keys[1 - side]]
            if alone and not (spare and side == 0):
                return InputError(
                    f"{_listing(alone)} in {folder.name} has no {words[1 - side]} in {other.name} "
                    f"({len(alone)} of {len(files[side])}). {_RULE} Add the partner or move the file away."
                )
    firsts = ", ".join(next(iter(group.values())).name for group in files)
    return InputError(
        f"{left} holds {len(files[0])} {words[0]}s and {right} {len(files[1])} {words[1]}s, and neither names nor "
        f"numbers pair them ({firsts}). Give pairs the same name."
    )


_RULE = (
    "Files pair by equal names, by names but for a common prefix or suffix, or by the last number in them."
)


def _listing(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"


def same_file(left: Path, right: Path) -> bool:
    """Tell whether two paths are one file or folder: by symbolic or hard links, "..", or the same name."""
    return left.exists() and right.exists() and left.samefile(right)


def its_own(name: str, words: tuple[str, str]) -> InputError:
    """Return the error for one file that was given as both sides of a pair."""
    return InputError(
        f"{name} was given as {words[0]} and as {words[1]}, and nothing is its own {words[1]}. Name the {words[1]}."
    )
