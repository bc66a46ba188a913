"""Checkpoints of the semantic encoder with random weights.

Official weights cannot be shipped: these have the very layout that timm's own model, or the authors' file, has.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

SMALL = "vit_tiny_patch16_224"
"""The smallest vision transformer of timm: 5.5 M parameters, patches of 16, 192 features."""


@cache
def weights(name: str, seed: int = 0) -> Mapping[str, Tensor]:
    """Random weights in the layout of timm's own model."""
    with torch.device("meta"):  # drawing them as timm does would take seconds
        layout = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
    generator = torch.Generator().manual_seed(seed)
    return {key: 0.05 * torch.randn(tensor.shape, generator=generator) for key, tensor in layout.items()}


def save(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """As .safetensors or .pth, by the name."""
    save_file(dict(tensors), path) if path.suffix == ".safetensors" else torch.save(dict(tensors), path)
    return path


def checkpoint(path: Path, name: str = SMALL, seed: int = 0) -> Path:
    """A file with random weights in timm's layout."""
    return save(weights(name, seed), path)
