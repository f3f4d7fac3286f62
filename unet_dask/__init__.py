"""unet-dask: the 2015 U-Net on volumes larger than memory, from Zarr to Zarr, without seams.

The public names below are imported at their first use, so that ``import unet_dask`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unet_dask.config import SegmentConfig as SegmentConfig
    from unet_dask.conversion.convert import Converted as Converted
    from unet_dask.conversion.convert import convert as convert
    from unet_dask.errors import UnetDaskError as UnetDaskError
    from unet_dask.evaluation.evaluate import EvaluateConfig as EvaluateConfig
    from unet_dask.evaluation.evaluate import evaluate as evaluate
    from unet_dask.lazy import segment as segment
    from unet_dask.many.outcome import ManyRun as ManyRun
    from unet_dask.many.segment import segment_many as segment_many
    from unet_dask.measuring.into import measure_into as measure_into
    from unet_dask.measuring.measure import measure as measure
    from unet_dask.measuring.measurement import Measurement as Measurement
    from unet_dask.model.file import Model as Model
    from unet_dask.model.file import load_model as load_model
    from unet_dask.model.file import new_model as new_model
    from unet_dask.model.file import save_model as save_model
    from unet_dask.model.header import NetworkSpec as NetworkSpec
    from unet_dask.outlines.export import Exported as Exported
    from unet_dask.outlines.export import export as export
    from unet_dask.outlines.labels import export_labels as export_labels
    from unet_dask.picture.preview import preview as preview
    from unet_dask.pipeline import plan_store as plan_store
    from unet_dask.pipeline import segment_store as segment_store
    from unet_dask.planning.plan import Plan as Plan
    from unet_dask.remake import remake_objects as remake_objects
    from unet_dask.result import open_result as open_result
    from unet_dask.run.outcome import Run as Run
    from unet_dask.training.config import TrainConfig as TrainConfig
    from unet_dask.training.loop import train as train
    from unet_dask.verify.finding import Verification as Verification
    from unet_dask.verify.store import repair_store as repair_store
    from unet_dask.verify.store import verify_store as verify_store

_HOME = {
    "Converted": "unet_dask.conversion.convert",
    "EvaluateConfig": "unet_dask.evaluation.evaluate",
    "Exported": "unet_dask.outlines.export",
    "ManyRun": "unet_dask.many.outcome",
    "Measurement": "unet_dask.measuring.measurement",
    "Model": "unet_dask.model.file",
    "NetworkSpec": "unet_dask.model.header",
    "Plan": "unet_dask.planning.plan",
    "Run": "unet_dask.run.outcome",
    "SegmentConfig": "unet_dask.config",
    "TrainConfig": "unet_dask.training.config",
    "UnetDaskError": "unet_dask.errors",
    "Verification": "unet_dask.verify.finding",
    "convert": "unet_dask.conversion.convert",
    "evaluate": "unet_dask.evaluation.evaluate",
    "export": "unet_dask.outlines.export",
    "export_labels": "unet_dask.outlines.labels",
    "load_model": "unet_dask.model.file",
    "measure": "unet_dask.measuring.measure",
    "measure_into": "unet_dask.measuring.into",
    "new_model": "unet_dask.model.file",
    "open_result": "unet_dask.result",
    "plan_store": "unet_dask.pipeline",
    "preview": "unet_dask.picture.preview",
    "remake_objects": "unet_dask.remake",
    "repair_store": "unet_dask.verify.store",
    "save_model": "unet_dask.model.file",
    "segment": "unet_dask.lazy",
    "segment_many": "unet_dask.many.segment",
    "segment_store": "unet_dask.pipeline",
    "train": "unet_dask.training.loop",
    "verify_store": "unet_dask.verify.store",
}

__all__ = sorted([*_HOME, "__version__"])  # noqa: PLE0605 # a list, only sorted


def __getattr__(name: str) -> Any:  # any public object
    if name == "__version__":
        return version("unet-dask")
    if name not in _HOME:
        raise AttributeError(f"module 'unet_dask' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
