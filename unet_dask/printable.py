r"""What of a stranger's text a terminal is shown: names of files, channels and classes, metadata, settings.

A terminal obeys escape characters, and an editor's bidirectional marks turn a name around. So whatever cannot be
printed is written as Python writes it, `\x1b`, and a line stays one line.
"""

from __future__ import annotations


def visible(text: object) -> str:
    r"""Return one line in which every character can be seen.

    Examples
    --------
    >>> print(visible("red\x1b[31m.zarr"), visible("two\nlines"), visible("核 é"))
    red\x1b[31m.zarr two\nlines 核 é
    """
    line = str(text)
    if line.isprintable():
        return line
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)
