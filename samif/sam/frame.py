"""From image pixels to the encoder's frame and back.

SAM resizes the longer side to `image_size` and pads right and bottom; low-resolution masks cover the padded square.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Frame:
    """An image of `height` x `width` pixels in an encoder's square of `image_size`."""

    height: int
    width: int
    image_size: int

    @property
    def scale(self) -> float:
        """Encoder pixels per image pixel."""
        return self.image_size / max(self.height, self.width)

    def to_encoder(self, points: Tensor) -> Tensor:
        """Points (..., 2) as (x, y): image pixels -> encoder pixels."""
        return points * self.scale

    def full_masks(self, logits: Tensor) -> Tensor:
        """Low-resolution logits (N, r, r) -> boolean masks (N, height, width) in image pixels."""
        side = max(self.height, self.width)
        large = F.interpolate(logits.unsqueeze(1).float(), (side, side), mode="bilinear", align_corners=False)
        return large[:, 0, : self.height, : self.width] > 0.0

    def low_masks(self, masks: Tensor, resolution: int) -> Tensor:
        """Masks (N, height, width) in image pixels -> the share of each cell that they cover (N, r, r)."""
        side = max(self.height, self.width)
        padded = F.pad(masks.float(), (0, side - self.width, 0, side - self.height))
        return F.interpolate(padded.unsqueeze(1), (resolution, resolution), mode="area")[:, 0]

    def inside(self, points: Tensor) -> Tensor:
        """Whether encoder points (..., 2) lie on the image, not on the padding."""
        return (points[..., 0] < self.width * self.scale) & (points[..., 1] < self.height * self.scale)


def grid_points(side: int, frame: Frame) -> Tensor:
    """A uniform grid of prompts over the image (side * side, 2), in encoder pixels (SAM-IF, prompting)."""
    steps = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    y, x = torch.meshgrid(steps * frame.height, steps * frame.width, indexing="ij")
    return frame.to_encoder(torch.stack([x.flatten(), y.flatten()], dim=1))
