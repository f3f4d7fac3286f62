"""A source, a model and workers in threads: the same small run, again and again, and what it must leave."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

import unet_dask
from tests.oracle import disagreement, sure_classes_differ, whole_image
from unet_dask.errors import UnetDaskError
from unet_dask.model.file import load_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from distributed import Client

#: Two by two regions of two chunks each, and a pyramid of two levels.
SETTINGS: dict[str, Any] = {
    "products": "classes,probabilities",
    "precision": "float32",
    "region": (24, 260),
    "tile": (24, 260),
    "chunks": (24, 130),
}
SHAPE = (48, 520)


def content(root: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder; what late workers leave may go while it is looked at."""
    found = {}
    for folder, _, names in os.walk(root):  # passes over folders that are gone
        for path in (Path(folder, name) for name in names):
            with suppress(FileNotFoundError) if "session-" in folder else nullcontext():
                found[str(path.relative_to(root))] = path.read_bytes()
    return found


@dataclass(frozen=True)
class Bench:
    """What is run, and where.

    Attributes
    ----------
    source, model : paths
    client : of the cluster
    settings : of the run
    tree : bytes of every file of an undisturbed run
    """

    source: Path
    model: Path
    client: Client
    settings: Mapping[str, Any] = field(default_factory=lambda: SETTINGS)
    tree: Mapping[str, bytes] = field(default_factory=dict)

    def run(self, sink: Path, **more: Any) -> unet_dask.Run:
        """Segment the source into a sink."""
        return unet_dask.segment_store(
            self.source, sink, self.model, client=self.client, **{**self.settings, **more}
        )

    def undisturbed(self) -> Bench:
        """Return this bench with the tree that an undisturbed run writes, right by the whole-image oracle."""
        with tempfile.TemporaryDirectory() as folder:
            sink = Path(folder) / "out.zarr"
            self.run(sink)
            self._require_right(sink)
            return replace(self, tree=content(sink))

    def _require_right(self, sink: Path) -> None:
        image = np.asarray(zarr.open_array(str(self.source), mode="r")[...])
        expected = whole_image(load_model(self.model), image[None])
        classes = np.asarray(zarr.open_array(str(sink / "classes" / "0"), mode="r")[...])
        assert sure_classes_differ(classes, expected) == 0
        if (sink / "probabilities").exists():
            found = np.asarray(zarr.open_array(str(sink / "probabilities" / "0"), mode="r")[...])
            assert disagreement(found, expected) < 1e-5

    def wrong(self, sink: Path) -> list[str]:
        """Return the files of a sink that are not as an undisturbed run leaves them, or should not be there."""
        found = content(sink)
        return sorted(name for name in {*found, *self.tree} if found.get(name) != self.tree.get(name))

    def idle(self) -> None:
        """Wait until no worker is at work any more for a run that has ended."""
        deadline = time.monotonic() + 30
        while any(self.client.run(_at_work).values()):
            assert time.monotonic() < deadline, "a worker does not come to rest"
            time.sleep(0.01)


def _at_work(dask_worker: Any) -> int:
    state = dask_worker.state
    return int(state.executing_count) + len(state.ready)


def refusal(act: Callable[[], object]) -> str:
    """Return what an action was refused with, "" if it succeeded.

    Anything but an error of ours, in one line, is the harness's finding.
    """
    try:
        act()
    except UnetDaskError as error:
        text = str(error)
        assert text, "a refusal without a word"
        assert len(text.splitlines()) == 1, text
        return text
    return ""


def fresh(folder: Path) -> Path:
    """Return a folder that is empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
