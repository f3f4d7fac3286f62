"""bioimageio.core: `predict` with a model description that asks for our mirror and halo, in memory, two threads."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from peers.job import Job, classes, open_job, same_size


def predict(source: str, sink: str, model: str) -> None:
    """Segment with bioimageio.core."""
    from bioimageio.core import predict

    job = open_job(source, sink, model)
    with tempfile.TemporaryDirectory() as folder:
        block = dict.fromkeys("zyx"[-job.dims :], job.side + 2 * job.context)
        made = predict(
            model=describe(job, model, Path(folder)),
            inputs=job.normalise(job.image[...])[None, None],
            input_block_shape={"image": {"batch": 1, "channel": 1, **block}},
        )
    job.result[...] = classes(made.members["scores"].to_numpy()[0])


def describe(job: Job, model: str, folder: Path) -> Any:
    """Return a bioimage.io description of our network; its weights and test tensors go to a folder."""
    from bioimageio.spec.model import v0_5

    axes = "zyx"[-job.dims :]
    network = same_size(model)
    classes_made = job.loaded.header.network.classes
    weights = folder / "weights.pt"
    torch.save(network.state_dict(), weights)
    size = v0_5.ParameterizedSize(min=4 * job.context, step=job.loaded.header.network.stride[0])
    image = v0_5.InputTensorDescr(
        id=v0_5.TensorId("image"),
        axes=[
            v0_5.BatchAxis(),
            v0_5.ChannelAxis(channel_names=[v0_5.Identifier("grey")]),
            *(v0_5.SpaceInputAxis(id=v0_5.AxisId(axis), size=size) for axis in axes),
        ],
        data=v0_5.IntervalOrRatioDataDescr(type="float32"),
        pad=v0_5.ReflectPadding(),
    )
    names = [v0_5.Identifier(f"class{number}") for number in range(classes_made)]
    scores = v0_5.OutputTensorDescr(
        id=v0_5.TensorId("scores"),
        axes=[
            v0_5.BatchAxis(),
            v0_5.ChannelAxis(channel_names=names),
            *(
                v0_5.SpaceOutputAxisWithHalo(
                    id=v0_5.AxisId(axis), halo=job.context,
                    size=v0_5.SizeReference(tensor_id=v0_5.TensorId("image"), axis_id=v0_5.AxisId(axis)),
                )
                for axis in axes
            ),
        ],
        data=v0_5.IntervalOrRatioDataDescr(type="float32"),
    )  # fmt: skip
    return v0_5.ModelDescr(
        name="valid U-Net",
        inputs=[image],
        outputs=[scores],
        weights=v0_5.WeightsDescr(
            pytorch_state_dict=v0_5.PytorchStateDictWeightsDescr(
                source=weights,
                architecture=v0_5.ArchitectureFromLibraryDescr(
                    callable=v0_5.Identifier("same_size"), import_from="peers.job", kwargs={"model": model}
                ),
                pytorch_version=v0_5.Version(torch.__version__.split("+")[0]),
            )
        ),
    )
