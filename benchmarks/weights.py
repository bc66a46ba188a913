"""Weights to time the vit_b architecture with: speed does not depend on what they are."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from segment_anything import sam_model_registry


def random_vit_b(folder: Path) -> Path:
    """A checkpoint of the official layout with random weights, in `folder`."""
    torch.manual_seed(0)
    path = folder / "random_vit_b.safetensors"
    save_file(sam_model_registry["vit_b"]().state_dict(), path)
    return path
