"""The page of a report: one HTML file without a script, that needs nothing beside it.

Whatever is put into `page.html` has lost the secrets of its URLs, and its markup is text.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from unet_dask.config import format_bytes
from unet_dask.io.remote import redact
from unet_dask.report.chart import quantiles, region_chart
from unet_dask.report.journal import voxels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unet_dask.dispatch import Failure
    from unet_dask.planning.plan import Plan
    from unet_dask.report.facts import Facts
    from unet_dask.report.journal import Journal

#: By which an earlier report is known, so that nothing else is ever replaced by one.
MARK = '<!doctype html>\n<meta name="generator" content="unet-dask report">'


def page(facts: Facts, journal: Journal) -> str:
    """Return the report."""
    assert journal.started is not None
    plan = journal.started.plan
    return rendered(
        "page.html",
        facts=facts,
        pictures=[
            (about, base64.b64encode(png).decode())
            for about, png in (
                ("the result beside its source", facts.pictures.whole),
                ("the part with most in it, at full size", facts.pictures.detail),
            )
            if png
        ],
        done=list(_done(facts, journal, plan)),
        chart=region_chart(journal.times),
        workers=_workers(journal, plan),
        failed=[(_place(failure, plan), failure.reason) for failure in journal.failures],
        more=journal.failed - len(journal.failures),
        plan=plan.describe(),
        notes=(*journal.started.notes, *journal.remarks),
    )


def rendered(template: str, **said: object) -> str:
    """Return a page of a template; what is said in it loses its secrets, and its markup is text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    about = Environment(
        loader=PackageLoader("unet_dask", "report"),
        autoescape=True,
        finalize=_without_secrets,
        undefined=StrictUndefined,
    )
    return about.get_template(template).render(**said)


def _without_secrets(value: object) -> object:
    """Return what is put into the page and escaped after this; markup of the page itself stays as it is."""
    return value if hasattr(value, "__html__") else redact(str(value))


def _done(facts: Facts, journal: Journal, plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield what was done this time, and how fast."""
    assert journal.started is not None
    if journal.started.done:
        yield "before", f"{journal.started.done} of {journal.started.total} blocks were done before"
    yield "regions", f"{journal.regions} of {len(plan.grid)} computed"
    if journal.background:
        yield "background", f"{journal.background} regions outside of the mask written"
    if journal.blocks:
        yield "beside them", f"{journal.blocks} blocks of pyramids and joins of objects"
    if journal.failed:
        yield "failed", f"{journal.failed} blocks"
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


def _workers(journal: Journal, plan: Plan) -> list[tuple[str, ...]]:
    return [
        (
            str(number),
            str(told.pieces),
            f"{told.seconds:.1f} s",
            format_bytes(told.peak_bytes),
            f"{told.peak_bytes / plan.memory.total:.0%} of {format_bytes(plan.memory.total)}",
        )
        for number, told in sorted(journal.workers.items())
    ]


def _place(failure: Failure, plan: Plan) -> str:
    """Return the coordinates of a failed piece of work."""
    if failure.level > 0:
        return f"level {failure.level} of the pyramid, block {failure.index}"
    return plan.grid.box(failure.index).in_space_and_time.text
