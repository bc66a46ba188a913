"""Image encoders on this machine's CPU: vit_b with random weights, ours against the official forward pass; and `photo`
against the official vit_b, each from image to embedding."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from segment_anything import sam_model_registry
from segment_anything.utils.transforms import ResizeLongestSide
from torch import nn
from torch.nn import functional as F

from benchmarks.measure import Comparison, compare
from samif.sam.encoder import ImageEncoder
from samif.sam.precision import multiplies_bfloat16
from samif.sam.vit import FastViT
from samif.sam.zoo import load_sam


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
    yield from _compare_photo(official)


def _compare_photo(official: nn.Module) -> Iterator[Comparison]:
    """From an image of 1024 x 768 pixels to its embedding, without tiles and with 2 x 2."""
    pixels = np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8)
    transform = ResizeLongestSide(1024)
    mean, std = torch.full((3, 1, 1), 123.675), torch.full((3, 1, 1), 58.395)

    @torch.inference_mode()
    def run_official() -> torch.Tensor:
        image = torch.from_numpy(transform.apply_image(pixels)).permute(2, 0, 1)
        encoded: torch.Tensor = official(F.pad((image - mean) / std, (0, 0, 0, 1024 - image.shape[1]))[None])
        return encoded

    for tiles in (1, 2):
        encoder = ImageEncoder(load_sam("photo"), tiles=tiles)
        name = "photo encoder" + (f", {tiles} x {tiles} tiles" if tiles > 1 else "")
        note = f"1024 x 768 pixels, {torch.get_num_threads()} threads"
        yield compare(name, partial(encoder.encode, [pixels]), run_official, "official vit_b, float32", note, rounds=3)


def _compare(official: nn.Module, image: torch.Tensor, dtype: torch.dtype) -> Comparison:
    fast = FastViT(official, dtype)
    with torch.inference_mode():
        ours, theirs = fast(image), official(image)
        error = float((ours - theirs).norm() / theirs.norm())

    @torch.inference_mode()
    def run_ours() -> torch.Tensor:
        encoded: torch.Tensor = fast(image)
        return encoded

    @torch.inference_mode()
    def run_official() -> torch.Tensor:
        encoded: torch.Tensor = official(image)
        return encoded

    name = f"vit_b encoder, {str(dtype).removeprefix('torch.')}"
    note = f"{torch.get_num_threads()} threads; relative difference {error:.0e}"
    return compare(name, run_ours, run_official, "official encoder, float32", note, rounds=3)
