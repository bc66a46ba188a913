"""Where arithmetic may be faster than float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def multiplies_bfloat16(device: str) -> bool:
    """Whether a device, "cpu" or "cuda", multiplies bfloat16 in hardware. A CPU that does not takes some hundred times
    as long for it as for float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def training_autocast(device: str = "cpu") -> torch.autocast:
    """bfloat16 for the forward pass of training where the device multiplies it in hardware, float32 elsewhere.

    Inference stays in float32: a version's answers must not depend on the machine beyond rounding.

    Args:
        device: "cpu" or "cuda".
    """
    return torch.autocast(device, torch.bfloat16, enabled=multiplies_bfloat16(device))


@contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions of float32 multiply in float32 on a GPU too. cuDNN's default is TF32, whose 10 bits of mantissa
    would make "float32" mean one thing on a GPU and another on a CPU."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(cudnn.enabled, cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False):
        yield
