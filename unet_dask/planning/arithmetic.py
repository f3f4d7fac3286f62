"""What multiplies, in which numbers, and how fast that is taken to be."""

from __future__ import annotations

from dataclasses import dataclass

from unet_dask.choices import BackendName, Device, Precision

#: FLOP a second that a worker is taken to do, by device and precision; all others, those of "mps", are the same. CPUs
#: are measured, on one core with AMX; without it a core takes longer, so that regions are larger than they need be.
#: GPUs are large ones of a data centre, as far as such a network makes use of them; not measured.
_RATES = {
    ("cpu", "float32"): 0.15e12,
    ("cpu", "bfloat16"): 0.8e12,
    ("cpu", "int8"): 1.4e12,
    ("cuda", "float32"): 30e12,
    ("cuda", "bfloat16"): 300e12,
    ("cuda", "float16"): 300e12,
}
_OTHER_RATE = 3e12


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What multiplies, in which numbers.

    Attributes
    ----------
    device, precision, backend : of the network, each chosen already
    averaged : whether probabilities are the mean over several passes
    gpu_limit : bytes of the GPU's memory that one worker may use; 0 where there is none, or nobody knows
    """

    device: str = "cpu"
    precision: str = "float32"
    backend: str = "torch"
    averaged: bool = False
    gpu_limit: int = 0

    @property
    def on_cpu(self) -> bool:
        """Whether processors multiply."""
        return self.device == Device.CPU

    @property
    def on_gpu(self) -> bool:
        """Whether GPUs of CUDA multiply, in memory of their own."""
        return self.device == Device.CUDA

    @property
    def compared(self) -> bool:
        """Whether a worker may run the network once in float32 by torch, to compare."""
        return (self.precision, self.backend) != (Precision.FLOAT32, BackendName.TORCH)

    @property
    def item(self) -> int:
        """Bytes of a number."""
        return {"float32": 4, "int8": 1}.get(self.precision, 2)

    @property
    def rate(self) -> float:
        """FLOP a second that a worker is taken to do.

        It says how large a region must be to be worth its price, and no more: plans must not depend on the machine that
        makes them (decision 3).
        """
        return _RATES.get((self.device, self.precision), _OTHER_RATE)

    @property
    def least_rate(self) -> float:
        """The same where nothing but float32 is fast: a CPU that is not may be all that there is to share the work."""
        return self.rate if self.on_gpu else _RATES.get((self.device, "float32"), _OTHER_RATE)
