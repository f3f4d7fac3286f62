"""The page of a report: one HTML file without a script, that needs nothing beside it.

Whatever is put into it goes through `_text`: secrets of URLs are taken out, and markup is text.
"""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

from unet_dask.config import format_bytes
from unet_dask.io.remote import redact
from unet_dask.report.chart import quantiles, region_chart
from unet_dask.report.journal import voxels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from unet_dask.dispatch import Failure
    from unet_dask.planning.plan import Plan
    from unet_dask.report.facts import Facts
    from unet_dask.report.journal import Journal

#: By which an earlier report is known, so that nothing else is ever replaced by one.
MARK = '<!doctype html>\n<meta name="generator" content="unet-dask report">'

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; } td, th { padding: 2px 14px 2px 0; vertical-align: top; text-align: left; }
th { font-weight: 600; white-space: nowrap; } td { overflow-wrap: anywhere; }
.good { color: #14691b; } .bad { color: #a40000; }
img, svg { max-width: 100%; } svg { fill: #333; font-size: 11px; } svg path { fill: none; stroke: #999; }
svg circle { fill: #3949ab; fill-opacity: .5; }
"""


def page(facts: Facts, journal: Journal) -> str:
    """Return the report."""
    assert journal.started is not None
    plan = journal.started.plan
    kind = "good" if facts.outcome.good else "bad"
    parts = [
        f"{MARK}\n<meta charset='utf-8'>\n<title>{_text(facts.sink)}</title>\n<style>{_STYLE}</style>",
        f"<h1>{_text(facts.sink)}</h1>\n<p class='{kind}'>{_text(facts.outcome.line)}</p>",
        _table([("source", facts.source), ("sink", facts.sink)]),
        _section("Result", _picture(facts)),
        _section("Done", _table(_done(facts, journal, plan)) + region_chart(journal.times)),
        _section("Workers", _workers(journal, plan)),
        _section("Failed", _failures(journal, plan) if journal.failed else ""),
        _section("Plan", _table(plan.describe())),
        _section("Notes", _list((*journal.started.notes, *journal.remarks))),
        _section("Model", _table(facts.model.items())),
        _section("Settings", _table(facts.settings.items())),
        _section("Versions", _table(facts.versions.items())),
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _done(facts: Facts, journal: Journal, plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield what was done this time, and how fast."""
    assert journal.started is not None
    if journal.started.done:
        yield "before", f"{journal.started.done} of {journal.started.total} pieces of work were done before"
    yield "regions", f"{journal.regions} of {len(plan.grid)} computed"
    if journal.background:
        yield "background", f"{journal.background} regions outside of the mask written"
    if journal.blocks:
        yield "beside them", f"{journal.blocks} blocks of pyramids and joins of objects"
    if journal.failed:
        yield "failed", f"{journal.failed} pieces of work"
    yield "time", f"{facts.seconds:.1f} s in all, workers' start included"
    for name, since, until in journal.stages:
        yield "", f"{name}: {until - since:.1f} s"
    if journal.regions and journal.seconds_computing:
        seconds = journal.seconds_computing
        tera = _flop(facts, journal, plan) / 1e12
        yield (
            "throughput",
            f"{journal.voxels / 1e6 / seconds:.3g} Mvoxel/s, {tera / seconds:.3g} TFLOP/s in this stage",
        )
    if journal.times:
        low, middle, high = quantiles(journal.times)
        yield "a region", f"{middle:.3g} s; 9 of 10 between {low:.3g} and {high:.3g} s"


def _flop(facts: Facts, journal: Journal, plan: Plan) -> float:
    """Return the operations of the regions that were computed, by their share of all that a mask does not leave out."""
    left_out = sum(voxels(plan.grid.write(index)) for index in plan.skipped)
    return facts.passes * plan.flop * journal.voxels / max(voxels(plan.grid.roi) - left_out, 1)


def _workers(journal: Journal, plan: Plan) -> str:
    rows = [
        (
            str(number),
            str(told.pieces),
            f"{told.seconds:.1f} s",
            format_bytes(told.peak_bytes),
            f"{told.peak_bytes / plan.memory.total:.0%} of {format_bytes(plan.memory.total)}",
        )
        for number, told in sorted(journal.workers.items())
    ]
    head = ("process", "pieces of work", "in them", "peak memory", "of what was predicted")
    return _rows(head, rows) if rows else ""


def _failures(journal: Journal, plan: Plan) -> str:
    rows = [(_place(failure, plan), failure.reason) for failure in journal.failures]
    more = journal.failed - len(rows)
    return _rows(("where", "why"), rows) + (f"<p>and {more} more</p>" if more else "")


def _place(failure: Failure, plan: Plan) -> str:
    """Return the coordinates of a failed piece of work."""
    if failure.level > 0:
        return f"level {failure.level} of the pyramid, block {failure.index}"
    return plan.grid.box(failure.index).in_space_and_time.text


def _picture(facts: Facts) -> str:
    note = f"<p>{_text(facts.picture_note)}</p>" if facts.picture_note else ""
    if not facts.picture:
        return note
    data = base64.b64encode(facts.picture).decode()
    return f'<img alt="the result beside its source" src="data:image/png;base64,{data}">{note}'


def _section(title: str, content: str) -> str:
    return f"<h2>{title}</h2>\n{content}" if content else ""


def _table(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><th>{_text(label)}</th><td>{_text(text)}</td></tr>\n" for label, text in pairs)
    return f"<table>\n{rows}</table>" if rows else ""


def _rows(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = "".join(f"<th>{_text(each)}</th>" for each in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(each)}</td>" for each in row) + "</tr>\n" for row in rows)
    return f"<table>\n<tr>{titles}</tr>\n{body}</table>"


def _list(texts: Iterable[str]) -> str:
    items = "".join(f"<li>{_text(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else ""


def _text(text: object) -> str:
    return escape(redact(str(text)))
