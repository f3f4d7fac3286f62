"""Choice of device and precision, and what this machine's processor can do natively."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from unet_dask.errors import OptionError

if TYPE_CHECKING:
    import torch

#: What runs a network: torch, or torch with some convolutions of NNPACK.
BACKENDS = ("torch", "nnpack")
#: Instruction sets that multiply bfloat16 natively. Without one of them torch emulates it, hundreds of
#: times slower than float32, or oneDNN refuses it.
_NATIVE_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
#: The one that multiplies float16, which a run on a CPU is never given; but one of a card may be looked at there.
_NATIVE_FLOAT16 = {"avx512_fp16"}
#: Those that multiply bytes and add them up in 32 bits. Without one of them sums of two products saturate at 16 bits.
_NATIVE_INT8 = {"avx512_vnni", "avx_vnni", "amx_int8"}
#: What is left of all those where ONEDNN_MAX_CPU_ISA holds oneDNN to less than the processor has.
_LEFT: dict[str, frozenset[str]] = {
    **dict.fromkeys(("SSE41", "AVX", "AVX2", "AVX512_CORE"), frozenset()),
    **dict.fromkeys(("AVX2_VNNI", "AVX2_VNNI_2"), frozenset({"avx_vnni"})),
    "AVX512_CORE_VNNI": frozenset({"avx512_vnni"}),
    "AVX512_CORE_BF16": frozenset({"avx512_vnni", "avx512_bf16"}),
    **dict.fromkeys(
        ("AVX512_CORE_FP16", "AVX10_1_512"), frozenset({"avx512_vnni", "avx512_bf16", "avx512_fp16"})
    ),
}
#: Share of a card's memory that networks may use.
_CARD_USED = 0.85
#: Numbers in which a network can be run.
PRECISIONS = ("float32", "bfloat16", "float16", "int8")


def choose_device(device: str) -> str:
    """Return "cuda", "mps" or "cpu" for a wish that may be "auto".

    Raises
    ------
    OptionError
        If the device that was asked for is not there.
    """
    if device == "cpu" or (device == "auto" and not _accelerator_in_sight()):
        return "cpu"
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if device not in there:
        raise OptionError(f"There is no device {device!r}. Use auto, cpu, cuda or mps.")
    if not there[device]:
        raise OptionError(f"torch finds no {device} device on this machine. Use --device auto or cpu.")
    return device


def _accelerator_in_sight() -> bool:
    """Return whether this machine may have one; importing torch just to hear no takes seconds."""
    # NVIDIA's, AMD's, and Windows' own to Linux within it.
    devices = ("nvidia*", "kfd", "dxg")
    return platform.system() == "Darwin" or any(any(Path("/dev").glob(name)) for name in devices)


def choose_precision(precision: str, device: str, backend: str = "torch") -> str:
    """Return one of :data:`PRECISIONS` for a wish that may be "auto".

    16 bits are chosen where device and backend multiply them natively; the run then compares them with float32 on the
    user's own data before it trusts them. Eight are for whoever asks for them.
    """
    if precision == "auto":
        if backend != "torch" or device not in ("cpu", "cuda"):
            return "float32"
        if native_bfloat16(device):
            return "bfloat16"
        return "float16" if device == "cuda" else "float32"
    if precision not in PRECISIONS:
        raise OptionError(f"There is no precision {precision!r}. Use one of: auto, {', '.join(PRECISIONS)}.")
    if precision == "float16" and device == "cpu":
        raise OptionError("A CPU has no fast float16. Use --precision float32 or bfloat16.")
    if precision == "int8" and device != "cpu":
        raise OptionError(
            f"Eight-bit integers are for CPUs, not for {device}. Use --precision auto, or --device cpu."
        )
    return precision


def require_backend(name: str, *, device: str, precision: str, dims: int) -> None:
    """Refuse a backend that does not exist or cannot run the network like this.

    Raises
    ------
    OptionError
        Saying which does.
    """
    if name not in BACKENDS:
        raise OptionError(f"There is no backend {name!r}. Use one of: {', '.join(BACKENDS)}.")
    if name == "nnpack" and (device, precision, dims) != ("cpu", "float32", 2):
        raise OptionError(
            f"The backend nnpack runs 2-D networks in float32 on a CPU, not {dims}-D ones in {precision} on {device}. "
            "Use --backend torch, or --device cpu --precision float32."
        )


def native_bfloat16(device: str = "cpu") -> bool:
    """Return whether the processor, or the card, multiplies bfloat16 in hardware.

    Cards do since 2020. Of one that is not here, but perhaps where the workers are, it is taken for granted: they are
    asked before the run begins.
    """
    if device == "cuda":
        import torch

        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(_NATIVE_BFLOAT16 & _usable())


def native_int8() -> bool:
    """Return whether the processor multiplies bytes in hardware, and adds them up exactly."""
    return bool(_NATIVE_INT8 & _usable())


def multiplies(precision: str, device: str) -> bool:
    """Return whether the processor or the card of this process multiplies in a precision in hardware.

    Parameters
    ----------
    precision : one of :data:`PRECISIONS`
    device : "cpu", "cuda" or "mps", of which the last is taken at its word
    """
    if precision == "int8":
        return native_int8()
    if precision == "bfloat16" and device in ("cpu", "cuda"):
        return native_bfloat16(device)
    return (precision, device) != ("float16", "cpu") or bool(_NATIVE_FLOAT16 & _usable())


def require_precision(precision: str, device: str) -> None:
    """Refuse to run a network in a precision that this process could only emulate.

    Raises
    ------
    OptionError
        Saying what to use instead.
    """
    if not multiplies(precision, device):
        raise cannot_multiply(precision, device)


def cannot_multiply(precision: str, device: str, *, begun: bool = False) -> OptionError:
    """Return the refusal of a precision that whoever is to compute does not have; `begun` of a run begun elsewhere.

    torch emulates bfloat16 by unfolding each input to a matrix: in 2-D in 6 times the time, in 3-D in 22 times and more
    than twice the memory of the plan; oneDNN refuses it outright without AVX-512. Sums of bytes saturate on processors
    without the instructions for it.
    """
    what, other = ("card", "float16") if device == "cuda" else ("processor", "float32")
    why = "sums of bytes would saturate"
    if precision != "int8":
        why = "it would be emulated, many times slower and in more memory than is planned"
    advice = f"Use --precision {other}, or other machines."
    if begun:
        advice = (
            f"The run was begun in {precision}: resume it on machines that have it, or start over with --overwrite "
            f"--precision {other}."
        )
    return OptionError(f"The {what} that is to compute has no {precision}: {why}. {advice}")


def _usable() -> frozenset[str]:
    """Return the processor's sets of instructions that oneDNN may use: a variable of its own can hold it to fewer."""
    names = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
    held = next((os.environ[name] for name in names if name in os.environ), "").upper()
    return _instructions() & _LEFT.get(held, _instructions())


@lru_cache(maxsize=1)
def _instructions() -> frozenset[str]:
    """Return the names of this processor's sets of instructions, as Linux knows them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    return frozenset(word for line in text.splitlines() if "lags" in line for word in line.split())


def card_memory(device: str) -> int:
    """Return the bytes that networks may use of the card's memory; 0 where there is no card.

    The rest is for CUDA itself and its libraries, which take the better part of a gigabyte, and for a screen.
    """
    if device != "cuda":
        return 0
    import torch

    if not torch.cuda.is_available():
        return 0
    return int(_CARD_USED * torch.cuda.get_device_properties(0).total_memory)


def torch_dtype(precision: str) -> torch.dtype:
    """Return torch's type of a precision."""
    import torch

    types = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return types[precision]


def use_threads(threads: int) -> None:
    """Let the network use this many threads of this process."""
    import torch

    torch.set_num_threads(max(threads, 1))


def available_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
