"""What a GPU can do at most: arithmetic by precision, memory traffic, and the floor that both put under a launch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TENSOR_CORES = {"tf32": "tf32", "float16": "float16", "bfloat16": "float16"}  # by precision: whose rate counts


@dataclass(frozen=True)
class Ceilings:
    """The two ceilings of one GPU.

    Args:
        name: as people call it.
        arch: its compute capability, 80 for sm_80.
        flops: FLOP/s by kind of arithmetic: "float32" on CUDA cores; "tf32" and "float16" (also bfloat16) dense on
            tensor cores with float32 sums. What a GPU does not have is not there.
        bandwidth: bytes/s of its memory.
        source: where the numbers are from.
    """

    name: str
    arch: int
    flops: Mapping[str, float]
    bandwidth: float
    source: str

    def floor(self, flops: float, size: float, arithmetic: str) -> float:
        """The least seconds for so many FLOPs and bytes: the larger of the two."""
        return max(flops / self.rate(arithmetic), size / self.bandwidth)

    def rate(self, arithmetic: str) -> float:
        """FLOP/s of a kind of arithmetic. Raises ValueError where the GPU does not have it."""
        if arithmetic not in self.flops:
            raise ValueError(f"{self.name} has no {arithmetic} on tensor cores; it has {', '.join(self.flops)}")
        return self.flops[arithmetic]


def _ceilings(
    name: str, arch: int, float32: float, half: float | None, tf32: float | None, gigabytes: float, source: str
) -> Ceilings:
    """Rates in TFLOP/s."""
    given = {"float32": float32, "tf32": tf32, "float16": half}
    return Ceilings(
        name, arch, {kind: rate * 1e12 for kind, rate in given.items() if rate is not None}, gigabytes * 1e9, source
    )


DATA_SHEET = "NVIDIA's data sheet, dense"
GPUS = {
    # 790 TFLOP/s and 4.3 TB/s are what a large bfloat16 product and a copy reach there; NVIDIA states 989 and 4.8.
    "h200": _ceilings("H200", 90, 67, 790, 395, 4300, "a large bfloat16 product, tf32 at half its rate, and a copy"),
    "h100": _ceilings("H100 SXM", 90, 67, 989, 495, 3350, DATA_SHEET),
    "a100": _ceilings("A100 SXM 80 GB", 80, 19.5, 312, 156, 2039, DATA_SHEET),
    "rtx4090": _ceilings("GeForce RTX 4090", 89, 82.6, 165.2, 82.6, 1008, DATA_SHEET),
    "rtx3090": _ceilings("GeForce RTX 3090", 86, 35.6, 71, 35.6, 936, DATA_SHEET),
    "t4": _ceilings("T4", 75, 8.1, 65, None, 320, DATA_SHEET),
    "gtx1070": _ceilings("GeForce GTX 1070", 61, 6.5, None, None, 256, DATA_SHEET),
}


def of(name: str) -> Ceilings:
    """The ceilings of a GPU in :data:`GPUS`, or of the one that a device's full name ("NVIDIA H200") means.

    Raises ValueError naming those that are known.
    """
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    found = [key for key in GPUS if key in plain]
    if not found:
        raise ValueError(
            f"profile: the ceilings of {name!r} are not known; --gpu names one to compare with: {', '.join(GPUS)}"
        )
    return GPUS[max(found, key=len)]
