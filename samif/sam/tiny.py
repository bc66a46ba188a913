"""`tiny`: a small SAM of the official package's own modules, 256 px, for the demo line and for tests.

Shape legend: N images; embedding (N, 256, 16, 16), its channels as `samif.sam.compact` says.
"""

from __future__ import annotations

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import Block
from torch import Tensor, nn
from torch.nn import functional as F

from samif.sam.compact import FINE, MID, Residual, build_compact, downsample, make_neck

IMAGE_SIZE = 256
GRID = 16


class TinyImageEncoder(nn.Module):
    """Residual convolutional stem, then global ViT blocks with relative positions, then SAM's neck."""

    img_size = IMAGE_SIZE

    def __init__(self, *, width: int = 128, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.stride4 = nn.Sequential(downsample(3, 16), downsample(16, 32), Residual(32))
        self.stride8 = nn.Sequential(downsample(32, 64), Residual(64))
        self.stride16 = nn.Sequential(downsample(64, width), Residual(width))
        self.pos_embed = nn.Parameter(torch.zeros(1, GRID, GRID, width))
        self.blocks = nn.ModuleList(
            Block(dim=width, num_heads=heads, use_rel_pos=True, window_size=0, input_size=(GRID, GRID))
            for _ in range(depth)
        )
        self.neck = make_neck(width)
        self.mid = nn.Conv2d(64, MID, 1)
        self.fine = nn.Conv2d(32, FINE, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 256, 256), normalised -> embeddings (N, 256, 16, 16)."""
        at4 = self.stride4(x)
        at8 = self.stride8(at4)
        tokens = self.stride16(at8).permute(0, 2, 3, 1) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        core = self.neck(tokens.permute(0, 3, 1, 2))
        return torch.cat([core, F.pixel_unshuffle(self.mid(at8), 2), F.pixel_unshuffle(self.fine(at4), 4)], dim=1)


def build_tiny() -> Sam:
    """A `tiny` with fresh random weights, on the current default device."""
    return build_compact(TinyImageEncoder(), GRID, IMAGE_SIZE)
