"""Where arithmetic may be faster than float32."""

from __future__ import annotations

import torch


def training_autocast(device: str = "cpu") -> torch.autocast:
    """bfloat16 for the forward pass of training where this CPU (or GPU) multiplies it in hardware, float32 elsewhere.

    Elsewhere bfloat16 is emulated and slower. Inference stays in float32: a version's answers must not depend on the
    machine beyond rounding.

    Args:
        device: "cpu" or "cuda".
    """
    if device == "cuda":
        return torch.autocast(device, torch.bfloat16, enabled=torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.autocast(device, torch.bfloat16, enabled=bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))
