"""Image pixels on their way into an encoder: the longer side at its size, normalised, padded right and bottom."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def resize_longest(
    image: NDArray[np.uint8], size: int, resample: Image.Resampling = Image.Resampling.BILINEAR
) -> Tensor:
    """An image (H, W, 3) uint8 RGB -> (3, h, w) uint8 with its longer side at `size`. Safe in several threads."""
    # as the official ResizeLongestSide, which needs torchvision for this one call of Pillow
    scale = size * 1.0 / max(image.shape[:2])
    height, width = (int(side * scale + 0.5) for side in image.shape[:2])
    return resize(image, height, width, resample)


def resize(
    image: NDArray[np.uint8], height: int, width: int, resample: Image.Resampling = Image.Resampling.BILINEAR
) -> Tensor:
    """An image (H, W, 3) uint8 RGB -> (3, height, width) uint8. Safe in several threads."""
    resized = Image.fromarray(image).resize((width, height), resample)
    return torch.from_numpy(np.asarray(resized).transpose(2, 0, 1).copy())


def padded_batch(prepared: Sequence[Tensor], size: int, mean: Tensor, std: Tensor) -> Tensor:
    """What `resize_longest` gave -> (N, 3, size, size) float32 where `mean` and `std` (3, 1, 1) lie, in 0..255.

    On a GPU, pixels travel as bytes from pinned memory.
    """
    device = mean.device
    batch = torch.zeros(len(prepared), 3, size, size, device=device)
    for row, image in zip(batch, prepared, strict=True):
        pixels = image.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else image
        row[:, : image.shape[1], : image.shape[2]] = (pixels.float() - mean) / std
    return batch
