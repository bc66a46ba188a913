"""The image encoder of vit_b on this machine's CPU: ours against the official forward pass, random weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from segment_anything import sam_model_registry
from torch import nn

from benchmarks.measure import Comparison, compare
from samif.sam.precision import multiplies_bfloat16
from samif.sam.vit import FastViT


def run() -> Iterator[Comparison]:
    """One image of 1024 x 1024 pixels, bfloat16 and float32."""
    torch.manual_seed(0)
    official = sam_model_registry["vit_b"]().image_encoder.eval().requires_grad_(False)
    for name, parameter in official.named_parameters():
        if "pos" in name:  # zero until trained, and then they would cost nothing to leave out
            nn.init.normal_(parameter, std=0.05)
    image = torch.randn(1, 3, 1024, 1024)
    for dtype in (torch.bfloat16, torch.float32) if multiplies_bfloat16("cpu") else (torch.float32,):
        yield _compare(official, image, dtype)


def _compare(official: nn.Module, image: torch.Tensor, dtype: torch.dtype) -> Comparison:
    fast = FastViT(official, dtype)
    with torch.inference_mode():
        ours, theirs = fast(image), official(image)
        error = float((ours - theirs).norm() / theirs.norm())

    @torch.inference_mode()
    def run_ours() -> torch.Tensor:
        return fast(image)

    @torch.inference_mode()
    def run_official() -> torch.Tensor:
        return official(image)

    name = f"vit_b encoder, {str(dtype).removeprefix('torch.')}"
    note = f"{torch.get_num_threads()} threads; relative difference {error:.0e}"
    return compare(name, run_ours, run_official, "official encoder, float32", note, rounds=3)
