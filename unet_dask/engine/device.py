"""Choice of device and precision, and what this machine's processor can do natively."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from unet_dask.choices import AUTO, BackendName, Device, Precision
from unet_dask.errors import OptionError

if TYPE_CHECKING:
    import torch

    from unet_dask.model.spec import Spec

#: Instruction sets that multiply bfloat16 natively. Without one of them torch emulates it, hundreds of
#: times slower than float32, or oneDNN refuses it.
_NATIVE_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
#: The one that multiplies float16, which a run on a CPU is never given; but one of a GPU may be looked at there.
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
#: Share of a GPU's memory that networks may use.
_GPU_USED = 0.85


def choose_device(device: str) -> Device:
    """Return "cuda", "mps" or "cpu" for a wish that may be "auto".

    Raises
    ------
    OptionError
        If the device that was asked for is not there.
    """
    if device == Device.CPU or (device == AUTO and not _accelerator_in_sight()):
        return Device.CPU
    import torch

    there = {
        Device.CUDA: torch.cuda.is_available(),
        Device.MPS: torch.backends.mps.is_available(),
        Device.CPU: True,
    }
    if device == AUTO:
        return next(found for found, is_there in there.items() if is_there)
    if device not in list(Device):
        raise OptionError(f"There is no device {device!r}. Use auto, cpu, cuda or mps.")
    if not there[Device(device)]:
        raise OptionError(f"torch finds no {device} device on this machine. Use --device auto or cpu.")
    return Device(device)


def _accelerator_in_sight() -> bool:
    """Return whether this machine may have one; importing torch just to hear no takes seconds."""
    # NVIDIA's, AMD's, and Windows' own to Linux within it.
    devices = ("nvidia*", "kfd", "dxg")
    return platform.system() == "Darwin" or any(any(Path("/dev").glob(name)) for name in devices)


def choose_precision(precision: str, device: str, backend: str = BackendName.TORCH) -> Precision:
    """Return a precision for a wish that may be "auto".

    16 bits are chosen where device and backend multiply them natively; the run then compares them with float32 on the
    user's own data before it trusts them. Eight are for whoever asks for them.
    """
    if precision == AUTO:
        if backend != BackendName.TORCH or device not in (Device.CPU, Device.CUDA):
            return Precision.FLOAT32
        if native_bfloat16(device):
            return Precision.BFLOAT16
        return Precision.FLOAT16 if device == Device.CUDA else Precision.FLOAT32
    if precision not in list(Precision):
        raise OptionError(f"There is no precision {precision!r}. Use one of: auto, {', '.join(Precision)}.")
    if precision == Precision.FLOAT16 and device == Device.CPU:
        raise OptionError("A CPU has no fast float16. Use --precision float32 or bfloat16.")
    if precision == Precision.INT8 and device != Device.CPU:
        raise OptionError(
            f"Eight-bit integers are for CPUs, not for {device}. Use --precision auto, or --device cpu."
        )
    return Precision(precision)


def require_backend(name: str, *, device: str, precision: str, network: Spec) -> None:
    """Refuse a backend that does not exist or cannot run the network like this.

    Raises
    ------
    OptionError
        Saying which does.
    """
    if name not in list(BackendName):
        raise OptionError(f"There is no backend {name!r}. Use one of: {', '.join(BackendName)}.")
    if network.foreign:
        _require_plain(name, device=device, precision=precision)
    dims = network.dims
    if name == BackendName.NNPACK and (device, precision, dims) != (Device.CPU, Precision.FLOAT32, 2):
        raise OptionError(
            f"The backend nnpack runs 2-D networks in float32 on a CPU, not {dims}-D ones in {precision} on {device}. "
            "Use --backend torch, or --device cpu --precision float32."
        )


def _require_plain(name: str, *, device: str, precision: str) -> None:
    """Refuse anything for a network of others but what it is run by."""
    wrong = [
        flag
        for flag, is_wrong in (
            (f"--backend {name}", name != BackendName.TORCH),
            (f"--device {device}", device != Device.CPU),
            (f"--precision {precision}", precision != Precision.FLOAT32),
        )
        if is_wrong
    ]
    if wrong:
        raise OptionError(
            f"A network of others (ONNX) is run by ONNX Runtime, in float32 on a CPU, and not with {' '.join(wrong)}. "
            "Use --device cpu --precision float32, and leave --backend out."
        )


def native_bfloat16(device: str = Device.CPU) -> bool:
    """Return whether the processor, or the GPU, multiplies bfloat16 in hardware.

    GPUs do since 2020. Of one that is not here, but perhaps where the workers are, it is taken for granted: they are
    asked before the run begins.
    """
    if device == Device.CUDA:
        import torch

        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(_NATIVE_BFLOAT16 & _usable())


def native_int8() -> bool:
    """Return whether the processor multiplies bytes in hardware, and adds them up exactly."""
    return bool(_NATIVE_INT8 & _usable())


def multiplies(precision: str, device: str) -> bool:
    """Return whether the processor or the GPU of this process multiplies in a precision in hardware.

    Parameters
    ----------
    precision : one of :class:`Precision`
    device : one of :class:`Device`, of which "mps" is taken at its word
    """
    if precision == Precision.INT8:
        return native_int8()
    if precision == Precision.BFLOAT16 and device in (Device.CPU, Device.CUDA):
        return native_bfloat16(device)
    return (precision, device) != (Precision.FLOAT16, Device.CPU) or bool(_NATIVE_FLOAT16 & _usable())


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
    on_gpu = device == Device.CUDA
    what, other = ("GPU", Precision.FLOAT16) if on_gpu else ("processor", Precision.FLOAT32)
    why = "sums of bytes would saturate"
    if precision != Precision.INT8:
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


def gpu_memory(device: str) -> int:
    """Return the bytes that networks may use of the GPU's memory; 0 where there is no GPU.

    The rest is for CUDA itself and its libraries, which take the better part of a gigabyte, and for a screen.
    """
    if device != Device.CUDA:
        return 0
    import torch

    if not torch.cuda.is_available():
        return 0
    return int(_GPU_USED * torch.cuda.get_device_properties(0).total_memory)


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
