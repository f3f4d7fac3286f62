"""The network's forward pass alone: FLOP/s by width, tile and precision, as a share of the GPU's matrix product.

    python benchmarks/gpu/network.py [--widths 16,32,64] [--sides 572,1084,2108,4156] [--compiled 2108]
    python benchmarks/gpu/network.py --dims 3 [--sides 132,196,260,388]
    python benchmarks/gpu/network.py --device cpu

Bar: at width 64 in 2-D, at least half of what the largest bfloat16 matrix product reaches (limits.py) on some tile.

One tile, channels last, in several ways:

- eager: as torch runs it by itself;
- deterministic: only by kernels of cuDNN that give the same bytes every time, as resuming to the same bytes needs;
- tuned: cuDNN tries its kernels and takes the fastest, which may be another one the next time;
- graph: replayed from a CUDA graph, which saves the starts of the kernels;
- compiled: by torch.compile, which fuses what lies between the convolutions but takes a minute for every shape, so that
  it is tried at one side only.

What does not work is said in a line. The FLOP are those of the plan (`unet_dask.model.cost`). Beside them stand the
most memory that the pass had, without weights, and how many times what the plan counts for it that is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from clock import DTYPES, about, numbers, parsed, parser_of, reason, seconds_of, words
from limits import peak

from unet_dask.model.cost import pass_bytes, tile_flop
from unet_dask.model.file import new_model
from unet_dask.model.header import NetworkSpec, Normalisation
from unet_dask.model.network import layout

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from torch import Tensor

#: Depth by dimensions: the networks of the two papers.
DEPTH = {2: 4, 3: 3}
#: Legal inputs of these.
SIDES = {2: "572,1084,2108,4156", 3: "132,196,260,388"}
#: The bar: share of the matrix product.
BAR = 0.5
#: What cuDNN is told, by mode.
FLAGS = {"deterministic": {"deterministic": True}, "tuned": {"benchmark": True}}


class Case(NamedTuple):
    """What is timed."""

    spec: NetworkSpec
    side: int
    precision: str
    mode: str

    @property
    def sides(self) -> tuple[int, ...]:
        return (self.side,) * self.spec.dims


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Yield all cases, the cheap ones first."""
    for width in options.widths:
        spec = NetworkSpec(dims=options.dims, width=width, depth=options.depth or DEPTH[options.dims])
        for side in options.sides:
            for precision in options.precisions:
                for mode in options.modes:
                    if mode != "compiled" or side in options.compiled:
                        yield Case(spec, side, precision, mode)


def prepared(case: Case, device: str) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return the network and a tile, both as the product has them on a device."""
    constants = Normalisation("constant", (0.0,) * case.spec.channels, (1.0,) * case.spec.channels)
    network = new_model(case.spec, normalisation=constants).network.eval().requires_grad_(requires_grad=False)
    tile = torch.randn(1, case.spec.channels, *case.sides, device=device).to(DTYPES[case.precision])
    network = network.to(device=device, dtype=DTYPES[case.precision])
    return network, tile.contiguous(memory_format=layout(case.spec.dims))


def as_graph(network: Callable[[Tensor], Tensor], tile: Tensor) -> Callable[[], object]:
    """Return what replays the kernels of a pass; the tile stays where it is."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):  # libraries make themselves at home before they are recorded
        network(tile)
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = network(tile)

    def replay() -> Tensor:
        graph.replay()
        return logits

    return replay


def runner(mode: str, network: Callable[[Tensor], Tensor], tile: Tensor) -> Callable[[], object]:
    """Return a function that runs the network once."""
    if mode == "graph":
        if tile.device.type != "cuda":
            raise RuntimeError("CUDA graphs are for CUDA")
        return as_graph(network, tile)
    if mode == "compiled":
        torch.compiler.reset()  # it gives up on a function after some shapes
        network = torch.compile(network, dynamic=False)
    return lambda: network(tile)


def measured(case: Case, device: str) -> tuple[float, float]:
    """Return the seconds of a pass, and the most bytes that it had on a GPU without its weights."""
    torch.manual_seed(0)
    network, tile = prepared(case, device)
    before = 0
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() - tile.nbytes
    told = {"allow_tf32": case.precision == "tf32"} | FLAGS.get(case.mode, {})
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, **told):
        seconds = seconds_of(runner(case.mode, network, tile), device)
    return seconds, torch.cuda.max_memory_allocated() - before if device == "cuda" else float("nan")


def row(case: Case, seconds: float, most: float, peaks: dict[str, float]) -> tuple[float, str]:
    """Return a case's share of the matrix product in its precision, and its row."""
    flop = float(tile_flop(case.spec, case.sides))
    counted = pass_bytes(case.spec, case.sides, item=DTYPES[case.precision].itemsize)
    made = 1.0
    for side, halo in zip(case.sides, case.spec.halo, strict=True):
        made *= side - 2 * halo
    share = flop / seconds / peaks[case.precision]
    return share, (
        f"{seconds * 1e3:9.2f} | {flop / seconds / 1e12:8.2f} | {share:7.1%} | {made / seconds / 1e6:8.1f} | "
        f"{most / 2**30:6.2f} | {most / counted:5.2f}"
    )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--dims", type=int, choices=(2, 3), default=2)
    parser.add_argument("--depth", type=int, help="of the network [4, in 3-D 3]")
    parser.add_argument("--widths", type=numbers, default="16,32,64")
    parser.add_argument("--sides", type=numbers, help=f"of the tile [{SIDES[2]}; in 3-D {SIDES[3]}]")
    parser.add_argument("--precisions", type=words, default="bfloat16,float16")
    parser.add_argument("--modes", type=words, default="eager,deterministic,tuned,graph,compiled")
    parser.add_argument("--compiled", type=numbers, help="sides that are compiled for [the third]")
    options = parsed(
        parser,
        {"depth": 2, "widths": "4", "sides": "60", "precisions": "bfloat16", "modes": "eager,tuned,graph"},
    )
    options.sides = options.sides or numbers(SIDES[options.dims])
    options.compiled = options.compiled or options.sides[2:3]
    print(about(options.device))
    peaks = {precision: peak(precision, options.device) for precision in options.precisions}
    for precision, rate in peaks.items():
        print(f"matrix product in {precision}: {rate / 1e12:.1f} TFLOP/s")
    print(f"{'width':>5} | {'side':>5} | {'precision':>9} | {'mode':>13} | {'ms':>9} | ", end="")
    print("TFLOP/s  | of peak | Mvoxel/s | GiB    | of those counted")
    best = 0.0
    for case in cases(options):
        name = f"{case.spec.width:5} | {case.side:5} | {case.precision:>9} | {case.mode:>13}"
        try:
            share, text = row(case, *measured(case, options.device), peaks)
        except Exception as error:  # compilers fail in many ways, and the others are to be timed
            print(f"{name} | {reason(error)}", flush=True)
            continue
        print(f"{name} | {text}", flush=True)
        if case.spec.width == 64 and case.precision == "bfloat16":
            best = max(best, share)
    if best:
        bar = f"; the bar is {BAR:.0%}" if options.dims == 2 else ""
        print(f"width 64 in bfloat16: {best:.1%} of the matrix product at best{bar}")


if __name__ == "__main__":
    main()
