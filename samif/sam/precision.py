"""Where arithmetic may be faster than float32."""

from __future__ import annotations

import torch


def training_autocast() -> torch.autocast:
    """bfloat16 for the forward pass of training where this CPU multiplies it in hardware, float32 elsewhere.

    Elsewhere bfloat16 is emulated and slower. Inference stays in float32: a version's answers must not depend on the
    machine beyond rounding.
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))
